//! Idle connections on one node.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vip_tests::agent::Programs;
use vip_tests::cluster::Cluster;

use super::agents::{THREAD, agent_time, cluster, resident, wait_until_known};
use super::clients::{self, Clients};
use crate::report::{Better, Column, Figure, Goal, Label, Report, Row};

/// What a node's agent has done so far.
struct Reading {
    at: Instant,
    /// Nanoseconds of the thread, and of the whole agent.
    thread: u64,
    agent: u64,
    scans: u64,
    scan_seconds: f64,
}

impl Reading {
    fn new(cluster: &Cluster, node: usize) -> Result<Self> {
        let rosters = cluster.status(node)?.rosters.clone();
        let rosters = rosters.context("the agent keeps no roster")?;
        Ok(Self {
            at: Instant::now(),
            thread: cluster.agent_thread_time(node, THREAD)?,
            agent: agent_time(cluster, node)?,
            scans: rosters.scans,
            scan_seconds: rosters.scan_seconds,
        })
    }
}

const LABELS: &[Label] = &[Label::new("connections", 11)];

pub(super) fn measure(programs: &Programs, steps: &[usize], seconds: u32) -> Result<Report> {
    let column = |name, unit, decimals| Column::new(name, unit, Better::Lower, decimals);
    let columns = vec![
        column("known", "s", 1),
        column("scan", "ms", 2),
        Column::new("scans", "/s", Better::Neither, 2),
        column("thread", "per mille", 2),
        column("peer's", "per mille", 2),
        column("agent", "per mille", 1),
        column("memory", "MiB", 1),
        column("peer's", "MiB", 1),
    ];
    let title = "idle connections on one node of three".to_owned();
    let mut report = Report::new(title, LABELS, columns);
    report.print_head();
    let mut cluster = cluster(programs, "")?;
    let node = cluster.owner()?;
    let mut peers = cluster.nodes();
    peers.retain(|peer| *peer != node);
    for &peer in &peers {
        cluster.vip(peer, &["drain"])?;
    }
    let most = steps.iter().copied().max().unwrap_or(0);
    let _servers = clients::accept(&cluster, node, most)?;
    let mut clients = Clients::default();
    let mut open = 0;
    for &step in steps {
        ensure!(step >= open, "steps must rise");
        clients.hold(&cluster, step - open)?;
        open = step;
        let begin = Instant::now();
        wait_until_known(&cluster, node, &peers, open)?;
        let known = begin.elapsed().as_secs_f64();
        let [before, peer_before] = both(&cluster, node, peers[0])?;
        std::thread::sleep(Duration::from_secs(seconds.into()));
        let [after, peer_after] = both(&cluster, node, peers[0])?;
        let tally = clients.tally()?;
        let elsewhere = tally
            .servers
            .iter()
            .find(|(server, held)| **server != cluster.name(node) || held.ended() > 0);
        ensure!(elsewhere.is_none(), "not all are on one node");
        let elapsed = (after.at - before.at).as_secs_f64();
        let per_mille = |before: u64, after: u64| (after - before) as f64 / 1e6 / elapsed;
        let scans = (after.scans - before.scans) as f64;
        let thread = per_mille(before.thread, after.thread);
        let row = Row {
            labels: vec![open.to_string()],
            figures: vec![
                Figure::new(known),
                Figure::new((after.scan_seconds - before.scan_seconds) / scans * 1e3),
                Figure::new(scans / elapsed),
                Figure::new(thread),
                Figure::new(per_mille(peer_before.thread, peer_after.thread)),
                Figure::new(per_mille(before.agent, after.agent)),
                Figure::new(resident(&cluster, node)?),
                Figure::new(resident(&cluster, peers[0])?),
            ],
            goals: vec![Goal::new(
                "thread within 2 % of a core".to_owned(),
                thread <= 20.0,
            )],
        };
        report.print_row(&row);
        report.add(row);
    }
    Ok(report)
}

fn both(cluster: &Cluster, node: usize, peer: usize) -> Result<[Reading; 2]> {
    Ok([Reading::new(cluster, node)?, Reading::new(cluster, peer)?])
}
