//! Whether the cluster is as it should be, as one node sees it.

use vip_node::choice::Resort;

use super::{Node, Status};
use crate::words::counted;

impl Status {
    /// What is not as it should be, the worst first: a few words each. Empty: the cluster is healthy.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.owner.is_none() {
            problems.push("nobody owns the VIP".to_owned());
        }
        problems.extend(
            self.claim
                .iter()
                .map(|_| "another host claims the VIP".to_owned()),
        );
        let services = self.services.iter();
        let without = services.filter(|service| service.usable.is_empty());
        problems.extend(without.map(|service| format!("no server takes {}", service.endpoint)));
        problems.extend(self.nodes.iter().filter_map(|node| self.problem(node)));
        let own = self.faults.iter();
        problems.extend(own.map(|fault| format!("{}: {fault}", self.node)));
        let alarms = self.alarms.iter();
        problems.extend(alarms.map(|alarm| format!("{}: {}", alarm.about, alarm.alarm.brief())));
        let resorts = self
            .services
            .iter()
            .filter(|service| service.resort != Resort::Usable && !service.usable.is_empty());
        problems.extend(
            resorts.map(|service| format!("{}: no server is known to be ready", service.endpoint)),
        );
        problems
    }

    /// What is wrong with a node, the worst alone.
    fn problem(&self, node: &Node) -> Option<String> {
        let name = &node.name;
        // Faults of the node that was asked are listed all.
        let told = node.told.as_ref().filter(|_| !node.own);
        if node.gone {
            Some(format!("{name} is gone"))
        } else if !node.alive {
            Some(format!("{name} does not answer"))
        } else if !node.confirmed {
            Some(format!("{name} is not known to all members yet"))
        } else if node.draining {
            Some(format!("{name} is drained"))
        } else if node.unknown {
            Some(format!(
                "it is not known whether the server of {name} is ready"
            ))
        } else if !node.ready {
            Some(format!("the server of {name} is not ready"))
        } else if let Some(fault) = told.and_then(|told| told.faults.first()) {
            Some(format!("{name}: {}", fault.text()))
        } else {
            let owner = self.owner.as_ref().map(|owner| owner.address);
            let other = told.and_then(|told| told.owner);
            let differ = other.is_some() && owner.is_some() && other != owner;
            differ.then(|| format!("{name} believes in another owner of the VIP"))
        }
    }

    /// The verdict in one line: `healthy: ...` or `degraded: ...`.
    #[must_use]
    pub fn verdict(&self) -> String {
        let problems = self.problems();
        if problems.is_empty() {
            let owner = self.owner.as_ref().map_or("nobody", |owner| &owner.name);
            let nodes = counted(self.nodes.len(), "node serves", "nodes serve");
            return format!("healthy: {nodes}, {owner} owns the VIP");
        }
        format!("degraded: {}", problems.join("; "))
    }
}
