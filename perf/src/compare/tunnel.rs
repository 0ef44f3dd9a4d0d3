//! A lab with one program on its two gateways.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lockgate::{
    io::netns::Namespace,
    lab::{A, B, Lab, LabOptions, OUTER_LINK, Side},
};
use lockgate_perf::process::{PATIENCE, Process};
use tempfile::TempDir;

use crate::{
    peers,
    program::{Program, Tools},
    settings::NAME,
};

/// What every program's tunnel carries, and so the MTU of the hosts.
pub(crate) const INNER_MTU: u32 = 1400;
/// What each program is told to ask for its sockets; the kernel grants twice as much.
pub(crate) const SOCKET_BUFFER: usize = 4 << 20;

/// Four namespaces, with a program on both gateways, through which the hosts reach each other.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) program: Program,
    /// The gateways' processes; none where the kernel forwards alone. They end before the namespaces,
    /// whose end would kill them.
    pub(crate) processes: Vec<Process>,
    pub(crate) lab: Lab,
    /// Configurations and logs.
    folder: TempDir,
}

/// How the link between the gateways treats trains of datagrams.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// It carries them whole, as links between namespaces do.
    AsIs,
    /// It carries datagrams one by one, as a wire does.
    Wire,
}

impl Mode {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::AsIs => "as is",
            Self::Wire => "wire",
        }
    }
}

impl Tunnel {
    /// Builds the lab, starts the program on both gateways and waits until a datagram gets through.
    pub(crate) fn start(program: Program, tools: &Tools) -> Result<Self> {
        let options = LabOptions {
            inner_mtu: INNER_MTU,
            ..LabOptions::default()
        };
        let lab = Lab::build(&options).context("cannot build the lab")?;
        let mut tunnel = Self {
            program,
            lab,
            processes: Vec::new(),
            folder: TempDir::with_prefix(format!("{NAME}{}-", std::process::id()))?,
        };
        let started = match program {
            Program::Lockgate | Program::LockgateChacha | Program::LockgateEsp => {
                peers::lockgate::start(&mut tunnel, tools)
            }
            Program::StrongSwan => peers::strongswan::start(&mut tunnel, tools),
            Program::WireguardGo
            | Program::WireguardGo2022
            | Program::Boringtun
            | Program::Gotatun => peers::wireguard::start(&mut tunnel, tools),
            Program::OpenVpn => peers::openvpn::start(&mut tunnel, tools),
            Program::Forwarder
            | Program::ForwarderSealed
            | Program::ForwarderEsp
            | Program::ForwarderPlain => peers::forwarder::start(&mut tunnel, tools),
            Program::Direct => peers::direct(&tunnel),
        };
        started
            .and_then(|()| tunnel.wait_until_it_carries())
            .with_context(|| format!("{}{}", program.title(), tunnel.last_words()))?;
        Ok(tunnel)
    }

    /// Both sides with their gateways.
    pub(crate) fn sides(&self) -> [(Side, Side, &Namespace); 2] {
        [(A, B, &self.lab.gateway_a), (B, A, &self.lab.gateway_b)]
    }

    /// A file for the program.
    pub(crate) fn file(&self, side: Side, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("{}.{suffix}", side.name))
    }

    /// Writes a file for the program.
    pub(crate) fn write(&self, side: Side, suffix: &str, text: &str) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.file(side, suffix);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// Starts the program on one gateway.
    pub(crate) fn spawn(&mut self, side: Side, command: Command) -> Result<()> {
        let log = self.file(side, "log");
        let gateway = if side.name == A.name {
            &self.lab.gateway_a
        } else {
            &self.lab.gateway_b
        };
        self.processes.push(Process::start(gateway, command, log)?);
        Ok(())
    }

    /// Whether all processes of the program still run.
    pub(crate) fn is_alive(&mut self) -> bool {
        let mut processes = self.processes.iter_mut();
        processes.all(Process::is_alive)
    }

    /// The processes of both gateways.
    pub(crate) fn process_ids(&self) -> Vec<u32> {
        let each = self.processes.iter();
        each.map(Process::id).collect()
    }

    /// The larger resident set of the two processes, in bytes.
    pub(crate) fn resident(&self) -> Option<u64> {
        let each = self.processes.iter();
        each.filter_map(|process| process.resident().ok()).max()
    }

    /// Lets the link between the gateways carry trains of datagrams whole, or not.
    pub(crate) fn set_mode(&self, mode: Mode) -> Result<()> {
        for gateway in [&self.lab.gateway_a, &self.lab.gateway_b] {
            let whole = mode == Mode::AsIs;
            gateway.set_feature(OUTER_LINK, "tx-udp-segmentation", whole)?;
        }
        Ok(())
    }

    /// Sends datagrams from host A until host B has heard one and host A its echo.
    pub(crate) fn wait_until_it_carries(&mut self) -> Result<()> {
        let address = std::net::SocketAddr::from((B.host, PROBE_PORT));
        let server = self
            .lab
            .host_b
            .run(move || std::net::UdpSocket::bind(address))?;
        let client = self
            .lab
            .host_a
            .run(|| std::net::UdpSocket::bind("0.0.0.0:0"))?;
        server.set_read_timeout(Some(STEP))?;
        client.set_read_timeout(Some(STEP))?;
        let start = Instant::now();
        let mut buffer = [0; 64];
        while start.elapsed() < PATIENCE {
            // Without a route yet it is refused, which is no reason to stop.
            let _ = client.send_to(b"anybody there?", address);
            if let Ok((_, from)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(b"yes", from);
                if client.recv_from(&mut buffer).is_ok() {
                    return Ok(());
                }
            }
            if !self.is_alive() {
                bail!("the program has ended");
            }
        }
        bail!("nothing gets through after {} s", start.elapsed().as_secs())
    }

    /// The end of what the program printed.
    pub(crate) fn last_words(&self) -> String {
        self.processes.iter().map(Process::last_words).collect()
    }
}

const PROBE_PORT: u16 = 7;
const STEP: Duration = Duration::from_millis(200);
