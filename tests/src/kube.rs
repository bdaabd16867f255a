//! The real thing: kube-apiserver on every node, etcd on a host of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock::until;
use crate::pki::Pki;
use crate::process::{Process, output};
use crate::topology::{Host, PORT};

/// The bearer token of an administrator.
pub const TOKEN: &str = "vip-tests";

/// A stream that has an event whenever [`pulse`](crate::pulse) writes.
pub const WATCH_PATH: &str = "/api/v1/namespaces/default/configmaps?watch=1";

/// How long a server that was told to end goes on serving, while its `/readyz` says no:
/// longer than any scenario looks at it.
const SHUTDOWN_DELAY: Duration = Duration::from_secs(120);

/// Port of etcd.
const ETCD_PORT: u16 = 2379;

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// kube-apiserver, any version from 1.20 on.
    pub apiserver: PathBuf,
    /// etcd, 3.4 or later.
    pub etcd: PathBuf,
}

impl Binaries {
    /// Looks in the folder `KUBEBUILDER_ASSETS`, as controller-runtime's envtest does, and in
    /// `PATH`. `None` unless both are there.
    #[must_use]
    pub fn find() -> Option<Self> {
        let mut folders: Vec<PathBuf> = std::env::var_os("KUBEBUILDER_ASSETS")
            .map(PathBuf::from)
            .into_iter()
            .collect();
        if let Some(path) = std::env::var_os("PATH") {
            folders.extend(std::env::split_paths(&path));
        }
        let find = |name: &str| {
            folders
                .iter()
                .map(|folder| folder.join(name))
                .find(|path| path.is_file())
        };
        Some(Self {
            apiserver: find("kube-apiserver")?,
            etcd: find("etcd")?,
        })
    }

    /// What `kube-apiserver --version` says.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn version(&self) -> Result<String> {
        let text = output(std::process::Command::new(&self.apiserver).arg("--version"))?;
        Ok(text.trim().to_owned())
    }
}

/// Starts etcd. It is not awaited: API servers wait for it.
///
/// # Errors
/// It cannot be started.
pub fn start_etcd(binaries: &Binaries, host: &dyn Host, work: &Path) -> Result<Process> {
    let data = work.join("etcd");
    std::fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
    let mut command = host.command(binaries.etcd.as_os_str());
    command
        .arg("--data-dir")
        .arg(&data)
        .arg(format!("--listen-client-urls=http://0.0.0.0:{ETCD_PORT}"))
        .arg(format!(
            "--advertise-client-urls=http://{}:{ETCD_PORT}",
            host.address()
        ))
        .arg("--listen-peer-urls=http://127.0.0.1:2380");
    Process::daemon("etcd", &mut command, &work.join("etcd.log"))
}

/// Starts kube-apiserver on a node. It is ready when its `/readyz` says so.
///
/// # Errors
/// It cannot be started.
pub fn start_apiserver(
    binaries: &Binaries,
    host: &dyn Host,
    etcd: &dyn Host,
    pki: &Pki,
    work: &Path,
) -> Result<Process> {
    let name = host.name();
    let tokens = work.join("tokens.csv");
    std::fs::write(&tokens, format!("{TOKEN},admin,admin,system:masters\n"))
        .with_context(|| format!("write {}", tokens.display()))?;
    let flag = |flag: &str, value: &Path| format!("--{flag}={}", value.display());
    let service_accounts = pki.directory().join("service-accounts.pub");
    let mut command = host.command(binaries.apiserver.as_os_str());
    command
        .arg(format!("--secure-port={PORT}"))
        .arg("--bind-address=0.0.0.0")
        .arg(format!("--advertise-address={}", host.address()))
        .arg(format!(
            "--etcd-servers=http://{}:{ETCD_PORT}",
            etcd.address()
        ))
        .arg(flag("tls-cert-file", &pki.certificate(name)))
        .arg(flag("tls-private-key-file", &pki.key(name)))
        .arg(flag("cert-dir", &work.join(format!("{name}-run"))))
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(flag("service-account-key-file", &service_accounts))
        .arg(flag(
            "service-account-signing-key-file",
            &pki.key("service-accounts"),
        ))
        .arg("--service-cluster-ip-range=10.96.0.0/16")
        .arg("--authorization-mode=RBAC")
        .arg(flag("token-auth-file", &tokens))
        .arg(format!(
            "--shutdown-delay-duration={}s",
            SHUTDOWN_DELAY.as_secs()
        ));
    Process::daemon(
        &format!("kube-apiserver on {name}"),
        &mut command,
        &work.join(format!("{name}-apiserver.log")),
    )
}

/// Waits until etcd takes connections; an API server that starts earlier gives up after 20 s
/// on a slow machine.
///
/// # Errors
/// Not within 60 s.
pub fn wait_for_etcd(host: &dyn Host, testbed: &Path) -> Result<()> {
    until("etcd listens", Duration::from_secs(60), || {
        let mut command = host.command(testbed.as_os_str());
        command.args(["reach", &format!("{}:{ETCD_PORT}", host.address())]);
        Ok(output(&mut command).ok())
    })?;
    Ok(())
}
