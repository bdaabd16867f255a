//! One node after the other is drained, switched off, and booted with another kernel, under
//! load: the newest one, as an operator does it. What is lost is what was open to a server when
//! that was switched off.

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::outcome::{Down, Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::traffic::Traffic;
use crate::vm::Kernel;

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "kernel_upgrade",
    promise: "kernel_upgrade_node_by_node_fails_no_request",
    tests: &[Test::shared_machines(When::Always)],
    run,
};

pub(in crate::scenarios) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("kernel_upgrade");
    let kernels = Kernel::all()?.context("no kernels were prepared")?;
    let newest = kernels.last().context("no kernels were prepared")?;
    for node in cluster.nodes() {
        let name = cluster.name(node);
        let mut traffic = Traffic::start(cluster, timeline)?;
        cluster.vip(node, &["drain"])?;
        let nodes = cluster.nodes();
        cluster.wait_for_status("all know that it is drained", &nodes, |own, _, status| {
            let entry = status.node(own.host(node));
            entry.is_some_and(|entry| !entry.usable)
        })?;
        cluster.stop_agent(node)?;
        traffic.load.go_on(10)?;
        let at = cluster.power_off(node)?;
        traffic.load.go_on(30)?;
        let machine = cluster.vm(node)?.machine();
        let old = machine.kernel().version.clone();
        machine.set_kernel(newest.clone());
        cluster.power_on(&[node])?;
        cluster.wait_for_server(node)?;
        cluster.wait_until_settled()?;
        timeline.event(format!("{name}: Linux {old} became {}", newest.version));
        traffic.load.go_on(30)?;
        let down = Down { server: &name, at };
        traffic.finish(&mut outcome, Some(down))?;
    }
    Ok(outcome)
}
