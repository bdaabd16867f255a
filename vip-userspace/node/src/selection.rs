//! Which nodes get connections: probes of their servers, the operators' wishes and the nodes' life,
//! put together into the masks that the programs read.

use vip_common::abi::{BackendIndex, BackendMask, MAX_CHECKS, Masks};

use crate::action::{Action, LastUsable, Report, Unfit};
use crate::choice::{Facts, Resort, choose};
use crate::health::{Health, Probe, Server, Transition};
use crate::input::Params;
use crate::liveness::Liveness;
use crate::membership::Membership;

/// How a connection gets to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// Frames for the VIP are handed on to it.
    Steering,
    /// A process or pod of this node is connected to the node's own address.
    Connecting,
}

/// Which nodes get connections.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    health: Health,
    /// Nodes that take no new connections, as far as this one knows. Of one whose agent is
    /// silent, what it said last.
    draining: BackendMask,
    /// What the programs read, as it was last written.
    masks: Option<Masks>,
    /// Where new connections go, by each check, as it was last reported.
    resorts: [Resort; MAX_CHECKS],
}

impl Selection {
    /// Nothing is known of any server.
    pub(crate) fn new(params: &Params) -> Self {
        Self {
            health: Health::new(params.nodes.len(), params.checks, params.thresholds),
            draining: BackendMask::EMPTY,
            masks: None,
            resorts: [Resort::default(); MAX_CHECKS],
        }
    }

    /// An agent before this one left `known`: which nodes drain, and to which servers new
    /// connections were brought. That counts for `index`, which lived.
    pub(crate) fn remember(&mut self, index: BackendIndex, known: &Masks, out: &mut Vec<Action>) {
        if known.draining.contains(index) {
            self.set_draining(index, true, out);
            return;
        }
        for check in 0..self.health.checks() {
            let usable = known.new_connections[check].contains(index);
            self.health.remember(index, check, usable);
        }
    }

    /// A probe ended. Returns what changed by it.
    pub(crate) fn on_probe(
        &mut self,
        node: BackendIndex,
        check: usize,
        found: Probe,
    ) -> Vec<Transition> {
        self.health.on_probe(node, check, found)
    }

    /// A node takes no new connections, or takes them again.
    pub(crate) fn set_draining(
        &mut self,
        node: BackendIndex,
        draining: bool,
        out: &mut Vec<Action>,
    ) {
        if self.draining.contains(node) != draining {
            self.draining = self.draining.with(node, draining);
            out.push(Action::Report(Report::Draining { node, draining }));
        }
    }

    /// Whether a node takes no new connections because its operator said so.
    pub(crate) const fn is_draining(&self, node: BackendIndex) -> bool {
        self.draining.contains(node)
    }

    /// Whether nothing speaks against new connections to the API there, as far as a node's server and
    /// its operator go.
    pub(crate) fn is_usable(&self, node: BackendIndex) -> bool {
        let unasked = self.health.all_unasked(0).contains(node);
        (unasked || self.health.usable(node, 0)) && !self.draining.contains(node)
    }

    /// Whether probes find life on a node.
    pub(crate) fn is_alive(&self, node: BackendIndex) -> bool {
        self.health.alive(node)
    }

    /// What is known of a node's server, by one of the checks.
    pub(crate) fn server(&self, node: BackendIndex, check: usize) -> Server {
        self.health.server(node, check)
    }

    /// Where new connections go, by one of the checks.
    pub(crate) fn resort(&self, check: usize) -> Resort {
        self.resorts.get(check).copied().unwrap_or_default()
    }

    /// What the programs are to read.
    pub(crate) fn masks(&self, members: &Membership, liveness: &Liveness) -> Masks {
        self.masks
            .unwrap_or_else(|| self.choose(members, liveness).0)
    }

    /// Brings what the programs read in line with what is known.
    pub(crate) fn settle(
        &mut self,
        members: &Membership,
        liveness: &Liveness,
        out: &mut Vec<Action>,
    ) {
        let (masks, resorts) = self.choose(members, liveness);
        let before = std::mem::replace(&mut self.resorts, resorts);
        for (check, (before, resort)) in before.into_iter().zip(resorts).enumerate() {
            if before != resort {
                out.push(Action::Report(Report::NewConnections { check, resort }));
            }
        }
        if self.masks != Some(masks) {
            self.masks = Some(masks);
            out.push(Action::SetMasks(masks));
        }
    }

    /// Whether this node may be drained as far as connections are concerned.
    ///
    /// # Errors
    /// Nobody as good would be left for new ones, and why it is none of the others.
    pub(crate) fn may_drain(
        &self,
        members: &Membership,
        liveness: &Liveness,
    ) -> Result<(), LastUsable> {
        for check in 0..self.health.checks() {
            let before = self.facts(check, By::Steering, members, liveness);
            let mut after = before;
            after.draining = before.draining.with(members.own(), true);
            if choose(&after).1 > choose(&before).1 {
                let others = members.others();
                return Err(LastUsable {
                    check,
                    others: others.map(|index| (index, unfit(index, &before))).collect(),
                });
            }
        }
        Ok(())
    }

    /// The masks, and for each check where new connections go.
    fn choose(&self, members: &Membership, liveness: &Liveness) -> (Masks, [Resort; MAX_CHECKS]) {
        let mut masks = Masks {
            alive: self.lives_and_is_silent(By::Steering, members, liveness).0,
            draining: self.draining,
            ..Masks::default()
        };
        if members.is_joining() {
            masks.no_forward = BackendMask::ALL;
        }
        let mut resorts = [Resort::default(); MAX_CHECKS];
        for check in 0..self.health.checks() {
            let steered = self.facts(check, By::Steering, members, liveness);
            (masks.new_connections[check], resorts[check]) = choose(&steered);
            let connected = self.facts(check, By::Connecting, members, liveness);
            (masks.connect[check], _) = choose(&connected);
        }
        (masks, resorts)
    }

    /// What is known of all nodes, for a check.
    fn facts(&self, check: usize, by: By, members: &Membership, liveness: &Liveness) -> Facts {
        let (alive, silent) = self.lives_and_is_silent(by, members, liveness);
        let mut unasked = self.health.all_unasked(check);
        // This node's own server least: it starts when the node does.
        let others = unasked.with(members.own(), false);
        if !others.and(alive).without(silent).is_empty() {
            unasked = others;
        }
        Facts {
            alive,
            silent,
            draining: self.draining,
            usable: self.health.all_usable(check),
            answering: self.health.all_answering(check),
            unasked,
        }
    }

    /// What probes say, and what the peers' silence adds to it. A node whose agent was never heard
    /// is steered nothing: its API server may be ready, but its stack does not have the VIP. That
    /// is nothing to local connections, which go to its own address.
    fn lives_and_is_silent(
        &self,
        by: By,
        members: &Membership,
        liveness: &Liveness,
    ) -> (BackendMask, BackendMask) {
        let mut alive = self.health.all_alive();
        let mut silent = BackendMask::EMPTY;
        for index in members.others() {
            let Some(sign) = liveness.sign(index, alive.contains(index)) else {
                continue;
            };
            let reached = by == By::Connecting || members.was_heard(index);
            alive = alive.with(index, reached && sign.lives);
            silent = silent.with(index, !reached || sign.is_silent);
        }
        (alive, silent)
    }
}

/// Why a node would not get the new connections.
fn unfit(node: BackendIndex, facts: &Facts) -> Unfit {
    if !facts.alive.contains(node) {
        Unfit::Dead
    } else if facts.draining.contains(node) {
        Unfit::Draining
    } else if facts.silent.contains(node) {
        Unfit::Silent
    } else {
        Unfit::Unready
    }
}
