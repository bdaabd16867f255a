//! The last events, kept in a file of the state directory, one JSON object a line, oldest first: `vip events` reads them there also
//! while no agent runs and after a reboot, and the next agent goes on with it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::event::{Event, Record, Repair, Severity};
use crate::files;
use crate::run_dir::EVENTS;

/// Who may read it.
const MODE: u32 = 0o600;

/// Events that are kept.
pub const KEPT: usize = 1000;

/// Lines in the file until the older half of them is dropped.
const MOST_LINES: usize = 2 * KEPT;

/// Before a disk that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Longest wait for the disk at the start and at the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is kept of events: the last ones, and how many there were since the agent started.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<Disk>,
    lines: usize,
    kept: VecDeque<Record>,
    next: u64,
    counts: BTreeMap<String, u64>,
    repairs: BTreeMap<Repair, u64>,
}

impl Journal {
    /// Goes on with what the file says, and then with what one in a former directory says, which
    /// goes. If the file cannot be written, events are kept in memory only, which the log says
    /// once.
    #[must_use]
    pub fn open(directory: &Path, former: Option<&Path>) -> Self {
        let path = directory.join(EVENTS);
        let former = former.map(|directory| directory.join(EVENTS));
        let mut kept: VecDeque<Record> = read(&path).unwrap_or_default().into();
        let mut next = kept
            .back()
            .map_or(0, |last| last.sequence.saturating_add(1));
        let moved = former.as_deref().map(read).transpose().ok().flatten();
        for record in moved.iter().flatten() {
            // Their own numbers, unless these are taken.
            let sequence = record.sequence.max(next);
            next = sequence.saturating_add(1);
            kept.push_back(Record {
                sequence,
                ..record.clone()
            });
        }
        kept.drain(..kept.len().saturating_sub(KEPT));
        let mut journal = Self {
            disk: Arc::new(Disk::new(path)),
            lines: 0,
            next,
            kept,
            counts: BTreeMap::new(),
            repairs: BTreeMap::new(),
        };
        // In whichever state it was left, a half-written line among it.
        journal.rewrite();
        if let Some(former) = former.filter(|_| moved.is_some())
            && journal.disk.flush()
        {
            let _gone = fs::remove_file(former);
        }
        journal
    }

    /// Logs an event, keeps it and counts it. A trouble that repeats, with nothing else in between,
    /// is only counted: it would push out the events that led to it.
    pub fn note(&mut self, event: Event) {
        *self.counts.entry(event.name.to_string()).or_default() += 1;
        if let Some(part) = event.repaired {
            *self.repairs.entry(part).or_default() += 1;
        }
        let last = self.kept.back();
        if event.severity > Severity::Info && last.is_some_and(|last| event.repeats(&last.event)) {
            return;
        }
        event.log();
        let record = Record {
            sequence: self.next,
            time: Timestamp::now(),
            event,
        };
        self.next = self.next.saturating_add(1);
        let text = line(&record);
        self.kept.push_back(record);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        if self.lines >= MOST_LINES || self.disk.lacks() {
            self.rewrite();
        } else {
            self.lines += 1;
            self.disk.write(|todo| todo.text += &text);
        }
    }

    /// The last events from a number on, oldest first.
    pub fn since(&self, sequence: u64) -> impl Iterator<Item = &Record> {
        self.kept
            .iter()
            .filter(move |record| record.sequence >= sequence)
    }

    /// How many there were of each since the agent started.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// How often each part was repaired since the agent started.
    #[must_use]
    pub fn repairs(&self, part: Repair) -> u64 {
        self.repairs.get(&part).copied().unwrap_or(0)
    }

    /// Has the file written anew, with what is kept and nothing else.
    fn rewrite(&mut self) {
        self.lines = self.kept.len();
        let text = self.kept.iter().map(line).collect();
        self.disk.write(|todo| *todo = Todo { text, anew: true });
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.disk.flush();
    }
}

/// The file. It is written by a thread of its own, which ends when there is nothing more to do:
/// the disk may be slow, or hang, and the agent must not.
#[derive(Debug)]
struct Disk {
    path: PathBuf,
    state: Mutex<DiskState>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct DiskState {
    todo: Todo,
    /// There is a thread.
    busy: bool,
    /// It could not be written, at this time last: it lacks what was to be.
    failed: Option<Instant>,
}

/// What is to be written.
#[derive(Debug, Default)]
struct Todo {
    text: String,
    /// In the place of all there is.
    anew: bool,
}

impl Disk {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            state: Mutex::default(),
            done: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to what is to be written.
    fn write(self: &Arc<Self>, add: impl FnOnce(&mut Todo)) {
        /// The thread's stack, in bytes: all memory is locked.
        const STACK: usize = 256 * 1024;
        let mut state = self.lock();
        if state.failed.is_some_and(|at| at.elapsed() < RETRY) {
            return;
        }
        add(&mut state.todo);
        if state.busy {
            return;
        }
        let own = self.clone();
        let thread = std::thread::Builder::new()
            .name("vip-journal".to_owned())
            .stack_size(STACK);
        match thread.spawn(move || own.work()) {
            Ok(_) => state.busy = true,
            Err(error) => self.fail(&mut state, &error),
        }
    }

    /// Writes until there is nothing to write.
    fn work(&self) {
        let mut state = self.lock();
        while !state.todo.text.is_empty() || state.todo.anew {
            let todo = std::mem::take(&mut state.todo);
            drop(state);
            let written = self.carry_out(&todo);
            state = self.lock();
            match written {
                Err(error) => self.fail(&mut state, &error),
                Ok(()) => {
                    if state.failed.take().is_some() {
                        let path = self.path.display();
                        tracing::info!(%path, "events are kept again");
                    }
                }
            }
        }
        state.busy = false;
        self.done.notify_all();
    }

    /// So that it outlives a power cut.
    fn carry_out(&self, todo: &Todo) -> io::Result<()> {
        if todo.anew {
            return files::replace(&self.path, &todo.text, MODE);
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(MODE)
            .open(&self.path)?;
        file.write_all(todo.text.as_bytes())?;
        file.sync_data()
    }

    /// Said once, however often it is tried again.
    fn fail(&self, state: &mut DiskState, error: &io::Error) {
        state.todo = Todo::default();
        if state.failed.replace(Instant::now()).is_none() {
            let path = self.path.display();
            tracing::warn!(%error, %path, "cannot keep events: `vip events` lacks them until it can");
        }
    }

    /// Whether all that is kept must be written anew, since something was not.
    fn lacks(&self) -> bool {
        self.lock().failed.is_some()
    }

    /// Waits until all is written, but not for ever. Returns whether it is.
    fn flush(&self) -> bool {
        let state = self.lock();
        let waited = self
            .done
            .wait_timeout_while(state, PATIENCE, |state| state.busy);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out() && state.failed.is_none()
    }
}

fn line(record: &Record) -> String {
    // It holds nothing that JSON cannot say.
    serde_json::to_string(record).unwrap_or_default() + "\n"
}

/// The last events that an agent has written, oldest first. What makes no sense is left out: the
/// agent may have been killed while it wrote.
///
/// # Errors
/// Those of reading the file.
pub fn read(path: &Path) -> io::Result<Vec<Record>> {
    // One byte that is no text spoils one line.
    let text = fs::read(path)?;
    let text = String::from_utf8_lossy(&text);
    let records = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let mut records: Vec<Record> = records.collect();
    let surplus = records.len().saturating_sub(KEPT);
    records.drain(..surplus);
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(node: usize) -> Event {
        Event::node_away(format!("cp{node}"))
    }

    #[test]
    fn events_survive_the_agent_and_a_half_written_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(EVENTS);
        let mut journal = Journal::open(directory.path(), None);
        journal.note(dead(1));
        journal.note(dead(2));
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(&path).expect("there");
        file.write_all(b"{\"sequence\":2,\"ti").expect("writes");
        let mut journal = Journal::open(directory.path(), None);
        journal.note(dead(3));
        assert!(journal.disk.flush());
        assert_eq!(journal.counts()["node_away"], 1, "since the start");
        let records = read(&path).expect("there");
        let seen: Vec<_> = records
            .iter()
            .map(|record| (record.sequence, record.event.node.as_deref()))
            .collect();
        assert_eq!(seen, [(0, Some("cp1")), (1, Some("cp2")), (2, Some("cp3"))]);
        assert!(journal.since(1).eq(&records[1..]));
    }

    #[test]
    fn disk_that_can_be_written_again_gets_all_that_was_kept() {
        let folder = tempfile::tempdir().expect("a directory");
        let directory = folder.path().join("state");
        fs::create_dir(&directory).expect("a directory");
        let mut journal = Journal::open(&directory, None);
        journal.note(dead(1));
        assert!(journal.disk.flush());
        fs::remove_dir_all(&directory).expect("removes");
        journal.note(dead(2));
        assert!(!journal.disk.flush());
        fs::create_dir(&directory).expect("a directory");
        // Too early.
        journal.note(dead(3));
        assert!(!journal.disk.flush());
        journal.disk.lock().failed = Instant::now().checked_sub(RETRY);
        journal.note(dead(4));
        assert!(journal.disk.flush());
        let records = read(&directory.join(EVENTS)).expect("there");
        assert_eq!(records.len(), 4);
        journal.note(dead(5));
        assert!(journal.disk.flush());
        assert_eq!(read(&directory.join(EVENTS)).expect("there").len(), 5);
    }

    #[test]
    fn what_is_wrong_again_and_again_is_kept_once_and_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut journal = Journal::open(directory.path(), None);
        for node in [1, 1, 2, 1] {
            journal.note(dead(node));
        }
        assert_eq!(journal.since(0).count(), 3);
        assert_eq!(journal.counts()["node_away"], 4);
    }

    #[test]
    fn the_file_keeps_the_last_events_and_does_not_grow() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(EVENTS);
        let mut journal = Journal::open(directory.path(), None);
        for node in 0..MOST_LINES + KEPT {
            journal.note(dead(node));
        }
        assert!(journal.disk.flush());
        let text = fs::read_to_string(&path).expect("there");
        assert!(text.lines().count() <= MOST_LINES);
        let records = read(&path).expect("there");
        assert_eq!(records.len(), KEPT);
        let last = records.last().expect("not empty").sequence;
        assert_eq!(last, (MOST_LINES + KEPT - 1) as u64);
    }

    #[test]
    fn the_file_of_a_former_directory_is_taken_over() {
        let (old, new) = (tempfile::tempdir(), tempfile::tempdir());
        let (old, new) = (old.expect("a directory"), new.expect("a directory"));
        for (directory, nodes) in [(&old, [1, 2]), (&new, [3, 4])] {
            let mut journal = Journal::open(directory.path(), None);
            for node in nodes {
                journal.note(dead(node));
            }
        }
        drop(Journal::open(new.path(), Some(old.path())));
        assert!(!old.path().join(EVENTS).exists());
        let records = read(&new.path().join(EVENTS)).expect("there");
        let seen: Vec<_> = records
            .iter()
            .map(|record| {
                (
                    record.sequence,
                    record.event.node.as_deref().expect("a node"),
                )
            })
            .collect();
        assert_eq!(seen, [(0, "cp3"), (1, "cp4"), (2, "cp1"), (3, "cp2")]);
    }

    #[test]
    fn without_a_directory_events_are_kept_in_memory() {
        let mut journal = Journal::open(Path::new("/proc/none"), None);
        journal.note(dead(1));
        assert!(!journal.disk.flush());
        assert_eq!(journal.since(0).count(), 1);
    }
}
