//! Puts the eBPF objects, which `cargo xtask build-ebpf` makes, where the agent embeds them from.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
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
