//! Puts the eBPF objects, which `cargo xtask build-ebpf` makes, where the agent embeds them from, and
//! names the build.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    name_build();
    println!("cargo::rerun-if-env-changed=VIP_EBPF_OBJECT");
    let object = env::var_os("VIP_EBPF_OBJECT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/vip.o"),
        PathBuf::from,
    );
    let out = env::var_os("OUT_DIR").expect("cargo sets it for build scripts");
    // The others lie beside it.
    for (object, name) in [
        (object.with_file_name("bfd_port.o"), "bfd_port.o"),
        (object.with_file_name("roster.o"), "roster.o"),
        (object, "vip.o"),
    ] {
        println!("cargo::rerun-if-changed={}", object.display());
        if let Err(error) = fs::copy(&object, Path::new(&out).join(name)) {
            println!(
                "cargo::error=no eBPF object at {}: {error}; run `cargo xtask build-ebpf`",
                object.display()
            );
        }
    }
}

/// Gives the code the target, the version, and the commit if that is known: `VIP_COMMIT`, or what git
/// says. Only optimised builds ask git, since each new commit builds the crate anew then.
fn name_build() {
    println!("cargo::rerun-if-env-changed=VIP_COMMIT");
    let target = env::var("TARGET").expect("cargo sets it for build scripts");
    println!("cargo::rustc-env=VIP_TARGET={target}");
    let given = env::var("VIP_COMMIT").ok();
    let optimised = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| optimised.then(commit).flatten());
    let commit = commit.filter(|commit| !commit.is_empty());
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it for build scripts");
    match commit {
        Some(commit) => {
            let short = commit.get(..12).unwrap_or(&commit);
            println!("cargo::rustc-env=VIP_VERSION={version} ({short})");
            println!("cargo::rustc-env=VIP_COMMIT={commit}");
        }
        None => println!("cargo::rustc-env=VIP_VERSION={version}"),
    }
}

/// The commit that is checked out; `None` if this is no checkout, or there is no git.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD"].into_iter().chain(branch.as_deref()) {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    Some(commit)
}
