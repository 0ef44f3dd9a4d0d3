//! Debian's strongSwan as a peer, with its ESP in user space (kernel-libipsec).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use lockgate::io::netns::Namespace;

use super::{
    eventually,
    process::Process,
    program,
    root::{Processes, Root},
    skip,
};

/// A running charon-systemd with its own configuration, socket and log.
pub(crate) struct StrongSwan {
    pub(crate) process: Process,
    programs: Programs,
    folder: PathBuf,
    socket: PathBuf,
    settings: PathBuf,
}

/// Whose package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Debian {
    /// The one installed here: 5.9.8 in Debian 12.
    Installed,
    /// 6.0.1 of Debian 13, in a root of its own.
    Trixie,
    /// 6.1.0 of Debian forky, in one too: it has ML-KEM.
    Forky,
}

/// Where the peer's programs are; `None`, with the test skipped, where they are not installed.
pub(crate) enum Programs {
    Installed { daemon: PathBuf, swanctl: PathBuf },
    Unpacked(Root),
}

impl Programs {
    pub(crate) fn find(debian: Debian) -> Option<Self> {
        match debian {
            Debian::Installed => Self::installed(),
            Debian::Trixie => Root::trixie().map(Self::Unpacked),
            Debian::Forky => Root::forky().map(Self::Unpacked),
        }
    }

    fn installed() -> Option<Self> {
        let daemon = program("charon-systemd", "charon-systemd")?;
        let swanctl = program("swanctl", "strongswan-swanctl")?;
        for (plugin, package) in [
            ("kernel-libipsec", "libcharon-extra-plugins"),
            ("openssl", "libstrongswan-standard-plugins"),
            ("chapoly", "libstrongswan-extra-plugins"),
            ("ccm", "libstrongswan-extra-plugins"),
            ("ctr", "libstrongswan-extra-plugins"),
            ("cmac", "libstrongswan-extra-plugins"),
            ("curl", "libstrongswan-extra-plugins"),
        ] {
            let file = format!("/usr/lib/ipsec/plugins/libstrongswan-{plugin}.so");
            if !Path::new(&file).exists() {
                skip(&format!(
                    "needs strongSwan's plugin {plugin} (Debian package {package})"
                ));
                return None;
            }
        }
        Some(Self::Installed { daemon, swanctl })
    }

    fn daemon(&self, folder: &Path) -> Command {
        match self {
            Self::Installed { daemon, .. } => Command::new(daemon),
            Self::Unpacked(root) => {
                root.command("/usr/sbin/charon-systemd", folder, Processes::Shared)
            }
        }
    }

    fn swanctl(&self, folder: &Path) -> Command {
        match self {
            Self::Installed { swanctl, .. } => Command::new(swanctl),
            Self::Unpacked(root) => root.command("/usr/sbin/swanctl", folder, Processes::Shared),
        }
    }
}

impl StrongSwan {
    /// Starts a daemon in `namespace` and loads `config`, which is in the syntax of swanctl.conf.
    ///
    /// Credentials are those in `swanctl` of `folder`; what stands in `more.conf` there is added to
    /// the daemon's settings.
    pub(crate) fn start(
        programs: Programs,
        namespace: &Namespace,
        folder: &Path,
        config: &str,
    ) -> Self {
        let settings = folder.join("strongswan.conf");
        let socket = folder.join("charon.vici");
        // Its standard output is written only when a buffer is full, whatever `flush_line` says.
        let log = folder.join("strongswan.log");
        fs::write(&settings, strongswan_conf(&socket, &log, folder)).unwrap();
        let mut command = programs.daemon(folder);
        command.env("STRONGSWAN_CONF", &settings);
        let process = Process::start(namespace, "strongswan", command, folder);
        let this = Self {
            process,
            programs,
            folder: folder.to_owned(),
            socket,
            settings,
        };
        eventually("strongSwan opens its control socket", || {
            this.socket.exists().then_some(())
        });
        let file = folder.join("swanctl/swanctl.conf");
        fs::create_dir_all(folder.join("swanctl")).unwrap();
        fs::write(&file, config).unwrap();
        let loaded = this.swanctl(&[
            "--load-all",
            "--noprompt",
            "--file",
            &file.to_string_lossy(),
        ]);
        assert!(loaded.status.success(), "{loaded:?}");
        this
    }

    /// Runs `swanctl` with these arguments against this daemon.
    pub(crate) fn swanctl(&self, arguments: &[&str]) -> Output {
        self.run(arguments, &format!("unix://{}", self.socket.display()))
    }

    fn run(&self, arguments: &[&str], uri: &str) -> Output {
        let mut command = self.programs.swanctl(&self.folder);
        command.args(arguments).args(["--uri", uri]);
        command
            .env("STRONGSWAN_CONF", &self.settings)
            .output()
            .unwrap()
    }

    /// Runs `swanctl`, which has to succeed, and returns what it printed.
    #[track_caller]
    pub(crate) fn swanctl_ok(&self, arguments: &[&str]) -> String {
        succeeded(arguments, &self.swanctl(arguments))
    }

    /// The same against another daemon's socket.
    #[track_caller]
    pub(crate) fn swanctl_at(&self, arguments: &[&str], uri: &str) -> String {
        succeeded(arguments, &self.run(arguments, uri))
    }

    /// What `swanctl --list-sas` prints.
    pub(crate) fn sas(&self) -> String {
        self.swanctl_ok(&["--list-sas"])
    }
}

#[track_caller]
fn succeeded(arguments: &[&str], output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "swanctl {arguments:?}: {text}{errors}"
    );
    text
}

fn strongswan_conf(socket: &Path, log: &Path, folder: &Path) -> String {
    format!(
        r#"
charon-systemd {{
    load = random nonce aes sha1 sha2 md5 hmac kdf gcm ccm ctr cmac xcbc openssl curve25519 chapoly pem pkcs1 pkcs8 x509 pubkey constraints revocation curl kernel-libipsec kernel-netlink socket-default vici updown
    plugins {{
        vici {{
            socket = unix://{socket}
        }}
    }}
    filelog {{
        all {{
            path = {log}
            append = yes
            default = 1
            ike = 2
            flush_line = yes
        }}
    }}
    retransmit_timeout = {timeout}
    retransmit_tries = 3
    fragment_size = 576
}}
swanctl {{
    load = random openssl curve25519 pem pkcs1 pkcs8 x509 pubkey vici
}}
include {folder}/more.conf
"#,
        socket = socket.display(),
        folder = folder.display(),
        log = log.display(),
        timeout = RETRANSMIT.as_secs(),
    )
}

const RETRANSMIT: Duration = Duration::from_secs(1);
