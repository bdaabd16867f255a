//! The state of the agent, as `vip status` shows it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::decide::settings::some;

/// All of it, as the agent writes it to its socket. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Address and port of the API.
    pub vip: String,
    /// All that is served, that among it.
    pub services: Vec<Service>,
    /// The cgroup whose processes' connections to the VIPs are redirected; `None` if none are.
    pub local: Option<String>,
    /// Who owns the VIP, as this node knows; `None` while nobody is heard.
    pub owner: Option<Peer>,
    /// This node's part: `active`, `backup` or `initialize` (RFC 9568, section 6.4).
    pub state: String,
    /// VRRP priority of this node.
    pub priority: u8,
    /// What keeps this node from owning the VIP.
    pub faults: Vec<String>,
    /// For how much longer this node answers ARP for the VIP if the agent hangs now.
    pub fence_remaining_ms: u64,
    /// Since when this node is in its state.
    pub state_for_ms: u64,
    /// Times that this node became the owner.
    pub takeovers: u64,
    /// From the last sign of life of the owner before to the moment at which this node last took
    /// over; `None` if it did not, or from nobody.
    pub last_failover_ms: Option<f64>,
    /// Times that somebody who is no agent of the cluster claimed the VIP.
    pub conflicts: u64,
    /// Who did so last: his Ethernet address.
    pub claimant: Option<String>,
    /// This node's name.
    pub node: String,
    /// How the program is attached.
    pub xdp: Xdp,
    /// Settings of the kernel that the agent changed, and that `vip cleanup` sets back.
    #[serde(default)]
    pub settings: Vec<Setting>,
    /// Why the kernel speaks for the VIP on another NIC, or answers by one are wrong: what the
    /// agent cannot help.
    #[serde(default)]
    pub other_nics: Vec<String>,
    /// The nodes, in the order of the configuration.
    pub nodes: Vec<Node>,
    /// What became of frames for the VIP since the maps were made.
    pub counters: BTreeMap<String, u64>,
    /// Events since the agent started, by name.
    pub events: BTreeMap<String, u64>,
    /// What was put right in the kernel since the agent started, by name.
    pub repairs: BTreeMap<String, u64>,
}

/// A node, by name and address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

/// How the program is attached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Xdp {
    /// The NIC.
    pub interface: String,
    /// `native` or `generic`.
    pub mode: String,
    /// How the guard on the way out is attached: `tcx` or `clsact`.
    pub egress: String,
    /// Whether the program was seen to run on a frame.
    pub proven: bool,
    /// Whether the maps were taken over from an earlier agent.
    pub adopted: bool,
}

/// A setting of the kernel below `net.ipv4.conf`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The interface.
    pub interface: String,
    /// The setting: `arp_ignore`.
    pub name: String,
    /// What the agent set.
    pub value: u32,
    /// What was there before.
    pub before: u32,
}

/// A port of a VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Address and port.
    pub endpoint: String,
    /// The port on the nodes.
    pub target_port: u16,
    /// Names of the nodes that may have new connections, as far as their health goes.
    pub ready: Vec<String>,
}

/// A BFD session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bfd {
    /// `admin_down`, `down`, `init` or `up` (RFC 5880, section 6.2).
    pub state: String,
    /// How long the other node may be silent until it is taken for dead; 0 while unknown.
    pub detection_ms: f64,
    /// Round trip to the other node's agent, when last measured; `None` while it was not.
    pub round_trip_ms: Option<f64>,
}

/// A node and its API server, as this node sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Whether it is the node that was asked.
    pub own: bool,
    /// Its Ethernet address; `None` while nobody knows it.
    pub mac: Option<String>,
    /// The node answers.
    pub alive: bool,
    /// Its API server says it is ready, and it does not drain.
    pub ready: bool,
    /// Its operator wants no new connections to be brought to it.
    pub draining: bool,
    /// The BFD session with it; `None` for the node that was asked, and without BFD.
    pub bfd: Option<Bfd>,
    /// Why it is not, or how the last probe went.
    pub probe: String,
    /// Duration of the last probe that was answered.
    pub rtt_ms: Option<f64>,
    /// Frames that this node sent there, or kept if it is this node.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// New connections among them.
    pub connections: u64,
    /// Frames a second, over the last few seconds.
    pub packets_per_second: f64,
    /// New connections a second, over the last few seconds.
    pub connections_per_second: f64,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "VIP      {}", self.vip)?;
        match &self.owner {
            Some(owner) => writeln!(f, "Owner    {} ({})", owner.name, owner.address)?,
            None => writeln!(f, "Owner    none heard")?,
        }
        write!(
            f,
            "Node     {}, {} for {}",
            self.node,
            self.state,
            seconds(self.state_for_ms)
        )?;
        writeln!(
            f,
            ", priority {}, {} takeovers",
            self.priority, self.takeovers
        )?;
        for fault in &self.faults {
            writeln!(f, "Fault    {fault}")?;
        }
        if let Some(claimant) = &self.claimant {
            writeln!(
                f,
                "Conflict {claimant} claims the VIP, {} times so far",
                self.conflicts
            )?;
        }
        match self.fence_remaining_ms {
            0 => writeln!(f, "Fence    down: this node does not answer for the VIP")?,
            left => writeln!(f, "Fence    up, {left} ms left")?,
        }
        writeln!(
            f,
            "XDP      {} on {}{}, egress guard by {}",
            self.xdp.mode,
            self.xdp.interface,
            if self.xdp.proven {
                ""
            } else {
                " (not yet seen to run)"
            },
            self.xdp.egress,
        )?;
        self.write_settings(f)?;
        match &self.local {
            Some(cgroup) => writeln!(f, "Local    redirected, for processes in {cgroup}")?,
            None => writeln!(f, "Local    not redirected")?,
        }
        if self.services.len() > 1 {
            for service in &self.services {
                writeln!(
                    f,
                    "Service  {} to port {}: {}",
                    service.endpoint,
                    service.target_port,
                    if service.ready.is_empty() {
                        "no node is ready".to_owned()
                    } else {
                        service.ready.join(", ")
                    },
                )?;
            }
        }
        let widest = |text: fn(&Node) -> usize| self.nodes.iter().map(text).max().unwrap_or(0);
        let width = widest(|node| node.name.len()).max(4);
        let address = widest(|node| node.address.to_string().len()).max(7);
        writeln!(
            f,
            "\n{:width$}  {:address$}  {:17}  {:5}  {:5}  {:10}  {:>8}  {:>7}  PROBE",
            "NODE", "ADDRESS", "MAC", "ALIVE", "READY", "BFD", "PACKET/S", "CONN/S",
        )?;
        for node in &self.nodes {
            writeln!(
                f,
                "{:width$}  {:address$}  {:17}  {:5}  {:5}  {:10}  {:>8.0}  {:>7.1}  {}",
                node.name,
                node.address.to_string(),
                node.mac.as_deref().unwrap_or("unknown"),
                yes(node.alive),
                if node.draining {
                    "drain"
                } else {
                    yes(node.ready)
                },
                node.bfd.as_ref().map_or("-", |bfd| bfd.state.as_str()),
                node.packets_per_second,
                node.connections_per_second,
                node.probe,
            )?;
        }
        let counted: Vec<_> = self
            .counters
            .iter()
            .filter(|(_, count)| **count > 0)
            .collect();
        if !counted.is_empty() {
            writeln!(f, "\nFRAMES FOR THE VIP")?;
            for (name, count) in counted {
                writeln!(f, "{name:18} {count:>12}")?;
            }
        }
        Ok(())
    }
}

impl Status {
    fn write_settings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut interfaces: BTreeMap<(&str, u32), Vec<String>> = BTreeMap::new();
        for setting in &self.settings {
            let key = (setting.name.as_str(), setting.value);
            let names = interfaces.entry(key).or_default();
            names.push(setting.interface.clone());
        }
        for ((name, value), interfaces) in interfaces {
            writeln!(f, "Kernel   {name}={value} on {}", some(&interfaces))?;
        }
        for cause in &self.other_nics {
            writeln!(f, "NICs     {cause}")?;
        }
        Ok(())
    }
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn seconds(millis: u64) -> String {
    match millis / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
