//! keepalived, which owns the VIP the usual way: it puts it on the NIC.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::Cluster;
use crate::process::{Process, output};
use crate::topology::{NIC, VIP};

/// How it is configured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its VRRP priority.
    pub priority: u8,
    /// Between advertisements, in seconds.
    pub advert_int: f64,
    /// Nodes that it advertises to; by multicast if there are none.
    pub peers: Vec<usize>,
    /// More of the configuration, before the instance and in it.
    pub scripts: (String, String),
}

/// The same as the VIP's last byte, which is the product's default.
pub const ROUTER_ID: u8 = VIP.octets()[3];

/// A running keepalived: a parent, and a child that speaks VRRP.
#[derive(Debug)]
pub struct Keepalived {
    /// The parent.
    pub process: Process,
    child: PathBuf,
}

impl Keepalived {
    /// The process that speaks VRRP.
    ///
    /// # Errors
    /// Its pid cannot be read.
    pub fn child(&self) -> Result<Pid> {
        let pid = std::fs::read_to_string(&self.child).context("read keepalived's pid file")?;
        let pid = pid.trim().parse().context("read keepalived's pid file")?;
        Ok(Pid::from_raw(pid))
    }

    /// Stops both in their tracks (`SIGSTOP`), or lets them go on (`SIGCONT`).
    ///
    /// # Errors
    /// They are not there.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal);
        kill(self.child()?, signal).context("signal keepalived")
    }

    /// `kill -9` of parent and child, so that no advertisement with priority 0 is sent. The VIP stays on the NIC.
    ///
    /// # Errors
    /// The child's pid cannot be read.
    pub fn kill(&mut self) -> Result<()> {
        let pid = self.child()?;
        // Or it would start another child.
        self.process.signal(Signal::SIGSTOP);
        kill(pid, Signal::SIGKILL).context("kill keepalived")?;
        self.process.kill_and_reap();
        Ok(())
    }
}

/// Starts it on a node.
///
/// # Errors
/// It cannot be started.
pub fn start(cluster: &Cluster, node: usize, settings: &Settings) -> Result<Keepalived> {
    // It trusts stale pid files: each start has its own.
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let host = cluster.host(node);
    let file = |kind: &str| {
        let name = format!("{}-keepalived{kind}", host.name());
        cluster.work().join(name)
    };
    let pid_file = |kind: &str| file(&format!("-{number}{kind}.pid"));
    let peers: Vec<String> = settings
        .peers
        .iter()
        .map(|peer| cluster.host(*peer).address().to_string())
        .collect();
    let unicast = if peers.is_empty() {
        String::new()
    } else {
        format!(
            "unicast_src_ip {}\n\tunicast_peer {{\n\t\t{}\n\t}}",
            host.address(),
            peers.join("\n\t\t")
        )
    };
    // At real-time priority the kernel may end it while it becomes master, without a limit.
    let text = format!(
        "global_defs {{\n\
         \tvrrp_version 3\n\
         \tvrrp_rt_priority 50\n\
         \tvrrp_rlimit_rttime 10000000\n\
         \tscript_user root\n\
         \tenable_script_security\n\
         }}\n\
         {}\n\
         vrrp_instance vip {{\n\
         \tstate BACKUP\n\
         \tinterface {NIC}\n\
         \tvirtual_router_id {ROUTER_ID}\n\
         \tpriority {}\n\
         \tadvert_int {}\n\
         \t{unicast}\n\
         \tvirtual_ipaddress {{\n\t\t{VIP}/32 dev {NIC}\n\t}}\n\
         {}\n\
         }}\n",
        settings.scripts.0, settings.priority, settings.advert_int, settings.scripts.1
    );
    let config = file(".conf");
    std::fs::write(&config, text).context("write keepalived.conf")?;
    let mut command = host.command("keepalived".as_ref());
    command
        .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"])
        .arg("--use-file")
        .arg(&config)
        .arg("--pid")
        .arg(pid_file(""))
        .arg("--vrrp_pid")
        .arg(pid_file("-vrrp"));
    let name = format!("keepalived on {}", host.name());
    Ok(Keepalived {
        process: Process::daemon(&name, &mut command, &file(".log"))?,
        child: pid_file("-vrrp"),
    })
}

/// Whether the VIP lies on the NIC of a node: whether its keepalived is the master.
///
/// # Errors
/// The node cannot be asked.
pub fn owns(cluster: &Cluster, node: usize) -> Result<bool> {
    let mut command = cluster.host(node).command("ip".as_ref());
    let text = output(command.args(["-oneline", "address", "show", "dev", NIC]))?;
    Ok(text.contains(&format!("{VIP}/32")))
}
