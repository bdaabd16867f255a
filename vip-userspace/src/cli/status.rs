//! `vip status`.

use std::process::ExitCode;

use super::output::{print, print_line};
use crate::observe::socket::{Request, ask};
use crate::observe::status::Status;
use crate::run_dir::RunDir;

pub(super) fn run(run_directory: &RunDir, json: bool) -> anyhow::Result<ExitCode> {
    let status: Status = ask(run_directory, &Request::Status)?;
    if json {
        print_line(serde_json::to_string_pretty(&status)?)?;
    } else {
        print(status)?;
    }
    Ok(ExitCode::SUCCESS)
}
