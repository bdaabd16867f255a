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
//! The RFC does not know three things. The [`Node`](crate::Node) adds them from outside: the owner
//! is known to be gone before the deadline ([`Machine::shorten_active_down_timer`]), the lease must
//! end earlier ([`Machine::limit_lease`]), and how the two nodes stand to each other when an
//! advertisement comes ([`Meeting`]).
//!
//! # Two owners meet
//!
//! In the RFC the one of lower priority yields. Then a node that was cut off, claimed the VIP and
//! comes back would take it from a living owner. So, unless this node may be preempted:
//!
//! - A node that hears no other one advertises [`PRIORITY_ALONE`] if it owned the VIP before, and
//!   [`PRIORITY_CLAIMED_ALONE`] if it has claimed it since. So it yields to any owner that was not
//!   alone, and nobody takes these priorities for a reason to take over.
//! - An owner yields to the one before that still advertises: only its packets were lost.
//! - Of two nodes that take over at the same time, the one of lower priority yields at once.
//! - Otherwise an owner yields to one of higher priority after three intervals. That one yields
//!   before, or a segment has been mended both parts of which had an owner.

use std::net::IpAddr;
use std::time::Duration;

use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::{Advertisement, Centiseconds, PRIORITY_RESIGNED};

/// Priority of a router that owns the address itself (RFC 9568, section 5.2.4): it does not
/// wait.
pub const PRIORITY_ADDRESS_OWNER: u8 = 255;

/// Priority of a claim that was made while no other node was heard.
pub const PRIORITY_CLAIMED_ALONE: u8 = 1;

/// Priority of an owner that does not hear any other node (any more).
pub const PRIORITY_ALONE: u8 = 2;

/// How this node and the sender of an advertisement stand to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meeting {
    /// This node is fit to be the owner and the sender is not. Then the VIP may be taken from the
    /// sender although `preempt` is off.
    pub unfit: bool,
    /// This node is not fit to be the owner: it yields to any node of higher priority.
    pub own_unfit: bool,
}

/// A node's configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Params {
    /// The node's own address, from which it advertises. Decides between equal priorities.
    pub address: IpAddr,
    /// The node's priority, `1..=255`; 0 is taken for 1.
    pub priority: u8,
    /// Time between its advertisements when it is the owner.
    pub interval: Centiseconds,
    /// Whether it takes the VIP from an owner of lower priority (`Preempt_Mode`). The RFC's default
    /// is true; here it is false, since each move of the VIP has a cost.
    pub preempt: bool,
    /// Time after the start before which it does not preempt (keepalived's `preempt_delay`).
    pub preempt_delay: Duration,
}

/// The part of a node's configuration that may change while it runs ([`Machine::tune`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timers {
    /// As [`Params::interval`].
    pub interval: Centiseconds,
    /// As [`Params::preempt`].
    pub preempt: bool,
    /// As [`Params::preempt_delay`].
    pub preempt_delay: Duration,
}

/// State of a virtual router (RFC 9568, section 6.4).
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

/// What the caller has to do, in the order given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Let the node answer for the VIP until then.
    RenewLease {
        /// End of the lease.
        until: BootNanos,
    },
    /// The node must not answer for the VIP any more.
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

/// Intervals without an advertisement after which the Active Router counts as down (section 6.1).
const INTERVALS_TO_DEATH: u32 = 3;

/// One virtual router on one node.
#[derive(Clone, Debug)]
pub struct Machine {
    params: Params,
    /// The interval in advertisements, which is longer than that of `params` while this node runs
    /// late.
    interval: Centiseconds,
    /// When it was started: `preempt_delay` counts from then.
    started: BootNanos,
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
        /// Address of the owner, if it was heard.
        owner: Option<IpAddr>,
        /// Latest time at which `Active_Down_Timer` fires.
        at_most: BootNanos,
    },
    Active {
        /// `Adver_Timer`.
        next_advert: BootNanos,
        /// End of the lease as the last advertisement allows it.
        advertised_until: BootNanos,
        /// End of the lease in force, which is no later.
        answer_until: BootNanos,
        /// Since when this node is the owner, and the address of the one before, if it was heard.
        since: BootNanos,
        former: Option<IpAddr>,
        /// The intervals in the last advertisements. The shortest one is in force: a backup that
        /// missed advertisements may not know a longer one yet.
        told: [Centiseconds; INTERVALS_TO_DEATH as usize],
        /// Another owner outranks this one.
        rival: Option<Rival>,
    },
}

/// Owners of higher priority, to which this one has not yielded yet.
#[derive(Clone, Copy, Debug)]
struct Rival {
    /// When their first and last advertisements came. A break of two intervals begins anew.
    since: BootNanos,
    last: BootNanos,
}

impl Machine {
    /// In [`State::Initialize`].
    #[must_use]
    pub fn new(params: Params) -> Self {
        let mut machine = Self {
            params,
            interval: params.interval,
            started: BootNanos::ZERO,
            phase: Phase::Initialize,
        };
        machine.set_priority(params.priority);
        machine
    }

    /// State of the machine.
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

    /// The interval in this node's advertisements.
    #[must_use]
    pub fn interval(&self) -> Centiseconds {
        self.interval
    }

    /// Changes when it preempts, and how often it advertises as the owner, which it tells at once. As
    /// long as a backup may know the former interval, the shorter one is in force. `extra` is as for
    /// [`Self::lengthen`].
    pub fn tune(&mut self, now: BootNanos, timers: Timers, extra: Duration) -> Vec<Action> {
        let Timers {
            interval,
            preempt,
            preempt_delay,
        } = timers;
        (self.params.preempt, self.params.preempt_delay) = (preempt, preempt_delay);
        self.params.interval = interval;
        if self.lengthened(extra) == self.interval {
            return vec![];
        }
        self.lengthen(now, extra)
    }

    /// Changes it to the configured one and `extra`. An owner advertises it at once.
    pub fn lengthen(&mut self, now: BootNanos, extra: Duration) -> Vec<Action> {
        self.interval = self.lengthened(extra);
        match self.phase {
            Phase::Active { .. } => self.advertise(now).to_vec(),
            Phase::Initialize | Phase::Backup { .. } => vec![],
        }
    }

    /// The configured interval and `extra`.
    fn lengthened(&self, extra: Duration) -> Centiseconds {
        let more = extra.as_nanos().div_ceil(10_000_000);
        let interval = u128::from(self.params.interval.get()) + more;
        u16::try_from(interval)
            .ok()
            .and_then(Centiseconds::new)
            .unwrap_or(Centiseconds::MAX)
    }

    /// Address of the owner; `None` if a backup has not heard one, and in [`State::Initialize`].
    #[must_use]
    pub fn owner(&self) -> Option<IpAddr> {
        match self.phase {
            Phase::Initialize => None,
            Phase::Backup { owner, .. } => owner,
            Phase::Active { .. } => Some(self.params.address),
        }
    }

    /// When a backup received the owner's last advertisement, or began to wait.
    #[must_use]
    pub fn heard(&self) -> Option<BootNanos> {
        match self.phase {
            Phase::Backup { since, .. } => Some(since),
            Phase::Initialize | Phase::Active { .. } => None,
        }
    }

    /// End of an owner's lease; `None` for others.
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

    /// Starts it (section 6.4.1). `answer_until` is the end of an earlier agent's lease. If that is
    /// ahead, the node owns the VIP at once.
    pub fn on_start(&mut self, now: BootNanos, answer_until: BootNanos) -> Vec<Action> {
        match self.phase {
            Phase::Initialize => {
                self.started = now;
                if answer_until > now || self.params.priority == PRIORITY_ADDRESS_OWNER {
                    return self.become_active(now);
                }
                self.wait(now, INTERVALS_TO_DEATH, self.params.interval, None);
                vec![Action::EndLease, Action::BecomeBackup]
            }
            Phase::Backup { .. } | Phase::Active { .. } => vec![],
        }
    }

    /// Takes an advertisement for this virtual router (sections 6.4.2 and 6.4.3). The caller has
    /// checked its TTL (255), its sender (a peer) and its router id.
    pub fn on_advert(
        &mut self,
        now: BootNanos,
        source: IpAddr,
        advert: &Advertisement,
        meeting: Meeting,
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
                    // The RFC accepts it from every node. But a late resignation, of a node that
                    // has a successor already, must not make a third one take over.
                    if owner.is_none_or(|owner| owner == source) {
                        self.wait(now, 0, interval, owner);
                    }
                } else if !self.takes_from(now, advert.priority, meeting.unfit) {
                    self.wait(now, INTERVALS_TO_DEATH, advert.interval, Some(source));
                }
            }
            Phase::Active { .. } => {
                let theirs = (advert.priority, source);
                let outranked = theirs > (self.params.priority, self.params.address);
                if self.yields(now, source, advert, outranked, meeting) {
                    actions.extend(self.yield_to(now, source, advert.interval));
                } else if !outranked {
                    // A lesser owner, or one that resigns. It and the switches must learn at once
                    // where the VIP is.
                    actions.extend(self.advertise(now));
                }
            }
        }
        actions
    }

    /// Whether an owner yields to another one. `outranked`: that one has the higher priority.
    fn yields(
        &mut self,
        now: BootNanos,
        source: IpAddr,
        advert: &Advertisement,
        outranked: bool,
        meeting: Meeting,
    ) -> bool {
        let Phase::Active {
            since,
            former,
            rival,
            ..
        } = &mut self.phase
        else {
            return false;
        };
        if self.params.preempt || meeting.own_unfit || self.params.priority <= PRIORITY_ALONE {
            return outranked;
        }
        let interval = self.interval.max(advert.interval).duration();
        let is_new = now.since(*since) < interval * INTERVALS_TO_DEATH;
        let was_before =
            *former == Some(source) && advert.priority > PRIORITY_ALONE && !meeting.unfit;
        // One that outranks a new owner has just taken the VIP over, too.
        if is_new && (was_before || outranked) {
            return true;
        }
        if !outranked {
            return false;
        }
        let since = rival
            .filter(|rival| now.since(rival.last) <= interval * 2)
            .map_or(now, |rival| rival.since);
        *rival = Some(Rival { since, last: now });
        now.since(since) >= interval * INTERVALS_TO_DEATH
    }

    /// Whether a backup ignores the advertisements of an owner with this priority.
    fn takes_from(&self, now: BootNanos, priority: u8, unfit: bool) -> bool {
        let preempt = self.params.preempt && now >= self.started.after(self.params.preempt_delay);
        (preempt || unfit) && (PRIORITY_ALONE + 1..self.params.priority).contains(&priority)
    }

    /// The owner is known to be gone: lets a backup's `Active_Down_Timer` fire at `at`, unless it
    /// fires earlier.
    pub fn shorten_active_down_timer(&mut self, at: BootNanos) {
        if let Phase::Backup { at_most, .. } = &mut self.phase {
            *at_most = at.min(*at_most);
        }
    }

    /// Sets the end of the owner's lease to `limit`, or to the time that the last advertisement
    /// allows, whichever is earlier.
    pub fn limit_lease(&mut self, limit: BootNanos) {
        if let Phase::Active {
            advertised_until,
            answer_until,
            ..
        } = &mut self.phase
        {
            *answer_until = limit.min(*advertised_until);
        }
    }

    /// Becomes a backup of another owner.
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

    /// To be called when the node runs, and next runs at `next`. An advertisement that is due before
    /// that is sent now, so that the node does not wake up for it; at most half an interval early.
    pub fn advertise_before(&mut self, now: BootNanos, next: BootNanos) -> Vec<Action> {
        let latest = next.min(now.after(self.params.interval.duration() / 2));
        match self.phase {
            Phase::Active {
                next_advert,
                answer_until,
                ..
            } if next_advert <= latest && now < answer_until => self.advertise(now).into(),
            Phase::Active { .. } | Phase::Backup { .. } | Phase::Initialize => vec![],
        }
    }

    /// Shutdown. An owner resigns, so that the next one takes over within its skew time.
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

    /// Changes the priority; 0 is taken for 1. A backup's deadline changes with it. An owner
    /// advertises it from its next advertisement on.
    pub fn set_priority(&mut self, priority: u8) {
        self.params.priority = priority.max(1);
    }

    /// An owner whose lease has ended did not advertise in time. Another node may have taken over,
    /// so it becomes a backup.
    fn step_down_if_overslept(&mut self, now: BootNanos) -> Vec<Action> {
        match self.phase {
            Phase::Active { answer_until, .. } if now >= answer_until => {
                self.wait(now, INTERVALS_TO_DEATH, self.params.interval, None);
                vec![
                    Action::EndLease,
                    // If no node has taken over yet, the next one needs not wait longer.
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

    /// Sends an advertisement as the owner. The lease is extended first: it is counted from now.
    fn advertise(&mut self, now: BootNanos) -> [Action; 2] {
        let (since, former, rival, [_, before, last]) = match self.phase {
            Phase::Active {
                since,
                former,
                rival,
                told,
                ..
            } => (since, former, rival, told),
            // Backups that miss the first advertisements wait by the interval of the owner before.
            Phase::Backup {
                owner, interval, ..
            } => (now, owner, None, [interval.min(self.params.interval); 3]),
            Phase::Initialize => (now, None, None, [self.params.interval; 3]),
        };
        let told = [before, last, self.interval];
        let interval = before.min(last).min(self.interval).duration();
        let answer_until = now.after(interval * 5 / 2);
        self.phase = Phase::Active {
            next_advert: now.after(interval),
            advertised_until: answer_until,
            answer_until,
            since,
            former,
            told,
            rival,
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
