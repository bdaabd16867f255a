//! `vip status`.

use std::path::Path;
use std::process::ExitCode;

use super::output::{print, print_line};
use crate::observe::socket::{Request, ask};
use crate::observe::status::Status;

pub(super) fn run(run_directory: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let status: Status = ask(run_directory, &Request::Status)?;
    if json {
        print_line(serde_json::to_string_pretty(&status)?)?;
    } else {
        print(status)?;
    }
    Ok(ExitCode::SUCCESS)
}
