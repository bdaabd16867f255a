//! The empty network namespace that everything here runs in.
//!
//! A harness that starts daemons on a developer's machine must not let one of them find a
//! real interface, whatever goes wrong. So the process moves into a network namespace with
//! nothing but `lo` before it does anything else.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Marks the second run of the executable, the one inside.
pub const MARK: &str = "VIP_TESTS_ISOLATED";

/// A tmpfs that only this process and its children see. It holds all files of a run, so that
/// they vanish with the last of them, even after SIGKILL. Logs of failures are copied out.
pub const WORK_ROOT: &str = "/dev/shm";

/// Where cgroup2 is mounted, here and on every host.
pub const CGROUPS: &str = "/sys/fs/cgroup";

/// Re-executes the current program in an empty network namespace and a private mount
/// namespace. Returns in the second run only, after a check that `lo` is the only interface.
/// Ends the process with status 2 and one line if that cannot be had: for example, not root.
///
/// Call it first thing in `main`, before any thread starts.
pub fn enter_empty_netns() {
    if let Err(error) = try_enter() {
        eprintln!("{error:#}");
        std::process::exit(2);
    }
}

fn try_enter() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the network-namespace harness needs root: run it with sudo"
    );
    if std::env::var_os(MARK).is_some() {
        return only_loopback();
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("unshare a network and a mount namespace (in a container: run it --privileged)")?;
    make_mounts_private()?;
    mount_fresh("sysfs", Path::new("/sys"))?;
    // Each host gets a control group of its own below: see `topology::netns`.
    mount_fresh("cgroup2", Path::new(CGROUPS))?;
    mount_fresh("tmpfs", Path::new(WORK_ROOT))?;
    let program = std::env::current_exe().context("find the path of this program")?;
    let error = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1")
        .exec();
    Err(error).context("run this program again inside its namespaces")
}

/// The proof, independent of the mark.
fn only_loopback() -> Result<()> {
    let interfaces = nix::net::if_::if_nameindex().context("list network interfaces")?;
    for interface in &interfaces {
        if interface.name().to_bytes() != b"lo" {
            bail!(
                "refusing to run: {MARK} is set, yet this network namespace has interface {:?}; unset {MARK}",
                interface.name()
            );
        }
    }
    Ok(())
}

/// No mount made from here on reaches the machine's own mount namespace.
pub(crate) fn make_mounts_private() -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("make all mounts private")
}

/// Mounts a new instance of a file system over a directory.
pub(crate) fn mount_fresh(kind: &str, target: &Path) -> Result<()> {
    mount(
        Some(kind),
        target,
        Some(kind),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("mount {kind} on {}", target.display()))
}
