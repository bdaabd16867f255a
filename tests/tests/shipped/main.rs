//! What a release gives to operators, put to use by the programs that they have: packages by dpkg
//! and rpm, the chart by Helm, the role by Ansible, the workflows by actionlint.
//!
//! `cargo xtask test` installs these programs, and makes the packages.

mod chart;
mod packages;
mod role;
mod root;
mod yaml;

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the repository.
fn repository() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    folder.canonicalize().expect("the repository is there")
}

/// The agent that was built with this.
fn vip() -> PathBuf {
    let programs = vip_tests::agent::Programs::find().expect("the agent was built");
    programs.vip
}

/// What a variable of xtask's names. Without it the test is skipped, which is said past the capture
/// of the test runner.
fn given(variable: &str, test: &str) -> Option<PathBuf> {
    let given = std::env::var_os(variable).map(PathBuf::from);
    if given.is_none() {
        let _ = writeln!(
            io::stderr(),
            "SKIPPED {test}: no {variable}: run cargo xtask test unit"
        );
    }
    given
}

/// Runs a command that has to succeed. Returns what it printed, errors after output.
fn run(command: &mut Command) -> String {
    let (passed, text) = outcome(command);
    assert!(passed, "{command:?}:\n{text}");
    text
}

/// Runs a command. Returns whether it succeeded, and what it printed.
fn outcome(command: &mut Command) -> (bool, String) {
    // dpkg asks about changed files, and finds nobody.
    command.stdin(std::process::Stdio::null());
    let done = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let mut text = String::from_utf8_lossy(&done.stdout).into_owned();
    text += &String::from_utf8_lossy(&done.stderr);
    (done.status.success(), text)
}

/// A command in the root of the repository.
fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(repository());
    command
}
