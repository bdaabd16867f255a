//! The run directory, and the names of all files that an agent keeps there.

use std::path::{Path, PathBuf};

/// The agent's socket, for `vip status` and the other commands that ask it.
pub const SOCKET: &str = "vip.sock";

/// The last events, in the state directory. Without one that can be written they lie in the run
/// directory.
pub const EVENTS: &str = "events.jsonl";

/// Says that the node takes no new connections; beside [`EVENTS`].
pub const DRAINED: &str = "drained";

/// The members of a cluster whose agents find each other; beside [`EVENTS`].
pub const MEMBERS: &str = "members.jsonl";

/// Where an agent keeps its socket, its lock, and its notes about the running kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The agent's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join(SOCKET)
    }

    /// Locked while an agent runs; holds its process ID.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("vip.pid")
    }

    /// Note: the addresses that were put on `lo`, one a line.
    #[must_use]
    pub fn addresses(&self) -> PathBuf {
        self.0.join("addresses")
    }

    /// Note: the settings of the kernel that were changed, one a line.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.0.join("settings")
    }

    /// Note: the path of the state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.0.join("state_dir")
    }

    /// Note: the path at which the agent mounted a bpffs.
    #[must_use]
    pub fn mounted_bpffs(&self) -> PathBuf {
        self.0.join("mounted-bpffs")
    }

    /// Whether it is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.0.exists()
    }
}

impl From<PathBuf> for RunDir {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl From<&Path> for RunDir {
    fn from(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl From<&str> for RunDir {
    fn from(path: &str) -> Self {
        Self(path.into())
    }
}
