//! A cluster without a list: it grows from one node to five, each of which nobody knew before.

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::traffic::Traffic;

pub(super) const GROWS: Scenario = Scenario {
    name: "members_grow",
    promise: "cluster_without_a_list_grows_from_one_node_to_five",
    tests: &[Test::netns(one)],
    run: grow,
};

fn one() -> Plan {
    Plan::found_by(1, 5, "")
}

fn grow(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("members_grow");
    let mut traffic = Traffic::start(cluster, timeline)?;
    for node in 1..5 {
        cluster.arrive(node)?;
        cluster.wait_until_settled()?;
        traffic.load.go_on(100)?;
        timeline.event(format!("{} has joined", cluster.name(node)));
    }
    let requests = traffic.finish(&mut outcome, None)?;
    for node in cluster.nodes() {
        let name = cluster.name(node);
        let served = requests
            .iter()
            .any(|request| request.server.as_ref() == Some(&name));
        outcome.promise(served, || format!("{name} has served no request"));
    }
    Ok(outcome)
}
