//! A daemon of ours in a namespace of the lab.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::{Client, ClientError};
use crate::{io::netns::Namespace, lab::Side, wire::vici::Message};

/// Why there is no gateway to talk to.
#[derive(Debug, thiserror::Error)]
pub(super) enum GatewayError {
    #[error("{name} did not start ({status}):\n{words}")]
    Daemon {
        name: &'static str,
        status: ExitStatus,
        words: String,
    },
    #[error("the gateways could not agree on a tunnel: {0}")]
    NoTunnel(String),
    #[error("control socket: {0}")]
    Control(#[from] ClientError),
    #[error(transparent)]
    Io(#[from] io::Error),
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
    ) -> Result<Self, GatewayError> {
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
    pub(super) fn control(&self) -> Result<Client, GatewayError> {
        Ok(Client::connect(&self.socket)?)
    }

    /// Brings a child up and returns how long that took.
    pub(super) fn initiate(&self, ike: &str, child: &str) -> Result<Duration, GatewayError> {
        let mut control = self.control()?;
        let mut request = Message::new();
        request
            .set("child", child)
            .set("ike", ike)
            .set("timeout", 10_000);
        let start = Instant::now();
        let answer = control.command("initiate", request)?;
        let time = start.elapsed();
        if answer.get("success") == Some("yes") {
            return Ok(time);
        }
        let reason = answer.get("errmsg").unwrap_or("no reason given");
        Err(GatewayError::NoTunnel(reason.to_owned()))
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

    fn wait_until_ready(&mut self) -> Result<(), GatewayError> {
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
                return Err(GatewayError::Daemon {
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
state_dir = "{state}"

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
        state = socket.with_extension("state").display(),
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
