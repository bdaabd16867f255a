//! Nodes with a second NIC on the VIP's segment, with and without an address, from the start and
//! later: only the owner's NIC answers for the VIP, only a node's NIC for the node, and what was
//! set for that is undone.

use anyhow::{Context, Result};

use crate::agent;
use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test, When};
use crate::topology::{NIC, Segment};
use crate::traffic::{ArpMonitor, vip};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "other_nics",
    promise: "other_nics_of_a_host_are_silent_about_the_vip",
    tests: &[Test::netns(Plan::bare).on_kernels(When::Asked)],
    run,
};

/// The second NIC.
const SECOND: &str = "eth1";

/// Connections of clients that have just asked where the VIP is.
const FRESH: usize = 15;

/// Ethernet address of a node's NIC.
fn mac(cluster: &Cluster, node: usize, interface: &str) -> Result<String> {
    let path = format!("/sys/class/net/{interface}/address");
    let text = output(cluster.host(node).command("cat".as_ref()).arg(path))?;
    Ok(text.trim().to_owned())
}

/// A value below `/proc/sys/net/ipv4/conf` of a node.
pub(super) fn setting(cluster: &Cluster, node: usize, path: &str) -> Result<String> {
    let path = format!("/proc/sys/net/ipv4/conf/{path}");
    let text = output(cluster.host(node).command("cat".as_ref()).arg(path))?;
    Ok(text.trim().to_owned())
}

/// Sets such a value.
pub(super) fn set(cluster: &Cluster, node: usize, path: &str, value: &str) -> Result<()> {
    run_on(
        cluster,
        node,
        &format!("echo {value} > /proc/sys/net/ipv4/conf/{path}"),
    )
}

/// Runs a line of shell on a node.
pub(super) fn run_on(cluster: &Cluster, node: usize, line: &str) -> Result<()> {
    output(cluster.host(node).command("sh".as_ref()).args(["-c", line]))
        .map(drop)
        .with_context(|| format!("{line} on {}", cluster.name(node)))
}

/// Makes requests from the client, each after it has forgotten where the VIP is. Returns how many
/// failed.
fn fresh_requests(cluster: &Cluster) -> Result<usize> {
    let client = cluster.topology.client.as_ref();
    let mut failed = 0;
    for _ in 0..FRESH {
        output(
            client
                .command("ip".as_ref())
                .args(["neigh", "flush", "dev", NIC]),
        )?;
        failed += usize::from(cluster.get(client, "/whoami", &vip()).is_err());
    }
    Ok(failed)
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("other_nics");
    prepare(cluster)?;
    let mut arp = ArpMonitor::start(cluster, 10)?;
    for node in cluster.nodes() {
        cluster.start_agent(node)?;
    }
    cluster.wait_until_settled()?;
    let owner = cluster.owner()?;
    let owners = mac(cluster, owner, NIC)?;
    let backup = super::steps::another_than(cluster, owner);
    timeline.event(format!(
        "{} owns the VIP from a cold start",
        cluster.name(owner)
    ));

    only_the_nic_answers(cluster, &mut outcome)?;
    replies_by_the_second(cluster, &mut outcome)?;

    // Later, on a node whose server is down.
    let late = if backup == 2 { "eth1" } else { "eth2" };
    let failed = plugged_late(cluster, backup, late, &mut outcome)?;
    timeline.event(format!(
        "{late} comes up on {}: {failed} of {FRESH} requests failed",
        cluster.name(backup)
    ));

    let config = cluster.work().join("vip.toml").display().to_string();
    for text in [
        cluster.vip(0, &["status", "-o", "wide"])?,
        cluster.vip(0, &["check", "--config", &config])?,
    ] {
        outcome.promise(text.contains(SECOND), || {
            format!("no word of {SECOND} in: {text}")
        });
    }
    let asked = arp.report()?.questions;
    let seen = arp.wait("more questions", |seen| seen.questions > asked + 200)?;
    timeline.event(format!(
        "{} questions, {} with two answers",
        seen.questions,
        seen.contradictions.len()
    ));
    super::steps::promise_one_answer(&mut outcome, &seen);
    outcome.promise(seen.turns() == [owners.as_str()], || {
        format!("not only {owners} answered: {:?}", seen.answerers)
    });

    drop(arp);
    // Somebody loosens it, for that NIC and for all.
    set(cluster, backup, &format!("{late}/arp_ignore"), "0")?;
    until("it is silent again", PATIENCE, || {
        let now = setting(cluster, backup, &format!("{late}/arp_ignore"))?;
        Ok((now == "1").then_some(()))
    })?;
    hindered(cluster, &config, &mut outcome)?;
    timeline.event("what cannot be helped is said");
    undo(cluster, backup, late, &mut outcome)?;
    timeline.event("vip cleanup has undone what was set, and nothing else");
    Ok(outcome)
}

/// Gives two nodes a second NIC, one of them with an address.
fn prepare(cluster: &Cluster) -> Result<()> {
    // As kube-proxy has it: addresses of scope host are hidden from nobody then.
    for node in cluster.nodes() {
        set(cluster, node, "all/route_localnet", "1")?;
    }
    for node in [0, 1] {
        cluster.host(node).plug(SECOND, Segment::Nodes)?;
        run_on(cluster, node, &format!("ip link set {SECOND} up"))?;
    }
    run_on(
        cluster,
        0,
        &format!("ip address add 10.0.0.61/24 dev {SECOND}"),
    )?;
    // The operator's own, which is strict enough.
    set(cluster, 1, &format!("{SECOND}/arp_ignore"), "2")?;
    Ok(())
}

/// Where a node itself is must not be in doubt either: frames are handed over to its NIC.
fn only_the_nic_answers(cluster: &Cluster, outcome: &mut Outcome) -> Result<()> {
    let mut node_arp =
        ArpMonitor::start_for(cluster, cluster.host(0).address().octets().into(), 10)?;
    let seen = node_arp.wait("answers for a node", |seen| seen.questions > 200)?;
    let own = mac(cluster, 0, NIC)?;
    outcome.promise(
        seen.contradictions.is_empty() && seen.turns() == [own.as_str()],
        || format!("not only {own} answers for n1: {:?}", seen.answerers),
    );
    Ok(())
}

/// A reply that leaves by the second NIC asks there where the client is.
fn replies_by_the_second(cluster: &Cluster, outcome: &mut Outcome) -> Result<()> {
    run_on(
        cluster,
        0,
        &format!("ip route add 10.0.0.100/32 dev {SECOND}"),
    )?;
    run_on(cluster, 0, "ip neigh flush all")?;
    let failed = fresh_requests(cluster)?;
    outcome.requests += FRESH;
    outcome.failed += failed;
    outcome.promise(failed == 0, || {
        format!("{failed} of {FRESH} requests failed whose replies leave by {SECOND}")
    });
    run_on(cluster, 0, "ip route del 10.0.0.100/32")?;
    Ok(())
}

/// A NIC that comes later, on a node whose server is down. Returns how many requests fail then.
fn plugged_late(
    cluster: &mut Cluster,
    node: usize,
    nic: &str,
    outcome: &mut Outcome,
) -> Result<usize> {
    cluster.kill_server(node);
    cluster.host(node).plug(nic, Segment::Nodes)?;
    run_on(cluster, node, &format!("ip link set {nic} up"))?;
    let failed = fresh_requests(cluster)?;
    outcome.requests += FRESH;
    outcome.failed += failed;
    outcome.promise(failed == 0, || {
        format!("{failed} of {FRESH} requests failed after {nic} appeared")
    });
    cluster.start_server(node)?;
    cluster.wait_for_server(node)?;
    Ok(failed)
}

/// `conf.all` makes the kernel of a node speak, whatever its NICs have.
fn hindered(cluster: &mut Cluster, config: &str, outcome: &mut Outcome) -> Result<()> {
    set(cluster, 0, "all/arp_ignore", "4")?;
    until("status says what is in the way", PATIENCE, || {
        let text = cluster.vip(0, &["status", "-o", "wide"])?;
        Ok(text
            .contains("net.ipv4.conf.all.arp_ignore = 4")
            .then_some(()))
    })?;
    let mut check = cluster.host(0).command(cluster.programs().vip.as_os_str());
    let checked = check
        .args(["check", "--config", config])
        .output()
        .context("vip check")?;
    let text = String::from_utf8_lossy(&checked.stdout);
    let expected = format!("{SECOND} of this node answers for");
    outcome.promise(
        checked.status.code() == Some(1) && text.contains(&expected),
        || format!("vip check does not say that {expected}: {text}"),
    );
    set(cluster, 0, "all/arp_ignore", "0")?;
    until("it is silent again", PATIENCE, || {
        let now = setting(cluster, 0, &format!("{SECOND}/arp_ignore"))?;
        Ok((now == "1").then_some(()))
    })
}

/// The agents' settings are undone, and those of others stay.
fn undo(cluster: &mut Cluster, backup: usize, late: &str, outcome: &mut Outcome) -> Result<()> {
    // Somebody has another opinion, which is as strict: theirs now.
    set(cluster, backup, &format!("{late}/arp_announce"), "2")?;
    set(cluster, backup, &format!("{late}/arp_ignore"), "2")?;
    for node in cluster.nodes() {
        cluster.stop_agent(node)?;
        agent::cleanup(cluster.programs(), cluster.host(node))?;
    }
    for (node, path, expected) in [
        (0, format!("{SECOND}/arp_ignore"), "0"),
        (0, format!("{SECOND}/arp_announce"), "0"),
        (0, format!("{NIC}/arp_ignore"), "0"),
        (1, format!("{SECOND}/arp_ignore"), "2"),
        (1, format!("{SECOND}/arp_announce"), "0"),
        (backup, format!("{late}/arp_ignore"), "2"),
    ] {
        let found = setting(cluster, node, &path)?;
        outcome.promise(found == expected, || {
            format!(
                "{path} of {} is {found} and not {expected}",
                cluster.name(node)
            )
        });
    }
    for node in cluster.nodes() {
        cluster.start_agent(node)?;
    }
    cluster.wait_until_settled()
}
