//! What agents tell each other of their connections: one datagram each.
//!
//! Numbers are in network byte order.
//!
//! ```text
//! version 1 | kind 1 | to 8 | answers 8 | from 8 | number 8 | body
//!
//! kind 0: digests   connections 4 | digest 4 for each bucket
//! kind 1: request   a bit for each bucket 32
//! kind 2: bucket    bucket 1 | from 8 | to 8 | servers | connections
//! kind 3: changes   removed 2 | name 8 for each | servers | connections
//! kind 4: answered  a name 8 for each
//!
//! servers:          count 1 | for each: family 1 | address 4 or 16 | port 2
//! connections:      for each: server's place 1 | address 4 or 16 | port 2
//!                   first byte not acknowledged 4 | next byte expected 4
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;

use thiserror::Error;

use super::{BUCKETS, Buckets, Connection, Digest, Digests, Key, MAX_SERVERS};
use crate::hello::Instance;

/// Greatest length of a message in bytes: one packet on any Ethernet, with room for what seals it.
pub const MAX_LENGTH: usize = crate::hello::MAX_LENGTH;

const VERSION: u8 = 1;

/// A message about connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The run of the agent that it is for; `None` while the sender does not know that. Only a message
    /// for the receiver's own run is sure to be of now.
    pub to: Option<Instance>,
    /// Number of the last message of that run that has come to the sender; 0 if none has.
    pub answers: u64,
    /// The run of the agent that sends it.
    pub from: Instance,
    /// It sends its messages with growing numbers.
    pub number: u64,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// A digest of each bucket of the sender's roster.
    Digests {
        /// Connections in the roster.
        count: u32,
        /// For each bucket.
        digests: Box<Digests>,
    },
    /// The sender wants these buckets of the receiver's roster.
    Request(Buckets),
    /// All connections of the sender whose names are in this range.
    Range {
        /// The first and the last name.
        names: (Key, Key),
        /// In any order.
        connections: Vec<Connection>,
    },
    /// What has changed.
    Changes {
        /// Names of connections that are no more.
        removed: Vec<Key>,
        /// Those that are new, or whose numbers have moved on.
        connections: Vec<Connection>,
    },
    /// Clients of these connections of a node that is gone have answered, and were reset.
    Answered(Vec<Key>),
}

/// Why a datagram is no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MessageError {
    /// It ends too early.
    #[error("truncated")]
    Truncated,
    /// It is longer than its contents, or than a message may be.
    #[error("too long")]
    TooLong,
    /// Another version of this format.
    #[error("version {0} of the format, which this agent does not know")]
    Version(u8),
    /// A field has a value that it cannot have.
    #[error("field `{0}` is out of range")]
    Range(&'static str),
}

/// Bytes before the body.
const HEAD: usize = 34;

/// Bytes of a server and of a connection at most.
const SERVER: usize = 19;
const CONNECTION: usize = 27;

/// The space that a message's connections need: counted in advance, so that none is too long.
#[derive(Clone, Default)]
pub(super) struct Space {
    used: usize,
    servers: Vec<SocketAddr>,
}

impl Space {
    /// The space of a message that has this many bytes beside the connections.
    pub(super) const fn beside(bytes: usize) -> Self {
        Self {
            used: HEAD + bytes + 1,
            servers: Vec::new(),
        }
    }

    /// Whether one more connection has room. If so, it is counted.
    pub(super) fn admit(&mut self, connection: &Connection) -> bool {
        let is_new = !self.servers.contains(&connection.server);
        let more = CONNECTION + if is_new { SERVER } else { 0 };
        if self.used + more > MAX_LENGTH || is_new && self.servers.len() == MAX_SERVERS {
            return false;
        }
        self.used += more;
        if is_new {
            self.servers.push(connection.server);
        }
        true
    }
}

/// Bytes of a [`Body::Range`] beside its connections.
pub(super) const RANGE: usize = 16;

/// Bytes of a [`Body::Changes`] beside its connections, without names.
pub(super) const CHANGES: usize = 2;

/// Bytes of a name.
pub(super) const NAME: usize = 8;

/// Names in a [`Body::Answered`] at most.
pub(super) const MAX_ANSWERED: usize = (MAX_LENGTH - HEAD) / NAME;

impl Message {
    /// The datagram; `None` if it would be longer than [`MAX_LENGTH`].
    #[must_use]
    pub fn emit(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(MAX_LENGTH);
        let kind = match self.body {
            Body::Digests { .. } => 0,
            Body::Request(_) => 1,
            Body::Range { .. } => 2,
            Body::Changes { .. } => 3,
            Body::Answered(_) => 4,
        };
        out.extend([VERSION, kind]);
        out.extend(self.to.map_or(0, |to| to.0.get()).to_be_bytes());
        out.extend(self.answers.to_be_bytes());
        out.extend(self.from.0.get().to_be_bytes());
        out.extend(self.number.to_be_bytes());
        match &self.body {
            Body::Digests { count, digests } => {
                out.extend(count.to_be_bytes());
                out.extend(digests.iter().flat_map(|digest| digest.0.to_be_bytes()));
            }
            Body::Request(Buckets(words)) => {
                out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
            }
            Body::Range { names, connections } => {
                out.extend(names.0.0.to_be_bytes());
                out.extend(names.1.0.to_be_bytes());
                put_connections(&mut out, connections)?;
            }
            Body::Changes {
                removed,
                connections,
            } => {
                out.extend(u16::try_from(removed.len()).ok()?.to_be_bytes());
                out.extend(removed.iter().flat_map(|name| name.0.to_be_bytes()));
                put_connections(&mut out, connections)?;
            }
            Body::Answered(names) => {
                out.extend(names.iter().flat_map(|name| name.0.to_be_bytes()));
            }
        }
        (out.len() <= MAX_LENGTH).then_some(out)
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// It is no message of this version.
    pub fn parse(datagram: &[u8]) -> Result<Self, MessageError> {
        if datagram.len() > MAX_LENGTH {
            return Err(MessageError::TooLong);
        }
        let mut rest = Reader(datagram);
        let [version, kind] = rest.take()?;
        if version != VERSION {
            return Err(MessageError::Version(version));
        }
        let to = NonZeroU64::new(rest.word()?).map(Instance);
        let answers = rest.word()?;
        let from = NonZeroU64::new(rest.word()?).ok_or(MessageError::Range("from"))?;
        let number = rest.word()?;
        let body = match kind {
            0 => {
                let count = u32::from_be_bytes(rest.take()?);
                let mut digests = Box::new([Digest::default(); BUCKETS]);
                for digest in digests.iter_mut() {
                    *digest = Digest(u32::from_be_bytes(rest.take()?));
                }
                Body::Digests { count, digests }
            }
            1 => {
                let mut buckets = Buckets::NONE;
                for word in &mut buckets.0 {
                    *word = rest.word()?;
                }
                Body::Request(buckets)
            }
            2 => {
                let names = (Key(rest.word()?), Key(rest.word()?));
                let connections = rest.connections()?;
                let is_inside = |one: &Connection| (names.0..=names.1).contains(&one.key());
                if names.0.bucket() != names.1.bucket() || !connections.iter().all(is_inside) {
                    return Err(MessageError::Range("names"));
                }
                Body::Range { names, connections }
            }
            3 => {
                let removed = u16::from_be_bytes(rest.take()?);
                let removed = (0..removed).map(|_| Ok(Key(rest.word()?)));
                let removed = removed.collect::<Result<_, MessageError>>()?;
                Body::Changes {
                    removed,
                    connections: rest.connections()?,
                }
            }
            4 => {
                let mut names = Vec::new();
                while !rest.0.is_empty() {
                    names.push(Key(rest.word()?));
                }
                Body::Answered(names)
            }
            _ => return Err(MessageError::Range("kind")),
        };
        if !rest.0.is_empty() {
            return Err(MessageError::TooLong);
        }
        Ok(Self {
            to,
            answers,
            from: Instance(from),
            number,
            body,
        })
    }
}

/// `None` if they have too many servers, or a client of another family than its server.
fn put_connections(out: &mut Vec<u8>, connections: &[Connection]) -> Option<()> {
    let mut servers: Vec<SocketAddr> = Vec::new();
    for connection in connections {
        if !servers.contains(&connection.server) {
            servers.push(connection.server);
        }
    }
    out.push(u8::try_from(servers.len()).ok()?);
    for server in &servers {
        out.push(if server.is_ipv4() { 4 } else { 6 });
        put_end(out, *server);
    }
    for connection in connections {
        if connection.client.is_ipv4() != connection.server.is_ipv4() {
            return None;
        }
        let place = servers.iter().position(|one| *one == connection.server)?;
        out.push(place as u8);
        put_end(out, connection.client);
        out.extend(connection.unacknowledged.to_be_bytes());
        out.extend(connection.expected.to_be_bytes());
    }
    Some(())
}

fn put_end(out: &mut Vec<u8>, end: SocketAddr) {
    match end.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    out.extend(end.port().to_be_bytes());
}

/// The rest of a datagram.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(MessageError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn word(&mut self) -> Result<u64, MessageError> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    fn end(&mut self, v4: bool) -> Result<SocketAddr, MessageError> {
        let ip: IpAddr = if v4 {
            Ipv4Addr::from(self.take::<4>()?).into()
        } else {
            Ipv6Addr::from(self.take::<16>()?).into()
        };
        Ok(SocketAddr::new(ip, u16::from_be_bytes(self.take()?)))
    }

    /// Servers and connections: all the rest.
    fn connections(&mut self) -> Result<Vec<Connection>, MessageError> {
        let [count] = self.take()?;
        let mut servers = Vec::with_capacity(count.into());
        for _ in 0..count {
            let [family] = self.take()?;
            servers.push(match family {
                4 => self.end(true)?,
                6 => self.end(false)?,
                _ => return Err(MessageError::Range("family")),
            });
        }
        let mut connections = Vec::new();
        while !self.0.is_empty() {
            let [place] = self.take()?;
            let server = servers.get(usize::from(place));
            let server = *server.ok_or(MessageError::Range("server"))?;
            connections.push(Connection {
                client: self.end(server.is_ipv4())?,
                server,
                unacknowledged: u32::from_be_bytes(self.take()?),
                expected: u32::from_be_bytes(self.take()?),
            });
        }
        Ok(connections)
    }
}
