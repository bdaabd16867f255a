//! When to ask the clients of a node that is gone, so that they are told.
//!
//! A client that waits for something sends nothing. So it is sent a segment that makes it answer; no
//! node has the connection, and the end of the row resets it. The segment is a copy of the last byte
//! that the client has acknowledged, as in a keepalive probe (RFC 9293, section 3.8.4): it is in the
//! window of each firewall and NAT on the way, and a client answers it at once, however many it has
//! been sent (`tcp_send_dupack`, net/ipv4/tcp_input.c). The third segment is a SYN-ACK that fits
//! nothing: it is answered also where the numbers of the roster are old (RFC 5961, section 4.2).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vip_common::wire::time::BootNanos;

use super::{Connection, Key};

/// What a client is asked by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// An ACK with one byte that the client has acknowledged.
    KeepAlive,
    /// A SYN-ACK that fits nothing.
    SynAck,
}

/// A time after the first question, who is asked then, and by what.
#[derive(Clone, Copy)]
struct Round {
    after: Duration,
    probe: Probe,
    /// Those who have answered are asked, too: the reset may have been lost on its way to them.
    all: bool,
}

impl Round {
    const fn new(milliseconds: u64, probe: Probe, all: bool) -> Self {
        Self {
            after: Duration::from_millis(milliseconds),
            probe,
            all,
        }
    }
}

/// When clients are asked. Thousands of resets in a moment are too many for some host on their way, so
/// all are asked four times. Who does not answer is asked again: a member may have been silent for a
/// shorter time than the others when the first segment was sent, and the row ended in a drop; or a
/// segment was lost.
const ROUNDS: [Round; 6] = [
    Round::new(0, Probe::KeepAlive, true),
    Round::new(250, Probe::KeepAlive, true),
    Round::new(600, Probe::SynAck, true),
    Round::new(1500, Probe::KeepAlive, true),
    Round::new(3000, Probe::SynAck, false),
    Round::new(6000, Probe::KeepAlive, false),
];

/// Between the rounds after those, for whom nobody could reset so far: the agent of a member was down,
/// or a host that is no member was heard.
const LATER: Duration = Duration::from_secs(10);

/// Clients that have not answered by then are given up, unless the cluster changes.
const GIVEN_UP: Duration = Duration::from_secs(600);

/// Answers to a segment have come by then.
const SETTLED: Duration = Duration::from_millis(1200);

/// The round of this number, from 0 on.
fn round(number: usize) -> Option<Round> {
    let last = ROUNDS.len() - 1;
    let Some(more) = number.checked_sub(last).filter(|more| *more > 0) else {
        return ROUNDS.get(number).copied();
    };
    let after = ROUNDS[last].after + LATER * more as u32;
    let probe = match more % 2 {
        0 => Probe::KeepAlive,
        _ => Probe::SynAck,
    };
    let all = false;
    (after <= GIVEN_UP).then_some(Round { after, probe, all })
}

/// Segments in a millisecond: 10,000 in 200 ms.
const PACE: u64 = 50;

/// Segments at once, after a pause: a NIC's queue may have room for 256, and what waits in it is lost
/// when it is full.
const BURST: u64 = 64;

/// After this time, a client to which no way was known is tried again.
pub(super) const NO_WAY: Duration = Duration::from_millis(20);

/// A segment to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nudge {
    /// The connection.
    pub connection: Connection,
    /// What to send.
    pub probe: Probe,
}

/// What has come of asking so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Clients that were asked.
    pub asked: usize,
    /// Those that have answered.
    pub answered: usize,
    /// Time from the first segment to the last answer; zero without one.
    pub after: Duration,
}

struct Group {
    all: BTreeMap<Key, Connection>,
    /// Those that have not answered.
    open: BTreeSet<Key>,
    /// Nothing is sent: another node does it.
    held: bool,
    /// When the first segment was sent.
    begun: Option<BootNanos>,
    /// When the last answer came.
    last: Option<BootNanos>,
    /// How many answers the last outcome had that was told.
    told: Option<usize>,
    /// Number of the next round.
    round: usize,
    /// Rounds are for those that have answered, too, as [`Round::all`] says.
    whole: bool,
    /// When the rounds began.
    rounds_begun: BootNanos,
    /// Those that are to be sent in this round.
    queue: Vec<Key>,
    /// Those to which no way was known, and when they are tried again.
    no_way: Vec<Key>,
    again: BootNanos,
}

/// Clients to be asked, in groups of one cause each.
pub struct Nudges<G> {
    groups: BTreeMap<G, Group>,
    /// Until when segments are accounted for.
    paid: BootNanos,
}

impl<G> Default for Nudges<G> {
    fn default() -> Self {
        Self {
            groups: BTreeMap::new(),
            paid: BootNanos::ZERO,
        }
    }
}

impl<G: Ord + Copy> Nudges<G> {
    /// Begins to ask the clients of these connections, or knows whom to ask once it is no longer
    /// `held`. An earlier group with this name ends.
    pub fn begin(
        &mut self,
        now: BootNanos,
        group: G,
        held: bool,
        connections: impl IntoIterator<Item = Connection>,
    ) {
        let connections = connections.into_iter().map(|one| (one.key(), one));
        let all: BTreeMap<Key, Connection> = connections.collect();
        let begun = Group {
            open: all.keys().copied().collect(),
            all,
            queue: Vec::new(),
            held,
            begun: None,
            last: None,
            told: None,
            round: 0,
            whole: true,
            rounds_begun: now,
            no_way: Vec::new(),
            again: BootNanos::ZERO,
        };
        self.groups.insert(group, begun);
    }

    /// A group ends: nobody is asked any more.
    pub fn end(&mut self, group: G) {
        self.groups.remove(&group);
    }

    /// Other nodes ask the clients of the groups of this kind, or this node does.
    pub fn hold(&mut self, now: BootNanos, held: bool, which: impl Fn(&G) -> bool) {
        let groups = self.groups.iter_mut().filter(|(group, _)| which(group));
        for (_, group) in groups {
            if group.held != held {
                group.held = held;
                group.restart(now, true);
            }
        }
    }

    /// Something has changed in the cluster: a row that has ended in a drop may end in a reset now.
    pub fn again(&mut self, now: BootNanos) {
        for group in self.groups.values_mut() {
            group.restart(now, false);
        }
    }

    /// A client has answered. Returns whether it was asked, and had not answered.
    pub fn answered(&mut self, now: BootNanos, key: Key) -> bool {
        let mut found = false;
        for group in self.groups.values_mut() {
            if group.open.remove(&key) {
                group.last = Some(now);
                found = true;
            }
        }
        found
    }

    /// There was no way to the client of this connection. It is tried again soon while a neighbour may
    /// still be found, and later in the rounds that are left: some clients are never reached.
    pub fn no_way(&mut self, now: BootNanos, key: Key) {
        let groups = self.groups.values_mut();
        if let Some(group) = groups
            .into_iter()
            .find(|group| group.all.contains_key(&key))
            && now.since(group.rounds_begun) < SETTLED
        {
            if group.no_way.is_empty() {
                group.again = now.after(NO_WAY);
            }
            group.no_way.push(key);
        }
    }

    /// The segments that are due.
    pub fn take(&mut self, now: BootNanos) -> Vec<Nudge> {
        let burst = Duration::from_micros(BURST * 1000 / PACE);
        self.paid = self.paid.max(now.before(burst));
        let mut nudges = Vec::new();
        let room = now.since(self.paid).as_micros() as u64 * PACE / 1000;
        for group in self.groups.values_mut().filter(|group| !group.held) {
            group.advance(now);
            while (nudges.len() as u64) < room {
                let Some(key) = group.queue.pop() else {
                    break;
                };
                let (Some(round), Some(&connection)) =
                    (round(group.round - 1), group.all.get(&key))
                else {
                    continue;
                };
                let probe = round.probe;
                if !group.is_for_all(round) && !group.open.contains(&key) {
                    continue;
                }
                group.begun.get_or_insert(now);
                nudges.push(Nudge { connection, probe });
            }
        }
        let spent = Duration::from_micros(nudges.len() as u64 * 1000 / PACE);
        self.paid = self.paid.after(spent);
        nudges
    }

    /// When to call [`take`](Self::take) next; `None`: not before something happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<BootNanos> {
        let groups = self.groups.values().filter(|group| !group.held);
        groups.filter_map(Group::next_deadline).min()
    }

    /// What has come of asking, for groups of which there is something to tell: all have answered; the
    /// first rounds are over; or some have answered later.
    pub fn outcomes(&mut self, now: BootNanos) -> Vec<(G, Outcome)> {
        let mut outcomes = Vec::new();
        for (name, group) in &mut self.groups {
            let due = group.outcome_due();
            let (Some(begun), true) = (group.begun, due.is_some_and(|due| due <= now)) else {
                continue;
            };
            group.told = Some(group.answered());
            let outcome = Outcome {
                asked: group.all.len(),
                answered: group.answered(),
                after: group.last.map_or(Duration::ZERO, |last| last.since(begun)),
            };
            outcomes.push((*name, outcome));
        }
        outcomes
    }

    /// Whether an answer may still come.
    #[must_use]
    pub fn waits(&self, now: BootNanos) -> bool {
        self.in_time(now, GIVEN_UP)
    }

    /// Whether the next segment may be due soon.
    #[must_use]
    pub fn is_busy(&self, now: BootNanos) -> bool {
        let is_sent = |group: &Group| !group.held && !group.queue.is_empty();
        self.groups.values().any(is_sent) || self.in_time(now, ROUNDS[ROUNDS.len() - 1].after)
    }

    fn in_time(&self, now: BootNanos, time: Duration) -> bool {
        let waits = |group: &Group| {
            !group.open.is_empty() && now.since(group.rounds_begun) < time + SETTLED
        };
        self.groups.values().any(waits)
    }
}

impl Group {
    /// Begins with the first round, if not all have answered. `whole`: for those that have, too.
    fn restart(&mut self, now: BootNanos, whole: bool) {
        if self.open.is_empty() {
            return;
        }
        self.round = 0;
        self.whole = whole;
        self.rounds_begun = now;
        self.queue.clear();
        self.no_way.clear();
    }

    const fn is_for_all(&self, round: Round) -> bool {
        self.whole && round.all
    }

    fn answered(&self) -> usize {
        self.all.len() - self.open.len()
    }

    /// When its outcome is to be told, if there is one that was not told.
    fn outcome_due(&self) -> Option<BootNanos> {
        let begun = self.begun?;
        match self.told {
            Some(told) if told == self.answered() => None,
            _ if self.open.is_empty() => Some(BootNanos::ZERO),
            None => Some(begun.after(ROUNDS[ROUNDS.len() - 1].after + SETTLED)),
            Some(_) => self.last.map(|last| last.after(SETTLED)),
        }
    }

    /// Begins the next round, if it is due.
    fn advance(&mut self, now: BootNanos) {
        if !self.no_way.is_empty() && self.again <= now && self.queue.is_empty() {
            self.queue = std::mem::take(&mut self.no_way);
        }
        let Some(round) = round(self.round) else {
            return;
        };
        if self.queue.is_empty() && self.rounds_begun.after(round.after) <= now {
            self.queue = if self.is_for_all(round) {
                self.all.keys().rev().copied().collect()
            } else {
                self.open.iter().rev().copied().collect()
            };
            self.no_way.clear();
            self.round += 1;
        }
    }

    fn next_deadline(&self) -> Option<BootNanos> {
        if !self.queue.is_empty() {
            return Some(BootNanos::ZERO);
        }
        let again = (!self.no_way.is_empty()).then_some(self.again);
        // Rounds for all come first.
        let next = round(self.round);
        let next = next.filter(|round| self.is_for_all(*round) || !self.open.is_empty());
        let next = next.map(|round| self.rounds_begun.after(round.after));
        again
            .into_iter()
            .chain(next)
            .chain(self.outcome_due())
            .min()
    }
}
