//! `cargo xtask bench`: one file a benchmark.

mod calm;
mod connections;
mod docs;
mod failover;
mod live;
mod members;
mod ranks;
mod report;
mod roster;
mod start;
mod steer;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vip_tests::isolation;

use crate::connections::Balancer;

/// Benchmarks of vip
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// What steering costs a packet
    Steer(steer::Options),
    /// How many real frames a core sends on, beside a bare `XDP_TX`
    Live {
        /// Write the figures there too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// How often all programs take their turn
        #[arg(long, default_value_t = 15)]
        rounds: usize,
        /// Frames a turn
        #[arg(long, default_value_t = 2_000_000)]
        frames: u32,
    },
    /// What a connection costs more by the VIP, beside HAProxy and nftables
    Connections {
        /// Write the figures there too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// How often all balancers take their turn
        #[arg(long, default_value_t = 9)]
        rounds: usize,
        /// Connections a turn
        #[arg(long, default_value_t = 10_000)]
        connections: u32,
        /// Ways that are compared
        #[arg(long, value_delimiter = ',', default_values = Balancer::USUAL.iter().map(|balancer| balancer.name()))]
        balancers: Vec<Balancer>,
    },
    /// Instructions of `steer` on several kernels, or of `connections` beside IPVS, in virtual
    /// machines whose clocks count them
    Vm(vm::Options),
    /// Run `steer`, `live` and `connections`, and write docs/benchmarks-packet-path.md; draw
    /// docs/benchmarks.svg anew
    Docs {
        /// How often everything takes its turn
        #[arg(long, default_value_t = 9)]
        rounds: usize,
        /// Packets a turn
        #[arg(long, default_value_t = 1_000_000)]
        packets: u32,
        /// Connections a turn
        #[arg(long, default_value_t = 10_000)]
        connections: u32,
    },
    /// How even rank tables are, over many random clusters
    Ranks {
        /// Clusters of each kind
        #[arg(long, default_value_t = 300)]
        clusters: usize,
        /// Write the figures there too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// What clients notice when a node or a server fails, beside keepalived and HAProxy
    Failover(failover::Options),
    /// How often the VIP moves, and living nodes seem dead, while machines and network are disturbed
    Calm(calm::Options),
    /// How long agents take to start
    Start(start::Options),
    /// Clusters without a list: how soon a newcomer serves, and what hellos cost
    Members(members::Options),
    /// What it costs to know each node's connections, and how soon a dead node's clients are told
    Roster(roster::Options),
}

fn main() -> ExitCode {
    let benchmark = Cli::parse().benchmark;
    isolation::enter_empty_netns();
    let result = match benchmark {
        Benchmark::Steer(options) => steer::run(options),
        Benchmark::Live {
            json,
            rounds,
            frames,
        } => live::run(json, rounds, frames),
        Benchmark::Connections {
            json,
            rounds,
            connections,
            balancers,
        } => connections::run(json, rounds, connections, &balancers),
        Benchmark::Vm(options) => vm::run(&options),
        Benchmark::Docs {
            rounds,
            packets,
            connections,
        } => docs::run(&docs::Effort {
            rounds,
            packets,
            connections,
        }),
        Benchmark::Ranks { clusters, json } => ranks::run(clusters, json),
        Benchmark::Failover(options) => failover::run(&options),
        Benchmark::Calm(options) => calm::run(&options),
        Benchmark::Start(options) => start::run(&options),
        Benchmark::Members(options) => members::run(&options),
        Benchmark::Roster(options) => roster::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
