//! Rosters that are told over a lossy network.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;

use proptest::prelude::*;

use super::*;
use crate::hello::Instance;

const INSTANCE: Instance = Instance(NonZeroU64::MIN);

fn connection(number: u32) -> Connection {
    let (client, server): (IpAddr, IpAddr) = if number.is_multiple_of(3) {
        (
            Ipv6Addr::from(u128::from(number) | 0xfd << 120).into(),
            Ipv6Addr::LOCALHOST.into(),
        )
    } else {
        (Ipv4Addr::from(number).into(), Ipv4Addr::LOCALHOST.into())
    };
    Connection {
        client: SocketAddr::new(client, number as u16),
        server: SocketAddr::new(server, 6443 + (number % 2) as u16),
        unacknowledged: number,
        expected: number,
    }
}

/// A node and a peer; what they send each other comes to the other one if `arrives` says so.
struct Pair {
    own: Own,
    told: Told,
    number: u64,
}

impl Pair {
    fn new() -> Self {
        Self {
            own: Own::default(),
            told: Told::default(),
            number: 0,
        }
    }

    /// A message's way; `None`: no answer.
    fn send(&mut self, body: Body) -> Option<Buckets> {
        self.number += 1;
        let message = Message {
            instance: INSTANCE,
            number: self.number,
            body,
        };
        let datagram = message.emit().expect("it is not too long");
        let parsed = Message::parse(&datagram).expect("well-formed");
        assert_eq!(parsed, message);
        for length in 0..datagram.len() {
            // Connections are all the rest: a cut between two of them is not seen.
            if let Ok(cut) = Message::parse(&datagram[..length]) {
                assert!(matches!(
                    cut.body,
                    Body::Range { .. } | Body::Changes { .. }
                ));
            }
        }
        self.told.take(parsed.number, parsed.body)
    }

    /// Tells the digests and what is asked for. Returns how many messages that took.
    fn mend(&mut self) -> usize {
        let digests = self.own.digests();
        let mut wanted = self.send(digests).expect("new");
        let mut messages = 1;
        while let Some(bucket) = self.own.bucket(&mut wanted) {
            for body in bucket {
                messages += 1;
                self.send(body);
            }
        }
        messages
    }

    fn is_same(&self) -> bool {
        let mut told: Vec<_> = self
            .told
            .connections()
            .map(|one| (one.key(), one))
            .collect();
        told.sort_unstable_by_key(|(key, _)| *key);
        told == self.own.connections()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_lost_the_digests_mend_it(
        scans in prop::collection::vec(prop::collection::btree_set(0_u32..2000, 0..600), 1..8),
        lost in prop::collection::vec(any::<bool>(), 64),
    ) {
        let mut pair = Pair::new();
        let mut lost = lost.into_iter().cycle();
        for scan in scans {
            for body in pair.own.scanned(scan.into_iter().map(connection)) {
                if lost.next() == Some(false) {
                    pair.send(body);
                }
            }
        }
        pair.mend();
        prop_assert!(pair.is_same());
        prop_assert_eq!(pair.mend(), 1, "nothing is asked for");
    }

    #[test]
    fn bytes_of_anybody_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..1400)) {
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert_eq!(message.emit(), Some(bytes));
        }
    }
}

#[test]
fn few_changes_are_told_at_once_and_many_by_digests() {
    let mut pair = Pair::new();
    let bodies = pair.own.scanned((0..500).map(connection));
    assert!(bodies.len() < 20);
    for body in bodies {
        pair.send(body);
    }
    assert!(pair.is_same());
    assert!(pair.own.scanned((0..500).map(connection)).is_empty());
    let bodies = pair.own.scanned((100..5000).map(connection));
    assert_eq!(bodies, [pair.own.digests()]);
    assert!(pair.mend() < 500, "a few connections in each message");
    assert!(pair.is_same());
}

#[test]
fn numbers_are_told_again_when_they_have_moved_far() {
    let mut pair = Pair::new();
    let at = |moved: u32| Connection {
        unacknowledged: u32::MAX.wrapping_add(moved),
        ..connection(1)
    };
    assert_eq!(pair.own.scanned([at(0)]).len(), 1);
    assert!(pair.own.scanned([at(RENEW)]).is_empty());
    assert_eq!(pair.own.scanned([at(RENEW + 1)]).len(), 1);
    assert!(pair.own.scanned([at(RENEW + 2)]).is_empty());
}

#[test]
fn what_is_too_much_is_counted() {
    let more = 10;
    let mut pair = Pair::new();
    let all = (0..(MAX_CONNECTIONS + more) as u32).map(connection);
    pair.own.scanned(all);
    assert_eq!((pair.own.len(), pair.own.untold()), (MAX_CONNECTIONS, more));
    pair.mend();
    assert!(pair.is_same());
    let other = connection(u32::MAX);
    pair.send(Body::Changes {
        removed: Vec::new(),
        connections: vec![other],
    });
    assert_eq!((pair.told.len(), pair.told.refused()), (MAX_CONNECTIONS, 1));
}

#[test]
fn an_old_message_changes_nothing() {
    let mut told = Told::default();
    let body = |number| Body::Changes {
        removed: Vec::new(),
        connections: vec![connection(number)],
    };
    assert!(told.take(7, body(1)).is_some());
    assert!(told.take(7, body(2)).is_none());
    assert!(told.take(6, body(2)).is_none());
    assert_eq!(told.len(), 1);
}
