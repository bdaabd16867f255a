//! A link behind the router takes smaller packets than its ends assume. The router says so to
//! the VIP, from which the large packets came, and the node that sent them must hear it.

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test, When};
use crate::traffic::{vip, vip6};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path_mtu",
    promise: "path_mtu_is_found_through_the_vip",
    tests: &[Test::netns(Plan::dual_stack).on_kernels(When::Asked)],
    run,
};

/// The least that IPv6 allows.
const SMALL: u16 = 1280;

/// Enough for all servers to be reached.
const CONNECTIONS: usize = 30;

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("path_mtu");
    let router = cluster.topology.router.as_ref();
    let mtu = SMALL.to_string();
    output(
        router
            .command("ip".as_ref())
            .args(["link", "set", "eth1", "mtu", &mtu]),
    )?;
    let remote = cluster.topology.remote.as_ref();
    for target in [vip(), vip6()] {
        let mut failed = 0;
        for _ in 0..CONNECTIONS {
            failed += usize::from(cluster.get(remote, "/big", &target).is_err());
        }
        outcome.requests += CONNECTIONS;
        outcome.failed += failed;
        outcome.promise(failed == 0, || {
            format!("{failed} of {CONNECTIONS} large answers from {target} did not come")
        });
    }
    // Otherwise nothing was proved.
    let mut heard = 0;
    for node in cluster.nodes() {
        heard += cluster.status(node)?.count("local_error");
    }
    outcome.promise(heard > 0, || "no node heard of the small link".to_owned());
    timeline.event(format!(
        "{heard} ICMP errors reached the nodes that had to hear them"
    ));
    Ok(outcome)
}
