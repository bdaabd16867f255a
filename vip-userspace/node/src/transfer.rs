//! How an owner gives the VIP up of its own will: handover, and shutdown.
//!
//! ```text
//!            vip handover                     the successor speaks
//!   Staying ─────────────▶ HandingOver ─────────────────────────────▶ Staying, as a backup
//!      │                       │ no answer, or it lost the VIP ─────▶ Staying
//!      │ SIGTERM               ▼ SIGTERM
//!      └──────────────────▶ Leaving ── the next owner speaks, or none in time ──▶ Left
//! ```

use std::time::Duration;

use vip_common::abi::BackendIndex;
use vip_common::wire::time::BootNanos;

/// How long an owner waits for its successor to speak, beside three advertisement intervals:
/// more than any skew time at an interval of one second, which is keepalived's default.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What an owner that hands over advertises to all: it is still there, and nobody is worse.
pub(crate) const PRIORITY_HANDING_OVER: u8 = 1;

/// The owner's way out.
#[derive(Clone, Copy, Debug)]
enum State {
    /// It stays.
    Staying,
    /// It asks a node to take over, until then.
    HandingOver { to: BackendIndex, until: BootNanos },
    /// It has resigned and answers until somebody else does, or until then.
    Leaving {
        until: BootNanos,
        /// When it resigns again.
        next: BootNanos,
    },
    /// It has left.
    Left,
}

/// What is due in a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// The successor did not speak in time: the VIP stays.
    Unanswered(BackendIndex),
    /// Resign once more: packets get lost.
    Resign,
    /// Stop answering and go, whoever answers.
    Go,
}

/// What advertisements are sent while this node owns the VIP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advertising {
    /// As the election wants it.
    Usual,
    /// To all that this node is still there, and to that one that it resigns.
    ResigningTo(BackendIndex),
    /// None: [`Due::Resign`] tells when.
    None,
}

/// How the VIP is given up.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    /// Between advertisements.
    interval: Duration,
    state: State,
}

impl Transfer {
    /// The node stays. `interval`: between advertisements.
    pub(crate) const fn new(interval: Duration) -> Self {
        let state = State::Staying;
        Self { interval, state }
    }

    /// How long to wait for the next owner to speak.
    pub(crate) fn patience(&self) -> Duration {
        PATIENCE + self.interval * 3
    }

    /// Hands over to a node, or to another one than before.
    pub(crate) fn hand_over(&mut self, now: BootNanos, to: BackendIndex) {
        let until = now.after(self.patience());
        self.state = State::HandingOver { to, until };
    }

    /// Leaves once the next owner speaks. [`Self::due`] says what to do at once.
    pub(crate) fn leave(&mut self, now: BootNanos) {
        self.state = State::Leaving {
            until: now.after(self.patience()),
            next: now,
        };
    }

    /// Stays: the handover has ended, or this node cannot own the VIP.
    pub(crate) fn stay(&mut self) {
        self.state = State::Staying;
    }

    /// Has left.
    pub(crate) fn go(&mut self) {
        self.state = State::Left;
    }

    /// Whether the node stays, without a handover under way.
    pub(crate) const fn stays(&self) -> bool {
        matches!(self.state, State::Staying)
    }

    /// Whether a handover is under way.
    pub(crate) const fn hands_over(&self) -> bool {
        matches!(self.state, State::HandingOver { .. })
    }

    /// Whether the node leaves, and waits for the next owner to speak.
    pub(crate) const fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving { .. })
    }

    /// Whether it has left for good.
    pub(crate) const fn has_left(&self) -> bool {
        matches!(self.state, State::Left)
    }

    /// Which advertisements are sent.
    pub(crate) const fn advertising(&self) -> Advertising {
        match self.state {
            State::Staying | State::Left => Advertising::Usual,
            State::HandingOver { to, .. } => Advertising::ResigningTo(to),
            State::Leaving { .. } => Advertising::None,
        }
    }

    /// What is due now. `is_owner`: this node still owns the VIP.
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

    /// When to ask for what is [due](Self::due); `None` if nothing will be.
    pub(crate) fn next_deadline(&self) -> Option<BootNanos> {
        match self.state {
            State::Staying | State::Left => None,
            State::HandingOver { until, .. } => Some(until),
            State::Leaving { until, next } => Some(until.min(next)),
        }
    }
}
