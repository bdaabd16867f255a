//! How fast a machine can be: emulated by QEMU (TCG), or by the processor (KVM) where that
//! boots a kernel. `/dev/kvm` alone proves nothing: inside some virtual machines it is there,
//! and kernels hang on it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::utsname::uname;

use super::Kernel;

/// What executes a machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU's translator.
    Tcg,
    /// QEMU's translator, with a clock that counts instructions, one each nanosecond.
    Counting,
    /// The processor.
    Kvm,
}

impl Accelerator {
    /// Options of QEMU.
    pub(super) const fn options(self) -> &'static [&'static str] {
        match self {
            // Kernels copy memory by `rep movsb` where that is fast. The translator does it byte by
            // byte.
            Self::Tcg => &[
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max,erms=off,fsrm=off",
            ],
            Self::Counting => &[
                "-accel",
                "tcg,thread=single",
                "-cpu",
                "max",
                "-icount",
                "shift=0,sleep=off",
            ],
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
        }
    }

    /// The fastest that boots a kernel. What was found is kept beside the kernel until the host
    /// boots another one.
    ///
    /// # Errors
    /// The host does not say what it is.
    pub fn best(kernel: &Kernel) -> Result<Self> {
        if !Path::new("/dev/kvm").exists() {
            return Ok(Self::Tcg);
        }
        let host = uname().context("ask the host's kernel for its version")?;
        let host = format!(
            "{} {}",
            host.release().to_string_lossy(),
            host.version().to_string_lossy()
        );
        let record = kernel.folder.join("accelerator");
        let known = std::fs::read_to_string(&record).unwrap_or_default();
        for (found, text) in [(Self::Kvm, "kvm"), (Self::Tcg, "tcg")] {
            if known == format!("{text} on {host}") {
                return Ok(found);
            }
        }
        let (found, text) = if boots(kernel, Self::Kvm)? {
            (Self::Kvm, "kvm")
        } else {
            (Self::Tcg, "tcg")
        };
        // Not to be able to keep it costs the next run some seconds, no more.
        let _ = std::fs::write(&record, format!("{text} on {host}"));
        Ok(found)
    }
}

/// A kernel that boots does so in a second or two.
const PROBE: Duration = Duration::from_secs(20);

/// Boots a machine without disks or networks, whose first process says so and switches it off.
fn boots(kernel: &Kernel, accelerator: Accelerator) -> Result<bool> {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-machine", "q35", "-m", "512"])
        .args(accelerator.options())
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(kernel.initrd())
        .args(["-append", "console=ttyS0 quiet panic=-1 vip_probe=1"])
        .args(["-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().context("start qemu-system-x86_64")?;
    let begin = Instant::now();
    let ended = loop {
        if child.try_wait().context("wait for QEMU")?.is_some() {
            break true;
        }
        if begin.elapsed() > PROBE {
            child.kill().context("end QEMU")?;
            break false;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let output = child.wait_with_output().context("wait for QEMU")?;
    Ok(ended && String::from_utf8_lossy(&output.stdout).contains("vip-init: boots"))
}
