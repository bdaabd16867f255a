//! `cargo xtask bench ranks`: how even rank tables are, and how long they take to make.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use vip_common::abi::DEFAULT_BUCKETS;
use vip_common::testing::Random;
use vip_node::rank::{self, Identity};

use crate::report::{median, quantile, write_json};
use crate::steer::thread_time;

/// A line of the report on rank tables. Distances are fractions: 0.02 is 2 %.
#[derive(Serialize)]
struct Evenness {
    /// Where the clusters' addresses come from.
    addresses: &'static str,
    backends: usize,
    buckets: u32,
    /// Of the clusters' worst shares, with all backends and with any one out.
    median: f64,
    worst: f64,
    /// Clusters with a share further than 2 % from equal.
    over_two_percent: usize,
    /// To make a table.
    milliseconds: f64,
}

pub(super) fn run(clusters: usize, json: Option<PathBuf>) -> Result<()> {
    ensure!(clusters > 0, "--clusters must be at least 1");
    let mut random = Random(3);
    let mut rows = Vec::new();
    println!(
        "{:12} {:>8} {:>8} {:>8} {:>8} {:>10} {:>7}",
        "ADDRESSES", "BACKENDS", "BUCKETS", "MEDIAN", "WORST", "OVER 2 %", "MS"
    );
    for (addresses, mask, buckets) in [
        ("one /24", 0xff, DEFAULT_BUCKETS),
        ("one /16", 0xffff, DEFAULT_BUCKETS),
        ("anywhere", u32::MAX, DEFAULT_BUCKETS),
        ("one /24", 0xff, 2 * DEFAULT_BUCKETS),
    ] {
        for backends in [3, 5, 7, 16] {
            let mut spent = Duration::ZERO;
            let mut worst = Vec::new();
            for _ in 0..clusters {
                let key = [random.word(), random.word()];
                let cluster = cluster(&mut random, mask, backends);
                let started = thread_time()?;
                let table = rank::table(key, &cluster, buckets)?;
                spent += thread_time()? - started;
                worst.push(rank::worst_share(&cluster, &table));
            }
            let row = Evenness {
                addresses,
                backends,
                buckets,
                median: median(worst.clone()),
                worst: quantile(worst.clone(), 1.0),
                over_two_percent: worst.iter().filter(|&&share| share > 0.02).count(),
                milliseconds: spent.as_secs_f64() * 1000.0 / clusters as f64,
            };
            println!(
                "{:12} {:>8} {:>8} {:>6.2} % {:>6.2} % {:>4} of {} {:>7.1}",
                row.addresses,
                row.backends,
                row.buckets,
                row.median * 100.0,
                row.worst * 100.0,
                row.over_two_percent,
                clusters,
                row.milliseconds,
            );
            rows.push(row);
        }
    }
    write_json(json, &rows)
}

/// Backends with random addresses that differ in the bits of the mask.
fn cluster(random: &mut Random, mask: u32, backends: usize) -> Vec<Identity> {
    let base = random.word() as u32 & !mask;
    let mut addresses = BTreeSet::new();
    while addresses.len() < backends {
        addresses.insert(base | random.word() as u32 & mask);
    }
    let identity = |address: u32| Identity {
        address: Ipv4Addr::from_bits(address).into(),
        weight: 1,
    };
    addresses.into_iter().map(identity).collect()
}
