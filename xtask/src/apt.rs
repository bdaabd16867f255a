//! apt with a root of its own, with its own sources and lists: the machine's are neither used nor
//! changed, and nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{install, sh};

/// Signs the lists of all suites, and the package it comes in.
pub(crate) const KEYRING: install::Program = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "debian-archive-keyring",
);

/// What is to be fetched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Packages for an architecture, by Debian's name for it.
    Packages(&'static str),
    /// What packages are made from.
    Sources,
}

/// A root of apt's for itself.
pub(crate) struct Apt {
    root: PathBuf,
}

impl Apt {
    /// One below `root`, for these suites of Debian.
    pub(crate) fn new(root: &Path, kind: Kind, suites: &[&str]) -> Result<Self> {
        let root = root.join("apt");
        for folder in ["etc", "lists/partial", "cache/archives/partial"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        // Sources are for all.
        let (line, target, architecture) = match kind {
            Kind::Packages(architecture) => ("deb", "Packages", architecture),
            Kind::Sources => ("deb-src", "Sources", "amd64"),
        };
        let (keyring, _) = KEYRING;
        let sources: String = suites
            .iter()
            .map(|suite| {
                format!(
                    "{line} [arch={architecture} target={target} signed-by={keyring}] http://deb.debian.org/debian {suite} main\n"
                )
            })
            .collect();
        // The machine's own settings, proxies for one, are read too: those in `apt.conf.d`.
        let settings = format!(
            "Dir::Etc::sourcelist \"{0}/etc/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
             Dir::State \"{0}\";\nDir::State::lists \"{0}/lists\";\nDir::State::status \"/dev/null\";\n\
             Dir::Cache \"{0}/cache\";\nAPT::Architecture \"{architecture}\";\nAPT::Architectures \"{architecture}\";\n\
             Acquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n",
            root.display()
        );
        let write = |name: &str, text: &str| {
            let path = root.join("etc").join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        write("sources.list", &sources)?;
        write("apt.conf", &settings)?;
        Ok(Self { root })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = sh::command(program);
        command.env("APT_CONFIG", self.root.join("etc/apt.conf"));
        command
    }

    /// Fetches the lists.
    pub(crate) fn update(&self) -> Result<()> {
        sh::run(self.command("apt-get").args(["-qq", "update"]))
    }

    /// The packages that a package depends on.
    pub(crate) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        command.args(["depends", "--important", package]);
        let text = sh::output(&mut command)
            .with_context(|| format!("Debian has no package {package} (`{command:?}`)"))?;
        let names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads packages and unpacks them in a folder.
    pub(crate) fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        let downloads = self.root.join("downloads");
        empty(&downloads)?;
        let mut download = self.command("apt-get");
        download.current_dir(&downloads).args(["-qq", "download"]);
        sh::run(download.args(packages))?;
        for file in files(&downloads)? {
            sh::run(sh::command("dpkg-deb").arg("-x").args([&file, folder]))?;
        }
        empty(&downloads)
    }

    /// Downloads what a package is made from and unpacks it in a folder, without what Debian
    /// changes in it.
    pub(crate) fn unpack_source(&self, package: &str, folder: &Path) -> Result<()> {
        let downloads = self.root.join("downloads");
        empty(&downloads)?;
        let mut download = self.command("apt-get");
        download.current_dir(&downloads);
        sh::run(download.args(["-qq", "source", "--download-only", package]))?;
        let original = files(&downloads)?
            .into_iter()
            .find(|path| path.to_string_lossy().contains(".orig.tar."))
            .with_context(|| format!("the source of {package} has no original archive"))?;
        empty(folder)?;
        let mut tar = sh::command("tar");
        tar.args(["--strip-components=1", "--extract", "--file"])
            .arg(&original)
            .arg("--directory")
            .arg(folder);
        sh::run(&mut tar)?;
        empty(&downloads)
    }
}

/// What lies in a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || format!("read {}", folder.display());
    let entries = fs::read_dir(folder).with_context(read)?;
    entries
        .map(|entry| Ok(entry.with_context(read)?.path()))
        .collect()
}

/// Makes a folder empty.
pub(crate) fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))
}
