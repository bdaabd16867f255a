//! `vip status`.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::exit::Exit;
use super::output::{Format, Output, json, print, yaml};
use crate::observe::socket::{Request, ask};
use crate::observe::status::Status;
use crate::run_dir::RunDir;

/// Between looks, while it waits.
const LOOK: Duration = Duration::from_millis(200);

/// Prints the status. `wait`: once the cluster is healthy, or after that time.
pub(super) fn run(
    run_directory: &RunDir,
    output: Output,
    exit_code: bool,
    wait: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let end = Instant::now() + wait.unwrap_or_default();
    let status = loop {
        let asked: anyhow::Result<Status> = ask(run_directory, &Request::Status);
        let is_over = Instant::now() >= end;
        match asked {
            // There may be no agent yet.
            Err(_) if !is_over => {}
            Ok(status) if !is_over && !status.problems().is_empty() => {}
            answered => break answered?,
        }
        sleep(LOOK);
    };
    match output.format() {
        Format::Text | Format::Wide => print(&status)?,
        Format::Json => print(json(&status)?)?,
        Format::Yaml => print(yaml(&status)?)?,
    }
    let degraded = !status.problems().is_empty();
    Ok(if degraded && (exit_code || wait.is_some()) {
        Exit::Degraded.into()
    } else {
        ExitCode::SUCCESS
    })
}
