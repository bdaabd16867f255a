//! `cargo xtask bench members`: a cluster without a list, of several sizes.
//!
//! - `serves`: from the start of a newcomer's agent to the first connection that its server gets.
//! - `table`: a rank table for so many members is made, in a thread of its own.
//! - `hello`: what hellos cost at rest, as a part of a core on each node: the thread that receives
//!   them, and what it takes to seal and send one, as often as they are sent.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vip_common::abi::BackendIndex;
use vip_node::envelope;
use vip_node::hello::Hello;
use vip_node::rank::{Identity, table_of_slots};
use vip_node::seal::{KeyRing, Secret};
use vip_node::slots::Slots;
use vip_tests::agent::Programs;
use vip_tests::clock::{boot_now, until};
use vip_tests::cluster::{Cluster, PATIENCE, Pace, Plan};
use vip_tests::outcome::Timeline;
use vip_tests::traffic::{Load, vip};

use crate::report::{Better, Column, Figure, Goal, Label, Report, Row, median};

/// What to run.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Newcomers that are measured for each size
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds of rest in which hellos are measured
    #[arg(long, default_value_t = 30)]
    rest: u64,
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Members of the clusters, the newcomer among them.
const SIZES: [u8; 3] = [3, 7, 16];

/// Milliseconds between two requests of the client.
const EVERY_MS: u64 = 10;

/// The thread of an agent that receives hellos.
const THREAD: &str = "vip-hello";

/// With 16 agents on one machine the default intervals would be what is measured: they have calm ones,
/// with which a newcomer joins for 3 s.
fn plan(size: u8) -> Plan {
    let usual = Plan::found_by(size - 1, size, "");
    let usual = Plan {
        keyed: true,
        ..usual
    };
    if size < 16 {
        return usual;
    }
    Plan {
        interval: Pace::CALM.interval.to_owned(),
        more: Pace::CALM.bfd.to_owned(),
        ..usual
    }
}

/// Milliseconds from the start of a newcomer's agent to the first connection that its server gets.
fn serves(cluster: &mut Cluster, newcomer: usize) -> Result<f64> {
    let client = cluster.topology.client.as_ref();
    let load = Load::start_at(cluster, client, &vip(), EVERY_MS, 0)?;
    let began = boot_now();
    cluster.arrive(newcomer)?;
    let name = cluster.name(newcomer);
    let first = until("the newcomer serves", PATIENCE, || {
        let requests = load.requests()?;
        let served = requests
            .iter()
            .filter(|one| one.server.as_ref() == Some(&name));
        Ok(served.filter_map(|one| one.connected).min())
    })?;
    load.stop()?;
    Ok(first.saturating_sub(began) as f64 / 1e6)
}

fn members(size: u8) -> impl Iterator<Item = (BackendIndex, IpAddr)> {
    let address = |place: u8| IpAddr::from(Ipv4Addr::new(10, 0, 0, 11 + place));
    (0..size).filter_map(move |place| Some((BackendIndex::new(place.into())?, address(place))))
}

/// Milliseconds to make a rank table.
fn table(size: u8) -> Result<f64> {
    let identities: Slots<Identity> = members(size)
        .map(|(slot, address)| (slot, Identity { address, weight: 1 }))
        .collect();
    let began = Instant::now();
    let rows = table_of_slots([1, 2], &identities).context("make a rank table")?;
    let took = began.elapsed();
    ensure!(!rows.is_empty(), "a rank table has rows");
    Ok(took.as_secs_f64() * 1e3)
}

/// Nanoseconds to write and seal a hello of so many members.
fn seal(size: u8) -> Result<f64> {
    const TIMES: u32 = 10_000;
    let members: Vec<IpAddr> = members(size).map(|(_, address)| address).collect();
    let hello = Hello {
        text: "x".repeat(150),
        ..Hello::sample(&members)
    };
    let keys = KeyRing::new(&Secret::new([7; 32]), None).context("a key")?;
    let from = IpAddr::from(Ipv4Addr::new(10, 0, 0, 11));
    let began = Instant::now();
    for number in 0..TIMES {
        let nonce = [number as u8; 24];
        let sealed = envelope::wrap(Some(&keys), nonce, from, &hello);
        ensure!(sealed.is_some(), "a hello fits");
    }
    Ok(began.elapsed().as_nanos() as f64 / f64::from(TIMES))
}

/// Nanoseconds that a node's agent has received hellos for, and the datagrams that it has sent.
fn cost(cluster: &Cluster, node: usize) -> Result<(u64, u64)> {
    let time = cluster.agent_thread_time(node, THREAD)?;
    let status = cluster.status(node)?;
    let sent = status.membership.as_ref().map_or(0, |them| them.sent);
    Ok((time, sent))
}

/// What hellos cost at rest, in per mille of a core on each node.
fn rest(cluster: &Cluster, size: u8, seconds: u64) -> Result<f64> {
    /// A system call that sends a datagram over a veth, in nanoseconds, at most.
    const SEND: f64 = 10_000.0;
    let all = |cluster: &Cluster| {
        let costs = cluster.nodes().into_iter().map(|node| cost(cluster, node));
        costs.collect::<Result<Vec<_>>>()
    };
    let before = all(cluster)?;
    std::thread::sleep(Duration::from_secs(seconds));
    let after = all(cluster)?;
    let (sealing, nodes) = (seal(size)?, before.len() as f64);
    // Each hello is sealed once, and goes to each other member and to the group.
    let nanoseconds = before.iter().zip(&after).map(|(before, after)| {
        let datagrams = (after.1 - before.1) as f64;
        (after.0 - before.0) as f64 + datagrams * (SEND + sealing / f64::from(size))
    });
    let share = nanoseconds.sum::<f64>() / nodes / (seconds as f64 * 1e9);
    Ok(share * 1e3)
}

const LABELS: &[Label] = &[Label::new("members", 8)];

pub(super) fn run(options: &Options) -> Result<()> {
    ensure!(
        options.runs > 0 && options.rest > 0,
        "nothing to be measured"
    );
    let programs = Programs::find()?;
    let column = |name, unit, decimals| Column::new(name, unit, Better::Lower, decimals);
    let columns = vec![
        column("serves", "ms", 0),
        column("table", "ms", 1),
        column("hello", "per mille", 2),
    ];
    let title = "a cluster without a list, all nodes on one machine".to_owned();
    let mut report = Report::new(title, LABELS, columns);
    report.print_head();
    for size in SIZES {
        let (mut times, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..options.runs {
            let mut cluster = Cluster::start(&programs, plan(size), &mut Timeline::new(false))?;
            times.push(serves(&mut cluster, usize::from(size) - 1)?);
            if cpu.is_empty() {
                cluster.wait_until_settled()?;
                cpu.push(rest(&cluster, size, options.rest)?);
            }
        }
        let tables = (0..21).map(|_| table(size)).collect::<Result<Vec<_>>>()?;
        let (table, cpu) = (median(&tables), median(&cpu));
        let row = Row {
            labels: vec![size.to_string()],
            figures: vec![
                Figure::new(median(&times)),
                Figure::new(table),
                Figure::new(cpu),
            ],
            goals: vec![
                Goal::new("table within 50 ms".to_owned(), table <= 50.0),
                Goal::new("hellos within 1 per mille of a core".to_owned(), cpu <= 1.0),
            ],
        };
        report.print_row(&row);
        report.add(row);
    }
    report.write_json(options.json.clone())
}
