//! Ten upgrades under load: each agent in turn is ended and started again, as the kubelet does it
//! with a static pod whose image has changed. The programs are replaced on their links.

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "upgrade",
    promise: "upgrade_ten_times_fails_no_request_and_cuts_no_watch",
    tests: &[Test::netns(Plan::default)],
    run,
};

const UPGRADES: usize = 10;

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("upgrade");
    let mut traffic = Traffic::start(cluster, timeline)?;
    for upgrade in 0..UPGRADES {
        let nodes = cluster.nodes();
        let node = nodes[upgrade % nodes.len()];
        cluster.stop_agent(node)?;
        cluster.start_agent(node)?;
        cluster.wait_until_settled()?;
        traffic.load.go_on(50)?;
        let adopted = cluster.status(node)?.xdp.adopted;
        outcome.promise(adopted, || {
            format!("{} did not take the maps over", cluster.name(node))
        });
    }
    timeline.event(format!("{UPGRADES} upgrades"));
    traffic.finish(&mut outcome, None)?;
    Ok(outcome)
}
