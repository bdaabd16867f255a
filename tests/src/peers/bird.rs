//! BIRD as a BFD peer.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Seat;
use crate::cluster::Cluster;
use crate::process::{Process, output};
use crate::topology::NIC;

/// A BIRD with BFD sessions.
#[derive(Debug)]
pub struct Bird {
    /// `bird`.
    pub process: Process,
    seat: Seat,
    peers: Vec<Seat>,
    config: PathBuf,
    socket: PathBuf,
    log: PathBuf,
}

impl Bird {
    /// Starts it on a host, with sessions to others.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(cluster: &Cluster, seat: Seat, peers: &[Seat], interval_ms: u32) -> Result<Self> {
        let host = seat.host(cluster);
        let file = |kind| cluster.work().join(format!("{}-bird.{kind}", host.name()));
        let (config, socket, log) = (file("conf"), file("ctl"), file("log"));
        write_config(cluster, seat, peers, &config, interval_ms)?;
        let mut command = host.command("bird".as_ref());
        command
            .arg("-f")
            .arg("-c")
            .arg(&config)
            .arg("-s")
            .arg(&socket);
        let name = format!("bird on {}", host.name());
        let process = Process::daemon(&name, &mut command, &log)?;
        Ok(Self {
            process,
            seat,
            peers: peers.to_vec(),
            config,
            socket,
            log,
        })
    }

    /// Changes the interval of the running sessions.
    ///
    /// # Errors
    /// BIRD does not take it.
    pub fn set_interval(&self, cluster: &Cluster, interval_ms: u32) -> Result<()> {
        write_config(cluster, self.seat, &self.peers, &self.config, interval_ms)?;
        self.ask(cluster, &["configure"]).map(drop)
    }

    /// State of a session as BIRD tells it: `Up`, `Down`, `Init`.
    ///
    /// # Errors
    /// BIRD does not answer.
    pub fn session(&self, cluster: &Cluster, peer: Seat) -> Result<Option<String>> {
        let text = self.ask(cluster, &["show", "bfd", "sessions"])?;
        let peer = peer.host(cluster).address().to_string();
        let line = text
            .lines()
            .find(|line| line.split_whitespace().next() == Some(&peer));
        Ok(line.and_then(|line| line.split_whitespace().nth(2).map(str::to_owned)))
    }

    /// How often any of its sessions went down, since the host's first BIRD was started.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn downs(&self) -> Result<usize> {
        let text = std::fs::read_to_string(&self.log).context("read BIRD's log")?;
        Ok(text
            .lines()
            .filter(|line| line.contains("changed state from Up"))
            .count())
    }

    fn ask(&self, cluster: &Cluster, command: &[&str]) -> Result<String> {
        let mut birdc = self.seat.host(cluster).command("birdc".as_ref());
        output(birdc.arg("-s").arg(&self.socket).args(command))
    }
}

fn write_config(
    cluster: &Cluster,
    seat: Seat,
    peers: &[Seat],
    config: &std::path::Path,
    interval_ms: u32,
) -> Result<()> {
    let mut text = format!(
        "log stderr all;\n\
         router id {own};\n\
         protocol device {{}}\n\
         protocol bfd {{\n\
         \tdebug {{ events }};\n\
         \tinterface \"{NIC}\" {{ interval {interval_ms} ms; multiplier 3; }};\n",
        own = seat.host(cluster).address(),
    );
    for peer in peers {
        let peer = peer.host(cluster).address();
        writeln!(text, "\tneighbor {peer} dev \"{NIC}\";").expect("a string takes any text");
    }
    text += "}\n";
    std::fs::write(config, text).with_context(|| format!("write {}", config.display()))
}
