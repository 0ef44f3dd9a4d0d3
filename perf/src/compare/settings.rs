//! What a run changes outside of its namespaces, and how that is undone whatever ends it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, test_kill_process};

/// Sizes that new sockets get, which is a setting of the whole machine. Put back when dropped.
///
/// What they were is in a file until then, so that the end by a signal, a panic or, after a kill, the next run
/// can put them back as well. One run at a time has them changed.
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
    undo(&state());
}

fn undo(state: &Path) {
    if let Err(error) = restore(state) {
        // It can only be told.
        eprintln!("cannot restore what {} says: {error}", state.display());
    }
}

/// Clears up what runs that were killed have left, and tells what that was.
pub(crate) fn clear_leftovers() -> Vec<String> {
    let mut cleared = Vec::new();
    let mut clear =
        |folder: &Path, prefix, is_end: fn(&str) -> bool, remove: fn(&Path) -> io::Result<()>| {
            for path in left_in(folder, prefix, is_end) {
                let failed = remove(&path)
                    .err()
                    .map(|error| format!(", which stays: {error}"));
                cleared.push(format!("{}{}", path.display(), failed.unwrap_or_default()));
            }
        };
    let is_folder = |end: &str| end.starts_with('-');
    clear(Path::new(STATES), NAME, is_state, restore);
    clear(Path::new(WIREGUARD), DEVICE, is_control_socket, |path| {
        fs::remove_file(path)
    });
    clear(&std::env::temp_dir(), NAME, is_folder, |path| {
        fs::remove_dir_all(path)
    });
    cleared
}

/// Whether a control socket is called so after [`DEVICE`] and the process id: by its program and its side.
pub(crate) fn is_control_socket(end: &str) -> bool {
    let name = end.strip_suffix(".sock").unwrap_or_default();
    matches!(name.as_bytes(), [b'w' | b'o' | b'b' | b'g', b'a' | b'b'])
}

fn is_state(end: &str) -> bool {
    end == ".settings"
}

fn state() -> PathBuf {
    Path::new(STATES).join(format!("{NAME}{}.settings", std::process::id()))
}

/// Files whose names are `prefix`, the number of a process that is gone, and an end as it should be.
fn left_in(folder: &Path, prefix: &str, is_end: fn(&str) -> bool) -> Vec<PathBuf> {
    let mut files = of_processes(folder, prefix, is_end);
    files.retain(|(process, _)| is_gone(*process));
    files.into_iter().map(|(_, path)| path).collect()
}

fn of_processes(folder: &Path, prefix: &str, is_end: fn(&str) -> bool) -> Vec<(Pid, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of_process = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix(prefix)?;
        let end = name.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let process = name.strip_suffix(end)?.parse().ok()?;
        is_end(end).then_some((Pid::from_raw(process)?, path))
    };
    entries
        .filter_map(|entry| of_process(entry.path()))
        .collect()
}

fn is_gone(process: Pid) -> bool {
    test_kill_process(process) == Err(rustix::io::Errno::SRCH)
}

/// Writes `value` to all `settings`, and before that what they are to the file `state`. They stay as they
/// are if that fails, or if another run has them changed.
fn change(state: &Path, settings: &[PathBuf], value: &str) -> io::Result<()> {
    // Before others are looked for: of two runs that begin at once, at most one goes on.
    fs::write(state, "")?;
    let changed = change_alone(state, settings, value);
    if changed.is_err() {
        undo(state);
    }
    changed
}

fn change_alone(state: &Path, settings: &[PathBuf], value: &str) -> io::Result<()> {
    let states = of_processes(state.parent().unwrap_or(state), NAME, is_state);
    let mut others = states.into_iter().filter(|(_, path)| path != state);
    if let Some((process, path)) = others.find(|(process, _)| !is_gone(*process)) {
        return Err(io::Error::other(format!(
            "another run, process {process}, has them changed until its programs run; try again then ({})",
            path.display()
        )));
    }
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
        // What could not be changed cannot be written now either.
        if fs::read_to_string(setting)?.trim() != value {
            fs::write(setting, value)?;
        }
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
    fn settings_are_as_before_if_one_of_them_cannot_be_changed() {
        let folder = tempfile::TempDir::new().expect("a place for files");
        let [state, setting] = ["state", "one"].map(|name| folder.path().join(name));
        fs::write(&setting, "212992\n").expect("a file");
        // Nobody may write to it, whoever they are.
        let fixed = PathBuf::from("/proc/sys/kernel/ostype");
        change(&state, &[setting.clone(), fixed], "Linux").expect_err("one cannot be written");
        assert_eq!(fs::read_to_string(setting).expect("a file"), "212992");
        assert!(!state.exists());
    }

    #[test]
    fn a_run_refuses_to_change_what_a_living_one_has_changed() {
        let folder = tempfile::TempDir::new().expect("a place for files");
        let [state, setting] = ["state", "one"].map(|name| folder.path().join(name));
        fs::write(&setting, "8388608").expect("a file");
        let of = |process: u32| {
            let name = format!("{NAME}{process}.settings");
            folder.path().join(name)
        };
        fs::write(of(std::process::id()), "").expect("a file");
        let settings = [setting.clone()];
        let error = change(&state, &settings, "1").expect_err("somebody is at it");
        let process = format!("process {},", std::process::id());
        assert!(error.to_string().contains(&process), "{error}");
        assert_eq!(fs::read_to_string(&setting).expect("a file"), "8388608");
        assert!(!state.exists() && of(std::process::id()).exists());
        fs::rename(of(std::process::id()), of(4_194_999)).expect("a file");
        change(&state, &settings, "1").expect("that one was killed");
    }

    #[test]
    fn only_what_belongs_to_no_running_process_is_left_over() {
        let folder = tempfile::TempDir::new().expect("a place for files");
        let own = format!("lg{}wa.sock", std::process::id());
        // Numbers of processes end at 2^22.
        let foreign = ["lg.sock", "lg4194999.sock", "lg4194999wan.sock", "wg0.sock"];
        for name in [&*own, "lg4194999wa.sock"].into_iter().chain(foreign) {
            fs::write(folder.path().join(name), "").expect("a file");
        }
        let left = left_in(folder.path(), "lg", is_control_socket);
        assert_eq!(left, [folder.path().join("lg4194999wa.sock")]);
    }
}
