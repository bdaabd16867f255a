//! The election of the owner: its engine, VRRP, and the answer lease.
//!
//! # The answer lease
//!
//! The owner answers for the VIP until its lease ends. No other node takes over on a time-out
//! before that. There are two time-outs, so the lease ends at the earlier of two times:
//!
//! - two and a half advertisement intervals after the last advertisement,
//! - half a BFD interval before the first peer's detection time can expire.
//!
//! Only sent packets extend either of them. So a node that cannot send, or does not run, loses the
//! VIP in the kernel. With long timers the lease is extended in steps of [`MAX_LEASE`] at most: the
//! programs ignore one that ends further ahead than
//! [`LONGEST_LEASE`](vip_common::abi::LONGEST_LEASE).

mod lease;
mod trust;
pub mod vrrp;

use std::net::IpAddr;
use std::time::Duration;

use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::{Advertisement, Centiseconds};

pub use self::lease::MAX_LEASE;
pub use self::trust::{Refused, Sealed, Trust};
pub use crate::priority::default_priority;

pub(crate) use self::lease::Lease;
use self::vrrp::Machine;
pub(crate) use self::vrrp::Meeting;
pub use self::vrrp::State;
use crate::input::{Member, Params};

/// What the node has to do, in the order given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// An advertisement extends the lease. BFD may limit it: see [`Election::limit_lease`].
    LeaseMoved,
    /// The lease has ended: the kernel must not answer any more.
    LeaseEnded,
    /// Send an advertisement with this priority, 0 to resign.
    SendAdvert {
        /// Priority to send.
        priority: u8,
    },
    /// This node owns the VIP now: announce it.
    BecomeActive,
    /// This node does not own the VIP (any more).
    BecomeBackup,
}

/// The order of nodes in the election (RFC 9568, section 6.4.3): by priority, then by address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank {
    pub(crate) priority: u8,
    pub(crate) address: IpAddr,
}

impl Rank {
    /// A member's rank while it is healthy.
    pub(crate) const fn of(member: Member) -> Self {
        let Member { address, priority } = member;
        Self { priority, address }
    }
}

/// The election as the other parts see it: VRRP and the lease.
#[derive(Clone, Debug)]
pub(crate) struct Election {
    machine: Machine,
    lease: Lease,
    preempts: bool,
}

impl Election {
    /// Not started. `own`: this node.
    pub(crate) fn new(params: &Params, own: Member) -> Self {
        Self {
            machine: Machine::new(vrrp::Params {
                address: own.address,
                priority: own.priority,
                interval: params.vrrp.interval,
                preempt: params.vrrp.preempt,
                preempt_delay: params.vrrp.preempt_delay,
            }),
            lease: Lease::new(params.max_lease),
            preempts: params.vrrp.preempt,
        }
    }

    /// Starts VRRP. If `answer_until`, the lease of an earlier agent, has not ended, this node owns
    /// the VIP at once.
    pub(crate) fn on_start(&mut self, now: BootNanos, answer_until: BootNanos) -> Vec<Action> {
        let actions = self.machine.on_start(now, answer_until);
        self.translate(actions)
    }

    /// An advertisement came from another node.
    pub(crate) fn on_advert(
        &mut self,
        now: BootNanos,
        source: IpAddr,
        advert: &Advertisement,
        meeting: Meeting,
    ) -> Vec<Action> {
        let actions = self.machine.on_advert(now, source, advert, meeting);
        self.translate(actions)
    }

    /// To be called at [`Self::next_deadline`] or later.
    pub(crate) fn on_timer(&mut self, now: BootNanos) -> Vec<Action> {
        let actions = self.machine.on_timer(now);
        self.translate(actions)
    }

    /// See [`Machine::advertise_before`].
    pub(crate) fn advertise_before(&mut self, now: BootNanos, next: BootNanos) -> Vec<Action> {
        let actions = self.machine.advertise_before(now, next);
        self.translate(actions)
    }

    /// Becomes a backup of `owner`, whose advertisement interval is given.
    pub(crate) fn yield_to(
        &mut self,
        now: BootNanos,
        owner: IpAddr,
        interval: Centiseconds,
    ) -> Vec<Action> {
        let actions = self.machine.yield_to(now, owner, interval);
        self.translate(actions)
    }

    /// Stops VRRP. An owner resigns.
    pub(crate) fn stop(&mut self) -> Vec<Action> {
        let actions = self.machine.on_shutdown();
        self.translate(actions)
    }

    /// The owner is known to be gone: lets a backup's `Active_Down_Timer` fire at `at`, unless it
    /// fires earlier.
    pub(crate) fn shorten_active_down_timer(&mut self, at: BootNanos) {
        self.machine.shorten_active_down_timer(at);
    }

    /// Changes the priority. Returns whether it was another one.
    pub(crate) fn set_priority(&mut self, priority: u8) -> bool {
        let changes = priority != self.machine.priority();
        if changes {
            self.machine.set_priority(priority);
        }
        changes
    }

    /// Lets the owner's lease end by `limit` at the latest.
    pub(crate) fn limit_lease(&mut self, limit: BootNanos) {
        self.machine.limit_lease(limit);
    }

    /// Renews the owner's lease, up to `limit` if BFD sets one. Returns the new end if it changed.
    pub(crate) fn renew(&mut self, now: BootNanos, limit: Option<BootNanos>) -> Option<BootNanos> {
        self.limit_lease(limit.unwrap_or(BootNanos(u64::MAX)));
        let until = self.machine.answer_until()?;
        self.lease.renew(now, until)
    }

    /// Ends the lease. Returns the new end, zero, if there was a lease.
    pub(crate) fn end_lease(&mut self) -> Option<BootNanos> {
        self.lease.end()
    }

    /// The lease in the map, or zero if no agent can have set it.
    pub(crate) fn believable(&self, now: BootNanos, answer_until: BootNanos) -> BootNanos {
        self.lease.believable(now, answer_until)
    }

    /// This node's VRRP state.
    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }

    /// Whether this node owns the VIP.
    pub(crate) fn is_owner(&self) -> bool {
        self.machine.state() == State::Active
    }

    /// Whether this node is the owner and its lease has ended: it did not run in time.
    pub(crate) fn overslept(&self, now: BootNanos) -> bool {
        self.is_owner() && now >= self.lease.answer_until()
    }

    /// The interval in this node's advertisements.
    pub(crate) fn interval(&self) -> Centiseconds {
        self.machine.interval()
    }

    /// See [`Machine::tune`].
    pub(crate) fn tune(
        &mut self,
        now: BootNanos,
        timers: vrrp::Timers,
        extra: Duration,
    ) -> Vec<Action> {
        self.preempts = timers.preempt;
        let actions = self.machine.tune(now, timers, extra);
        self.translate(actions)
    }

    /// Makes it longer than configured by `extra`.
    pub(crate) fn lengthen(&mut self, now: BootNanos, extra: Duration) -> Vec<Action> {
        let actions = self.machine.lengthen(now, extra);
        self.translate(actions)
    }

    /// The priority in force.
    pub(crate) fn priority(&self) -> u8 {
        self.machine.priority()
    }

    /// Whether this node takes the VIP from an owner of lower priority.
    pub(crate) const fn preempts(&self) -> bool {
        self.preempts
    }

    /// Until when this node answers for the VIP.
    pub(crate) const fn answer_until(&self) -> BootNanos {
        self.lease.answer_until()
    }

    /// Address of the owner whose advertisements a backup waits for; an owner's own address.
    pub(crate) fn waits_for(&self) -> Option<IpAddr> {
        self.machine.owner()
    }

    /// When a backup received the owner's last advertisement, or began to wait.
    pub(crate) fn heard(&self) -> Option<BootNanos> {
        self.machine.heard()
    }

    /// When to call [`Self::on_timer`]; the end of time while VRRP is stopped.
    pub(crate) fn next_deadline(&self) -> BootNanos {
        self.machine.next_deadline()
    }

    /// When the lease is to be renewed or ends; `None` for a backup.
    pub(crate) fn lease_deadline(&self) -> Option<BootNanos> {
        let until = self.machine.answer_until()?;
        Some(if self.lease.answer_until() < until {
            self.lease.renewal()
        } else {
            self.lease.answer_until()
        })
    }

    /// The engine's actions, without those that the lease makes unnecessary. [`Self::renew`] sets
    /// an extended lease, once for all inputs of one time.
    fn translate(&mut self, actions: impl IntoIterator<Item = vrrp::Action>) -> Vec<Action> {
        let translate = |action| match action {
            vrrp::Action::RenewLease { .. } => Some(Action::LeaseMoved),
            vrrp::Action::EndLease => self.lease.end().map(|_| Action::LeaseEnded),
            vrrp::Action::SendAdvert { priority } => Some(Action::SendAdvert { priority }),
            vrrp::Action::BecomeActive => Some(Action::BecomeActive),
            vrrp::Action::BecomeBackup => Some(Action::BecomeBackup),
        };
        actions.into_iter().filter_map(translate).collect()
    }
}

/// A node's priority: `base` while its API server is usable, otherwise a quarter of it. A quarter
/// is less than the default priority of each of the first seven nodes.
pub(crate) fn priority(base: u8, usable: bool) -> u8 {
    if usable { base } else { (base / 4).max(1) }
}

#[cfg(test)]
mod tests {
    use vip_common::abi::MAX_BACKENDS;

    use super::*;
    use crate::membership::Membership;
    use crate::testing::{at, params};

    /// The first node, which has just become the owner, and the time.
    fn owner() -> (Election, BootNanos) {
        let mut election = election();
        let actions = election.on_start(at(0), BootNanos::ZERO);
        assert_eq!(actions, [Action::BecomeBackup], "there is no lease to end");
        let now = election.next_deadline();
        let actions = election.on_timer(now);
        let advert = Action::SendAdvert { priority: 250 };
        assert_eq!(actions, [Action::LeaseMoved, advert, Action::BecomeActive]);
        (election, now)
    }

    /// The first of three nodes.
    fn election() -> Election {
        let params = params(0, true);
        let own = Membership::new(&params).own_member();
        Election::new(&params, own)
    }

    #[test]
    fn lease_of_an_owner_is_two_and_a_half_intervals_or_what_bfd_lets_it_be() {
        let (mut election, now) = owner();
        let until = now.after(Duration::from_millis(250));
        assert_eq!(election.answer_until(), BootNanos::ZERO, "not yet renewed");
        assert_eq!(election.renew(now, None), Some(until));
        assert_eq!(election.renew(now, None), None);
        let limit = now.after(Duration::from_millis(125));
        assert_eq!(election.renew(now, Some(limit)), Some(limit));
        assert_eq!(election.lease_deadline(), Some(limit));
        let later = now.after(Duration::from_secs(1));
        assert_eq!(election.renew(now, Some(later)), Some(until));
    }

    #[test]
    fn owner_that_did_not_run_has_overslept_and_ends_its_lease() {
        let (mut election, now) = owner();
        let until = election.renew(now, None).unwrap();
        assert!(!election.overslept(BootNanos(until.0 - 1)));
        assert!(election.overslept(until));
        let actions = election.on_timer(until);
        assert_eq!(actions[0], Action::LeaseEnded);
        assert_eq!(election.state(), State::Backup);
        assert!(!election.overslept(until) && election.lease_deadline().is_none());
        assert_eq!(election.end_lease(), None, "it has ended");
    }

    #[test]
    fn backup_waits_no_longer_than_it_is_told_to() {
        let mut election = election();
        election.on_start(at(0), BootNanos::ZERO);
        assert!(election.next_deadline() > at(300));
        election.shorten_active_down_timer(at(200));
        election.shorten_active_down_timer(at(250));
        assert_eq!(election.next_deadline(), at(200));
    }

    #[test]
    fn priority_is_news_when_it_changes() {
        let mut election = election();
        assert!(!election.set_priority(250));
        assert!(election.set_priority(62) && election.priority() == 62);
        assert_eq!(
            [250, 70, 3, 1].map(|base| priority(base, false)),
            [62, 17, 1, 1]
        );
        assert_eq!(priority(250, true), 250);
    }

    #[test]
    fn priorities_fall_with_the_place_and_stay_in_range() {
        let priorities: Vec<u8> = (0..MAX_BACKENDS).map(default_priority).collect();
        assert_eq!(
            priorities,
            [
                250, 220, 190, 160, 130, 100, 70, 40, 37, 34, 31, 28, 25, 22, 19, 16
            ]
        );
        assert_eq!(default_priority(usize::MAX), 1);
    }
}
