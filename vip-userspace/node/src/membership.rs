//! The members of the cluster, and whether this node is still joining.
//!
//! A node whose agent has just started is *joining*: it does not know the other nodes' health yet,
//! and they do not know its own. It forwards nothing until its BFD session with each other node is
//! up on both sides and each node's Ethernet address is known, or a time limit is over. Otherwise
//! it would send on segments of its own connections, to nodes that have not heard it yet.

use std::time::Duration;

use vip_common::abi::{BackendIndex, BackendMask};
use vip_common::wire::time::BootNanos;

use crate::input::{Member, Params};
use crate::slots::Slots;

/// Least time limit of joining. Two agents that run bring their BFD session up within a few
/// packets.
const JOINING: Duration = Duration::from_millis(500);

/// The same, in BFD intervals.
const JOINING_INTERVALS: u32 = 10;

/// The members of the cluster, as this node knows them.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    own: BackendIndex,
    members: Slots<Member>,
    /// The time limit of joining; `None` without BFD, where agents cannot be heard.
    joining_time: Option<Duration>,
    /// Nodes whose Ethernet address is known, so that frames can be forwarded to them.
    located: BackendMask,
    /// When joining ends at the latest; `None` if this node is not joining.
    joining: Option<BootNanos>,
}

impl Membership {
    /// No other member's address is known.
    pub(crate) fn new(params: &Params) -> Self {
        let bfd = params.bfd.map(|bfd| bfd.interval);
        Self {
            own: params.own,
            members: params.nodes.clone(),
            joining_time: bfd.map(|interval| JOINING.max(interval * JOINING_INTERVALS)),
            located: BackendMask::EMPTY,
            joining: None,
        }
    }

    /// The agent starts. `known`: the nodes that an earlier agent found alive; empty if there was
    /// no earlier agent.
    pub(crate) fn on_start(&mut self, now: BootNanos, known: BackendMask) {
        if known.is_empty() {
            self.joining = self.joining_time.map(|time| now.after(time));
        }
    }

    /// This node.
    pub(crate) const fn own(&self) -> BackendIndex {
        self.own
    }

    /// All members, this node among them.
    pub(crate) fn all(&self) -> impl Iterator<Item = BackendIndex> + use<> {
        self.members.mask().iter()
    }

    /// All members but this node.
    pub(crate) fn others(&self) -> impl Iterator<Item = BackendIndex> + use<> {
        let own = self.own;
        self.all().filter(move |index| *index != own)
    }

    /// How a member is configured; `None` if there is no such member.
    pub(crate) fn member(&self, index: BackendIndex) -> Option<Member> {
        self.members.get(index).copied()
    }

    /// How this node is configured.
    pub(crate) fn own_member(&self) -> Member {
        self.members[self.own]
    }

    /// A node's Ethernet address is known.
    pub(crate) fn locate(&mut self, index: BackendIndex) {
        self.located = self.located.with(index, true);
    }

    /// Ends joining once its time limit is over or all other nodes are known. `hears`: whether the
    /// BFD session with a node is up on both sides.
    pub(crate) fn settle(&mut self, now: BootNanos, hears: impl Fn(BackendIndex) -> bool) {
        let Some(until) = self.joining else {
            return;
        };
        let knows = |index| self.located.contains(index) && hears(index);
        if now >= until || self.others().all(knows) {
            self.joining = None;
        }
    }

    /// Whether this node is joining.
    pub(crate) const fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    /// When [`Self::settle`] may have something to do; `None` if nothing waits for a time.
    pub(crate) const fn next_deadline(&self) -> Option<BootNanos> {
        self.joining
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, index, params};

    fn hears_all(_: BackendIndex) -> bool {
        true
    }

    #[test]
    fn joining_ends_with_the_last_node_that_is_located_and_hears_this_one() {
        let mut members = Membership::new(&params(0, true));
        members.on_start(at(0), BackendMask::EMPTY);
        members.locate(index(1));
        members.settle(at(1), hears_all);
        assert!(members.is_joining(), "the third node is not located");
        members.locate(index(2));
        members.settle(at(2), |index| index.get() == 1);
        assert!(
            members.is_joining(),
            "the third node does not hear this one"
        );
        members.settle(at(3), hears_all);
        assert!(!members.is_joining());
    }

    #[test]
    fn joining_ends_with_its_time_and_an_agent_that_goes_on_does_not_join() {
        let mut members = Membership::new(&params(0, true));
        members.on_start(at(0), BackendMask::EMPTY);
        assert_eq!(members.next_deadline(), Some(at(500)));
        members.settle(at(499), |_| false);
        assert!(members.is_joining());
        members.settle(at(500), |_| false);
        assert!(!members.is_joining());

        let mut members = Membership::new(&params(0, true));
        members.on_start(at(0), BackendMask::first(2));
        assert!(!members.is_joining());
    }
}
