//! Only the nodes' segment may use the API: a client behind the router may not, and each drop is
//! counted. While its network was on the list, its connections were opened; they go on.

use anyhow::Result;

use crate::clock::boot_now;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test, When};
use crate::traffic::{Traffic, Watches, vip, vip6};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "allow_list",
    promise: "allow_list_keeps_out_who_is_not_on_it",
    tests: &[Test::netns(listed).on_kernels(When::Asked)],
    run,
};

/// The nodes' segment.
const LISTED: &str = "\"10.0.0.0/24\", \"fd00::/64\"";

/// The segment behind the router, which the list loses.
const REMOTE: &str = ", \"10.1.0.0/24\", \"fd00:0:0:1::/64\"";

fn listed() -> Plan {
    Plan {
        top: format!("allow = [{LISTED}{REMOTE}]"),
        ..Plan::dual_stack()
    }
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("allow_list");
    let mut traffic = Traffic::start(cluster, timeline)?;
    let remote = cluster.topology.remote.as_ref();
    let mut held = Vec::new();
    for target in [vip(), vip6()] {
        held.push(Watches::open(cluster, remote, &target, 10)?);
    }
    let config = cluster.config()?.replace(REMOTE, "");
    for node in cluster.nodes() {
        cluster.stop_agent(node)?;
        cluster.start_agent_with(node, &config)?;
        cluster.wait_until_settled()?;
    }
    timeline.event("the list has lost the segment behind the router");
    for (mut watches, before) in held {
        let after = watches.wait_for_verdict(boot_now(), None)?;
        outcome.take_watches(&before, &after, None);
    }
    let remote = cluster.topology.remote.as_ref();
    for target in [vip(), vip6()] {
        let mut reach = remote.command("timeout".as_ref());
        reach
            .args(["3"])
            .arg(&cluster.programs().testbed)
            .args(["reach", &target]);
        outcome.promise(output(&mut reach).is_err(), || {
            format!("a client that is on no list reaches {target}")
        });
    }
    let mut dropped = 0;
    for node in cluster.nodes() {
        dropped += cluster.status(node)?.count("not_allowed");
    }
    // A SYN and those sent again, of two families.
    outcome.promise(dropped >= 4, || format!("{dropped} drops were counted"));
    timeline.event(format!("{dropped} segments from the router were dropped"));
    traffic.load.go_on(100)?;
    traffic.finish(&mut outcome, None)?;
    Ok(outcome)
}
