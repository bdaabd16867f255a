//! `cargo xtask bench steer`: what the programs cost a packet, in thread CPU time.
//!
//! `BPF_PROG_TEST_RUN` runs the product's own programs many times in the kernel. Before each run
//! a small program makes the packet anew, with the next flow, and calls them (see
//! `vip-ebpf/src/bench.rs`). What making it anew costs is measured too, as the difference that
//! it makes to a program that does nothing, and taken off. All programs take turns, so that
//! noise of the machine meets all of them alike.

mod cases;
mod connections;
mod floors;
mod products;
mod table;

use std::path::PathBuf;

use anyhow::{Result, ensure};

pub(crate) use self::cases::{Flows, Hook, Target, Traffic, client};
pub(crate) use self::connections::ip;
pub(crate) use self::floors::{Floors, thread_time};
pub(crate) use self::products::{Products, Setup};

use self::cases::Case;
use self::connections::Connections;
use self::floors::Entry;
use self::table::{Table, Times};
use crate::report::Report;

/// Arguments of `bench steer`.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How often all programs take their turn
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Packets a turn
    #[arg(long, default_value_t = 1_000_000)]
    packets: u32,
    /// Only one flow, in the driver, in the usual configuration
    #[arg(long)]
    few: bool,
}

pub(super) fn run(options: Options) -> Result<()> {
    let cases = if options.few {
        cases::few()
    } else {
        cases::all()
    };
    let report = measure_cases(&cases, options.rounds, options.packets)?;
    report.print();
    report.write_json(options.json)
}

pub(super) fn measure(rounds: usize, packets: u32) -> Result<Report> {
    measure_cases(&cases::all(), rounds, packets)
}

fn measure_cases(cases: &[Case], rounds: usize, packets: u32) -> Result<Report> {
    ensure!(
        rounds > 0 && packets > 0,
        "--rounds and --packets must be at least 1"
    );
    let flows = cases.iter().map(|case| case.traffic.flows);
    let few = flows.clone().all(|flows| flows == Flows::One);
    let _connections = Connections::open(if few { Flows::One } else { Flows::Connections })?;
    let setups = cases.iter().filter_map(|case| match case.target {
        Target::Product(setup) => Some(setup),
        Target::Pass | Target::Send => None,
    });
    let mut bench = Bench {
        products: Products::load(setups)?,
        floors: Floors::load()?,
        ballast: vec![0; BALLAST],
    };
    let mut times: Vec<_> = cases.iter().map(|_| Times::default()).collect();
    for round in 0..=rounds {
        for (case, times) in cases.iter().zip(&mut times) {
            let fed = bench.fed(case, packets)?;
            let direct = match case.target {
                Target::Pass => Some(bench.turn(case, Entry::Pass, packets)?),
                Target::Send | Target::Product(_) => None,
            };
            // The first round warms caches and the clock of the CPU.
            if round > 0 {
                times.fed.push(fed);
                times.direct.extend(direct);
            }
        }
    }
    let title = format!(
        "thread CPU time a packet, median of {rounds} rounds of {packets} packets (cold: {}); \
         making the packet anew is taken off",
        Slices::of(Flows::Cold, packets).packets()
    );
    let (cases, times) = (cases, &times);
    Table { cases, times }.report(title)
}

/// How a turn's packets are divided.
#[derive(Clone, Copy)]
struct Slices {
    count: u32,
    /// Packets of each.
    size: u32,
}

impl Slices {
    /// Packets between two evictions of the caches, and the most slices of a turn.
    const COLD: Self = Self {
        count: 10,
        size: 20_000,
    };

    fn of(flows: Flows, packets: u32) -> Self {
        match flows {
            Flows::One | Flows::Connections | Flows::Million => Self {
                count: 1,
                size: packets,
            },
            Flows::Cold => Self {
                count: (packets / Self::COLD.size).clamp(1, Self::COLD.count),
                size: packets.min(Self::COLD.size),
            },
        }
    }

    fn packets(self) -> u32 {
        self.count * self.size
    }
}

/// This part of a turn's packets comes before it, so that caches are warm.
const WARM_UP: u32 = 20;

/// Words that are written to evict the caches: 64 MiB, more than a third-level cache has.
const BALLAST: usize = 64 << 17;

/// Words of a cache line.
const LINE: usize = 8;

struct Bench {
    products: Products,
    floors: Floors,
    ballast: Vec<u64>,
}

impl Bench {
    /// A turn of the program under test, with packets made anew. The product must count all.
    fn fed(&mut self, case: &Case, packets: u32) -> Result<f64> {
        self.floors.aim(case, &mut self.products)?;
        if case.traffic.flows != Flows::Cold {
            // The case before has left other things in the caches.
            self.turn(case, Entry::Feed, packets.div_ceil(WARM_UP))?;
        }
        let before = self.counted(case)?;
        let time = self.turn(case, Entry::Feed, packets)?;
        let seen = self.counted(case)? - before;
        let wanted = Slices::of(case.traffic.flows, packets).packets();
        ensure!(
            case.counter.is_none() || seen == u64::from(wanted),
            "{}: {seen} counted",
            case.name
        );
        Ok(time)
    }

    /// What the product has counted so far; 0 if it should not count.
    fn counted(&mut self, case: &Case) -> Result<u64> {
        match (case.target, case.counter) {
            (Target::Product(setup), Some(counter)) => {
                Ok(self.products.get(setup)?.counter(counter)?)
            }
            _ => Ok(0),
        }
    }

    /// Thread CPU time a packet, in nanoseconds.
    fn turn(&mut self, case: &Case, entry: Entry, packets: u32) -> Result<f64> {
        let slices = Slices::of(case.traffic.flows, packets);
        let (hook, frame) = (case.traffic.hook, case.frame());
        let mut sum = 0.0;
        for _ in 0..slices.count {
            if case.traffic.flows == Flows::Cold {
                for line in self.ballast.chunks_mut(LINE) {
                    line[0] += 1;
                }
            }
            let (time, action) = self.floors.run(hook, entry, &frame, slices.size)?;
            ensure!(action == case.action(), "{}: action {action}", case.name);
            sum += time;
        }
        Ok(sum / f64::from(slices.count))
    }
}
