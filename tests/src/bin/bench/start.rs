//! `cargo xtask bench start`: how long agents take to start, with real clocks and real verifiers.
//!
//! - `cold`: three nodes start their first agents at the same time; until a client is connected to
//!   the VIP. 300 ms of it are address probes and the wait for another owner's advertisement.
//! - `restart`: an agent is killed and starts again at once, and adopts what it left; until it says
//!   that it has started.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vip_tests::agent::Programs;
use vip_tests::clock::{boot_now, until};
use vip_tests::cluster::{Cluster, PATIENCE, Plan};
use vip_tests::load::Request;
use vip_tests::outcome::Timeline;
use vip_tests::traffic::{Load, vip};

use crate::report::{Better, Column, Figure, Goal, Label, Report, Row, median, quantile};

/// What to run.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Clusters; in each, every agent is started twice
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Milliseconds between two requests of the client. Those that wait for the VIP all come at once.
const EVERY_MS: u64 = 20;

/// An agent that adopts what was there says so in its log.
const ADOPTED: &str = "took over from an earlier agent";

/// Milliseconds from the start of three agents to the first connection to the VIP.
fn cold(cluster: &mut Cluster) -> Result<f64> {
    let client = cluster.topology.client.as_ref();
    let load = Load::start_at(cluster, client, &vip(), EVERY_MS, 0)?;
    // Until the client's program is there.
    std::thread::sleep(Duration::from_millis(300));
    let began = boot_now();
    for node in cluster.nodes() {
        cluster.start_agent(node)?;
    }
    until("the VIP serves", PATIENCE, || {
        Ok(load
            .requests()?
            .iter()
            .any(Request::succeeded)
            .then_some(()))
    })?;
    let requests = load.stop()?;
    let answered = requests.iter().filter(|request| request.succeeded());
    // All that waited are answered at the same time, which takes their server its own time.
    let first = answered.filter_map(|request| request.connected).min();
    let first = first.context("a client was connected")?;
    Ok(first.saturating_sub(began) as f64 / 1e6)
}

/// Milliseconds from the start of an agent to its word that it has started and adopted.
fn restart(cluster: &mut Cluster, node: usize) -> Result<f64> {
    let log = cluster.agent_log(node);
    let told = || -> Result<usize> {
        let text = std::fs::read_to_string(&log).context("read the agent's log")?;
        Ok(text.matches(ADOPTED).count())
    };
    cluster.kill_agent(node);
    let before = told()?;
    let began = Instant::now();
    cluster.start_agent(node)?;
    while told()? <= before {
        ensure!(began.elapsed() < PATIENCE, "the agent does not adopt");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

const LABELS: &[Label] = &[Label::new("start", 8)];

fn row(name: &str, goal: f64, times: &[f64]) -> Row {
    let middle = median(times);
    Row {
        labels: vec![name.to_owned()],
        figures: vec![
            Figure::count(times.len()),
            Figure::new(middle),
            Figure::new(quantile(times, 1.0)),
        ],
        goals: vec![Goal::new(format!("median {goal} ms"), middle <= goal)],
    }
}

pub(super) fn run(options: &Options) -> Result<()> {
    ensure!(options.runs > 0, "--runs must be at least 1");
    let programs = Programs::find()?;
    let (mut cold_starts, mut restarts) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        let mut cluster = Cluster::start(&programs, Plan::bare(), &mut Timeline::new(false))?;
        cold_starts.push(cold(&mut cluster)?);
        cluster.wait_until_settled()?;
        for node in cluster.nodes() {
            restarts.push(restart(&mut cluster, node)?);
            cluster.wait_until_settled()?;
        }
    }
    let column = |name, unit, decimals| Column::new(name, unit, Better::Lower, decimals);
    let columns = vec![
        column("starts", "", 0),
        column("median", "ms", 0),
        column("worst", "ms", 0),
    ];
    let title = "how long agents take to start, three nodes on one machine".to_owned();
    let mut report = Report::new(title, LABELS, columns);
    report.print_head();
    for row in [
        row("cold", 600.0, &cold_starts),
        row("restart", 200.0, &restarts),
    ] {
        report.print_row(&row);
        report.add(row);
    }
    report.write_json(options.json.clone())
}
