//! A Linux kernel in user mode (Debian's user-mode-linux) as gateway B of a lab: for its ESP, and for peers that
//! have none of their own.

use std::{
    cell::RefCell,
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Stdio,
    thread,
    time::Duration,
};

use super::{
    eventually,
    lab::{INNER, Lab, OUTER},
    process::Process,
    root::{Processes, Root},
};

/// A running kernel. Its links `vec0` and `vec1` are those of the gateway, `outer` and `inner`.
pub(crate) struct Guest {
    process: RefCell<Process>,
    folder: PathBuf,
}

impl Guest {
    /// Boots it on gateway B; `None`, with the test skipped, where that is impossible.
    pub(crate) fn boot(lab: &Lab) -> Option<Self> {
        let root = Root::trixie()?;
        let folder = lab.folder.path();
        let init = folder.join("guest.sh");
        fs::write(&init, include_str!("guest.sh")).unwrap();
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = root.command("/usr/bin/linux.uml", folder, Processes::Own);
        command.args([
            "mem=256M",
            "seccomp=auto",
            "uml_dir=/tmp/",
            "quiet",
            "loglevel=1",
        ]);
        command.args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"]);
        command.args(["con=null", "con0=fd:0,fd:1", "ssl=null"]);
        for (number, link) in [OUTER, INNER].into_iter().enumerate() {
            command.arg(format!("vec{number}:transport=raw,ifname={link}"));
        }
        command.arg(format!("init={}", init.display()));
        command.stdin(Stdio::piped());
        let process = Process::start(&lab.gateway_b, "guest", command, folder);
        let guest = Self {
            process: RefCell::new(process),
            folder: folder.to_owned(),
        };
        assert_eq!(guest.answer(0).0, 0);
        Some(guest)
    }

    /// A file that the guest reads under the path that is returned.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs one line of shell in the guest, which has to succeed, and returns what it printed.
    #[track_caller]
    pub(crate) fn run(&self, line: &str) -> String {
        let (code, text) = self.attempt(line);
        assert_eq!(code, 0, "{line}: {text}");
        text
    }

    /// Runs one line of shell in the guest and returns its exit code and what it printed.
    #[track_caller]
    pub(crate) fn attempt(&self, line: &str) -> (i32, String) {
        let before = self.process.borrow().output().len();
        let mut process = self.process.borrow_mut();
        writeln!(process.input(), "{line}").unwrap();
        drop(process);
        self.answer(before)
    }

    /// What the console shows from there on, up to the end of a command.
    #[track_caller]
    fn answer(&self, from: usize) -> (i32, String) {
        eventually("the guest answers", || {
            let output = self.process.borrow().output();
            let (text, end) = output.get(from..)?.rsplit_once("[exit ")?;
            let (code, _) = end.split_once(']')?;
            Some((code.parse().ok()?, text.to_owned()))
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if thread::panicking() {
            // It goes the way of all output, which ends when the guest does.
            let line = "tail -n 100 /run/*.log; ip -s link; ip neighbor; cat /proc/net/udp";
            let _: io::Result<()> = writeln!(self.process.get_mut().input(), "{line}");
            thread::sleep(Duration::from_millis(500));
        }
    }
}
