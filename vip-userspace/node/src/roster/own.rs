//! The connections of this node, and what is to be told of them.

use std::collections::BTreeMap;

use super::message::{CHANGES, MAX_LENGTH, NAME, RANGE, Space};
use super::{
    BUCKETS, Body, Buckets, Change, Connection, Digest, Digests, Key, MAX_CONNECTIONS, RENEW,
};

/// Connections that come, go or move on between two scans and are told one by one. Of more, the
/// digests are told, and the peers ask.
const MANY: usize = 1000;

/// This node's connections.
pub struct Own {
    /// The numbers are those that were told.
    connections: BTreeMap<Key, Connection>,
    digests: Digests,
    untold: usize,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            connections: BTreeMap::new(),
            digests: [Digest::default(); BUCKETS],
            untold: 0,
        }
    }
}

impl Own {
    /// Takes in a whole scan. Returns what is to be told to all peers.
    pub fn scanned(&mut self, scan: impl IntoIterator<Item = Connection>) -> Vec<Body> {
        let scan = scan.into_iter().map(|one| (one.key(), one));
        let mut now: Vec<(Key, Connection)> = scan.collect();
        now.sort_unstable_by_key(|(key, _)| *key);
        now.dedup_by_key(|(key, _)| *key);
        self.untold = now.len().saturating_sub(MAX_CONNECTIONS);
        now.truncate(MAX_CONNECTIONS);

        let mut removed = Vec::new();
        let mut told = Vec::new();
        let mut old = self.connections.iter().peekable();
        for (key, connection) in &now {
            while let Some((gone, _)) = old.next_if(|(old, _)| *old < key) {
                removed.push(*gone);
            }
            let was = old.next_if(|(old, _)| *old == key);
            if was.is_none_or(|(_, was)| has_moved_on(was, connection)) {
                told.push(*connection);
            }
        }
        removed.extend(old.map(|(gone, _)| *gone));
        self.change(&removed, &told)
    }

    /// Takes in what has come or gone, in that order. What has come and gone is not told. Returns what
    /// is to be told to all peers.
    pub fn changed(&mut self, changes: impl IntoIterator<Item = Change>) -> Vec<Body> {
        let last = changes.into_iter().map(|change| match change {
            Change::Come(connection) => (connection.key(), Some(connection)),
            Change::Gone(key) => (key, None),
        });
        let last: BTreeMap<Key, Option<Connection>> = last.collect();
        let mut removed = Vec::new();
        let mut told = Vec::new();
        for (key, now) in last {
            let was = self.connections.get(&key);
            match now {
                // A scan may have it already.
                Some(now) if was.is_none_or(|was| has_moved_on(was, &now)) => told.push(now),
                None if was.is_some() => removed.push(key),
                Some(_) | None => {}
            }
        }
        let room = MAX_CONNECTIONS.saturating_sub(self.connections.len());
        told.truncate(room);
        self.change(&removed, &told)
    }

    fn change(&mut self, removed: &[Key], told: &[Connection]) -> Vec<Body> {
        for key in removed {
            if self.connections.remove(key).is_some() {
                self.turn(*key);
            }
        }
        for connection in told {
            let key = connection.key();
            if self.connections.insert(key, *connection).is_none() {
                self.turn(key);
            }
        }
        if removed.len() + told.len() > MANY {
            return vec![self.digests()];
        }
        changes(removed, told)
    }

    /// A connection has come or gone: its bucket has another digest.
    fn turn(&mut self, key: Key) {
        let digest = &mut self.digests[key.bucket()];
        *digest = digest.with(key);
    }

    /// The digests, which are told now and then.
    #[must_use]
    pub fn digests(&self) -> Body {
        Body::Digests {
            count: self.connections.len() as u32,
            digests: Box::new(self.digests),
        }
    }

    /// Takes a bucket that is asked for out of the set. Returns the messages with its connections.
    pub fn bucket(&self, wanted: &mut Buckets) -> Option<Vec<Body>> {
        let bucket = wanted.pop()?;
        let width = u64::BITS - BUCKETS.ilog2();
        let first = (bucket as u64) << width;
        let last = first | ((1 << width) - 1);
        let all: Vec<Connection> = self
            .connections
            .range(Key(first)..=Key(last))
            .map(|(_, one)| *one)
            .collect();
        let mut rest = &all[..];
        let mut from = first;
        let mut messages = Vec::new();
        loop {
            let mut space = Space::beside(RANGE);
            let fits = rest.iter().take_while(|one| space.admit(one)).count();
            let (part, left) = rest.split_at(fits);
            let to = left.first().map_or(last, |next| next.key().0 - 1);
            messages.push(Body::Range {
                names: (Key(from), Key(to)),
                connections: part.to_vec(),
            });
            if left.is_empty() {
                return Some(messages);
            }
            from = to + 1;
            rest = left;
        }
    }

    /// All of them, in the order of their names.
    pub fn connections(&self) -> impl Iterator<Item = Connection> {
        self.connections.values().copied()
    }

    /// Whether there is one of that name.
    pub(super) fn has(&self, key: Key) -> bool {
        self.connections.contains_key(&key)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Connections of the last scan that are too many to be told.
    #[must_use]
    pub const fn untold(&self) -> usize {
        self.untold
    }
}

/// Whether a connection's numbers have moved so far that they are to be told again.
fn has_moved_on(told: &Connection, now: &Connection) -> bool {
    let moved = |told: u32, now: u32| now.wrapping_sub(told) > RENEW;
    moved(told.unacknowledged, now.unacknowledged) || moved(told.expected, now.expected)
}

/// The messages that tell of changes.
fn changes(removed: &[Key], told: &[Connection]) -> Vec<Body> {
    let mut messages = Vec::new();
    let most = (MAX_LENGTH / 2) / NAME;
    let (mut removed, mut told) = (removed, told);
    while !(removed.is_empty() && told.is_empty()) {
        let (names, more) = removed.split_at(removed.len().min(most));
        removed = more;
        let mut space = Space::beside(CHANGES + NAME * names.len());
        let fits = told.iter().take_while(|one| space.admit(one)).count();
        let (part, more) = told.split_at(fits);
        told = more;
        messages.push(Body::Changes {
            removed: names.to_vec(),
            connections: part.to_vec(),
        });
    }
    messages
}
