//! Programs under test: started in a namespace, watched, ended.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lockgate::io::netns::Namespace;
use rustix::process::{Pid, Signal, kill_process};

/// A process of a program under test. It is asked to end when dropped, and killed if it does not.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it in a namespace; what it prints goes to the file `log`.
    pub fn start(namespace: &Namespace, mut command: Command, log: PathBuf) -> Result<Self> {
        let output = File::create(&log)?;
        command.stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let name = command.get_program().to_owned();
        let child = namespace
            .spawn(command)
            .with_context(|| format!("cannot start {}", name.display()))?;
        Ok(Self { child, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Its resident set, in bytes.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        let kilobytes: u64 = kilobytes.context("no resident set")?.parse()?;
        Ok(kilobytes << 10)
    }

    /// The end of what it printed.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.iter().skip(lines.len().saturating_sub(8));
        last.map(|line| format!("\n    {line}")).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(id) = i32::try_from(self.id()).ok().and_then(Pid::from_raw)
            && self.is_alive()
            && kill_process(id, Signal::TERM).is_ok()
        {
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(3) && self.is_alive() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a short command that has to succeed.
pub fn run(mut command: Command) -> Result<String> {
    let name = command.get_program().to_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", name.display()))?;
    if !output.status.success() {
        let text = [output.stderr, output.stdout].concat();
        let text: String = String::from_utf8_lossy(&text).chars().take(300).collect();
        bail!("{}: {}", name.display(), text.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until `condition` holds, up to [`PATIENCE`].
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > PATIENCE {
            bail!("timed out waiting until {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// For what takes a moment.
pub const PATIENCE: Duration = Duration::from_secs(20);
