//! One API server says that it is not ready: its watches go on, new connections go elsewhere.

use anyhow::Result;

use crate::clock::boot_now;
use crate::cluster::{Cluster, Plan};
use crate::kube::Layout;
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "readyz_says_no",
    promise: "readyz_says_no_keeps_watches_and_sends_new_connections_elsewhere",
    tests: &[
        Test::netns(Plan::default),
        Test::netns_if(|| Plan::kubernetes(Layout::Apart))
            .cluster("real_apiserver")
            .alone(),
        Test::shared_machines(When::Asked),
    ],
    run,
};

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(SCENARIO.name);
    let owner = cluster.owner()?;
    let drained = super::steps::another_than(cluster, owner);
    let name = cluster.name(drained);
    let mut traffic = Traffic::start(cluster, timeline)?;
    let held = traffic.before.on(&name).count();
    timeline.event(format!(
        "the API server on {name} drains; {held} watches are on it"
    ));
    cluster.drain_server(drained);
    cluster.wait_until_not_ready(drained)?;
    let known = boot_now();
    timeline.event("all agents know");
    traffic.load.go_on(400)?;

    let requests = traffic.finish(&mut outcome, None)?;
    let (mut before, mut after, mut stray) = (0, 0, 0);
    for request in requests.iter().filter(|request| !request.kept) {
        let there = request.server.as_ref() == Some(&name);
        if request.start > known {
            after += 1;
            stray += usize::from(there);
        } else {
            before += usize::from(there);
        }
    }
    outcome.promise(before > 0, || {
        format!("no request reached {name} even before it drained")
    });
    outcome.promise(after > 0 && stray == 0, || {
        format!("{stray} of {after} new connections went to {name}, which drains")
    });
    timeline.event(format!(
        "{stray} of {after} new connections went to {name}; {} of its watches were cut",
        outcome.watches_cut_living
    ));

    cluster.restore_server(drained)?;
    cluster.wait_until_settled()?;
    timeline.event(format!("{name} is ready again"));
    Ok(outcome)
}
