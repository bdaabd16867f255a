//! The real thing: kube-apiserver on every node, etcd on a host of its own or, as kubeadm has it,
//! a member on every node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock::until;
use crate::pki::Pki;
use crate::process::{self, Process, output};
use crate::topology::{Host, PORT};

/// The bearer token of an administrator.
pub const TOKEN: &str = "vip-tests";

/// A stream that has an event whenever [`background_writes`](crate::background_writes) writes one.
pub const WATCH_PATH: &str = "/api/v1/namespaces/default/configmaps?watch=1";

/// Port of etcd.
const ETCD_PORT: u16 = 2379;

/// Port by which its members talk to each other.
const PEER_PORT: u16 = 2380;

/// Where the data are, and how a server is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One etcd on a host of its own. A server that is told to end goes on serving for longer
    /// than any scenario looks at it, while its `/readyz` says no.
    Apart,
    /// An etcd member on each node, which the node's server uses. A server that is told to end
    /// does so after some seconds, in which its `/readyz` says no.
    Stacked,
}

impl Layout {
    /// `--shutdown-delay-duration`.
    const fn shutdown_delay(self) -> Duration {
        match self {
            Self::Apart => Duration::from_secs(120),
            Self::Stacked => Duration::from_secs(5),
        }
    }
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// kube-apiserver, any version from 1.20 on.
    pub apiserver: PathBuf,
    /// etcd, 3.4 or later.
    pub etcd: PathBuf,
    /// kubectl, of about the same version.
    pub kubectl: Option<PathBuf>,
}

/// Looks for a program of Kubernetes: in the folder `KUBEBUILDER_ASSETS`, as controller-runtime's
/// envtest does, and in `PATH`.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let asset = assets.map(|folder| folder.join(name));
    let asset = asset.filter(|path| path.is_file());
    asset.or_else(|| process::find(name))
}

impl Binaries {
    /// `None` unless both servers are there.
    #[must_use]
    pub fn find() -> Option<Self> {
        Some(Self {
            apiserver: find("kube-apiserver")?,
            etcd: find("etcd")?,
            kubectl: find("kubectl"),
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

/// Starts the etcd member on a host. `members` are all of a cluster's, this one among them. It is
/// not awaited: API servers wait for it. Started again, it goes on with its data.
///
/// # Errors
/// It cannot be started.
pub fn start_etcd(
    binaries: &Binaries,
    host: &dyn Host,
    members: &[&dyn Host],
    work: &Path,
) -> Result<Process> {
    let (name, address) = (host.name(), host.address());
    let data = work.join(format!("{name}-etcd"));
    std::fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
    let peer = |member: &dyn Host| format!("http://{}:{PEER_PORT}", member.address());
    let cluster: Vec<String> = members
        .iter()
        .map(|member| format!("{}={}", member.name(), peer(*member)))
        .collect();
    let mut command = host.command(binaries.etcd.as_os_str());
    command
        .arg(format!("--name={name}"))
        .arg(format!("--data-dir={}", data.display()))
        .arg(format!("--listen-client-urls=http://0.0.0.0:{ETCD_PORT}"))
        .arg(format!(
            "--advertise-client-urls=http://{address}:{ETCD_PORT}"
        ))
        .arg(format!("--listen-peer-urls={}", peer(host)))
        .arg(format!("--initial-advertise-peer-urls={}", peer(host)))
        .arg(format!("--initial-cluster={}", cluster.join(",")))
        // The members share a disk with everything else here.
        .arg("--unsafe-no-fsync");
    let log = work.join(format!("{name}-etcd.log"));
    Process::daemon(&format!("etcd on {name}"), &mut command, &log)
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
    layout: Layout,
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
        // As kubeadm has it.
        .arg("--allow-privileged=true")
        .arg(flag("token-auth-file", &tokens))
        .arg(format!(
            "--shutdown-delay-duration={}s",
            layout.shutdown_delay().as_secs()
        ))
        // Among others how long it waits for its watches to end.
        .arg("--request-timeout=15s");
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
