//! Somebody who is no node takes the VIP for himself. Where nobody owns it yet, it is not
//! claimed while it is there; where somebody does, it is named, and the VIP is defended.

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test};
use crate::topology::{VIP, vip_by_hand};
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "conflict",
    promise: "stranger_with_the_vip_is_named_and_not_fought_before_the_first_claim",
    tests: &[Test::netns(Plan::default)],
    run,
};

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("conflict");
    let stranger = |cluster: &Cluster, verb: &str| {
        // From behind the nodes' backs: not the client, whose own traffic goes to the VIP.
        vip_by_hand(cluster.topology.etcd.as_ref(), verb)
    };
    let nodes = cluster.nodes();
    for &node in &nodes {
        cluster.stop_agent(node)?;
    }
    stranger(cluster, "add")?;
    for &node in &nodes {
        cluster.start_agent(node)?;
    }
    cluster.wait_for_status("all agents see the stranger", &nodes, |_, _, status| {
        status.conflicts > 0 && status.owner.is_none()
    })?;
    timeline.event("a stranger has the VIP: no node claims it");
    stranger(cluster, "del")?;
    cluster.wait_until_settled()?;
    let owner = cluster.owner()?;
    timeline.event(format!("it is gone: {} owns the VIP", cluster.name(owner)));

    let mut traffic = Traffic::start(cluster, timeline)?;
    let before = cluster.status(owner)?;
    let etcd = cluster.topology.etcd.as_ref();
    let mac = output(etcd.command(cluster.programs().testbed.as_os_str()).args([
        "claim",
        "--vip",
        &VIP.to_string(),
    ]))?;
    cluster.wait_for_status("the owner names the stranger", &[owner], |_, _, status| {
        status.conflicts > before.conflicts && status.claimant.as_deref() == Some(mac.trim())
    })?;
    timeline.event(format!(
        "{} claims the VIP: {} says so",
        mac.trim(),
        cluster.name(owner)
    ));
    traffic.load.go_on(200)?;
    let after = cluster.owner()?;
    outcome.promise(after == owner, || "a claim moved the VIP".to_owned());
    traffic.load.stop().context("end the load")?;
    Ok(outcome)
}
