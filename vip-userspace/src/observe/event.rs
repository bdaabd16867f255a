//! What changed: one enum, from which log line, entry in the journal and metric come.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use vip_node::alarm::Kind;
use vip_node::choice::Resort;

/// Something that changed. Nodes are called by their names.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The agent has put everything in place.
    Started {
        /// Its version.
        version: &'static str,
        /// Where the programs are, and how: `eth0, native XDP`.
        attached: String,
        /// The maps of an earlier agent were taken over.
        adopted: bool,
    },
    /// The agent ends.
    Stopped,
    /// This node became the owner of the VIP.
    BecameOwner {
        /// Why.
        cause: String,
        /// How long the VIP may have gone without an answer; `None` if that is not known.
        after: Option<Duration>,
    },
    /// This node is a backup.
    BecameBackup {
        /// Why.
        cause: String,
    },
    /// Another owner is heard, or none.
    Owner {
        /// Its name.
        node: Option<String>,
        /// Why not the one before.
        cause: Option<String>,
    },
    /// A BFD session came up.
    BfdUp {
        /// With which node.
        node: String,
    },
    /// A BFD session went down.
    BfdDown {
        /// With which node.
        node: String,
        /// BFD's diagnostic in words.
        cause: &'static str,
    },
    /// A node answers nothing at all.
    NodeDead {
        /// Which.
        node: String,
    },
    /// A node that was dead answers.
    NodeAnswers {
        /// Which.
        node: String,
    },
    /// A server says that it is ready.
    ServerReady {
        /// On which node.
        node: String,
        /// TCP port that is probed.
        port: u16,
    },
    /// A server is not ready any more.
    ServerNotReady {
        /// On which node.
        node: String,
        /// TCP port that is probed.
        port: u16,
        /// What the probe found.
        cause: String,
    },
    /// A server serves, and whether it is ready is not known.
    ServerUnknown {
        /// On which node.
        node: String,
        /// TCP port that is probed.
        port: u16,
        /// What the probe found.
        cause: String,
    },
    /// New connections go to other nodes than before for want of better ones, or to the best
    /// again.
    NewConnections {
        /// TCP port that is probed.
        port: u16,
        /// Which nodes these are.
        resort: Resort,
    },
    /// The credentials for health checks were read, anew if there were some before.
    CredentialsRead,
    /// They could not be read.
    CredentialsUnread {
        /// Which file, why, and what is used instead.
        cause: String,
    },
    /// A node that lives answers no ICMP echo requests.
    EchoLost {
        /// Which.
        node: String,
    },
    /// It answers them.
    EchoBack {
        /// Which.
        node: String,
    },
    /// A node's probes are answered.
    ProbesAnswered {
        /// Which.
        node: String,
    },
    /// A node's probes get no answer at all.
    ProbesUnanswered {
        /// Which.
        node: String,
        /// What the last one met.
        cause: String,
    },
    /// A node takes no new connections any more.
    Drained {
        /// Which.
        node: String,
    },
    /// A node takes new connections again.
    Undrained {
        /// Which.
        node: String,
    },
    /// This node lacks something it must have to own the VIP.
    Fault {
        /// What.
        cause: &'static str,
    },
    /// It has that (again).
    FaultGone {
        /// What.
        cause: &'static str,
    },
    /// Somebody who is no agent of the cluster claims the VIP.
    Conflict {
        /// Who claims it, and that it does.
        claim: String,
        /// The node that has it, if one does.
        node: Option<String>,
        /// The VIP was announced against it.
        defended: bool,
    },
    /// Whoever claimed the VIP does so no more.
    ConflictOver {
        /// Its Ethernet address.
        claimant: String,
        /// The node that has it, if one does.
        node: Option<String>,
    },
    /// Something is wrong on the segment.
    Alarm {
        /// What.
        kind: Kind,
        /// The same for people, and what to do.
        text: String,
    },
    /// It is not any more.
    AlarmOver {
        /// What it was.
        kind: Kind,
        /// Whom it was about.
        about: String,
    },
    /// The VIP is being handed over.
    HandingOver {
        /// To which node.
        to: String,
    },
    /// Another node has taken over.
    HandedOver {
        /// Which.
        to: String,
    },
    /// The VIP stays where it is.
    NotHandedOver {
        /// Why.
        cause: String,
    },
    /// This node's VRRP priority changed with its health.
    Priority(u8),
    /// The NIC has another name.
    NicRenamed {
        /// The old one and the new one.
        from: String,
        /// The new one.
        to: String,
    },
    /// The NIC has another Ethernet address.
    NicAddress {
        /// The new one.
        mac: String,
    },
    /// The node's address is on another NIC now, and the agent with it.
    NicFollowed {
        /// The old one.
        from: String,
        /// The new one, and how the program runs there.
        to: String,
    },
    /// The node's address is on no NIC that the agent may follow it to.
    NotFollowed {
        /// Why not.
        cause: String,
    },
    /// A program was put before those of somebody else.
    HookMoved {
        /// Which.
        hook: &'static str,
        /// What stood before it.
        before: String,
    },
    /// Somebody else's program comes back before ours again and again, and is left there.
    HookContested {
        /// Where.
        hook: &'static str,
        /// What stands before ours.
        by: String,
    },
    /// A program was seen to run.
    HookRuns {
        /// Which.
        hook: &'static str,
    },
    /// A program is attached and is not seen to run.
    HookFails {
        /// Which.
        hook: &'static str,
        /// What is in its way.
        cause: String,
    },
    /// Something in the kernel was not as it should be, and is now.
    Repaired(Repair),
    /// It could not be made so.
    NotRepaired {
        /// What.
        what: Repair,
        /// What the kernel says.
        cause: String,
    },
    /// Another program of this node is bound to BFD's port, too, or none is any more.
    BfdPort {
        /// Whether one is.
        shared: bool,
    },
    /// An address that an agent put on `lo` is no VIP any more, and was taken off.
    AddressLeft {
        /// The address.
        address: IpAddr,
    },
    /// A VIP was on `lo` before an agent put it there.
    AddressTheirs {
        /// The VIP.
        address: IpAddr,
    },
    /// A VIP came to be on this node, and connections to it that went by the network ended.
    Stranded {
        /// The VIP.
        address: IpAddr,
        /// How many, of the node and of its pods.
        ended: usize,
    },
    /// The kernel, or another host, speaks for the VIP by a NIC that is not the VIP's, or answers
    /// by it are wrong.
    OtherNics {
        /// Which, why, and what to do.
        cause: String,
    },
    /// The driver has the program and does not run it.
    XdpBlind {
        /// Whether generic XDP takes its place.
        falls_back: bool,
    },
    /// A signal came that has no meaning to the agent.
    SignalIgnored {
        /// Its name.
        signal: &'static str,
    },
    /// The agent cannot do something, and goes on without.
    Failed {
        /// What.
        what: Cow<'static, str>,
        /// Why.
        cause: String,
    },
}

/// What is put right when it is not as it should be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Repair {
    /// Health, addresses and leases in the map.
    State,
    /// The rank table or the allow lists.
    Tables,
    /// The programs on the NIC.
    Programs,
    /// A VIP on `lo`.
    Address,
    /// The program that hands the agent its BFD packets.
    BfdPort,
    /// The programs for local sockets.
    Connect,
}

impl Repair {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::State,
        Self::Tables,
        Self::Programs,
        Self::Address,
        Self::BfdPort,
        Self::Connect,
    ];

    /// As metrics call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Tables => "tables",
            Self::Programs => "programs",
            Self::Address => "address",
            Self::BfdPort => "bfd_port",
            Self::Connect => "connect",
        }
    }
}

/// How much somebody should care.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Info,
    /// Something does not work, and is dealt with.
    Warning,
    /// Something does not work, and somebody must deal with it.
    Error,
}

/// An event as it is kept, printed and sent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Counts up by one, over restarts of the agent too.
    pub sequence: u64,
    /// By the machine's clock, in UTC.
    pub time: Timestamp,
    /// How much somebody should care.
    pub severity: Severity,
    /// What it is, for programs: `became_owner`.
    pub event: Cow<'static, str>,
    /// What it is, for people: `became the owner`.
    pub message: Cow<'static, str>,
    /// Which node it is about, if not the one that says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
}

impl Event {
    /// What of the kernel's state was put right by it, if anything was.
    #[must_use]
    pub const fn repair(&self) -> Option<Repair> {
        match self {
            Self::Repaired(what) => Some(*what),
            Self::HookMoved { .. } => Some(Repair::Programs),
            _ => None,
        }
    }

    /// What it is called, for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Stopped => "stopped",
            Self::BecameOwner { .. } => "became_owner",
            Self::BecameBackup { .. } => "became_backup",
            Self::Owner { .. } => "owner",
            Self::BfdUp { .. } => "bfd_up",
            Self::BfdDown { .. } => "bfd_down",
            Self::NodeDead { .. } => "node_dead",
            Self::NodeAnswers { .. } => "node_answers",
            Self::ServerReady { .. } => "server_ready",
            Self::ServerNotReady { .. } => "server_not_ready",
            Self::ServerUnknown { .. } => "server_unknown",
            Self::NewConnections { .. } => "new_connections",
            Self::CredentialsRead => "credentials_read",
            Self::CredentialsUnread { .. } => "credentials_unread",
            Self::EchoLost { .. } => "echo_lost",
            Self::EchoBack { .. } => "echo_back",
            Self::ProbesAnswered { .. } => "probes_answered",
            Self::ProbesUnanswered { .. } => "probes_unanswered",
            Self::Drained { .. } => "drained",
            Self::Undrained { .. } => "undrained",
            Self::Fault { .. } => "fault",
            Self::FaultGone { .. } => "fault_gone",
            Self::Conflict { .. } => "conflict",
            Self::ConflictOver { .. } => "conflict_over",
            Self::Alarm { .. } => "alarm",
            Self::AlarmOver { .. } => "alarm_over",
            Self::HandingOver { .. } => "handing_over",
            Self::HandedOver { .. } => "handed_over",
            Self::NotHandedOver { .. } => "not_handed_over",
            Self::Priority(_) => "priority",
            Self::NicRenamed { .. } => "nic_renamed",
            Self::NicAddress { .. } => "nic_address",
            Self::Repaired(_) => "repaired",
            Self::NotRepaired { .. } => "not_repaired",
            Self::BfdPort { .. } => "bfd_port",
            Self::NicFollowed { .. } => "nic_followed",
            Self::NotFollowed { .. } => "not_followed",
            Self::HookMoved { .. } => "hook_moved",
            Self::HookContested { .. } => "hook_contested",
            Self::HookRuns { .. } => "hook_runs",
            Self::HookFails { .. } => "hook_fails",
            Self::AddressLeft { .. } => "address_left",
            Self::AddressTheirs { .. } => "address_theirs",
            Self::Stranded { .. } => "stranded",
            Self::OtherNics { .. } => "other_nics",
            Self::XdpBlind { .. } => "xdp_blind",
            Self::SignalIgnored { .. } => "signal_ignored",
            Self::Failed { .. } => "failed",
        }
    }

    /// How much somebody should care.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::BfdDown { .. }
            | Self::NodeDead { .. }
            | Self::ServerNotReady { .. }
            | Self::ProbesUnanswered { .. }
            | Self::CredentialsUnread { .. }
            | Self::EchoLost { .. }
            | Self::Fault { .. }
            | Self::Conflict { .. }
            | Self::NotHandedOver { .. }
            | Self::NicRenamed { .. }
            | Self::NicAddress { .. }
            | Self::NicFollowed { .. }
            | Self::HookMoved { .. }
            | Self::HookContested { .. }
            | Self::Repaired(_)
            | Self::AddressTheirs { .. }
            | Self::XdpBlind { falls_back: true }
            | Self::SignalIgnored { .. }
            | Self::Failed { .. } => Severity::Warning,
            Self::NotRepaired { .. }
            | Self::OtherNics { .. }
            | Self::NotFollowed { .. }
            | Self::HookFails { .. }
            | Self::XdpBlind { falls_back: false } => Severity::Error,
            Self::NewConnections { resort, .. } if !matches!(resort, Resort::Usable) => {
                Severity::Warning
            }
            // While nodes are installed one after the other, some run no agent; and most frames find
            // their connections whatever their source is.
            Self::Alarm {
                kind: Kind::NoAgent | Kind::SourceMacs,
                ..
            } => Severity::Warning,
            Self::Alarm { .. } => Severity::Error,
            _ => Severity::Info,
        }
    }

    /// As it is kept.
    #[must_use]
    pub fn record(self, sequence: u64, time: Timestamp) -> Record {
        let (event, severity) = (self.name(), self.severity());
        let said = self.say();
        Record {
            sequence,
            time,
            severity,
            event: Cow::Borrowed(event),
            message: said.message,
            node: said.node,
            cause: said.cause,
            duration_ms: said.duration.map(|time| time.as_secs_f64() * 1000.0),
        }
    }

    fn say(self) -> Said {
        let plain = |message: &'static str| Said::new(message);
        match self {
            Self::Started {
                version,
                attached,
                adopted,
            } => {
                let took = if adopted {
                    ", took over from an earlier agent"
                } else {
                    ""
                };
                Said::new(format!("agent {version} started on {attached}{took}"))
            }
            Self::Stopped => plain("agent stopped; programs and VIP stay until `vip cleanup`"),
            Self::BecameOwner { cause, after } => Said {
                duration: after,
                ..plain("became the owner").because(cause)
            },
            Self::BecameBackup { cause } => plain("became a backup").because(cause),
            Self::Owner { node, cause } => Said {
                message: Cow::Borrowed(if node.is_some() {
                    "is the owner"
                } else {
                    "no owner is heard"
                }),
                node,
                cause,
                duration: None,
            },
            Self::BfdUp { node } => plain("BFD session is up").with(node),
            Self::BfdDown { node, cause } => plain("BFD session is down").with(node).because(cause),
            Self::NodeDead { node } => plain("node is dead").with(node),
            Self::NodeAnswers { node } => plain("node answers again").with(node),
            Self::ServerReady { node, port } => {
                Said::new(format!("server at port {port} is ready")).with(node)
            }
            Self::ServerNotReady { node, port, cause } => {
                Said::new(format!("server at port {port} is not ready"))
                    .with(node)
                    .because(cause)
            }
            Self::ServerUnknown { node, port, cause } => Said::new(format!(
                "server at port {port} serves; whether it is ready is not known"
            ))
            .with(node)
            .because(cause),
            Self::NewConnections { port, resort } => {
                Said::new(format!("port {port}: {}", resort.text()))
            }
            Self::CredentialsRead => plain("credentials for health checks were read"),
            Self::CredentialsUnread { cause } => {
                plain("credentials for health checks cannot be read").because(cause)
            }
            Self::EchoLost { node } => plain(
                "ICMP echo requests are not answered, though the node lives: let them through \
                 between the nodes, so that a dead node is told from a silent agent",
            )
            .with(node),
            Self::EchoBack { node } => plain("ICMP echo requests are answered").with(node),
            Self::ProbesAnswered { node } => plain("probes are answered").with(node),
            Self::ProbesUnanswered { node, cause } => {
                plain("probes are not answered").with(node).because(cause)
            }
            Self::Drained { node } => plain("takes no new connections").with(node),
            Self::Undrained { node } => plain("takes new connections").with(node),
            Self::Fault { cause } => plain("this node cannot own the VIP").because(cause),
            Self::FaultGone { cause } => plain("fault is gone").because(cause),
            Self::Conflict {
                claim,
                node,
                defended,
            } => {
                let against = if defended {
                    ": announced against it"
                } else {
                    ""
                };
                Said {
                    node,
                    ..Said::new(format!("{claim}{against}"))
                }
            }
            Self::ConflictOver { claimant, node } => Said {
                node,
                ..Said::new(format!("{claimant} claims the VIP no more"))
            },
            Self::Alarm { text, .. } => Said::new(text),
            Self::AlarmOver { kind, about } => Said::new(match kind {
                Kind::Stranger => {
                    format!("{about}, which is not in `nodes`, is not heard any more")
                }
                Kind::Unheard => {
                    format!("nothing keeps {about} and this node from hearing each other any more")
                }
                Kind::NoAgent => format!("it is not so any more that {about} runs no agent"),
                Kind::OffLink => format!("{about} is reached directly"),
                Kind::TwoOwners => {
                    format!("{about} does not own the VIP beside this node any more")
                }
                Kind::SourceMacs => {
                    format!("the MACs that frames of {about} come from have settled")
                }
                Kind::Duplicate => {
                    format!("{about} does not have this node's own address any more")
                }
            }),
            Self::HandingOver { to } => plain("is to take the VIP over").with(to),
            Self::HandedOver { to } => plain("has taken the VIP over").with(to),
            Self::NotHandedOver { cause } => plain("the VIP was not handed over").because(cause),
            Self::Priority(priority) => Said::new(format!("priority is {priority}")),
            Self::NicRenamed { from, to } => {
                Said::new(format!("the NIC {from} is called {to} now"))
            }
            Self::NicAddress { mac } => Said::new(format!("the NIC has the address {mac} now")),
            Self::Repaired(what) => plain(match what {
                Repair::State => "the state in the kernel was not as it should be: repaired",
                Repair::Tables => "rank table or allow lists were not as they should be: repaired",
                Repair::Programs => "a program was not on the NIC: attached again",
                Repair::Address => "the VIP was not on lo: put there again",
                Repair::BfdPort => "the program for BFD's port was not attached: attached again",
                Repair::Connect => "the programs for local sockets did not run: attached again",
            }),
            Self::NotRepaired { what, cause } => plain(match what {
                Repair::State => "cannot write the state",
                Repair::Tables => "cannot write rank table or allow lists",
                Repair::Programs => "cannot attach the programs",
                Repair::Address => "cannot put the VIP on lo",
                Repair::BfdPort => "cannot attach the program for BFD's port",
                Repair::Connect => "cannot attach the programs for local sockets",
            })
            .because(cause),
            Self::BfdPort { shared } => plain(if shared {
                "another program has UDP port 3784 (BFD), too: each gets its own packets"
            } else {
                "no other program has UDP port 3784 (BFD) any more"
            }),
            Self::NicFollowed { from, to } => Said::new(format!(
                "the node's address moved from {from} to {to}: followed"
            )),
            Self::NotFollowed { cause } => {
                plain("the node's address is not where the agent may look for it").because(cause)
            }
            Self::HookMoved { hook, before } => {
                Said::new(format!("{hook}: program put before {before}"))
            }
            Self::HookContested { hook, by } => Said::new(format!(
                "{hook}: {by} comes back before our program again and again, and is left there: \
                 configure one of the two products to leave this hook"
            )),
            Self::HookRuns { hook } => Said::new(format!("{hook}: program runs")),
            Self::HookFails { hook, cause } => {
                Said::new(format!("{hook}: program is not seen to run")).because(cause)
            }
            Self::AddressLeft { address } => {
                Said::new(format!("{address} is no VIP any more: taken off lo"))
            }
            Self::AddressTheirs { address } => Said::new(format!(
                "{address} was on lo already, and no agent noted it: it will stay there when it \
                 is no VIP any more"
            )),
            Self::Stranded { address, ended } => Said::new(format!(
                "{address} is on this node now: {ended} connections that the node and its pods had \
                 to it by the network are told that they have ended"
            )),
            Self::OtherNics { cause } => plain("a NIC other than the VIP's").because(cause),
            Self::XdpBlind { falls_back } => plain(if falls_back {
                "the driver has the XDP program and does not run it: falling back to generic XDP"
            } else {
                "the driver has the XDP program and does not run it"
            }),
            Self::SignalIgnored { signal } => Said::new(format!(
                "{signal} ignored: there is no reload. To apply a changed configuration, restart \
                 the agent: it hands the VIP over"
            )),
            Self::Failed { what, cause } => Said {
                message: what,
                node: None,
                cause: Some(cause),
                duration: None,
            },
        }
    }
}

/// What an event says.
struct Said {
    message: Cow<'static, str>,
    node: Option<String>,
    cause: Option<String>,
    duration: Option<Duration>,
}

impl Said {
    fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            message: message.into(),
            node: None,
            cause: None,
            duration: None,
        }
    }

    fn with(self, node: String) -> Self {
        Self {
            node: Some(node),
            ..self
        }
    }

    fn because(self, cause: impl Into<String>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..self
        }
    }
}

impl Record {
    /// Writes it to the log: one line, fields instead of prose.
    pub fn log(&self) {
        // The levels of `tracing` are part of a call site.
        macro_rules! at {
            ($level:ident) => {
                tracing::$level!(
                    event = %self.event,
                    node = self.node.as_deref(),
                    cause = self.cause.as_deref(),
                    duration_ms = self.duration_ms,
                    "{}",
                    self.message
                )
            };
        }
        match self.severity {
            Severity::Info => at!(info),
            Severity::Warning => at!(warn),
            Severity::Error => at!(error),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{:.3}  {severity:7}  ", self.time)?;
        if let Some(node) = &self.node {
            write!(f, "{node}: ")?;
        }
        write!(f, "{}", self.message)?;
        if let Some(cause) = &self.cause {
            write!(f, ": {cause}")?;
        }
        if let Some(duration) = self.duration_ms {
            write!(f, " ({duration:.0} ms)")?;
        }
        Ok(())
    }
}
