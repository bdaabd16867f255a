//! Frames for the VIP that no kernel would send: counted, and nothing else comes of them.

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test, When};
use crate::topology::{PORT, VIP};
use crate::traffic::{Load, Traffic};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "stray_frames",
    promise: "stray_frames_are_counted_and_harm_nothing",
    tests: &[Test::netns(Plan::default).on_kernels(When::Asked)],
    run,
};

/// Counters that must have counted some of the frames, by their names in `vip status --json`.
const COUNTERS: [&str; 4] = ["malformed", "fragment", "undeclared_port", "other_protocol"];

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("stray_frames");
    let owner = cluster.owner()?;
    let mut traffic = Traffic::start(cluster, timeline)?;
    let before = cluster.status(owner)?;
    let mac = before
        .node(cluster.host(owner))
        .and_then(|entry| entry.mac.clone())
        .context("the owner does not know its own Ethernet address")?;

    let client = cluster.topology.client.as_ref();
    let testbed = cluster.programs().testbed.as_os_str();
    let sent = output(
        client
            .command(testbed)
            .args(["stray", "--vip", &VIP.to_string()])
            .args(["--port", &PORT.to_string(), "--mac", &mac])
            .args(["--own", &client.address().to_string()]),
    )?;
    timeline.event(format!("{} stray frames were sent", sent.trim()));

    let after = cluster.status(owner)?;
    for counter in COUNTERS {
        let moved = after.count(counter).saturating_sub(before.count(counter));
        outcome.promise(moved > 0, || {
            format!("the counter {counter} has not moved: nobody counted those frames")
        });
        timeline.event(format!("{counter}: {moved}"));
    }
    let dead = cluster.dead_agents();
    outcome.promise(dead.is_empty(), || format!("agents have ended on {dead:?}"));

    // Frames that are not for the VIP: node to node, and the VIP's own echo.
    let nodes = cluster.nodes();
    let (first, second) = (cluster.host(nodes[0]), cluster.host(nodes[1]));
    for (from, to) in [
        (first, second.address()),
        (second, first.address()),
        (cluster.topology.client.as_ref(), first.address()),
        (cluster.topology.client.as_ref(), VIP),
    ] {
        let echo = output(from.command(cluster.programs().testbed.as_os_str()).args([
            "ping",
            "--target",
            &to.to_string(),
        ]));
        outcome.promise(echo.is_ok(), || {
            format!(
                "{} does not get its echoes from {to}: {echo:?}",
                from.name()
            )
        });
    }
    let direct = format!("{}:{PORT}", second.address());
    let mut load = Load::start(cluster, first, &direct)?;
    load.go_on(100)?;
    let direct = load.stop()?;
    let failed = direct.iter().filter(|request| !request.succeeded()).count();
    outcome.promise(failed == 0, || {
        format!(
            "{failed} of {} requests from node to node failed",
            direct.len()
        )
    });

    // The VIP itself: requests before, during and after.
    traffic.load.go_on(300)?;
    traffic.finish(&mut outcome, None)?;
    cluster.wait_until_settled()?;
    Ok(outcome)
}
