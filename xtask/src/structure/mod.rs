//! `cargo xtask structure`: source files that import each other in a circle, and `use super::*`
//! outside of tests.

mod circles;
mod modules;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::sh;
use circles::Edges;
use modules::Tree;

/// Uses that may close a circle: a host of the tests can be asked for the virtual machine that it
/// is. An entry that is not needed any more fails the check, too.
const KNOWN: &[&str] = &["vip-tests: src/topology/mod.rs -> src/topology/vm.rs"];

/// What `cargo metadata` prints, as far as it matters here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

impl Target {
    /// Whether all of it is tests.
    fn is_test(&self) -> bool {
        self.kind.iter().any(|kind| kind == "test")
    }
}

pub(crate) fn run() -> Result<()> {
    let mut cargo = sh::command("cargo");
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version=1"]);
    let text = sh::output(&mut cargo).context("cargo does not describe the workspace")?;
    let metadata: Metadata =
        serde_json::from_str(&text).context("cargo describes the workspace in another form")?;
    let mut findings = Findings::default();
    for package in &metadata.packages {
        for target in &package.targets {
            findings.add(package, target)?;
        }
    }
    let known = KNOWN.iter().map(|entry| (*entry).to_owned());
    for entry in known.filter(|entry| !findings.known.contains(entry)) {
        findings
            .new
            .insert(format!("not needed in KNOWN any more: {entry}"));
    }
    for line in &findings.new {
        println!("{line}");
    }
    ensure!(
        findings.new.is_empty(),
        "{} findings in the structure of the sources",
        findings.new.len()
    );
    Ok(())
}

#[derive(Default)]
struct Findings {
    /// One line each.
    new: BTreeSet<String>,
    /// Those entries of [`KNOWN`] that are needed.
    known: BTreeSet<String>,
}

impl Findings {
    fn add(&mut self, package: &Package, target: &Target) -> Result<()> {
        let folder = package.manifest_path.parent();
        let folder = folder.context("a manifest lies in a folder")?;
        let tree = Tree::read(&target.src_path)?;
        let name = |file: &PathBuf| {
            let shown = file.strip_prefix(folder).unwrap_or(file);
            shown.display().to_string()
        };
        let line = |path: &[usize]| {
            let files: Vec<String> = path.iter().map(|&file| name(&tree.files()[file])).collect();
            format!("{}: {}", package.name, files.join(" -> "))
        };
        let edges = tree.edges();
        let mut unknown = Edges::new();
        for (from, to) in circles::pairs(&edges) {
            let edge = line(&[from, to]);
            if !KNOWN.contains(&edge.as_str()) {
                unknown.entry(from).or_default().insert(to);
            } else if circles::shortest(&edges, from, to).is_some() {
                self.known.insert(edge);
            }
        }
        let circles = circles::all(&unknown);
        self.new.extend(circles.iter().map(|circle| line(circle)));
        if !target.is_test() {
            for file in tree.parent_globs() {
                let glob = format!("{}: {}: use super::*", package.name, name(file));
                let is_known = KNOWN.contains(&glob.as_str());
                let lines = if is_known {
                    &mut self.known
                } else {
                    &mut self.new
                };
                lines.insert(glob);
            }
        }
        Ok(())
    }
}
