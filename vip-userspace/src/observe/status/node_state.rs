//! The state of a node in one word, and the reason.

use serde::{Deserialize, Serialize};
use vip_node::PeerState;
use vip_node::health::Server;

use super::Node;
use crate::observe::event::Severity;

/// The state of a node in one word, as the node that was asked sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Its server is ready, and takes new connections.
    Ready,
    /// Its server serves, and whether it is ready is not known.
    #[default]
    Unknown,
    /// Not all members know it yet.
    Joining,
    /// Its operator wants no new connections there.
    Drained,
    /// Its server says that it is not ready, or does not answer.
    NotReady,
    /// Its server accepts connections no more, or answers none.
    Hung,
    /// Its agent went silent a moment ago: its kernel is being asked.
    Suspect,
    /// Its kernel answers, and its agent does not.
    NoAgent,
    /// Nothing on it answers.
    Down,
    /// Nothing on it has answered for `reset_after`: its clients are told.
    Gone,
}

impl NodeState {
    /// All of them, the best first.
    pub const ALL: [Self; 10] = [
        Self::Ready,
        Self::Unknown,
        Self::Joining,
        Self::Drained,
        Self::NotReady,
        Self::Hung,
        Self::Suspect,
        Self::NoAgent,
        Self::Down,
        Self::Gone,
    ];

    /// For people: nine letters at most.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unknown => "unknown",
            Self::Joining => "joining",
            Self::Drained => "drained",
            Self::NotReady => "not ready",
            Self::Hung => "hung",
            Self::Suspect => "suspect",
            Self::NoAgent => "no agent",
            Self::Down => "down",
            Self::Gone => "gone",
        }
    }

    /// For programs, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::NoAgent => "no_agent",
            other => other.text(),
        }
    }

    /// How much somebody should care.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Ready => Severity::Info,
            Self::Unknown | Self::Joining | Self::Drained | Self::Suspect => Severity::Warning,
            Self::NotReady | Self::Hung | Self::NoAgent | Self::Down | Self::Gone => {
                Severity::Error
            }
        }
    }

    /// What follows for clients, in a few words.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Ready => "",
            Self::Unknown => "its server serves; whether it is ready is not known",
            Self::Joining => "not all members know it yet: it gets no new connections",
            Self::Drained => "takes no new connections, by `vip drain`",
            Self::NotReady => "its server is not ready",
            Self::Hung => "its server hangs",
            Self::Suspect => "its agent went silent a moment ago; its kernel is being asked",
            Self::NoAgent => "its kernel answers, its agent does not: connections to it go on",
            Self::Down => "nothing on it answers; its clients are not told yet",
            Self::Gone => "nothing on it answers; its clients are told (reset)",
        }
    }

    /// What to do, for people; empty if nothing is to be done.
    pub(super) const fn remedy(self) -> &'static str {
        match self {
            Self::Ready => "",
            Self::Unknown => "give the agent credentials for /readyz, if it wants them",
            Self::Joining => {
                "if it lasts: see on the other nodes whether `vip status` lists this node"
            }
            Self::Drained => "run `vip undrain` there when the work is done",
            Self::NotReady => "see the log of the API server there, and etcd",
            Self::Hung => {
                "see the API server and etcd there; restart the API server if it stays so"
            }
            Self::Suspect => "wait a second: it will be ready or down",
            Self::NoAgent => "start the agent there; `vip events` there says why it ended",
            Self::Down => "see power, cable and switch port of the node",
            Self::Gone => {
                "see power, cable and switch port; `vip forget` it if it does not come back"
            }
        }
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

    /// All in one word.
    #[must_use]
    pub const fn state(&self) -> NodeState {
        match self.liveness {
            _ if self.gone => NodeState::Gone,
            Some(PeerState::Gone) => NodeState::Gone,
            Some(PeerState::Away) if self.silent => NodeState::Down,
            Some(PeerState::Away | PeerState::Watched) => NodeState::NoAgent,
            Some(PeerState::Suspect) => NodeState::Suspect,
            _ if !self.alive => NodeState::Down,
            _ if !self.confirmed => NodeState::Joining,
            _ if self.draining => NodeState::Drained,
            _ if self.hung => NodeState::Hung,
            _ => match self.server() {
                Server::Ready => NodeState::Ready,
                Server::Unknown => NodeState::Unknown,
                Server::Unready => NodeState::NotReady,
            },
        }
    }

    /// Why it is in that state; empty if it is ready.
    #[must_use]
    pub fn cause(&self) -> String {
        let state = self.state();
        match state {
            NodeState::Ready => String::new(),
            NodeState::NotReady | NodeState::Unknown => self.probe.clone(),
            NodeState::Hung => {
                // The state says so.
                let hangs = self.probe.strip_prefix("hangs");
                let cause = hangs.and_then(|rest| rest.strip_prefix([':', ',']));
                cause
                    .map_or(self.probe.as_str(), str::trim_start)
                    .to_owned()
            }
            NodeState::Drained if self.usable => {
                "takes new connections, though it is drained, since no other node can".to_owned()
            }
            NodeState::Drained if !self.ready => format!("{}; {}", state.meaning(), self.probe),
            NodeState::NoAgent if self.liveness == Some(PeerState::Away) => {
                "its kernel answers, and its agent has not been heard since it was lost: it gets \
                 nothing"
                    .to_owned()
            }
            _ => state.meaning().to_owned(),
        }
    }

    /// The same, and what keeps it from owning the VIP.
    #[must_use]
    pub fn reason(&self) -> String {
        let lives = matches!(self.liveness, None | Some(PeerState::Up));
        let told = self.told.iter().filter(|_| lives);
        let faults = told.flat_map(|told| told.faults.iter());
        let faults: Vec<&str> = faults.map(|fault| fault.text()).collect();
        let faults = match faults.len() {
            0 => String::new(),
            _ => format!("cannot own the VIP: {}", faults.join(", ")),
        };
        let mut reasons = vec![self.cause(), faults];
        reasons.retain(|reason| !reason.is_empty());
        reasons.join("; ")
    }
}
