//! `kill -9` of the owner's agent, and a restart some seconds later. Programs and maps are
//! pinned, so the node steers on; the VIP moves to another node, and nobody notices.

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::traffic::Traffic;

use super::steps::logged;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "agent_killed",
    promise: "agent_killed_and_restarted_fails_no_request",
    tests: &[
        Test::netns(Plan::default),
        Test::shared_machines(When::Asked),
    ],
    run,
};

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(SCENARIO.name);
    let owner = cluster.owner()?;
    let name = cluster.name(owner);
    let mut traffic = Traffic::start(cluster, timeline)?;
    cluster.kill_agent(owner);
    timeline.event(format!("kill -9 of the agent on {name}, the owner"));
    let successor = cluster.owner()?;
    timeline.event(format!("{} owns the VIP", cluster.name(successor)));
    traffic.load.go_on(300)?;

    cluster.start_agent(owner)?;
    cluster.wait_until_settled()?;
    let successor = cluster.owner()?;
    timeline.event(format!(
        "the agent on {name} is back, {} owns the VIP",
        cluster.name(successor)
    ));
    traffic.load.go_on(300)?;
    traffic.finish(&mut outcome, None)?;
    let repaired = logged(cluster, "was not the agent's");
    outcome.promise(repaired == 0, || {
        "what an agent left was taken for somebody else's doing".to_owned()
    });
    timeline.event(format!(
        "{} of {} requests failed, {} watches cut, longest gap {} ms",
        outcome.failed, outcome.requests, outcome.watches_cut_living, outcome.gap_ms
    ));
    Ok(outcome)
}
