//! `cargo xtask bench`: what packets cost, and what failures.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::harness::{self, Program};
use crate::{install, kernels, sh};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which: `steer` (what a packet costs), `live` (real frames a second), `connections` (what
    /// they cost, beside HAProxy and nftables), `docs` (these three, into
    /// docs/benchmarks-packet-path.md), `failover` (what clients notice, beside keepalived and
    /// HAProxy), `calm` (how often the VIP moves on disturbed machines, beside keepalived), `start`
    /// (how long agents take to start), `members` (how soon a newcomer serves), `roster` (what it
    /// costs to know each node's connections, and how soon a dead node's clients are told), `vm`
    /// (instructions of `steer` on several kernels, or of connections beside IPVS) or `ranks` (how
    /// even shares are)
    benchmark: OsString,
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Passed to the benchmark, after `--json` (`-- --help` lists what it takes)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.benchmark == "failover" || options.benchmark == "calm" {
        install::programs(install::RIVALS)?;
    }
    if options.benchmark == "connections" || options.benchmark == "docs" {
        install::programs(install::BALANCERS)?;
    }
    let mut environment = Vec::new();
    if options.benchmark == "vm" {
        install::programs(install::PEERS)?;
        environment.push(sh::variable("VIP_TESTS_KERNELS", kernels::prepare()?));
    }
    let mut bench = Program::Bench.prepare("run the benchmark", &environment)?;
    bench.arg(&options.benchmark);
    harness::pass(&mut bench, options.json.as_deref(), &options.args)?;
    sh::run(&mut bench)
}
