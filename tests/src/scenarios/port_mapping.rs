//! Clients connect to port 443 of the VIPs, and the servers listen on 6443: by both families,
//! through a change of the owner.

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::topology::{PORT, VIP, VIP6};
use crate::traffic::{Load, Traffic};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "port_mapping",
    promise: "port_mapping_keeps_connections_through_a_handover",
    tests: &[Test::netns(mapped).on_kernels(When::Asked)],
    run,
};

/// What clients connect to.
pub(super) const FRONT: u16 = 443;

/// With a VIP whose port is another one on the nodes.
pub(super) fn mapped() -> Plan {
    Plan {
        port: FRONT,
        top: format!("target_port = {PORT}"),
        ..Plan::dual_stack()
    }
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("port_mapping");
    let mut traffic = Traffic::start_to(cluster, &format!("{VIP}:{FRONT}"), timeline)?;
    let client = cluster.topology.client.as_ref();
    let mut by_ipv6 = Load::start(cluster, client, &format!("[{VIP6}]:{FRONT}"))?;
    by_ipv6.go_on(100)?;
    let owner = cluster.owner()?;
    cluster.vip(owner, &["handover"])?;
    let successor = cluster.owner()?;
    outcome.promise(successor != owner, || "the VIP did not move".to_owned());
    timeline.event(format!("{} owns the VIPs", cluster.name(successor)));
    traffic.load.go_on(200)?;
    by_ipv6.go_on(200)?;
    let requests = by_ipv6.stop()?;
    outcome.take_requests(&requests, None);
    traffic.finish(&mut outcome, None)?;
    Ok(outcome)
}
