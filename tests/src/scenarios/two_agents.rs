//! Two agents on each machine: one that needs what the other has is refused, and changes nothing;
//! one with another NIC and another VIP runs beside it, and neither notices the other.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};

use crate::agent::Status;
use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::hooks;
use crate::outcome::{Outcome, Timeline};
use crate::process::{Process, output};
use crate::scenario::{Scenario, Test};
use crate::topology::{NIC, PORT, Segment, VIP, sh};
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "two_agents",
    promise: "two_agents_on_a_machine_share_nothing_and_cut_no_watch",
    tests: &[Test::netns(Plan::default)],
    run,
};

/// The second NIC, its network, and the VIP there.
const SECOND: &str = "eth1";
const OTHER_VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 10);

/// Run directory of the second agent.
const RUN_DIR: &str = "/run/vip-b";

/// Its state directory.
const STATE_DIR: &str = "/var/lib/vip-b";

/// The address of the host with this number on the other network.
fn other_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, number)
}

/// A second agent's configuration.
fn config(vip: Ipv4Addr, nodes: &[String], run_dir: &str, more: &str) -> String {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("\"{node}\"")).collect();
    format!(
        "vip = \"{vip}:{PORT}\"\nnodes = [{}]\nrun_dir = \"{run_dir}\"\n{more}\n\
         [health]\ninsecure = true\n[http]\nlisten = \"127.0.0.1:9644\"\n",
        nodes.join(", ")
    )
}

/// Files and addresses that agents have put on a node.
fn traces(cluster: &Cluster, node: usize) -> Result<Vec<String>> {
    let host = cluster.host(node);
    let mut traces = hooks::on(host, cluster.programs(), NIC)?;
    traces.extend(hooks::on(host, cluster.programs(), SECOND)?);
    let mut find = host.command("find".as_ref());
    let files = output(find.args(["/sys/fs/bpf", "/run", "/var/lib", "-mindepth", "1"]))?;
    let mut ip = host.command("ip".as_ref());
    let addresses = output(ip.args(["-oneline", "-4", "address", "show", "dev", "lo"]))?;
    traces.extend(files.lines().chain(addresses.lines()).map(str::to_owned));
    traces.sort();
    Ok(traces)
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("two_agents");
    let traffic = Traffic::start(cluster, timeline)?;
    let segment = SecondSegment::plug(cluster)?;
    all_refused(cluster, &segment.nodes, &mut outcome)?;
    timeline.event("an agent that needs the NIC, VIP or state directory of another one is refused");

    let mut seconds = start_second_agents(cluster, &segment.nodes)?;
    both_serve(cluster, &mut outcome)?;
    timeline.event("a second agent serves another VIP on another NIC");

    for (node, agent) in cluster.nodes().into_iter().zip(&mut seconds) {
        end_second_agent(cluster, node, agent, &mut outcome)?;
    }
    cluster.wait_until_settled()?;
    traffic.finish(&mut outcome, None)?;
    Ok(outcome)
}

/// Nodes and client on another segment, by their second NICs.
struct SecondSegment {
    /// The nodes' addresses there.
    nodes: Vec<String>,
    /// For as long as programs send frames back.
    _cables: Vec<Vec<OwnedFd>>,
}

impl SecondSegment {
    fn plug(cluster: &Cluster) -> Result<Self> {
        let mut cables = Vec::new();
        let mut nodes = Vec::new();
        let mut hosts: Vec<(u8, _)> = vec![(100, cluster.topology.client.as_ref())];
        for node in cluster.nodes() {
            let number = 11 + u8::try_from(node).context("number the nodes")?;
            nodes.push(other_address(number).to_string());
            hosts.push((number, cluster.host(node)));
        }
        for (number, host) in hosts {
            cables.push(host.plug(SECOND, Segment::Second)?);
            let address = format!("{}/24", other_address(number));
            sh(
                host,
                &format!("ip address add {address} dev {SECOND}; ip link set {SECOND} up"),
            )?;
        }
        Ok(Self {
            nodes,
            _cables: cables,
        })
    }
}

/// Agents that need the NIC, the VIP or the state directory of the first.
fn all_refused(cluster: &Cluster, nodes: &[String], outcome: &mut Outcome) -> Result<()> {
    let own: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| cluster.host(*node).address().to_string())
        .collect();
    let second_nic = format!("interface = \"{SECOND}\"");
    for (name, text, wanted) in [
        (
            "the same NIC",
            config(Ipv4Addr::new(10, 0, 0, 20), &own, "/run/vip-c", ""),
            format!("{NIC} belongs to the agent that runs with run_dir = \"/run/vip\""),
        ),
        (
            "the same VIP",
            config(VIP, nodes, "/run/vip-c", &second_nic),
            format!("VIP {VIP} belongs to the agent that runs"),
        ),
        (
            "the same state directory",
            config(OTHER_VIP, nodes, "/run/vip-c", ""),
            "state directory /var/lib/vip belongs to another agent that runs".to_owned(),
        ),
    ] {
        refused(cluster, outcome, name, &text, &wanted)?;
    }
    Ok(())
}

/// Starts a second agent on each node, and waits until they have an owner and all nodes are ready.
fn start_second_agents(cluster: &Cluster, nodes: &[String]) -> Result<Vec<Process>> {
    let file = cluster.work().join("other.toml");
    let state_dir = format!("state_dir = \"{STATE_DIR}\"");
    std::fs::write(&file, config(OTHER_VIP, nodes, RUN_DIR, &state_dir))
        .context("write a configuration")?;
    let mut seconds = Vec::new();
    for node in cluster.nodes() {
        let host = cluster.host(node);
        let mut command = host.command(cluster.programs().vip.as_os_str());
        command.arg("run").arg("--config").arg(&file);
        let name = format!("second agent on {}", host.name());
        let log = cluster.work().join(format!("{}-second.log", host.name()));
        seconds.push(Process::daemon(&name, &mut command, &log)?);
    }
    until("the second agents have an owner", PATIENCE, || {
        for process in &mut seconds {
            ensure!(process.is_running(), "{} has ended", process.name());
        }
        let settled = cluster.nodes().into_iter().all(|node| {
            status(cluster, node).is_ok_and(|status| {
                status.owner.is_some()
                    && status.faults.is_empty()
                    && status.nodes.iter().all(|node| node.alive && node.ready)
            })
        });
        Ok(settled.then_some(()))
    })?;
    Ok(seconds)
}

/// The status of a node's second agent.
fn status(cluster: &Cluster, node: usize) -> Result<Status> {
    let text = cluster.vip(node, &["status", "--json", "--run-dir", RUN_DIR])?;
    Status::parse(&text)
}

/// Neither agent repairs what the other one did, and the second VIP is reached.
fn both_serve(cluster: &mut Cluster, outcome: &mut Outcome) -> Result<()> {
    // Some reconciliations.
    std::thread::sleep(std::time::Duration::from_secs(6));
    cluster.wait_until_settled()?;
    for node in cluster.nodes() {
        for (which, status) in [
            ("first", cluster.status(node)?),
            ("second", status(cluster, node)?),
        ] {
            let repairs: u64 = status.repairs.values().sum();
            outcome.promise(repairs == 0 && status.faults.is_empty(), || {
                format!("the {which} agent on {}: {status:?}", cluster.name(node))
            });
        }
    }
    let reached = |cluster: &Cluster| {
        let mut reach = cluster
            .topology
            .client
            .command(cluster.programs().testbed.as_os_str());
        output(reach.args(["reach", &SocketAddr::from((OTHER_VIP, PORT)).to_string()]))
    };
    for _ in 0..20 {
        reached(cluster).context("the second VIP")?;
    }
    Ok(())
}

/// Ends a node's second agent: `vip cleanup` takes away all of it, and nothing of the first.
fn end_second_agent(
    cluster: &Cluster,
    node: usize,
    agent: &mut Process,
    outcome: &mut Outcome,
) -> Result<()> {
    ensure!(agent.stop()?.success(), "{} fails", agent.name());
    let events = cluster.vip(node, &["events", "--run-dir", RUN_DIR])?;
    let last = events.lines().last().unwrap_or_default();
    outcome.promise(last.contains("agent stopped"), || {
        format!(
            "the second agent's events on {}: {events}",
            cluster.name(node)
        )
    });
    cluster.vip(node, &["cleanup", "--run-dir", RUN_DIR])?;
    let left = traces(cluster, node)?;
    let marks = [RUN_DIR, "vip-b", &format!("{OTHER_VIP}/")];
    let of_second = |trace: &&String| marks.iter().any(|mark| trace.contains(mark));
    let left: Vec<&String> = left.iter().filter(of_second).collect();
    outcome.promise(left.is_empty(), || {
        format!("left on {}: {left:?}", cluster.name(node))
    });
    let hooks = hooks::on(cluster.host(node), cluster.programs(), SECOND)?;
    // Of the network namespace, where the first agent still has its own.
    let wanted = ["socket lookup: 1 programs"];
    outcome.promise(hooks == wanted, || format!("left on {SECOND}: {hooks:?}"));
    Ok(())
}

/// An agent with this configuration says why it does not start, in one line, and changes nothing.
fn refused(
    cluster: &Cluster,
    outcome: &mut Outcome,
    name: &str,
    text: &str,
    wanted: &str,
) -> Result<()> {
    const NODE: usize = 0;
    let file = cluster.work().join("refused.toml");
    std::fs::write(&file, text).context("write a configuration")?;
    let before = traces(cluster, NODE)?;
    let mut command = cluster.host(NODE).command("timeout".as_ref());
    command.arg("20").arg(&cluster.programs().vip);
    let refused = command
        .args(["run", "--config"])
        .arg(&file)
        .output()
        .context("start a second agent")?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let is_right = refused.status.code() == Some(2)
        && said.trim_end().lines().count() == 1
        && said.contains(wanted);
    outcome.promise(is_right, || {
        format!("{name}: {}, and it said: {said}", refused.status)
    });
    let after = traces(cluster, NODE)?;
    outcome.promise(before == after, || {
        format!("{name}: it left {after:?} where there was {before:?}")
    });
    Ok(())
}
