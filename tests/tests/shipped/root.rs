//! A root directory of a test's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use vip_tests::clock::until;
use vip_tests::process::{Process, tail};

use super::{outcome, run};

/// Mounts the machine's root directory below `$1`, so that all that is written goes to memory, and
/// `$2` as `/mnt`. Other file systems of the machine are not in it: neither `/run` nor `/sys`.
const MOUNT: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
mount --bind "$2" "$1/root/mnt"
mount --rbind /dev "$1/root/dev"
mount -t proc proc "$1/root/proc"
# It may be another file system, or full.
mount -t tmpfs tmpfs "$1/root/tmp"
echo ready
exec sleep infinity
"#;

/// dpkg asks for root's programs, which not every user's path has.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A copy of the machine's root directory, in which a test may change everything. It has a network
/// of its own, too. Gone with this value.
pub(crate) struct Root {
    holder: Process,
    folder: TempDir,
}

impl Root {
    /// One that has a folder as `/mnt`.
    pub(crate) fn new(mnt: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--net", "--propagation", "private"]);
        unshare.args(["sh", "-c", MOUNT, "sh"]);
        unshare.arg(folder.path()).arg(mnt);
        let log = folder.path().join("log");
        let mut holder = Process::reporter("root", &mut unshare, &log).expect("starts");
        until("the root is mounted", Duration::from_secs(60), || {
            anyhow::ensure!(holder.is_running(), "{}", tail(&log, 5));
            Ok((holder.line_count() > 0).then_some(()))
        })
        .expect("root may mount");
        Self { holder, folder }
    }

    fn enter(&self) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--mount", "--net", "--target"]);
        nsenter.arg(self.holder.pid().to_string());
        nsenter
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of a shell in it.
    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = self.enter();
        command.arg("chroot").arg(self.path("root"));
        command.args([
            "env",
            "HOME=/root",
            "LC_ALL=C.UTF-8",
            PATH,
            "sh",
            "-ec",
            script,
        ]);
        command
    }

    /// Runs a script that has to succeed. Returns what it printed.
    pub(crate) fn sh(&self, script: &str) -> String {
        run(&mut self.command(script))
    }

    /// Whether a script succeeds.
    pub(crate) fn holds(&self, script: &str) -> bool {
        outcome(&mut self.command(script)).0
    }

    /// All that was written and is there, but for what is below these directories.
    pub(crate) fn written(&self, but: &[&str]) -> Vec<String> {
        let mut find = self.enter();
        find.arg("find").arg(self.path("upper"));
        // Directories that were only looked into are there, too.
        find.args([
            "-not", "-type", "d", "-not", "-type", "c", "-printf", "/%P\\n",
        ]);
        let all = run(&mut find);
        let is_kept = |path: &&str| !but.iter().any(|folder| path.starts_with(folder));
        all.lines().filter(is_kept).map(str::to_owned).collect()
    }
}
