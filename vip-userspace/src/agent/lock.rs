//! One agent a machine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::time::{Instant, sleep};

use crate::files::MadeDirectories;
use crate::run_dir::RunDir;

/// Longest wait for an agent that was killed to be gone: the kernel closes its files when it has taken
/// back its memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between looks at it.
const LOOK: Duration = Duration::from_millis(50);

/// Held for as long as it lives. What was made for it, the file or the run directory, goes with
/// it, unless it is kept.
#[derive(Debug)]
pub struct Lock {
    // Fields are dropped in this order: the file's name goes while the lock is held.
    made_file: Option<MadeFile>,
    made: MadeDirectories,
    _file: Flock<File>,
}

/// Removes the file when it is dropped, unless another one has its name by then.
#[derive(Debug)]
struct MadeFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for MadeFile {
    fn drop(&mut self) {
        if is_at(&self.path, self.inode) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

fn is_at(path: &Path, inode: u64) -> bool {
    fs::metadata(path).is_ok_and(|there| there.ino() == inode)
}

/// Why the lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("an agent runs here already, as process {pid} ({path}): stop it first")]
    Held {
        /// Its process ID, as the file says.
        pid: String,
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made or written.
    #[error("cannot lock {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

impl Lock {
    /// Takes the lock, and makes the run directory if it is not there.
    ///
    /// # Errors
    /// If another process has it, or the file cannot be written.
    pub fn take(run_dir: &RunDir) -> Result<Self, LockError> {
        let path = run_dir.lock();
        let error = |error| LockError::Io {
            path: path.clone(),
            error,
        };
        let made = MadeDirectories::make(run_dir.path()).map_err(error)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        loop {
            let (file, is_new) = match options.clone().create_new(true).open(&path) {
                Ok(file) => (file, true),
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
                    match options.open(&path) {
                        // It went in between.
                        Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
                        opened => (opened.map_err(error)?, false),
                    }
                }
                Err(why) => return Err(error(why)),
            };
            let mut file = lock(file, &path)?;
            let inode = file.metadata().map_err(error)?.ino();
            // The last holder may have removed the file: then the lock keeps no other agent out.
            if !is_at(&path, inode) {
                continue;
            }
            let made_file = is_new.then(|| MadeFile {
                path: path.clone(),
                inode,
            });
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{}", std::process::id()))
                .map_err(error)?;
            return Ok(Self {
                made_file,
                made,
                _file: file,
            });
        }
    }

    /// Takes the lock, and waits for a holder that was killed and is not gone yet.
    ///
    /// # Errors
    /// As [`take`](Self::take), if the holder goes on running, or is not gone in time.
    pub async fn take_after_end(run_dir: &RunDir) -> Result<Self, LockError> {
        let end = Instant::now() + PATIENCE;
        let mut told = false;
        loop {
            match Self::take(run_dir) {
                Err(LockError::Held { pid, .. }) if is_ending(&pid) && Instant::now() < end => {
                    if !told {
                        tracing::info!(
                            "process {pid}, the agent before, is ending: waiting for it"
                        );
                        told = true;
                    }
                    sleep(LOOK).await;
                }
                taken => return taken,
            }
        }
    }

    /// What was made for it stays, for the next agent and for `vip cleanup`.
    pub fn keep(&mut self) {
        if let Some(file) = self.made_file.take() {
            std::mem::forget(file);
        }
        self.made.keep();
    }

    /// Looks whether another process has the lock, and changes nothing.
    ///
    /// # Errors
    /// It has, or the file cannot be read.
    pub fn look(run_dir: &RunDir) -> Result<(), LockError> {
        let path = run_dir.lock();
        match File::open(&path) {
            Ok(file) => lock(file, &path).map(drop),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(LockError::Io { path, error }),
        }
    }
}

/// Whether a process has ended, or is about to. One that cannot be seen may have.
fn is_ending(pid: &str) -> bool {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    match (read("stat"), read("status")) {
        (Ok(stat), Ok(status)) => ends(&stat) || is_killed(&status),
        _ => true,
    }
}

/// Whether SIGKILL waits for a process, from the text of `/proc/PID/status`.
fn is_killed(status: &str) -> bool {
    const SIGKILL: u64 = 1 << 8;
    let pending = status.lines().filter_map(|line| {
        let mask = line
            .strip_prefix("SigPnd:")
            .or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    pending.into_iter().any(|mask| mask & SIGKILL != 0)
}

/// The same from the text of `/proc/PID/stat` (proc_pid_stat(5)).
fn ends(stat: &str) -> bool {
    /// `PF_EXITING` (include/linux/sched.h).
    const EXITING: u64 = 0x4;
    // The name before it may hold anything.
    let words = stat.rsplit_once(") ").map_or("", |(_, words)| words);
    let mut words = words.split(' ');
    let state = words.next();
    let flags = words.nth(5).and_then(|flags| flags.parse::<u64>().ok());
    matches!(state, Some("Z" | "X")) || flags.is_some_and(|flags| flags & EXITING != 0)
}

fn lock(file: File, path: &Path) -> Result<Flock<File>, LockError> {
    let error = |error| LockError::Io {
        path: path.to_owned(),
        error,
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(file),
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(error)?;
            Err(LockError::Held {
                pid: pid.trim().to_owned(),
                path: path.to_owned(),
            })
        }
        Err((_, errno)) => Err(error(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_told_who_the_first_one_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let run_dir = RunDir::from(directory.path());
        let first = Lock::take(&run_dir).expect("free");
        let error = Lock::take(&run_dir).expect_err("taken");
        assert!(
            error
                .to_string()
                .contains(&format!("process {} ", std::process::id())),
            "{error}"
        );
        Lock::look(&run_dir).expect_err("taken");
        drop(first);
        Lock::look(&run_dir).expect("free again");
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0);
        Lock::take(&run_dir).expect("free again").keep();
        drop(Lock::take(&run_dir).expect("free again"));
        assert!(run_dir.lock().exists(), "it was there before");
    }

    #[test]
    fn a_holder_that_was_killed_is_waited_for_and_one_that_runs_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let run_dir = RunDir::from(directory.path());
        // As an agent does, it has the lock for as long as it is a process.
        let mut holder = std::process::Command::new("flock")
            .arg("--no-fork")
            .arg(run_dir.lock())
            .args(["sleep", "600"])
            .spawn()
            .expect("util-linux is there");
        while Lock::look(&run_dir).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
        fs::write(run_dir.lock(), format!("{}\n", holder.id())).expect("writable");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let take = || runtime.block_on(Lock::take_after_end(&run_dir));
        let refused = take().expect_err("it runs").to_string();
        assert!(
            refused.contains(&format!("process {} ", holder.id())),
            "{refused}"
        );
        holder.kill().expect("it runs");
        drop(take().expect("it is gone, or ending"));
        holder.wait().expect("it has ended");
    }

    #[test]
    fn a_process_that_ends_is_known_by_its_state_and_its_flags() {
        let stat = |state: &str, flags: u64| {
            format!("812 (vip) run) {state} 1 812 812 0 -1 {flags} 0 0 0 0")
        };
        assert!(!ends(&stat("S", 0x40_0000)));
        assert!(ends(&stat("Z", 0x40_0000)));
        assert!(ends(&stat("R", 0x40_0004)));
        assert!(is_killed(
            "SigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n"
        ));
        assert!(!is_killed(
            "SigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n"
        ));
        assert!(!is_ending(&std::process::id().to_string()));
    }

    #[test]
    fn a_run_directory_that_was_made_goes_with_the_lock_unless_it_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let run_dir = RunDir::from(directory.path().join("a/b"));
        drop(Lock::take(&run_dir).expect("free"));
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0);
        Lock::take(&run_dir).expect("free").keep();
        assert!(run_dir.lock().exists());
    }
}
