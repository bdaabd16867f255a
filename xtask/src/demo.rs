//! `cargo xtask demo`: the scenarios, shown as they happen.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::harness::{self, Program};
use crate::{install, kubernetes, sh};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write the tables and the verdict there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run the same faults on a cluster with keepalived and HAProxy, and compare. Installs both
    #[arg(long)]
    versus: bool,
    /// Passed to the demo
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.versus {
        install::programs(install::RIVALS)?;
    }
    let environment: Vec<OsString> = kubernetes::prepare(false)?.into_iter().collect();
    let what = if options.versus {
        "run the demo, about 2 minutes"
    } else {
        "run the demo, about half a minute"
    };
    let mut demo = Program::Testbed.prepare(what, &environment)?;
    demo.arg("demo");
    if options.versus {
        demo.arg("--versus");
    }
    harness::pass(&mut demo, options.json.as_deref(), &options.args)?;
    sh::run(&mut demo)
}
