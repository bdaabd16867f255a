//! What a cluster is made of, and the kinds of clusters that scenarios ask for.

use super::Pace;
use crate::kube::{Binaries, Layout};
use crate::topology::vm::Machines;
use crate::topology::{Link, PORT};

/// What the API servers are.
#[derive(Debug, Clone)]
pub enum Flavour {
    /// [`server`](crate::server): TLS, `/readyz`, a watch.
    StandIn,
    /// kube-apiserver and etcd.
    Kubernetes(Binaries, Layout),
}

impl Flavour {
    /// kube-apiserver and etcd.
    ///
    /// # Errors
    /// They are not on this machine.
    pub fn kubernetes(layout: Layout) -> Result<Self, Missing> {
        let reason = "no kube-apiserver and etcd: KUBEBUILDER_ASSETS is not set";
        let binaries = Binaries::find().ok_or_else(|| Missing(reason.to_owned()))?;
        Ok(Self::Kubernetes(binaries, layout))
    }
}

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Control-plane nodes.
    pub nodes: u8,
    /// What the API servers are.
    pub flavour: Flavour,
    /// The VRRP advertisement interval, as the configuration writes it.
    pub interval: String,
    /// More of the agents' configuration, in TOML, behind the `[vrrp]` table.
    pub more: String,
    /// More of it, at the top.
    pub top: String,
    /// Port of the VIPs.
    pub port: u16,
    /// Hosts have addresses of both families, and there is a VIP of each.
    pub dual_stack: bool,
    /// What the nodes' NICs are, if these are namespaces.
    pub link: Link,
    /// Nodes and client are these virtual machines, and not namespaces.
    pub machines: Option<Machines>,
    /// How much happens.
    pub pace: Pace,
    /// Start no agents.
    pub bare: bool,
    /// How many of the nodes are there when the cluster starts, where agents find each other; `None`:
    /// all, and the configuration lists them.
    pub founders: Option<u8>,
    /// The agents share a key.
    pub keyed: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self::at_pace(Pace::of_environment())
    }
}

impl Plan {
    fn at_pace(pace: Pace) -> Self {
        Self {
            nodes: 3,
            flavour: Flavour::StandIn,
            interval: pace.interval.to_owned(),
            more: pace.bfd.to_owned(),
            top: String::new(),
            port: PORT,
            dual_stack: false,
            link: Link::Plain,
            machines: None,
            pace,
            bare: false,
            founders: None,
            keyed: false,
        }
    }

    /// With hosts and VIPs of both families.
    #[must_use]
    pub fn dual_stack() -> Self {
        Self {
            dual_stack: true,
            ..Self::default()
        }
    }

    /// Without agents.
    #[must_use]
    pub fn bare() -> Self {
        Self {
            bare: true,
            ..Self::default()
        }
    }

    /// Without a list of nodes: so many are there at first, and others [come](super::Cluster::arrive)
    /// later. `top`: how their agents prove that they may.
    #[must_use]
    pub fn found_by(founders: u8, nodes: u8, top: &str) -> Self {
        Self {
            nodes,
            founders: Some(founders),
            top: top.to_owned(),
            ..Self::default()
        }
    }

    /// With kube-apiserver and etcd.
    ///
    /// # Errors
    /// They are not on this machine.
    pub fn kubernetes(layout: Layout) -> Planned {
        Ok(Self {
            flavour: Flavour::kubernetes(layout)?,
            ..Self::default()
        })
    }

    /// On virtual machines.
    #[must_use]
    pub fn on_machines(pace: Pace, machines: Machines) -> Self {
        Self {
            machines: Some(machines),
            ..Self::at_pace(pace)
        }
    }
}

/// Why there can be no such cluster here: the test is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub String);

/// A plan, unless the machine lacks something.
pub type Planned = Result<Plan, Missing>;
