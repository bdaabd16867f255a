//! `cargo xtask bench`: what packets cost.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::{demo, sh};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which: `steer` (what a packet costs) or `ranks` (how even shares are)
    benchmark: OsString,
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Passed to the benchmark
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut bench = demo::binary("bench", None)?;
    bench.arg(&options.benchmark);
    demo::pass(&mut bench, options.json.as_deref(), &options.args)?;
    sh::run(&mut bench)
}
