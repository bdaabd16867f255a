//! Who belongs to the cluster, who of them was heard, and whether this node has come to know them.
//!
//! A node whose agent has just come is *joining*: it does not know yet who is there, and the others
//! do not know that it is. It withholds all traffic from the others until each of them has said by
//! BFD that it hears this node, and until frames can be handed on to each. Otherwise it would pass
//! over nodes that it has not heard yet, and their connections would be reset.

use std::time::Duration;

use vip_common::abi::{BackendIndex, BackendMask};
use vip_common::wire::time::BootNanos;

use crate::input::{Member, Params};

/// Least time that a node which has just come waits for the others. Nodes that run answer each
/// other within a few BFD packets, whoever began.
const JOINING: Duration = Duration::from_millis(500);

/// BFD intervals that it waits at least.
const JOINING_INTERVALS: u32 = 10;

/// The members of the cluster, as this node knows them.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    own: BackendIndex,
    members: Vec<Member>,
    /// Least time to wait for the others; `None` without BFD, where there is nothing to hear
    /// agents by.
    joining_time: Option<Duration>,
    /// Nodes whose agent was heard, so that the VIP lies on their `lo`: only then does their stack
    /// take what is steered there. (It stays there when the agent ends.) A node that was dead must
    /// be heard again: it may have booted, and its stack know nothing of the VIP.
    heard: BackendMask,
    /// Nodes that frames can be handed on to.
    located: BackendMask,
    /// This node is joining: until then at most.
    joining: Option<BootNanos>,
}

impl Membership {
    /// All members; none of the others was heard.
    pub(crate) fn new(params: &Params) -> Self {
        let bfd = params.bfd.map(|bfd| bfd.interval);
        Self {
            own: params.own,
            members: params.nodes.clone(),
            joining_time: bfd.map(|interval| JOINING.max(interval * JOINING_INTERVALS)),
            heard: if bfd.is_some() {
                BackendMask::EMPTY
            } else {
                BackendMask::ALL
            },
            located: BackendMask::EMPTY,
            joining: None,
        }
    }

    /// The agent starts. `known` is who lived as an earlier agent left it; nobody if there was none.
    pub(crate) fn on_start(&mut self, now: BootNanos, known: BackendMask) {
        if known.is_empty() {
            self.joining = self.joining_time.map(|time| now.after(time));
        }
        for index in self.others().filter(|index| known.contains(*index)) {
            self.heard = self.heard.with(index, true);
        }
    }

    /// This node.
    pub(crate) const fn own(&self) -> BackendIndex {
        self.own
    }

    /// All members, this node among them.
    pub(crate) fn all(&self) -> impl Iterator<Item = BackendIndex> + use<> {
        (0..self.members.len()).filter_map(BackendIndex::new)
    }

    /// All members but this node.
    pub(crate) fn others(&self) -> impl Iterator<Item = BackendIndex> + use<> {
        let own = self.own;
        self.all().filter(move |index| *index != own)
    }

    /// How a member is configured; `None` if there is no such member.
    pub(crate) fn member(&self, index: BackendIndex) -> Option<Member> {
        self.members.get(index.get()).copied()
    }

    /// How this node is configured.
    pub(crate) fn own_member(&self) -> Member {
        self.members[self.own.get()]
    }

    /// A node's agent was heard.
    pub(crate) fn hear(&mut self, index: BackendIndex) {
        self.heard = self.heard.with(index, true);
    }

    /// A node died. It must be heard again, unless there is nothing to hear it by.
    pub(crate) fn lose(&mut self, index: BackendIndex) {
        if self.joining_time.is_some() {
            self.heard = self.heard.with(index, false);
        }
    }

    /// Frames can be handed on to a node.
    pub(crate) fn locate(&mut self, index: BackendIndex) {
        self.located = self.located.with(index, true);
    }

    /// Whether a node's stack takes what is steered there.
    pub(crate) const fn was_heard(&self, index: BackendIndex) -> bool {
        self.heard.contains(index)
    }

    /// Ends the joining where its time is over, or where all others are known. `hears`: a node and
    /// this one hear each other.
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
        assert!(members.was_heard(index(1)) && !members.was_heard(index(2)));
    }

    #[test]
    fn a_node_that_died_must_be_heard_again_unless_there_is_nothing_to_hear_it_by() {
        for bfd in [false, true] {
            let mut members = Membership::new(&params(0, bfd));
            members.hear(index(1));
            members.lose(index(1));
            assert_eq!(members.was_heard(index(1)), !bfd);
        }
    }
}
