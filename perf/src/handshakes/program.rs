//! The programs, and how each is told to keep many tunnels.
//!
//! The initiator has a connection for each tunnel, with an identity of its own; the responder has one
//! connection for all of them. All share a secret. Neither has limits on half-open IKE SAs.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use lockgate::lab::{A, B};
use lockgate_perf::process::run;
use lockgate_perf::strongswan::settings;

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
                std::fs::write(&file, settings(&socket(folder, role), UNLIMITED))?;
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

/// A connection as its gateway has it, with one child of the same name; our side first.
struct Tunnel {
    name: String,
    ends: [Ipv4Addr; 2],
    ids: [String; 2],
    ts: [String; 2],
}

fn tunnels_of(role: Role, tunnels: u32) -> Vec<Tunnel> {
    let gateway = GATEWAY.to_owned();
    match role {
        Role::Responder => vec![Tunnel {
            name: "all".to_owned(),
            ends: [B.outer, A.outer],
            ids: [gateway, "*.example".to_owned()],
            ts: ["11.0.0.0/8", "10.0.0.0/8"].map(str::to_owned),
        }],
        Role::Initiator => {
            let numbers = 0..tunnels;
            let tunnels = numbers.map(|number| {
                let [x, y, z] = network(number);
                let name = name(number);
                Tunnel {
                    ids: [format!("{name}.example"), gateway.clone()],
                    name,
                    ends: [A.outer, B.outer],
                    ts: [10, 11].map(|first| format!("{first}.{x}.{y}.{z}/32")),
                }
            });
            tunnels.collect()
        }
    }
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
    for Tunnel {
        name,
        ends: [here, far],
        ids,
        ts,
    } in tunnels_of(role, tunnels)
    {
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
    }
    text
}

fn connections(role: Role, tunnels: u32) -> String {
    let mut text = String::from("connections {\n");
    for Tunnel {
        name,
        ends,
        ids,
        ts,
    } in tunnels_of(role, tunnels)
    {
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

/// Without limits on half-open IKE SAs, and without a look for an IKE SA that a new Child SA could use.
const UNLIMITED: &str = "    dos_protection = no
    reuse_ikesa = no
    ikesa_table_size = 4096
    ikesa_table_segments = 64
";
