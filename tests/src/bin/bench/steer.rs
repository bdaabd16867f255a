//! `cargo xtask bench steer`: what the XDP program costs a packet, in thread CPU time.
//!
//! `BPF_PROG_TEST_RUN` runs the product's own program many times in the kernel. Before each run
//! a small program makes the packet anew, with the next flow, and calls it (see
//! `vip-ebpf/src/bench.rs`). What making it anew costs is measured too, as the difference that
//! it makes to a program that does nothing, and taken off. All programs take turns, so that
//! noise of the machine meets all of them alike.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, ProgramArray};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use vip_common::layout::bench::Feed;
use vip_common::layout::{Counter, DEFAULT_BUCKETS, Mac, RankRow};
use vip_common::testing::{
    CLIENT, CLIENT_MAC, PORT, Segment, VIP, World, backend, node_address, node_mac,
};
use vip_common::wire::tcp;
use vip_userspace::datapath::{Datapath, Plan};
use vip_userspace::rank::{self, Identity};

use crate::report::{commit, machine, median, quantile, write_json};

/// A value of a map, for aya.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct FeedValue(Feed);

// SAFETY: `repr(transparent)` over a type that bytemuck knows to be plain old data.
unsafe impl aya::Pod for FeedValue {}

/// The floors, and the program that makes packets anew.
struct Floors(Ebpf);

impl Floors {
    fn load() -> Result<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/bench.o");
        let mut ebpf = EbpfLoader::new()
            .load_file(path)
            .with_context(|| format!("load {path} (`cargo xtask build-ebpf` makes it)"))?;
        for name in ["bench_feed", "bench_pass", "bench_tx"] {
            Self::program(&mut ebpf, name)?
                .load()
                .with_context(|| format!("load {name}"))?;
        }
        Ok(Self(ebpf))
    }

    fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
        let program = ebpf
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    /// What is called with each packet: one of the floors, or the product.
    fn aim(&mut self, target: Target, product: &mut Datapath) -> Result<()> {
        let fd = match target {
            Target::Product => product.ingress()?.fd()?.try_clone()?,
            Target::Pass => Self::program(&mut self.0, "bench_pass")?
                .fd()?
                .try_clone()?,
            Target::Tx => Self::program(&mut self.0, "bench_tx")?.fd()?.try_clone()?,
        };
        let map = self.0.map_mut("BENCH_TARGET").context("no BENCH_TARGET")?;
        ProgramArray::try_from(map)?.set(0, &fd, 0)?;
        Ok(())
    }

    fn feed(&mut self, flows: u32) -> Result<()> {
        let map = self.0.map_mut("BENCH_FEED").context("no BENCH_FEED")?;
        let feed = Feed {
            next: 0,
            flows,
            destination: node_mac(0),
            source: CLIENT_MAC,
        };
        Array::try_from(map)?.set(0, FeedValue(feed), 0)?;
        Ok(())
    }

    /// Thread CPU time a packet, in nanoseconds, and the last action.
    fn run(&mut self, program: &str, frame: &[u8], packets: u32) -> Result<(f64, u32)> {
        let program = Self::program(&mut self.0, program)?;
        let mut out = vec![0; frame.len() + 256];
        let before = thread_time()?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: packets,
            ..TestRunOptions::new()
        })?;
        let spent = thread_time()? - before;
        Ok((
            spent.as_nanos() as f64 / f64::from(packets),
            result.return_value,
        ))
    }
}

pub(super) fn thread_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(Duration::new(time.tv_sec() as u64, time.tv_nsec() as u32))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Pass,
    Tx,
    Product,
}

/// One line of the table.
struct Case {
    name: &'static str,
    target: Target,
    frame: Vec<u8>,
    flows: u32,
    /// `XDP_PASS` is 2, `XDP_TX` is 3 (include/uapi/linux/bpf.h).
    action: u32,
    /// What the product must have counted for each packet.
    counter: Option<Counter>,
    /// The most it may cost, in floors.
    goal: Option<f64>,
}

const PASS: u32 = 2;
const TX: u32 = 3;
const MANY: u32 = 1_000_000;

fn cases() -> Vec<Case> {
    let frame = |flags| {
        let mut frame = Segment::new(0, 1024, flags).build();
        // A full-sized frame would cost no more: only headers are touched.
        frame.resize(64, 0);
        frame
    };
    let other = Segment {
        destination: CLIENT,
        ..Segment::new(0, 1024, tcp::ACK)
    }
    .build();
    let case = |name, target, frame: &Vec<u8>, flows, action, counter, goal| Case {
        name,
        target,
        frame: frame.clone(),
        flows,
        action,
        counter,
        goal,
    };
    let (syn, ack) = (frame(tcp::SYN), frame(tcp::ACK));
    let mut cases = Vec::new();
    for flows in [1, MANY] {
        let segment = Some(Counter::ForwardedSegment);
        let opening = Some(Counter::ForwardedSyn);
        cases.extend([
            case(
                "floor: XDP_PASS",
                Target::Pass,
                &ack,
                flows,
                PASS,
                None,
                None,
            ),
            case(
                "floor: parse, swap, XDP_TX",
                Target::Tx,
                &ack,
                flows,
                TX,
                None,
                None,
            ),
            case(
                "not for a VIP",
                Target::Product,
                &other,
                flows,
                PASS,
                None,
                Some(1.15),
            ),
            case(
                "established, to another node",
                Target::Product,
                &ack,
                flows,
                TX,
                segment,
                Some(1.5),
            ),
            case(
                "SYN, to another node",
                Target::Product,
                &syn,
                flows,
                TX,
                opening,
                Some(1.5),
            ),
        ]);
    }
    cases
}

/// A line of the report. Times are nanoseconds of thread CPU time a packet.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    flows: u32,
    /// Median over the rounds, less what making the packet anew costs.
    median_ns: f64,
    /// The middle half of the rounds.
    quartiles_ns: [f64; 2],
    /// Median of the ratios to the `XDP_TX` floor of the same round.
    ratio: f64,
    goal: Option<f64>,
    met: Option<bool>,
}

#[derive(Serialize)]
struct Table {
    machine: String,
    kernel: String,
    commit: String,
    rounds: usize,
    packets: u32,
    /// What making the packet anew costs, taken off everywhere.
    feed_ns: BTreeMap<u32, f64>,
    rows: Vec<Row>,
}

pub(super) fn run(json: Option<PathBuf>, rounds: usize, packets: u32) -> Result<()> {
    ensure!(
        rounds > 0 && packets > 0,
        "--rounds and --packets must be at least 1"
    );
    // The socket that a node asked for one of its own flows would find.
    ip(&["link", "set", "lo", "up"])?;
    ip(&[
        "address",
        "add",
        &format!("{}/32", Ipv4Addr::from(VIP)),
        "dev",
        "lo",
    ])?;
    let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let mut product = product()?;
    let mut floors = Floors::load()?;
    let cases = cases();
    // Per case: the net times of the rounds; per number of flows: what the feed costs.
    let mut times = vec![Vec::new(); cases.len()];
    let mut feeds: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for round in 0..=rounds {
        let (direct, _) = floors.run("bench_pass", &cases[0].frame, packets)?;
        let mut feed = 0.0;
        for (case, times) in cases.iter().zip(&mut times) {
            floors.aim(case.target, &mut product)?;
            floors.feed(case.flows)?;
            let before = case
                .counter
                .map(|counter| product.counter(counter))
                .transpose()?;
            let (time, action) = floors.run("bench_feed", &case.frame, packets)?;
            ensure!(action == case.action, "{}: XDP action {action}", case.name);
            if let (Some(counter), Some(before)) = (case.counter, before) {
                let counted = product.counter(counter)? - before;
                ensure!(
                    counted == u64::from(packets),
                    "{}: {counted} counted",
                    case.name
                );
            }
            if case.target == Target::Pass {
                feed = time - direct;
            }
            // The first round warms caches and the clock of the CPU.
            if round > 0 {
                if case.target == Target::Pass {
                    feeds.entry(case.flows).or_default().push(feed);
                }
                times.push(time - feed);
            }
        }
    }
    let table = report(&cases, &times, feeds, rounds, packets)?;
    print(&table);
    write_json(json, &table)
}

/// The product's programs with the tables of three nodes, in which this one is never first: its
/// own flows are another path (a look into the socket table).
fn product() -> Result<Datapath> {
    let world = World::new(3, 0);
    let identities: Vec<_> = (0..3)
        .map(|node| Identity {
            address: node_address(node).into(),
            weight: 1,
        })
        .collect();
    let mut rows = rank::table(world.state.config.hash_key, &identities, DEFAULT_BUCKETS)?;
    for row in &mut rows {
        let mut order: Vec<_> = row.order(identities.len()).collect();
        if order[0] == backend(0) {
            order.swap(0, 1);
            *row = RankRow::new(order);
        }
    }
    let plan = Plan::of(&world.state, rows);
    let (product, mut state) = Datapath::load(None, &plan, 0)?;
    for node in 0..3 {
        state.set_mac(backend(node), Mac::from_wire(node_mac(node).to_wire()))?;
    }
    Ok(product)
}

fn report(
    cases: &[Case],
    times: &[Vec<f64>],
    feeds: BTreeMap<u32, Vec<f64>>,
    rounds: usize,
    packets: u32,
) -> Result<Table> {
    let mut rows = Vec::new();
    for (case, own) in cases.iter().zip(times) {
        let floor = cases
            .iter()
            .position(|floor| floor.target == Target::Tx && floor.flows == case.flows)
            .context("no floor")?;
        let ratio = median(
            own.iter()
                .zip(&times[floor])
                .map(|(own, floor)| own / floor)
                .collect(),
        );
        rows.push(Row {
            name: case.name,
            flows: case.flows,
            median_ns: median(own.clone()),
            quartiles_ns: [quantile(own.clone(), 0.25), quantile(own.clone(), 0.75)],
            ratio,
            goal: case.goal,
            met: case.goal.map(|goal| ratio <= goal),
        });
    }
    let name = nix::sys::utsname::uname()?;
    Ok(Table {
        machine: machine(),
        kernel: name.release().to_string_lossy().into_owned(),
        commit: commit(),
        rounds,
        packets,
        feed_ns: feeds
            .into_iter()
            .map(|(flows, times)| (flows, median(times)))
            .collect(),
        rows,
    })
}

fn print(table: &Table) {
    println!(
        "{}, Linux {}, commit {}",
        table.machine, table.kernel, table.commit
    );
    println!(
        "thread CPU time a packet, median of {} rounds of {} packets; making the packet anew is taken off: {}",
        table.rounds,
        table.packets,
        table
            .feed_ns
            .iter()
            .map(|(flows, time)| format!(
                "{time:.1} ns with {flows} flow{}",
                if *flows == 1 { "" } else { "s" }
            ))
            .collect::<Vec<_>>()
            .join(", ")
    );
    println!(
        "{:30} {:>9} {:>8} {:>15} {:>7} {:>6}",
        "", "flows", "ns", "quartiles", "ratio", "goal"
    );
    for row in &table.rows {
        println!(
            "{:30} {:>9} {:>8.1} {:>7.1} {:>7.1} {:>7.2} {}",
            row.name,
            row.flows,
            row.median_ns,
            row.quartiles_ns[0],
            row.quartiles_ns[1],
            row.ratio,
            match (row.goal, row.met) {
                (Some(goal), Some(true)) => format!("{goal:>6} met"),
                (Some(goal), _) => format!("{goal:>6} MISSED"),
                _ => String::new(),
            }
        );
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip")
        .args(arguments)
        .status()
        .context("run ip (iproute2)")?;
    ensure!(status.success(), "ip {arguments:?}: {status}");
    Ok(())
}
