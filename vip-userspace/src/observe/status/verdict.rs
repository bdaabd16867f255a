//! Whether the cluster is as it should be, as one node sees it, and what is wrong.

use std::collections::BTreeMap;

use vip_node::Fault;
use vip_node::alarm::Kind;
use vip_node::choice::Resort;

use super::{Alarm, Health, Node, NodeState, Problem, Status};
use crate::observe::event::{self, Severity};
use crate::words::counted;

/// How long members may tell of the owner before, once there is a new one, in milliseconds: several
/// hellos.
const SETTLED: u64 = 5_000;

/// Problems that the one-line verdict names; it counts the others.
const NAMED: usize = 3;

impl Status {
    /// What is not as it should be, the worst first. Empty: the cluster is healthy.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        // All else that this node finds wrong may follow from it.
        if self.is_cut_off() {
            let text = format!(
                "{} is cut off: no carrier on {}",
                self.node, self.xdp.interface
            );
            let remedy = "see the NIC's cable and switch port; `vip status` on another node tells how the \
                          cluster is";
            problems.push(
                Problem::error("cut_off", text)
                    .at(&self.node)
                    .remedy(remedy),
            );
        }
        if self.owner.is_none() {
            let text = match &self.hears_nobody {
                Some(why) => format!("nobody owns the VIP: {why}"),
                None => "nobody owns the VIP".to_owned(),
            };
            problems.push(Problem::error("no_owner", text).remedy(
                "run `vip status` on the other nodes; a node that could own it says below why it does \
                 not",
            ));
        }
        if let Some(membership) = self.membership.as_ref().filter(|one| one.mute)
            && !self.is_cut_off()
        {
            let text = format!(
                "the kernel of {} refuses to send hellos: other agents know it by what it said before, \
                 or not at all",
                self.node
            );
            let remedy = format!("let UDP {} out in that node's firewall", membership.port);
            problems.push(Problem::error("mute", text).at(&self.node).remedy(remedy));
        }
        if let Some(claim) = &self.claim {
            problems.push(if self.claimant_unheard {
                Problem::error("claim_unheard", claim.clone()).remedy(
                    "let UDP 3784 and IP protocol 112 through between the two; if no agent runs \
                         there, start it, or run `vip cleanup`",
                )
            } else {
                Problem::error("conflict", claim.clone())
                    .remedy("take the VIP off that host, or off its keepalived or kube-vip")
            });
        }
        self.services_problems(&mut problems);
        problems.extend(
            self.nodes
                .iter()
                .filter_map(|node| self.state_problem(node)),
        );
        problems.extend(self.fault_problems());
        problems.extend(self.alarm_problems());
        problems.extend(self.differences());
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        problems
    }

    fn services_problems(&self, problems: &mut Vec<Problem>) {
        for service in &self.services {
            let endpoint = service.endpoint;
            if service.usable.is_empty() {
                problems.push(
                    Problem::error("no_server", format!("no server takes {endpoint}"))
                        .remedy("see the servers of the nodes below"),
                );
            } else if service.resort != Resort::Usable {
                let text = format!("{endpoint}: {}", service.resort.text());
                problems.push(
                    Problem::error("no_server_ready", text)
                        .remedy("see the servers of the nodes below"),
                );
            }
        }
    }

    /// The alarms that say why another node's agent is not heard: they are the reason of its state.
    fn explains(&self, node: &Node) -> Option<&Alarm> {
        let unheard = matches!(
            node.state(),
            NodeState::NoAgent | NodeState::Down | NodeState::Suspect
        );
        let mut alarms = self.alarms.iter().filter(|_| unheard);
        alarms.find(|alarm| {
            let kinds = matches!(
                alarm.alarm,
                Kind::NoAgent | Kind::Unheard | Kind::OffLink | Kind::Refused
            );
            kinds && alarm.about == node.name
        })
    }

    /// Why a node is in its state, in full.
    #[must_use]
    pub fn reason(&self, node: &Node) -> String {
        let alarm = self.explains(node);
        alarm.map_or_else(|| node.reason(), |alarm| alarm.text.clone())
    }

    /// Whether servers serve, and none says that it is ready: they want credentials, or the check does not
    /// ask. That is how the cluster is set up, and no trouble.
    pub(super) fn asks_in_vain(&self) -> bool {
        let is = |wanted| self.nodes.iter().any(|node| node.state() == wanted);
        is(NodeState::Unknown) && !is(NodeState::Ready)
    }

    fn state_problem(&self, node: &Node) -> Option<Problem> {
        let state = node.state();
        if state == NodeState::Ready || state == NodeState::Unknown && self.asks_in_vain() {
            return None;
        }
        let name = &node.name;
        let (text, remedy) = match (self.explains(node), state) {
            (Some(alarm), _) => (format!("{name}: {}: {}", state.text(), alarm.text), ""),
            (None, NodeState::Drained) => (format!("{name} is drained"), state.remedy()),
            (None, _) => {
                let text = format!("{name}: {}: {}", state.text(), node.cause());
                (text, state.remedy())
            }
        };
        let severity = state.severity();
        let problem = Problem::error(code(state), text).at(name).remedy(remedy);
        Some(Problem {
            severity,
            ..problem
        })
    }

    /// Whether the NIC of the node that was asked has no carrier.
    fn is_cut_off(&self) -> bool {
        self.fault_codes.contains(&Fault::Carrier)
    }

    /// What keeps nodes from owning the VIP, as they tell.
    fn fault_problems(&self) -> impl Iterator<Item = Problem> {
        // That this node is cut off is said before all else.
        let own = self.fault_codes.iter();
        let own = own.filter(|fault| **fault != Fault::Carrier);
        let own = own.map(|fault| (&self.node, *fault));
        let others = self.nodes.iter().filter(|node| !node.own);
        let others = others.filter(|node| node.state().severity() < Severity::Error);
        let others = others.flat_map(|node| {
            let told = node.told.iter();
            told.flat_map(|told| told.faults.iter().map(|fault| (&node.name, *fault)))
        });
        own.chain(others).filter_map(|(name, fault)| {
            let is_joining = |node: &&Node| node.name == *name && !node.confirmed;
            // Its state says so.
            if fault == Fault::Unconfirmed && self.nodes.iter().any(|node| is_joining(&node)) {
                return None;
            }
            let text = format!("{name} cannot own the VIP: {}", fault.text());
            Some(
                Problem::warning("fault", text)
                    .at(name)
                    .remedy(remedy(fault)),
            )
        })
    }

    fn alarm_problems(&self) -> impl Iterator<Item = Problem> {
        let told = |alarm: &Alarm| {
            let mut nodes = self.nodes.iter();
            nodes.any(|node| self.explains(node) == Some(alarm))
        };
        let alarms = self.alarms.iter().filter(move |alarm| !told(alarm));
        alarms.map(|alarm| {
            let severity = event::severity(alarm.alarm);
            let problem = Problem::error(alarm.alarm.name(), alarm.text.clone()).at(&alarm.about);
            Problem {
                severity,
                ..problem
            }
        })
    }

    /// Where the members tell different things.
    fn differences(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let owner = self.owner.as_ref().map(|owner| owner.address);
        let living = || {
            let nodes = self.nodes.iter();
            let nodes = nodes.filter(|node| node.state().severity() < Severity::Error);
            nodes.filter_map(|node| Some((node, node.told.as_ref()?)))
        };
        let sees = |(node, told): &(&Node, &super::Told)| told.conflict && !node.own;
        if let Some((node, _)) = living().find(sees)
            && self.claim.is_none()
        {
            let text = format!("another host claims the VIP, as {} sees", node.name);
            let remedy = "`vip status` there names the host";
            problems.push(
                Problem::error("conflict", text)
                    .at(&node.name)
                    .remedy(remedy),
            );
        }
        for (node, told) in living() {
            if let (Some(owner), Some(other)) = (owner, told.owner)
                && owner != other
                && self.owner_since.for_ms >= SETTLED
            {
                let name = &node.name;
                let other = match self.name_of(other) {
                    other if other == *name => "itself".to_owned(),
                    other => other,
                };
                let text = format!("{name} takes {other} for the owner of the VIP");
                let remedy =
                    "if it lasts: two nodes do not hear each other, see `vip check` on both";
                problems.push(
                    Problem::warning("other_owner", text)
                        .at(name)
                        .remedy(remedy),
                );
            }
        }
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (node, told) in living() {
            if let Some(version) = &told.version {
                versions.entry(version).or_default().push(&node.name);
            }
        }
        if versions.len() > 1 {
            let versions = versions.iter();
            let each =
                versions.map(|(version, nodes)| format!("{version} on {}", nodes.join(", ")));
            let text = format!(
                "agents of several versions: {}",
                each.collect::<Vec<_>>().join("; ")
            );
            problems.push(Problem::warning("versions", text).remedy("end the upgrade"));
        }
        problems
    }

    /// A node's name, or its address if there is none.
    #[must_use]
    pub fn name_of(&self, address: std::net::IpAddr) -> String {
        let node = self.nodes.iter().find(|node| node.address == address);
        node.map_or_else(|| address.to_string(), |node| node.name.clone())
    }

    /// The verdict in one word.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health_with(&self.problems())
    }

    fn health_with(&self, problems: &[Problem]) -> Health {
        // The first service is the API.
        let api = self.services.first();
        let none = api.is_some_and(|api| api.usable.is_empty() || api.resort == Resort::Living);
        if self.owner.is_none() || none {
            Health::Down
        } else if problems.is_empty() {
            Health::Healthy
        } else {
            Health::Degraded
        }
    }

    /// The verdict in one line: `healthy: ...`, `degraded: ...` or `down: ...`.
    #[must_use]
    pub fn verdict(&self) -> String {
        let problems = self.problems();
        let word = self.health_with(&problems).word().to_lowercase();
        if problems.is_empty() {
            return format!("{word}: {}", self.all_is_well());
        }
        let named = problems.iter().take(NAMED);
        let named: Vec<&str> = named.map(|problem| problem.text.as_str()).collect();
        let more = problems.len() - named.len();
        let more = (more > 0).then(|| format!("; and {more} more"));
        format!("{word}: {}{}", named.join("; "), more.unwrap_or_default())
    }

    /// What is said of a cluster without problems.
    #[must_use]
    pub fn all_is_well(&self) -> String {
        let owner = self.owner.as_ref().map_or("nobody", |owner| &owner.name);
        let nodes = counted(self.nodes.len(), "node serves", "nodes serve");
        format!("{nodes}, {owner} owns the VIP")
    }
}

const fn code(state: NodeState) -> &'static str {
    match state {
        NodeState::Ready => "node_ready",
        NodeState::Unknown => "node_unknown",
        NodeState::Joining => "node_joining",
        NodeState::Drained => "node_drained",
        NodeState::NotReady => "node_not_ready",
        NodeState::Hung => "node_hung",
        NodeState::Suspect => "node_suspect",
        NodeState::NoAgent => "node_no_agent",
        NodeState::Down => "node_down",
        NodeState::Gone => "node_gone",
    }
}

/// What to do about a fault.
const fn remedy(fault: Fault) -> &'static str {
    match fault {
        Fault::Carrier => "see the NIC's cable and switch port",
        Fault::Programs | Fault::Vip => {
            "the agent puts that right; `vip events` there says what it lacks"
        }
        Fault::Address => "give the NIC its address again",
        Fault::BfdPort => "end the other program that has UDP port 3784",
        Fault::Ingress | Fault::Egress => {
            "`vip status -o wide` there says what is in the program's way"
        }
        Fault::Unconfirmed => {
            "if it lasts: see on the other nodes whether `vip status` lists this node"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::tests::{golden, healthy};
    use vip_node::PeerState;

    #[test]
    fn nothing_wrong_is_healthy() {
        let status = healthy();
        assert_eq!(status.problems(), []);
        assert_eq!(status.verdict(), "healthy: 3 nodes serve, cp1 owns the VIP");
    }

    #[test]
    fn servers_that_never_say_whether_they_are_ready_are_noted_and_are_no_problem() {
        let mut status = healthy();
        for node in &mut status.nodes {
            (node.ready, node.unknown) = (false, true);
        }
        assert_eq!(status.health(), Health::Healthy);
        let noted = |status: &Status| {
            let notes = status.notes();
            notes.iter().any(|note| note.contains("no server says"))
        };
        assert!(noted(&status));
        // Others say it: something is wrong with this one.
        status.nodes[0].ready = true;
        assert_eq!(status.problems()[0].code, "node_unknown");
        assert_eq!(status.health(), Health::Degraded);
        assert!(!noted(&status));
    }

    #[test]
    fn the_worst_stands_first_and_the_line_stays_short() {
        let mut status = healthy();
        status.nodes[1].draining = true;
        status.nodes[2].liveness = Some(PeerState::Gone);
        status.fault_codes = vec![Fault::Carrier, Fault::Address];
        let codes = |status: &Status| -> Vec<String> {
            let problems = status.problems();
            problems
                .iter()
                .map(|problem| problem.code.to_string())
                .collect()
        };
        assert_eq!(
            codes(&status),
            ["cut_off", "node_gone", "node_drained", "fault"]
        );
        assert_eq!(status.health(), Health::Degraded);
        assert!(
            status.verdict().ends_with("; and 1 more"),
            "{}",
            status.verdict()
        );
        status.owner = None;
        assert_eq!(codes(&status)[..2], ["cut_off", "no_owner"]);
        assert_eq!(status.health(), Health::Down);
    }

    #[test]
    fn no_server_that_answers_is_down_and_one_that_says_no_is_not() {
        let mut status = healthy();
        status.services[0].resort = Resort::Answering;
        assert_eq!(status.health(), Health::Degraded);
        status.services[0].resort = Resort::Living;
        assert_eq!(status.health(), Health::Down);
    }

    #[test]
    fn a_claim_is_told_once_and_by_what_is_to_be_done_about_it() {
        let codes = |status: &Status| {
            let problems = status.problems().into_iter();
            problems.map(|problem| problem.code).collect::<Vec<_>>()
        };
        let mut status = healthy();
        let told = status.nodes[1].told.as_mut().expect("it tells");
        told.conflict = true;
        assert_eq!(
            status.verdict(),
            "degraded: another host claims the VIP, as cp2 sees"
        );
        status.claim = Some("02:00:00:00:00:99 claims the VIP".to_owned());
        assert_eq!(codes(&status), ["conflict"]);
        status.claimant_unheard = true;
        assert_eq!(codes(&status), ["claim_unheard"]);
    }

    #[test]
    fn a_node_that_cannot_speak_says_so_unless_its_cable_is_the_reason() {
        let mut status = healthy();
        status.membership = golden().membership;
        status.membership.as_mut().expect("has one").mute = true;
        assert_eq!(status.problems()[0].code, "mute");
        status.fault_codes = vec![Fault::Carrier];
        let problems = status.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].code, "cut_off");
    }

    #[test]
    fn a_node_that_is_heard_is_not_down() {
        let mut status = healthy();
        (status.nodes[1].alive, status.nodes[1].confirmed) = (false, true);
        status.nodes[1].liveness = Some(PeerState::Up);
        assert_eq!(status.nodes[1].state(), NodeState::Joining);
    }

    #[test]
    fn differences_between_members_are_problems() {
        let mut status = healthy();
        let third = status.nodes[2].address;
        let told = status.nodes[1].told.as_mut().expect("it tells");
        told.version = Some("0.2.0".to_owned());
        told.owner = Some(third);
        let problems = status.problems();
        let texts: Vec<&str> = problems
            .iter()
            .map(|problem| problem.text.as_str())
            .collect();
        assert_eq!(
            texts,
            [
                "cp2 takes cp3 for the owner of the VIP",
                "agents of several versions: 0.1.0 on cp1, cp3; 0.2.0 on cp2"
            ]
        );
    }
}
