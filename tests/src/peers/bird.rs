//! BIRD as a BFD peer.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::process::{Process, output};
use crate::topology::NIC;

/// A BIRD with one BFD session.
#[derive(Debug)]
pub struct Bird {
    /// `bird`.
    pub process: Process,
    node: usize,
    peer: usize,
    config: PathBuf,
    socket: PathBuf,
}

impl Bird {
    /// Starts it on a node, with a session to another one.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(cluster: &Cluster, node: usize, peer: usize, interval_ms: u32) -> Result<Self> {
        let host = cluster.host(node);
        let file = |kind| cluster.work().join(format!("{}-bird.{kind}", host.name()));
        let (config, socket) = (file("conf"), file("ctl"));
        write_config(cluster, node, peer, &config, interval_ms)?;
        let mut command = host.command("bird".as_ref());
        command
            .arg("-f")
            .arg("-c")
            .arg(&config)
            .arg("-s")
            .arg(&socket);
        let name = format!("bird on {}", host.name());
        let process = Process::daemon(&name, &mut command, &file("log"))?;
        Ok(Self {
            process,
            node,
            peer,
            config,
            socket,
        })
    }

    /// Changes the interval of the running session.
    ///
    /// # Errors
    /// BIRD does not take it.
    pub fn set_interval(&self, cluster: &Cluster, interval_ms: u32) -> Result<()> {
        write_config(cluster, self.node, self.peer, &self.config, interval_ms)?;
        self.ask(cluster, &["configure"]).map(drop)
    }

    /// State of the session as BIRD tells it: `Up`, `Down`, `Init`.
    ///
    /// # Errors
    /// BIRD does not answer.
    pub fn session(&self, cluster: &Cluster) -> Result<Option<String>> {
        let text = self.ask(cluster, &["show", "bfd", "sessions"])?;
        let peer = cluster.host(self.peer).address().to_string();
        let line = text.lines().find(|line| line.starts_with(&peer));
        Ok(line.and_then(|line| line.split_whitespace().nth(2).map(str::to_owned)))
    }

    fn ask(&self, cluster: &Cluster, command: &[&str]) -> Result<String> {
        let mut birdc = cluster.host(self.node).command("birdc".as_ref());
        output(birdc.arg("-s").arg(&self.socket).args(command))
    }
}

fn write_config(
    cluster: &Cluster,
    node: usize,
    peer: usize,
    config: &std::path::Path,
    interval_ms: u32,
) -> Result<()> {
    let text = format!(
        "router id {own};\n\
         protocol device {{}}\n\
         protocol bfd {{\n\
         \tinterface \"{NIC}\" {{ interval {interval_ms} ms; multiplier 3; }};\n\
         \tneighbor {peer} dev \"{NIC}\";\n\
         }}\n",
        own = cluster.host(node).address(),
        peer = cluster.host(peer).address(),
    );
    std::fs::write(config, text).with_context(|| format!("write {}", config.display()))
}
