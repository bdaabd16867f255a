//! `cargo xtask bench live`: how many real frames a core sends on.
//!
//! `BPF_PROG_TEST_RUN` with live frames takes frames through the same code as a driver would: a
//! program sees each, and what it wants sent goes out of a real interface. Here that is a veth,
//! whose far end drops all, on the same core. The bare `XDP_TX` that parses and swaps addresses
//! and the product take turns; both are called by the program that makes each frame anew (see
//! `vip-ebpf/src/bench.rs`).

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aya::maps::Array;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, XdpMode};
use vip_common::wire::tcp;

use crate::report::{Better, Column, Figure, Goal, Label, Report, Row, family, median};
use crate::steer::{
    Floors, Flows, Hook, Products, Setup, Target, Traffic, client, ip, thread_time,
};

/// Frames that the kernel takes at once, as a driver's NAPI poll does.
const BATCH: u32 = 64;

/// Ends of the veth.
const NEAR: &str = "near";
const FAR: &str = "far";

/// The least part of the bare rate that the product should reach.
const GOAL: f64 = 0.92;

const LABELS: &[Label] = &[Label::new("program", 26), Label::new("IP", 4)];

const RATE: Column = Column {
    name: "",
    unit: "million/s",
    better: Better::Higher,
    ratio: Some("ratio"),
    decimals: 2,
};

pub(super) fn run(json: Option<PathBuf>, rounds: usize, frames: u32) -> Result<()> {
    let report = measure(rounds, frames)?;
    report.print();
    report.write_json(json)
}

pub(super) fn measure(rounds: usize, frames: u32) -> Result<Report> {
    ensure!(
        rounds > 0 && frames > 0,
        "--rounds and --frames must be at least 1"
    );
    ip(&["link", "add", NEAR, "type", "veth", "peer", "name", FAR])?;
    for end in [NEAR, FAR] {
        ip(&["link", "set", end, "up"])?;
    }
    let near = nix::net::if_::if_nametoindex(NEAR)?;
    let far = nix::net::if_::if_nametoindex(FAR)?;
    let mut floors = Floors::load()?;
    // Held by the program until the end. It counts what arrives.
    floors.attach("bench_drop", far)?;
    // Without a program of its own a veth takes no frames in like this.
    floors.attach("bench_pass", near)?;
    let mut products = Products::load([Setup::USUAL])?;
    let mut cases = Vec::new();
    for ipv6 in [false, true] {
        let traffic = Traffic {
            hook: Hook::Xdp,
            ipv6,
            flows: Flows::Million,
        };
        let segment = client(tcp::ACK);
        cases.push(traffic.floor("bare XDP_TX", Target::Send));
        cases.push(traffic.sent("steered to another node", Setup::USUAL, segment));
    }
    let mut rates = vec![Vec::<f64>::new(); cases.len()];
    for round in 0..=rounds {
        for (case, rates) in cases.iter().zip(&mut rates) {
            floors.aim(case, &mut products)?;
            let arrived = floors.dropped()?;
            let before = thread_time()?;
            floors.run_live(&case.frame(), near, frames, BATCH)?;
            let spent = (thread_time()? - before).as_secs_f64();
            let arrived = floors.dropped()? - arrived;
            // A queue of the veth may overflow; then fewer frames were sent than paid for.
            ensure!(
                arrived * 100 >= u64::from(frames) * 99,
                "{}: {arrived} of {frames} frames arrived",
                case.name
            );
            if round > 0 {
                rates.push(arrived as f64 / spent / 1e6);
            }
        }
    }
    let title = format!(
        "frames a second of one core's time, {} flows, median of {rounds} rounds of {frames} \
         frames",
        Flows::Million.count()
    );
    let mut report = Report::new(title, LABELS, vec![RATE]);
    for (case, own) in cases.iter().zip(&rates) {
        let bare = cases
            .iter()
            .position(|bare| bare.target == Target::Send && bare.traffic == case.traffic)
            .context("no bare case")?;
        let ratios = own.iter().zip(&rates[bare]);
        let ratios: Vec<f64> = ratios.map(|(own, bare)| own / bare).collect();
        let ratio = median(&ratios);
        let goal = (case.target != Target::Send).then(|| Goal::ratio(GOAL, ratio, RATE.better));
        report.add(Row {
            labels: vec![case.name.to_owned(), family(case.traffic.ipv6)],
            figures: vec![Figure::median(own).ratio(ratio)],
            goals: goal.into_iter().collect(),
        });
    }
    Ok(report)
}

impl Floors {
    /// Attaches a program in the driver.
    fn attach(&mut self, name: &str, interface: u32) -> Result<()> {
        let program = self.xdp(name)?;
        program
            .attach_to_if_index(interface, XdpMode::Driver)
            .with_context(|| format!("attach {name}"))?;
        Ok(())
    }

    /// Frames that arrived at [`FAR`] so far.
    fn dropped(&self) -> Result<u64> {
        let map = self.map("BENCH_DROPPED")?;
        Ok(Array::<_, u64>::try_from(map)?.get(&0, 0)?)
    }

    /// Takes frames in at an interface, as if its driver had received them.
    fn run_live(&mut self, frame: &[u8], interface: u32, frames: u32, batch: u32) -> Result<()> {
        // `struct xdp_md` (include/uapi/linux/bpf.h): data, data_end, data_meta,
        // ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, interface, 0, 0];
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(bytemuck::bytes_of(&context)),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(batch),
            ..TestRunOptions::new()
        };
        self.xdp("bench_feed")?.test_run(options)?;
        Ok(())
    }
}
