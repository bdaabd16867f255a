//! The VIP is changed from one address to another, node by node: one answer to each question for
//! either of them, and none for the old one once no node has it.

use anyhow::{Context, Result};

use super::other_nics::run_on;
use crate::cluster::Cluster;
use crate::outcome::{Outcome, Report};
use crate::process::output;
use crate::topology::{NEXT_VIP as NEW, PORT, VIP};
use crate::traffic::{ArpMonitor, get, vip};

/// An address that the operator has put on `lo` of a node.
const OPERATORS: &str = "10.0.0.30/32";

/// Requests after each step.
const REQUESTS: usize = 15;

/// Makes requests, and returns how many failed.
fn failures(cluster: &Cluster, target: &str) -> usize {
    let client = cluster.topology.client.as_ref();
    (0..REQUESTS)
        .filter(|_| get(cluster, client, "/whoami", target).is_err())
        .count()
}

pub(super) fn run(cluster: &mut Cluster, report: &mut Report) -> Result<Outcome> {
    let mut outcome = Outcome::new("vip_changed");
    let nodes = cluster.nodes();
    for &node in &nodes {
        run_on(cluster, node, "echo 1 > /proc/sys/net/ipv4/ip_forward")?;
    }
    run_on(cluster, 0, &format!("ip address add {OPERATORS} dev lo"))?;
    let mut old = ArpMonitor::start(cluster, 5)?;
    let mut new = ArpMonitor::start_for(cluster, NEW, 5)?;
    let config = cluster.work().join("vip.toml");
    let text = std::fs::read_to_string(&config).context("read vip.toml")?;
    std::fs::write(&config, text.replace(&VIP.to_string(), &NEW.to_string()))
        .context("write vip.toml")?;
    for (step, &node) in nodes.iter().enumerate() {
        cluster.stop_agent(node)?;
        cluster.start_agent(node)?;
        let (changed, others) = nodes.split_at(step + 1);
        cluster.owner_among(changed)?;
        if !others.is_empty() {
            cluster.owner_among(others)?;
            let failed = failures(cluster, &vip());
            report.event(format!(
                "{} nodes are changed: {failed} of {REQUESTS} requests to {VIP} failed",
                changed.len()
            ));
            outcome.promise(failed == 0, || {
                format!("{failed} of {REQUESTS} requests to {VIP} failed after step {step}")
            });
        }
        let there = output(
            cluster
                .host(node)
                .command("ip".as_ref())
                .args(["-oneline", "address", "show", "dev", "lo"]),
        )?;
        outcome.promise(!there.contains(&format!("{VIP}/")), || {
            format!("{VIP} is still on lo of {}", cluster.name(node))
        });
        if node == 0 {
            outcome.promise(there.contains(OPERATORS), || {
                format!("{OPERATORS} was taken off lo: {there}")
            });
        }
    }
    let failed = failures(cluster, &format!("{NEW}:{PORT}"));
    outcome.promise(failed == 0, || {
        format!("{failed} of {REQUESTS} requests to {NEW} failed at the end")
    });
    let (seen, seen_new) = (old.report()?, new.report()?);
    for (address, seen) in [(VIP, &seen), (NEW, &seen_new)] {
        report.event(format!(
            "{address}: {} questions, {} with two answers, {} with none",
            seen.questions,
            seen.contradictions.len(),
            seen.silences
        ));
        super::promise_one_voice(&mut outcome, seen);
    }
    let answers = seen.speakers.last().map_or(0, |speaker| speaker.to);
    let asked = seen.questions;
    let later = old.wait("more questions for the old VIP", |seen| {
        seen.questions > asked + 200
    })?;
    let last = later.speakers.last().map_or(0, |speaker| speaker.to);
    outcome.promise(last == answers, || {
        format!(
            "somebody still answers for {VIP}: {:?}",
            later.speakers.last()
        )
    });
    Ok(outcome)
}
