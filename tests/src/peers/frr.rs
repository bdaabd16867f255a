//! FRR's bfdd as a BFD peer. It learns of interfaces from zebra.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::unistd::{User, chown};

use super::Seat;
use crate::cluster::Cluster;
use crate::process::{Process, output};
use crate::topology::NIC;

/// Where Debian keeps the daemons.
const DAEMONS: &str = "/usr/lib/frr";

/// A bfdd with sessions, and its zebra.
#[derive(Debug)]
pub struct Frr {
    /// `bfdd`.
    pub process: Process,
    _zebra: Process,
    seat: Seat,
    folder: PathBuf,
}

impl Frr {
    /// Starts it on a host, with sessions to others.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(cluster: &Cluster, seat: Seat, peers: &[Seat], interval_ms: u32) -> Result<Self> {
        let host = seat.host(cluster);
        let folder = cluster.work().join(format!("{}-frr", host.name()));
        std::fs::create_dir_all(&folder).context("make a folder for FRR")?;
        // The daemons give up being root, and leave sockets and pid files there.
        let user = User::from_name("frr")
            .context("look for the user frr")?
            .context("no user frr: is Debian's package frr installed?")?;
        chown(&folder, Some(user.uid), Some(user.gid)).context("hand the folder to FRR")?;
        let config = folder.join("bfdd.conf");
        let mut text = "bfd\n".to_owned();
        for peer in peers {
            writeln!(
                text,
                " peer {} interface {NIC}\n  detect-multiplier 3\n  receive-interval \
                 {interval_ms}\n  transmit-interval {interval_ms}\n  no shutdown\n !",
                peer.host(cluster).address()
            )
            .expect("a string takes any text");
        }
        text += "!\n";
        std::fs::write(&config, text).context("write bfdd.conf")?;
        let empty = folder.join("zebra.conf");
        std::fs::write(&empty, "").context("write zebra.conf")?;
        let start = |name: &str, config: &PathBuf| {
            let mut command = host.command(format!("{DAEMONS}/{name}").as_ref());
            command
                .arg("-f")
                .arg(config)
                .arg("-i")
                .arg(folder.join(format!("{name}.pid")))
                .arg("-z")
                .arg(folder.join("zserv.api"))
                .arg("--vty_socket")
                .arg(&folder)
                .args(["--log", "stdout"]);
            if name == "bfdd" {
                command.arg("--bfdctl").arg(folder.join("bfdd.sock"));
            }
            let log = cluster.work().join(format!("{}-{name}.log", host.name()));
            Process::daemon(&format!("{name} on {}", host.name()), &mut command, &log)
        };
        let zebra = start("zebra", &empty)?;
        let process = start("bfdd", &config)?;
        Ok(Self {
            process,
            _zebra: zebra,
            seat,
            folder,
        })
    }

    /// State of a session as bfdd tells it: `up`, `down`, `init`.
    ///
    /// # Errors
    /// bfdd does not answer.
    pub fn session(&self, cluster: &Cluster, peer: Seat) -> Result<Option<String>> {
        let peers = self.ask(cluster, "show bfd peers json")?;
        let wanted = peer.host(cluster).address().to_string();
        let peer = peers.iter().find(|peer| peer["peer"] == wanted.as_str());
        Ok(peer.and_then(|peer| peer["status"].as_str().map(str::to_owned)))
    }

    /// How often any of its sessions went down, since it was started.
    ///
    /// # Errors
    /// bfdd does not answer.
    pub fn downs(&self, cluster: &Cluster) -> Result<usize> {
        let peers = self.ask(cluster, "show bfd peers counters json")?;
        let counts = peers.iter().map(|peer| peer["session-down"].as_u64());
        let sum: Option<u64> = counts.sum();
        let sum = sum.with_context(|| format!("bfdd does not count: {peers:?}"))?;
        usize::try_from(sum).context("too many to count")
    }

    fn ask(&self, cluster: &Cluster, command: &str) -> Result<Vec<serde_json::Value>> {
        let mut vtysh = self.seat.host(cluster).command("vtysh".as_ref());
        let text = output(
            vtysh
                .arg("--vty_socket")
                .arg(&self.folder)
                .args(["-d", "bfdd", "-c", command]),
        )?;
        serde_json::from_str(&text).with_context(|| format!("vtysh writes something else: {text}"))
    }
}
