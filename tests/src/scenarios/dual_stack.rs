//! VIPs of both families, owned by one node: what holds for IPv4 holds for IPv6. The owner loses
//! its power with watches open by IPv6, while requests come by both families and from behind a
//! router.

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Down, Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test, When};
use crate::topology::{VIP, VIP6, mac};
use crate::traffic::{Load, Traffic, vip, vip6};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "dual_stack",
    promise: "dual_stack_owner_killed_cuts_no_watch_of_either_family",
    tests: &[Test::netns(Plan::dual_stack).on_kernels(When::Always)],
    run,
};

/// The Ethernet address that the client has for the VIP.
fn neighbour(cluster: &Cluster) -> Result<String> {
    let client = cluster.topology.client.as_ref();
    let table = output(client.command("ip".as_ref()).args(["-6", "neighbour"]))?;
    let entry = table
        .lines()
        .find(|line| line.starts_with(&format!("{VIP6} ")))
        .with_context(|| format!("the client has no entry for {VIP6}: {table}"))?;
    let mut words = entry
        .split_whitespace()
        .skip_while(|word| *word != "lladdr");
    let mac = words
        .nth(1)
        .with_context(|| format!("no address: {entry}"))?;
    Ok(mac.to_owned())
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("dual_stack");
    let owner = cluster.owner()?;
    let name = cluster.name(owner);
    let mut by_ipv6 = Traffic::start_to(cluster, &vip6(), timeline)?;
    let client = cluster.topology.client.as_ref();
    // Beside the traffic's own load: an emulated machine has no time for three of its size.
    let every_ms = 4 * cluster.pace().every_ms;
    let mut by_ipv4 = Load::start_at(cluster, client, &vip(), every_ms, 1)?;
    let remote = cluster.topology.remote.as_ref();
    let mut from_afar = Load::start_at(cluster, remote, &vip6(), every_ms, 1)?;
    by_ipv4.go_on(30)?;
    from_afar.go_on(30)?;
    let (known, wanted) = (neighbour(cluster)?, mac(cluster.host(owner))?);
    outcome.promise(known == wanted, || {
        format!("{known} answers for {VIP6}, and the owner is {wanted}")
    });
    // Another node finds the owner by both families, too.
    let config = cluster.work().join("vip.toml").display().to_string();
    let other = super::steps::another_than(cluster, owner);
    let text = cluster.vip(other, &["check", "--config", &config])?;
    for vip in [VIP.to_string(), VIP6.to_string()] {
        let expected = format!("{} answers for {vip}", cluster.host(owner).address());
        outcome.promise(text.contains(&expected), || {
            format!("no {expected:?} in what vip check says: {text}")
        });
    }
    let held = by_ipv6.before.on(&name).count();
    timeline.event(format!(
        "power cut of {name}, the owner; {held} watches are on its server"
    ));
    let at = cluster.power_off(owner)?;
    cluster.wait_until_settled()?;
    let successor = cluster.owner()?;
    timeline.event(format!("{} owns the VIPs", cluster.name(successor)));
    by_ipv6.load.go_on(200)?;
    by_ipv4.go_on(60)?;
    from_afar.go_on(60)?;
    let (known, wanted) = (neighbour(cluster)?, mac(cluster.host(successor))?);
    outcome.promise(known == wanted, || {
        format!("{known} answers for {VIP6}, and the owner is {wanted}")
    });
    let down = Down { server: &name, at };
    for (what, load) in [("by IPv4", by_ipv4), ("from afar", from_afar)] {
        let requests = load.stop()?;
        let before = outcome.failed;
        let summary = outcome.take_requests(&requests, Some(down));
        let failed = outcome.failed - before;
        outcome.promise(summary.requests > 90 && failed == 0, || {
            format!(
                "{failed} of {} requests {what} failed: {:?}; the first: {}",
                summary.requests, summary.errors, summary.first_failures
            )
        });
    }
    by_ipv6.finish(&mut outcome, Some(down))?;
    let reset = outcome.watches_reset_dead;
    outcome.promise(reset == held, || {
        format!("{reset} of the {held} watches on the dead server were reset")
    });
    Ok(outcome)
}
