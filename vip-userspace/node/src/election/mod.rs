//! Who owns the VIP: the election's engine, and the answer lease that goes with it.
//!
//! # The answer lease
//!
//! The owner answers for the VIP until its lease ends, and no other node may take over on a time-out
//! before that. There are two time-outs, so the lease ends with the earlier of two: two and a half
//! advertisement intervals after the last advertisement, and half a BFD interval before any peer
//! could miss this node's BFD packets. Both are moved on only by sending what the peers wait
//! for: a node that cannot send, or is not running, loses the VIP in the kernel. Where timers are
//! so long that this is more than [`MAX_LEASE`] ahead, the lease goes there in steps: the
//! programs do not believe in one that ends far ahead
//! ([`LONGEST_LEASE`](vip_common::abi::LONGEST_LEASE)).

mod lease;
pub mod vrrp;

use std::net::IpAddr;

use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::{Advertisement, Centiseconds};

pub use self::lease::MAX_LEASE;

use self::lease::Lease;
use self::vrrp::Machine;
pub use self::vrrp::State;
use crate::input::Params;

/// What the node has to do, in the order given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// An advertisement was sent, which moves the end of the lease on, as far as BFD lets it: see
    /// [`Election::limit_lease`].
    LeaseMoved,
    /// The lease has ended: let the kernel answer no more.
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

/// The election, as far as a node sees it: its engine is VRRP.
#[derive(Clone, Debug)]
pub(crate) struct Election {
    machine: Machine,
    lease: Lease,
    preempts: bool,
}

impl Election {
    /// Not started.
    pub(crate) fn new(params: &Params) -> Self {
        let own = params.nodes[params.own.get()];
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

    /// Begins to take part. Where the lease of an agent before this one ends ahead of now, this node
    /// owns the VIP and goes on.
    pub(crate) fn on_start(&mut self, now: BootNanos, answer_until: BootNanos) -> Vec<Action> {
        let actions = self.machine.on_start(now, answer_until);
        self.translate(actions)
    }

    /// An advertisement came from another node. `unfit`: that node is not fit to be the owner, and
    /// this one is.
    pub(crate) fn on_advert(
        &mut self,
        now: BootNanos,
        source: IpAddr,
        advert: &Advertisement,
        unfit: bool,
    ) -> Vec<Action> {
        let actions = self.machine.on_advert(now, source, advert, unfit);
        self.translate(actions)
    }

    /// Time has passed.
    pub(crate) fn on_timer(&mut self, now: BootNanos) -> Vec<Action> {
        let actions = self.machine.on_timer(now);
        self.translate(actions)
    }

    /// An owner makes way for another node.
    pub(crate) fn yield_to(
        &mut self,
        now: BootNanos,
        owner: IpAddr,
        interval: Centiseconds,
    ) -> Vec<Action> {
        let actions = self.machine.yield_to(now, owner, interval);
        self.translate(actions)
    }

    /// Takes part no more. An owner resigns.
    pub(crate) fn stop(&mut self) -> Vec<Action> {
        let actions = self.machine.on_shutdown();
        self.translate(actions)
    }

    /// The owner is known to be gone: a backup waits no longer than until `at`.
    pub(crate) fn hasten(&mut self, at: BootNanos) {
        self.machine.hasten(at);
    }

    /// Changes the priority. Whether it was another one.
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

    /// Renews the owner's lease, which ends by `limit` if there is one. Returns its end if that is
    /// another one.
    pub(crate) fn renew(&mut self, now: BootNanos, limit: Option<BootNanos>) -> Option<BootNanos> {
        self.limit_lease(limit.unwrap_or(BootNanos(u64::MAX)));
        let until = self.machine.answer_until()?;
        self.lease.renew(now, until)
    }

    /// Ends the lease. Returns its end if there was one.
    pub(crate) fn end_lease(&mut self) -> Option<BootNanos> {
        self.lease.end()
    }

    /// The lease in the map, as far as an agent can have set it.
    pub(crate) fn believable(&self, now: BootNanos, answer_until: BootNanos) -> BootNanos {
        self.lease.believable(now, answer_until)
    }

    /// What VRRP says this node is.
    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }

    /// Whether this node owns the VIP.
    pub(crate) fn is_owner(&self) -> bool {
        self.machine.state() == State::Active
    }

    /// Whether an owner comes back after its lease has ended: it was away.
    pub(crate) fn overslept(&self, now: BootNanos) -> bool {
        self.is_owner() && now >= self.lease.answer_until()
    }

    /// The priority in force.
    pub(crate) fn priority(&self) -> u8 {
        self.machine.priority()
    }

    /// Whether nodes take the VIP from an owner of lower priority.
    pub(crate) const fn preempts(&self) -> bool {
        self.preempts
    }

    /// Until when this node answers for the VIP.
    pub(crate) const fn answer_until(&self) -> BootNanos {
        self.lease.answer_until()
    }

    /// The owner that a backup waits for; an owner itself.
    pub(crate) fn waits_for(&self) -> Option<IpAddr> {
        self.machine.owner()
    }

    /// When a backup heard its owner last, or began to wait.
    pub(crate) fn heard(&self) -> Option<BootNanos> {
        self.machine.heard()
    }

    /// When to call [`Self::on_timer`], unless something happens before.
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

    /// The engine's actions. A lease that was moved on is set by [`Self::renew`], once for all that
    /// happens at one time.
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

/// The priority of a node whose own API server may be used, or may not. A quarter is less than any
/// healthy node's among the first seven.
pub(crate) fn priority(base: u8, usable: bool) -> u8 {
    if usable { base } else { (base / 4).max(1) }
}

/// The VRRP priority of a node that has none configured, by its place in the list of nodes. Steps
/// are large where it matters, so that the nodes' skew times are well apart.
#[must_use]
pub fn default_priority(place: usize) -> u8 {
    const FIRST: [u8; 7] = [250, 220, 190, 160, 130, 100, 70];
    FIRST.get(place).copied().unwrap_or_else(|| {
        let more = u8::try_from(place - FIRST.len()).unwrap_or(u8::MAX);
        40_u8.saturating_sub(more.saturating_mul(3)).max(1)
    })
}

#[cfg(test)]
mod tests {
    use vip_common::abi::MAX_BACKENDS;

    use super::*;

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
