//! The whole control plane loses its power, and all machines boot at once. Nobody tells them who
//! the owner is, and none is ready yet when the first claims are made.

use anyhow::Result;

use crate::cluster::Cluster;
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::scenarios::steps::promise_one_answer;
use crate::traffic::{ArpMonitor, Traffic};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "cold_start",
    promise: "cold_start_of_all_machines_at_once_ends_with_one_owner",
    tests: &[Test::shared_machines(When::Always)],
    run,
};

pub(in crate::scenarios) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("cold_start");
    let nodes = cluster.nodes();
    for &node in &nodes {
        cluster.power_off(node)?;
    }
    timeline.event("all nodes have lost their power");
    let mut arp = ArpMonitor::start(cluster, 50)?;
    arp.wait("questions without an answer", |seen| seen.questions > 20)?;
    let silent = arp.report()?;
    outcome.promise(silent.answerers.is_empty(), || {
        format!("somebody answers while all are off: {:?}", silent.answerers)
    });
    cluster.power_on(&nodes)?;
    cluster.wait_until_settled()?;
    let owner = cluster.owner()?;
    timeline.event(format!(
        "all have booted, {} owns the VIP",
        cluster.name(owner)
    ));
    let mut traffic = Traffic::start(cluster, timeline)?;
    traffic.load.go_on(50)?;
    traffic.finish(&mut outcome, None)?;
    let seen = arp.report()?;
    outcome.promise(!seen.answerers.is_empty(), || {
        "nobody has answered".to_owned()
    });
    promise_one_answer(&mut outcome, &seen);
    Ok(outcome)
}
