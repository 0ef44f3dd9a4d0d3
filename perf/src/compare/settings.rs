//! What a run changes outside of its namespaces, and how that is undone whatever ends it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, test_kill_process};

/// Sizes that new sockets get, which is a setting of the whole machine. Put back when dropped.
///
/// What they were is in a file until then, so that the end by a signal, a panic or, after a kill, the next run
/// can put them back as well.
#[derive(Debug)]
pub(crate) struct SocketDefaults(());

impl SocketDefaults {
    /// Gives sockets whose program does not ask for a size what the others ask for.
    pub(crate) fn set(bytes: usize) -> io::Result<Self> {
        change(&state(), &SETTINGS.map(PathBuf::from), &bytes.to_string())?;
        Ok(Self(()))
    }
}

impl Drop for SocketDefaults {
    fn drop(&mut self) {
        put_back();
    }
}

/// Undoes what this process has changed; nothing if that is nothing.
pub(crate) fn put_back() {
    let state = state();
    if let Err(error) = restore(&state) {
        // It can only be told.
        eprintln!("cannot restore what {} says: {error}", state.display());
    }
}

/// Clears up what runs that were killed have left, and tells what that was.
pub(crate) fn clear_leftovers() -> Vec<String> {
    let mut cleared = Vec::new();
    let mut clear = |folder: &Path, prefix, remove: fn(&Path) -> io::Result<()>| {
        for path in left_in(folder, prefix) {
            let failed = remove(&path)
                .err()
                .map(|error| format!(", which stays: {error}"));
            cleared.push(format!("{}{}", path.display(), failed.unwrap_or_default()));
        }
    };
    clear(Path::new(STATES), NAME, restore);
    clear(Path::new(WIREGUARD), DEVICE, |path| fs::remove_file(path));
    clear(&std::env::temp_dir(), NAME, |path| fs::remove_dir_all(path));
    cleared
}

fn state() -> PathBuf {
    Path::new(STATES).join(format!("{NAME}{}.settings", std::process::id()))
}

/// Files whose names have, after `prefix`, the number of a process that is gone.
fn left_in(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_left = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(rest) = name.strip_prefix(prefix) else {
            return false;
        };
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let process = digits.parse().ok().and_then(Pid::from_raw);
        process.is_some_and(|process| test_kill_process(process) == Err(rustix::io::Errno::SRCH))
    };
    entries.map(|entry| entry.path()).filter(is_left).collect()
}

/// Writes `value` to all `settings`, and before that what they are to the file `state`.
fn change(state: &Path, settings: &[PathBuf], value: &str) -> io::Result<()> {
    let mut before = String::new();
    for setting in settings {
        let value = fs::read_to_string(setting)?;
        before.push_str(&format!("{} {}\n", setting.display(), value.trim()));
    }
    fs::write(state, before)?;
    settings
        .iter()
        .try_for_each(|setting| fs::write(setting, value))
}

/// Writes back what the file `state` says, and removes it.
fn restore(state: &Path) -> io::Result<()> {
    let before = match fs::read_to_string(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        before => before?,
    };
    for (setting, value) in before.lines().filter_map(|line| line.rsplit_once(' ')) {
        fs::write(setting, value)?;
    }
    fs::remove_file(state)
}

/// What names of TUN devices, and so of control sockets, begin with; then comes the process id.
pub(crate) const DEVICE: &str = "lg";
/// The same of files and folders.
pub(crate) const NAME: &str = "lockgate-compare-";
const WIREGUARD: &str = "/var/run/wireguard";
const STATES: &str = "/run";
const SETTINGS: [&str; 2] = [
    "/proc/sys/net/core/rmem_default",
    "/proc/sys/net/core/wmem_default",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_run_that_was_killed_are_put_back_by_the_next() {
        let folder = tempfile::TempDir::new().expect("a place for files");
        let state = folder.path().join("state");
        let settings = ["one", "two"].map(|name| folder.path().join(name));
        let values = || {
            settings
                .clone()
                .map(|path| fs::read_to_string(path).expect("it is there"))
        };
        for setting in &settings {
            fs::write(setting, "212992\n").expect("a file");
        }
        change(&state, &settings, "8388608").expect("both can be written");
        assert_eq!(values(), ["8388608", "8388608"]);
        restore(&state).expect("both can be written");
        assert_eq!(values(), ["212992", "212992"]);
        assert!(!state.exists());
        restore(&state).expect("nothing to do");
    }

    #[test]
    fn only_what_belongs_to_no_running_process_is_left_over() {
        let folder = tempfile::TempDir::new().expect("a place for files");
        let own = format!("lg{}wa.sock", std::process::id());
        // Numbers of processes end at 2^22.
        for name in [&own, "lg4194999wa.sock", "lg.sock", "wg0.sock"] {
            fs::write(folder.path().join(name), "").expect("a file");
        }
        let left = left_in(folder.path(), "lg");
        assert_eq!(left, [folder.path().join("lg4194999wa.sock")]);
    }
}
