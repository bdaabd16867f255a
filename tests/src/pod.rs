//! Pods as the network sees them: a network namespace below a node's, in the same control group.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Result, bail};

use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE};
use crate::process::Process;
use crate::topology::{Host, NIC, sh};

/// How packets of pods leave their node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// With the pod's address, to which the other nodes have a route.
    Routed,
    /// With the node's (masqueraded), and what connection tracking finds invalid is dropped, as
    /// kube-proxy has it.
    Masqueraded,
}

/// A pod on a node.
#[derive(Debug)]
pub struct Pod {
    node: usize,
    holder: Process,
}

impl Pod {
    /// Starts one. A node can have one.
    ///
    /// # Errors
    /// The kernel refuses something.
    pub fn start(cluster: &Cluster, node: usize, routing: Routing) -> Result<Self> {
        let host = cluster.host(node);
        let mut command = host.command("unshare".as_ref());
        // It says so when it is in its namespace.
        command.args(["--net", "sh", "-c", "echo; exec sleep infinity"]);
        let holder = Process::reporter("pod", &mut command, "/dev/null".as_ref())?;
        until("the pod has its namespace", PATIENCE, || {
            Ok((holder.line_count() > 0).then_some(()))
        })?;
        let pod = Self { node, holder };
        let pid = pod.holder.pid();
        sh(
            host,
            &format!(
                "echo 1 >/proc/sys/net/ipv4/ip_forward; \
                 ip link add pod0 type veth peer name eth0 netns {pid}; \
                 ip address add 10.244.0.1/24 dev pod0; ip link set pod0 up"
            ),
        )?;
        sh(
            &pod.on(cluster),
            "ip link set lo up; ip address add 10.244.0.2/24 dev eth0; \
             ip link set eth0 up; ip route add default via 10.244.0.1",
        )?;
        if routing == Routing::Masqueraded {
            sh(
                host,
                &format!(
                    "nft 'table ip pods {{ \
                       chain out {{ type nat hook postrouting priority srcnat; \
                         ip saddr 10.244.0.0/24 oifname {NIC} masquerade; }}; \
                       chain through {{ type filter hook forward priority filter; \
                         ct state invalid drop; }}; }}'"
                ),
            )?;
            return Ok(pod);
        }
        for other in cluster.nodes() {
            if other != node {
                let route = format!("ip route add 10.244.0.0/24 via {}", host.address());
                sh(cluster.host(other), &route)?;
            }
        }
        Ok(pod)
    }

    /// The pod as a host.
    #[must_use]
    pub fn on<'c>(&self, cluster: &'c Cluster) -> Inside<'c> {
        Inside {
            node: cluster.host(self.node),
            namespace: format!("--net=/proc/{}/ns/net", self.holder.pid()),
            name: format!("a pod on {}", cluster.name(self.node)),
        }
    }
}

/// A pod, for what runs on hosts.
#[derive(Debug)]
pub struct Inside<'c> {
    node: &'c dyn Host,
    namespace: String,
    name: String,
}

impl Host for Inside<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, 0, 2)
    }

    fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::UNSPECIFIED
    }

    fn command(&self, program: &OsStr) -> Command {
        let mut command = self.node.command("nsenter".as_ref());
        command.arg(&self.namespace).arg(program);
        command
    }

    fn way_in(&self) -> String {
        format!("{} nsenter {}", self.node.way_in(), self.namespace)
    }

    fn power_off(&mut self) -> Result<()> {
        bail!("{} goes with its node", self.name)
    }
}
