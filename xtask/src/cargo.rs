//! What cargo has built.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::sh;

/// The test programs that `cargo test --no-run` with these arguments has built: it is asked once
/// more, for their names.
///
/// # Errors
/// It fails, or writes what is not known here.
pub(crate) fn test_programs(cargo: &mut Command) -> Result<Vec<PathBuf>> {
    cargo.args(["--offline", "--quiet", "--message-format=json"]);
    let messages = sh::output(cargo).context("cargo does not name the test programs")?;
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: serde_json::Value =
            serde_json::from_str(line).context("cargo writes JSON of another form")?;
        if message["profile"]["test"] == true
            && let Some(program) = message["executable"].as_str()
        {
            programs.push(PathBuf::from(program));
        }
    }
    Ok(programs)
}
