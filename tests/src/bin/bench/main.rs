//! `cargo xtask bench`: one file a benchmark.

mod failover;
mod ranks;
mod report;
mod steer;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vip_tests::isolation;

/// Benchmarks of vip
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// What steering costs a packet
    Steer {
        /// Write the figures there too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// How often all programs take their turn
        #[arg(long, default_value_t = 15)]
        rounds: usize,
        /// Packets a turn
        #[arg(long, default_value_t = 1_000_000)]
        packets: u32,
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
    /// What clients notice when the owner fails, beside keepalived and HAProxy
    Failover(failover::Options),
}

fn main() -> ExitCode {
    let benchmark = Cli::parse().benchmark;
    isolation::enter_empty_netns();
    let result = match benchmark {
        Benchmark::Steer {
            json,
            rounds,
            packets,
        } => steer::run(json, rounds, packets),
        Benchmark::Ranks { clusters, json } => ranks::run(clusters, json),
        Benchmark::Failover(options) => failover::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
