//! What cargo has built.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::sh;

/// Flags of rustc after which no path of this machine is in what is built: two folders give the
/// same bytes.
pub(crate) fn remapped() -> Vec<String> {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let folder = |variable: &str, default: &str| {
        env::var_os(variable).map_or_else(|| home.join(default), PathBuf::from)
    };
    // The last one that fits is taken: the workspace may lie in the home directory.
    [
        (folder("RUSTUP_HOME", ".rustup"), "/rustup"),
        (folder("CARGO_HOME", ".cargo"), "/cargo"),
        (sh::workspace().to_owned(), "/vip"),
    ]
    .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
    .to_vec()
}

/// What is built for tests: all but xtask, whose tests run where it runs, and the eBPF program.
pub(crate) const TESTED: &[&str] = &["--workspace", "--exclude=vip-ebpf", "--exclude=xtask"];

/// A program with tests.
pub(crate) struct Program {
    /// The target's name.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The package's folder, where cargo would run it.
    pub(crate) folder: PathBuf,
}

/// Builds test programs, and returns them.
///
/// # Errors
/// Cargo fails, or writes what is not known here.
pub(crate) fn test_programs(cargo: &mut Command) -> Result<Vec<Program>> {
    cargo.arg("--no-run");
    sh::run(cargo)?;
    // Once more, for their names.
    cargo.args(["--offline", "--quiet", "--message-format=json"]);
    let messages = sh::output(cargo).context("cargo does not name the test programs")?;
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: serde_json::Value =
            serde_json::from_str(line).context("cargo writes JSON of another form")?;
        if message["profile"]["test"] == true
            && let Some(path) = message["executable"].as_str()
        {
            let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
            let manifest = text(&message["manifest_path"]).map(PathBuf::from);
            programs.push(Program {
                name: text(&message["target"]["name"]).context("a target has a name")?,
                path: PathBuf::from(path),
                folder: manifest
                    .and_then(|path| path.parent().map(Into::into))
                    .context("a manifest lies in a folder")?,
            });
        }
    }
    Ok(programs)
}
