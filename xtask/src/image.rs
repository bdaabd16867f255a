//! `cargo xtask image`: a container image for two architectures, as an OCI archive. It holds one
//! file, a static binary, and needs no container engine to be made.
//!
//! The same sources and toolchain make the same bytes.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::{env, fs};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, HistoryBuilder, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, PlatformBuilder,
    RootFsBuilder, SCHEMA_VERSION, Sha256Digest,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{build_ebpf, cargo, install, sh};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// For this architecture only [default: all]
    #[arg(long, value_enum)]
    pub(crate) arch: Option<Architecture>,
    /// Built as tests are, in less time
    #[arg(long)]
    dev: bool,
    /// Build the commit in two folders instead, and fail if the images differ
    #[arg(long, conflicts_with_all = ["dev", "output"])]
    pub(crate) check_reproducible: bool,
    /// Where the archive goes
    #[arg(long, value_name = "FILE", default_value = "target/dist/vip.oci.tar")]
    output: PathBuf,
}

/// What the image runs on.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Architecture {
    /// amd64 to others
    X86_64,
    /// arm64 to others
    Aarch64,
}

impl Architecture {
    /// All there are.
    pub(crate) const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// As Rust and the kernel call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Rust's target: static, by musl.
    pub(crate) fn target(self) -> String {
        format!("{}-unknown-linux-musl", self.name())
    }

    /// The C compiler for it, which `ring` needs.
    const fn compiler(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu-gcc",
            Self::Aarch64 => "aarch64-linux-gnu-gcc",
        }
    }

    /// That compiler and the headers of C's library, with the Debian packages they are in. On a
    /// machine of this architecture they are those of every build.
    fn packages(self) -> &'static [install::Program] {
        match self {
            _ if self.name() == env::consts::ARCH => install::BUILD,
            Self::X86_64 => &[
                ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
                (
                    "/usr/x86_64-linux-gnu/include/stdint.h",
                    "libc6-dev-amd64-cross",
                ),
            ],
            Self::Aarch64 => &[
                ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
                (
                    "/usr/aarch64-linux-gnu/include/stdint.h",
                    "libc6-dev-arm64-cross",
                ),
            ],
        }
    }

    /// This machine's.
    pub(crate) fn here() -> Result<Self> {
        let here = Self::ALL
            .into_iter()
            .find(|architecture| architecture.name() == env::consts::ARCH);
        here.context("vip is not built for this machine's architecture")
    }

    /// Cargo, told to build for it.
    pub(crate) fn cargo(self, verb: &str) -> Result<Command> {
        install::programs(install::BUILD)?;
        let target = self.target();
        install::target(&target)?;
        let compiler = self.compiler();
        install::programs(self.packages())?;
        build_ebpf::object()?;
        let variable = target.replace('-', "_");
        let mut cargo = sh::command("cargo");
        cargo
            .args([verb, "--target", &target])
            .env(format!("CC_{variable}"), compiler)
            .env(
                format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()),
                compiler,
            );
        Ok(cargo)
    }

    /// As Debian calls it.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Where the agent lies that was built for it, in a profile's folder.
    pub(crate) fn built(self, profile: &str) -> PathBuf {
        let folder = Path::new("target").join(self.target()).join(profile);
        sh::workspace().join(folder).join("vip")
    }

    fn oci(self) -> Arch {
        match self {
            Self::X86_64 => Arch::Amd64,
            Self::Aarch64 => Arch::ARM64,
        }
    }
}

/// The version of the workspace, which is that of the agent.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The variable with the address of the sources, for the image's label. It is part of the image:
/// who builds the same image sets the same address.
const SOURCE: &str = "VIP_SOURCE";

/// What the image is called where it is imported: `vip manifest` names it so.
const REPOSITORY: &str = "localhost/vip";

pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted = options
        .arch
        .map_or(Architecture::ALL.to_vec(), |one| vec![one]);
    let binaries = wanted
        .into_iter()
        .map(|architecture| Ok((architecture, binary(architecture, options.dev)?)))
        .collect::<Result<Vec<_>>>()?;
    let output = sh::workspace().join(&options.output);
    pack(&binaries, &output)?;
    println!("{}", output.display());
    Ok(())
}

/// The image as tests run it: with the agent that they have built. Returns where it is.
pub(crate) fn for_tests() -> Result<PathBuf> {
    let architecture = Architecture::here()?;
    let output = sh::workspace().join("target/dev-image/vip.oci.tar");
    pack(&[(architecture, architecture.built("debug"))], &output)?;
    Ok(output)
}

/// Builds the agent as a static binary. Returns where it is.
pub(crate) fn binary(architecture: Architecture, dev: bool) -> Result<PathBuf> {
    let profile = if dev { "dev" } else { "ship" };
    let mut cargo = architecture.cargo("build")?;
    cargo.args(["--package", "vip-userspace", "--bin", "vip"]);
    if !dev {
        // The same bytes wherever they are built. Backtraces of tests keep their paths.
        cargo.env("CARGO_ENCODED_RUSTFLAGS", cargo::remapped().join("\u{1f}"));
    }
    sh::run(cargo.args(["--profile", profile]))?;
    Ok(architecture.built(if dev { "debug" } else { "ship" }))
}

/// Builds one of the agent's test programs, static too. Returns where it is.
pub(crate) fn test(architecture: Architecture, name: &str) -> Result<PathBuf> {
    let mut cargo = architecture.cargo("test")?;
    cargo.args(["--package", "vip-userspace", "--test", name]);
    let program = cargo::test_programs(&mut cargo)?.into_iter().next();
    program
        .map(|program| program.path)
        .with_context(|| format!("cargo has built no {name}"))
}

/// Writes the archive: an OCI image layout in a tar file.
pub(crate) fn pack(binaries: &[(Architecture, PathBuf)], output: &Path) -> Result<()> {
    let mut layout = Layout::new(output)?;
    let mut manifests = Vec::new();
    for (architecture, path) in binaries {
        manifests.push(layout.image(*architecture, path)?);
    }
    // One name for all architectures: an index of its own, which the outer one names.
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()?;
    let mut named = layout.json(&index, MediaType::ImageIndex)?;
    named.set_annotations(Some(HashMap::from([
        // containerd reads the first, others the second.
        (
            "io.containerd.image.name".to_owned(),
            format!("{REPOSITORY}:{VERSION}"),
        ),
        (
            "org.opencontainers.image.ref.name".to_owned(),
            VERSION.to_owned(),
        ),
    ])));
    let outer = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(vec![named])
        .build()?;
    layout.file("index.json", &canonical(&outer)?)?;
    let version = OciLayoutBuilder::default().image_layout_version("1.0.0");
    layout.file("oci-layout", &canonical(&version.build()?)?)?;
    layout.finish()
}

/// An archive being written.
struct Layout {
    archive: tar::Builder<fs::File>,
    partial: PathBuf,
    output: PathBuf,
    /// Blobs that are in it: architectures may share one.
    written: Vec<String>,
}

impl Layout {
    fn new(output: &Path) -> Result<Self> {
        let folder = output.parent().context("the archive lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let partial = output.with_extension("partial");
        let file =
            fs::File::create(&partial).with_context(|| format!("create {}", partial.display()))?;
        Ok(Self {
            archive: tar::Builder::new(file),
            partial,
            output: output.to_owned(),
            written: Vec::new(),
        })
    }

    /// Adds an image with the one binary, and returns its manifest's descriptor.
    fn image(&mut self, architecture: Architecture, binary: &Path) -> Result<Descriptor> {
        let content = fs::read(binary).with_context(|| format!("read {}", binary.display()))?;
        let mut layer = tar::Builder::new(Vec::new());
        append(&mut layer, "vip", &content, 0o755)?;
        let layer = layer.into_inner().context("make the layer")?;
        let mut packed = GzBuilder::new().write(Vec::new(), Compression::best());
        packed.write_all(&layer).context("compress the layer")?;
        let packed = packed.finish().context("compress the layer")?;

        let revision = revision();
        let mut labels = HashMap::new();
        let mut label = |name: &str, value: &str| {
            labels.insert(format!("org.opencontainers.image.{name}"), value.to_owned());
        };
        label("title", "vip");
        label("description", "One stable address for the Kubernetes API");
        label("version", VERSION);
        label("revision", &revision);
        // With that of the eBPF programs in it.
        label("licenses", "Apache-2.0 AND (MIT OR GPL-2.0-only)");
        if let Ok(source) = env::var(SOURCE) {
            label("source", &source);
        }
        let config = ImageConfigurationBuilder::default()
            .architecture(architecture.oci())
            .os(Os::Linux)
            .config(
                ConfigBuilder::default()
                    .entrypoint(vec!["/vip".to_owned()])
                    .labels(labels)
                    .stop_signal("SIGTERM".to_owned())
                    .build()?,
            )
            .rootfs(
                RootFsBuilder::default()
                    .typ("layers".to_owned())
                    .diff_ids(vec![format!("sha256:{}", hex(&layer))])
                    .build()?,
            )
            .history(vec![
                HistoryBuilder::default()
                    .created_by("cargo xtask image".to_owned())
                    .build()?,
            ])
            .build()?;
        let config = self.json(&config, MediaType::ImageConfig)?;
        let layer = self.blob(&packed, MediaType::ImageLayerGzip)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(vec![layer])
            .build()?;
        let mut manifest = self.json(&manifest, MediaType::ImageManifest)?;
        manifest.set_platform(Some(
            PlatformBuilder::default()
                .architecture(architecture.oci())
                .os(Os::Linux)
                .build()?,
        ));
        Ok(manifest)
    }

    fn json(&mut self, value: &impl Serialize, kind: MediaType) -> Result<Descriptor> {
        self.blob(&canonical(value)?, kind)
    }

    fn blob(&mut self, content: &[u8], kind: MediaType) -> Result<Descriptor> {
        let digest = hex(content);
        if !self.written.contains(&digest) {
            self.file(&format!("blobs/sha256/{digest}"), content)?;
            self.written.push(digest.clone());
        }
        let descriptor = DescriptorBuilder::default()
            .media_type(kind)
            .digest(Sha256Digest::from_str(&digest)?)
            .size(content.len() as u64)
            .build()?;
        Ok(descriptor)
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        append(&mut self.archive, name, content, 0o644)
    }

    fn finish(self) -> Result<()> {
        self.archive.into_inner().context("write the archive")?;
        fs::rename(&self.partial, &self.output)
            .with_context(|| format!("create {}", self.output.display()))
    }
}

/// Adds a file of root's, of no particular time.
fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    content: &[u8],
    mode: u32,
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive
        .append_data(&mut header, name, content)
        .with_context(|| format!("add {name} to an archive"))
}

/// JSON with its keys in order: maps have none of their own.
fn canonical(value: &impl Serialize) -> Result<Vec<u8>> {
    let value = serde_json::to_value(value).context("write JSON")?;
    serde_json::to_vec(&value).context("write JSON")
}

/// The commit that is built, for the image's label; `-dirty` if files differ from it.
fn revision() -> String {
    let git = |args: &[&str]| sh::output(sh::command("git").args(args));
    let Some(commit) = git(&["rev-parse", "--verify", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => commit + "-dirty",
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn hex(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn files(archive: &[u8]) -> HashMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().expect("an archive");
        entries
            .map(|entry| {
                let mut entry = entry.expect("an entry");
                let name = entry.path().expect("a name").display().to_string();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).expect("content");
                (name, content)
            })
            .collect()
    }

    #[test]
    fn each_architecture_is_reached_from_the_name_and_every_digest_is_right() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut binaries = Vec::new();
        for architecture in Architecture::ALL {
            let path = folder.path().join(architecture.name());
            fs::write(&path, architecture.name()).expect("writes");
            binaries.push((architecture, path));
        }
        let output = folder.path().join("vip.oci.tar");
        pack(&binaries, &output).expect("packs");
        let archive = fs::read(&output).expect("there");
        pack(&binaries, &output).expect("packs again");
        assert_eq!(archive, fs::read(&output).expect("there"), "the same bytes");

        let files = files(&archive);
        for (name, content) in &files {
            if let Some(digest) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(digest, hex(content));
            }
        }
        let json = |content: &[u8]| -> serde_json::Value {
            serde_json::from_slice(content).expect("JSON")
        };
        let follow = |descriptor: &serde_json::Value| {
            let digest = descriptor["digest"].as_str().expect("a digest");
            let blob = &files[&digest.replace(':', "/").replace("sha256/", "blobs/sha256/")];
            assert_eq!(descriptor["size"], blob.len());
            blob.clone()
        };
        let outer = json(&files["index.json"]);
        let index = json(&follow(&outer["manifests"][0]));
        for (number, architecture) in ["amd64", "arm64"].iter().enumerate() {
            let entry = &index["manifests"][number];
            assert_eq!(entry["platform"]["architecture"], *architecture);
            let manifest = json(&follow(entry));
            let config = json(&follow(&manifest["config"]));
            assert_eq!(config["config"]["Entrypoint"][0], "/vip");
            let mut layer = Vec::new();
            flate2::read::GzDecoder::new(&*follow(&manifest["layers"][0]))
                .read_to_end(&mut layer)
                .expect("gzip");
            let diff = format!("sha256:{}", hex(&layer));
            assert_eq!(config["rootfs"]["diff_ids"][0], diff.as_str());
            let inside = self::files(&layer);
            assert_eq!(inside.len(), 1);
            assert_eq!(inside["vip"], Architecture::ALL[number].name().as_bytes());
        }
    }
}
