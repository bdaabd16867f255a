//! The state directory. It holds what must outlive a reboot: the journal, and whether the node is
//! drained.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{AccessFlags, access};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::members_file::{self, StoredMember};
use super::notes;
use crate::config::{Config, Node, RUN_DIR, STATE_DIR};
use crate::files::{self, MadeDirectories};
use crate::observe::journal;
use crate::run_dir::{DRAINED, EVENTS, MEMBERS, RunDir};

/// Longest wait for the disk when the operator waits, too.
const PATIENCE: Duration = Duration::from_secs(3);

/// Another agent keeps its state there.
#[derive(Debug, thiserror::Error)]
#[error(
    "state directory {} belongs to another agent that runs: give this one another `state_dir` \
     (--state-dir)", path.display()
)]
pub struct Shared {
    path: PathBuf,
}

/// The members that an agent has noted in a state directory.
#[must_use]
pub fn noted_members(state_dir: &Path) -> Vec<Node> {
    let noted = members_file::read(&state_dir.join(MEMBERS));
    noted.into_iter().map(StoredMember::into_node).collect()
}

/// The state directory of a running agent. No other agent has it meanwhile.
#[derive(Debug)]
pub(super) struct StateDir {
    configured: PathBuf,
    run_dir: RunDir,
    /// Why the configured one cannot be used: state lies in the run directory, and is gone with
    /// the next boot.
    trouble: Option<String>,
    made: MadeDirectories,
    noting: Noting,
    _lock: Option<Flock<File>>,
}

/// Notes of the members that follow each other: one that is overtaken is left out.
#[derive(Clone, Debug, Default)]
struct Noting {
    turns: Arc<AtomicU64>,
    written: Arc<Mutex<u64>>,
}

impl Noting {
    /// The place of a note among all.
    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Writes the note with this place, unless a later one is written.
    fn write(&self, turn: u64, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written > turn {
            return Ok(());
        }
        *written = turn;
        write()
    }
}

impl StateDir {
    /// Takes the configured directory, and makes it if it is not there. One that was made goes
    /// again, unless [`begin`](Self::begin) is called.
    ///
    /// # Errors
    /// Another agent has it.
    pub(super) fn take(config: &Config) -> Result<Self, Shared> {
        let configured = config.state_dir.clone();
        let (made, lock, trouble) = match use_directory(&configured) {
            Ok((made, lock)) => (made, Some(lock), None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Shared { path: configured });
            }
            Err(error) => (MadeDirectories::default(), None, Some(error.to_string())),
        };
        Ok(Self {
            configured,
            run_dir: config.run_dir.clone(),
            trouble,
            made,
            noting: Noting::default(),
            _lock: lock,
        })
    }

    /// Notes where it is for `vip events` and `vip cleanup`, and takes over whether an agent
    /// before kept this in the run directory. Returns the journal, which does so too.
    pub(super) fn begin(&mut self) -> anyhow::Result<journal::Journal> {
        self.made.keep();
        notes::note_state_dir(&self.run_dir, self.directory())?;
        let is_one =
            fs::canonicalize(self.run_dir.path()).ok() == fs::canonicalize(&self.configured).ok();
        if self.trouble.is_some() || is_one {
            return Ok(journal::Journal::open(self.directory(), None));
        }
        let former = self.run_dir.path().join(DRAINED);
        if former.exists() && write_drained(&self.configured).is_ok() {
            let _gone = fs::remove_file(former);
        }
        Ok(journal::Journal::open(
            &self.configured,
            Some(self.run_dir.path()),
        ))
    }

    /// The members that an agent before has noted.
    pub(super) fn members(&self) -> Vec<StoredMember> {
        let places = [self.directory(), self.run_dir.path()];
        let noted = places.iter().map(|place| place.join(MEMBERS));
        let noted = noted.map(|file| members_file::read(&file));
        noted
            .into_iter()
            .find(|members| !members.is_empty())
            .unwrap_or_default()
    }

    /// Notes the members, in a thread: the disk may be slow.
    pub(super) fn note_members(&self, members: &[StoredMember]) {
        let (file, members) = (self.directory().join(MEMBERS), members.to_vec());
        let noting = self.noting.clone();
        let turn = noting.turn();
        drop(spawn_blocking(move || {
            if let Err(error) = noting.write(turn, || members_file::write(&file, &members)) {
                tracing::warn!(file = %file.display(), %error, "cannot note the members");
            }
        }));
    }

    /// Where state lies.
    fn directory(&self) -> &Path {
        match self.trouble {
            None => &self.configured,
            Some(_) => self.run_dir.path(),
        }
    }

    /// Why it does not outlive a reboot, if it does not.
    pub(super) fn trouble(&self) -> Option<String> {
        let why = self.trouble.as_ref()?;
        Some(format!("{}: {why}", self.configured.display()))
    }

    /// Whether the node was drained and not undrained since.
    pub(super) fn is_drained(&self) -> bool {
        // A directory that can only be read still says so.
        let places = [&*self.configured, self.run_dir.path()];
        places.iter().any(|place| place.join(DRAINED).exists())
    }

    /// Notes whether the node is drained. Returns why that does not last, if it does not: a drain
    /// is then noted in the run directory, and ends with the next boot; what says that the node is
    /// drained stays where it is, and the next agent drains it again.
    ///
    /// # Errors
    /// It can be noted nowhere.
    pub(super) async fn set_drained(&self, drained: bool) -> anyhow::Result<Option<String>> {
        let trouble = self.trouble();
        let places = [self.configured.clone(), self.run_dir.path().to_owned()];
        let work = spawn_blocking(move || {
            let [lasting, other] = &places;
            if drained {
                let written =
                    trouble.map_or_else(|| write_drained(lasting), |why| Err(anyhow::anyhow!(why)));
                return match written {
                    Ok(()) => Ok(None),
                    Err(why) => write_drained(other).map(|()| Some(format!("{why:#}"))),
                };
            }
            let removed = places.iter().map(|place| remove_drained(place));
            // Both are tried.
            let removed: Vec<_> = removed.collect();
            let failed = removed.into_iter().find_map(Result::err);
            Ok(failed.map(|why| format!("{why:#}")))
        });
        match timeout(PATIENCE, work).await {
            Ok(done) => done.context("cannot write in a thread")?,
            Err(_) => anyhow::bail!(
                "the disk of {} does not answer within {PATIENCE:?}",
                self.directory().display()
            ),
        }
    }
}

/// Makes a directory usable, and keeps other agents out of it.
fn use_directory(path: &Path) -> io::Result<(MadeDirectories, Flock<File>)> {
    let made = MadeDirectories::make(path)?;
    let lock = lock(path)?;
    access(path, AccessFlags::W_OK | AccessFlags::X_OK)?;
    Ok((made, lock))
}

/// The lock is the directory's own: nothing is left of it.
fn lock(path: &Path) -> io::Result<Flock<File>> {
    let file = File::open(path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

fn write_drained(directory: &Path) -> anyhow::Result<()> {
    let note = directory.join(DRAINED);
    files::replace(&note, "", 0o600).with_context(|| format!("cannot write {}", note.display()))
}

fn remove_drained(directory: &Path) -> anyhow::Result<()> {
    let note = directory.join(DRAINED);
    // On a disk that cannot be written, the kernel does not say whether it is there.
    if !note.exists() {
        return Ok(());
    }
    let removed = fs::remove_file(&note).and_then(|()| files::sync_directory(&note));
    removed.with_context(|| format!("cannot remove {}", note.display()))
}

/// Looks whether an agent runs that keeps its state in this directory. Changes nothing.
///
/// # Errors
/// One does.
pub fn refuse_shared(directory: &Path) -> Result<(), Shared> {
    match lock(directory) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Shared {
            path: directory.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Where the agent with this run directory keeps its state, or kept it: what was given, what it
/// has noted, or the default one, which belongs to the agent with the default run directory. `None`
/// if that is not known.
#[must_use]
pub fn directory(given: Option<&Path>, run_dir: &RunDir) -> Option<PathBuf> {
    let noted = || notes::state_dir(run_dir);
    // As agents did before there was a state directory.
    let former = || {
        let has_journal = run_dir.path().join(EVENTS).exists();
        has_journal.then(|| run_dir.path().to_owned())
    };
    let default = || (run_dir.path() == Path::new(RUN_DIR)).then(|| STATE_DIR.into());
    given
        .map(Path::to_owned)
        .or_else(noted)
        .or_else(former)
        .or_else(default)
}

/// The files that an agent may have left in a directory.
#[must_use]
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let names = [DRAINED, EVENTS, MEMBERS].map(|name| directory.join(name));
    let unfinished = names.iter().flat_map(|file| files::unfinished(file));
    unfinished.chain(names.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(run_dir: &Path, state_dir: &Path) -> Config {
        let text = "vip = \"10.0.0.10\"\nnodes = [\"10.0.0.11\"]";
        Config {
            run_dir: run_dir.into(),
            state_dir: state_dir.to_owned(),
            ..Config::parse(text, "vip.toml").expect("makes sense")
        }
    }

    fn drain(state: &StateDir, drained: bool) -> anyhow::Result<Option<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        runtime.block_on(state.set_drained(drained))
    }

    #[test]
    fn a_note_outlives_the_run_directory_and_an_older_one_is_taken_over() {
        let folder = tempfile::tempdir().expect("a directory");
        let (run, lasting) = (folder.path().join("run"), folder.path().join("state"));
        fs::create_dir(&run).expect("a directory");
        fs::write(run.join(DRAINED), "").expect("writes");
        let mut state = StateDir::take(&config(&run, &lasting)).expect("free");
        assert!(state.is_drained());
        drop(state.begin().expect("begins"));
        assert!(lasting.join(DRAINED).exists() && !run.join(DRAINED).exists());
        let known = || directory(None, &run.as_path().into());
        assert_eq!(known(), Some(lasting.clone()));
        assert!(refuse_shared(&lasting).is_err());
        StateDir::take(&config(&folder.path().join("other"), &lasting)).expect_err("taken");
        drop(state);
        fs::remove_dir_all(&run).expect("removes");
        assert_eq!(known(), None, "the default one is that of another agent");
        refuse_shared(&lasting).expect("free again");
        let state = StateDir::take(&config(&run, &lasting)).expect("free again");
        assert!(state.is_drained());
        assert_eq!(drain(&state, false).expect("undrains"), None);
        assert!(!state.is_drained());
        // It goes away while the agent runs.
        fs::create_dir(&run).expect("a directory");
        fs::remove_dir_all(&lasting).expect("removes");
        let why = drain(&state, true).expect("drains");
        assert!(why.is_some_and(|why| why.contains("cannot write")) && run.join(DRAINED).exists());
        assert_eq!(drain(&state, false).expect("undrains"), None);
        assert!(!state.is_drained());
    }

    #[test]
    fn without_a_state_directory_the_run_directory_serves() {
        let folder = tempfile::tempdir().expect("a directory");
        let run = folder.path().join("run");
        fs::create_dir(&run).expect("a directory");
        let mut state = StateDir::take(&config(&run, Path::new("/proc/none"))).expect("nobody's");
        drop(state.begin().expect("begins"));
        let why = state.trouble().expect("it is no place for files");
        assert!(why.starts_with("/proc/none: "), "{why}");
        let not_noted = drain(&state, true).expect("drains");
        assert_eq!(not_noted, state.trouble());
        assert!(state.is_drained() && run.join(DRAINED).exists());
        assert_eq!(directory(None, &run.as_path().into()), Some(run));
    }

    #[test]
    fn one_directory_may_be_both() {
        let folder = tempfile::tempdir().expect("a directory");
        let mut state = StateDir::take(&config(folder.path(), folder.path())).expect("free");
        drain(&state, true).expect("drains");
        drop(state.begin().expect("begins"));
        assert!(state.is_drained() && folder.path().join(EVENTS).exists());
    }

    #[test]
    fn a_directory_that_was_made_goes_unless_the_agent_begins() {
        let folder = tempfile::tempdir().expect("a directory");
        let state = folder.path().join("a/state");
        drop(StateDir::take(&config(folder.path(), &state)).expect("free"));
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0);
    }
}
