//! Who owns the VIP: the state machine of VRRP version 3 (RFC 9568, section 6.4), with an answer
//! lease.
//!
//! ```text
//! Initialize ---- start ---> Backup ---- no advertisement until the deadline ---> Active
//!     |                        ^                                                   | ^
//!     |                        +---- an advertisement that outranks its own, ------+ |
//!     |                              a handover, or its lease has ended              |
//!     |                                                                              |
//!     +---- start while the lease of an earlier agent runs, or with priority 255 ----+
//!
//! Backup: an advertisement of the owner moves the deadline to three intervals and the skew
//!         time from now; its resignation (priority 0) moves it to the skew time.
//! Active: one advertisement an interval, and one at once when a lesser node advertises.
//! Shutdown leads from each state to Initialize. An owner resigns first.
//! ```
//!
//! The lease is not in the RFC. An owner answers for the VIP only until its lease ends, and each
//! advertisement that it sends extends the lease to two and a half intervals from then. Other
//! nodes wait three intervals and the skew time. So an owner that hangs has stopped answering
//! before another node takes over, and needs no help for it. An owner that finds its lease ended
//! did not run in the meantime: it resigns and becomes a backup, since another node may own the
//! VIP.
//!
//! The RFC does not know three things. The [`node`](crate::node) adds them from outside: the
//! owner is known to be gone before the deadline ([`Machine::hasten`]), the lease must end earlier
//! ([`Machine::limit_lease`]), and the owner is not fit to own the VIP
//! (`unfit` of [`Machine::on_advert`]).

use std::net::IpAddr;
use std::time::Duration;

use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::{Advertisement, Centiseconds, PRIORITY_RESIGNED};

/// Priority of a router that owns the address itself (RFC 9568, section 5.2.4): it does not
/// wait.
pub const PRIORITY_ADDRESS_OWNER: u8 = 255;

/// What a node is configured to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Params {
    /// The node's own address, from which it advertises. Decides between equal priorities.
    pub address: IpAddr,
    /// The node's priority, `1..=255`; 0 is taken for 1.
    pub priority: u8,
    /// Time between its advertisements when it is the owner.
    pub interval: Centiseconds,
    /// Whether it takes the VIP from an owner of lower priority. RFC 9568 does by default; here
    /// nothing should move without need.
    pub preempt: bool,
    /// How long after its start it does so at the earliest (keepalived's `preempt_delay`).
    pub preempt_delay: Duration,
}

/// RFC 9568, section 6.4.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not started, or shut down.
    Initialize,
    /// Another node owns the VIP, or will soon.
    Backup,
    /// This node owns the VIP.
    Active,
}

impl State {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Initialize, Self::Backup, Self::Active];

    /// `snake_case`, for status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Backup => "backup",
            Self::Active => "active",
        }
    }
}

/// What the shell has to do, in the order given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Let the node answer for the VIP until then.
    RenewLease {
        /// End of the lease.
        until: BootNanos,
    },
    /// Let the node answer for the VIP no more.
    EndLease,
    /// Send an advertisement with this priority, 0 to resign.
    SendAdvert {
        /// Priority to send.
        priority: u8,
    },
    /// The node owns the VIP now: announce it.
    BecomeActive,
    /// The node does not own the VIP (any more).
    BecomeBackup,
}

/// Intervals without an advertisement after which the owner is taken for dead (section 6.1).
const INTERVALS_TO_DEATH: u32 = 3;

/// One virtual router on one node.
#[derive(Clone, Debug)]
pub struct Machine {
    params: Params,
    /// When preemption may begin.
    preempt_from: BootNanos,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Initialize,
    Backup {
        /// When the owner was heard last, or waiting began.
        since: BootNanos,
        /// Whole intervals to wait from then on, on top of the skew time.
        intervals: u32,
        /// The owner's interval, `Active_Adver_Interval`.
        interval: Centiseconds,
        /// Whom it waits for, if it was ever heard.
        owner: Option<IpAddr>,
        /// Not to wait longer than that.
        at_most: BootNanos,
    },
    Active {
        /// `Adver_Timer`.
        next_advert: BootNanos,
        /// End of the lease by the last advertisement.
        promised: BootNanos,
        /// End of the lease in force, which is no later.
        answer_until: BootNanos,
    },
}

impl Machine {
    /// In [`State::Initialize`].
    #[must_use]
    pub fn new(params: Params) -> Self {
        let mut machine = Self {
            params,
            preempt_from: BootNanos::ZERO,
            phase: Phase::Initialize,
        };
        machine.set_priority(params.priority);
        machine
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Initialize => State::Initialize,
            Phase::Backup { .. } => State::Backup,
            Phase::Active { .. } => State::Active,
        }
    }

    /// The priority in force.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.params.priority
    }

    /// Time between advertisements of this node.
    #[must_use]
    pub fn interval(&self) -> Centiseconds {
        self.params.interval
    }

    /// Whom a backup waits for.
    #[must_use]
    pub fn owner(&self) -> Option<IpAddr> {
        match self.phase {
            Phase::Initialize => None,
            Phase::Backup { owner, .. } => owner,
            Phase::Active { .. } => Some(self.params.address),
        }
    }

    /// When a backup heard its owner last, or began to wait.
    #[must_use]
    pub fn heard(&self) -> Option<BootNanos> {
        match self.phase {
            Phase::Backup { since, .. } => Some(since),
            Phase::Initialize | Phase::Active { .. } => None,
        }
    }

    /// Where an owner's lease ends.
    #[must_use]
    pub fn answer_until(&self) -> Option<BootNanos> {
        match self.phase {
            Phase::Active { answer_until, .. } => Some(answer_until),
            Phase::Initialize | Phase::Backup { .. } => None,
        }
    }

    /// When to call [`Self::on_timer`], unless something happens before. The end of time in
    /// [`State::Initialize`].
    #[must_use]
    pub fn next_deadline(&self) -> BootNanos {
        match self.phase {
            Phase::Initialize => BootNanos(u64::MAX),
            Phase::Backup {
                since,
                intervals,
                interval,
                at_most,
                ..
            } => since
                .after(interval.duration() * intervals + self.skew(interval))
                .min(at_most),
            Phase::Active { next_advert, .. } => next_advert,
        }
    }

    /// Starts it (section 6.4.1). `lease` is where the lease of an agent before this one ends:
    /// if that is ahead, the node owns the VIP and simply goes on.
    pub fn on_start(&mut self, now: BootNanos, answer_until: BootNanos) -> Vec<Action> {
        match self.phase {
            Phase::Initialize => {
                self.preempt_from = now.after(self.params.preempt_delay);
                if answer_until > now || self.params.priority == PRIORITY_ADDRESS_OWNER {
                    return self.become_active(now);
                }
                self.wait(now, INTERVALS_TO_DEATH, self.params.interval, None);
                vec![Action::EndLease, Action::BecomeBackup]
            }
            Phase::Backup { .. } | Phase::Active { .. } => vec![],
        }
    }

    /// Takes an advertisement for this virtual router (sections 6.4.2 and 6.4.3). The shell has
    /// checked that its TTL is 255, its sender a peer and its router id ours.
    ///
    /// `unfit`: this node is fit to be the owner and the sender is not, so that the VIP may be
    /// taken from it without preemption being configured.
    pub fn on_advert(
        &mut self,
        now: BootNanos,
        source: IpAddr,
        advert: &Advertisement,
        unfit: bool,
    ) -> Vec<Action> {
        if source == self.params.address {
            return vec![];
        }
        let mut actions = self.step_down_if_overslept(now);
        match self.phase {
            Phase::Initialize => {}
            Phase::Backup {
                interval, owner, ..
            } => {
                if advert.priority == PRIORITY_RESIGNED {
                    // The RFC takes it from anybody. But one that wakes up and resigns after
                    // another has followed it must not bring a third one on.
                    if owner.is_none_or(|owner| owner == source) {
                        self.wait(now, 0, interval, owner);
                    }
                } else if !self.takes_from(now, advert.priority, unfit) {
                    self.wait(now, INTERVALS_TO_DEATH, advert.interval, Some(source));
                }
            }
            Phase::Active { .. } => {
                let theirs = (advert.priority, source);
                if theirs > (self.params.priority, self.params.address) {
                    actions.extend(self.yield_to(now, source, advert.interval));
                } else {
                    // Somebody resigns who believed to be the owner, or believes so with less
                    // reason: tell it and the switches at once.
                    actions.extend(self.advertise(now));
                }
            }
        }
        actions
    }

    /// Whether a backup leaves the advertisements of an owner with this priority unheard.
    fn takes_from(&self, now: BootNanos, priority: u8, unfit: bool) -> bool {
        let preempt = self.params.preempt && now >= self.preempt_from;
        (preempt || unfit) && priority < self.params.priority
    }

    /// The owner is known to be gone: a backup need wait no longer than until `at`, instead of
    /// its whole intervals.
    pub fn hasten(&mut self, at: BootNanos) {
        if let Phase::Backup { at_most, .. } = &mut self.phase {
            *at_most = at.min(*at_most);
        }
    }

    /// Moves the end of the owner's lease to `limit`, or to what the last advertisement
    /// promised, whichever is earlier.
    pub fn limit_lease(&mut self, limit: BootNanos) {
        if let Phase::Active {
            promised,
            answer_until,
            ..
        } = &mut self.phase
        {
            *answer_until = limit.min(*promised);
        }
    }

    /// An owner makes way for another node.
    pub fn yield_to(
        &mut self,
        now: BootNanos,
        owner: IpAddr,
        interval: Centiseconds,
    ) -> [Action; 2] {
        self.wait(now, INTERVALS_TO_DEATH, interval, Some(owner));
        [Action::EndLease, Action::BecomeBackup]
    }

    /// To be called at [`Self::next_deadline`] or later. Earlier calls do nothing.
    pub fn on_timer(&mut self, now: BootNanos) -> Vec<Action> {
        let mut actions = self.step_down_if_overslept(now);
        if now >= self.next_deadline() {
            match self.phase {
                Phase::Initialize => {}
                Phase::Backup { .. } => actions.extend(self.become_active(now)),
                Phase::Active { .. } => actions.extend(self.advertise(now)),
            }
        }
        actions
    }

    /// Ends it. An owner resigns, which lets the next one take over within its skew time.
    pub fn on_shutdown(&mut self) -> Vec<Action> {
        let was = self.state();
        self.phase = Phase::Initialize;
        match was {
            State::Initialize => vec![],
            State::Backup => vec![Action::EndLease],
            State::Active => vec![
                Action::EndLease,
                Action::SendAdvert {
                    priority: PRIORITY_RESIGNED,
                },
                Action::BecomeBackup,
            ],
        }
    }

    /// Changes the priority. A backup's deadline moves with it, an owner says so with its next
    /// advertisement.
    pub fn set_priority(&mut self, priority: u8) {
        self.params.priority = priority.max(1);
    }

    /// An owner whose lease has ended was not there to advertise. Others may have taken over, so
    /// it must not simply go on.
    fn step_down_if_overslept(&mut self, now: BootNanos) -> Vec<Action> {
        match self.phase {
            Phase::Active { answer_until, .. } if now >= answer_until => {
                self.wait(now, INTERVALS_TO_DEATH, self.params.interval, None);
                vec![
                    Action::EndLease,
                    // Nobody waits longer than needed, if nobody has taken over yet.
                    Action::SendAdvert {
                        priority: PRIORITY_RESIGNED,
                    },
                    Action::BecomeBackup,
                ]
            }
            _ => vec![],
        }
    }

    fn become_active(&mut self, now: BootNanos) -> Vec<Action> {
        let [answer_until, advert] = self.advertise(now);
        vec![answer_until, advert, Action::BecomeActive]
    }

    /// Sends an advertisement as the owner. The lease comes first: it is counted from now.
    fn advertise(&mut self, now: BootNanos) -> [Action; 2] {
        let interval = self.params.interval.duration();
        let answer_until = now.after(interval * 5 / 2);
        self.phase = Phase::Active {
            next_advert: now.after(interval),
            promised: answer_until,
            answer_until,
        };
        [
            Action::RenewLease {
                until: answer_until,
            },
            Action::SendAdvert {
                priority: self.params.priority,
            },
        ]
    }

    /// Waits as a backup.
    fn wait(
        &mut self,
        since: BootNanos,
        intervals: u32,
        interval: Centiseconds,
        owner: Option<IpAddr>,
    ) {
        self.phase = Phase::Backup {
            since,
            intervals,
            interval,
            owner,
            at_most: BootNanos(u64::MAX),
        };
    }

    /// `Skew_Time`: the lower the priority, the longer (section 6.1).
    fn skew(&self, interval: Centiseconds) -> Duration {
        interval.duration() * (256 - u32::from(self.params.priority)) / 256
    }
}

#[cfg(test)]
mod tests;
