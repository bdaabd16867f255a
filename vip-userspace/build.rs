//! Puts the eBPF object, which `cargo xtask build-ebpf` makes, where the agent embeds it from.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=VIP_EBPF_OBJECT");
    let object = env::var_os("VIP_EBPF_OBJECT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/vip.o"),
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    let out = env::var_os("OUT_DIR").expect("cargo sets it for build scripts");
    if let Err(error) = fs::copy(&object, Path::new(&out).join("vip.o")) {
        println!(
            "cargo::error=no eBPF object at {}: {error}; run `cargo xtask build-ebpf`",
            object.display()
        );
    }
}
