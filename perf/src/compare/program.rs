//! What is compared, and where its executable is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One row of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Program {
    Lockgate,
    LockgateChacha,
    LockgateEsp,
    StrongSwan,
    WireguardGo,
    #[serde(rename = "wireguard-go-2022")]
    WireguardGo2022,
    Boringtun,
    Gotatun,
    #[serde(rename = "openvpn")]
    OpenVpn,
    Forwarder,
    ForwarderSealed,
    ForwarderEsp,
    ForwarderPlain,
    Direct,
}

impl Program {
    pub(crate) const ALL: [Self; 14] = [
        Self::Lockgate,
        Self::LockgateChacha,
        Self::LockgateEsp,
        Self::StrongSwan,
        Self::WireguardGo,
        Self::WireguardGo2022,
        Self::Boringtun,
        Self::Gotatun,
        Self::OpenVpn,
        Self::Forwarder,
        Self::ForwarderSealed,
        Self::ForwarderEsp,
        Self::ForwarderPlain,
        Self::Direct,
    ];

    /// Programs of others.
    pub(crate) const PEERS: [Self; 6] = [
        Self::StrongSwan,
        Self::WireguardGo,
        Self::WireguardGo2022,
        Self::Boringtun,
        Self::Gotatun,
        Self::OpenVpn,
    ];

    /// Its name on the command line and in the results.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Lockgate => "lockgate",
            Self::LockgateChacha => "lockgate-chacha",
            Self::LockgateEsp => "lockgate-esp",
            Self::StrongSwan => "strong-swan",
            Self::WireguardGo => "wireguard-go",
            Self::WireguardGo2022 => "wireguard-go-2022",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
            Self::OpenVpn => "openvpn",
            Self::Forwarder => "forwarder",
            Self::ForwarderSealed => "forwarder-sealed",
            Self::ForwarderEsp => "forwarder-esp",
            Self::ForwarderPlain => "forwarder-plain",
            Self::Direct => "direct",
        }
    }

    /// Its name in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Lockgate => "Lockgate, AES-256-GCM",
            Self::LockgateChacha => "Lockgate, ChaCha20-Poly1305",
            Self::LockgateEsp => "Lockgate, raw protocol 50",
            Self::StrongSwan => "strongSwan kernel-libipsec, AES-256-GCM",
            Self::WireguardGo => "wireguard-go of 2025",
            Self::WireguardGo2022 => "wireguard-go of 2022",
            Self::Boringtun => "boringtun, one thread",
            Self::Gotatun => "gotatun",
            Self::OpenVpn => "OpenVPN 2.6 without DCO, AES-256-GCM",
            Self::Forwarder => "forwarder: super-packets, no cipher",
            Self::ForwarderSealed => "forwarder with cipher and guard",
            Self::ForwarderEsp => "forwarder, raw protocol 50",
            Self::ForwarderPlain => "forwarder without offloads",
            Self::Direct => "no VPN at all",
        }
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Lockgate | Self::LockgateChacha | Self::LockgateEsp
        )
    }

    pub(crate) fn is_peer(self) -> bool {
        Self::PEERS.contains(&self)
    }
}

impl std::str::FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|program| program.key() == text);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::key).join(", ");
            format!("no such program; there are {known}")
        })
    }
}

/// Where executables are.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) lockgate: PathBuf,
    pub(crate) forwarder: PathBuf,
    /// What `perf/peers` filled.
    pub(crate) peers: PathBuf,
}

impl Tools {
    /// The executable of a program; `None` for no program at all.
    pub(crate) fn executable(&self, program: Program) -> Option<PathBuf> {
        let path = match program {
            Program::Lockgate | Program::LockgateChacha | Program::LockgateEsp => {
                self.lockgate.clone()
            }
            Program::StrongSwan => PathBuf::from("/usr/sbin/charon-systemd"),
            Program::WireguardGo => self.peers.join("wireguard-go/usr/bin/wireguard-go"),
            Program::WireguardGo2022 => self.peers.join("wireguard-go-2022/usr/bin/wireguard-go"),
            Program::Boringtun => self.peers.join("boringtun/bin/boringtun-cli"),
            Program::Gotatun => self.peers.join("gotatun/bin/gotatun"),
            Program::OpenVpn => self.peers.join("openvpn/usr/sbin/openvpn"),
            Program::Forwarder
            | Program::ForwarderSealed
            | Program::ForwarderEsp
            | Program::ForwarderPlain => self.forwarder.clone(),
            Program::Direct => return None,
        };
        Some(path)
    }

    /// Whether a program can be started.
    pub(crate) fn has(&self, program: Program) -> bool {
        self.executable(program).is_none_or(|path| path.exists())
    }

    /// Folders with the libraries of an unpacked package.
    pub(crate) fn libraries(&self, package: &str) -> String {
        let root = self.peers.join(package);
        let folders = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        folders
            .map(|folder| root.join(folder).display().to_string())
            .join(":")
    }

    /// What a program says about its version, in one line.
    pub(crate) fn version(&self, program: Program) -> String {
        let Some(path) = self.executable(program) else {
            return String::new();
        };
        let mut command = match program {
            // charon-systemd has no switch for it.
            Program::StrongSwan => std::process::Command::new("/usr/sbin/swanctl"),
            Program::Forwarder
            | Program::ForwarderSealed
            | Program::ForwarderEsp
            | Program::ForwarderPlain => {
                return String::new();
            }
            _ => std::process::Command::new(path),
        };
        command.arg("--version");
        command.env("LD_LIBRARY_PATH", self.libraries("openvpn"));
        let text = command.output().map_or_else(
            |error| error.to_string(),
            |output| {
                let errors = String::from_utf8_lossy(&output.stderr).into_owned();
                String::from_utf8_lossy(&output.stdout).into_owned() + &errors
            },
        );
        let lines = text.lines().map(str::trim);
        let mut lines = lines.filter(|line| line.chars().any(|c| c.is_ascii_digit()));
        let line: String = lines.next().unwrap_or_default().chars().take(80).collect();
        // OpenVPN lists what it was built with.
        line.split(" [").next().unwrap_or_default().to_owned()
    }
}

/// The first of these that exists.
pub(crate) fn first_existing(paths: &[PathBuf]) -> Option<&Path> {
    paths
        .iter()
        .map(PathBuf::as_path)
        .find(|path| path.exists())
}
