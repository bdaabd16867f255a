//! What needs only processors, and runs while tests wait: in the background.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use super::background::{Step, idle};
use crate::image::Architecture;
use crate::{cargo, sh};

/// A task of xtask itself.
fn task(name: &str) -> Result<Step> {
    let own = env::current_exe().context("find the path of xtask")?;
    Ok(Step::new(name, idle(sh::command(own).arg(name))))
}

/// Builds the kubelet.
pub(super) fn kubelet() -> Result<Step> {
    task("kubelet")
}

/// Examples in the documentation.
pub(super) fn doc_tests() -> Result<Step> {
    let mut cargo = Architecture::here()?.cargo("test")?;
    cargo.args(cargo::TESTED).arg("--doc");
    Ok(Step::new("doc tests", idle(&cargo)))
}

/// What a change must pass beside the tests.
pub(super) fn all() -> Result<Vec<Step>> {
    let workspace = ["--workspace", "--exclude", "vip-ebpf"];
    let of_all = |verb: &str, arguments: &[&str]| -> Command {
        let mut cargo = sh::command("cargo");
        cargo.arg(verb).args(workspace).args(arguments);
        cargo
    };
    let clippy = of_all("clippy", &["--all-targets", "--", "-D", "warnings"]);
    let mut documentation = of_all("doc", &["--no-deps"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    Ok(vec![
        task("clippy-ebpf")?,
        Step::new("clippy", idle(&clippy)),
        Step::new("documentation", idle(&documentation)),
    ])
}
