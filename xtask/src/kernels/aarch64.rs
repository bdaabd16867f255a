//! A machine of the other architecture that is shipped: Debian's kernel for arm64, and in its
//! initrd the agent's binary, the test of verdicts, and a first process that tries them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{current, is_young, unpack_file};
use crate::apt::{self, Apt, empty};
use crate::image::{self, Architecture};
use crate::{install, sh};

/// Debian's name of the package that depends on the current kernel of a suite. This flavour has
/// all that a machine needs, and is small.
const PACKAGE: &str = "linux-image-cloud-arm64";

const SUITE: &str = "trixie";

const TOOLS: &[install::Program] = &[
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("xz", "xz-utils"),
    ("cpio", "cpio"),
    apt::KEYRING,
];

/// In this order, and where they lie below the kernel's modules.
const MODULES: &[&str] = &[
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
];

/// The first process, see there.
const INIT: &str = include_str!("aarch64.sh");

/// Connections are not redirected where they are made: the client's are to come by the NIC.
const CONFIG: &str = r#"
vip = "10.0.0.10:6443"
nodes = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]

[local]
enabled = false
"#;

/// Returns the folder with `vmlinuz` and an `initrd` that has today's programs.
pub(crate) fn prepare() -> Result<PathBuf> {
    install::programs(TOOLS)?;
    let folder = sh::workspace().join("target/vm/aarch64");
    let version = folder.join("version");
    if !is_young(&version)
        && let Err(error) = fetch(&folder)
    {
        if !version.is_file() {
            return Err(error);
        }
        eprintln!("xtask: the arm64 kernel of last week is used: {error:#}");
    }
    let programs = [
        ("vip", image::binary(Architecture::Aarch64, true)?),
        ("verdicts", image::test(Architecture::Aarch64, "verdicts")?),
    ];
    pack(&folder, &programs)?;
    Ok(folder)
}

/// Fetches the current kernel, the modules it needs, and busybox.
fn fetch(folder: &Path) -> Result<()> {
    let apt = Apt::new(folder, apt::Kind::Packages("arm64"), &[SUITE])?;
    apt.update()?;
    let (image, version) = current(&apt, PACKAGE, SUITE)?;
    eprintln!("xtask: fetching Linux {version} of Debian {SUITE}, by apt-get, into target/vm");
    let unpacked = folder.join("unpacked");
    empty(&unpacked)?;
    apt.unpack(&[image, "busybox-static".to_owned()], &unpacked)?;
    let take = |from: PathBuf, to: &str| {
        fs::rename(&from, folder.join(to)).with_context(|| format!("take {}", from.display()))
    };
    take(unpacked.join(format!("boot/vmlinuz-{version}")), "vmlinuz")?;
    take(unpacked.join("usr/bin/busybox"), "busybox")?;
    let modules = folder.join("modules");
    empty(&modules)?;
    let mut order = String::new();
    for module in MODULES {
        let packed = unpacked.join(format!("usr/lib/modules/{version}/kernel/{module}.ko.xz"));
        let (_, name) = module.rsplit_once('/').context("a module lies somewhere")?;
        unpack_file("xz", &packed, &modules.join(name))?;
        order += name;
        order.push('\n');
    }
    fs::write(modules.join("order"), order).context("write the order of modules")?;
    fs::remove_dir_all(&unpacked).context("remove what is not needed of the packages")?;
    fs::write(folder.join("version"), &version).context("write the version")
}

/// Packs the initrd.
fn pack(folder: &Path, programs: &[(&str, PathBuf)]) -> Result<()> {
    let root = folder.join("initrd.d");
    empty(&root)?;
    let copy = |from: &Path, to: &str| {
        fs::copy(from, root.join(to)).with_context(|| format!("take {}", from.display()))
    };
    copy(&folder.join("busybox"), "busybox")?;
    for (name, path) in programs {
        copy(path, name)?;
    }
    for (name, text) in [("init", INIT), ("vip.toml", CONFIG)] {
        fs::write(root.join(name), text).with_context(|| format!("write {name}"))?;
    }
    let script = "cp -r ../modules . && chmod 755 init busybox && \
                  find . | cpio --quiet -o -H newc >../initrd";
    sh::run(sh::command("sh").current_dir(&root).args(["-ec", script]))?;
    fs::remove_dir_all(&root).context("remove what went into the initrd")
}
