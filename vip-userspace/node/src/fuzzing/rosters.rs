//! What no message about rosters may do.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::time::Duration;

use vip_common::wire::time::BootNanos;

use super::{START, address};
use crate::hello::Instance;
use crate::roster::{Connection, Exchange, MAX_CONNECTIONS, MAX_LENGTH, Message, Taken};

/// Steps of one input at most.
const MOST_STEPS: usize = 400;

/// Messages after which an exchange rests, whatever came. An input has some 60,000 connections, some
/// 30 of which have room in a message to each of four peers; and some thousand answers.
const MOST_MESSAGES: usize = 20_000;

/// Messages at once, as the agent sends them.
const MOST_AT_ONCE: usize = 100;

/// The run of the agent that is tested, which peers must know to be believed.
pub(super) const RUN: Instance = Instance(NonZeroU64::MIN);

/// What a step does. The first byte's lower four bits: the host that sends, below 4 for a peer.
pub(super) const DATAGRAM: u8 = 0;
pub(super) const SCAN: u8 = 16;
pub(super) const SEND: u8 = 32;
pub(super) const ANSWERED: u8 = 48;
pub(super) const PEERS: u8 = 64;

/// Checks the rules for messages that come to an agent one after the other while it scans and sends.
/// A step is a byte that says what happens, one for a time, a length in two bytes, and a message or
/// what was scanned.
///
/// # Panics
/// If a rule is broken.
pub fn check_roster(input: &[u8]) {
    let mut subject = take_all(input);
    subject.rests();
}

/// The agent that has taken these steps.
pub(super) fn take_all(input: &[u8]) -> Subject {
    let mut subject = Subject::start();
    let mut rest = input;
    for _ in 0..MOST_STEPS {
        let [what, time, high, low, more @ ..] = rest else {
            break;
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (content, more) = more.split_at(length.min(more.len()));
        rest = more;
        let now = &mut subject.now;
        *now = now.after(Duration::from_millis(20) * u32::from(*time));
        subject.step(*what, content);
    }
    subject
}

/// An agent that has an exchange.
pub(super) struct Subject {
    pub(super) now: BootNanos,
    pub(super) exchange: Exchange,
    /// Messages that it believed.
    pub(super) believed: usize,
}

impl Subject {
    fn start() -> Self {
        let mut exchange = Exchange::new(RUN);
        exchange.set_peers(&peers(u8::MAX));
        Self {
            now: START,
            exchange,
            believed: 0,
        }
    }

    fn step(&mut self, what: u8, content: &[u8]) {
        match what & 0xf0 {
            DATAGRAM => {
                let Ok(message) = Message::parse(content) else {
                    return;
                };
                let emitted = message.emit().expect("fits");
                assert_eq!(Message::parse(&emitted).as_ref(), Ok(&message));
                let from = what & 15;
                match self.exchange.take(self.now, address(from), message) {
                    Taken::Believed(names) => {
                        assert!(names.len() <= MAX_LENGTH / 8);
                        self.believed += 1;
                    }
                    Taken::Stranger => assert!(self.exchange.told(address(from)).is_none()),
                    Taken::Unbelieved | Taken::Old => {}
                }
            }
            SCAN => self.exchange.scanned(self.now, connections(content)),
            ANSWERED => {
                let names: Vec<_> = connections(content).map(|one| one.key()).collect();
                self.exchange.answered(&names);
            }
            PEERS => self.exchange.set_peers(&peers(what & 15)),
            SEND => drop(self.send()),
            _ => {}
        }
        let own = self.exchange.own().len();
        let mut all = self.exchange.peers().map(|(_, told)| told.len());
        assert!(own <= MAX_CONNECTIONS && all.all(|told| told <= MAX_CONNECTIONS));
    }

    /// Sends what is due. Returns how much that was.
    fn send(&mut self) -> usize {
        let sent = self.exchange.send(self.now, MOST_AT_ONCE);
        for (to, message) in &sent {
            assert!(self.exchange.told(*to).is_some(), "it is for a peer");
            let emitted = message.emit().expect("fits");
            assert_eq!(Message::parse(&emitted).as_ref(), Ok(message));
        }
        // A digest may be for two runs of a peer.
        assert!(sent.len() <= MOST_AT_ONCE + 1);
        sent.len()
    }

    /// Whatever came, it sends a bounded number of messages before it waits for the next digest.
    fn rests(&mut self) {
        let mut count = 0;
        loop {
            count += self.send();
            assert!(count <= MOST_MESSAGES, "it never rests");
            let deadline = self.exchange.next_deadline();
            if deadline.is_none_or(|deadline| deadline > self.now) {
                return;
            }
        }
    }
}

fn peers(which: u8) -> BTreeSet<IpAddr> {
    let numbers = (0..4).filter(|number| which & 1 << number != 0);
    numbers.map(address).collect()
}

/// Connections with a few bytes each: many of one scan, with clients that follow each other.
pub(super) fn connections(content: &[u8]) -> impl Iterator<Item = Connection> {
    let runs = content.chunks_exact(4);
    runs.flat_map(|run| {
        let &[client, count, server, moved] = run else {
            unreachable!("four bytes")
        };
        (0..u16::from(count)).map(move |port| {
            let (client, server) = if server & 1 == 0 {
                (
                    SocketAddr::from(([10, 1, 0, client], port)),
                    SocketAddr::from(([10, 0, 0, 10], server.into())),
                )
            } else {
                (
                    SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 1, client.into()], port)),
                    SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 10], server.into())),
                )
            };
            Connection {
                client,
                server,
                unacknowledged: u32::from(moved) << 12,
                expected: u32::from(moved) << 11,
            }
        })
    })
}
