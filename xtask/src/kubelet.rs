//! A kubelet for the test that starts the static pod by the real one. Nobody ships it as a package
//! that could be fetched, so it is built from what Debian's package of kubectl is made from.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::apt::{self, Apt, empty};
use crate::{install, kubernetes, sh};

/// The last suite whose source has the whole of Kubernetes in it. Later ones have kubectl only.
const SUITE: &str = "bookworm";

/// What building it needs.
pub(crate) const TOOLS: &[install::Program] = &[apt::KEYRING, ("go", "golang-go"), ("tar", "tar")];

/// Which control groups there are: a line for each hierarchy, `ID:CONTROLLERS:PATH`
/// (cgroups(7)).
const HIERARCHIES: &str = "/proc/self/cgroup";

/// Tags that leave out what the test has no use for, which is half of it: the clients of clouds,
/// and Docker.
const TAGS: &str = "providerless,dockerless";

/// For `cargo xtask kubelet`.
pub(crate) fn run() -> Result<()> {
    println!("{}", build()?.display());
    Ok(())
}

/// Whether tests can use one, and there is none.
pub(crate) fn is_missing() -> Result<bool> {
    let hierarchies =
        fs::read_to_string(HIERARCHIES).with_context(|| format!("read {HIERARCHIES}"))?;
    // One that old wants control groups of version 1; version 2 has no name there.
    let usable = hierarchies
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .any(|names| !names.is_empty() && !names.contains('='));
    let is_had = kubernetes::are_assets_named() || sh::find("kubelet").is_some();
    Ok(usable && !is_had && !program().is_file())
}

/// Where it is once it is built.
fn program() -> PathBuf {
    kubernetes::own_assets().join("kubelet")
}

/// Builds it, if it is not there. Returns where it is.
fn build() -> Result<PathBuf> {
    let assets = kubernetes::own_assets();
    let program = program();
    if !program.is_file() {
        install::programs(TOOLS)?;
        let root = assets.join("kubelet.partial");
        empty(&root)?;
        install::say(&format!(
            "kubelet into {}, from Debian's source: some minutes",
            assets.display()
        ));
        let apt = Apt::new(&root, apt::Kind::Sources, &[SUITE])?;
        apt.update()?;
        // Where it must lie for what it imports to be found.
        let source = root.join("go/src/k8s.io/kubernetes");
        apt.unpack_source("kubernetes", &source)?;
        let built = root.join("kubelet");
        let build = |tags: &str| {
            let mut go = sh::command("go");
            go.current_dir(&source)
                .env("GOPATH", root.join("go"))
                .env("GOCACHE", root.join("cache"))
                // It is older than modules are the rule. All it needs lies in it.
                .env("GO111MODULE", "off")
                .env("CGO_ENABLED", "0")
                .args(["build", "-tags", tags, "-ldflags", "-s -w", "-o"])
                .arg(&built)
                .arg("k8s.io/kubernetes/cmd/kubelet");
            sh::run(&mut go)
        };
        if let Err(error) = build(TAGS) {
            eprintln!("xtask: the whole kubelet is built, as a part of it was not: {error:#}");
            build("").context("Go from Debian bookworm (1.19) builds it; later ones may not")?;
        }
        fs::rename(&built, &program).with_context(|| format!("create {}", program.display()))?;
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    Ok(program)
}
