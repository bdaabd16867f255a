//! Decisions about the next owner of the VIP, which need several parts of the node.

use std::time::Duration;

use vip_common::abi::BackendIndex;

use crate::action::{NoHandover, Unsuited, UnsuitedNode};
use crate::election::{Election, Rank, priority};
use crate::liveness::Liveness;
use crate::membership::Membership;
use crate::ownership::Ownership;
use crate::selection::Selection;

/// Read access to the parts of a node.
#[derive(Clone, Copy)]
pub(crate) struct View<'n> {
    pub(crate) members: &'n Membership,
    pub(crate) liveness: &'n Liveness,
    pub(crate) selection: &'n Selection,
    pub(crate) election: &'n Election,
    pub(crate) ownership: &'n Ownership,
}

impl View<'_> {
    /// Whether a node could own the VIP: its BFD session is up, or, without BFD, its server
    /// answers.
    pub(crate) fn could_own(&self, node: BackendIndex) -> bool {
        match self.liveness.session(node) {
            Some(session) => session.is_up(),
            None => node != self.members.own() && self.selection.is_alive(node),
        }
    }

    /// Whether any other node could own the VIP.
    pub(crate) fn has_successor(&self) -> bool {
        self.members.others().any(|node| self.could_own(node))
    }

    /// How long this node waits after the owner is lost before it takes over: one BFD interval for
    /// each living node that ranks above it. Nodes may disagree for a moment about which servers
    /// are ready, and then compute the same wait. So each one adds a share of half an interval for
    /// its place by configured priority. `bfd`: the BFD interval; without BFD the wait is zero.
    pub(crate) fn takeover_delay(&self, bfd: Option<Duration>) -> Duration {
        let Some(interval) = bfd else {
            return Duration::ZERO;
        };
        let configured = self.members.own_member();
        let own = Rank {
            priority: self.election.priority(),
            ..Rank::of(configured)
        };
        let mut before = 0;
        let mut configured_before = 0;
        for index in self.members.others() {
            let Some(node) = self.members.member(index) else {
                continue;
            };
            if self.election.waits_for() != Some(node.address) {
                configured_before += u32::from(Rank::of(node) > Rank::of(configured));
            }
            let lives = self.liveness.is_up(index);
            let resigned = self.ownership.resigned_last(index);
            before += u32::from(lives && !resigned && self.rank(index) > Some(own));
        }
        let others = self.members.others().count().max(1) as u32;
        interval * before + interval * configured_before / (2 * others)
    }

    /// The node to which this one, the owner, hands the VIP over: the named one, or the best.
    ///
    /// # Errors
    /// Why the named node, or each other node, is unsuited.
    pub(crate) fn successor(&self, to: Option<BackendIndex>) -> Result<BackendIndex, NoHandover> {
        if let Some(to) = to {
            if to == self.members.own() {
                return Err(NoHandover::Own);
            }
            return match self.unsuited(to) {
                None => Ok(to),
                Some(why) => Err(NoHandover::Unsuited(UnsuitedNode { node: to, why })),
            };
        }
        let suited = self
            .members
            .others()
            .filter(|&index| self.unsuited(index).is_none());
        let best = suited.max_by_key(|&index| {
            let drains = self.selection.is_draining(index);
            (self.selection.is_usable(index), !drains, self.rank(index))
        });
        best.ok_or_else(|| {
            let others = self.members.others();
            let unsuited = others.filter_map(|node| {
                let why = self.unsuited(node)?;
                Some(UnsuitedNode { node, why })
            });
            NoHandover::NoSuccessor(unsuited.collect())
        })
    }

    /// Why a node would not take the VIP, or not keep it; `None` if it would. An unready or
    /// draining node keeps it only while no other node, this one included, is usable.
    fn unsuited(&self, index: BackendIndex) -> Option<Unsuited> {
        if !self.could_own(index) {
            return Some(Unsuited::Unheard);
        }
        let own = self.members.own();
        let is_better = |node: BackendIndex| {
            self.selection.is_usable(node) && (node == own || node != index && self.could_own(node))
        };
        let usable = self.selection.is_usable(index);
        if !usable && self.members.all().any(is_better) {
            return Some(if self.selection.is_draining(index) {
                Unsuited::Draining
            } else {
                Unsuited::Unready
            });
        }
        let own = self.election.priority();
        let theirs = self.rank(index)?.priority;
        (self.election.preempts() && theirs < own).then_some(Unsuited::Outranked { own, theirs })
    }

    /// A node's rank in the election, with the priority that follows from its known health.
    fn rank(&self, index: BackendIndex) -> Option<Rank> {
        let node = self.members.member(index)?;
        let usable = self.selection.is_usable(index);
        Some(Rank {
            priority: priority(node.priority, usable),
            ..Rank::of(node)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use vip_common::wire::time::BootNanos;
    use vip_common::wire::vrrp::{Addresses, Advertisement, PRIORITY_RESIGNED};

    use vip_common::abi::CheckIndex;

    use super::*;
    use crate::health::Probe;
    use crate::input::Params;
    use crate::testing::{Segment, at, index, params};

    const INTERVAL: Duration = Duration::from_millis(50);

    fn unsuited((node, why): (usize, Unsuited)) -> UnsuitedNode {
        let node = index(node);
        UnsuitedNode { node, why }
    }

    fn election(params: &Params) -> Election {
        Election::new(params, Membership::new(params).own_member())
    }

    /// The parts of one of three nodes, all of which hear each other.
    struct Parts {
        params: Params,
        segment: Segment,
        selection: Selection,
        election: Election,
        ownership: Ownership,
    }

    impl Parts {
        fn new(own: usize) -> Self {
            let params = params(own, true);
            Self {
                segment: Segment::up(3),
                selection: Selection::new(&params),
                election: election(&params),
                ownership: Ownership::new(&params),
                params,
            }
        }

        fn view(&self) -> View<'_> {
            let end = &self.segment.ends[self.params.own.get()];
            View {
                members: &end.members,
                liveness: &end.liveness,
                selection: &self.selection,
                election: &self.election,
                ownership: &self.ownership,
            }
        }

        fn probe(&mut self, node: usize, found: Probe) {
            self.selection.on_probe(index(node), CheckIndex::API, found);
        }

        /// An advertisement of the first node.
        fn advert(&mut self, priority: u8) {
            let advert = Advertisement {
                router_id: 10,
                priority,
                interval: self.params.vrrp.interval,
                addresses: Addresses::new(&[IpAddr::from([10, 0, 0, 10])]).unwrap(),
            };
            let (now, address) = (at(5000), self.params.nodes[index(0)].address);
            let liveness = &self.segment.ends[self.params.own.get()].liveness;
            let patience = Duration::from_secs(1);
            self.ownership
                .on_advert(now, index(0), address, &advert, patience, liveness);
            self.election.on_start(now, BootNanos::ZERO);
            let meeting = crate::election::Meeting::default();
            self.election.on_advert(now, address, &advert, meeting);
        }

        fn delay(&self) -> Duration {
            self.view().takeover_delay(Some(INTERVAL))
        }
    }

    #[test]
    fn each_node_lets_the_living_ones_before_it_go_first() {
        assert_eq!(Parts::new(0).delay(), Duration::ZERO);
        // One interval for each node before it, and a quarter by their configured places.
        assert_eq!(Parts::new(1).delay(), INTERVAL + INTERVAL / 4);
        assert_eq!(Parts::new(2).delay(), INTERVAL * 2 + INTERVAL / 2);
        assert_eq!(Parts::new(2).view().takeover_delay(None), Duration::ZERO);
        let mut third = Parts::new(2);
        third.segment.kill(0);
        third.segment.run(160);
        assert_eq!(third.delay(), INTERVAL + INTERVAL / 2);
    }

    #[test]
    fn node_that_has_resigned_is_not_waited_for() {
        let mut second = Parts::new(1);
        second.advert(250);
        assert_eq!(
            second.delay(),
            INTERVAL,
            "it is the owner that is waited for"
        );
        second.advert(PRIORITY_RESIGNED);
        assert_eq!(second.delay(), Duration::ZERO);
    }

    #[test]
    fn node_whose_server_is_not_ready_goes_last() {
        let mut second = Parts::new(1);
        second.probe(0, Probe::Refused);
        assert_eq!(second.delay(), INTERVAL / 4);
    }

    #[test]
    fn best_suited_node_is_the_successor() {
        let mut parts = Parts::new(0);
        assert_eq!(parts.view().successor(None), Ok(index(1)));
        assert_eq!(parts.view().successor(Some(index(2))), Ok(index(2)));
        assert_eq!(parts.view().successor(Some(index(0))), Err(NoHandover::Own));
        parts.probe(1, Probe::Refused);
        assert_eq!(parts.view().successor(None), Ok(index(2)));
        parts.segment.kill(2);
        parts.segment.run(160);
        let why = [(1, Unsuited::Unready), (2, Unsuited::Unheard)]
            .map(unsuited)
            .to_vec();
        assert_eq!(
            parts.view().successor(None),
            Err(NoHandover::NoSuccessor(why))
        );
        // The own server is not ready either: the second node is as good as any.
        parts.probe(0, Probe::Refused);
        assert_eq!(parts.view().successor(None), Ok(index(1)));
        assert!(parts.view().has_successor());
        parts.segment.kill(1);
        parts.segment.run(160);
        assert!(!parts.view().has_successor());
    }

    #[test]
    fn node_that_preempts_hands_over_to_nobody_below_it() {
        let mut parts = Parts::new(1);
        parts.params.vrrp.preempt = true;
        parts.election = election(&parts.params);
        assert_eq!(parts.view().successor(None), Ok(index(0)));
        let back = Unsuited::Outranked {
            own: 220,
            theirs: 190,
        };
        let why = NoHandover::Unsuited(unsuited((2, back)));
        assert_eq!(parts.view().successor(Some(index(2))), Err(why));
        // Less fit than the other, it does not take the VIP back.
        parts.election.set_priority(220 / 4);
        assert_eq!(parts.view().successor(Some(index(2))), Ok(index(2)));
    }
}
