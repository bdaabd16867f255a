//! Nodes whose default route leads by another NIC than the VIP's, with strict reverse path
//! filters: a client that is reached that way gets answers, from the port that it asked.

use anyhow::Result;

use super::other_nics::{run_on, set, setting};
use super::port_mapping::{self, FRONT};
use super::remote_client::reach_all;
use crate::agent;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::topology::{NIC, Segment, VIP, VIP6, sh};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "second_way",
    promise: "second_way_out_of_a_host_brings_answers_to_remote_clients",
    tests: &[
        Test::netns(|| by(Some("generic"))).cluster("generic"),
        Test::netns(|| by(Some("tc"))).cluster("tc"),
        Test::netns(|| by(None)).on_kernels(When::Asked),
    ],
    run,
};

/// The second NIC.
const SECOND: &str = "eth1";

/// With programs at this hook, or at the one that the agent chooses.
fn by(mode: Option<&str>) -> Plan {
    let mapped = port_mapping::mapped();
    let mode = mode.map(|mode| format!("\n[datapath]\nmode = \"{mode}\"\n"));
    Plan {
        bare: true,
        more: mapped.more + &mode.unwrap_or_default(),
        ..mapped
    }
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("second_way");
    let router = cluster.topology.router.as_ref();
    router.plug("eth2", Segment::Second)?;
    sh(
        router,
        "ip address add 10.2.0.1/24 dev eth2; ip address add fd00:0:0:2::1/64 dev eth2 nodad; \
         ip link set eth2 up; echo 0 > /proc/sys/net/ipv4/conf/eth2/rp_filter",
    )?;
    for node in cluster.nodes() {
        cluster.host(node).plug(SECOND, Segment::Second)?;
        let last = 11 + node;
        run_on(
            cluster,
            node,
            &format!(
                "ip address add 10.2.0.{last}/24 dev {SECOND}; \
                 ip address add fd00:0:0:2::{last}/64 dev {SECOND} nodad; ip link set {SECOND} up; \
                 ip route replace default via 10.2.0.1 dev {SECOND}; \
                 ip -6 route del default; ip -6 route add default via fd00:0:0:2::1 dev {SECOND}"
            ),
        )?;
        set(cluster, node, "all/rp_filter", "1")?;
        set(cluster, node, &format!("{NIC}/rp_filter"), "0")?;
    }
    for node in cluster.nodes() {
        cluster.start_agent(node)?;
    }
    cluster.wait_until_settled()?;
    timeline.event("nodes answer the remote client by another NIC than the VIP's");

    for target in [format!("{VIP}:{FRONT}"), format!("[{VIP6}]:{FRONT}")] {
        reach_all(cluster, &target, 100, &mut outcome, timeline)?;
    }
    let text = cluster.vip(0, &["status", "-o", "wide"])?;
    outcome.promise(text.contains("rp_filter"), || {
        format!("vip status says nothing of rp_filter: {text}")
    });

    for node in cluster.nodes() {
        cluster.stop_agent(node)?;
        agent::cleanup(cluster.programs(), cluster.host(node))?;
        let now = setting(cluster, node, &format!("{NIC}/rp_filter"))?;
        outcome.promise(now == "0", || {
            format!("rp_filter of {NIC} on {} is {now}", cluster.name(node))
        });
        let hooks = crate::hooks::on(cluster.host(node), cluster.programs(), SECOND)?;
        outcome.promise(hooks.is_empty(), || {
            format!("left at {SECOND} on {}: {hooks:?}", cluster.name(node))
        });
    }
    Ok(outcome)
}
