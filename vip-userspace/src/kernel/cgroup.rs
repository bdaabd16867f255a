//! Where the control groups are.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Where cgroup2 usually is: alone, or beside cgroup v1 (systemd, "hybrid").
const PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The root of the mounted cgroup2; `None` if there is none.
#[must_use]
pub fn root() -> Option<PathBuf> {
    let usual = PLACES.iter().map(PathBuf::from);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let path = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    usual.chain(mounted).find(|path| is_cgroup2(path))
}

/// Whether a directory is one of cgroup2.
#[must_use]
pub fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}
