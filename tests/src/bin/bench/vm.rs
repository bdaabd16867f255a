//! `cargo xtask bench vm`: instructions, counted in virtual machines with kernels of Debian's.
//!
//! A machine's clock counts instructions, one each nanosecond, so that CPU time is a number of
//! instructions, and the same in every run on whatever host.
//!
//! - `steer`: some cases of `bench steer`, on each kernel. An older kernel's JIT compiles less: a
//!   lookup in a map per CPU, for example, is a call before Linux 6.10.
//! - `connections`: steering beside IPVS, which is the kernel's own load balancer, with direct
//!   server return, driven by keepalived.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use vip_tests::clock;
use vip_tests::isolation::MARK;
use vip_tests::process::output;
use vip_tests::vm::machine::{Hardware, Machine};
use vip_tests::vm::{KERNELS, Kernel};

use crate::report::{Better, Column, Figure, Label, Report, Row};

/// Arguments of `bench vm`.
#[derive(clap::Args)]
pub(super) struct Options {
    /// The benchmark that runs in the machine
    #[arg(value_enum, default_value_t = Subject::Steer)]
    subject: Subject,
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Kernel of the machine; without it, the newest, and for `steer` each from 6.1 on
    #[arg(long)]
    kernel: Option<String>,
    /// How often all take their turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Packets a turn, for `steer`
    #[arg(long, default_value_t = 2_000)]
    packets: u32,
    /// Connections a turn, for `connections`
    #[arg(long, default_value_t = 2_000)]
    connections: u32,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Subject {
    /// What steering costs a packet
    Steer,
    /// What a connection costs more by the VIP, beside IPVS
    Connections,
}

/// In MiB: seven hosts and what runs on them.
const MEMORY: u32 = 3072;

/// The first kernel that takes the XDP programs of the benchmark (`frags`).
const FRAGS: [u32; 2] = [5, 18];

pub(super) fn run(options: &Options) -> Result<()> {
    match options.subject {
        Subject::Steer => steer(options),
        Subject::Connections => connections(options),
    }
}

fn connections(options: &Options) -> Result<()> {
    let kernels = choose(options.kernel.as_deref())?;
    let kernel = kernels.last().context("no kernel")?;
    println!(
        "Linux {} in a virtual machine; a microsecond is 1,000 instructions",
        kernel.version
    );
    let count = options.connections.to_string();
    let figures = measure(
        kernel,
        options.rounds,
        &[
            "connections",
            "--balancers",
            "direct,vip,ipvs",
            "--connections",
            &count,
        ],
        Stdio::inherit(),
    )?;
    if let Some(json) = &options.json {
        std::fs::write(json, figures).with_context(|| format!("write {}", json.display()))?;
    }
    Ok(())
}

const LABELS: &[Label] = &[
    Label::new("program", 34),
    Label::new("IP", 4),
    Label::new("Linux", 20),
];

const INSTRUCTIONS: Column = Column {
    name: "",
    unit: "instructions",
    better: Better::Lower,
    ratio: None,
    decimals: 0,
};

/// Kernels differ in what they do before a program runs.
const ABOVE: Column = Column {
    name: "above the floor",
    unit: "",
    ..INSTRUCTIONS
};

/// The part of `bench steer`'s JSON that is shown here.
#[derive(Deserialize)]
struct Steered {
    rows: Vec<SteeredRow>,
}

#[derive(Deserialize)]
struct SteeredRow {
    /// Program, hook, IP, flows.
    labels: [String; 4],
    figures: [SteeredFigure; 1],
}

#[derive(Deserialize)]
struct SteeredFigure {
    /// In nanoseconds of the machine's clock, which are instructions.
    value: f64,
    /// To the floor.
    ratio: f64,
}

fn steer(options: &Options) -> Result<()> {
    let mut kernels = choose(options.kernel.as_deref())?;
    kernels.retain(|kernel| kernel.numbers().as_slice() >= FRAGS.as_slice());
    let packets = options.packets.to_string();
    let arguments = ["steer", "--few", "--packets", &packets];
    let mut rows = Vec::new();
    for kernel in &kernels {
        let json = measure(kernel, options.rounds, &arguments, Stdio::null())?;
        let steered: Steered = serde_json::from_str(&json).context("read the figures")?;
        for (number, row) in steered.rows.into_iter().enumerate() {
            let [program, _, ip, _] = row.labels;
            let [SteeredFigure { value, ratio }] = row.figures;
            let above = value - value / ratio;
            let row = Row {
                labels: vec![program, ip, kernel.version.clone()],
                figures: vec![Figure::new(value), Figure::new(above)],
                goals: vec![],
            };
            rows.push((number, row));
        }
    }
    // The kernels of a case side by side.
    rows.sort_by_key(|(number, _)| *number);
    let title = format!(
        "instructions a packet in a virtual machine, median of {} rounds of {packets} packets, one \
         flow; making the packet anew is taken off",
        options.rounds
    );
    let mut report = Report::new(title, LABELS, vec![INSTRUCTIONS, ABOVE]);
    for (_, row) in rows {
        report.add(row);
    }
    report.print();
    report.write_json(options.json.clone())
}

/// Runs a benchmark in a machine of its own, and returns its figures as JSON. `shown` takes what it
/// prints.
fn measure(kernel: &Kernel, rounds: usize, arguments: &[&str], shown: Stdio) -> Result<String> {
    let hardware = Hardware {
        name: "bench".to_owned(),
        memory: MEMORY,
        cpus: 1,
        nics: Vec::new(),
        counts_instructions: true,
    };
    let own = std::env::current_exe().context("find the path of this program")?;
    let testbed = own.with_file_name("testbed");
    let (machine, _) = Machine::boot_alone(hardware, kernel, &testbed)?;
    // In the machine: what it writes elsewhere is not seen from here.
    let figures = "/tmp/figures.json";
    let mut bench = machine.command("env".as_ref());
    bench
        .args(["-C", env!("CARGO_MANIFEST_DIR")])
        .args(["-u", clock::OFFSET, "-u", MARK, "VIP_TESTS_PACE=calm"])
        .arg(&own);
    bench.args(arguments);
    bench.args(["--json", figures]);
    bench.args(["--rounds", &rounds.to_string()]);
    let status = bench
        .stdout(shown)
        .status()
        .context("start the benchmark")?;
    ensure!(status.success(), "in the machine: {status}");
    output(machine.command("cat".as_ref()).arg(figures))
}

/// The kernels with this name, or all of them, the oldest first.
fn choose(wanted: Option<&str>) -> Result<Vec<Kernel>> {
    let kernels = Kernel::all()?;
    let mut kernels =
        kernels.with_context(|| format!("{KERNELS} is not set: run cargo xtask bench vm"))?;
    let names: Vec<String> = kernels.iter().map(|kernel| kernel.name.clone()).collect();
    kernels.retain(|kernel| wanted.is_none_or(|wanted| wanted == kernel.name));
    if kernels.is_empty() {
        bail!("--kernel is one of {}", names.join(", "));
    }
    Ok(kernels)
}
