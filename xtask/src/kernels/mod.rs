//! Debian's kernels for virtual machines: fetched by package name into `target/vm`, never
//! installed.

pub(crate) mod aarch64;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{self, Apt, empty};
use crate::{install, sh};

/// A kernel that tests run on: what it is called, and the Debian suite whose current kernel it
/// is.
type Kernel = (&'static str, &'static str);

/// All of them, the oldest first.
const KERNELS: &[Kernel] = &[
    ("5.10", "bullseye"),
    ("6.1", "bookworm"),
    ("6.12", "trixie"),
    ("latest", "sid"),
];

/// Debian's name of the package that depends on the current kernel of a suite. The cloud
/// flavours have no 9p.
const PACKAGE: &str = "linux-image-amd64";

/// What fetching, unpacking and booting needs.
pub(crate) const TOOLS: &[install::Program] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("tcpdump", "tcpdump"),
    apt::KEYRING,
];

/// Modules that the first process needs; the kernel finds all others by itself later.
const EARLY_MODULES: &[&str] = &["virtio_pci", "9p", "9pnet_virtio", "overlay"];

/// After this time it is looked whether Debian has a newer one.
const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The first process, see there.
const INIT: &str = include_str!("init.sh");

/// Names of all kernels.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KERNELS.iter().map(|&(name, _)| name)
}

/// Sees to it that all kernels are there, and returns the folder with one folder for each:
/// `vmlinux`, `initrd` with a copy of its `init`, `modules` and `version`.
pub(crate) fn prepare() -> Result<PathBuf> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the kernels of the virtual machines are fetched for amd64 only"
    );
    install::programs(TOOLS)?;
    let root = sh::workspace().join("target/vm");
    let folder = root.join("kernels");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let missing: Vec<&Kernel> = KERNELS
        .iter()
        .filter(|(name, _)| !folder.join(name).is_dir())
        .collect();
    let fresh = KERNELS.iter().all(|(name, _)| is_fresh(&folder.join(name)));
    if missing.is_empty() && fresh {
        return Ok(folder);
    }
    let suites: Vec<&str> = KERNELS.iter().map(|(_, suite)| *suite).collect();
    let updated = Apt::new(&root, apt::Kind::Packages("amd64"), &suites).and_then(|apt| {
        apt.update()?;
        for (name, suite) in KERNELS {
            fetch(&apt, name, suite, &folder.join(name))?;
        }
        Ok(())
    });
    match updated {
        Ok(()) => Ok(folder),
        Err(error) if missing.is_empty() => {
            eprintln!("xtask: the kernels of last week are used: {error:#}");
            Ok(folder)
        }
        Err(error) => Err(error),
    }
}

/// True if it was fetched, or found to be the newest, not long ago.
fn is_fresh(kernel: &Path) -> bool {
    has_this_init(kernel) && is_young(&kernel.join("version"))
}

/// True if a file was written not long ago.
fn is_young(file: &Path) -> bool {
    let age = file
        .metadata()
        .and_then(|data| data.modified())
        .map(|at| at.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age < STALE)
}

/// Whether the first process in its initrd is today's. A copy of it lies beside the initrd.
fn has_this_init(kernel: &Path) -> bool {
    fs::read_to_string(kernel.join("init")).is_ok_and(|init| init == INIT)
}

/// The package with the current kernel of a suite, which `package` depends on, and its version.
fn current(apt: &Apt, package: &str, suite: &str) -> Result<(String, String)> {
    let image = apt
        .dependencies(&format!("{package}/{suite}"))?
        .into_iter()
        .find(|package| package.starts_with("linux-image-"))
        .with_context(|| format!("{package} of {suite} depends on no kernel"))?;
    let version = image.trim_start_matches("linux-image-").to_owned();
    Ok((image, version))
}

/// Fetches the current kernel of a suite, unless it is there.
fn fetch(apt: &Apt, name: &str, suite: &str, kernel: &Path) -> Result<()> {
    let (image, version) = current(apt, PACKAGE, suite)?;
    let mark = kernel.join("version");
    let is_there = fs::read_to_string(&mark).is_ok_and(|there| there == version);
    if is_there && has_this_init(kernel) {
        // Written again for its time.
        return fs::write(&mark, &version).with_context(|| format!("write {}", mark.display()));
    }
    eprintln!("xtask: fetching Linux {version} of Debian {suite}, by apt-get, into target/vm");
    // From 7.0 on image and modules come in packages of their own.
    let mut packages = apt.dependencies(&image)?;
    packages.retain(|package| package.starts_with("linux-") && package.ends_with(&version));
    packages.push(image);
    packages.push("busybox-static".to_owned());

    let partial = kernel.with_file_name(format!("{name}.partial"));
    let unpacked = partial.join("unpacked");
    empty(&unpacked)?;
    apt.unpack(&packages, &unpacked)?;
    let found = |candidates: [String; 2]| {
        let mut candidates = candidates.iter().map(|path| unpacked.join(path));
        candidates
            .find(|path| path.exists())
            .with_context(|| format!("the packages {packages:?} hold none of what is expected"))
    };
    let image = found([
        format!("boot/vmlinuz-{version}"),
        format!("usr/lib/modules/{version}/vmlinuz"),
    ])?;
    unpack_image(&image, &partial.join("vmlinux"))?;

    let modules = found([
        format!("lib/modules/{version}"),
        format!("usr/lib/modules/{version}"),
    ])?;
    let base = modules
        .ancestors()
        .nth(3)
        .context("modules lie in lib/modules")?;
    sh::run(
        sh::command("depmod")
            .arg("--basedir")
            .args([base.as_os_str(), OsStr::new(&version)])
            // It misses lists of what is not a module, which Debian does not ship any more.
            .stderr(Stdio::null()),
    )?;
    let busybox = found(["usr/bin/busybox".to_owned(), "bin/busybox".to_owned()])?;
    pack_initrd(base, &version, &busybox, &partial)?;
    let kept = partial.join("modules");
    fs::create_dir_all(&kept).context("make a folder for modules")?;
    fs::rename(&modules, kept.join(&version)).context("move the modules")?;
    fs::remove_dir_all(&unpacked).context("remove what is not needed of the packages")?;
    fs::write(partial.join("version"), &version).context("write the version")?;
    fs::write(partial.join("init"), INIT).context("write a copy of init")?;
    if kernel.exists() {
        fs::remove_dir_all(kernel).with_context(|| format!("remove {}", kernel.display()))?;
    }
    fs::rename(&partial, kernel).with_context(|| format!("create {}", kernel.display()))
}

/// Unpacks the kernel proper: uncompressed it boots seconds sooner under emulation. Where it
/// lies in the image: Documentation/arch/x86/boot.rst, "Details of header fields".
fn unpack_image(image: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| format!("read {}", image.display()))?;
    let payload = payload(&bytes).with_context(|| format!("{} is no bzImage", image.display()))?;
    let tool = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => bail!("{} is compressed in a way not known", image.display()),
    };
    let packed = to.with_extension("packed");
    fs::write(&packed, payload).with_context(|| format!("write {}", packed.display()))?;
    unpack_file(tool, &packed, to)?;
    fs::remove_file(&packed).with_context(|| format!("remove {}", packed.display()))
}

/// The compressed kernel in a bzImage.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..)?.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let real_mode_sectors = usize::from(*image.get(0x1f1)?) + 1;
    let (offset, length) = (word(0x248)?, word(0x24c)?);
    // The last four bytes are the size that it has uncompressed.
    image
        .get(real_mode_sectors * 512 + offset..)?
        .get(..length.checked_sub(4)?)
}

fn unpack_file(tool: &str, packed: &Path, to: &Path) -> Result<()> {
    let from = File::open(packed).with_context(|| format!("open {}", packed.display()))?;
    let to = File::create(to).with_context(|| format!("create {}", to.display()))?;
    let mut command = sh::command(tool);
    command.args(["--decompress", "--stdout"]);
    sh::run(command.stdin(from).stdout(to))
}

/// Packs the first process with busybox and the modules it needs, in the order in which they
/// are to be loaded.
fn pack_initrd(base: &Path, version: &str, busybox: &Path, folder: &Path) -> Result<()> {
    let root = folder.join("initrd.d");
    let modules = root.join("modules");
    empty(&modules)?;
    let mut order = String::new();
    for module in EARLY_MODULES {
        let mut modprobe = sh::command("modprobe");
        modprobe.args([OsStr::new("--dirname"), base.as_os_str()]);
        modprobe.args(["--set-version", version, "--show-depends", module]);
        // One that is built in is told of in another way, or not at all.
        let listed = sh::output(modprobe.stderr(Stdio::null())).unwrap_or_default();
        for path in listed
            .lines()
            .filter_map(|line| line.strip_prefix("insmod "))
        {
            let path = Path::new(path.trim());
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let name = file.trim_end_matches(".xz");
            if order.lines().any(|there| there == name) {
                continue;
            }
            if name == file {
                fs::copy(path, modules.join(name)).map(drop)
            } else {
                unpack_file("xz", path, &modules.join(name)).map_err(std::io::Error::other)
            }
            .with_context(|| format!("take {}", path.display()))?;
            order += name;
            order.push('\n');
        }
    }
    fs::write(modules.join("order"), order).context("write the order of modules")?;
    fs::copy(busybox, root.join("busybox")).context("take busybox")?;
    fs::write(root.join("init"), INIT).context("write init")?;
    let pack = "chmod 755 init busybox && find . | ./busybox cpio -o -H newc >../initrd";
    let mut sh = sh::command("sh");
    sh::run(
        sh.current_dir(&root)
            .args(["-c", pack])
            .stderr(Stdio::null()),
    )?;
    fs::remove_dir_all(&root).context("remove what went into the initrd")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_of_a_kernel_image_is_where_its_header_says() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 3;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&9u32.to_le_bytes());
        image[4 * 512 + 16..][..9].copy_from_slice(b"abcdeSIZE");
        assert_eq!(payload(&image), Some(&b"abcde"[..]));
        image.truncate(4 * 512 + 20);
        assert_eq!(payload(&image), None);
        image[0x202] = 0;
        assert_eq!(payload(&image), None);
    }
}
