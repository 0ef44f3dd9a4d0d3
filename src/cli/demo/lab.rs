//! Two hosts and two gateways on this machine, and the two daemons.
//!
//! ```text
//! host-a ───────── gateway-a ═══════════════ gateway-b ───────── host-b
//! 10.1.0.10     10.1.0.1  192.0.2.1    192.0.2.2  10.2.0.1     10.2.0.10
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use ipnet::{IpNet, Ipv4Net};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{CapabilitySet, capabilities},
};
use tempfile::TempDir;

use super::Failure;
use crate::{
    cli::client::{Client, ClientError},
    io::netns::{Namespace, become_root_in_user_namespace, connect},
    wire::vici::Message,
};

/// The four namespaces, cabled and addressed, without any tunnel.
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) host_a: Namespace,
    pub(super) gateway_a: Namespace,
    pub(super) gateway_b: Namespace,
    pub(super) host_b: Namespace,
}

/// What one side of the lab is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) identity: &'static str,
    pub(super) outer: Ipv4Addr,
    pub(super) inner: Ipv4Addr,
    pub(super) host: Ipv4Addr,
    pub(super) network: Ipv4Net,
}

/// The left side.
pub(super) const A: Side = Side {
    name: "gateway-a",
    identity: "gw-a.example",
    outer: Ipv4Addr::new(192, 0, 2, 1),
    inner: Ipv4Addr::new(10, 1, 0, 1),
    host: Ipv4Addr::new(10, 1, 0, 10),
    network: Ipv4Net::new_assert(Ipv4Addr::new(10, 1, 0, 0), 24),
};

/// The right side.
pub(super) const B: Side = Side {
    name: "gateway-b",
    identity: "gw-b.example",
    outer: Ipv4Addr::new(192, 0, 2, 2),
    inner: Ipv4Addr::new(10, 2, 0, 1),
    host: Ipv4Addr::new(10, 2, 0, 10),
    network: Ipv4Net::new_assert(Ipv4Addr::new(10, 2, 0, 0), 24),
};

/// The link between the gateways, as each of them calls it.
pub(super) const OUTER_LINK: &str = "outer";
const INNER_LINK: &str = "inner";
const MTU: u32 = 1500;

/// Sees to it that this process may create namespaces and TUN devices, or tells what is missing.
/// Returns how another process enters one of them: a command that lacks `--net=PATH`.
pub(super) fn prepare() -> Result<String, Failure> {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    let own = capabilities(None).map_err(io::Error::from)?.effective;
    let enter = if own.contains(needed) {
        let sudo = std::env::var_os("SUDO_USER").map_or("", |_| "sudo ");
        format!("{sudo}nsenter")
    } else {
        // A root without these, as in a container, may still have user namespaces.
        become_root_in_user_namespace().map_err(Failure::Namespaces)?;
        let user = format!("--user=/proc/{}/ns/user", std::process::id());
        format!("nsenter {user} --preserve-credentials")
    };
    drop(Namespace::new("probe").map_err(Failure::Namespaces)?);
    File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(Failure::Tun)?;
    Ok(enter)
}

impl Lab {
    /// Builds it.
    pub(super) fn build() -> io::Result<Self> {
        let lab = Self {
            host_a: Namespace::new("host-a")?,
            gateway_a: Namespace::new("gateway-a")?,
            gateway_b: Namespace::new("gateway-b")?,
            host_b: Namespace::new("host-b")?,
        };
        connect(
            (&lab.gateway_a, OUTER_LINK),
            (&lab.gateway_b, OUTER_LINK),
            MTU,
        )?;
        for (gateway, host, side) in [
            (&lab.gateway_a, &lab.host_a, A),
            (&lab.gateway_b, &lab.host_b, B),
        ] {
            connect((gateway, INNER_LINK), (host, INNER_LINK), MTU)?;
            gateway.add_address(OUTER_LINK, in_24(side.outer))?;
            gateway.add_address(INNER_LINK, in_24(side.inner))?;
            gateway.sysctl("ipv4/ip_forward", "1")?;
            host.add_address(INNER_LINK, in_24(side.host))?;
            host.add_route(IpNet::default(), IpAddr::V4(side.inner))?;
        }
        Ok(lab)
    }

    /// All four, from left to right.
    pub(super) fn namespaces(&self) -> [&Namespace; 4] {
        [&self.host_a, &self.gateway_a, &self.gateway_b, &self.host_b]
    }
}

fn in_24(address: Ipv4Addr) -> IpNet {
    IpNet::new(IpAddr::V4(address), 24).expect("24 is a prefix length of IPv4")
}

/// One `lockgate run` with its configuration file; it is ended when dropped.
#[derive(Debug)]
pub(super) struct Gateway {
    child: Child,
    side: Side,
    socket: PathBuf,
    log: PathBuf,
}

impl Gateway {
    /// Writes the configuration of `here` into `folder` and starts the daemon.
    pub(super) fn start(
        namespace: &Namespace,
        folder: &TempDir,
        here: Side,
        far: Side,
    ) -> Result<Self, Failure> {
        let file = |suffix| folder.path().join(format!("{}.{suffix}", here.name));
        let (config, log, socket) = (file("toml"), file("log"), file("vici"));
        write_private(&config, &configuration(here, far, &socket))?;
        let output = File::create(&log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run").arg("--config").arg(&config);
        command.stdin(std::process::Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        // Ctrl-C is for the demo, which then ends the daemons in order.
        command.process_group(0);
        let child = namespace.spawn(command)?;
        let mut gateway = Self {
            child,
            side: here,
            socket,
            log,
        };
        gateway.wait_until_ready()?;
        Ok(gateway)
    }

    /// Connects to the daemon's control socket.
    pub(super) fn control(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.socket)?)
    }

    /// The configuration file.
    pub(super) fn config(&self) -> PathBuf {
        self.log.with_extension("toml")
    }

    /// The daemon's process.
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// The end of what the daemon logged.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        lines
            .into_iter()
            .rev()
            .map(|line| format!("  {}: {line}\n", self.side.name))
            .collect()
    }

    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            let answer = Client::connect(&self.socket)
                .and_then(|mut c| c.command("version", Message::new()));
            match answer {
                Ok(_) => return Ok(()),
                Err(ClientError::Unreachable { .. }) if start.elapsed() < PATIENCE => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(Failure::Daemon {
                    name: self.side.name,
                    status,
                    words: self.last_words(),
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && self.child.try_wait().is_ok_and(|ended| ended.is_none())
            && kill_process(id, Signal::TERM).is_ok()
        {
            let start = Instant::now();
            while start.elapsed() < PATIENCE && self.child.try_wait().is_ok_and(|e| e.is_none()) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(here: Side, far: Side, socket: &Path) -> String {
    format!(
        r#"[daemon]
vici_socket = "{socket}"

[connections.demo]
version = 2
local_addrs = ["{local}"]
remote_addrs = ["{remote}"]
proposals = ["aes256gcm16-prfsha384-x25519"]
local = {{ auth = "psk", id = "{local_id}" }}
remote = {{ auth = "psk", id = "{remote_id}" }}

[connections.demo.children.lan]
local_ts = ["{local_ts}"]
remote_ts = ["{remote_ts}"]
esp_proposals = ["aes256gcm16-x25519-esn"]

[secrets.ike-demo]
id = ["{remote_id}"]
secret = "a demonstration, not a secret"
"#,
        socket = socket.display(),
        local = here.outer,
        remote = far.outer,
        local_id = here.identity,
        remote_id = far.identity,
        local_ts = here.network,
        remote_ts = far.network,
    )
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

/// How long a daemon may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(10);
