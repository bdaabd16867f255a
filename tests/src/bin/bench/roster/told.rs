//! The owner's power is cut, and its clients send nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vip_tests::agent::Programs;
use vip_tests::clock::boot_now;
use vip_tests::idle::{Held, Tally};

use super::agents::{cluster, wait_until_known};
use super::clients::{self, Clients};
use crate::report::{Better, Column, Figure, Goal, Label, Report, Row, median};

/// Profiles: a name, and what is in the configuration.
const PROFILES: [(&str, &str); 2] = [
    ("default", ""),
    (
        "fast",
        "\n[bfd]\ninterval = \"35ms\"\n\n[datapath]\nreset_after = \"500ms\"\n",
    ),
];

/// Connections on all nodes, beside those of the node whose power is cut.
const OTHERS: usize = 3000;

/// Who has not been told after that time never is: the last question comes after 6 s.
const TOLD: Duration = Duration::from_secs(12);

/// After the last reset that is waited for, connections to living nodes are watched for so long.
const AFTER: Duration = Duration::from_secs(2);

/// One power cut.
struct Run {
    /// Milliseconds from the power cut to each reset, sorted.
    after: Vec<f64>,
    /// Connections to the node.
    held: usize,
    /// Connections to living nodes that ended.
    cut: usize,
}

impl Run {
    /// Milliseconds until this part of all clients were told; not a number if they never were.
    fn part(&self, part: f64) -> f64 {
        let place = (self.held as f64 * part).ceil() as usize;
        let time = self.after.get(place.saturating_sub(1));
        time.copied().unwrap_or(f64::NAN)
    }

    /// Per cent of the clients.
    fn told(&self) -> f64 {
        self.after.len() as f64 * 100.0 / self.held as f64
    }
}

fn run(programs: &Programs, more: &str, count: usize) -> Result<Run> {
    let mut cluster = cluster(programs, more)?;
    let victim = cluster.owner()?;
    let dead = cluster.name(victim);
    let mut peers = cluster.nodes();
    peers.retain(|peer| *peer != victim);
    let mut servers = Vec::new();
    for node in cluster.nodes() {
        servers.extend(clients::accept(&cluster, node, count + OTHERS)?);
    }
    let mut clients = Clients::default();
    for &peer in &peers {
        cluster.vip(peer, &["drain"])?;
    }
    clients.hold(&cluster, count)?;
    for &peer in &peers {
        cluster.vip(peer, &["undrain"])?;
    }
    cluster.wait_until_settled()?;
    clients.hold(&cluster, OTHERS)?;
    let before = clients.tally()?;
    let held = on(&before, &dead).opened;
    ensure!(held >= count, "{held} clients are on {dead}: {before:?}");
    wait_until_known(&cluster, victim, &peers, held)?;

    let at = boot_now();
    cluster.power_off(victim)?;
    let begin = Instant::now();
    let mut after = clients.tally()?;
    while on(&after, &dead).resets.len() < held && begin.elapsed() < TOLD {
        std::thread::sleep(Duration::from_millis(200));
        after = clients.tally()?;
    }
    std::thread::sleep(AFTER);
    let after = clients.tally()?;
    let mut resets = on(&after, &dead).resets;
    resets.sort_unstable();
    let after_cut = |time: &u64| time.saturating_sub(at) as f64 / 1e6;
    let living = after.servers.iter().filter(|(server, _)| **server != dead);
    Ok(Run {
        after: resets.iter().map(after_cut).collect(),
        held,
        cut: living.map(|(_, held)| held.ended()).sum(),
    })
}

fn on(tally: &Tally, server: &str) -> Held {
    tally.servers.get(server).cloned().unwrap_or_default()
}

const LABELS: &[Label] = &[Label::new("profile", 8)];

pub(super) fn measure(programs: &Programs, runs: usize, count: usize) -> Result<Report> {
    let column = |name, unit, decimals| Column::new(name, unit, Better::Lower, decimals);
    let columns = vec![
        column("first", "ms", 0),
        column("half", "ms", 0),
        column("99 %", "ms", 0),
        column("last", "ms", 0),
        Column::new("told", "%", Better::Higher, 2),
        column("living cut", "", 0),
    ];
    let title = format!(
        "the owner's power is cut, with {count} idle clients and some of {OTHERS} more; medians of \
         {runs} runs, told and cut: the worst"
    );
    let mut report = Report::new(title, LABELS, columns);
    report.print_head();
    let mut found: [Vec<Run>; PROFILES.len()] = [const { Vec::new() }; PROFILES.len()];
    for _ in 0..runs {
        for ((_, more), found) in PROFILES.iter().zip(&mut found) {
            found.push(run(programs, more, count)?);
        }
    }
    for ((name, _), runs) in PROFILES.iter().zip(&found) {
        let parts = [0.0, 0.5, 0.99, 1.0].map(|part| {
            let times: Vec<f64> = runs.iter().map(|run| run.part(part)).collect();
            Figure::new(median(&times))
        });
        let told = runs.iter().map(Run::told).fold(100.0, f64::min);
        let cut = runs.iter().map(|run| run.cut).max().unwrap_or(0);
        let row = Row {
            labels: vec![(*name).to_owned()],
            figures: [&parts[..], &[Figure::new(told), Figure::count(cut)]].concat(),
            goals: vec![
                Goal::new("all told".to_owned(), told == 100.0),
                Goal::new("none of the living cut".to_owned(), cut == 0),
            ],
        };
        report.print_row(&row);
        report.add(row);
    }
    Ok(report)
}
