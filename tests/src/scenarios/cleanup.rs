//! `vip cleanup` takes away all that an agent left: programs, pins, the address, files, whether
//! somebody reads what it prints or not.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::agent;
use crate::cluster::{Cluster, Plan};
use crate::hooks;
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test, When};
use crate::topology::{NIC, VIP, sh};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "cleanup",
    promise: "cleanup_leaves_nothing",
    tests: &[
        Test::netns(Plan::default).on_kernels(When::Asked),
        Test::shared_machines(When::Always),
    ],
    run,
};

/// What an agent may have left on a node, one line each.
fn traces(cluster: &Cluster, node: usize) -> Result<BTreeSet<String>> {
    let (host, programs) = (cluster.host(node), cluster.programs());
    let mut traces: BTreeSet<String> = hooks::on(host, programs, NIC)?.into_iter().collect();
    let addresses = output(host.command("ip".as_ref()).args(["-oneline", "addr"]))?;
    traces.extend(
        addresses
            .lines()
            .filter(|line| line.contains(&format!("{VIP}/")))
            .map(str::to_owned),
    );
    let files = output(host.command("find".as_ref()).args([
        "/sys/fs/bpf",
        "/run",
        "/var/lib",
        "-mindepth",
        "1",
    ]))?;
    traces.extend(files.lines().map(str::to_owned));
    // Nothing has changed these here but the agent.
    let settings = output(host.command("sh".as_ref()).args([
        "-c",
        "cd /proc/sys/net/ipv4/conf && grep . */arp_ignore */arp_announce",
    ]))?;
    let changed = settings.lines().filter(|line| !line.ends_with(":0"));
    traces.extend(changed.map(str::to_owned));
    Ok(traces)
}

/// Runs a command with outputs that nobody reads. Returns its exit code.
fn unread(command: &mut Command) -> Result<Option<i32>> {
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    drop(reader);
    let other = writer.try_clone().context("duplicate a pipe")?;
    command.stdin(Stdio::null()).stdout(writer).stderr(other);
    Ok(command.status().context("start it")?.code())
}

/// Agents that cannot start: before anything is in the kernel, and after maps and sockets are.
fn failed_start(cluster: &Cluster, outcome: &mut Outcome) -> Result<()> {
    const NODE: usize = 0;
    const BRIDGE: &str = "br9";
    let host = cluster.host(NODE);
    sh(
        host,
        &format!(
            "ip link add {BRIDGE} type bridge; ip link set {BRIDGE} up; ip address add 10.77.0.11/24 dev {BRIDGE}"
        ),
    )?;
    // A bridge runs no XDP program in its driver.
    for terms in ["bpffs = \"/proc/none\"", "mode = \"native\""] {
        let file = cluster.work().join("failing.toml");
        let text = format!(
            "vip = \"10.77.0.10\"\nnodes = [\"10.77.0.11\"]\ninterface = \"{BRIDGE}\"\n\
             [health]\ninsecure = true\n[datapath]\n{terms}\n"
        );
        std::fs::write(&file, text).context("write a configuration")?;
        let before = traces(cluster, NODE)?;
        let mut command = host.command("timeout".as_ref());
        command.arg("20").arg(&cluster.programs().vip);
        command.args(["run", "--config"]).arg(&file);
        let failed = command.output().context("start an agent that fails")?;
        outcome.promise(failed.status.code() == Some(1), || {
            format!("{terms}: {failed:?}")
        });
        let code = unread(command.args(["--log", "trace"]))?;
        outcome.promise(code == Some(1), || {
            format!("{terms}, with a log that nobody reads: {code:?}")
        });
        let after = traces(cluster, NODE)?;
        outcome.promise(before == after, || {
            format!("{terms}: it left {after:?} where there was {before:?}")
        });
    }
    sh(host, &format!("ip link del {BRIDGE}")).map(drop)
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("cleanup");
    // There the pipe without a reader belongs to the program that carries output out of the machine.
    let in_machines = cluster.plan().machines.is_some();
    for node in cluster.nodes() {
        let name = cluster.name(node);
        let during = traces(cluster, node)?;
        // Otherwise a test that sees nothing would find nothing afterwards.
        let address = format!("{VIP}/");
        for trace in [
            &["xdp"][..],
            &["tcx egress", "clsact"],
            &["/sys/fs/bpf/"],
            &["/run/vip/vip.pid"],
            &["/var/lib/vip/events.jsonl"],
            &[&address],
            &["arp_ignore:1"],
        ] {
            let seen = during
                .iter()
                .any(|line| trace.iter().any(|word| line.contains(word)));
            outcome.promise(seen, || {
                format!("a running agent shows no {trace:?} on {name}: {during:?}")
            });
        }
        cluster.stop_agent(node)?;
        // A command that takes the lock to look creates the file.
        sh(cluster.host(node), "rm /run/vip/vip.pid")?;
        let before = traces(cluster, node)?;
        let listed = cluster.vip(node, &["cleanup", "--dry-run"])?;
        let after = traces(cluster, node)?;
        outcome.promise(before == after, || {
            format!("--dry-run on {name} left {after:?} of {before:?}")
        });
        for expected in [
            "would set net.ipv4.conf.eth0.arp_ignore back to 0".to_owned(),
            format!("would remove address {VIP} on lo"),
        ] {
            outcome.promise(listed.contains(&expected), || {
                format!("no {expected:?} in what would be removed on {name}: {listed}")
            });
        }
        if in_machines {
            cluster.vip(node, &["cleanup"])?;
        } else {
            let vip = cluster.programs().vip.as_os_str();
            let code = unread(cluster.host(node).command(vip).arg("cleanup"))?;
            ensure!(code == Some(0), "vip cleanup on {name}: {code:?}");
        }
        let left = traces(cluster, node)?;
        outcome.promise(left.is_empty(), || format!("left on {name}: {left:?}"));
        timeline.event(format!(
            "{name}: {} traces of the agent before cleanup, {} after",
            during.len(),
            left.len()
        ));
        // With nothing there, it has nothing to do and does it.
        agent::cleanup(cluster.programs(), cluster.host(node))
            .with_context(|| format!("a second vip cleanup on {name}"))?;
    }
    if !in_machines {
        failed_start(cluster, &mut outcome)?;
        timeline.event("a start that fails leaves nothing");
    }
    for node in cluster.nodes() {
        cluster.start_agent(node)?;
    }
    cluster.wait_until_settled()?;
    Ok(outcome)
}
