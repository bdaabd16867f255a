//! `vip run`.

use std::process::ExitCode;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use super::error::BadInput;
use crate::agent;
use crate::config::{Flags, Source};
use crate::key_file;

pub(super) fn run(flags: Flags, log: &str, json: bool) -> anyhow::Result<ExitCode> {
    let filter = filter(log)?;
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

/// What `--log` says. `tracing` takes any word that is no level for the name of a part, and then logs
/// nothing at all: one that is no part of this program is refused.
fn filter(log: &str) -> Result<EnvFilter, BadInput> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let bad = |why: &str| {
        let levels = LEVELS.join(", ");
        BadInput(format!(
            "--log {log}: {why}; write a level ({levels}), or one for a part, like vip=debug"
        ))
    };
    for word in log.split(',').map(str::trim) {
        let (part, level) = word.split_once('=').map_or(("vip", word), |pair| pair);
        let is_level = |text: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text));
        if !part.contains('[') && !is_level(level) && !word.starts_with("vip") {
            return Err(bad(&format!("`{level}` is no level")));
        }
    }
    EnvFilter::try_new(log).map_err(|error| bad(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused() {
        for good in [
            "info",
            "DEBUG",
            "off",
            "info,vip=debug",
            "vip_node=trace",
            "hyper=warn",
        ] {
            filter(good).expect(good);
        }
        for (bad, word) in [
            ("inf", "`inf`"),
            ("", "``"),
            ("info,hyper=wran", "`wran`"),
            ("vip=loud", "level"),
        ] {
            let why = filter(bad).expect_err(bad).to_string();
            assert!(why.contains(word) && why.contains("debug, trace"), "{why}");
        }
    }
}
