//! What several scenarios do and promise.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use crate::arp::ArpReport;
use crate::cluster::Cluster;
use crate::outcome::{Outcome, Timeline};
use crate::process::{Process, output};
use crate::topology::{VIP, mac};

/// Longer than a test.
const HOUR: &str = "3600000";

/// All nodes with power but one.
pub(super) fn others_than(cluster: &Cluster, node: usize) -> Vec<usize> {
    let mut others = cluster.nodes();
    others.retain(|other| *other != node);
    others
}

/// At no time did two nodes answer for the VIP, and no host learned a wrong address of it.
pub(super) fn promise_one_answer(outcome: &mut Outcome, seen: &ArpReport) {
    let twice = &seen.contradictions;
    outcome.promise(twice.is_empty(), || {
        let first = &twice[..twice.len().min(4)];
        format!("{} questions had two answers: {first:?}", twice.len())
    });
    outcome.promise(seen.leaks.is_empty(), || format!("leaks: {:?}", seen.leaks));
}

/// A node other than the owner, whose failure is one of a server and not of an owner.
pub(super) fn another_than(cluster: &Cluster, owner: usize) -> usize {
    cluster
        .nodes()
        .into_iter()
        .find(|node| *node != owner)
        .unwrap_or(owner)
}

/// Starts processes on a node that always want a CPU. They end when they are dropped.
pub(super) fn keep_busy(cluster: &Cluster, node: usize, count: usize) -> Result<Vec<Process>> {
    let log = cluster.work().join("busy.log");
    let spin = |_| {
        let mut command = cluster.host(node).command("sh".as_ref());
        command.args(["-c", "while :; do :; done"]);
        Process::daemon("a busy process", &mut command, &log)
    };
    (0..count).map(spin).collect()
}

/// Starts a second server on each node, at this port. They end when they are dropped.
pub(super) fn serve_beside(cluster: &Cluster, port: u16) -> Result<Vec<Process>> {
    let log = cluster.work().join("service.log");
    let serve = |node: usize| {
        let host = cluster.host(node);
        let mut command = host.command(cluster.programs().testbed.as_os_str());
        command
            .args(["serve", "--name", &cluster.name(node), "--port"])
            .arg(port.to_string())
            .arg("--pki")
            .arg(cluster.pki().directory());
        Process::daemon("the server of a service", &mut command, &log)
    };
    cluster.nodes().into_iter().map(serve).collect()
}

/// Records what agents send to a node, until the process ends.
pub(super) fn record(cluster: &Cluster, node: usize, name: &str) -> Result<(Process, PathBuf)> {
    let host = cluster.host(node);
    let mut command = host.command(cluster.programs().testbed.as_os_str());
    command.args(["record", "--own", &host.address().to_string()]);
    command.args(["--millis", HOUR]);
    let file = cluster.work().join(name);
    let process = Process::daemon("a host that records", &mut command, &file)?;
    Ok((process, file))
}

/// Has the client send a node what was recorded there, as it was and in many changed forms. Returns what
/// was sent.
pub(super) fn replay(cluster: &Cluster, victim: usize, recorded: &Path) -> Result<String> {
    let client = cluster.topology.client.as_ref();
    let mut forge = client.command(cluster.programs().testbed.as_os_str());
    forge.args(["forge", "--vip", &VIP.to_string()]);
    forge.args(["--mac", &mac(cluster.host(victim))?]);
    forge.args(["--own", &client.address().to_string()]);
    let sent = output(forge.arg("--recorded").arg(recorded))?;
    Ok(sent.lines().collect::<Vec<_>>().join(", "))
}

/// How often the agents' logs hold a text.
pub(super) fn logged(cluster: &Cluster, text: &str) -> usize {
    cluster.logs().matches(text).count()
}

/// A command that drains a node and waits for the end of its connections ends, and does nothing more,
/// when somebody undrains the node. Clients must be connected all the time.
pub(super) fn undrain_meanwhile(
    cluster: &mut Cluster,
    timeline: &mut Timeline,
    outcome: &mut Outcome,
    node: usize,
    arguments: &[&str],
) -> Result<()> {
    let name = cluster.name(node);
    let vip = cluster.programs().vip.as_os_str();
    let mut command = cluster.host(node).command(vip);
    command.args(arguments);
    let waiting = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Without a client, it would be at its end by then.
    sleep(Duration::from_secs(3));
    cluster.vip(node, &["undrain"])?;
    let done = waiting.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    let is_told = said.lines().count() == 1 && said.contains("was undrained");
    outcome.promise(is_told && done.status.code() == Some(1), || {
        format!("undrained, {arguments:?} on {name} ended with {done:?}")
    });
    timeline.event(format!("{arguments:?} on {name} ended by `vip undrain`"));
    cluster.wait_until_settled()
}
