//! Something the owner needs is taken from it: its carrier, its address, its program, the VIP,
//! the name of its NIC. It gives the VIP up while it lacks it, and is a node like any other
//! once it has it again.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::{Cluster, Plan};
use crate::hooks;
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test, When};
use crate::topology::{NIC, VIP};
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "node_faults",
    promise: "owner_gives_the_vip_up_while_it_lacks_something_and_heals",
    tests: &[Test::netns(Plan::default).on_kernels(When::Asked)],
    run,
};

/// A fault that not every kernel allows.
const RENAMED: &str = "NIC renamed";

/// What is taken and given back, as commands on the owner.
struct Fault {
    name: &'static str,
    take: String,
    give: Option<String>,
    /// Another node must own the VIP before it is given back.
    moves: bool,
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("node_faults");
    let mut traffic = Traffic::start(cluster, timeline)?;
    let first = cluster.owner()?;
    let address = cluster.host(first).address();
    for fault in faults(address) {
        strike(cluster, timeline, first, &fault)?;
    }
    let dead = cluster.dead_agents();
    outcome.promise(dead.is_empty(), || format!("agents have ended on {dead:?}"));
    traffic.load.go_on(200)?;
    // Requests to a server whose NIC is down fail by right, so their number is not asserted.
    traffic.load.stop()?;
    Ok(outcome)
}

fn faults(address: Ipv4Addr) -> [Fault; 6] {
    [
        Fault {
            name: "own address gone",
            take: format!("ip address del {address}/24 dev {NIC}"),
            give: Some(format!("ip address add {address}/24 dev {NIC}")),
            moves: true,
        },
        // A link that is pinned nowhere is detached.
        Fault {
            name: "program detached",
            take: "rm /sys/fs/bpf/vip/ingress-*".to_owned(),
            give: None,
            moves: false,
        },
        Fault {
            name: "guard detached",
            // Before Linux 6.6 it is a filter.
            take: format!(
                "rm /sys/fs/bpf/vip/egress-* 2>/dev/null || tc filter delete dev {NIC} egress"
            ),
            give: None,
            moves: false,
        },
        Fault {
            name: "VIP removed",
            take: format!("ip address del {VIP}/32 dev lo"),
            give: None,
            moves: false,
        },
        Fault {
            name: RENAMED,
            take: format!("ip link set {NIC} name uplink0"),
            give: Some(format!("ip link set uplink0 name {NIC}")),
            moves: false,
        },
        Fault {
            name: "carrier lost",
            take: format!("ip link set {NIC} down"),
            give: Some(format!("ip link set {NIC} up")),
            moves: true,
        },
    ]
}

/// Lets a fault happen to the node as the owner, and waits until it is healed.
fn strike(
    cluster: &mut Cluster,
    timeline: &mut Timeline,
    node: usize,
    fault: &Fault,
) -> Result<()> {
    let owner = move_to(cluster, node)?;
    let on_owner = |cluster: &Cluster, command: &str| {
        output(
            cluster
                .host(owner)
                .command("sh".as_ref())
                .args(["-c", command]),
        )
        .with_context(|| fault.name)
    };
    match on_owner(cluster, &fault.take) {
        // Before Linux 6.2 an interface that is up keeps its name.
        Err(error) if fault.name == RENAMED && format!("{error:#}").contains("busy") => {
            timeline.event(format!("{}: this kernel does not do that", fault.name));
            return Ok(());
        }
        other => other?,
    };
    let others: Vec<usize> = cluster
        .nodes()
        .into_iter()
        .filter(|node| *node != owner)
        .collect();
    if fault.moves {
        let successor = cluster.owner_among(&others)?;
        cluster.wait_for_status("the node says what it lacks", &[owner], |_, _, status| {
            status.is_faulty()
        })?;
        timeline.event(format!(
            "{}: {} owns the VIP",
            fault.name,
            cluster.name(successor)
        ));
    }
    if let Some(give) = &fault.give {
        on_owner(cluster, give)?;
    }
    cluster.wait_until_settled()?;
    cluster.wait_for_status("nothing is missing", &[owner], |own, node, status| {
        let hooks = hooks::on(own.host(node), own.programs(), NIC).unwrap_or_default();
        let hooked = |name| hooks.iter().any(|hook| hook.starts_with(name));
        status.faults.is_empty()
            && hooked("xdp")
            && (hooked("tcx egress") || hooked("clsact egress"))
    })?;
    timeline.event(format!("{}: healed", fault.name));
    Ok(())
}

/// Makes a node the owner.
fn move_to(cluster: &mut Cluster, node: usize) -> Result<usize> {
    for _ in 0..10 {
        let owner = cluster.owner()?;
        if owner == node {
            return Ok(node);
        }
        let address = cluster.host(node).address().to_string();
        // The owner may have changed meanwhile: then the command says so.
        let _moved = cluster.vip(owner, &["handover", "--to", &address]);
        std::thread::sleep(Duration::from_millis(500));
    }
    bail!("{} does not become the owner", cluster.name(node))
}
