//! The connections of another node, as its agent has told them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{
    BUCKETS, Body, Buckets, Connection, Digest, Digests, Key, MAX_CONNECTIONS, MAX_SERVERS,
};

/// Connections that are asked for at once, about.
const ASKED: usize = 20_000;

/// A connection in less space: the server is a place in a list.
#[derive(Clone, Copy)]
struct Entry {
    client: SocketAddr,
    server: u8,
    unacknowledged: u32,
    expected: u32,
}

/// What another agent has told of its node's connections.
pub struct Told {
    /// Number of the last message that was taken.
    latest: u64,
    servers: Vec<SocketAddr>,
    connections: BTreeMap<Key, Entry>,
    digests: Digests,
    /// Connections that have room.
    room: usize,
    /// Connections that had no room.
    refused: u64,
    /// The bucket from which on differences are looked for: were it always the first one, those that
    /// cannot be mended for want of room would keep the others out.
    from: usize,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            latest: 0,
            servers: Vec::new(),
            connections: BTreeMap::new(),
            digests: [Digest::default(); BUCKETS],
            room: MAX_CONNECTIONS,
            refused: 0,
            from: 0,
        }
    }
}

impl Told {
    /// Takes a message of that agent. Returns the buckets to ask it for. A message that is not newer
    /// than the last one changes nothing: `None`.
    pub fn take(&mut self, number: u64, body: Body) -> Option<Buckets> {
        if number <= self.latest {
            return None;
        }
        self.latest = number;
        match body {
            Body::Digests { count, digests } => {
                return Some(self.differences(&digests, count as usize));
            }
            Body::Request(_) | Body::Answered(_) => {}
            Body::Range { names, connections } => {
                let old = self.connections.range(names.0..=names.1);
                let old: Vec<Key> = old.map(|(key, _)| *key).collect();
                old.into_iter().for_each(|key| self.remove(key));
                connections.iter().for_each(|one| self.insert(one));
            }
            Body::Changes {
                removed,
                connections,
            } => {
                removed.into_iter().for_each(|key| self.remove(key));
                connections.iter().for_each(|one| self.insert(one));
            }
        }
        Some(Buckets::NONE)
    }

    /// The buckets that differ, but no more than have some [`ASKED`] connections: the rest follows
    /// with the next digests, so that no peer is flooded.
    fn differences(&mut self, digests: &Digests, count: usize) -> Buckets {
        let most = (ASKED * BUCKETS / count.max(1)).max(1);
        let mut differ = Buckets::NONE;
        let from = self.from;
        let buckets = (0..BUCKETS).map(|bucket| (from + bucket) % BUCKETS);
        let differing = buckets.filter(|bucket| self.digests[*bucket] != digests[*bucket]);
        for bucket in differing.take(most) {
            differ.insert(bucket);
            self.from = bucket + 1;
        }
        differ
    }

    /// So many connections have room from now on; those that are known stay.
    pub(super) fn set_room(&mut self, room: usize) {
        self.room = room.min(MAX_CONNECTIONS);
    }

    fn remove(&mut self, key: Key) {
        if self.connections.remove(&key).is_some() {
            let digest = &mut self.digests[key.bucket()];
            *digest = digest.with(key);
        }
    }

    fn insert(&mut self, connection: &Connection) {
        let key = connection.key();
        let known = self
            .servers
            .iter()
            .position(|one| *one == connection.server);
        let full = self.connections.len() >= self.room && !self.connections.contains_key(&key);
        if full || known.is_none() && self.servers.len() == MAX_SERVERS {
            self.refused += 1;
            return;
        }
        let server = known.unwrap_or_else(|| {
            self.servers.push(connection.server);
            self.servers.len() - 1
        });
        let entry = Entry {
            client: connection.client,
            server: server as u8,
            unacknowledged: connection.unacknowledged,
            expected: connection.expected,
        };
        if self.connections.insert(key, entry).is_none() {
            let digest = &mut self.digests[key.bucket()];
            *digest = digest.with(key);
        }
    }

    /// Number of the last message that was taken.
    pub(super) const fn latest(&self) -> u64 {
        self.latest
    }

    /// All of them, in the order of their names.
    pub fn connections(&self) -> impl Iterator<Item = Connection> {
        self.connections.values().map(|entry| Connection {
            client: entry.client,
            server: self.servers[usize::from(entry.server)],
            unacknowledged: entry.unacknowledged,
            expected: entry.expected,
        })
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

    /// Connections that had no room, since the agent there started.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}
