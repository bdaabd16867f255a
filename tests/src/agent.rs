//! The program under test: `vip run` on a node, and what `vip status --json` says.
//!
//! The form of that JSON is read here and nowhere else, and leniently: what a test does not
//! need may be missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::process::{Process, output};
use crate::topology::Host;

/// Where the programs are that run on the hosts.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The program under test.
    pub vip: PathBuf,
    /// Load, watches, stand-in servers: this crate's own binary.
    pub testbed: PathBuf,
}

impl Programs {
    /// `VIP_BIN` or else `vip` beside this executable, or in the folder above (where cargo
    /// puts test executables one level deeper); the same with `TESTBED_BIN` and `testbed`.
    /// `vip` need not exist until an agent is started.
    ///
    /// # Errors
    /// `testbed` is not there.
    pub fn find() -> Result<Self> {
        let own = std::env::current_exe().context("find the path of this program")?;
        let folders: Vec<&Path> = own.ancestors().skip(1).take(2).collect();
        let find = |variable: &str, name: &str| {
            std::env::var_os(variable).map(PathBuf::from).or_else(|| {
                folders
                    .iter()
                    .map(|folder| folder.join(name))
                    .find(|path| path.is_file())
            })
        };
        let Some(testbed) = find("TESTBED_BIN", "testbed") else {
            bail!(
                "no program testbed beside {}: run cargo build -p vip-tests",
                own.display()
            );
        };
        let vip = find("VIP_BIN", "vip").unwrap_or_else(|| PathBuf::from("vip"));
        Ok(Self { vip, testbed })
    }
}

/// The part of `vip status --json` that tests need.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Who owns the VIP, as far as this node knows.
    pub owner: Option<Owner>,
    /// What this node is: `active`, `backup`, `initialize`.
    #[serde(default)]
    pub state: String,
    /// What keeps it from owning the VIP.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Times that this node became the owner.
    #[serde(default)]
    pub takeovers: u64,
    /// Times that a stranger claimed the VIP.
    #[serde(default)]
    pub conflicts: u64,
    /// What was not as it should be in the kernel, and how often.
    #[serde(default)]
    pub repairs: BTreeMap<String, u64>,
    /// The stranger's Ethernet address.
    #[serde(default)]
    pub claimant: Option<String>,
    /// What is wrong on the segment.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    /// How the programs are attached.
    #[serde(default)]
    pub xdp: XdpStatus,
    /// Whether they run.
    #[serde(default)]
    pub hooks: Vec<HookStatus>,
    /// Ports of the VIPs.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
    /// All nodes.
    #[serde(default)]
    pub nodes: Vec<NodeStatus>,
    /// What became of frames.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// How the agent has BFD's port.
    #[serde(default)]
    pub bfd_port: Option<String>,
    /// Packets that the agent has read, by protocol.
    #[serde(default)]
    pub received: BTreeMap<String, u64>,
    /// Events since the agent started, by name.
    #[serde(default)]
    pub events: BTreeMap<String, u64>,
}

/// Something on the segment that keeps the cluster from working as it should.
#[derive(Debug, Clone, Deserialize)]
pub struct Alarm {
    /// What it is, for programs.
    pub alarm: String,
    /// A node's name, or an address.
    pub about: String,
    /// What it is, for people.
    pub text: String,
}

/// How the programs are attached.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct XdpStatus {
    /// The NIC.
    #[serde(default)]
    pub interface: String,
    /// `native`, `generic`, `tc`.
    pub mode: String,
    /// The maps were taken over from an earlier agent.
    pub adopted: bool,
}

/// A place in the kernel where a program of the agent must run.
#[derive(Debug, Clone, Deserialize)]
pub struct HookStatus {
    /// `ingress`, `egress`, `connect`.
    pub name: String,
    /// `yes`, `no`, `unproven`.
    pub runs: String,
    /// Why not.
    #[serde(default)]
    pub cause: Option<String>,
}

/// A port of a VIP.
#[derive(Debug, Clone, Deserialize)]
pub struct ServiceStatus {
    /// Address and port.
    pub endpoint: String,
    /// Names of the nodes that new connections are brought to.
    pub usable: Vec<String>,
}

/// The owner of the VIP.
#[derive(Debug, Clone, Deserialize)]
pub struct Owner {
    /// Its own address.
    pub address: String,
}

/// A node, as another one sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct NodeStatus {
    /// Its own address.
    pub address: String,
    /// Its Ethernet address, once it is known.
    #[serde(default)]
    pub mac: Option<String>,
    /// Where its frames come from, if that is another one.
    #[serde(default)]
    pub source_mac: Option<String>,
    /// It answers.
    #[serde(default)]
    pub alive: bool,
    /// Its API server says that it is ready.
    #[serde(default)]
    pub ready: bool,
    /// Its API server serves, and whether it is ready is not known.
    #[serde(default)]
    pub unknown: bool,
    /// New connections to the API are brought to it.
    #[serde(default)]
    pub usable: bool,
    /// What the last probe found.
    #[serde(default)]
    pub probe: String,
    /// Whether it answers ICMP echo, once that is known.
    #[serde(default)]
    pub echo: Option<bool>,
    /// It takes no new connections.
    #[serde(default)]
    pub draining: bool,
    /// The BFD session with it.
    #[serde(default)]
    pub bfd: Option<BfdStatus>,
    /// It is the node that says this.
    #[serde(default)]
    pub own: bool,
    /// Frames that were steered there.
    #[serde(default)]
    pub packets: u64,
    /// Their bytes.
    #[serde(default)]
    pub bytes: u64,
}

/// A BFD session, as the agent sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct BfdStatus {
    /// `admin_down`, `down`, `init`, `up`.
    pub state: String,
    /// How long the peer may be silent.
    pub detection_ms: f64,
}

impl Status {
    /// The entry of a node.
    #[must_use]
    pub fn node(&self, host: &dyn Host) -> Option<&NodeStatus> {
        let address = host.address().to_string();
        self.nodes.iter().find(|node| node.address == address)
    }

    /// Whether all hooks are proved to run.
    #[must_use]
    pub fn hooks_run(&self) -> bool {
        !self.hooks.is_empty() && self.hooks.iter().all(|hook| hook.runs == "yes")
    }

    /// Frames that the node sent on to others, and their bytes.
    #[must_use]
    pub fn forwarded(&self) -> (u64, u64) {
        let others = self.nodes.iter().filter(|node| !node.own);
        others.fold((0, 0), |(packets, bytes), node| {
            (packets + node.packets, bytes + node.bytes)
        })
    }

    /// The text of an alarm about a node's name or an address.
    #[must_use]
    pub fn alarm(&self, alarm: &str, about: &str) -> Option<&str> {
        let mut alarms = self.alarms.iter();
        let found = alarms.find(|there| there.alarm == alarm && there.about == about);
        found.map(|there| there.text.as_str())
    }

    /// A counter; 0 if the agent does not have it.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// `vip run`.
    pub process: Process,
}

impl Agent {
    /// Starts `vip run` on a node.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(programs: &Programs, host: &dyn Host, config: &Path, log: &Path) -> Result<Self> {
        let mut command = host.command(programs.vip.as_os_str());
        command.arg("run").arg("--config").arg(config);
        let process = Process::daemon(&format!("vip run on {}", host.name()), &mut command, log)
            .context("set VIP_BIN, or run cargo build -p vip-userspace")?;
        Ok(Self { process })
    }

    /// Ends the agent as systemd or the kubelet would.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process.stop()?;
        // Ended by the signal, or cleanly because of it.
        if status.success()
            || std::os::unix::process::ExitStatusExt::signal(&status)
                == Some(Signal::SIGTERM as i32)
        {
            Ok(())
        } else {
            bail!("{}: {status}", self.process.name())
        }
    }
}

/// Asks the agent of a node.
///
/// # Errors
/// It does not answer, or its answer has another form.
pub fn status(programs: &Programs, host: &dyn Host) -> Result<Status> {
    let text = output(
        host.command(programs.vip.as_os_str())
            .args(["status", "--json"]),
    )?;
    serde_json::from_str(&text)
        .with_context(|| format!("vip status --json on {} wrote: {text}", host.name()))
}

/// Removes what an agent left on a node.
///
/// # Errors
/// `vip cleanup` fails.
pub fn cleanup(programs: &Programs, host: &dyn Host) -> Result<String> {
    output(host.command(programs.vip.as_os_str()).arg("cleanup"))
}
