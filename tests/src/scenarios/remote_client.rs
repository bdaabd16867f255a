//! A client on another segment, behind a router: frames for the VIP come from the router's
//! Ethernet address, and answers go back through it, straight from each server.

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::traffic::{Load, Watches, vip};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "remote_client",
    promise: "remote_client_behind_a_router_reaches_all_servers",
    tests: &[Test::netns(Plan::default)],
    run,
};

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("remote_client");
    reach_all(cluster, &vip(), 400, &mut outcome, timeline)?;
    Ok(outcome)
}

/// The remote client makes so many requests to `ADDRESS:PORT`, while it holds watches open. All
/// succeed, and all servers have a part in it.
pub(super) fn reach_all(
    cluster: &Cluster,
    target: &str,
    requests: usize,
    outcome: &mut Outcome,
    timeline: &mut Timeline,
) -> Result<()> {
    let remote = cluster.topology.remote.as_ref();
    let (mut watches, before) = Watches::open(cluster, remote, target, 30)?;
    let mut load = Load::start(cluster, remote, target)?;
    load.go_on(requests)?;
    let after = watches.wait_for_verdict(crate::clock::boot_now(), None)?;
    let requests = load.stop()?;
    let summary = outcome.take_requests(&requests, None);
    outcome.take_watches(&before, &after, None);
    outcome.promise_nothing_lost(&summary);
    for node in cluster.nodes() {
        let name = cluster.name(node);
        let share = summary.servers.get(&name).copied().unwrap_or(0);
        outcome.promise(share > 0, || {
            format!("no request reached {name}: {:?}", summary.servers)
        });
    }
    timeline.event(format!(
        "{target}: answers by server: {:?}",
        summary.servers
    ));
    Ok(())
}
