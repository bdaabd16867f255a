//! `cargo xtask bench ranks`: how even rank tables are, and how long they take to make.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use vip_common::testing::Random;
use vip_node::rank::{self, Identity};

use crate::report::{Better, Column, Figure, Label, Report, Row, median, quantile};
use crate::steer::thread_time;

const LABELS: &[Label] = &[Label::new("addresses", 12), Label::new("backends", 8)];

const fn column(name: &'static str, unit: &'static str, decimals: usize) -> Column {
    Column {
        name,
        unit,
        better: Better::Lower,
        ratio: None,
        decimals,
    }
}

pub(super) fn run(clusters: usize, json: Option<PathBuf>) -> Result<()> {
    ensure!(clusters > 0, "--clusters must be at least 1");
    let mut rng = Random(3);
    let title = format!(
        "how far the worst share of a cluster is from equal, with all backends and with any one \
         out, over {clusters} clusters"
    );
    let columns = vec![
        column("median", "%", 2),
        column("worst", "%", 2),
        column("over 2 %", "clusters", 0),
        column("table", "ms", 1),
    ];
    let mut report = Report::new(title, LABELS, columns);
    report.print_head();
    for (addresses, mask) in [
        ("one /24", 0xff),
        ("one /16", 0xffff),
        ("anywhere", u32::MAX),
    ] {
        for backends in [3, 5, 7, 16] {
            let mut spent = Duration::ZERO;
            let mut worst = Vec::new();
            for _ in 0..clusters {
                let key = [rng.word(), rng.word()];
                let cluster = cluster(&mut rng, mask, backends);
                let started = thread_time()?;
                let table = rank::table(key, &cluster)?;
                spent += thread_time()? - started;
                worst.push(rank::worst_share(&cluster, &table));
            }
            let over = worst.iter().filter(|&&share| share > 0.02).count();
            let row = Row {
                labels: vec![addresses.to_owned(), backends.to_string()],
                figures: vec![
                    Figure::new(median(&worst) * 100.0),
                    Figure::new(quantile(&worst, 1.0) * 100.0),
                    Figure::count(over),
                    Figure::new(spent.as_secs_f64() * 1000.0 / clusters as f64),
                ],
                goals: Vec::new(),
            };
            report.print_row(&row);
            report.add(row);
        }
    }
    report.write_json(json)
}

/// Backends with random addresses that differ in the bits of the mask.
fn cluster(rng: &mut Random, mask: u32, backends: usize) -> Vec<Identity> {
    let base = rng.word() as u32 & !mask;
    let mut addresses = BTreeSet::new();
    while addresses.len() < backends {
        addresses.insert(base | rng.word() as u32 & mask);
    }
    let identity = |address: u32| Identity {
        address: Ipv4Addr::from_bits(address).into(),
        weight: 1,
    };
    addresses.into_iter().map(identity).collect()
}
