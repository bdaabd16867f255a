//! The last events, kept in a file of the run directory: `vip events` reads them there also
//! while no agent runs, and the next agent goes on with it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::event::{Event, Record, Repair, Severity};

/// The file, below the run directory: one JSON object a line, oldest first.
pub const FILE: &str = "events.jsonl";

/// Events that are kept.
pub const KEPT: usize = 1000;

/// Lines in the file until the older half of them is dropped.
const MOST_LINES: usize = 2 * KEPT;

/// What is kept of events: the last ones, and how many there were since the agent started.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Option<File>,
    lines: usize,
    kept: VecDeque<Record>,
    next: u64,
    counts: BTreeMap<&'static str, u64>,
    repairs: BTreeMap<Repair, u64>,
}

impl Journal {
    /// Goes on with what the file says. Without a file it is kept in memory only, which the log
    /// says once.
    #[must_use]
    pub fn open(run_directory: &Path) -> Self {
        let path = run_directory.join(FILE);
        let kept: VecDeque<Record> = read(&path).unwrap_or_default().into();
        let mut journal = Self {
            path,
            file: None,
            lines: 0,
            next: kept.back().map_or(0, |last| last.sequence + 1),
            kept,
            counts: BTreeMap::new(),
            repairs: BTreeMap::new(),
        };
        // In whichever state it was left, a half-written line among it.
        journal.check(Self::rewrite);
        journal
    }

    /// Logs an event, keeps it and counts it. What is wrong again and again, with nothing else in
    /// between, is only counted: it would push out all that led to it.
    pub fn note(&mut self, event: Event) {
        *self.counts.entry(event.name()).or_default() += 1;
        if let Some(what) = event.repair() {
            *self.repairs.entry(what).or_default() += 1;
        }
        let record = event.record(self.next, Timestamp::now());
        if self.kept.back().is_some_and(|last| repeats(last, &record)) {
            return;
        }
        self.next += 1;
        record.log();
        self.kept.push_back(record);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        self.check(if self.lines >= MOST_LINES {
            Self::rewrite
        } else {
            Self::append
        });
    }

    /// The last events from a number on, oldest first.
    pub fn since(&self, sequence: u64) -> impl Iterator<Item = &Record> {
        self.kept
            .iter()
            .filter(move |record| record.sequence >= sequence)
    }

    /// How many there were of each since the agent started.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// How often each thing was repaired since the agent started.
    #[must_use]
    pub fn repairs(&self, what: Repair) -> u64 {
        self.repairs.get(&what).copied().unwrap_or(0)
    }

    fn append(&mut self) -> io::Result<()> {
        let (Some(file), Some(record)) = (&mut self.file, self.kept.back()) else {
            return Ok(());
        };
        self.lines += 1;
        file.write_all(line(record)?.as_bytes())
    }

    /// Writes what is kept to a new file, which takes the place of the old one at once.
    fn rewrite(&mut self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let text = self.kept.iter().map(line).collect::<io::Result<String>>()?;
        fs::write(&new, text)?;
        fs::rename(&new, &self.path)?;
        self.lines = self.kept.len();
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        Ok(())
    }

    fn check(&mut self, write: fn(&mut Self) -> io::Result<()>) {
        if let Err(error) = write(self) {
            // Said once: from now on nothing is written.
            self.file = None;
            self.lines = 0;
            let path = self.path.display();
            tracing::warn!(%error, %path, "cannot keep events: `vip events` will lack them");
        }
    }
}

/// Whether the same thing is wrong again.
fn repeats(last: &Record, record: &Record) -> bool {
    let content = |record: &Record| {
        let Record {
            event,
            message,
            node,
            cause,
            ..
        } = record.clone();
        (event, message, node, cause)
    };
    record.severity > Severity::Info && content(last) == content(record)
}

fn line(record: &Record) -> io::Result<String> {
    Ok(serde_json::to_string(record)? + "\n")
}

/// The last events that an agent has written, oldest first. What makes no sense is left out: the
/// agent may have been killed while it wrote.
///
/// # Errors
/// Those of reading the file.
pub fn read(path: &Path) -> io::Result<Vec<Record>> {
    let text = fs::read_to_string(path)?;
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
        Event::NodeDead {
            node: format!("cp{node}"),
        }
    }

    #[test]
    fn events_survive_the_agent_and_a_half_written_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        let mut journal = Journal::open(directory.path());
        journal.note(dead(1));
        journal.note(dead(2));
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(&path).expect("there");
        file.write_all(b"{\"sequence\":2,\"ti").expect("writes");
        let mut journal = Journal::open(directory.path());
        journal.note(dead(3));
        assert_eq!(journal.counts()["node_dead"], 1, "since the start");
        let records = read(&path).expect("there");
        let seen: Vec<_> = records
            .iter()
            .map(|record| (record.sequence, record.node.as_deref()))
            .collect();
        assert_eq!(seen, [(0, Some("cp1")), (1, Some("cp2")), (2, Some("cp3"))]);
        assert!(journal.since(1).eq(&records[1..]));
    }

    #[test]
    fn what_is_wrong_again_and_again_is_kept_once_and_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut journal = Journal::open(directory.path());
        for node in [1, 1, 2, 1] {
            journal.note(dead(node));
        }
        assert_eq!(journal.since(0).count(), 3);
        assert_eq!(journal.counts()["node_dead"], 4);
    }

    #[test]
    fn the_file_keeps_the_last_events_and_does_not_grow() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        let mut journal = Journal::open(directory.path());
        for node in 0..MOST_LINES + KEPT {
            journal.note(dead(node));
        }
        let text = fs::read_to_string(&path).expect("there");
        assert!(text.lines().count() <= MOST_LINES);
        let records = read(&path).expect("there");
        assert_eq!(records.len(), KEPT);
        let last = records.last().expect("not empty").sequence;
        assert_eq!(last, (MOST_LINES + KEPT - 1) as u64);
    }
}
