//! Nodes whose NICs are not the plain end of a cable: the agent finds out by itself how to run
//! its program there, says so, and all else is as on any other NIC.

use anyhow::{Context, Result};

use vip_userspace::datapath::Mode;

use crate::clock::until;
use crate::cluster::plan::Planned;
use crate::cluster::{Cluster, PATIENCE, Pace, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test, When};
use crate::sys;
use crate::topology::vm::{Bonding, Machines, Wiring};
use crate::topology::{Link, NIC};
use crate::traffic::{Traffic, vip};

pub(super) const BRIDGE: Scenario = Scenario {
    name: "bridge",
    promise: "bridge_as_nic_is_served_by_generic_xdp",
    tests: &[Test::netns(|| nodes_with(Link::Bridge)).on_kernels(When::Asked)],
    run: generic,
};

pub(super) const JUMBO: Scenario = Scenario {
    name: "jumbo",
    promise: "jumbo_frames_are_steered_by_native_xdp",
    tests: &[Test::netns(|| nodes_with(Link::Jumbo)).on_kernels(When::Asked)],
    run: jumbo,
};

pub(super) const OCCUPIED: Scenario = Scenario {
    name: "occupied",
    promise: "occupied_nic_keeps_its_program_and_is_served_by_tc",
    tests: &[Test::netns(|| nodes_with(Link::Occupied)).on_kernels(When::Always)],
    run: occupied,
};

pub(super) const E1000E: Scenario = Scenario {
    name: "e1000e",
    promise: "e1000e_is_served_by_generic_xdp",
    tests: &[Test::machines(
        |machines| wired(Wiring::E1000e, machines),
        When::Always,
    )],
    run: generic,
};

pub(super) const VIRTIO_FIXED_OFFLOADS: Scenario = Scenario {
    name: "virtio_fixed_offloads",
    promise: "virtio_that_refuses_xdp_is_served_by_generic_xdp",
    tests: &[Test::machines(
        |machines| wired(Wiring::VirtioFixedOffloads, machines),
        When::Asked,
    )],
    run: generic,
};

pub(super) const VIRTIO_UNMERGED: Scenario = Scenario {
    name: "virtio_unmerged",
    promise: "virtio_that_never_runs_the_program_is_served_all_the_same",
    tests: &[Test::machines(
        |machines| wired(Wiring::VirtioUnmerged, machines),
        When::Asked,
    )],
    run: any,
};

pub(super) const VLAN: Scenario = Scenario {
    name: "vlan",
    promise: "vlan_over_virtio_is_served_by_generic_xdp",
    tests: &[Test::machines(
        |machines| wired(Wiring::Vlan, machines),
        When::Asked,
    )],
    run: generic,
};

pub(super) const BOND: Scenario = Scenario {
    name: "bond",
    promise: "bond_with_a_cable_pulled_goes_on",
    tests: &[Test::machines(
        |machines| wired(Wiring::Bond(Bonding::ActiveBackup), machines),
        When::Always,
    )],
    run: bond,
};

pub(super) const BOND_FAIL_OVER_MAC: Scenario = Scenario {
    name: "bond_fail_over_mac",
    promise: "bond_that_changes_its_address_with_a_cable_pulled_goes_on",
    tests: &[Test::machines(
        |machines| wired(Wiring::Bond(Bonding::FailOverMac), machines),
        When::Asked,
    )],
    run: bond,
};

pub(super) const BOND_BALANCE_TLB: Scenario = Scenario {
    name: "bond_balance_tlb",
    promise: "bond_in_mode_5_loops_nothing_and_is_named",
    tests: &[Test::machines(
        |machines| wired(Wiring::Bond(Bonding::BalanceTlb), machines),
        When::Asked,
    )],
    run: balanced_bond,
};

pub(super) const BOND_BALANCE_ALB: Scenario = Scenario {
    name: "bond_balance_alb",
    promise: "bond_in_mode_6_loops_nothing_and_is_named",
    tests: &[Test::machines(
        |machines| wired(Wiring::Bond(Bonding::BalanceAlb), machines),
        When::Asked,
    )],
    run: balanced_bond,
};

/// Bytes of a request: several of the largest segments.
const LARGE: usize = 24 << 10;

/// Enough for all servers to be reached.
const CONNECTIONS: usize = 30;

/// With nodes whose NICs are something else.
pub(super) fn nodes_with(link: Link) -> Plan {
    Plan {
        link,
        ..Plan::default()
    }
}

/// On machines with other network cards, or other things made of them.
fn wired(wiring: Wiring, machines: Machines) -> Planned {
    let machines = Machines { wiring, ..machines };
    Ok(Plan::on_machines(Pace::CALM, machines))
}

/// A NIC whose driver cannot run XDP, as that of a bridge.
fn generic(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    run(cluster, timeline, Some(Mode::Generic))
}

/// Whatever the kernel makes of it.
fn any(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    run(cluster, timeline, None)
}

/// Two cables, of which the one in use is pulled: the owner stays, and so do its connections.
fn bond(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("bond");
    let owner = cluster.owner()?;
    let mut traffic = Traffic::start(cluster, timeline)?;
    let first = cable_in_use(cluster, owner)?;
    let cable = usize::from(first == "port1");
    cluster.vm(owner)?.machine().plug(cable, false)?;
    let second = until("the bond uses the other cable", PATIENCE, || {
        let now = cable_in_use(cluster, owner)?;
        Ok((now != first).then_some(now))
    })?;
    timeline.event(format!(
        "the bond of {} uses {second} and not {first}",
        cluster.name(owner)
    ));
    traffic.load.go_on(50)?;
    cluster.vm(owner)?.machine().plug(cable, true)?;
    traffic.load.go_on(20)?;
    traffic.finish(&mut outcome, None)?;
    let still = cluster.owner()?;
    outcome.promise(still == owner, || {
        format!("the VIP moved to {}", cluster.name(still))
    });
    let links = run(cluster, timeline, None)?;
    outcome.requests += links.requests;
    outcome.failed += links.failed;
    outcome.violations.extend(links.violations);
    Ok(outcome)
}

/// Frames of a node come from the Ethernet addresses of both its ports: other nodes learn them,
/// and `vip check` names the mode.
fn balanced_bond(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let read = |cluster: &Cluster, node, file: &str| {
        let mut read = cluster.host(node).command("cat".as_ref());
        output(read.arg(format!("/sys/class/net/{NIC}/bonding/{file}")))
    };
    let mode = read(cluster, 0, "mode")?;
    let mode = mode.split_whitespace().next().unwrap_or_default();
    let config = cluster.work().join("vip.toml");
    let mut check = cluster.host(0).command(cluster.programs().vip.as_os_str());
    let text = check.arg("check").arg("--config").arg(&config).output();
    let text = text.context("vip check")?.stdout;
    let named = String::from_utf8_lossy(&text).contains(mode);
    let mut outcome = run(cluster, timeline, None)?;
    outcome.promise(named, || format!("vip check does not name {mode}"));
    Ok(outcome)
}

/// Frames in several buffers, which the driver runs the program for if the kernel can (Linux
/// 5.18).
fn jumbo(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let frags = sys::has_xdp_frags().context("try an XDP program")?;
    run(
        cluster,
        timeline,
        Some(if frags { Mode::Native } else { Mode::Generic }),
    )
}

/// The place of XDP is taken.
fn occupied(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    run(cluster, timeline, Some(Mode::Tc))
}

/// The port that a node's bond sends by.
fn cable_in_use(cluster: &Cluster, node: usize) -> Result<String> {
    let mut read = cluster.host(node).command("cat".as_ref());
    let port = output(read.arg(format!("/sys/class/net/{NIC}/bonding/active_slave")))?;
    Ok(port.trim().to_owned())
}

/// Frames that nodes sent on to others, and their bytes.
fn forwarded(cluster: &Cluster) -> Result<(u64, u64)> {
    cluster.nodes().into_iter().try_fold((0, 0), |sum, node| {
        let sent = cluster.status(node)?.forwarded();
        Ok((sum.0 + sent.0, sum.1 + sent.1))
    })
}

/// `mode`: the one that all nodes must have chosen, if that is known beforehand.
fn run(cluster: &mut Cluster, timeline: &mut Timeline, mode: Option<Mode>) -> Result<Outcome> {
    let mut violations = Vec::new();
    for node in cluster.nodes() {
        let status = cluster.status(node)?;
        let found = status.xdp_mode();
        let name = cluster.name(node);
        timeline.event(format!("{name} uses {found}"));
        if mode.is_some_and(|mode| mode != found) {
            violations.push(format!("{name} uses {found} and not {mode:?}"));
        }
    }
    let before = forwarded(cluster)?;

    let path = format!("/whoami?{}", "x".repeat(LARGE));
    let client = cluster.topology.client.as_ref();
    let mut failed = 0;
    for _ in 0..CONNECTIONS {
        failed += usize::from(cluster.get(client, &path, &vip()).is_err());
    }
    let after = forwarded(cluster)?;
    let (packets, bytes) = (after.0 - before.0, after.1 - before.1);
    timeline.event(format!(
        "{failed} of {CONNECTIONS} large requests failed; {packets} frames with {bytes} bytes were steered"
    ));
    if failed > 0 {
        violations.push(format!("{failed} of {CONNECTIONS} large requests failed"));
    }
    // Otherwise they were not steered, and nothing was proved.
    if bytes < (CONNECTIONS * LARGE / 4) as u64 {
        violations.push(format!("only {bytes} bytes were steered"));
    }

    let mut outcome = super::owner_killed::run(cluster, timeline)?;
    outcome.requests += CONNECTIONS;
    outcome.failed += failed;
    outcome.violations.splice(0..0, violations);
    Ok(outcome)
}
