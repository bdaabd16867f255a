//! `vip forget`.

use std::process::ExitCode;

use super::output::tell;
use crate::observe::socket::{Request, ask};
use crate::run_dir::RunDir;

pub(super) fn run(run_dir: &RunDir, node: String) -> anyhow::Result<ExitCode> {
    let name: String = ask(run_dir, &Request::Forget { node })?;
    tell(format_args!("{name} is no member any more"));
    Ok(ExitCode::SUCCESS)
}
