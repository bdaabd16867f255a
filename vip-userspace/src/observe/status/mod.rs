//! The state of the agent, as `vip status` shows it.

mod history;
mod lines;
mod names;
mod node;
mod node_state;
mod problem;
mod since;
mod table;
mod text;
mod verdict;
mod wide;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use vip_node::alarm::Kind;
use vip_node::bfd;
use vip_node::choice::Resort;
use vip_node::election::State;
use vip_node::hooks::{self, Running};
use vip_node::settings::Key;
use vip_node::{Fault, PeerState};

pub use self::history::{History, OwnerChange, Trouble};
pub use self::lines::{Line, joined, paragraph};
pub use self::names::shorten;
pub use self::node_state::NodeState;
pub use self::problem::{Health, Problem};
pub use self::since::{Since, age};
pub use self::table::{Column, Table};
use super::event::Repair;
use super::summary::Summary;
use crate::config::Admission;
use crate::datapath::{Egress, Mode};

/// All of it, as the agent writes it to its socket. Times are in milliseconds. What programs need
/// is a code, a number or a name; sentences are for people, and may change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `healthy`, `degraded` or `down`, and why: one line.
    #[serde(default)]
    pub verdict: String,
    /// What is wrong, the worst first.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// Version of the agent.
    pub version: String,
    /// When it said so, by this node's clock; `None` if its version does not tell.
    #[serde(default)]
    pub time: Option<Timestamp>,
    /// The commit that it was built from; `None` if that is not known.
    #[serde(default)]
    pub commit: Option<String>,
    /// Address and port of the API.
    pub vip: SocketAddr,
    /// All that is served, that among it.
    pub services: Vec<Service>,
    /// What is wrong with the credentials for health checks; `None` if nothing is.
    #[serde(default)]
    pub credentials_trouble: Option<String>,
    /// The cgroup whose processes' connections to the VIPs are redirected; `None` if none are.
    pub local: Option<String>,
    /// Who owns the VIP, as this node knows; `None` while nobody is heard.
    pub owner: Option<Peer>,
    /// Since when.
    #[serde(default)]
    pub owner_since: Since,
    /// This node's part.
    pub state: State,
    /// VRRP priority of this node.
    pub priority: u8,
    /// What keeps this node from owning the VIP, for people.
    pub faults: Vec<String>,
    /// The same for programs, in the same order.
    #[serde(default)]
    pub fault_codes: Vec<Fault>,
    /// For how much longer this node answers ARP for the VIP if the agent hangs now.
    #[serde(alias = "fence_remaining_ms")]
    pub answer_lease_remaining_ms: u64,
    /// Since when this node is in its state.
    pub state_for_ms: u64,
    /// Times that this node became the owner.
    pub takeovers: u64,
    /// From the last sign of life of a silent owner to the moment at which this node last took over
    /// from one; `None` if it did not. Planned moves do not count.
    pub last_failover_ms: Option<f64>,
    /// Changes of the addresses that frames of other nodes come from.
    #[serde(default)]
    pub source_mac_changes: u64,
    /// Times that somebody who is no agent of the cluster claimed the VIP.
    pub conflicts: u64,
    /// Who does so: its Ethernet address; `None` if nobody does any more.
    pub claimant: Option<String>,
    /// Who answers for the VIP beside the owner, in words: that claimant, or a node of the cluster.
    #[serde(default)]
    pub claim: Option<String>,
    /// It is a node whose agent may run and is not heard, so the claim is no conflict.
    #[serde(default)]
    pub claimant_unheard: bool,
    /// The last claim that was reported since the agent started, be it over or not.
    #[serde(default)]
    pub last_claim: Option<Claim>,
    /// What is wrong on the segment, which somebody must deal with.
    pub alarms: Vec<Alarm>,
    /// What this node says of itself if it hears no agent of another node, though servers there
    /// answer: it is not ready, then.
    pub hears_nobody: Option<String>,
    /// This node's name.
    pub node: String,
    /// How the program is attached.
    pub xdp: Xdp,
    /// How this node has BFD's port; `None` without BFD.
    #[serde(default)]
    pub bfd_port: Option<BfdPort>,
    /// Who may be a member, and what other agents send.
    #[serde(default)]
    pub membership: Option<Membership>,
    /// What the agents tell each other of connections, and the clients of nodes that are gone.
    #[serde(default)]
    pub rosters: Option<Rosters>,
    /// Packets that the agent has read from its sockets since it started, by protocol: `bfd`,
    /// `vrrp`, `echo`, `neighbour` (ARP and Neighbour Discovery).
    #[serde(default)]
    pub received: BTreeMap<String, u64>,
    /// Packets that it has sent, by protocol.
    #[serde(default)]
    pub sent: BTreeMap<String, u64>,
    /// Those that the kernel refused to send.
    #[serde(default)]
    pub unsent: BTreeMap<String, u64>,
    /// Packets that were received and refused.
    #[serde(default)]
    pub refused: Vec<Refused>,
    /// Whether each of the programs runs, as its effects show.
    pub hooks: Vec<Hook>,
    /// Settings of the kernel that the agent changed, and that `vip cleanup` sets back.
    #[serde(default)]
    pub settings: Vec<Setting>,
    /// Why the kernel speaks for the VIP on another NIC, or answers by one are wrong: what the
    /// agent cannot help.
    #[serde(default)]
    pub other_nics: Vec<String>,
    /// Connections in the longest accept queue of this node's servers.
    #[serde(default)]
    pub waiting_connections: u32,
    /// The nodes, in the order of their slots.
    pub nodes: Vec<Node>,
    /// What became of frames for the VIP since the maps were made.
    pub counters: BTreeMap<String, u64>,
    /// Events since the agent started, by name.
    pub events: BTreeMap<String, u64>,
    /// What was put right in the kernel since the agent started.
    pub repairs: BTreeMap<Repair, u64>,
    /// Changes of the owner, and troubles that came and went.
    #[serde(default)]
    pub history: History,
}

/// A claim of the VIP by a host that is no agent of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Its Ethernet address.
    pub claimant: String,
    /// How long ago it was reported.
    pub ago_ms: u64,
}

/// Something that is wrong on the segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// What, for programs.
    pub alarm: Kind,
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
    /// How the program on the way in is run.
    pub mode: Mode,
    /// How the egress program is run.
    pub egress: Egress,
    /// Whether the program was seen to run on a frame.
    pub proven: bool,
    /// Whether the maps were taken over from an earlier agent.
    pub adopted: bool,
}

/// Packets that were refused, for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// `bfd` or `vrrp`.
    pub protocol: String,
    /// The reason.
    pub reason: String,
    /// How many.
    pub packets: u64,
}

/// How agents become members, and what they have sent each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// Who may be one.
    pub admission: Admission,
    /// Fingerprint of the key that seals what agents send each other; `None` without one.
    pub key: Option<String>,
    /// UDP port of hellos.
    pub port: u16,
    /// The kernel refused to send the last hello to anybody.
    #[serde(default)]
    pub mute: bool,
    /// Datagrams with a hello that were sent.
    pub sent: u64,
    /// Those that were received and taken.
    pub received: u64,
    /// Those that were not, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// Rosters of connections since the agent started: who is connected to which node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rosters {
    /// Connections of this node that the other nodes are told of.
    pub own: u64,
    /// Those that are too many to be told.
    pub untold: u64,
    /// Scans of this node's connections.
    pub scans: u64,
    /// What they have taken.
    pub scan_seconds: f64,
    /// Messages to other agents.
    pub sent: u64,
    /// Messages of other agents, by what became of them.
    pub received: BTreeMap<String, u64>,
    /// Segments to clients of nodes that are gone, which ask them to answer.
    pub asked: u64,
    /// Those clients that have answered, at whichever node.
    pub answered: u64,
}

/// How a node has BFD's port, UDP 3784.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BfdPort {
    /// No other program has it, and one may.
    Sole,
    /// Another program has it, too.
    Shared,
    /// No other program can have it.
    Bound,
    /// It cannot be opened.
    Lost,
}

/// A place in the kernel where a program must run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hook {
    /// The place.
    pub name: hooks::Hook,
    /// Whether it runs.
    pub runs: Running,
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
    pub name: Key,
    /// What the agent set.
    pub value: u32,
    /// What was there before.
    pub before: u32,
}

/// A port of a VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Address and port.
    pub endpoint: SocketAddr,
    /// The port on the nodes.
    pub target_port: u16,
    /// Names of the nodes that new connections are brought to.
    pub usable: Vec<String>,
    /// Which nodes these are.
    pub resort: Resort,
    /// The networks that may use it; everybody if there are none.
    #[serde(default)]
    pub allow: Vec<String>,
}

/// A BFD session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bfd {
    /// RFC 5880, section 6.2.
    #[serde(with = "BfdState")]
    pub state: bfd::State,
    /// How long no packet may come until the other node is taken for dead; 0 while unknown.
    pub detection_ms: f64,
    /// Round trip to the other node's agent, when last measured; `None` while it was not.
    pub round_trip_ms: Option<f64>,
}

/// What JSON calls the states of a BFD session: their crate knows nothing of JSON.
#[derive(Serialize, Deserialize)]
#[serde(remote = "bfd::State", rename_all = "snake_case")]
enum BfdState {
    AdminDown,
    Down,
    Init,
    Up,
}

/// What a node's agent tells of itself. `None` is what it did not say: it is of another version, or has
/// not found out yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Version of the agent.
    pub version: Option<String>,
    /// Its part in the election.
    pub state: Option<State>,
    /// The address of the owner that it believes in.
    pub owner: Option<IpAddr>,
    /// How its program on the way in runs.
    pub mode: Option<Mode>,
    /// What keeps it from owning the VIP.
    pub faults: Vec<Fault>,
    /// Whether its operator has drained it.
    #[serde(default)]
    pub draining: Option<bool>,
    /// Connections to the VIPs that its servers have open.
    #[serde(default)]
    pub open_connections: Option<u32>,
    /// Whether a host that is no member claims the VIP, as it sees: the owner sees more than others.
    #[serde(default)]
    pub conflict: bool,
    /// Digest of what must be the same on all nodes in the configuration; see
    /// [`Summary::configuration`].
    #[serde(default)]
    pub configuration: Option<String>,
}

impl From<Summary> for Told {
    fn from(summary: Summary) -> Self {
        Self {
            configuration: summary.configuration(),
            version: Some(summary.version).filter(|version| !version.is_empty()),
            state: summary.state,
            owner: summary.owner,
            mode: summary.mode,
            faults: summary.faults,
            draining: summary.draining,
            open_connections: summary.connections,
            conflict: summary.conflict,
        }
    }
}

const fn yes() -> bool {
    true
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
    /// All in one word.
    #[serde(default)]
    pub state: NodeState,
    /// Since when.
    #[serde(default)]
    pub since: Since,
    /// Why it is not ready, or why it cannot own the VIP, for people; empty if nothing is wrong with it.
    #[serde(default)]
    pub reason: String,
    /// What this node knows of the other one's life; `None` for the node that was asked.
    #[serde(default)]
    pub liveness: Option<PeerState>,
    /// Neither its agent nor its kernel answers.
    #[serde(default)]
    pub silent: bool,
    /// Its server hangs.
    #[serde(default)]
    pub hung: bool,
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
    /// All living members know it: it may get new connections and own the VIP.
    #[serde(default = "yes")]
    pub confirmed: bool,
    /// Nobody has heard it for `reset_after`.
    #[serde(default)]
    pub gone: bool,
    /// What its agent tells of itself; `None` while it was not heard, and once it is
    /// gone.
    #[serde(default)]
    pub told: Option<Told>,
    /// Connections of its servers that the node that was asked knows of, to tell their clients if the
    /// node is gone.
    #[serde(default)]
    pub roster: u64,
    /// Why it is not ready, or how the last probe went.
    pub probe: String,
    /// Duration of the last probe that was answered.
    pub rtt_ms: Option<f64>,
    /// Until when its API server's certificate is valid, in seconds since 1970; `None` before its
    /// first TLS handshake with the node that was asked.
    #[serde(default)]
    pub certificate_not_after: Option<i64>,
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

#[cfg(test)]
pub(crate) mod tests;
