//! What is to be printed, and for whom.

use std::path::PathBuf;

use crate::config::{Admission, Config, Overrides};

/// Where a configuration file is to lie on the nodes.
pub(super) const FILE: &str = "/etc/vip/vip.toml";

/// What to print, and for whom.
#[derive(clap::Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    pub(super) overrides: Overrides,
    /// Let the agent read the configuration that is in this file now; copy it to
    /// /etc/vip/vip.toml on all nodes
    #[arg(long, value_name = "FILE")]
    pub(super) from: Option<PathBuf>,
    /// How the cluster is installed
    #[arg(long, value_enum, default_value_t = Distribution::Kubeadm)]
    pub(super) distribution: Distribution,
    /// Image of the container
    #[arg(long, default_value = concat!("localhost/vip:", env!("CARGO_PKG_VERSION")))]
    pub(super) image: String,
    /// Give the container all privileges; needed where the container runtime's seccomp profile
    /// knows nothing of CAP_BPF
    #[arg(long)]
    pub(super) privileged: bool,
    /// Print a systemd unit instead, for agents outside of Kubernetes
    #[arg(long, conflicts_with_all = ["image", "privileged", "config"])]
    pub(super) systemd: bool,
    /// Where the unit finds this program
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/usr/local/bin/vip",
        requires = "systemd"
    )]
    pub(super) binary: PathBuf,
    /// Write it to this file instead of printing it: whole or not at all
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Print the configuration file that says the same as the flags, to be extended
    #[arg(long, conflicts_with_all = ["image", "privileged", "from"])]
    pub(super) config: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Distribution {
    Kubeadm,
    K3s,
    Rke2,
}

impl Distribution {
    /// Where the kubelet looks for static pods.
    pub(super) const fn manifests(self) -> &'static str {
        match self {
            Self::Kubeadm => "/etc/kubernetes/manifests",
            Self::K3s => "/var/lib/rancher/k3s/agent/pod-manifests",
            Self::Rke2 => "/var/lib/rancher/rke2/agent/pod-manifests",
        }
    }

    /// Where the CA of the API servers is, or will be.
    pub(super) const fn tls(self) -> &'static str {
        match self {
            Self::Kubeadm => "/etc/kubernetes/pki",
            Self::K3s => "/var/lib/rancher/k3s/server/tls",
            Self::Rke2 => "/var/lib/rancher/rke2/server/tls",
        }
    }
}

impl Options {
    /// The arguments of the agent, after `run`.
    pub(super) fn words(&self) -> Vec<String> {
        let file = self.from.as_ref().map(|_| ["--config", FILE]);
        let file = file.into_iter().flatten().map(str::to_owned);
        file.chain(self.overrides.words()).collect()
    }
}

/// A comment of one line that says who may become a member, where neither a list of nodes nor a key
/// does. Empty otherwise.
pub(super) fn who_may_join(config: &Config) -> String {
    match Admission::of(config) {
        Admission::List | Admission::Key => String::new(),
        open @ (Admission::Certificate | Admission::Anybody) => {
            format!("# Members: {}.\n", open.sentence(&config.api_name()))
        }
    }
}
