//! A machine of the other architecture that is shipped. It shares nothing with the host, whose
//! programs it cannot run: what it tries is in its initrd, and what it finds is on its console.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Failed, Trial};
use vip_tests::clock::until;
use vip_tests::isolation::WORK_ROOT;
use vip_tests::netns::NetNs;
use vip_tests::process::Process;

/// Names the folder with its kernel and initrd, which `cargo xtask test vm` prepares.
const FOLDER: &str = "VIP_TESTS_AARCH64";

/// What its first process (xtask/src/kernels/aarch64.sh) tries.
const PROOFS: &[&str] = &[
    "verdicts",
    "owns",
    "native",
    "answers",
    "serves",
    "counts",
    "knows_connections",
    "leaves_nothing",
];

/// It is emulated, instruction by instruction.
const PATIENCE: Duration = Duration::from_secs(900);

/// The node's Ethernet address.
const MAC: &str = "02:00:0a:00:00:0b";

/// What the host's NIC would do for the guest, and XDP in the driver cannot have.
const PLAIN: &str = "guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";

pub(crate) fn trial() -> Trial {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from);
    let name = "aarch64_binary_serves_and_all_verdicts_are_the_same".to_owned();
    let trial = Trial::test(crate::named::named(name, folder.is_some()), {
        let folder = folder.clone();
        move || run(folder.as_deref()).map_err(|e| Failed::from(format!("{e:#}")))
    });
    trial.with_ignored_flag(folder.is_none())
}

fn run(folder: Option<&Path>) -> Result<()> {
    let folder = folder.with_context(|| format!("{FOLDER} is not set: cargo xtask test vm"))?;
    crate::inside::done();
    let console = Path::new(WORK_ROOT).join("aarch64-console.log");
    let netns = NetNs::new("aarch64")?;
    let mut qemu = netns.command("qemu-system-aarch64".as_ref());
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-machine", "virt", "-m", "1024", "-smp", "2"])
        // Signed pointers take most of the emulator's time otherwise.
        .args(["-accel", "tcg", "-cpu", "max,pauth-impdef=on"])
        .arg("-kernel")
        .arg(folder.join("vmlinuz"))
        .arg("-initrd")
        .arg(folder.join("initrd"))
        .args(["-append", "console=ttyAMA0 quiet panic=-1"])
        .args(["-serial", "stdio"]);
    // The node's and the client's, on one cable that leads nowhere else.
    for (nic, mac) in [("node", MAC), ("client", "02:00:0a:00:00:64")] {
        qemu.args(["-netdev", &format!("hubport,id={nic},hubid=0")]);
        let device = format!("virtio-net-pci,netdev={nic},mac={mac},romfile=,{PLAIN}");
        qemu.args(["-device", &device]);
    }
    let mut machine = Process::daemon("aarch64", &mut qemu, &console)?;
    let ended = until("the machine has tried all", PATIENCE, || {
        Ok((!machine.is_running()).then_some(()))
    });
    let text = std::fs::read(&console).context("read the console")?;
    let text = String::from_utf8_lossy(&text);
    ended.with_context(|| format!("console:\n{text}"))?;
    for proof in PROOFS {
        let line = format!("proved: {proof}");
        let proved = text.lines().any(|found| found.trim_end() == line);
        ensure!(proved, "{proof} is not proved. Console:\n{text}");
    }
    Ok(())
}
