//! `cargo xtask demo`: the scenarios, shown as they happen.

use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{build_ebpf, install, kubernetes, netns, sh};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write the table there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Passed to the demo
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut demo = binary("testbed", kubernetes::prepare(false)?.into_iter().collect())?;
    demo.arg("demo");
    pass(&mut demo, options.json.as_deref(), &options.args)?;
    sh::run(&mut demo)
}

/// Builds all, optimised. Returns the command that runs a binary of `tests` in an empty
/// network namespace.
pub(crate) fn binary(name: &str, environment: Vec<OsString>) -> Result<Command> {
    install::programs(install::BUILD)?;
    install::programs(install::TOPOLOGY)?;
    build_ebpf::object()?;
    // All, as the demo runs the agent's binary.
    sh::run(sh::command("cargo").args(["build", "--release"]))?;

    let mut inside = netns::command("cargo", &environment);
    inside.args(["run", "--quiet", "--release", "--offline"]);
    inside.args(["--package", "vip-tests", "--bin", name, "--"]);
    Ok(inside)
}

/// Hands on what the user gave. A file is named as seen from here, not from the workspace.
pub(crate) fn pass(command: &mut Command, json: Option<&Path>, args: &[OsString]) -> Result<()> {
    if let Some(file) = json {
        let file = absolute(file).with_context(|| format!("find {}", file.display()))?;
        command.arg("--json").arg(file);
    }
    command.args(args);
    Ok(())
}
