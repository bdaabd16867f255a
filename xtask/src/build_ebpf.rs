//! `cargo xtask build-ebpf`: the object that the agent embeds.

use std::env::consts::ARCH;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{programs, remapped};
use crate::{install, sh};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Accepted for symmetry: the object is always optimised, as the verifier takes no other
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(_: &Options) -> Result<()> {
    object()
}

/// Below `target`, apart from host builds, whose flags differ.
const TARGET_DIR: &str = "target/bpf";

/// Builds `target/bpf/vip.o`, `bfd_port.o` and `roster.o`, and `bench.o` for the benchmarks. Their time stamps
/// change only with their content, so that the agent is not built anew each time.
pub(crate) fn object() -> Result<()> {
    install::nightly()?;
    let linker = install::bpf_linker()?;
    programs(&mut cargo("build", &linker))?;

    let target_dir = sh::workspace().join(TARGET_DIR);
    for name in ["vip", "bfd_port", "roster", "bench"] {
        let built = target_dir.join("bpfel-unknown-none/release").join(name);
        publish(&built, &target_dir.join(name).with_extension("o"))?;
    }
    Ok(())
}

/// Copies an object, unless it is there already.
fn publish(built: &Path, object: &Path) -> Result<()> {
    let content = fs::read(built).with_context(|| format!("read {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == content) {
        return Ok(());
    }
    // Renamed into place: a build of the agent never sees half of it.
    let partial = object.with_extension("o.partial");
    fs::write(&partial, &content).with_context(|| format!("write {}", partial.display()))?;
    fs::rename(&partial, object).with_context(|| format!("write {}", object.display()))
}

/// `cargo xtask clippy-ebpf`.
pub(crate) fn clippy() -> Result<()> {
    install::nightly()?;
    install::nightly_clippy()?;
    let linker = install::bpf_linker()?;
    sh::run(cargo("clippy", &linker).args(["--quiet", "--", "-D", "warnings"]))
}

fn cargo(subcommand: &str, linker: &Path) -> Command {
    let arch = format!("--cfg=bpf_target_arch=\"{ARCH}\"");
    let linker = format!("-Clinker={}", linker.display());
    let mut flags = vec![
        // Which registers `pt_regs` has; aya-ebpf wants to know.
        arch,
        // BTF is made from debug info.
        "-Cdebuginfo=2".to_owned(),
        linker,
        "-Clink-arg=--btf".to_owned(),
        // 32-bit arithmetic and jumps: every kernel we run on has them (5.1).
        "-Ctarget-cpu=v3".to_owned(),
        // Headers are byte arrays and rarely aligned. Without this LLVM puts each word
        // together from bytes.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
    ];
    // BTF names source files.
    flags.extend(remapped());
    let mut cargo = sh::command("cargo");
    cargo
        .arg(format!("+{}", install::NIGHTLY))
        .args([subcommand, "--package", "vip-ebpf", "--release"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .args(["--target-dir", TARGET_DIR])
        // The outer cargo's proxy names its own toolchain here.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    cargo
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    /// What is embedded in the agent, and so in the image. `cargo xtask image
    /// --check-reproducible` shows the rest, in ten minutes.
    #[test]
    fn no_object_names_a_folder_of_this_machine() {
        let home = env::var("HOME").expect("there is a home");
        for name in ["vip", "bfd_port", "roster"] {
            let path = sh::workspace().join(TARGET_DIR).join(name);
            let object = fs::read(path.with_extension("o")).expect("cargo xtask build-ebpf");
            let holds = |text: &str| {
                object
                    .windows(text.len())
                    .any(|part| part == text.as_bytes())
            };
            // Files are named, for BTF, as they are in the repository.
            assert!(holds("/vip/vip-ebpf/src/") || name != "vip");
            for folder in [
                sh::workspace().display().to_string(),
                format!("{home}/.cargo/"),
                format!("{home}/.rustup/"),
            ] {
                assert!(!holds(&folder), "{name} names {folder}");
            }
        }
    }
}
