//! Virtual machines: QEMU with a kernel of Debian's, whose root is the host's, read-only.
//!
//! A machine has a control interface besides those of the network under test: QEMU's own user
//! network, from which nothing gets out. Through it commands are run: [`exec`] on the host,
//! [`guest`] inside, [`protocol`] between them.

pub mod accelerator;
pub mod exec;
pub mod guest;
pub mod machine;
pub mod protocol;
mod qmp;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Name of the control interface.
pub const CONTROL: &str = "control";

/// Its Ethernet address.
pub const CONTROL_MAC: &str = "52:54:00:00:00:01";

/// Its address: the first that QEMU's user network gives.
pub const CONTROL_ADDRESS: &str = "10.0.2.15";

/// What a machine writes on its console once it takes commands.
pub const READY: &str = "guest: takes commands";

/// Names the folder with the kernels, which `cargo xtask` prepares.
pub const KERNELS: &str = "VIP_TESTS_KERNELS";

/// A kernel that machines can boot.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// What the tests call it: `6.1`, `latest`.
    pub name: String,
    /// Its own version: `6.1.0-50-amd64`.
    pub version: String,
    folder: PathBuf,
}

impl Kernel {
    fn open(folder: &Path) -> Result<Self> {
        let version = folder.join("version");
        let name = folder.file_name().unwrap_or_default();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            version: std::fs::read_to_string(&version)
                .with_context(|| format!("read {}", version.display()))?,
            folder: folder.to_owned(),
        })
    }

    /// All kernels that were prepared, the oldest first. `None` if nobody prepared any.
    ///
    /// # Errors
    /// The folder cannot be read or is empty.
    pub fn all() -> Result<Option<Vec<Self>>> {
        let Some(root) = std::env::var_os(KERNELS).map(PathBuf::from) else {
            return Ok(None);
        };
        let mut kernels = Vec::new();
        for entry in root
            .read_dir()
            .with_context(|| format!("read {KERNELS}={}", root.display()))?
        {
            let path = entry.context("read the folder of kernels")?.path();
            if path.join("version").is_file() && path.extension() != Some("partial".as_ref()) {
                kernels.push(Self::open(&path)?);
            }
        }
        ensure!(!kernels.is_empty(), "no kernel is in {}", root.display());
        kernels.sort_by_key(|kernel| kernel.numbers());
        Ok(Some(kernels))
    }

    /// The kernel proper, uncompressed.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// What it boots from.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }

    /// What becomes `/lib/modules`.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }

    /// The numbers of its version, for comparisons.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        let numbers = self.version.split(|c: char| !c.is_ascii_digit());
        numbers.map_while(|number| number.parse().ok()).collect()
    }
}
