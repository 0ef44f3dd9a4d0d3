//! The folder for secrets that outlive the process (`state_dir`).

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    ops::Range,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use getrandom::SysRng;
use rand_core::TryRng;
use rustix::{
    fs::{FlockOperation, flock},
    process::geteuid,
};
use tempfile::NamedTempFile;

use crate::{config::DaemonConfig, crypto::Secret, ike::TicketKeys};

/// The folder, which is this process's own as long as this value lives.
#[derive(Debug)]
pub(super) struct StateDir {
    folder: PathBuf,
    lock: File,
}

/// What was found there, or put there.
#[derive(Debug, Default)]
pub(super) struct State {
    /// For crash detection tokens, if they are wanted.
    pub(super) crash_secret: Option<Arc<Secret>>,
    dir: Option<StateDir>,
    /// The keys of tickets were looked at, and will be when this is over: seconds since 1970.
    looked_at: Range<u64>,
}

impl State {
    /// Reads the state, or begins it. What is not to be had is done without, with a warning: no tunnel
    /// depends on it.
    pub(super) fn load(config: &DaemonConfig) -> Self {
        if !config.crash_detection {
            return Self::default();
        }
        let loaded = StateDir::open(&config.state_dir).and_then(|dir| {
            let crash_secret = dir.secret("qcd.secret")?;
            Ok(Self {
                crash_secret: Some(Arc::new(crash_secret)),
                dir: Some(dir),
                ..Self::default()
            })
        });
        loaded.unwrap_or_else(|error| {
            let folder = config.state_dir.display();
            tracing::warn!(%folder, %error, "no crash detection tokens for peers");
            Self::default()
        })
    }

    /// Keys for tickets, if there are other ones than before. `time` is in seconds since 1970.
    pub(super) fn ticket_keys(&mut self, folder: &Path, time: u64) -> Option<TicketKeys> {
        if self.looked_at.contains(&time) {
            return None;
        }
        let dir = match self.dir.take() {
            Some(dir) => Ok(dir),
            None => StateDir::open(folder),
        };
        let found = dir.and_then(|dir| self.dir.insert(dir).ticket_keys(time));
        match found {
            Ok((keys, lifetime)) => {
                self.looked_at = lifetime;
                Some(keys)
            }
            Err(error) => {
                let folder = folder.display();
                tracing::warn!(%folder, %error, "no new keys for the tickets of peers");
                self.looked_at = time..time.saturating_add(RETRY);
                None
            }
        }
    }
}

impl StateDir {
    /// Opens the folder, or makes it, for its owner alone. Two daemons with one secret could be asked for
    /// each other's tokens (RFC 6290 §9.2), so the second one does not get it.
    fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        check_folder(&fs::metadata(folder)?, geteuid().as_raw())?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(0o600);
        let lock = options.custom_flags(FLAGS).open(folder.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => io::Error::other("another process uses the folder"),
            error => error.into(),
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            lock,
        })
    }

    /// A secret of 32 random bytes: the one in the file of this name, or a new one, which is there as a
    /// whole or not at all.
    fn secret(&self, name: &str) -> io::Result<Secret> {
        let path = self.folder.join(name);
        let mut options = OpenOptions::new();
        match options.read(true).custom_flags(FLAGS).open(&path) {
            Ok(file) => read(file, &[SECRET_LEN]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(&path),
            Err(error) => Err(error),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Secret> {
        let secret = draw()?;
        self.write(&secret)?.persist_noclobber(path)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(secret)
    }

    /// A file that has no name yet.
    fn write(&self, secret: &Secret) -> io::Result<NamedTempFile> {
        let mut file = NamedTempFile::new_in(&self.folder)?; // mode 0600
        file.write_all(secret.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    }

    /// The keys of tickets at this time, and how long they stay. One that is too old, or from a time to
    /// come, gives its place to a new one and is kept besides it.
    fn ticket_keys(&self, time: u64) -> io::Result<(TicketKeys, Range<u64>)> {
        let path = self.folder.join("tickets.keys");
        let mut options = OpenOptions::new();
        let records = match options.read(true).custom_flags(FLAGS).open(&path) {
            Ok(file) => Some(read(file, &[RECORD_LEN, 2 * RECORD_LEN])?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let records = records.as_ref().map_or(&[][..], Secret::as_bytes);
        let (records, _) = records.as_chunks::<RECORD_LEN>();
        let records = records.iter().filter_map(|record| {
            let (made, key) = record.split_first_chunk::<8>()?;
            Some((u64::from_be_bytes(*made), Secret::copy_from(key)))
        });
        let mut records: Vec<_> = records
            .filter(|(made, _)| *made > time || time < opens_until(*made))
            .collect();
        let current = records
            .iter()
            .position(|(made, _)| lifetime(*made).contains(&time));
        if let Some(current) = current {
            let (made, current) = records.remove(current);
            let previous = records.pop().map(|(_, key)| key);
            return Ok((TicketKeys { current, previous }, lifetime(made)));
        }
        let last = records.into_iter().max_by_key(|(made, _)| *made);
        self.replace_ticket_keys(&path, time, last)
    }

    fn replace_ticket_keys(
        &self,
        path: &Path,
        time: u64,
        previous: Option<(u64, Secret)>,
    ) -> io::Result<(TicketKeys, Range<u64>)> {
        let current = draw()?;
        let mut records = Vec::with_capacity(2 * RECORD_LEN);
        records.extend_from_slice(&time.to_be_bytes());
        records.extend_from_slice(current.as_bytes());
        if let Some((made, key)) = &previous {
            records.extend_from_slice(&made.to_be_bytes());
            records.extend_from_slice(key.as_bytes());
        }
        self.write(&Secret::from(records))?.persist(path)?;
        File::open(&self.folder)?.sync_all()?;
        let previous = previous.map(|(_, key)| key);
        Ok((TicketKeys { current, previous }, lifetime(time)))
    }
}

/// A process that is just being started has a copy of the descriptor, which would keep the lock.
impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = flock(&self.lock, FlockOperation::Unlock); // what cannot be unlocked is closed
    }
}

/// When a key seals that was made at this time.
fn lifetime(made: u64) -> Range<u64> {
    made..made.saturating_add(TicketKeys::LIFE.as_secs())
}

/// When the last ticket has expired that a key has sealed which was made at this time.
fn opens_until(made: u64) -> u64 {
    made.saturating_add(2 * TicketKeys::LIFE.as_secs())
}

fn draw() -> io::Result<Secret> {
    let mut bytes = vec![0; SECRET_LEN];
    let drawn = SysRng.try_fill_bytes(&mut bytes);
    drawn.map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Secret::from(bytes))
}

/// What is in a file of one of these lengths.
fn read(file: File, lengths: &[usize]) -> io::Result<Secret> {
    check(&file.metadata()?)?;
    let longest = lengths.iter().max().map_or(0, |length| length + 1);
    let mut bytes = Vec::with_capacity(longest);
    let longest = u64::try_from(longest).unwrap_or(u64::MAX);
    file.take(longest).read_to_end(&mut bytes)?;
    let secret = Secret::from(bytes);
    if lengths.contains(&secret.len()) {
        return Ok(secret);
    }
    Err(io::Error::other(
        "the secret has not its length; remove its file for a new one",
    ))
}

/// Whoever owns a folder, or may write to it, may put another secret into it.
fn check_folder(metadata: &Metadata, user: u32) -> io::Result<()> {
    if metadata.uid() != user {
        let (owner, we) = (metadata.uid(), user);
        let reason = format!("the folder belongs to user {owner}, and this process is user {we}");
        return Err(io::Error::other(reason));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        let reason = format!("others may write to the folder (mode {mode:04o}; 0700 is safe)");
        return Err(io::Error::other(reason));
    }
    Ok(())
}

fn check(metadata: &Metadata) -> io::Result<()> {
    if metadata.uid() != geteuid().as_raw() {
        return Err(io::Error::other(
            "the secret belongs to somebody else; remove its file for a new one",
        ));
    }
    if !metadata.is_file() {
        return Err(io::Error::other("the secret is not in a file"));
    }
    if metadata.permissions().mode() & OTHERS != 0 {
        return Err(io::Error::other(
            "others may read the secret; remove its file for a new one",
        ));
    }
    Ok(())
}

const SECRET_LEN: usize = 32;
/// When a key was made, in seconds since 1970, and the key.
const RECORD_LEN: usize = 8 + SECRET_LEN;
/// Seconds after which a folder that failed is tried again.
const RETRY: u64 = 3600;
const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    }

    #[test]
    fn a_secret_is_for_its_owner_alone_and_stays_the_same() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("state");
        let first = StateDir::open(&folder).expect("it is made");
        let secret = first.secret("one").expect("it is made");
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("one")), 0o600);
        assert_eq!(secret.len(), 32);
        assert_ne!(secret, first.secret("two").expect("it is made"));
        drop(first);
        let second = StateDir::open(&folder).expect("it is there");
        assert_eq!(secret, second.secret("one").expect("it is there"));
        let names = fs::read_dir(&folder).expect("it can be listed").count();
        assert_eq!(names, 3, "the lock and two secrets");
    }

    #[test]
    fn a_folder_has_one_user_at_a_time_and_no_other_writer() {
        let home = tempfile::tempdir().expect("a folder");
        let first = StateDir::open(home.path()).expect("it is free");
        assert!(StateDir::open(home.path()).is_err());
        drop(first);
        let open = fs::Permissions::from_mode(0o770);
        fs::set_permissions(home.path(), open).expect("it is ours");
        assert!(StateDir::open(home.path()).is_err());
    }

    #[test]
    fn the_folder_of_somebody_else_is_not_used() {
        let home = tempfile::tempdir().expect("a folder");
        let metadata = fs::metadata(home.path()).expect("it is there");
        let ours = geteuid().as_raw();
        check_folder(&metadata, ours).expect("it is ours");
        let error = check_folder(&metadata, ours + 1).expect_err("it is not theirs");
        assert!(error.to_string().contains("belongs to user"), "{error}");
    }

    #[test]
    fn keys_of_tickets_are_kept_for_a_day_and_the_last_one_for_another() {
        let home = tempfile::tempdir().expect("a folder");
        let state = || State::default();
        let keys = |state: &mut State, time| state.ticket_keys(home.path(), time);
        let day = 24 * 3600;
        let mut first = state();
        let one = keys(&mut first, 1000).expect("it is made");
        assert!(one.previous.is_none());
        assert_eq!(mode(&home.path().join("tickets.keys")), 0o600);
        assert!(keys(&mut first, 999 + day).is_none(), "nothing new");
        drop(first);
        let mut second = state();
        let same = keys(&mut second, 2000).expect("it is there");
        assert_eq!(same.current, one.current);
        let two = keys(&mut second, 1000 + day).expect("it is time");
        assert_ne!(two.current, one.current);
        assert_eq!(two.previous.as_ref(), Some(&one.current));
        drop(second);
        let mut third = state();
        let same = keys(&mut third, 1001 + day).expect("they are there");
        assert_eq!(same.current, two.current);
        assert_eq!(same.previous, two.previous);
        // The clock was set back: nothing is sealed with a key of a time to come.
        let back = keys(&mut third, 500).expect("it is time");
        assert_eq!(back.previous.as_ref(), Some(&two.current));
        // It is right again, and so is the key.
        drop(third);
        let mut fourth = state();
        let again = keys(&mut fourth, 2000 + day).expect("they are there");
        assert_eq!(again.current, two.current);
        // Nobody finds a key whose tickets have all expired.
        let late = keys(&mut fourth, 1000 + 3 * day).expect("it is time");
        assert!(late.previous.is_none());
    }

    #[test]
    fn keys_of_tickets_that_others_may_have_read_or_cut_are_not_used() {
        let home = tempfile::tempdir().expect("a folder");
        let mut state = State::default();
        state.ticket_keys(home.path(), 1000).expect("it is made");
        let path = home.path().join("tickets.keys");
        fs::write(&path, [1; RECORD_LEN + 1]).expect("it is ours");
        assert!(State::default().ticket_keys(home.path(), 2000).is_none());
        drop(state);
        let mut state = State::default();
        assert!(state.ticket_keys(home.path(), 2000).is_none());
        fs::remove_file(&path).expect("it is ours");
        assert!(state.ticket_keys(home.path(), 2001).is_none(), "not yet");
        assert!(state.ticket_keys(home.path(), 2000 + RETRY).is_some());
    }

    #[test]
    fn a_secret_that_others_may_have_read_or_cut_is_not_used() {
        let home = tempfile::tempdir().expect("a folder");
        let dir = StateDir::open(home.path()).expect("it is free");
        dir.secret("one").expect("it is made");
        let path = home.path().join("one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is ours");
        assert!(dir.secret("one").is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        for wrong in [31, 33] {
            fs::write(&path, vec![1; wrong]).expect("it is ours");
            assert!(dir.secret("one").is_err(), "{wrong} bytes");
        }
        std::os::unix::fs::symlink(&path, home.path().join("link")).expect("a new name");
        assert!(dir.secret("link").is_err());
    }

    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = StateDir::open(folder.path()).expect("the first one gets it");
        let copy = first.lock.try_clone().expect("a copy");
        drop(first);
        StateDir::open(folder.path()).expect("it is free again");
        drop(copy);
    }
}
