//! `cargo xtask bench vm`: steering beside IPVS, which is the kernel's own load balancer, with
//! direct server return, driven by keepalived.
//!
//! `connections` runs in a virtual machine with a kernel of Debian's, which has IPVS. The
//! machine's clock counts instructions, one each nanosecond, so that its microseconds of CPU time
//! are thousands of instructions, and the same in every run on whatever host.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use vip_tests::clock;
use vip_tests::isolation::MARK;
use vip_tests::process::output;
use vip_tests::vm::machine::{Hardware, Machine};
use vip_tests::vm::{KERNELS, Kernel};

/// Arguments of `bench vm`.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Kernel of the machine; without it, the newest
    #[arg(long)]
    kernel: Option<String>,
    /// How often all balancers take their turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections a turn
    #[arg(long, default_value_t = 2_000)]
    connections: u32,
}

/// In MiB: seven hosts and what runs on them.
const MEMORY: u32 = 3072;

pub(super) fn run(options: &Options) -> Result<()> {
    let kernel = choose(options.kernel.as_deref())?;
    println!(
        "Linux {} in a virtual machine; a microsecond is 1,000 instructions",
        kernel.version
    );
    let hardware = Hardware {
        name: "bench".to_owned(),
        memory: MEMORY,
        cpus: 1,
        nics: Vec::new(),
        counts_instructions: true,
    };
    let own = std::env::current_exe().context("find the path of this program")?;
    let testbed = own.with_file_name("testbed");
    let (machine, _) = Machine::boot_alone(hardware, &kernel, &testbed)?;
    // In the machine: what it writes elsewhere is not seen from here.
    let figures = "/tmp/figures.json";
    let mut bench = machine.command("env".as_ref());
    bench
        .args(["-C", env!("CARGO_MANIFEST_DIR")])
        .args(["-u", clock::OFFSET, "-u", MARK, "VIP_TESTS_PACE=calm"])
        .arg(&own);
    bench.args(["connections", "--balancers", "direct,vip,ipvs"]);
    bench.args(["--json", figures]);
    bench.args(["--rounds", &options.rounds.to_string()]);
    bench.args(["--connections", &options.connections.to_string()]);
    let status = bench.status().context("start the benchmark")?;
    ensure!(status.success(), "in the machine: {status}");
    if let Some(json) = &options.json {
        let text = output(machine.command("cat".as_ref()).arg(figures))?;
        std::fs::write(json, text).with_context(|| format!("write {}", json.display()))?;
    }
    Ok(())
}

fn choose(wanted: Option<&str>) -> Result<Kernel> {
    let kernels = Kernel::all()?;
    let mut kernels =
        kernels.with_context(|| format!("{KERNELS} is not set: run cargo xtask bench vm"))?;
    let names: Vec<String> = kernels.iter().map(|kernel| kernel.name.clone()).collect();
    kernels.retain(|kernel| wanted.is_none_or(|wanted| wanted == kernel.name));
    match kernels.pop() {
        Some(kernel) => Ok(kernel),
        None => bail!("--kernel is one of {}", names.join(", ")),
    }
}
