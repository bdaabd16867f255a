//! `vip.deb` and `vip.rpm`, for `cargo xtask dist` and for tests: the static binary with its unit,
//! its configuration file and what shells and lawyers read.
//!
//! Both are made from one list of files. The list becomes a crate of its own below `target`, as
//! cargo-deb and cargo-generate-rpm read theirs from a `Cargo.toml`.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::image::{self, Architecture, VERSION};
use crate::{apt, install, sh};

/// Whom packages name. The project has no address of its own.
const MAINTAINER: &str = "The vip authors <maintainers@vip.invalid>";

const SUMMARY: &str = "One stable address for the Kubernetes API on bare metal";

const DESCRIPTION: &str = "\
A virtual IP for control planes of 3, 5 or 7 nodes, without keepalived and
HAProxy: an XDP program forwards each packet to the node whose API server has
the connection.";

/// Where a file of a package comes from.
enum Source {
    /// The repository.
    Repository(&'static str),
    /// What was staged for the package.
    Staged(&'static str),
}
use Source::{Repository, Staged};

/// Where it goes: one place, or one for each kind of package.
struct File {
    source: Source,
    deb: Option<&'static str>,
    rpm: Option<&'static str>,
    mode: &'static str,
    /// The operator's own, once it is installed.
    is_config: bool,
    is_document: bool,
}

impl File {
    const fn new(source: Source, deb: Option<&'static str>, rpm: Option<&'static str>) -> Self {
        Self {
            source,
            deb,
            rpm,
            mode: "644",
            is_config: false,
            is_document: false,
        }
    }

    const fn both(source: Source, place: &'static str) -> Self {
        Self::new(source, Some(place), Some(place))
    }

    const fn program(mut self) -> Self {
        self.mode = "755";
        self
    }

    const fn config(mut self) -> Self {
        self.is_config = true;
        self
    }

    const fn document(mut self) -> Self {
        self.is_document = true;
        self
    }

    /// Where it is when packages are made.
    fn path(&self) -> String {
        match self.source {
            Repository(path) => sh::workspace().join(path).display().to_string(),
            Staged(name) => name.to_owned(),
        }
    }
}

const FILES: &[File] = &[
    File::both(Staged("vip"), "usr/bin/vip").program(),
    File::both(Staged("vip.service"), "usr/lib/systemd/system/vip.service"),
    File::both(Staged("vip.toml"), "etc/vip/vip.toml").config(),
    File::both(
        Staged("vip.bash"),
        "usr/share/bash-completion/completions/vip",
    ),
    File::new(
        Staged("vip.zsh"),
        Some("usr/share/zsh/vendor-completions/_vip"),
        Some("usr/share/zsh/site-functions/_vip"),
    ),
    File::both(
        Staged("vip.fish"),
        "usr/share/fish/vendor_completions.d/vip.fish",
    ),
    File::both(Staged("man/*.gz"), "usr/share/man/man1/").document(),
    File::new(
        Repository("deploy/packages/copyright"),
        Some("usr/share/doc/vip/copyright"),
        None,
    ),
    File::new(
        Staged("changelog.gz"),
        Some("usr/share/doc/vip/changelog.gz"),
        None,
    ),
    File::new(
        Repository("deploy/packages/deb/lintian-overrides"),
        Some("usr/share/lintian/overrides/vip"),
        None,
    ),
    File::new(
        Repository("CHANGELOG.md"),
        None,
        Some("usr/share/doc/vip/CHANGELOG.md"),
    )
    .document(),
    File::new(
        Repository("LICENSE"),
        None,
        Some("usr/share/licenses/vip/LICENSE"),
    )
    .document(),
    File::new(
        Repository("vip-ebpf/LICENSE-GPL2"),
        None,
        Some("usr/share/licenses/vip/LICENSE-GPL2"),
    )
    .document(),
    File::new(
        Repository("vip-ebpf/LICENSE-MIT"),
        None,
        Some("usr/share/licenses/vip/LICENSE-MIT"),
    )
    .document(),
];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// With the binary as tests run it, built in less time: an older version and this one
    #[arg(long)]
    dev: bool,
}

/// For `cargo xtask package`: the packages for this machine.
pub(crate) fn run(options: &Options) -> Result<()> {
    let here = Architecture::here()?;
    let binary = image::binary(here, options.dev)?;
    let folder = if options.dev {
        for_tests()?
    } else {
        let folder = sh::workspace().join("target/dist");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let contents = Contents {
            binary: &binary,
            runs_here: &binary,
            version: VERSION,
            config: "",
        };
        make(here, &contents, &folder)?;
        folder
    };
    println!("{}", folder.display());
    Ok(())
}

/// What a package is made of.
pub(crate) struct Contents<'a> {
    /// The binary that goes into it.
    pub(crate) binary: &'a Path,
    /// The same version for this machine, which prints the unit, the completions and the manual pages.
    pub(crate) runs_here: &'a Path,
    pub(crate) version: &'a str,
    /// Added to the configuration file: two versions of a package may differ in it.
    pub(crate) config: &'a str,
}

/// The packages of an older version and of this one, for tests, with the agent that they have
/// built: `older.deb`, `newer.deb`, `older.rpm`, `newer.rpm`. Returns the folder they are in.
pub(crate) fn for_tests() -> Result<PathBuf> {
    let architecture = Architecture::here()?;
    let folder = sh::workspace().join("target/dev-packages");
    apt::empty(&folder)?;
    // As it is shipped. The test programs run the one that is not stripped.
    let binary = folder.join("vip");
    let mut strip = sh::command("strip");
    strip.args(["--strip-all", "-o"]).arg(&binary);
    sh::run(strip.arg(architecture.built("debug")))?;
    for (name, version, config) in [
        ("older", "0.0.1", "\n# A line of an older version.\n"),
        ("newer", VERSION, ""),
    ] {
        let contents = Contents {
            binary: &binary,
            runs_here: &binary,
            version,
            config,
        };
        let packages = Packages::stage(architecture, &contents)?;
        packages.deb(&folder.join(format!("{name}.deb")))?;
        packages.rpm(&folder.join(format!("{name}.rpm")))?;
    }
    Ok(folder)
}

/// Makes both packages in a folder, under the names that distributions give them.
pub(crate) fn make(
    architecture: Architecture,
    contents: &Contents<'_>,
    folder: &Path,
) -> Result<()> {
    let packages = Packages::stage(architecture, contents)?;
    let version = &packages.version;
    let debian = architecture.debian();
    packages.deb(&folder.join(format!("vip_{version}-1_{debian}.deb")))?;
    let name = architecture.name();
    packages.rpm(&folder.join(format!("vip-{version}-1.{name}.rpm")))
}

/// The completion scripts of a binary of this machine, in a folder.
pub(crate) fn completions(vip: &Path, folder: &Path) -> Result<()> {
    for shell in ["bash", "zsh", "fish"] {
        let mut print = sh::command(vip);
        print.args(["completions", shell]);
        let script = sh::output(&mut print).with_context(|| format!("`{print:?}` failed"))?;
        write(&folder.join(format!("vip.{shell}")), &(script + "\n"))?;
    }
    Ok(())
}

/// The manual pages of a binary of this machine, in a folder that is made for them.
pub(crate) fn manual(vip: &Path, folder: &Path) -> Result<()> {
    fs::create_dir(folder).with_context(|| format!("create {}", folder.display()))?;
    sh::run(sh::command(vip).args(["man", "--output"]).arg(folder))
}

/// Packages about to be made: all their files are there.
struct Packages {
    architecture: Architecture,
    /// As both kinds order it: a candidate comes before its release.
    version: String,
    folder: PathBuf,
}

impl Packages {
    fn stage(architecture: Architecture, contents: &Contents<'_>) -> Result<Self> {
        let folder = sh::workspace().join("target/package");
        apt::empty(&folder)?;
        fs::copy(contents.binary, folder.join("vip"))
            .with_context(|| format!("copy {}", contents.binary.display()))?;
        completions(contents.runs_here, &folder)?;
        let man = folder.join("man");
        manual(contents.runs_here, &man)?;
        let mut gzip = sh::command("gzip");
        sh::run(gzip.args(["--best", "--no-name", "--recursive"]).arg(&man))?;
        let example = sh::workspace().join("deploy/packages/vip.toml");
        let example = fs::read_to_string(&example).context("read the configuration file")?;
        write(&folder.join("vip.toml"), &(example + contents.config))?;
        write(
            &folder.join("vip.service"),
            &unit(contents.runs_here, &folder)?,
        )?;
        let changelog = fs::File::create(folder.join("changelog.gz"));
        let mut gzip = sh::command("gzip");
        gzip.args(["--best", "--no-name", "--stdout", "CHANGELOG.md"]);
        sh::run(gzip.stdout(changelog.context("create changelog.gz")?))?;
        let packages = Self {
            architecture,
            version: contents.version.replace('-', "~"),
            folder,
        };
        write(
            &packages.folder.join("debian-changelog"),
            &packages.debian_changelog()?,
        )?;
        // Never compiled: a crate has to have something.
        write(&packages.folder.join("lib.rs"), "")?;
        write(
            &packages.folder.join("Cargo.toml"),
            &packages.manifest(contents.version),
        )?;
        Ok(packages)
    }

    fn deb(&self, output: &Path) -> Result<()> {
        let tool = install::cargo_tool("cargo-deb", "3.8.0")?;
        let mut deb = self.command(tool);
        deb.args([
            "--no-build",
            "--no-strip",
            "--offline",
            "--quiet",
            "--target",
        ]);
        deb.arg(self.architecture.target());
        sh::run(deb.arg("--output").arg(output))
    }

    fn rpm(&self, output: &Path) -> Result<()> {
        let tool = install::cargo_tool("cargo-generate-rpm", "0.21.1")?;
        let mut rpm = self.command(tool);
        rpm.args(["generate-rpm", "--auto-req", "disabled"]);
        rpm.args(["--target", &self.architecture.target()]);
        rpm.args(["--arch", self.architecture.name()]);
        sh::run(rpm.arg("--output").arg(output))
    }

    /// A tool in the folder of the crate, by a clock that stands.
    fn command(&self, tool: PathBuf) -> Command {
        let mut command = sh::command(tool);
        command.current_dir(&self.folder);
        command.env("SOURCE_DATE_EPOCH", time().to_string());
        command
    }

    /// The crate's manifest.
    fn manifest(&self, version: &str) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut deb = String::new();
        let mut rpm = String::new();
        for file in FILES {
            let source = quoted(&file.path());
            if let Some(place) = file.deb {
                let place = quoted(place);
                let _infallible = writeln!(deb, "  [{source}, {place}, \"{}\"],", file.mode);
            }
            if let Some(place) = file.rpm {
                let place = quoted(&format!("/{place}"));
                let config = if file.is_config {
                    ", config = \"noreplace\""
                } else {
                    ""
                };
                let document = if file.is_document { ", doc = true" } else { "" };
                let mode = file.mode;
                let _infallible = writeln!(
                    rpm,
                    "  {{ source = {source}, dest = {place}, mode = \"{mode}\"{config}{document} }},"
                );
            }
        }
        let conffiles: Vec<String> = FILES
            .iter()
            .filter(|file| file.is_config)
            .filter_map(|file| Some(quoted(&format!("/{}", file.deb?))))
            .collect();
        let script = |name: &str| {
            let path = sh::workspace().join("deploy/packages/rpm").join(name);
            quoted(&path.display().to_string())
        };
        let scripts = sh::workspace().join("deploy/packages/deb");
        format!(
            "[workspace]\n\
             [package]\nname = \"vip\"\nversion = {version}\nedition = \"2024\"\n\
             description = {summary}\nlicense = {license}\n\
             [lib]\npath = \"lib.rs\"\n\
             [package.metadata.deb]\nmaintainer = {maintainer}\nsection = \"admin\"\n\
             priority = \"optional\"\ndepends = \"init-system-helpers (>= 1.52)\"\nextended-description = {description}\n\
             changelog = \"debian-changelog\"\nmaintainer-scripts = {scripts}\n\
             conf-files = [{conffiles}]\nassets = [\n{deb}]\n\
             [package.metadata.generate-rpm]\nversion = {rpm_version}\nsummary = {summary}\n\
             post_install_script = {post}\npre_uninstall_script = {preun}\n\
             post_uninstall_script = {postun}\nassets = [\n{rpm}]\n",
            version = quoted(version),
            rpm_version = quoted(&self.version),
            summary = quoted(SUMMARY),
            description = quoted(DESCRIPTION),
            license = quoted("Apache-2.0 AND (MIT OR GPL-2.0-only)"),
            maintainer = quoted(MAINTAINER),
            scripts = quoted(&format!("{}/", scripts.display())),
            conffiles = conffiles.join(", "),
            post = script("post"),
            preun = script("preun"),
            postun = script("postun"),
        )
    }

    /// Debian's own changelog, which says what is new in the package.
    fn debian_changelog(&self) -> Result<String> {
        let mut date = sh::command("date");
        date.args(["--utc", "--rfc-email", "--date", &format!("@{}", time())]);
        let date = sh::output(&mut date).context("`date` failed")?;
        let version = &self.version;
        Ok(format!(
            "vip ({version}-1) unstable; urgency=medium\n\n  \
               * Version {version}: see changelog.gz.\n\n -- {MAINTAINER}  {date}\n"
        ))
    }
}

/// The unit that `vip manifest --systemd` prints, for the binary and the configuration file of the
/// package.
fn unit(vip: &Path, folder: &Path) -> Result<String> {
    // It prints none without a VIP. No part of the file reaches the unit.
    let example = folder.join("example.toml");
    write(&example, "vip = \"10.0.0.10:6443\"\n")?;
    let mut print = sh::command(vip);
    print.args([
        "manifest",
        "--systemd",
        "--binary",
        "/usr/bin/vip",
        "--from",
    ]);
    let text = sh::output(print.arg(&example)).with_context(|| format!("`{print:?}` failed"))?;
    // The comments before it are about that example.
    let (_, unit) = text
        .split_once("[Unit]\n")
        .context("the unit has no section [Unit]")?;
    Ok(format!(
        "# As `vip manifest --systemd --from /etc/vip/vip.toml` prints it.\n[Unit]\n{unit}\n"
    ))
}

/// When the sources were committed, in seconds since 1970; 0 if that is not known.
fn time() -> u64 {
    let mut git = sh::command("git");
    let time = sh::output(git.args(["log", "-1", "--format=%ct"]));
    time.and_then(|time| time.parse().ok()).unwrap_or(0)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(path, mode).with_context(|| format!("write {}", path.display()))
}
