//! Somewhere to run programs: a pair of a network and a mount namespace with a control group. A
//! sleeping child holds each, and dies with the harness: nothing has a name in `/run/netns`,
//! nothing is left behind.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::isolation::CGROUPS;
use crate::process::Process;
use crate::sys::{self, Namespaces};

/// A control group, which is removed once nobody is in it.
#[derive(Debug)]
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Result<Self> {
        // Of a name that nobody has: process ids are those of a namespace.
        let group = tempfile::Builder::new()
            .prefix(&format!("vip-tests-{name}-"))
            .tempdir_in(CGROUPS)
            .context("make a control group")?;
        Ok(Self(group.keep()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that are still in it: containers have groups of their own below. (Best effort, as
        // is the rest: nothing more can be done.)
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        // Those that were killed take a moment to be gone.
        for _ in 0..100 {
            if remove_groups(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Removes a control group and those below it. Their files go with them.
fn remove_groups(group: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}

/// A pair of namespaces with a control group, and the process that holds them.
#[derive(Debug)]
pub struct NetNs {
    // Fields are dropped in this order: the group after who is in it.
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) holder: Process,
    _cgroup: Cgroup,
}

impl NetNs {
    /// Makes one. There is nothing in its network but `lo`, which is down.
    ///
    /// # Errors
    /// The kernel refuses something.
    pub fn new(name: &str) -> Result<Self> {
        let cgroup = Cgroup::new(name)?;
        let mut command = Command::new("sleep");
        command.arg("infinity");
        sys::run_in_new_namespaces(&mut command, &cgroup.0);
        // `spawn` returns when the child has called `exec`, and so has its namespaces.
        let holder = Process::daemon(name, &mut command, "/dev/null".as_ref())?;
        let open = |kind: &str| -> Result<OwnedFd> {
            let path = format!("/proc/{}/ns/{kind}", holder.pid());
            Ok(File::open(&path)
                .with_context(|| format!("open {path}"))?
                .into())
        };
        let namespaces = Arc::new(Namespaces {
            net: open("net")?,
            mount: open("mnt")?,
        });
        Ok(Self {
            namespaces,
            holder,
            _cgroup: cgroup,
        })
    }

    /// A command that will run here.
    #[must_use]
    pub fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        sys::run_inside(&mut command, &self.namespaces);
        command
    }

    /// The beginning of a command line that runs a program here, for people.
    #[must_use]
    pub fn way_in(&self) -> String {
        format!("nsenter --target {} --net --mount", self.holder.pid())
    }

    /// Runs lines of `ip -batch` here.
    ///
    /// # Errors
    /// `ip` is not there, or refuses a line.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut child = self
            .command("ip".as_ref())
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start ip (install iproute2)")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(lines.as_bytes())
                .context("give commands to ip")?;
        }
        let output = child.wait_with_output().context("wait for ip")?;
        ensure!(
            output.status.success(),
            "ip -batch failed on {}: {}",
            self.holder.name(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Writes settings below `/proc/sys/net`. Those that the kernel does not have are skipped.
    pub(crate) fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        sys::in_network(&self.namespaces, || {
            for (key, value) in settings {
                match std::fs::write(format!("/proc/sys/net/{key}"), value) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .with_context(|| format!("set sysctls on {}", self.holder.name()))
    }
}
