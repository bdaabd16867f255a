//! Rosters that are told over a lossy network.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;
use std::time::Duration;

use proptest::prelude::*;
use vip_common::wire::time::BootNanos;

use super::nudges::NO_WAY;
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
            to: Some(INSTANCE),
            answers: 0,
            from: INSTANCE,
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
                    Body::Range { .. } | Body::Changes { .. } | Body::Answered(_)
                ));
            }
        }
        self.told.take(parsed.number, parsed.body)
    }

    /// Tells the digests and what is asked for. Returns how many messages that took.
    fn mend(&mut self) -> usize {
        let mut messages = 0;
        loop {
            let digests = self.own.digests();
            let mut wanted = self.send(digests).expect("new");
            messages += 1;
            if wanted.is_empty() {
                return messages;
            }
            while let Some(bucket) = self.own.bucket(&mut wanted) {
                messages += bucket.len();
                for body in bucket {
                    self.send(body);
                }
            }
        }
    }

    fn is_same(&self) -> bool {
        self.told.connections().eq(self.own.connections())
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
fn connections_are_told_when_they_come_and_go() {
    let mut pair = Pair::new();
    let come = |number| Change::Come(connection(number));
    let gone = |number| Change::Gone(connection(number).key());
    for (changes, count) in [
        (vec![come(1), come(2), come(3)], 3),
        // One that has gone before anybody was told of it.
        (vec![come(4), gone(4), gone(2)], 2),
        // Its port is used again.
        (vec![gone(3), come(3)], 2),
        (vec![gone(9)], 2),
    ] {
        for body in pair.own.changed(changes) {
            pair.send(body);
        }
        assert_eq!(pair.own.len(), count);
        assert!(pair.is_same());
    }
    // A scan that knows as much has nothing to tell.
    assert!(pair.own.scanned([connection(1), connection(3)]).is_empty());
    assert_eq!(pair.mend(), 1);
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

/// Agents that send each other what is due; a message arrives if `arrives` says so.
struct Cluster {
    now: BootNanos,
    agents: Vec<Exchange>,
    /// All that was sent: from, to, what.
    sent: Vec<(usize, usize, Message)>,
}

fn address(agent: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, agent as u8 + 1).into()
}

fn run(number: u64) -> Instance {
    Instance(NonZeroU64::new(number).expect("not 0"))
}

impl Cluster {
    fn new(count: usize) -> Self {
        let agents = (0..count).map(|agent| Self::agent(agent, agent as u64 + 1, count));
        Self {
            now: BootNanos(1_000_000_000_000),
            agents: agents.collect(),
            sent: Vec::new(),
        }
    }

    fn agent(agent: usize, number: u64, count: usize) -> Exchange {
        let mut exchange = Exchange::new(run(number));
        let peers = (0..count).filter(|peer| *peer != agent).map(address);
        exchange.set_peers(&peers.collect());
        exchange
    }

    /// A tenth of a second.
    fn step(&mut self, mut arrives: impl FnMut() -> bool) {
        self.now = self.now.after(Duration::from_millis(100));
        for from in 0..self.agents.len() {
            for (to, message) in self.agents[from].send(self.now, 100) {
                let emitted = message.emit().expect("it is not too long");
                assert_eq!(Message::parse(&emitted), Ok(message.clone()));
                let to = (0..self.agents.len()).find(|agent| address(*agent) == to);
                let to = to.expect("an agent");
                self.sent.push((from, to, message.clone()));
                if arrives() {
                    self.agents[to].take(self.now, address(from), message);
                }
            }
        }
    }

    fn scan(&mut self, agent: usize, connections: impl IntoIterator<Item = u32>) {
        let scan = connections.into_iter().map(connection);
        self.agents[agent].scanned(self.now, scan);
    }

    fn agree(&self) -> bool {
        let agents = 0..self.agents.len();
        let mut pairs = agents
            .clone()
            .flat_map(|own| agents.clone().map(move |peer| (own, peer)));
        pairs.all(|(own, peer)| {
            own == peer || {
                let told = self.agents[own].told(address(peer)).expect("a peer");
                told.connections().eq(self.agents[peer].own().connections())
            }
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn all_agents_know_all_rosters_whatever_is_lost_and_whoever_starts_anew(
        scans in prop::collection::vec((0_usize..3, prop::collection::btree_set(0_u32..2000, 0..300)), 1..12),
        restarts in prop::collection::vec(0_usize..12, 0..3),
        lost in prop::collection::vec(any::<bool>(), 64),
    ) {
        let mut cluster = Cluster::new(3);
        let mut lost = lost.into_iter().cycle();
        let mut runs = 10;
        let mut scanned = vec![Default::default(); 3];
        for (step, (agent, scan)) in scans.into_iter().enumerate() {
            if restarts.contains(&step) {
                runs += 1;
                cluster.agents[agent] = Cluster::agent(agent, runs, 3);
            }
            cluster.scan(agent, scan.iter().copied());
            scanned[agent] = scan;
            for _ in 0..5 {
                cluster.step(|| lost.next() == Some(false));
            }
        }
        for _ in 0..50 {
            cluster.step(|| true);
        }
        prop_assert!(cluster.agree());
        // What an attacker has recorded changes nothing.
        for (from, to, message) in std::mem::take(&mut cluster.sent) {
            let taken = cluster.agents[to].take(cluster.now, address(from), message);
            prop_assert!(taken == Taken::Old || taken == Taken::Unbelieved, "{taken:?}");
        }
        prop_assert!(cluster.agree());
        for _ in 0..20 {
            cluster.step(|| true);
        }
        prop_assert!(cluster.agree());
    }
}

#[test]
fn a_stranger_is_not_heard_and_a_silent_peer_is_told_digests_alone() {
    let mut cluster = Cluster::new(2);
    for _ in 0..20 {
        cluster.step(|| true);
    }
    let message = cluster.sent[0].2.clone();
    let stranger = Ipv4Addr::new(10, 0, 0, 99).into();
    assert_eq!(
        cluster.agents[0].take(cluster.now, stranger, message),
        Taken::Stranger
    );
    for _ in 0..40 {
        cluster.step(|| false);
    }
    cluster.sent.clear();
    cluster.scan(0, 0..10);
    cluster.agents[0].answered(&[connection(1).key()]);
    for _ in 0..20 {
        cluster.step(|| false);
    }
    let digests =
        |(_, _, message): &(usize, usize, Message)| matches!(message.body, Body::Digests { .. });
    assert!(cluster.sent.iter().all(digests));
}

#[test]
fn what_the_living_hold_is_not_left_by_a_node_that_is_gone() {
    let mut cluster = Cluster::new(4);
    for (agent, connections) in [(0, 1..3), (1, 0..9), (2, 3..5), (3, 5..7)] {
        cluster.scan(agent, connections);
    }
    for _ in 0..50 {
        cluster.step(|| true);
    }
    assert!(cluster.agree());
    // The fourth one is gone, too.
    let lives = |peer| peer != address(3);
    let left = cluster.agents[0].left_by(address(1), lives);
    let left: BTreeSet<Key> = left.map(|one| one.key()).collect();
    let expected = [0, 5, 6, 7, 8].map(|number| connection(number).key());
    assert_eq!(left, expected.into());
}

#[test]
fn who_has_answered_is_told_twice() {
    let mut cluster = Cluster::new(2);
    for _ in 0..20 {
        cluster.step(|| true);
    }
    let names: Vec<Key> = (0..1000).map(|number| connection(number).key()).collect();
    cluster.agents[0].answered(&names);
    let now = cluster.now;
    let mut told = Vec::new();
    for _ in 0..3 {
        for (_, message) in cluster.agents[0].send(now, 100) {
            match cluster.agents[1].take(now, address(0), message) {
                Taken::Believed(names) => told.extend(names),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(told, [names.clone(), names].concat());
}

#[test]
fn a_peer_that_asks_for_much_does_not_keep_another_waiting() {
    let mut cluster = Cluster::new(3);
    for _ in 0..20 {
        cluster.step(|| true);
    }
    cluster.scan(0, 0..50_000);
    let wanted = Body::Request(Buckets([u64::MAX; 4]));
    let body = |number| Message {
        to: Some(run(1)),
        answers: 0,
        from: run(2),
        number,
        body: wanted.clone(),
    };
    let now = cluster.now;
    cluster.agents[0].take(now, address(1), body(1_000_000));
    cluster.agents[0].answered(&[connection(1).key()]);
    let sent = cluster.agents[0].send(now, 10);
    let to_other: Vec<_> = sent.iter().filter(|(to, _)| *to == address(2)).collect();
    let is_answered = |body: &Body| matches!(body, Body::Answered(_));
    assert!(
        to_other
            .iter()
            .any(|(_, message)| is_answered(&message.body))
    );
}

#[test]
fn however_many_digests_come_one_request_follows() {
    let mut cluster = Cluster::new(2);
    for _ in 0..20 {
        cluster.step(|| true);
    }
    let digests = Body::Digests {
        count: 1,
        digests: Box::new([Digest(7); BUCKETS]),
    };
    for number in 1_000_000..1_001_000 {
        let message = Message {
            to: Some(run(1)),
            answers: 0,
            from: run(2),
            number,
            body: digests.clone(),
        };
        cluster.agents[0].take(cluster.now, address(1), message);
    }
    let sent = cluster.agents[0].send(cluster.now, 2000);
    assert!(sent.len() <= 2, "{} messages", sent.len());
}

#[test]
fn another_version_is_refused_and_the_exchange_goes_on() {
    let mut cluster = Cluster::new(2);
    cluster.scan(1, 0..10);
    for _ in 0..20 {
        cluster.step(|| true);
    }
    let (_, message) = cluster.agents[1]
        .send(cluster.now.after(Duration::from_secs(2)), 1)
        .remove(0);
    let mut bytes = message.emit().expect("fits");
    bytes[0] = 2;
    assert_eq!(Message::parse(&bytes), Err(MessageError::Version(2)));
    cluster.scan(1, 5..20);
    for _ in 0..50 {
        cluster.step(|| true);
    }
    assert!(cluster.agree());
}

#[test]
fn servers_without_room_are_refused_and_the_rest_is_kept() {
    let mut pair = Pair::new();
    let to = |port: u16| Connection {
        server: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        ..connection(1)
    };
    let bodies = pair.own.scanned((0..300).map(to));
    for body in bodies {
        pair.send(body);
    }
    assert_eq!((pair.told.len(), pair.told.refused()), (MAX_SERVERS, 45));
}

/// Takes what is due in each millisecond of a time.
fn asked(nudges: &mut Nudges<u8>, from: BootNanos, milliseconds: u64) -> Vec<(u64, Nudge)> {
    let at = |milliseconds| from.after(Duration::from_millis(milliseconds));
    (0..milliseconds)
        .flat_map(|time| {
            let taken = nudges.take(at(time));
            taken.into_iter().map(move |nudge| (time, nudge))
        })
        .collect()
}

const BEGIN: BootNanos = BootNanos(1_000_000_000_000);

#[test]
fn ten_thousand_clients_are_asked_in_two_hundred_milliseconds() {
    let mut nudges = Nudges::default();
    nudges.begin(BEGIN, 0, false, (0..10_000).map(connection));
    let asked = asked(&mut nudges, BEGIN, 240);
    assert_eq!(asked.len(), 10_000);
    let (last, _) = asked[9_999];
    assert!((180..=200).contains(&last), "{last} ms");
    let mut names: Vec<Key> = asked
        .iter()
        .map(|(_, nudge)| nudge.connection.key())
        .collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 10_000, "each of them once");
}

#[test]
fn who_does_not_answer_is_asked_again_and_in_another_way() {
    let mut nudges = Nudges::default();
    nudges.begin(BEGIN, 0, false, (0..3).map(connection));
    assert!(nudges.answered(BEGIN, connection(0).key()));
    assert!(!nudges.answered(BEGIN, connection(0).key()));
    let all = asked(&mut nudges, BEGIN, 20_000);
    let of = |number| {
        let of = all
            .iter()
            .filter(|(_, nudge)| nudge.connection == connection(number));
        of.map(|(time, nudge)| (*time, nudge.probe))
            .collect::<Vec<_>>()
    };
    // Its reset may have been lost.
    let all = [
        (0, Probe::KeepAlive),
        (250, Probe::KeepAlive),
        (600, Probe::SynAck),
        (1500, Probe::KeepAlive),
    ];
    assert_eq!(of(0), all);
    let asked = of(1);
    let expected = [
        (0, Probe::KeepAlive),
        (250, Probe::KeepAlive),
        (600, Probe::SynAck),
        (1500, Probe::KeepAlive),
        (3000, Probe::SynAck),
        (6000, Probe::KeepAlive),
        (16_000, Probe::SynAck),
    ];
    assert_eq!(asked, expected);
    // The cluster has changed.
    let after = BEGIN.after(Duration::from_secs(20));
    nudges.again(after);
    assert_eq!(nudges.take(after).len(), 2);
}

#[test]
fn who_answers_late_is_told_of_later() {
    let at = |milliseconds| BEGIN.after(Duration::from_millis(milliseconds));
    let outcome = |answered, after| Outcome {
        asked: 3,
        answered,
        after: Duration::from_millis(after),
    };
    let mut nudges = Nudges::default();
    nudges.begin(BEGIN, 0, false, (0..3).map(connection));
    asked(&mut nudges, BEGIN, 20);
    nudges.answered(at(10), connection(0).key());
    assert!(nudges.outcomes(at(7199)).is_empty());
    assert_eq!(nudges.outcomes(at(7200)), [(0, outcome(1, 10))]);
    assert!(nudges.outcomes(at(7200)).is_empty(), "once");
    nudges.answered(at(16_000), connection(1).key());
    assert!(nudges.outcomes(at(17_199)).is_empty());
    assert_eq!(nudges.outcomes(at(17_200)), [(0, outcome(2, 16_000))]);
    nudges.answered(at(26_000), connection(2).key());
    assert_eq!(nudges.outcomes(at(26_000)), [(0, outcome(3, 26_000))]);
}

#[test]
fn only_the_owner_asks() {
    let mut nudges = Nudges::default();
    nudges.begin(BEGIN, 0, true, (0..3).map(connection));
    assert!(asked(&mut nudges, BEGIN, 1000).is_empty());
    // Another node has asked, and one client has answered.
    nudges.answered(BEGIN, connection(2).key());
    let later = BEGIN.after(Duration::from_secs(1));
    nudges.hold(later, false, |group| *group == 0);
    assert_eq!(asked(&mut nudges, later, 100).len(), 3);
    nudges.end(0);
    assert_eq!(nudges.next_deadline(), None);
}

#[test]
fn a_client_without_a_way_is_tried_again_soon() {
    let mut nudges = Nudges::default();
    nudges.begin(BEGIN, 0, false, (0..2).map(connection));
    for nudge in nudges.take(BEGIN.after(Duration::from_millis(1))) {
        nudges.no_way(BEGIN, nudge.connection.key());
    }
    assert_eq!(nudges.next_deadline(), Some(BEGIN.after(NO_WAY)));
    assert_eq!(nudges.take(BEGIN.after(NO_WAY)).len(), 2);
}

#[test]
fn a_client_that_is_never_reached_is_given_up() {
    let mut nudges = Nudges::default();
    nudges.begin(BEGIN, 0, false, [connection(1)]);
    let mut last = 0;
    for time in (0..1_000_000).step_by(10) {
        let now = BEGIN.after(Duration::from_millis(time));
        for nudge in nudges.take(now) {
            nudges.no_way(now, nudge.connection.key());
            last = time;
        }
        nudges.outcomes(now);
    }
    assert_eq!(last, 596_000, "in the last round");
    assert_eq!(nudges.next_deadline(), None);
}

#[test]
fn peers_share_the_room_that_there_is() {
    let peers = 9;
    let mut exchange = Cluster::agent(0, 1, peers + 1);
    let now = BootNanos(1_000_000_000_000);
    let room = MAX_TOLD / peers;
    for peer in 1..=peers {
        let mut number = 0;
        let mut send = |exchange: &mut Exchange, connections: Vec<Connection>| {
            number += 1;
            let message = Message {
                to: Some(run(1)),
                answers: 1,
                from: run(10 + peer as u64),
                number,
                body: Body::Changes {
                    removed: Vec::new(),
                    connections,
                },
            };
            let taken = exchange.take(now, address(peer), message);
            assert_eq!(taken, Taken::Believed(Vec::new()));
        };
        if peer == 1 {
            let all: Vec<_> = (0..=room as u32).map(connection).collect();
            for part in all.chunks(40) {
                send(&mut exchange, part.to_vec());
            }
        } else {
            send(&mut exchange, vec![connection(1)]);
        }
    }
    let told: Vec<usize> = exchange.peers().map(|(_, told)| told.len()).collect();
    assert_eq!(told, [&[room][..], &[1; 8]].concat());
}

#[test]
fn buckets_that_cannot_be_mended_keep_no_others_out() {
    let mut told = Told::default();
    let theirs = Box::new([Digest(1); BUCKETS]);
    let mut asked = BTreeSet::new();
    for number in 1..=200 {
        let digests = Body::Digests {
            count: 1_000_000,
            digests: theirs.clone(),
        };
        let mut differ = told.take(number, digests).expect("new");
        while let Some(bucket) = differ.pop() {
            asked.insert(bucket);
        }
    }
    assert_eq!(asked.len(), BUCKETS);
}
