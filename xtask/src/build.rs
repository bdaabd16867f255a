//! `cargo xtask build`: everything.

use anyhow::Result;

use crate::{build_ebpf, install, sh};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Optimised
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    install::programs(install::BUILD)?;
    build_ebpf::object()?;
    let mut cargo = sh::command("cargo");
    cargo.arg("build");
    if options.release {
        cargo.arg("--release");
    }
    sh::run(&mut cargo)
}
