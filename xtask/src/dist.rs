//! `cargo xtask dist`: all that a release is made of, with checksums and a bill of materials.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::image::{Architecture, VERSION};
use crate::package::{self, Contents};
use crate::{image, install, sh};

/// Where it goes.
const FOLDER: &str = "target/dist";

/// Folders of the repository that belong to it, and what their archives are called.
const ARCHIVES: &[(&str, &str)] = &[("deploy/helm/vip", "helm"), ("deploy/ansible", "ansible")];

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
    let here = Architecture::here()?;
    let runs_here = binaries
        .iter()
        .find(|(architecture, _)| *architecture == here);
    let (_, runs_here) = runs_here.context("one binary runs here")?;
    for (architecture, binary) in &binaries {
        let contents = Contents {
            binary,
            runs_here,
            version: VERSION,
            config: "",
        };
        package::make(*architecture, &contents, &folder)?;
        bill_of_materials(*architecture, &folder)?;
    }
    package::completions(runs_here, &folder)?;
    let man = folder.join("man");
    package::manual(runs_here, &man)?;
    archive(&man, &folder.join(format!("vip-{VERSION}-man.tar.gz")))?;
    fs::remove_dir_all(&man).with_context(|| format!("remove {}", man.display()))?;
    for (folder_of, name) in ARCHIVES {
        archive(
            &sh::workspace().join(folder_of),
            &folder.join(format!("vip-{VERSION}-{name}.tar.gz")),
        )?;
    }
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

/// A folder as an archive, in which files have no owner and no time. The folder
/// keeps its name.
fn archive(from: &Path, output: &Path) -> Result<()> {
    let (parent, name) = from
        .parent()
        .zip(from.file_name())
        .context("a folder lies in one")?;
    let mut tar = sh::command("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.args(["--mtime=@0", "--mode=u=rwX,go=rX", "--use-compress-program"]);
    tar.args(["gzip --best --no-name", "--create", "--file"]);
    tar.arg(output).arg("--directory").arg(parent);
    sh::run(tar.arg(name))
}

/// What the binary for an architecture is made of, in CycloneDX' format.
fn bill_of_materials(architecture: Architecture, folder: &Path) -> Result<()> {
    let tool = install::cargo_tool("cargo-cyclonedx", "0.5.9")?;
    let name = format!("vip-{VERSION}-{}.cdx", architecture.name());
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
            .args(["--target", &architecture.target()])
            .args(["--override-filename", &name]),
    )?;
    // It writes one for each crate of the workspace, beside its manifest.
    for member in [
        "vip-common",
        "vip-userspace",
        "vip-userspace/node",
        "vip-ebpf",
        "xtask",
        "tests",
    ] {
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
