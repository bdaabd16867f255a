//! The connections of this node, and what is to be told of them.

use super::message::{CHANGES, MAX_LENGTH, NAME, RANGE, Space};
use super::{BUCKETS, Body, Buckets, Connection, Digest, Digests, Key, MAX_CONNECTIONS, RENEW};

/// Connections that come, go or move on between two scans and are told one by one. Of more, the
/// digests are told, and the peers ask.
const MANY: usize = 1000;

/// This node's connections.
pub struct Own {
    /// Sorted by name. The numbers are those that were told.
    connections: Vec<(Key, Connection)>,
    digests: Digests,
    untold: usize,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            connections: Vec::new(),
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
        let before = std::mem::replace(&mut self.connections, now);

        let mut removed = Vec::new();
        let mut told = Vec::new();
        let mut old = before.into_iter().peekable();
        for (key, connection) in &mut self.connections {
            while let Some((gone, _)) = old.next_if(|(old, _)| old < key) {
                self.digests[gone.bucket()] = self.digests[gone.bucket()].with(gone);
                removed.push(gone);
            }
            match old.next_if(|(old, _)| old == key) {
                Some((_, was)) if !has_moved_on(&was, connection) => *connection = was,
                Some(_) => told.push(*connection),
                None => {
                    self.digests[key.bucket()] = self.digests[key.bucket()].with(*key);
                    told.push(*connection);
                }
            }
        }
        for (gone, _) in old {
            self.digests[gone.bucket()] = self.digests[gone.bucket()].with(gone);
            removed.push(gone);
        }
        if removed.len() + told.len() > MANY {
            return vec![self.digests()];
        }
        changes(&removed, &told)
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
        let begin = self.connections.partition_point(|(key, _)| key.0 < first);
        let end = self.connections.partition_point(|(key, _)| key.0 <= last);
        let mut rest = &self.connections[begin..end];
        let mut from = first;
        let mut messages = Vec::new();
        loop {
            let mut space = Space::beside(RANGE);
            let fits = rest.iter().take_while(|(_, one)| space.admit(one)).count();
            let (part, left) = rest.split_at(fits);
            let to = left.first().map_or(last, |(next, _)| next.0 - 1);
            messages.push(Body::Range {
                names: (Key(from), Key(to)),
                connections: part.iter().map(|(_, one)| *one).collect(),
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
        self.connections.iter().map(|(_, one)| *one)
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
