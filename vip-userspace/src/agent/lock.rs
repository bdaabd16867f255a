//! One agent a machine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// The file below the run directory.
const NAME: &str = "vip.pid";

/// Held for as long as it lives. The file itself stays, for whoever waits for the lock.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why the lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("`vip run` is running already, as process {pid} ({path}): stop it first")]
    Held {
        /// Its process ID, as the file says.
        pid: String,
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made or written.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Where the lock of a run directory is.
#[must_use]
pub fn path(run_directory: &Path) -> PathBuf {
    run_directory.join(NAME)
}

impl Lock {
    /// Takes the lock, and makes the run directory if it is not there.
    ///
    /// # Errors
    /// If another process has it, or the file cannot be written.
    pub fn take(run_directory: &Path) -> Result<Self, LockError> {
        let path = path(run_directory);
        let error = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(run_directory).map_err(error)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(error)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| writeln!(file, "{}", std::process::id()))
                    .map_err(error)?;
                Ok(Self { _file: file })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(error)?;
                Err(LockError::Held {
                    pid: pid.trim().to_owned(),
                    path,
                })
            }
            Err((_, errno)) => Err(error(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_told_who_the_first_one_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Lock::take(directory.path()).expect("free");
        let error = Lock::take(directory.path()).expect_err("taken");
        assert!(
            error
                .to_string()
                .contains(&format!("process {} ", std::process::id())),
            "{error}"
        );
        drop(first);
        Lock::take(directory.path()).expect("free again");
    }
}
