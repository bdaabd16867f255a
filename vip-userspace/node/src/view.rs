//! The cluster as a node sees it, for decisions about who is to own the VIP.

use std::net::IpAddr;
use std::time::Duration;

use vip_common::abi::BackendIndex;

use crate::action::{NoHandover, Unsuited};
use crate::election::{Election, priority};
use crate::liveness::Liveness;
use crate::membership::Membership;
use crate::ownership::Ownership;
use crate::selection::Selection;

/// The parts of a node, to look at.
#[derive(Clone, Copy)]
pub(crate) struct View<'n> {
    pub(crate) members: &'n Membership,
    pub(crate) liveness: &'n Liveness,
    pub(crate) selection: &'n Selection,
    pub(crate) election: &'n Election,
    pub(crate) ownership: &'n Ownership,
}

impl View<'_> {
    /// Whether a node could take the VIP: its agent is heard, or, without BFD, its server answers.
    pub(crate) fn could_own(&self, node: BackendIndex) -> bool {
        match self.liveness.session(node) {
            Some(session) => session.is_up(),
            None => node != self.members.own() && self.selection.is_alive(node),
        }
    }

    /// Whether any other node could take the VIP.
    pub(crate) fn has_successor(&self) -> bool {
        self.members.others().any(|node| self.could_own(node))
    }

    /// How long to let others go first once the owner is gone: a BFD interval for each living
    /// node that stands before this one, so that not all of them take over at once. Nodes may
    /// disagree for a moment about who is ready, and each let the other go first, or neither. Then
    /// their places by configured priority, worth half an interval in all, keep them apart.
    pub(crate) fn takeover_delay(&self, bfd: Option<Duration>) -> Duration {
        let Some(interval) = bfd else {
            return Duration::ZERO;
        };
        let configured = self.members.own_member();
        let own = (self.election.priority(), configured.address);
        let mut before = 0;
        let mut configured_before = 0;
        for index in self.members.others() {
            let Some(node) = self.members.member(index) else {
                continue;
            };
            if self.election.waits_for() != Some(node.address) {
                let rank = (node.priority, node.address);
                configured_before += u32::from(rank > (configured.priority, configured.address));
            }
            let lives = self.liveness.is_up(index);
            let resigned = self.ownership.resigned_last(index);
            before += u32::from(lives && !resigned && self.rank(index) > Some(own));
        }
        let others = self.members.others().count().max(1) as u32;
        interval * before + interval * configured_before / (2 * others)
    }

    /// The node to hand the VIP over to, which this node owns: the one that was named, or the best.
    ///
    /// # Errors
    /// Why it is not that one, or none.
    pub(crate) fn successor(&self, to: Option<BackendIndex>) -> Result<BackendIndex, NoHandover> {
        if let Some(to) = to {
            if to == self.members.own() {
                return Err(NoHandover::Own);
            }
            return match self.unsuited(to) {
                None => Ok(to),
                Some(why) => Err(NoHandover::Unsuited(to, why)),
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
            let why = others.filter_map(|index| Some((index, self.unsuited(index)?)));
            NoHandover::NoSuccessor(why.collect())
        })
    }

    /// Why the VIP would not go to a node, or not stay there; `None` if it would. An unready or
    /// draining node keeps it only while no node is better, this one included.
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
        let (theirs, _) = self.rank(index)?;
        (self.election.preempts() && theirs < own).then_some(Unsuited::Outranked { own, theirs })
    }

    /// By what the election prefers a node: its priority, as this node believes it, and its address.
    fn rank(&self, index: BackendIndex) -> Option<(u8, IpAddr)> {
        let node = self.members.member(index)?;
        let usable = self.selection.is_usable(index);
        Some((priority(node.priority, usable), node.address))
    }
}
