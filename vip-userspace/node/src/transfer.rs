//! How an owner gives up the VIP without a fault: handover and shutdown.
//!
//! ```text
//!            vip handover                   the successor advertises
//!   Staying ─────────────▶ HandingOver ─────────────────────────────▶ Staying, as a backup
//!      │                       │ time-out, or the VIP was lost ─────▶ Staying
//!      │ SIGTERM               ▼ SIGTERM
//!      └──────────────────▶ Leaving ── the next owner advertises, or time-out ──▶ Left
//! ```
//!
//! Each transfer ends within [`Transfer::patience`].

use std::time::Duration;

use vip_common::abi::BackendIndex;
use vip_common::wire::time::BootNanos;

/// How long an owner waits for its successor's advertisement, plus three advertisement intervals.
/// More than any skew time with keepalived's default interval of one second.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The priority that an owner advertises to all during a handover. It is still there, and every
/// node outranks it.
pub(crate) const PRIORITY_HANDING_OVER: u8 = 1;

/// See the diagram above.
#[derive(Clone, Copy, Debug)]
enum State {
    /// No transfer is under way.
    Staying,
    /// It asks node `to` to take over, until the time-out.
    HandingOver { to: BackendIndex, until: BootNanos },
    /// It has resigned, and answers until the next owner advertises or the time-out.
    Leaving {
        until: BootNanos,
        /// When it sends its next resignation.
        next: BootNanos,
    },
    /// The agent may end.
    Left,
}

/// The next step of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// There is none now.
    Nothing,
    /// That successor did not advertise in time, so the VIP stays.
    Unanswered(BackendIndex),
    /// Send a resignation (again): packets get lost.
    Resign,
    /// Stop answering and go, whether another node answers or not.
    Go,
}

/// The advertisements of an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advertising {
    /// As the election sends them.
    Usual,
    /// [`PRIORITY_HANDING_OVER`] to all, and a resignation to that node.
    ResigningTo(BackendIndex),
    /// None but the resignations of [`Due::Resign`].
    None,
}

/// The state of a transfer.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    /// Time between advertisements.
    interval: Duration,
    state: State,
}

impl Transfer {
    /// No transfer is under way. `interval`: time between advertisements.
    pub(crate) const fn new(interval: Duration) -> Self {
        let state = State::Staying;
        Self { interval, state }
    }

    /// Another time between advertisements. A transfer that is under way ends when it would have.
    pub(crate) const fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// How long to wait for the next owner's advertisement.
    pub(crate) fn patience(&self) -> Duration {
        PATIENCE + self.interval * 3
    }

    /// Begins a handover, in place of another one if one is under way.
    pub(crate) fn hand_over(&mut self, now: BootNanos, to: BackendIndex) {
        let until = now.after(self.patience());
        self.state = State::HandingOver { to, until };
    }

    /// Begins to leave. The first step is [due](Self::due) at once.
    pub(crate) fn leave(&mut self, now: BootNanos) {
        self.state = State::Leaving {
            until: now.after(self.patience()),
            next: now,
        };
    }

    /// Ends a transfer: the handover is over, or this node cannot own the VIP.
    pub(crate) fn stay(&mut self) {
        self.state = State::Staying;
    }

    /// The node has left.
    pub(crate) fn go(&mut self) {
        self.state = State::Left;
    }

    /// Whether no transfer is under way.
    pub(crate) const fn stays(&self) -> bool {
        matches!(self.state, State::Staying)
    }

    /// Whether a handover is under way.
    pub(crate) const fn hands_over(&self) -> bool {
        matches!(self.state, State::HandingOver { .. })
    }

    /// Whether the node leaves, and waits for the next owner's advertisement.
    pub(crate) const fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving { .. })
    }

    /// Whether it has left for good.
    pub(crate) const fn has_left(&self) -> bool {
        matches!(self.state, State::Left)
    }

    /// The advertisements to send while this node owns the VIP.
    pub(crate) const fn advertising(&self) -> Advertising {
        match self.state {
            State::Staying | State::Left => Advertising::Usual,
            State::HandingOver { to, .. } => Advertising::ResigningTo(to),
            State::Leaving { .. } => Advertising::None,
        }
    }

    /// The step that is due now. `is_owner`: this node still owns the VIP.
    pub(crate) fn due(&mut self, now: BootNanos, is_owner: bool) -> Due {
        match self.state {
            State::Staying | State::Left => Due::Nothing,
            State::HandingOver { .. } if !is_owner => {
                self.stay();
                Due::Nothing
            }
            State::HandingOver { to, until } if now >= until => {
                self.stay();
                Due::Unanswered(to)
            }
            State::HandingOver { .. } => Due::Nothing,
            State::Leaving { until, .. } if now >= until || !is_owner => Due::Go,
            State::Leaving { until, next } if now >= next => {
                let next = now.after(self.interval);
                self.state = State::Leaving { until, next };
                Due::Resign
            }
            State::Leaving { .. } => Due::Nothing,
        }
    }

    /// When the next step is [due](Self::due); `None` if no transfer is under way.
    pub(crate) fn next_deadline(&self) -> Option<BootNanos> {
        match self.state {
            State::Staying | State::Left => None,
            State::HandingOver { until, .. } => Some(until),
            State::Leaving { until, next } => Some(until.min(next)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{at, index};

    const INTERVAL: Duration = Duration::from_millis(100);

    #[test]
    fn handover_that_is_not_answered_ends_with_the_patience_and_the_node_stays() {
        let mut transfer = Transfer::new(INTERVAL);
        assert_eq!(transfer.advertising(), Advertising::Usual);
        transfer.hand_over(at(0), index(1));
        assert_eq!(transfer.advertising(), Advertising::ResigningTo(index(1)));
        assert_eq!(transfer.due(at(1799), true), Due::Nothing);
        // Another node is named: the time begins anew.
        transfer.hand_over(at(1000), index(2));
        assert_eq!(transfer.next_deadline(), Some(at(2800)));
        assert_eq!(transfer.due(at(2799), true), Due::Nothing);
        assert_eq!(transfer.due(at(2800), true), Due::Unanswered(index(2)));
        assert!(transfer.stays() && transfer.next_deadline().is_none());
    }

    #[test]
    fn handover_ends_without_a_report_where_the_vip_was_lost() {
        let mut transfer = Transfer::new(INTERVAL);
        transfer.hand_over(at(0), index(1));
        assert_eq!(transfer.due(at(1), false), Due::Nothing);
        assert!(transfer.stays());
    }

    #[test]
    fn node_that_leaves_resigns_each_interval_until_it_goes() {
        let mut transfer = Transfer::new(INTERVAL);
        transfer.leave(at(0));
        assert_eq!(transfer.advertising(), Advertising::None);
        let due = |ms| (ms, transfer.due(at(ms), true));
        let due: Vec<_> = (0..=1800).map(due).collect();
        let resigned = due.iter().filter(|(_, due)| *due == Due::Resign);
        let times: Vec<u64> = resigned.map(|(ms, _)| *ms).collect();
        assert_eq!(times, (0..1800).step_by(100).collect::<Vec<u64>>());
        assert_eq!(due.last(), Some(&(1800, Due::Go)));
        assert!(transfer.is_leaving(), "until it has gone");
        transfer.go();
        assert!(transfer.has_left() && transfer.next_deadline().is_none());
    }

    #[test]
    fn node_that_leaves_and_owns_nothing_goes_at_once() {
        let mut transfer = Transfer::new(INTERVAL);
        transfer.leave(at(0));
        assert_eq!(transfer.due(at(0), false), Due::Go);
    }

    proptest! {
        #[test]
        fn transfer_always_ends(
            interval in 1_u64..=40_950, leaves: bool, late in prop::collection::vec(0_u64..500, 1..50),
        ) {
            let mut transfer = Transfer::new(Duration::from_millis(interval));
            if leaves {
                transfer.leave(at(0));
            } else {
                transfer.hand_over(at(0), index(1));
            }
            let mut late = late.into_iter().cycle();
            let mut now = at(0);
            for _ in 0..10_000 {
                let Some(deadline) = transfer.next_deadline() else {
                    break;
                };
                now = now.max(deadline).after(Duration::from_millis(late.next().unwrap()));
                match transfer.due(now, true) {
                    Due::Nothing => return Err(TestCaseError::fail("it was due")),
                    Due::Resign => prop_assert!(transfer.next_deadline() > Some(now)),
                    Due::Unanswered(_) | Due::Go => break,
                }
            }
            prop_assert_eq!(transfer.is_leaving(), leaves);
            prop_assert!(!transfer.hands_over());
            let latest = at(0).after(transfer.patience() + Duration::from_millis(1000));
            prop_assert!(now <= latest);
        }
    }
}
