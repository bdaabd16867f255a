//! A real kube-apiserver for tests and demo, where one can be had. Never required.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::{install, sh};

/// The convention of controller-runtime's envtest: a folder with kube-apiserver and etcd.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// Looks for a kube-apiserver: where `KUBEBUILDER_ASSETS` says; on the PATH; packed beside the
/// repository. Returns what to add to the environment of those who run it, as `NAME=value`.
/// `kubelet_comes`: one is being built.
pub(crate) fn prepare(kubelet_comes: bool) -> Result<Option<OsString>> {
    if are_assets_named() {
        return Ok(None);
    }
    // There may be a kubelet whatever else there is.
    let own = own_assets();
    let is_there = kubelet_comes || own.join("kubelet").is_file();
    let own = is_there.then(|| sh::variable(ASSETS, own));
    if sh::find("kube-apiserver").is_some() {
        install::programs(ETCD)?;
        return Ok(own);
    }
    let packed = sh::workspace().join("../shared/k8s");
    if !packed.join("kube-apiserver.xz").is_file() {
        eprintln!(
            "xtask: no kube-apiserver: what needs the real one is skipped. To have it, set \
             {ASSETS} to a folder with kube-apiserver and etcd (`setup-envtest use -p path`)"
        );
        return Ok(own);
    }
    install::programs(ETCD)?;
    Ok(Some(sh::variable(ASSETS, unpack(&packed)?)))
}

/// Whether the user says where the programs of Kubernetes are.
pub(crate) fn are_assets_named() -> bool {
    env::var_os(ASSETS).is_some()
}

const ETCD: &[install::Program] = &[("etcd", "etcd-server"), ("xz", "xz-utils")];

/// The folder for what is had without the user's doing.
pub(crate) fn own_assets() -> PathBuf {
    sh::workspace().join("target/k8s")
}

fn unpack(packed: &Path) -> Result<PathBuf> {
    let assets = own_assets();
    fs::create_dir_all(&assets).with_context(|| format!("create {}", assets.display()))?;
    let etcd = assets.join("etcd");
    if !etcd.exists() {
        let installed = sh::find("etcd").context("etcd is not on the PATH")?;
        // One that leads nowhere goes; that there is none is the usual case.
        let _ = fs::remove_file(&etcd);
        symlink(installed, &etcd).with_context(|| format!("link {}", etcd.display()))?;
    }
    for name in ["kube-apiserver", "kubectl"] {
        let program = assets.join(name);
        let packed = packed.join(name).with_extension("xz");
        if program.exists() || !packed.is_file() {
            continue;
        }
        let partial = program.with_extension("partial");
        let file =
            File::create(&partial).with_context(|| format!("create {}", partial.display()))?;
        file.set_permissions(fs::Permissions::from_mode(0o755))
            .with_context(|| format!("make {} executable", partial.display()))?;
        sh::run(
            sh::command("xz")
                .args(["--decompress", "--stdout"])
                .arg(packed)
                .stdout(Stdio::from(file)),
        )?;
        fs::rename(&partial, &program).with_context(|| format!("create {}", program.display()))?;
    }
    Ok(assets)
}
