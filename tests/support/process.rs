//! Child processes that end with the test and whose output explains a failure.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus},
    thread,
};

use lockgate::io::netns::Namespace;
use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

/// A running program. It is killed when dropped, and its output is shown if the test failed.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in `namespace`, its output in the file `NAME.log` of `folder`.
    pub(crate) fn start(
        namespace: &Namespace,
        name: &str,
        mut command: Command,
        folder: &Path,
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let child = namespace
            .spawn(command)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// What the program has printed so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Where the program reads, if its command has a pipe there.
    pub(crate) fn input(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().expect("a pipe to the program")
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the program ended, if it has.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Ends the program without any chance to clean up.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the program to end and waits for it.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        eventually("the program ends after SIGTERM", || {
            self.child.try_wait().unwrap()
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ending a process that has ended already is an error of no interest.
        let _: io::Result<()> = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            println!(
                "--- output of {}\n{}--- end of {}",
                self.name,
                self.output(),
                self.name
            );
        }
    }
}
