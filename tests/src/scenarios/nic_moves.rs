//! The NIC becomes the port of a bridge and its address moves to the bridge, as network scripts
//! and virtualisation products do (`br-ex`): on one node after the other, and back again. The
//! agent follows the address without a restart.

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Plan};
use crate::hooks;
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test};
use crate::topology::NIC;
use crate::traffic::{ArpMonitor, Traffic};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "nic_moves",
    promise: "nic_put_into_a_bridge_is_followed_and_cuts_no_watch",
    tests: &[Test::netns(Plan::default)],
    run,
};

/// The bridge.
const BRIDGE: &str = "br-ex";

/// Network scripts as people write them: the address is nowhere for a moment.
fn into_bridge(address: &str) -> String {
    format!(
        "ip link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         ip link set {BRIDGE} address $(cat /sys/class/net/{NIC}/address)\n\
         ethtool -K {BRIDGE} tx off\n\
         ip link set {NIC} master {BRIDGE}\n\
         ip address del {address}/24 dev {NIC}\n\
         ip link set {BRIDGE} up\n\
         ip address add {address}/24 dev {BRIDGE}\n\
         ip route add default via 10.0.0.1\n"
    )
}

/// The way back.
fn out_of_bridge(address: &str) -> String {
    format!(
        "ip address del {address}/24 dev {BRIDGE}\n\
         ip link set {NIC} nomaster\n\
         ip link delete {BRIDGE}\n\
         ip address add {address}/24 dev {NIC}\n\
         ip route add default via 10.0.0.1\n"
    )
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("nic_moves");
    let mut traffic = Traffic::start(cluster, timeline)?;
    let owner = cluster.owner()?;
    let mut arp = ArpMonitor::start(cluster, 10)?;
    // A backup first, then the owner, then who is left: nobody is on a plain NIC any more.
    let mut order = super::steps::others_than(cluster, owner);
    order.insert(1, owner);
    for (to, script) in [
        (BRIDGE, into_bridge as fn(&str) -> String),
        (NIC, out_of_bridge),
    ] {
        for &node in &order {
            let address = cluster.host(node).address().to_string();
            let mut shell = cluster.host(node).command("sh".as_ref());
            output(shell.args(["-e", "-c", &script(&address)]))
                .with_context(|| format!("move the address of {}", cluster.name(node)))?;
            cluster.wait_for_status("the agent follows", &[node], |own, node, status| {
                let hooks = hooks::on(own.host(node), own.programs(), to).unwrap_or_default();
                let hooked = |name| hooks.iter().any(|hook| hook.starts_with(name));
                status.xdp.interface == to
                    && status.faults.is_empty()
                    && hooked("xdp")
                    && (hooked("tcx egress") || hooked("clsact egress"))
            })?;
            cluster.wait_until_settled()?;
            traffic.load.go_on(100)?;
            let now = cluster.owner()?;
            timeline.event(format!(
                "{} is on {to}, {} owns the VIP",
                cluster.name(node),
                cluster.name(now)
            ));
        }
    }
    let dead = cluster.dead_agents();
    outcome.promise(dead.is_empty(), || format!("agents have ended on {dead:?}"));
    for node in cluster.nodes() {
        let events = cluster.vip(node, &["events"])?;
        for to in [BRIDGE, NIC] {
            let told = events.contains(&format!("to {to}"));
            outcome.promise(told, || {
                format!("{} does not tell of {to}:\n{events}", cluster.name(node))
            });
        }
    }
    super::steps::promise_one_answer(&mut outcome, &arp.report()?);
    traffic.finish(&mut outcome, None)?;
    timeline.event(format!(
        "{} requests, {} failed, longest gap {} ms, {} of {} watches cut",
        outcome.requests,
        outcome.failed,
        outcome.gap_ms,
        outcome.watches_cut_living,
        outcome.watches
    ));
    Ok(outcome)
}
