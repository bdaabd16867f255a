//! Memory pressure on the daemons, by a control group.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use vip_tests::clock::until;
use vip_tests::isolation::{CGROUPS, WORK_ROOT};
use vip_tests::process::Process;

use crate::failover::setup::Setup;

/// Limit of the control group, in bytes: more than the daemons have.
const LIMIT: u64 = 64 << 20;

/// Size of the file that is read again and again, in bytes. It has no blocks on the disk.
const FILE: u64 = 256 << 20;

/// A control group at its limit of memory: the kernel must reclaim a page for each that one of its
/// processes asks for.
pub(super) struct Pressure {
    hierarchy: PathBuf,
    group: PathBuf,
    reader: Option<Process>,
}

impl Pressure {
    /// Puts the daemons of all nodes under pressure.
    pub(super) fn new(setup: &Setup) -> Result<Self> {
        let (hierarchy, limit) = hierarchy()?;
        let group = tempfile::Builder::new()
            .prefix("vip-tests-memory-")
            .tempdir_in(&hierarchy)
            .context("make a control group")?
            .keep();
        let mut pressure = Self {
            hierarchy,
            group,
            reader: None,
        };
        fs::write(pressure.group.join(limit), LIMIT.to_string())
            .with_context(|| format!("set {limit}"))?;
        for node in setup.cluster.nodes() {
            for pid in setup.daemons(node)? {
                fs::write(pressure.group.join("cgroup.procs"), pid.to_string())
                    .context("move a daemon to the control group")?;
            }
        }
        // On a disk: pages of a tmpfs could not be reclaimed.
        let folder = setup.cluster.programs().testbed.parent();
        let file = tempfile::NamedTempFile::new_in(folder.context("programs are in a folder")?)?;
        file.as_file().set_len(FILE)?;
        let mut read = Command::new("sh");
        // The shell has the file open, which has no name soon.
        let script = "exec 3<\"$2\"; echo $$ >\"$1/cgroup.procs\"; while :; do cat /dev/fd/3 >/dev/null; done";
        read.args(["-c", script, "sh"]);
        read.arg(&pressure.group).arg(file.path());
        let log = setup.cluster.work().join("memory.log");
        pressure.reader = Some(Process::daemon("a reader", &mut read, &log)?);
        until("memory is at its limit", Duration::from_secs(10), || {
            let usage = ["memory.current", "memory.usage_in_bytes"];
            let mut texts = usage
                .iter()
                .filter_map(|name| fs::read_to_string(pressure.group.join(name)).ok());
            let bytes: u64 = texts.next().context("no usage")?.trim().parse()?;
            Ok((bytes > LIMIT / 10 * 9).then_some(()))
        })?;
        Ok(pressure)
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        self.reader = None;
        // The reader's child takes a moment to end. Best effort: nothing more can be done.
        for _ in 0..100 {
            for pid in processes(&self.group) {
                let _ = fs::write(self.hierarchy.join("cgroup.procs"), pid);
            }
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn processes(group: &Path) -> Vec<String> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The hierarchy of control groups that limits memory, and the file with a group's limit.
fn hierarchy() -> Result<(PathBuf, &'static str)> {
    let unified = PathBuf::from(CGROUPS);
    let controllers = fs::read_to_string(unified.join("cgroup.controllers"))?;
    if controllers.split_whitespace().any(|name| name == "memory") {
        fs::write(unified.join("cgroup.subtree_control"), "+memory")
            .context("let control groups limit memory")?;
        return Ok((unified, "memory.high"));
    }
    // The machine has the controller in a hierarchy of the first version.
    let own = Path::new(WORK_ROOT).join("memory");
    if !own.join("cgroup.procs").exists() {
        fs::create_dir_all(&own)?;
        let none = MsFlags::empty();
        mount(Some("cgroup"), &own, Some("cgroup"), none, Some("memory"))
            .context("mount the control groups of memory")?;
    }
    Ok((own, "memory.limit_in_bytes"))
}
