//! The small roots of newer releases of Debian that `scripts/peers` unpacks, and what runs inside them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::{program, skip};

/// A folder that programs take for the whole file system. They cannot change it.
pub(crate) struct Root {
    folder: PathBuf,
    unshare: PathBuf,
}

/// Whether what a program starts ends with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Processes {
    Shared,
    Own,
}

impl Root {
    /// The one of Debian 13, with the kernel; `None`, with the test skipped, where it has not been unpacked.
    pub(crate) fn trixie() -> Option<Self> {
        Self::find("root")
    }

    /// The one of Debian forky.
    pub(crate) fn forky() -> Option<Self> {
        Self::find("root-forky")
    }

    fn find(name: &str) -> Option<Self> {
        let unshare = program("unshare", "util-linux")?;
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
        let peers = env::var_os("LOCKGATE_TEST_PEERS").map_or(built, PathBuf::from);
        let folder = peers.join(name);
        if !folder.join("made-by").exists() {
            skip("needs scripts/peers to have run");
            return None;
        }
        Some(Self { folder, unshare })
    }

    /// A command that runs `program` of this root, which sees `folder` under its own name.
    pub(crate) fn command(&self, program: &str, folder: &Path, processes: Processes) -> Command {
        let mut command = Command::new(&self.unshare);
        command.args(["--mount", "--propagation", "private"]);
        if processes == Processes::Own {
            command.args(["--pid", "--fork", "--kill-child"]);
        }
        command.args(["sh", "-euc", ENTER, "sh"]);
        command.arg(&self.folder).arg(folder).arg(program);
        command
    }
}

/// The root itself is bound to itself as read-only, so that what is mounted below it is not.
const ENTER: &str = r#"
root=$1 folder=$2
shift 2
mount --bind "$root" "$root"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root$folder"
mount --rbind "$folder" "$root$folder"
mount -o remount,bind,ro "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc" || mount --rbind /proc "$root/proc"
exec chroot "$root" "$@"
"#;
