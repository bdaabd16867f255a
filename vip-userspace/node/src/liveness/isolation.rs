//! Whether this node is cut off from the segment.
//!
//! A node that hears no other member's agent is either the last one that lives, or has lost its
//! network. The difference is a *witness*: if the kernel of any member or of any other host answers
//! ARP (IPv6: Neighbor Discovery), the segment works in both directions, and this node is a
//! *survivor*. Otherwise it is *isolated*: what it does not hear proves nothing about other nodes.
//!
//! ```text
//!            no member for a detection time
//!            and no answer of a witness                 a witness answers for
//!          ┌─────────────────────────────▶ Isolated ── two detection times ───┐
//!  Heard ──┤                                   ▲                              ▼
//!          └───────────────┐                   └── no witness answers ─── Survivor
//!            the same, but │                                                  ▲
//!            one answered  └──────────────────────────────────────────────────┘
//!
//!  A sign of a member leads from each state to Heard.
//! ```
//!
//! Ports of a switch come back one after the other. So a witness must answer for two detection times
//! before an isolated node is a survivor: a member may be next.
//!
//! A node whose agent starts, and that knows of no earlier one, is isolated at first.

use std::time::Duration;

use vip_common::wire::time::BootNanos;

use super::peer::FIRST_HEARING;

/// Answers of witnesses that may be missing until the segment counts as not working.
const MISSING: u32 = 3;

/// Times between questions to witnesses: while a member may be lost, and afterwards. Both in units
/// of the time between questions to a suspect.
const OFTEN: u32 = 1;
const SELDOM: u32 = 10;

/// Detection times in which witnesses must answer until an isolated node is a survivor.
const SETTLING: u32 = 2;

/// How long an isolated node asks often.
const EAGER: Duration = Duration::from_secs(10);

/// What follows from the time or from an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// This node is isolated from now on.
    Isolated,
    /// A witness has answered: silence of others counts again, from now on.
    Proved,
    /// This node is a survivor.
    Survivor,
    /// Neither a member nor a witness has been heard for `reset_after`: the segment may have no
    /// other host.
    Silent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A member is heard.
    Heard,
    /// Neither a member nor a witness is.
    Isolated {
        since: BootNanos,
        /// When a witness first answered.
        proved: Option<BootNanos>,
        /// It has lasted for `reset_after`.
        silent: bool,
    },
    /// A witness is heard, and no member.
    Survivor,
}

/// Times by which isolation is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pace {
    /// Without a sign of a member after which none is heard, unless one has said that it sends less
    /// often ([`Isolation::set_patience`]).
    pub(super) detection: Duration,
    /// Between questions to a suspect.
    pub(super) question: Duration,
    /// From the last sign of life until a node is gone.
    pub(super) reset_after: Duration,
    /// After the first sign of a member, the time in which an owner must have advertised.
    pub(super) owner: Duration,
}

/// Whether this node is cut off.
#[derive(Clone, Debug)]
pub(super) struct Isolation {
    /// `None` if this node is never isolated: it knows no other member, or there is no BFD to hear
    /// one by.
    pace: Option<Pace>,
    state: State,
    /// The longest detection time of a member that is up.
    patience: Duration,
    /// No member was heard by this agent or the one before.
    fresh: bool,
    /// The NIC has a carrier.
    carrier: bool,
    /// When a member was last heard. Before that, when this node started.
    heard: BootNanos,
    /// An owner that this node does not know of may be there until then.
    alone_until: BootNanos,
    /// Until then, this node was isolated a moment ago, and does not claim the VIP.
    claim_from: BootNanos,
    /// When a witness last answered.
    answered: BootNanos,
    /// When witnesses were asked last, and are asked next.
    asked: BootNanos,
    ask: BootNanos,
    /// A question has had no answer since a member was heard.
    missed: bool,
}

impl Isolation {
    /// Of a node that has not started.
    pub(super) fn new(pace: Option<Pace>) -> Self {
        Self {
            pace,
            state: State::Heard,
            patience: Duration::ZERO,
            fresh: true,
            carrier: true,
            heard: BootNanos::ZERO,
            alone_until: BootNanos::ZERO,
            claim_from: BootNanos::ZERO,
            answered: BootNanos::ZERO,
            asked: BootNanos::ZERO,
            ask: BootNanos::ZERO,
            missed: false,
        }
    }

    /// The agent starts. `known`: an earlier one heard members.
    pub(super) fn on_start(&mut self, now: BootNanos, known: bool) {
        self.heard = now;
        self.fresh = !known;
        if self.pace.is_some() && !known {
            self.state = State::Isolated {
                since: now,
                proved: None,
                silent: false,
            };
        }
    }

    /// A member's agent was heard. Returns whether this node was isolated.
    pub(super) fn hear(&mut self, now: BootNanos) -> bool {
        let was_proved = self.is_proved();
        let last = std::mem::replace(&mut self.heard, now);
        self.missed = false;
        let was_fresh = std::mem::replace(&mut self.fresh, false);
        let before = std::mem::replace(&mut self.state, State::Heard);
        let was_isolated = matches!(before, State::Isolated { .. });
        let Some(pace) = self.pace else {
            return false;
        };
        if before != State::Heard {
            self.alone_until = now.after(pace.owner);
            self.ask = now;
        }
        if was_isolated && !was_fresh {
            self.claim_from = self.alone_until;
        } else if now.since(last) > pace.detection / 2 && !was_proved {
            // All members were silent, and this one is the first: the owner may be the next.
            self.claim_from = self.claim_from.max(now.after(pace.detection));
        }
        was_isolated
    }

    /// A member has come or left.
    pub(super) fn set_pace(&mut self, pace: Option<Pace>) {
        if pace.is_none() {
            self.state = State::Heard;
        }
        self.pace = pace;
    }

    /// A witness answered.
    pub(super) fn on_witness(&mut self, now: BootNanos) {
        self.answered = now;
    }

    /// The NIC has a carrier, or has not.
    pub(super) fn set_carrier(&mut self, carrier: bool) {
        self.carrier = carrier;
        if !carrier {
            self.answered = BootNanos::ZERO;
        }
    }

    /// Sets the longest detection time of a member that is up.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// When no member is heard any more, if none is heard until then.
    fn end_of_patience(&self, pace: Pace) -> BootNanos {
        self.heard.after(pace.detection.max(self.patience))
    }

    /// Whether the segment works in both directions, since `since`.
    fn works(&self, now: BootNanos, since: BootNanos, interval: Duration) -> bool {
        self.carrier && self.answered >= since && now.since(self.answered) <= interval * MISSING
    }

    /// Time between questions to witnesses.
    fn interval(&self, now: BootNanos, pace: Pace) -> Duration {
        pace.question
            * match self.state {
                State::Isolated { since, .. } if now.since(since) >= EAGER => SELDOM,
                State::Heard | State::Isolated { .. } => OFTEN,
                State::Survivor => SELDOM,
            }
    }

    /// To be called at [`Self::next_deadline`] or later, until it returns `None`.
    pub(super) fn on_timer(&mut self, now: BootNanos) -> Option<Change> {
        let pace = self.pace?;
        let interval = self.interval(now, pace);
        let isolated = State::Isolated {
            since: now,
            proved: None,
            silent: false,
        };
        match self.state {
            State::Heard if now < self.end_of_patience(pace) => None,
            State::Heard if self.is_proved() && self.works(now, self.heard, interval) => {
                self.state = State::Survivor;
                Some(Change::Survivor)
            }
            State::Survivor if self.works(now, BootNanos::ZERO, interval) => None,
            State::Heard | State::Survivor => {
                self.state = isolated;
                self.ask = now;
                Some(Change::Isolated)
            }
            State::Isolated {
                since,
                proved,
                silent,
            } => {
                let works = self.works(now, since, interval);
                let first = proved.is_none();
                let proved = works.then(|| proved.unwrap_or(now));
                let is_silent = silent || now >= since.after(pace.reset_after);
                self.state = State::Isolated {
                    since,
                    proved,
                    silent: is_silent,
                };
                if proved.is_some_and(|proved| now >= proved.after(pace.detection * SETTLING)) {
                    self.state = State::Survivor;
                    return Some(Change::Survivor);
                }
                if proved.is_some() && first {
                    return Some(Change::Proved);
                }
                (is_silent && !silent).then_some(Change::Silent)
            }
        }
    }

    /// Whether witnesses are to be asked now.
    pub(super) fn ask(&mut self, now: BootNanos) -> bool {
        let Some(pace) = self.pace else {
            return false;
        };
        let asks = now >= self.next_question(pace);
        if asks {
            self.missed |= self.asked > self.heard && self.answered < self.asked;
            self.asked = now;
            self.ask = now.after(self.interval(now, pace));
        }
        asks
    }

    /// Whether witnesses have answered each question since a member was heard: the segment has
    /// worked throughout.
    fn is_proved(&self) -> bool {
        !self.missed && self.answered > self.heard && self.answered >= self.asked
    }

    /// While a member is heard, witnesses are asked only if all members miss a packet.
    fn next_question(&self, pace: Pace) -> BootNanos {
        match self.state {
            State::Heard => self.ask.max(self.heard.after(pace.detection / 2)),
            State::Isolated { .. } | State::Survivor => self.ask,
        }
    }

    /// When to call [`Self::on_timer`] and [`Self::ask`].
    pub(super) fn next_deadline(&self) -> BootNanos {
        let Some(pace) = self.pace else {
            return BootNanos(u64::MAX);
        };
        let change = match self.state {
            State::Heard => self.end_of_patience(pace),
            State::Isolated {
                proved: Some(proved),
                ..
            } => proved.after(pace.detection * SETTLING),
            State::Isolated {
                since,
                silent: false,
                ..
            } => since.after(pace.reset_after),
            State::Isolated { .. } | State::Survivor => BootNanos(u64::MAX),
        };
        change.min(self.next_question(pace))
    }

    /// Neither a member nor, for long enough, a witness is heard.
    pub(super) const fn is_isolated(&self) -> bool {
        matches!(self.state, State::Isolated { .. })
    }

    /// It is isolated, and has been for `reset_after`: the segment may have no other host.
    pub(super) const fn is_silent(&self) -> bool {
        matches!(self.state, State::Isolated { silent: true, .. })
    }

    /// No member's agent has been heard for so long that those of all are down. The kernel of one may
    /// answer.
    pub(super) fn is_last(&self, now: BootNanos) -> bool {
        let time = self.pace.map(|pace| pace.reset_after.max(FIRST_HEARING));
        let is_over = time.is_some_and(|time| self.heard.after(time) <= now);
        self.state == State::Survivor && is_over
    }

    /// Clocks towards away and gone stand still: nothing shows that others could be heard.
    pub(super) const fn is_cut_off(&self) -> bool {
        matches!(self.state, State::Isolated { proved: None, .. })
    }

    /// Whether any member is heard. True if this node is never isolated.
    pub(super) const fn hears_any(&self) -> bool {
        matches!(self.state, State::Heard)
    }

    /// Whether there may be an owner that this node has not heard: no member is heard, or the first
    /// one a moment ago.
    pub(super) fn is_alone(&self, now: BootNanos) -> bool {
        self.pace.is_some() && (self.state != State::Heard || now < self.alone_until)
    }

    /// When the moment after the first sign of a member is over; the end of time while no member is
    /// heard.
    pub(super) const fn alone_until(&self) -> BootNanos {
        match self.state {
            State::Heard => self.alone_until,
            State::Isolated { .. } | State::Survivor => BootNanos(u64::MAX),
        }
    }

    /// When this node may claim the VIP at the earliest, as far as isolation is concerned; the end
    /// of time while it may not. One that has heard members, and hears neither them nor a witness,
    /// waits for `reset_after`. One that hears them again gives an owner time to advertise.
    ///
    /// It would claim at `from` otherwise, after its `turn`. If all members miss a packet by then, it
    /// waits until it is known whether this node is the one that is cut off.
    pub(super) fn claim_at(&self, from: BootNanos, turn: Duration) -> BootNanos {
        let at = from.max(self.claim_from).after(turn);
        match (self.state, self.pace) {
            (State::Heard, Some(pace)) => {
                let all_heard = at <= self.heard.after(pace.detection / 2);
                if all_heard || self.is_proved() {
                    at
                } else {
                    at.max(self.end_of_patience(pace))
                }
            }
            (State::Isolated { silent: false, .. }, _) if !self.fresh => BootNanos(u64::MAX),
            (State::Heard | State::Survivor | State::Isolated { .. }, _) => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn pace() -> Pace {
        Pace {
            detection: MS(150),
            question: MS(50),
            reset_after: MS(2000),
            owner: MS(400),
        }
    }

    /// A node that has heard a member until now, and whose witness answers if `answers` says so.
    struct Bench {
        isolation: Isolation,
        asked: Vec<u64>,
    }

    impl Bench {
        fn new() -> Self {
            let mut isolation = Isolation::new(Some(pace()));
            isolation.on_start(at(0), true);
            let asked = Vec::new();
            Self { isolation, asked }
        }

        /// Lets the time pass up to, and not including, `to`.
        fn run(&mut self, from: u64, to: u64, answers: bool) -> Vec<(u64, Change)> {
            let mut changes = Vec::new();
            for ms in from..to {
                let now = at(ms);
                while let Some(change) = self.isolation.on_timer(now) {
                    changes.push((ms, change));
                }
                if self.isolation.ask(now) {
                    self.asked.push(ms);
                    if answers {
                        self.isolation.on_witness(now);
                    }
                }
            }
            changes
        }
    }

    #[test]
    fn witness_tells_a_survivor_from_a_node_that_is_cut_off() {
        let mut survivor = Bench::new();
        let changes = survivor.run(0, 5000, true);
        assert_eq!(changes, [(150, Change::Survivor)]);
        assert_eq!(survivor.asked[..2], [75, 125], "before it is too late");
        assert!(
            survivor.isolation.claim_at(at(1), Duration::ZERO) == at(1)
                && !survivor.isolation.is_isolated()
        );

        let mut cut_off = Bench::new();
        let changes = cut_off.run(0, 5000, false);
        assert_eq!(changes, [(150, Change::Isolated), (2150, Change::Silent)]);
        assert!(cut_off.isolation.is_cut_off());

        // A kernel that answers for an agent that is down does so for ever.
        let last = [2999, 3000].map(|ms| survivor.isolation.is_last(at(ms)));
        assert_eq!(last, [false, true]);
        assert!(!cut_off.isolation.is_last(at(5000)));
    }

    #[test]
    fn member_that_sends_less_often_is_waited_for() {
        let mut bench = Bench::new();
        bench.isolation.set_patience(MS(450));
        assert_eq!(bench.run(0, 450, false), []);
        assert_eq!(bench.run(450, 451, false), [(450, Change::Isolated)]);
    }

    #[test]
    fn first_answer_of_a_witness_is_not_enough() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(0, 1000, false), [(150, Change::Isolated)]);
        assert_eq!(
            bench.isolation.claim_at(at(1), Duration::ZERO),
            BootNanos(u64::MAX)
        );
        let changes = bench.run(1000, 1400, true);
        let proved = changes[0].0;
        let survivor = (proved + 300, Change::Survivor);
        assert_eq!(changes, [(proved, Change::Proved), survivor]);
        assert_eq!(bench.isolation.claim_at(at(1), Duration::ZERO), at(1));
    }

    #[test]
    fn witness_that_answers_only_at_first_does_not_either() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(0, 100, true), []);
        assert_eq!(bench.run(100, 160, false), [(150, Change::Isolated)]);
    }

    #[test]
    fn witness_that_answers_in_the_end_does_not_prove_that_the_segment_has_worked() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(0, 120, false), []);
        let changes = bench.run(120, 500, true);
        let wanted = [
            (150, Change::Isolated),
            (151, Change::Proved),
            (451, Change::Survivor),
        ];
        assert_eq!(changes, wanted);
    }

    #[test]
    fn survivor_without_a_witness_is_isolated_again() {
        let mut bench = Bench::new();
        bench.run(0, 1000, true);
        let changes = bench.run(1000, 4000, false);
        assert_eq!(changes.len(), 1);
        assert!(changes[0].1 == Change::Isolated && changes[0].0 > 2000);
    }

    #[test]
    fn carrier_that_is_lost_proves_the_opposite() {
        let mut bench = Bench::new();
        bench.run(0, 140, true);
        bench.isolation.set_carrier(false);
        assert_eq!(bench.run(140, 160, true), [(150, Change::Isolated)]);
        assert_eq!(bench.run(160, 1000, true), []);
    }

    #[test]
    fn member_that_is_heard_ends_it_and_an_owner_may_follow() {
        let mut bench = Bench::new();
        bench.run(0, 1000, false);
        assert!(bench.isolation.hear(at(1000)));
        assert!(!bench.isolation.hear(at(1001)));
        assert!(bench.isolation.is_alone(at(1399)));
        assert!(!bench.isolation.is_alone(at(1400)));
        assert_eq!(
            bench.isolation.claim_at(at(1001), Duration::ZERO),
            at(1400),
            "an owner may advertise"
        );
    }

    #[test]
    fn first_member_after_a_gap_may_come_before_the_owner() {
        let mut bench = Bench::new();
        bench.isolation.hear(at(70));
        let claim_at = |bench: &Bench, ms| bench.isolation.claim_at(at(ms), Duration::ZERO);
        assert_eq!(claim_at(&bench, 71), at(71), "no gap");
        bench.isolation.hear(at(160));
        assert_eq!(claim_at(&bench, 161), at(310));
    }

    #[test]
    fn node_that_hears_nobody_at_the_moment_waits_until_it_knows_why() {
        let mut bench = Bench::new();
        let claim_at = |bench: &Bench, ms| bench.isolation.claim_at(at(ms), Duration::ZERO);
        assert_eq!(claim_at(&bench, 75), at(75), "no packet is late");
        assert_eq!(claim_at(&bench, 100), at(150));
        bench.run(0, 80, true);
        assert_eq!(claim_at(&bench, 100), at(100), "a witness has answered");
    }

    #[test]
    fn node_that_starts_alone_may_claim_and_is_isolated() {
        let mut isolation = Isolation::new(Some(pace()));
        isolation.on_start(at(0), false);
        assert_eq!(isolation.claim_at(at(1), Duration::ZERO), at(1));
        assert!(isolation.is_isolated() && isolation.is_alone(at(0)));
        // Without other members there is nobody to be cut off from.
        let mut single = Isolation::new(None);
        single.on_start(at(0), false);
        assert!(!single.is_isolated() && !single.is_alone(at(0)));
        assert_eq!(single.on_timer(at(100_000)), None);
    }
}
