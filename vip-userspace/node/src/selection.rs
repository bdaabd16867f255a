//! Which nodes get connections. Probes of servers, drained nodes and the nodes' liveness are
//! combined into the masks that the programs read.

use vip_common::abi::{BackendIndex, BackendMask, CheckIndex, MAX_CHECKS, Masks};
use vip_common::wire::time::BootNanos;

use crate::action::{Action, LastUsable, Report, Unfit, UnfitNode};
use crate::choice::{Facts, Resort, choose};
use crate::health::{Hang, Health, Origin, Probe, Server, Thresholds, Transition};
use crate::input::Params;
use crate::liveness::{Liveness, Standing};
use crate::membership::Membership;

/// The way by which a connection reaches a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// Frames for the VIP are forwarded to it.
    Steering,
    /// A `connect` on this node is redirected to the other node's own address.
    Connecting,
}

/// The nodes to which connections can get, by their own liveness.
#[derive(Clone, Copy)]
struct Living {
    alive: BackendMask,
    /// Those of them, and others, whose agents are not heard.
    silent: BackendMask,
}

/// Health of servers, drained nodes, and the masks made of them.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    health: Health,
    /// Nodes that drain. While a node's BFD session is up, its packets tell; otherwise its last hello,
    /// or BFD packet, whichever came later.
    draining: BackendMask,
    /// The masks that were written last; `None` before that.
    masks: Option<Masks>,
    /// By check: the resort that was reported last.
    resorts: [Resort; MAX_CHECKS],
}

impl Selection {
    /// No server was probed, and no node drains.
    pub(crate) fn new(params: &Params) -> Self {
        Self {
            health: Health::new(params.nodes.mask(), params.checks, params.thresholds),
            draining: BackendMask::EMPTY,
            masks: None,
            resorts: [Resort::default(); MAX_CHECKS],
        }
    }

    /// A member has come.
    pub(crate) fn admit(&mut self, node: BackendIndex) {
        self.health.admit(node);
    }

    /// A member has left.
    pub(crate) fn remove(&mut self, node: BackendIndex) {
        self.health.remove(node);
        self.draining = self.draining.with(node, false);
    }

    /// Takes over what an earlier agent knew of a node that it found alive: whether it drains, or
    /// which of its servers got new connections.
    pub(crate) fn remember(&mut self, index: BackendIndex, known: &Masks, out: &mut Vec<Action>) {
        if known.draining.contains(index) {
            self.set_draining(index, true, out);
            return;
        }
        for check in self.health.checks() {
            let usable = known.new_connections[check.get()].contains(index);
            self.health.remember(index, check, usable);
        }
    }

    /// Other checks, or other thresholds. A resort that was reported of a check is that of its
    /// origin.
    pub(crate) fn change_checks(&mut self, origins: &[Origin], thresholds: Thresholds) {
        self.health.change_checks(origins, thresholds);
        let before = self.resorts;
        self.resorts = [Resort::default(); MAX_CHECKS];
        for (resort, origin) in self.resorts.iter_mut().zip(origins) {
            if let Origin::Same(index) | Origin::Like(index) = origin {
                *resort = before[index.get()];
            }
        }
    }

    /// A probe ended. Returns the transitions that follow.
    pub(crate) fn on_probe(
        &mut self,
        node: BackendIndex,
        check: CheckIndex,
        found: Probe,
    ) -> Vec<Transition> {
        self.health.on_probe(node, check, found)
    }

    /// A server was found to hang without a probe, or not to any more. Returns the transition that
    /// follows.
    pub(crate) fn set_hang(
        &mut self,
        now: BootNanos,
        node: BackendIndex,
        check: CheckIndex,
        hang: Option<Hang>,
    ) -> Option<Transition> {
        self.health.set_hang(now, node, check, hang)
    }

    /// Why a server counts as one that hangs; `None` if it does not.
    pub(crate) fn hang(&self, node: BackendIndex, check: CheckIndex) -> Option<Hang> {
        self.health.hang(node, check)
    }

    /// A node begins or ends to drain.
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

    /// Whether a node drains.
    pub(crate) const fn is_draining(&self, node: BackendIndex) -> bool {
        self.draining.contains(node)
    }

    /// Whether a node is as good an owner of the VIP as any: it does not drain, and probes find its
    /// server usable. A server that was not asked yet counts as usable. A hang found without probes
    /// does not count: it keeps new connections away at once, and may be over soon.
    pub(crate) fn is_usable(&self, node: BackendIndex) -> bool {
        let unasked = self.health.all_unasked(CheckIndex::API).contains(node);
        (unasked || self.health.serves(node, CheckIndex::API)) && !self.draining.contains(node)
    }

    /// Whether a node shows that it is not fit to own the VIP: it drains, or its server answers that
    /// it is not ready. A server that is only silent may be ready, and this node not reached.
    pub(crate) fn is_unfit(&self, node: BackendIndex) -> bool {
        self.is_draining(node) || self.health.unready(node, CheckIndex::API)
    }

    /// Whether probes show that a node lives.
    pub(crate) fn is_alive(&self, node: BackendIndex) -> bool {
        self.health.alive(node)
    }

    /// State of a node's server, by one of the checks.
    pub(crate) fn server(&self, node: BackendIndex, check: CheckIndex) -> Server {
        self.health.server(node, check)
    }

    /// The kind of nodes that get new connections, by one of the checks.
    pub(crate) fn resort(&self, check: CheckIndex) -> Resort {
        self.resorts.get(check.get()).copied().unwrap_or_default()
    }

    /// The masks for the programs.
    pub(crate) fn masks(&self, members: &Membership, liveness: &Liveness) -> Masks {
        self.masks
            .unwrap_or_else(|| self.choose(members, liveness).0)
    }

    /// Updates masks and resorts after an input, and reports changes.
    pub(crate) fn settle(
        &mut self,
        members: &Membership,
        liveness: &Liveness,
        out: &mut Vec<Action>,
    ) {
        let (masks, resorts) = self.choose(members, liveness);
        let before = std::mem::replace(&mut self.resorts, resorts);
        for check in self.health.checks() {
            let resort = resorts[check.get()];
            if before[check.get()] != resort {
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
    /// New connections would have to go to a worse kind of nodes; why no other node is as good.
    pub(crate) fn may_drain(
        &self,
        members: &Membership,
        liveness: &Liveness,
    ) -> Result<(), LastUsable> {
        for check in self.health.checks() {
            let before = self.facts(check, By::Steering, members, liveness);
            let mut after = before;
            after.draining = before.draining.with(members.own(), true);
            if choose(&after).resort > choose(&before).resort {
                let unfit = |node| UnfitNode {
                    node,
                    why: unfit(node, &before),
                };
                let others = members.others().map(unfit).collect();
                return Err(LastUsable { check, others });
            }
        }
        Ok(())
    }

    /// The masks, and the resort of each check.
    fn choose(&self, members: &Membership, liveness: &Liveness) -> (Masks, [Resort; MAX_CHECKS]) {
        let living = self.living(By::Steering, members, liveness);
        let mut masks = Masks {
            alive: living.alive.without(living.silent),
            suspect: living.alive.and(living.silent),
            not_gone: liveness.not_gone().with(members.own(), true),
            draining: self.draining,
            ..Masks::default()
        };
        if members.is_joining() || liveness.is_isolated() {
            masks.no_forward = BackendMask::ALL;
        }
        let mut resorts = [Resort::default(); MAX_CHECKS];
        for check in self.health.checks() {
            let facts = self.facts(check, By::Steering, members, liveness);
            let steered = choose(&facts);
            masks.new_connections[check.get()] = steered.nodes;
            resorts[check.get()] = steered.resort;
            let facts = self.facts(check, By::Connecting, members, liveness);
            masks.connect[check.get()] = choose(&facts).nodes;
        }
        (masks, resorts)
    }

    /// The facts about all nodes, for a check.
    fn facts(&self, check: CheckIndex, by: By, members: &Membership, liveness: &Liveness) -> Facts {
        let Living { alive, silent } = self.living(by, members, liveness);
        // A connection to a member that others do not know could be lost.
        let alive = alive.and(members.confirmed());
        let mut unasked = self.health.all_unasked(check);
        // Not this node's own server if there is another one: it starts with the node.
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

    /// Combines probes and liveness. No frames are steered to a node whose agent was not heard: its
    /// API server may be ready, but its stack may not have the VIP. Local connections go to
    /// the node's own address, so they do not need the VIP there.
    fn living(&self, by: By, members: &Membership, liveness: &Liveness) -> Living {
        let mut alive = self.health.all_alive();
        let mut silent = BackendMask::EMPTY;
        let complete = members.complete();
        for index in members.others() {
            let Some(standing) = liveness.standing(index) else {
                continue;
            };
            let standing = match standing {
                // It was away, and may not know members that have come meanwhile.
                Standing::Alive | Standing::Suspect if !complete.contains(index) => {
                    Standing::Away { silent: false }
                }
                _ => standing,
            };
            let lives = match (by, standing) {
                (_, Standing::Away { silent: true } | Standing::Gone)
                | (By::Steering, Standing::Away { .. }) => false,
                (By::Steering, Standing::Alive | Standing::Suspect) => true,
                (By::Connecting, _) => alive.contains(index),
            };
            let is_silent = match by {
                By::Steering => standing != Standing::Alive,
                By::Connecting => standing == Standing::Suspect,
            };
            alive = alive.with(index, lives);
            silent = silent.with(index, is_silent);
        }
        Living { alive, silent }
    }
}

/// Why a node does not get new connections.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Segment, at, index, params};

    fn set(nodes: &[usize]) -> BackendMask {
        let add = |set: BackendMask, node: &usize| set.with(index(*node), true);
        nodes.iter().fold(BackendMask::EMPTY, add)
    }

    /// The selection of the first of three nodes, which hears the others.
    struct Bench {
        segment: Segment,
        selection: Selection,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                segment: Segment::up(3),
                selection: Selection::new(&params(0, true)),
            }
        }

        /// All servers are ready.
        fn ready() -> Self {
            let mut bench = Self::new();
            for node in 0..3 {
                bench.probe(node, Probe::Ready);
            }
            bench
        }

        fn probe(&mut self, node: usize, found: Probe) {
            self.selection.on_probe(index(node), CheckIndex::API, found);
        }

        fn drain(&mut self, node: usize) {
            let draining = true;
            let mut out = Vec::new();
            self.selection.set_draining(index(node), draining, &mut out);
            let node = index(node);
            let report = Report::Draining { node, draining };
            assert_eq!(out, [Action::Report(report)]);
        }

        fn settle(&mut self) -> Vec<Action> {
            let mut out = Vec::new();
            let own = &self.segment.ends[0];
            self.selection.settle(&own.members, &own.liveness, &mut out);
            out
        }

        fn masks(&mut self) -> Masks {
            self.settle();
            let own = &self.segment.ends[0];
            self.selection.masks(&own.members, &own.liveness)
        }

        fn may_drain(&self) -> Result<(), LastUsable> {
            let own = &self.segment.ends[0];
            self.selection.may_drain(&own.members, &own.liveness)
        }
    }

    #[test]
    fn masks_are_written_when_they_change_and_only_then() {
        let mut bench = Bench::ready();
        let [Action::SetMasks(masks)] = bench.settle()[..] else {
            panic!("the masks alone");
        };
        assert_eq!(masks.new_connections[0], set(&[0, 1, 2]));
        assert_eq!(bench.settle(), []);
        bench.probe(2, Probe::Refused);
        let [Action::SetMasks(masks)] = bench.settle()[..] else {
            panic!("the masks alone");
        };
        assert_eq!(masks.new_connections[0], set(&[0, 1]));
        assert_eq!(masks.alive, set(&[0, 1, 2]));
    }

    #[test]
    fn resort_is_reported_when_it_changes() {
        let mut bench = Bench::ready();
        bench.settle();
        for node in 0..3 {
            bench.probe(node, Probe::NotReady(String::new()));
        }
        let (check, resort) = (CheckIndex::API, Resort::Answering);
        let report = Action::Report(Report::NewConnections { check, resort });
        assert!(bench.settle().contains(&report));
        assert_eq!(bench.selection.resort(CheckIndex::API), Resort::Answering);
        assert_eq!(bench.settle(), []);
    }

    #[test]
    fn node_whose_agent_was_never_heard_is_connected_to_and_steered_nothing() {
        let mut bench = Bench::ready();
        bench.segment = Segment::new(3);
        let masks = bench.masks();
        assert_eq!(
            (masks.alive, masks.new_connections[0]),
            (set(&[0]), set(&[0]))
        );
        assert_eq!(masks.connect[0], set(&[0, 1, 2]));
    }

    #[test]
    fn silent_node_gets_no_new_connections_and_keeps_its_open_ones() {
        let mut bench = Bench::ready();
        bench.segment.kill(2);
        bench.segment.run(160);
        let masks = bench.masks();
        assert_eq!(masks.new_connections[0], set(&[0, 1]));
        assert_eq!((masks.alive, masks.suspect), (set(&[0, 1]), set(&[2])));
        bench.segment.run(200);
        let masks = bench.masks();
        assert_eq!(
            (masks.living(), masks.not_gone),
            (set(&[0, 1]), set(&[0, 1, 2]))
        );
        bench.segment.run(2000);
        assert_eq!(bench.masks().not_gone, set(&[0, 1]));
    }

    #[test]
    fn own_server_counts_least_before_any_server_was_asked() {
        let mut bench = Bench::new();
        assert_eq!(bench.masks().new_connections[0], set(&[1, 2]));
        assert!(
            bench.selection.is_usable(index(0)),
            "nothing speaks against it"
        );
    }

    #[test]
    fn node_that_joins_forwards_nothing() {
        let mut bench = Bench::ready();
        bench.segment.ends[0]
            .members
            .on_start(at(0), BackendMask::EMPTY);
        assert_eq!(bench.masks().no_forward, BackendMask::ALL);
        let members = &mut bench.segment.ends[0].members;
        members.settle(at(500), BackendMask::ALL, |_| false, &mut Vec::new());
        assert_eq!(bench.masks().no_forward, BackendMask::EMPTY);
    }

    #[test]
    fn earlier_agents_findings_hold_until_the_first_probe() {
        let mut bench = Bench::new();
        let mut known = Masks {
            draining: set(&[1]),
            ..Masks::default()
        };
        known.new_connections[0] = set(&[0]);
        for node in 0..3 {
            bench
                .selection
                .remember(index(node), &known, &mut Vec::new());
        }
        let masks = bench.masks();
        assert_eq!(
            (masks.new_connections[0], masks.draining),
            (set(&[0]), set(&[1]))
        );
        bench.probe(2, Probe::Ready);
        assert_eq!(bench.masks().new_connections[0], set(&[0, 2]));
    }

    #[test]
    fn last_usable_node_is_named_with_the_reason_for_each_other_one() {
        let mut bench = Bench::ready();
        assert_eq!(bench.may_drain(), Ok(()));
        bench.drain(1);
        bench.probe(2, Probe::NotReady(String::new()));
        let others = |first, second| {
            let unfit = |(node, why)| UnfitNode {
                node: index(node),
                why,
            };
            [(1, first), (2, second)].map(unfit).to_vec()
        };
        let last = |others| {
            Err(LastUsable {
                check: CheckIndex::API,
                others,
            })
        };
        let why = others(Unfit::Draining, Unfit::Unready);
        assert_eq!(bench.may_drain(), last(why));
        bench.segment.kill(2);
        bench.segment.run(160);
        let why = others(Unfit::Draining, Unfit::Silent);
        assert_eq!(bench.may_drain(), last(why));
        bench.segment.run(200);
        let why = others(Unfit::Draining, Unfit::Dead);
        assert_eq!(bench.may_drain(), last(why));
        bench.drain(0);
        assert_eq!(bench.may_drain(), Ok(()), "it drains already");
    }
}
