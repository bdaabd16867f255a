//! `vip handover`.

use std::process::ExitCode;

use super::output::tell;
use crate::observe::socket::{Request, ask};
use crate::run_dir::RunDir;

pub(super) fn run(run_dir: &RunDir, to: Option<String>) -> anyhow::Result<ExitCode> {
    let owner: String = ask(run_dir, &Request::Handover { to })?;
    tell(format_args!("{owner} owns the VIP now"));
    Ok(ExitCode::SUCCESS)
}
