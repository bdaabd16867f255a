//! The state of the agent, as `vip status` shows it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use vip_node::choice::Resort;
use vip_node::settings::some;

/// All of it, as the agent writes it to its socket. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Address and port of the API.
    pub vip: String,
    /// All that is served, that among it.
    pub services: Vec<Service>,
    /// What is wrong with the credentials for health checks; `None` if nothing is.
    #[serde(default)]
    pub credentials_trouble: Option<String>,
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
    pub answer_lease_remaining_ms: u64,
    /// Since when this node is in its state.
    pub state_for_ms: u64,
    /// Times that this node became the owner.
    pub takeovers: u64,
    /// From the last sign of life of the owner before to the moment at which this node last took
    /// over; `None` if it did not, or from nobody.
    pub last_failover_ms: Option<f64>,
    /// Changes of the addresses that frames of other nodes come from.
    #[serde(default)]
    pub source_mac_changes: u64,
    /// Times that somebody who is no agent of the cluster claimed the VIP.
    pub conflicts: u64,
    /// Who does so: its Ethernet address; `None` if nobody does any more.
    pub claimant: Option<String>,
    /// The same in words: whether it is a node of the cluster, and which.
    #[serde(default)]
    pub claim: Option<String>,
    /// What is wrong on the segment, which somebody must deal with.
    pub alarms: Vec<Alarm>,
    /// What this node says of itself if it hears no agent of another node, though servers there
    /// answer: it is not ready, then.
    pub hears_nobody: Option<String>,
    /// This node's name.
    pub node: String,
    /// How the program is attached.
    pub xdp: Xdp,
    /// How this node has BFD's port (UDP 3784): `sole`, `shared` with another program, `bound` (no
    /// other program can have it), or `lost`; `None` without BFD.
    #[serde(default)]
    pub bfd_port: Option<String>,
    /// Packets that the agent has read from its sockets since it started, by protocol: `bfd`,
    /// `vrrp`, `echo`, `neighbour` (ARP and Neighbour Discovery).
    #[serde(default)]
    pub received: BTreeMap<String, u64>,
    /// Whether each of the programs runs, as its effects show.
    pub hooks: Vec<Hook>,
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

/// Something that is wrong on the segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// What, for programs: `stranger`, `unheard`, `no_agent`, `off_link`, `two_owners`, `duplicate`.
    pub alarm: String,
    /// Whom it is about: the name of a node, or an address.
    pub about: String,
    /// What, for people.
    pub text: String,
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

/// A place in the kernel where a program must run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hook {
    /// `ingress`, `egress` (of the NIC), or `connect` (of local sockets).
    pub name: String,
    /// `yes`, `no`, or `unproven` as long as nothing shows it.
    pub runs: String,
    /// Others' programs that come before ours, the first one first.
    pub ahead: Vec<String>,
    /// Why it does not run, or may not.
    pub cause: Option<String>,
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
    /// Names of the nodes that new connections are brought to.
    pub usable: Vec<String>,
    /// Which nodes these are: `usable`, or for want of such `answering` (their servers say that
    /// they are not ready), `living`, `draining`.
    pub resort: String,
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
    /// Where else its frames come from, if from there and not only from its own address.
    #[serde(default)]
    pub source_mac: Option<String>,
    /// The node answers.
    pub alive: bool,
    /// Its API server says that it is ready.
    pub ready: bool,
    /// Its API server serves, and whether it is ready is not known.
    pub unknown: bool,
    /// Its operator wants no new connections to be brought to it.
    pub draining: bool,
    /// New connections to the API are brought to it.
    pub usable: bool,
    /// Whether it answers ICMP echo; `None` while that is not known, and for the node that was
    /// asked.
    pub echo: Option<bool>,
    /// The BFD session with it; `None` for the node that was asked, and without BFD.
    pub bfd: Option<Bfd>,
    /// Why it is not ready, or how the last probe went.
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

impl Node {
    /// Whether its server is ready, in a word: `yes`, `no` or `unknown`.
    #[must_use]
    pub const fn readiness(&self) -> &'static str {
        match (self.ready, self.unknown) {
            (true, _) => "yes",
            (false, true) => "unknown",
            (false, false) => "no",
        }
    }

    /// Whether new connections are brought to it, in a word: `yes`, `no`, `drain` if its operator
    /// wants none, `last` if it gets them all the same, as no other node lives.
    #[must_use]
    pub const fn takes_new(&self) -> &'static str {
        match (self.draining, self.usable) {
            (false, true) => "yes",
            (false, false) => "no",
            (true, false) => "drain",
            (true, true) => "last",
        }
    }
}

impl Service {
    /// Where new connections go, if it is for want of better nodes.
    fn warning(&self) -> Option<&'static str> {
        let resort = Resort::ALL.into_iter().find(|it| it.name() == self.resort);
        let resort = resort.filter(|resort| *resort != Resort::Usable)?;
        Some(resort.text())
    }
}

impl Status {
    /// What an operator should see to though the VIP works, one line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let services = self.services.iter().filter_map(|service| {
            let warning = service.warning()?;
            Some(format!("{}: {warning}", service.endpoint))
        });
        let mut warnings: Vec<String> = services.collect();
        warnings.extend(self.credentials_trouble.clone());
        let deaf = self.nodes.iter().filter(|node| node.echo == Some(false));
        let deaf: Vec<&str> = deaf.map(|node| node.name.as_str()).collect();
        if !deaf.is_empty() {
            warnings.push(format!(
                "no answer to ICMP echo from {}, though the node lives: let it through between \
                 the nodes",
                deaf.join(", ")
            ));
        }
        warnings
    }
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
        for warning in self.warnings() {
            writeln!(f, "Warning  {warning}")?;
        }
        if let Some(claim) = &self.claim {
            writeln!(f, "Conflict {claim}; {} claims so far", self.conflicts)?;
        }
        for alarm in &self.alarms {
            writeln!(f, "Alarm    {}", alarm.text)?;
        }
        match self.answer_lease_remaining_ms {
            0 => writeln!(f, "Lease    down: this node does not answer for the VIP")?,
            left => writeln!(f, "Lease    up, {left} ms left")?,
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
        if let Some(port) = &self.bfd_port {
            let how = match port.as_str() {
                "shared" => "shared with another program of this node",
                "bound" => "bound by the agent: no other BFD program can start on this node",
                "lost" => "cannot be opened: no peer's agent is heard",
                _ => "no other program has it",
            };
            writeln!(f, "BFD      UDP port 3784, {how}")?;
        }
        for hook in &self.hooks {
            let name = &hook.name;
            match &hook.cause {
                Some(cause) => writeln!(f, "Hook     {name}: {cause}")?,
                None if hook.ahead.is_empty() => {}
                None => writeln!(f, "Hook     {name}: runs, behind {}", hook.ahead.join(", "))?,
            }
        }
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
                    if service.usable.is_empty() {
                        "no node".to_owned()
                    } else {
                        service.usable.join(", ")
                    },
                )?;
            }
        }
        let widest = |text: fn(&Node) -> usize| self.nodes.iter().map(text).max().unwrap_or(0);
        let width = widest(|node| node.name.len()).max(4);
        let address = widest(|node| node.address.to_string().len()).max(7);
        writeln!(
            f,
            "\n{:width$}  {:address$}  {:17}  {:5}  {:7}  {:5}  {:10}  {:>8}  {:>7}  PROBE",
            "NODE", "ADDRESS", "MAC", "ALIVE", "READY", "NEW", "BFD", "PACKET/S", "CONN/S",
        )?;
        for node in &self.nodes {
            writeln!(
                f,
                "{:width$}  {:address$}  {:17}  {:5}  {:7}  {:5}  {:10}  {:>8.0}  {:>7.1}  {}",
                node.name,
                node.address.to_string(),
                node.mac.as_deref().unwrap_or("unknown"),
                yes(node.alive),
                node.readiness(),
                node.takes_new(),
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
