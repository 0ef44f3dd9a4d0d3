//! The programs, and how each is told to keep many tunnels.
//!
//! The initiator has a connection for each tunnel, with an identity of its own; the responder has one
//! connection for all of them. All share a secret. Neither has limits on half-open IKE SAs.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use lockgate::lab::{A, B};
use lockgate_perf::process::run;

/// What opens the tunnels, on both gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Program {
    Lockgate,
    /// Debian's, with its ESP in user space (kernel-libipsec).
    #[value(name = "strongswan")]
    StrongSwan,
}

/// Which end of the handshakes a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        }
    }
}

impl Program {
    pub(crate) const ALL: [Self; 2] = [Self::Lockgate, Self::StrongSwan];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Lockgate => "Lockgate",
            Self::StrongSwan => "strongSwan",
        }
    }

    pub(crate) fn executable(self, lockgate: &Path) -> PathBuf {
        match self {
            Self::Lockgate => lockgate.to_owned(),
            Self::StrongSwan => PathBuf::from("/usr/sbin/charon-systemd"),
        }
    }

    /// How a daemon is started whose files are in `folder`, which gets them.
    pub(crate) fn command(
        self,
        executable: &Path,
        role: Role,
        tunnels: u32,
        folder: &Path,
    ) -> Result<Command> {
        let mut command = Command::new(executable);
        match self {
            Self::Lockgate => {
                let file = folder.join(format!("{}.toml", role.name()));
                std::fs::write(&file, configuration(role, tunnels, &socket(folder, role)))?;
                command.arg("run").arg("--config").arg(file);
            }
            Self::StrongSwan => {
                let file = folder.join(format!("{}.conf", role.name()));
                std::fs::write(&file, settings(&socket(folder, role)))?;
                command.env("STRONGSWAN_CONF", file);
            }
        }
        Ok(command)
    }

    /// Loads what the daemon does not load by itself.
    pub(crate) fn load(self, role: Role, tunnels: u32, folder: &Path) -> Result<()> {
        if self == Self::Lockgate {
            return Ok(());
        }
        let file = folder.join(format!("{}.swanctl.conf", role.name()));
        std::fs::write(&file, connections(role, tunnels))?;
        let mut command = Command::new("/usr/sbin/swanctl");
        let uri = format!("unix://{}", socket(folder, role).display());
        command.env(
            "STRONGSWAN_CONF",
            folder.join(format!("{}.conf", role.name())),
        );
        command.args(["--load-all", "--noprompt", "--uri", &uri, "--file"]);
        command.arg(file);
        run(command).map(drop)
    }
}

/// Where the daemon is told what to do.
pub(crate) fn socket(folder: &Path, role: Role) -> PathBuf {
    folder.join(format!("{}.vici", role.name()))
}

/// A tunnel's network behind the initiator; behind the responder it is the same with another first byte.
fn network(number: u32) -> [u8; 3] {
    let [_, a, b, c] = number.to_be_bytes();
    [a, b, c]
}

fn configuration(role: Role, tunnels: u32, socket: &Path) -> String {
    let socket = socket.display();
    let mut text = format!(
        r#"[daemon]
vici_socket = "{socket}"
crash_detection = false
dos_protection = false
log = "warn"

[secrets.ike]
secret = "{SECRET}"
"#
    );
    let mut connection = |name: &str, [here, far]: [&str; 2], ids: [&str; 2], ts: [&str; 2]| {
        let _ = write!(
            text,
            r#"
[connections.{name}]
local_addrs = ["{here}"]
remote_addrs = ["{far}"]
proposals = ["{IKE}"]
mobike = false
local = {{ auth = "psk", id = "{}" }}
remote = {{ auth = "psk", id = "{}" }}

[connections.{name}.children.{name}]
local_ts = ["{}"]
remote_ts = ["{}"]
esp_proposals = ["{ESP}"]
"#,
            ids[0], ids[1], ts[0], ts[1]
        );
    };
    let ends = [A.outer.to_string(), B.outer.to_string()];
    let [a, b] = [&*ends[0], &*ends[1]];
    match role {
        Role::Responder => connection(
            "all",
            [b, a],
            [GATEWAY, "*.example"],
            ["11.0.0.0/8", "10.0.0.0/8"],
        ),
        Role::Initiator => {
            for number in 0..tunnels {
                let [x, y, z] = network(number);
                let name = name(number);
                let id = format!("{name}.example");
                let ts = [format!("10.{x}.{y}.{z}/32"), format!("11.{x}.{y}.{z}/32")];
                connection(&name, [a, b], [&id, GATEWAY], [&ts[0], &ts[1]]);
            }
        }
    }
    text
}

/// The plugins of `perf/compare`. Without limits on half-open IKE SAs, and without a look for an IKE SA that
/// a new Child SA could use.
fn settings(socket: &Path) -> String {
    let socket = socket.display();
    format!(
        r#"charon-systemd {{
    load = random nonce openssl kdf curve25519 pem pubkey kernel-libipsec kernel-netlink socket-default vici updown
    dos_protection = no
    reuse_ikesa = no
    ikesa_table_size = 4096
    ikesa_table_segments = 64
    plugins {{
        vici {{
            socket = unix://{socket}
        }}
    }}
    filelog {{
        stdout {{
            default = 0
            flush_line = yes
        }}
    }}
}}
swanctl {{
    load = random openssl
}}
"#
    )
}

fn connections(role: Role, tunnels: u32) -> String {
    let mut text = String::from("connections {\n");
    let mut connection = |name: &str, ends: [String; 2], ids: [&str; 2], ts: [&str; 2]| {
        let _ = write!(
            text,
            r#"    {name} {{
        version = 2
        local_addrs = {}
        remote_addrs = {}
        mobike = no
        proposals = {IKE}
        local {{
            auth = psk
            id = {}
        }}
        remote {{
            auth = psk
            id = {}
        }}
        children {{
            {name} {{
                local_ts = {}
                remote_ts = {}
                esp_proposals = {ESP}
            }}
        }}
    }}
"#,
            ends[0], ends[1], ids[0], ids[1], ts[0], ts[1]
        );
    };
    let [a, b] = [A.outer.to_string(), B.outer.to_string()];
    match role {
        Role::Responder => connection(
            "all",
            [b, a],
            [GATEWAY, "*.example"],
            ["11.0.0.0/8", "10.0.0.0/8"],
        ),
        Role::Initiator => {
            for number in 0..tunnels {
                let [x, y, z] = network(number);
                let name = name(number);
                let id = format!("{name}.example");
                let ts = [format!("10.{x}.{y}.{z}/32"), format!("11.{x}.{y}.{z}/32")];
                connection(
                    &name,
                    [a.clone(), b.clone()],
                    [&id, GATEWAY],
                    [&ts[0], &ts[1]],
                );
            }
        }
    }
    let _ = write!(
        text,
        "}}\nsecrets {{\n    ike {{\n        secret = \"{SECRET}\"\n    }}\n}}\n"
    );
    text
}

/// What a tunnel's connection and its child are called.
pub(crate) fn name(number: u32) -> String {
    format!("t{number}")
}

const IKE: &str = "aes256gcm16-prfsha384-x25519";
const ESP: &str = "aes256gcm16";
const GATEWAY: &str = "gateway.example";
const SECRET: &str = "a comparison, not a secret";
