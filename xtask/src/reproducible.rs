//! `cargo xtask image --check-reproducible`: the commit, built in two folders, is one image.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::image::{self, Architecture};
use crate::{apt, sh};

/// Where it is built: names of other lengths and depths.
const FOLDERS: &[&str] = &["a", "another/folder with a longer name"];

/// Below `target`, where disks are large. Both archives stay there.
const PLACE: &str = "target/reproducible";

/// Builds the image of the commit in each folder, for one architecture or all, and compares what
/// comes of it.
///
/// # Errors
/// It cannot be built, or differs.
pub(crate) fn check(arch: Option<Architecture>) -> Result<()> {
    let arguments = arch.map_or(vec![], |one| vec!["--arch", one.name()]);
    let place = sh::workspace().join(PLACE);
    apt::empty(&place)?;
    // One commit, whatever happens to the branch meanwhile.
    let mut git = sh::command("git");
    let commit = sh::output(git.args(["rev-parse", "--verify", "HEAD"]));
    let commit = commit.context("the sources are in no git repository")?;
    let mut digests = Vec::new();
    for (number, name) in FOLDERS.iter().enumerate() {
        let folder = place.join(name);
        let archive = place.join(format!("{number}.oci.tar"));
        build(&commit, &folder, &arguments, &archive)?;
        let content = fs::read(&archive).context("read the image")?;
        let digest = image::hex(&content);
        println!("{digest}  {}", archive.display());
        digests.push(digest);
        // A gigabyte that nobody needs any more.
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    ensure!(
        digests.windows(2).all(|pair| pair[0] == pair[1]),
        "the image depends on the folder it is built in: compare the archives in {PLACE}"
    );
    println!("one image");
    Ok(())
}

/// Clones the repository into a folder, and builds the image of the commit there.
fn build(commit: &str, folder: &Path, arguments: &[&str], archive: &Path) -> Result<()> {
    let mut clone = sh::command("git");
    clone.args(["clone", "--quiet", "--no-hardlinks"]);
    sh::run(clone.arg(sh::workspace()).arg(folder))?;
    let mut checkout = sh::command("git");
    checkout.arg("-C").arg(folder);
    sh::run(checkout.args(["checkout", "--quiet", "--detach", commit]))?;
    let mut cargo = sh::command("cargo");
    cargo
        .current_dir(folder)
        .env("CARGO_INCREMENTAL", "0")
        .env_remove("CARGO_TARGET_DIR")
        .args(["xtask", "image"])
        .args(arguments);
    sh::run(cargo.arg("--output").arg(archive))
}
