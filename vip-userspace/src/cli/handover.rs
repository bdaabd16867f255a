//! `vip handover`.

use std::path::Path;
use std::process::ExitCode;

use super::output::tell;
use crate::observe::socket::{Request, ask};

pub(super) fn run(run_directory: &Path, to: Option<String>) -> anyhow::Result<ExitCode> {
    let owner: String = ask(run_directory, &Request::Handover { to })?;
    tell(format_args!("{owner} owns the VIP now"));
    Ok(ExitCode::SUCCESS)
}
