//! HAProxy in front of the API servers, as the kubeadm guide to high availability has it: on
//! every control-plane node, in TCP mode, on a port of its own.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::process::Process;
use crate::topology::PORT;

/// The port that clients use (the guide's example).
pub const FRONT_PORT: u16 = 8443;

/// Starts it on a node. `check` says how servers are checked, as in a `server` line:
/// `inter 2s fall 3`, say.
///
/// # Errors
/// It cannot be started.
pub fn start(cluster: &Cluster, node: usize, check: &str) -> Result<Process> {
    let host = cluster.host(node);
    let servers: Vec<String> = cluster
        .nodes()
        .into_iter()
        .map(|node| {
            let (name, address) = (cluster.name(node), cluster.host(node).address());
            format!("    server {name} {address}:{PORT} check verify none {check}\n")
        })
        .collect();
    // The time-outs are the guide's.
    let text = format!(
        "global\n    log stdout format raw local0\n\
         defaults\n    log global\n    retries 1\n    timeout queue 20s\n    \
         timeout connect 5s\n    timeout client 35s\n    timeout server 35s\n    \
         timeout check 10s\n\
         frontend apiserver\n    bind *:{FRONT_PORT}\n    mode tcp\n    \
         default_backend apiserverbackend\n\
         backend apiserverbackend\n    option httpchk\n    http-check connect ssl\n    \
         http-check send meth GET uri /readyz\n    http-check expect status 200\n    \
         mode tcp\n    balance roundrobin\n{}",
        servers.concat()
    );
    let config = cluster.work().join(format!("{}-haproxy.cfg", host.name()));
    std::fs::write(&config, text).context("write haproxy.cfg")?;
    let mut command = host.command("haproxy".as_ref());
    command.arg("-db").arg("-f").arg(&config);
    let name = format!("haproxy on {}", host.name());
    Process::daemon(&name, &mut command, &log(cluster, node))
}

/// Where the one on a node writes its log.
#[must_use]
pub fn log(cluster: &Cluster, node: usize) -> PathBuf {
    let name = format!("{}-haproxy.log", cluster.host(node).name());
    cluster.work().join(name)
}
