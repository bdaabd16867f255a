//! The status in words, for `vip status` and `vip top`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use vip_node::choice::Resort;
use vip_node::health::Server;
use vip_node::settings::some;

use super::{BfdPort, Node, Rosters, Service, Status, Xdp};
use crate::observe::event::Severity;
use crate::words::counted;

/// A word in the table of nodes, and how much somebody should care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// The word, of at most seven letters.
    pub text: &'static str,
    /// [`Severity::Info`] if all is as it should be.
    pub severity: Severity,
}

impl Word {
    const fn info(text: &'static str) -> Self {
        let severity = Severity::Info;
        Self { text, severity }
    }

    const fn warning(text: &'static str) -> Self {
        let severity = Severity::Warning;
        Self { text, severity }
    }

    const fn error(text: &'static str) -> Self {
        let severity = Severity::Error;
        Self { text, severity }
    }
}

impl Node {
    /// What is known of its API server.
    #[must_use]
    pub const fn server(&self) -> Server {
        match (self.ready, self.unknown) {
            (true, _) => Server::Ready,
            (false, true) => Server::Unknown,
            (false, false) => Server::Unready,
        }
    }

    /// Whether it answers.
    #[must_use]
    pub const fn is_alive(&self) -> Word {
        if self.alive {
            Word::info("yes")
        } else {
            Word::error("no")
        }
    }

    /// Whether its server is ready.
    #[must_use]
    pub const fn is_ready(&self) -> Word {
        match self.server() {
            Server::Ready => Word::info("yes"),
            Server::Unknown => Word::warning("unknown"),
            Server::Unready => Word::error("no"),
        }
    }

    /// Whether new connections are brought to it: `drain` if its operator wants none, `last` if it
    /// gets them all the same, as no other node lives, `joins` if not all members know it yet.
    #[must_use]
    pub const fn takes_new(&self) -> Word {
        match (self.draining, self.usable) {
            (false, true) => Word::info("yes"),
            (false, false) if !self.confirmed && self.alive => Word::warning("joins"),
            (false, false) => Word::error("no"),
            (true, false) => Word::warning("drain"),
            (true, true) => Word::warning("last"),
        }
    }
}

/// What an agent tells of itself, a word each; `-` is what is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Words<'a> {
    /// Its part in the election.
    pub state: &'static str,
    /// The owner that it believes in.
    pub owner: String,
    /// Its version.
    pub version: &'a str,
    /// How its program on the way in runs.
    pub mode: &'static str,
    /// Digest of its configuration.
    pub configuration: &'a str,
    /// Whether its operator has drained it.
    pub draining: &'static str,
    /// Connections to the VIPs that its servers have open.
    pub open_connections: String,
    /// What keeps it from owning the VIP; `-` also if nothing does.
    pub faults: String,
}

const UNKNOWN: &str = "-";

fn said(words: Option<String>) -> String {
    words.unwrap_or_else(|| UNKNOWN.to_owned())
}

impl BfdPort {
    /// For programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sole => "sole",
            Self::Shared => "shared",
            Self::Bound => "bound",
            Self::Lost => "lost",
        }
    }

    /// For people.
    const fn text(self) -> &'static str {
        match self {
            Self::Sole => "no other program has it",
            Self::Shared => "shared with another program of this node",
            Self::Bound => "bound by the agent: no other BFD program can start on this node",
            Self::Lost => "cannot be opened: no agent of another node is heard",
        }
    }
}

impl Rosters {
    /// For people.
    #[must_use]
    pub fn text(&self, nodes: &[Node]) -> String {
        let others = nodes.iter().filter(|node| !node.own);
        let others: u64 = others.map(|node| node.roster).sum();
        let mut text = format!(
            "{} of this node told to the others, {others} of theirs known",
            counted(self.own, "connection", "connections")
        );
        if self.untold != 0 {
            text += &format!("; {} are too many to be told", self.untold);
        }
        if self.asked != 0 {
            text += &format!("; of dead nodes, {} were told", self.answered);
        }
        text
    }
}

impl Status {
    /// What an operator should see to though the VIP works, one line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let services = self.services.iter();
        let mut warnings: Vec<String> = services
            .filter(|service| service.resort != Resort::Usable)
            .map(|service| format!("{}: {}", service.endpoint, service.resort.text()))
            .collect();
        warnings.extend(self.credentials_trouble.clone());
        let deaf = self.nodes.iter().filter(|node| node.echo == Some(false));
        let deaf: Vec<&str> = deaf.map(|node| node.name.as_str()).collect();
        if !deaf.is_empty() {
            warnings.push(format!(
                "no answer to ICMP echo requests from {}, though the node lives: allow them between \
                 the nodes",
                deaf.join(", ")
            ));
        }
        warnings
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_node(f)?;
        self.write_kernel(f)?;
        self.write_services(f)?;
        self.write_nodes(f)?;
        self.write_agents(f)?;
        self.write_counters(f)
    }
}

/// The label of a line of `vip status` and `vip top`.
pub struct Label(pub &'static str);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:14}", self.0)
    }
}

macro_rules! labelled {
    ($f:expr, $label:literal, $($text:tt)+) => {
        writeln!($f, "{}{}", Label($label), format_args!($($text)+))
    };
}

impl Status {
    /// For how long this node would go on answering for the VIP.
    #[must_use]
    pub fn answer_lease(&self) -> String {
        match self.answer_lease_remaining_ms {
            0 => "none: this node does not answer for the VIP".to_owned(),
            left => format!("{left} ms left"),
        }
    }

    /// The owner, this node's part, and all that is wrong.
    fn write_node(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        labelled!(f, "Cluster", "{}", self.verdict())?;
        labelled!(f, "VIP", "{}", self.vip)?;
        match &self.owner {
            Some(owner) => labelled!(f, "Owner", "{} ({})", owner.name, owner.address)?,
            None => labelled!(f, "Owner", "none heard")?,
        }
        labelled!(
            f,
            "Node",
            "{}, {} for {}, priority {}, {}",
            self.node,
            self.state.name(),
            seconds(self.state_for_ms),
            self.priority,
            counted(self.takeovers, "takeover", "takeovers")
        )?;
        for fault in &self.faults {
            labelled!(f, "Fault", "{fault}")?;
        }
        for warning in self.warnings() {
            labelled!(f, "Warning", "{warning}")?;
        }
        if let Some(claim) = &self.claim {
            let claims = counted(self.conflicts, "claim", "claims");
            labelled!(f, "Conflict", "{claim}; {claims} so far")?;
        }
        for alarm in &self.alarms {
            labelled!(f, "Alarm", "{}", alarm.text)?;
        }
        labelled!(f, "Answer lease", "{}", self.answer_lease())
    }

    /// Programs, sockets and settings.
    fn write_kernel(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Xdp {
            interface,
            mode,
            egress,
            proven,
            ..
        } = &self.xdp;
        let proof = if *proven {
            ""
        } else {
            " (not yet seen to run)"
        };
        labelled!(
            f,
            "XDP",
            "{mode} on {interface}{proof}, egress program by {egress}"
        )?;
        if let Some(membership) = &self.membership {
            let sealed = match &membership.key {
                Some(key) => format!("sealed with key {key}"),
                None => "not sealed".to_owned(),
            };
            labelled!(
                f,
                "Members",
                "{}; hellos by UDP port {}, {sealed}",
                membership.admission.text(),
                membership.port
            )?;
        }
        if let Some(rosters) = &self.rosters {
            labelled!(f, "Clients", "{}", rosters.text(&self.nodes))?;
        }
        if let Some(port) = self.bfd_port {
            labelled!(f, "BFD", "UDP port 3784, {}", port.text())?;
        }
        for hook in &self.hooks {
            let name = hook.name.name();
            match &hook.cause {
                Some(cause) => labelled!(f, "Hook", "{name}: {cause}")?,
                None if hook.ahead.is_empty() => {}
                None => labelled!(f, "Hook", "{name}: runs, behind {}", hook.ahead.join(", "))?,
            }
        }
        let mut interfaces: BTreeMap<(&str, u32), Vec<String>> = BTreeMap::new();
        for setting in &self.settings {
            let key = (setting.name.name(), setting.value);
            let names = interfaces.entry(key).or_default();
            names.push(setting.interface.clone());
        }
        for ((name, value), interfaces) in interfaces {
            labelled!(f, "Kernel", "{name}={value} on {}", some(&interfaces))?;
        }
        for cause in &self.other_nics {
            labelled!(f, "NICs", "{cause}")?;
        }
        match &self.local {
            Some(cgroup) => labelled!(f, "Local", "redirected, for processes in {cgroup}"),
            None => labelled!(f, "Local", "not redirected"),
        }
    }

    fn write_services(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for service in self.services.iter().filter(|_| self.services.len() > 1) {
            let usable = if service.usable.is_empty() {
                "no node".to_owned()
            } else {
                service.usable.join(", ")
            };
            let Service {
                endpoint,
                target_port,
                ..
            } = service;
            labelled!(f, "Service", "{endpoint} to port {target_port}: {usable}")?;
        }
        Ok(())
    }

    fn write_nodes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
                node.is_alive().text,
                node.is_ready().text,
                node.takes_new().text,
                node.bfd.as_ref().map_or("-", |bfd| bfd.state.name()),
                node.packets_per_second,
                node.connections_per_second,
                node.probe,
            )?;
        }
        Ok(())
    }

    /// What the agents of all nodes tell of themselves.
    fn write_agents(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.nodes.iter().map(|node| node.name.len()).max();
        let width = width.unwrap_or(0).max(5);
        writeln!(
            f,
            "\n{:width$}  {:10}  {:width$}  {:8}  {:7}  {:6}  {:6}  {:>6}  FAULTS",
            "AGENT", "STATE", "OWNER", "VERSION", "XDP", "CONFIG", "DRAINS", "OPEN"
        )?;
        for node in &self.nodes {
            let Words {
                state,
                owner,
                version,
                mode,
                configuration,
                draining,
                open_connections,
                faults,
            } = self.words(node);
            writeln!(
                f,
                "{:width$}  {state:10}  {owner:width$}  {version:8}  {mode:7}  {configuration:6}  \
                 {draining:6}  {open_connections:>6}  {faults}",
                node.name
            )?;
        }
        Ok(())
    }

    /// What a node's agent tells of itself.
    #[must_use]
    pub fn words<'a>(&'a self, node: &'a Node) -> Words<'a> {
        let told = node.told.as_ref();
        let name = |address: IpAddr| {
            let node = self.nodes.iter().find(|node| node.address == address);
            node.map_or_else(|| address.to_string(), |node| node.name.clone())
        };
        let drains = |drains| if drains { "yes" } else { "no" };
        let faults = told.map(|told| told.faults.iter().map(|fault| fault.name()));
        let faults: Vec<&str> = faults.into_iter().flatten().collect();
        let faults = (!faults.is_empty()).then(|| faults.join(", "));
        let open = told.and_then(|told| told.open_connections);
        Words {
            state: told
                .and_then(|told| told.state)
                .map_or(UNKNOWN, |state| state.name()),
            owner: said(told.and_then(|told| told.owner).map(name)),
            version: told
                .and_then(|told| told.version.as_deref())
                .unwrap_or(UNKNOWN),
            mode: told
                .and_then(|told| told.mode)
                .map_or(UNKNOWN, |mode| mode.name()),
            configuration: told
                .and_then(|told| told.configuration.as_deref())
                .unwrap_or(UNKNOWN),
            draining: told.and_then(|told| told.draining).map_or(UNKNOWN, drains),
            open_connections: said(open.map(|open| open.to_string())),
            faults: said(faults),
        }
    }

    fn write_counters(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counted = self
            .counters
            .iter()
            .filter(|(_, count)| **count > 0)
            .peekable();
        if counted.peek().is_some() {
            writeln!(f, "\nFRAMES FOR THE VIP")?;
        }
        for (name, count) in counted {
            writeln!(f, "{name:18} {count:>12}")?;
        }
        Ok(())
    }
}

fn seconds(millis: u64) -> String {
    match millis / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
