//! A kubelet for the test that starts the static pod by the real one. Nobody ships it as a package
//! that could be fetched, so it is built from what Debian's package of kubectl is made from.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::apt::{self, Apt, empty};
use crate::{install, kubernetes, sh};

/// The last suite whose source has the whole of Kubernetes in it. Later ones have kubectl only.
const SUITE: &str = "bookworm";

const TOOLS: &[install::Program] = &[apt::KEYRING, ("go", "golang-go"), ("tar", "tar")];

/// Which control groups there are: a line for each hierarchy, `ID:CONTROLLERS:PATH`
/// (cgroups(7)).
const HIERARCHIES: &str = "/proc/self/cgroup";

/// For `cargo xtask kubelet`.
pub(crate) fn run() -> Result<()> {
    println!("{}", build()?.display());
    Ok(())
}

/// For the tests: builds one where they can use it and there is none. If that fails, the test
/// that needs it is skipped, and says so.
pub(crate) fn prepare() -> Result<()> {
    let hierarchies =
        fs::read_to_string(HIERARCHIES).with_context(|| format!("read {HIERARCHIES}"))?;
    // One that old wants control groups of version 1; version 2 has no name there.
    let usable = hierarchies
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .any(|names| !names.is_empty() && !names.contains('='));
    let is_had = kubernetes::are_assets_named() || sh::find("kubelet").is_some();
    if usable
        && !is_had
        && let Err(error) = build()
    {
        eprintln!("xtask: no kubelet: {error:#}");
    }
    Ok(())
}

/// Builds it, if it is not there. Returns where it is.
fn build() -> Result<PathBuf> {
    let assets = kubernetes::own_assets();
    let program = assets.join("kubelet");
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
        let mut go = sh::command("go");
        go.current_dir(&source)
            .env("GOPATH", root.join("go"))
            .env("GOCACHE", root.join("cache"))
            // It is older than modules are the rule. All it needs lies in it.
            .env("GO111MODULE", "off")
            .env("CGO_ENABLED", "0")
            .args(["build", "-o"])
            .arg(&built)
            .arg("k8s.io/kubernetes/cmd/kubelet");
        sh::run(&mut go).context("Go from Debian bookworm (1.19) builds it; later ones may not")?;
        fs::rename(&built, &program).with_context(|| format!("create {}", program.display()))?;
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    Ok(program)
}
