//! The file of the control socket.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// A bound socket file. It is removed when dropped, if it is still ours by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A process answers on it.
    #[error("another process listens on the control socket {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket is in its place.
    #[error("{} exists and is not a socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot create the control socket {}: {error}", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
}

impl SocketFile {
    pub(super) fn bind(path: &Path, mode: u32) -> Result<(UnixListener, Self), BindError> {
        check_free(path)?;
        Self::create(path, mode).map_err(|error| BindError::Bind {
            path: path.to_owned(),
            error,
        })
    }

    /// Makes the socket under another name and moves it into place with its final permissions.
    fn create(path: &Path, mode: u32) -> io::Result<(UnixListener, Self)> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let draft = PathBuf::from(name);
        remove_if_present(&draft)?;
        let listener = UnixListener::bind(&draft)?;
        let moved = fs::set_permissions(&draft, fs::Permissions::from_mode(mode))
            .and_then(|()| fs::rename(&draft, path))
            .and_then(|()| fs::symlink_metadata(path));
        match moved {
            Ok(metadata) => {
                let file = Self {
                    path: path.to_owned(),
                    identity: (metadata.dev(), metadata.ino()),
                };
                Ok((listener, file))
            }
            Err(error) => {
                remove_if_present(&draft)?;
                Err(error)
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            // A socket file that stays is replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn check_free(path: &Path) -> Result<(), BindError> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let path = path.to_owned();
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket { path });
    }
    match UnixStream::connect(&path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BindError::Bind { path, error }),
        Ok(_) => Err(BindError::InUse { path }),
    }
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
