//! `vip run`.

use std::process::ExitCode;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use super::error::BadInput;
use crate::agent;
use crate::config::{Flags, Source};
use crate::key_file;

pub(super) fn run(flags: Flags, log: &str, json: bool) -> anyhow::Result<ExitCode> {
    let filter = EnvFilter::try_new(log)
        .map_err(|error| BadInput(format!("--log {log}: {error}; try `info` or `debug`")))?;
    let (config, source) = Source::read(flags)?;
    let keys = config.key_file.as_deref().map(key_file::keys).transpose()?;
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!("`vip run` loads programs into the kernel: run it as root");
    }
    let output = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would say that the log cannot be written by `eprintln!`, and end the agent by that
        // where standard error is closed, too.
        .log_internal_errors(false)
        .with_target(false);
    if json {
        output.json().init();
    } else {
        output.with_ansi(false).init();
    }
    // What must not wait has a thread of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(agent::run(config, source, keys))?;
    Ok(ExitCode::SUCCESS)
}
