//! `cargo xtask dist`: all that a release is made of, with checksums and a bill of materials.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::image::{Architecture, VERSION};
use crate::{image, install, sh};

/// Where it goes.
const FOLDER: &str = "target/dist";

/// Files of the repository that belong to it.
const FILES: &[&str] = &[
    "deploy/prometheus/alerts.yaml",
    "deploy/prometheus/pod-monitor.yaml",
    "deploy/prometheus/scrape.yaml",
    "deploy/grafana/vip.json",
    "deploy/cluster-api/control-plane.yaml",
    "LICENSE",
    "CHANGELOG.md",
];

pub(crate) fn run() -> Result<()> {
    let folder = sh::workspace().join(FOLDER);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("empty {FOLDER}"))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {FOLDER}"))?;
    let mut binaries = Vec::new();
    for architecture in Architecture::ALL {
        let built = image::binary(architecture, false)?;
        let name = format!("vip-{VERSION}-linux-{}", architecture.name());
        copy(&built, &folder.join(name))?;
        binaries.push((architecture, built));
    }
    image::pack(&binaries, &folder.join(format!("vip-{VERSION}.oci.tar")))?;
    bill_of_materials(&folder)?;
    for file in FILES {
        let path = sh::workspace().join(file);
        let name = path.file_name().context("a file has a name")?;
        copy(&path, &folder.join(name))?;
    }
    checksums(&folder)?;
    println!("{}", folder.display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("copy {} to {}", from.display(), to.display());
    fs::copy(from, to).map(drop).with_context(what)
}

/// What the binary is made of, in CycloneDX' format.
fn bill_of_materials(folder: &Path) -> Result<()> {
    let tool = install::cargo_tool("cargo-cyclonedx", "0.5.9")?;
    let name = format!("vip-{VERSION}.cdx");
    sh::run(
        sh::command(tool)
            .args([
                "cyclonedx",
                "--quiet",
                "--format",
                "json",
                "--spec-version",
                "1.5",
            ])
            .args(["--manifest-path", "vip-userspace/Cargo.toml"])
            .args(["--target", &Architecture::X86_64.target()])
            .args(["--override-filename", &name]),
    )?;
    // It writes one for each crate of the workspace, beside its manifest.
    for member in ["vip-common", "vip-userspace", "vip-ebpf", "xtask", "tests"] {
        let made = sh::workspace().join(member).join(format!("{name}.json"));
        if member == "vip-userspace" {
            copy(&made, &folder.join(format!("{name}.json")))?;
        }
        if made.exists() {
            fs::remove_file(&made).with_context(|| format!("remove {}", made.display()))?;
        }
    }
    Ok(())
}

/// `SHA256SUMS`, as sha256sum(1) writes and checks it.
fn checksums(folder: &Path) -> Result<()> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).context("list the release")? {
        let entry = entry.context("list the release")?;
        let content = fs::read(entry.path()).context("read what was made")?;
        let name = entry.file_name();
        lines.push(format!("{}  {}\n", image::hex(&content), name.display()));
    }
    lines.sort_by(|a, b| a[64..].cmp(&b[64..]));
    fs::write(folder.join("SHA256SUMS"), lines.concat()).context("write SHA256SUMS")
}
