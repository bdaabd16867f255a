//! Two clusters without a list on one segment, a /23, whose VIPs have the same last byte, and so the same
//! VRRP router. Neither takes the other's nodes, whether none has a key, one has, or both have different
//! ones.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::agent::cleanup;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test};
use crate::topology::{Host, NIC, PORT, TWIN_VIP, VIP, sh};
use crate::traffic::{Load, Watches, vip};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "two_clusters",
    promise: "two_clusters_on_one_segment_with_one_router_id_stay_apart",
    tests: &[Test::netns(six)],
    run,
};

fn six() -> Plan {
    Plan {
        bare: true,
        ..Plan::found_by(6, 6, "")
    }
}

/// The nodes of each.
const FIRST: [usize; 3] = [0, 1, 2];
const SECOND: [usize; 3] = [3, 4, 5];

/// How they tell each other apart.
struct Case {
    name: &'static str,
    mode: &'static str,
    /// Whether each has a key, and why it refuses the other's hellos.
    keyed: [bool; 2],
    refused: [Option<&'static str>; 2],
}

const CASES: [Case; 3] = [
    Case {
        name: "one has a key",
        mode: "unicast",
        keyed: [false, true],
        refused: [Some("sealed"), Some("plain")],
    },
    Case {
        name: "each has a key",
        mode: "multicast",
        keyed: [true, true],
        refused: [Some("unknown_key"), Some("unknown_key")],
    },
    Case {
        name: "none has a key",
        mode: "multicast",
        keyed: [false, false],
        refused: [None, None],
    },
];

fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(SCENARIO.name);
    let keys = ["first.key", "second.key"].map(|name| cluster.work().join(name));
    for key in &keys {
        let mut make = Command::new(&cluster.programs().vip);
        output(make.args(["key", "--output"]).arg(key)).context("make a key")?;
    }
    for host in cluster.topology.hosts() {
        // The remote one is on another segment.
        if host.name() != "remote" {
            widen(host)?;
        }
    }
    for case in CASES {
        for (number, nodes) in [FIRST, SECOND].into_iter().enumerate() {
            let key = Some(&keys[number]).filter(|_| case.keyed[number]);
            let key = key.map(|key| format!("key_file = \"{}\"\n", key.display()));
            let vrrp = format!("[vrrp]\nmode = \"{}\"", case.mode);
            let mut config = key.unwrap_or_default() + &cluster.config()?;
            config = config.replace("[vrrp]", &vrrp);
            if number == 1 {
                config = config.replace(&VIP.to_string(), &TWIN_VIP.to_string());
            }
            for node in nodes {
                cluster.start_agent_with(node, &config)?;
            }
        }
        apart(cluster, &mut outcome, &case)?;
        timeline.event(case.name);
        for node in cluster.nodes() {
            cluster.stop_agent(node)?;
            cleanup(cluster.programs(), cluster.host(node))?;
        }
    }
    Ok(outcome)
}

/// Gives a host's address a longer network, which holds both VIPs.
fn widen(host: &dyn Host) -> Result<()> {
    let address = host.address();
    let lines = format!(
        "ip address add {address}/23 dev {NIC}; ip address del {address}/24 dev {NIC}; \
         ip route replace default via 10.0.0.1 || true"
    );
    sh(host, &lines).map(drop)
}

fn apart(cluster: &mut Cluster, outcome: &mut Outcome, case: &Case) -> Result<()> {
    let mut owners = Vec::new();
    for nodes in [FIRST, SECOND] {
        super::wait_until_serving(cluster, &nodes, &nodes)?;
        owners.push(cluster.owner_among(&nodes)?);
    }
    let client = cluster.topology.client.as_ref();
    let count = cluster.pace().watches / 2;
    let mut held = Vec::new();
    for target in [vip(), format!("{TWIN_VIP}:{PORT}")] {
        let (watches, before) = Watches::open(cluster, client, &target, count)?;
        held.push((Load::start(cluster, client, &target)?, watches, before));
    }
    for (load, ..) in &mut held {
        load.go_on(300)?;
    }
    for (number, nodes) in [FIRST, SECOND].into_iter().enumerate() {
        let owner = cluster.owner_among(&nodes)?;
        let name = case.name;
        outcome.promise(owner == owners[number], || {
            format!("{name}: a VIP has moved")
        });
        for node in nodes {
            let (status, host) = (cluster.status(node)?, cluster.name(node));
            let known = status.nodes.len();
            outcome.promise(known == 3, || {
                format!("{name}: {host} knows {known} members")
            });
            let (conflicts, takeovers) = (status.conflicts, status.takeovers);
            outcome.promise(conflicts == 0 && takeovers <= 1, || {
                format!("{name}: {host} has {conflicts} conflicts, {takeovers} takeovers")
            });
            let membership = status.membership.as_ref();
            let counts = membership.map(|them| them.refused.clone());
            if let Some(why) = case.refused[number] {
                let count = counts.as_ref().and_then(|all| all.get(why).copied());
                outcome.promise(count > Some(0), || {
                    format!("{name}: {host} has not refused hellos as {why}: {counts:?}")
                });
            }
        }
    }
    for ((load, mut watches, before), nodes) in held.into_iter().zip([FIRST, SECOND]) {
        let after = watches.wait_for_verdict(crate::clock::boot_now(), None)?;
        let requests = load.stop()?;
        let names = nodes.map(|node| cluster.name(node));
        let strange = requests
            .iter()
            .filter_map(|request| request.server.as_ref());
        let strange = strange.filter(|server| !names.contains(server)).count();
        outcome.promise(strange == 0, || {
            format!(
                "{}: {strange} requests came to the other cluster",
                case.name
            )
        });
        let summary = outcome.take_requests(&requests, None);
        outcome.take_watches(&before, &after, None);
        outcome.promise_nothing_lost(&summary);
    }
    Ok(())
}
