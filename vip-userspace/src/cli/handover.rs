//! `vip handover`.

use std::path::Path;
use std::process::ExitCode;

use crate::observe::socket::{Request, ask};

pub(super) fn run(run_directory: &Path, to: Option<String>) -> anyhow::Result<ExitCode> {
    let owner: String = ask(run_directory, &Request::Handover { to })?;
    println!("{owner} owns the VIP now");
    Ok(ExitCode::SUCCESS)
}
