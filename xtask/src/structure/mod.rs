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

/// Uses that close a circle today, and globs, that are still to be removed. Without them there is
/// no circle. An entry that is not needed any more fails the check too.
const KNOWN: &[&str] = &[
    "vip-tests: src/scenarios/agent_killed.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/apiserver_killed.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/bfd_beside.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/credentials.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/drain.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/dual_stack.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/echo_limited.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/firewalled.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/foreign_programs.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/kubernetes.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/local_clients.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/mac_changed.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/machines/cold_start.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/machines/cut_off.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/nic_moves.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/node_drained.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/observed.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/other_nics.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/owner_killed.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/page.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/port_reused.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/priority_tagged.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/second_way.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/silent_duplicate.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/static_pod.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/strangers.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/top.rs -> src/scenarios/mod.rs",
    "vip-tests: src/scenarios/vip_changed.rs -> src/scenarios/mod.rs",
    "vip-tests: src/topology/mod.rs -> src/topology/vm.rs",
    "vip-tests: src/traffic.rs -> src/cluster/mod.rs",
    "vip-tests: tests/vm/main.rs -> tests/vm/aarch64.rs",
    "vip-tests: tests/vm/main.rs -> tests/vm/inside.rs",
    "vip-userspace: src/agent/late.rs -> src/agent/mod.rs",
    "vip-userspace: src/agent/mod.rs -> src/agent/shell/mod.rs",
    "vip-userspace: src/agent/shell/bfd.rs -> src/agent/shell/mod.rs",
    "vip-userspace: src/agent/shell/hooks.rs -> src/agent/shell/mod.rs",
    "vip-userspace: src/agent/shell/other_nics.rs -> src/agent/shell/mod.rs",
    "vip-userspace: src/agent/shell/segment.rs -> src/agent/shell/mod.rs",
    "vip-userspace: src/cli/check/nics.rs -> src/cli/check.rs",
    "vip-userspace: src/cli/check/segment.rs -> src/cli/check.rs",
    "vip-userspace: src/cli/manifest.rs -> src/cli/mod.rs",
    "vip-userspace: src/cli/run.rs -> src/cli/mod.rs",
    "vip-userspace: src/config/draft.rs: use super::*",
    "vip-userspace: src/config/fault.rs -> src/config/mod.rs",
    "vip-userspace: src/config/mod.rs -> src/config/draft.rs",
    "vip-userspace: src/config/mod.rs -> src/config/values.rs",
    "vip-userspace: src/config/values.rs -> src/config/draft.rs",
    "vip-userspace: src/config/values.rs: use super::*",
    "vip-userspace: src/datapath/attach.rs -> src/datapath/mod.rs",
    "vip-userspace: src/datapath/chain.rs -> src/datapath/mod.rs",
    "vip-userspace: src/datapath/mod.rs -> src/datapath/maps.rs",
    "vip-userspace: src/datapath/pins.rs -> src/datapath/attach.rs",
    "vip-userspace: src/datapath/pins.rs -> src/datapath/maps.rs",
    "vip-userspace: src/datapath/pins.rs -> src/datapath/mod.rs",
    "vip-userspace: src/decide/node/advert.rs: use super::*",
    "vip-userspace: src/decide/node/claim.rs: use super::*",
    "vip-userspace: src/decide/node/event.rs -> src/decide/node/mod.rs",
    "vip-userspace: src/decide/node/event.rs: use super::*",
    "vip-userspace: src/decide/node/farewell.rs: use super::*",
    "vip-userspace: src/decide/node/liveness.rs -> src/decide/node/mod.rs",
    "vip-userspace: src/decide/node/liveness.rs: use super::*",
    "vip-userspace: src/net/neighbours.rs -> src/net/arp.rs",
    "vip-userspace: src/net/neighbours.rs -> src/net/ndp.rs",
    "vip-userspace: src/observe/socket.rs -> src/agent/mod.rs",
    "vip-userspace: src/probe/late.rs -> src/probe/mod.rs",
    "vip-userspace: src/probe/mod.rs -> src/config/mod.rs",
    "vip-userspace: src/probe/trust.rs -> src/probe/mod.rs",
];

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
