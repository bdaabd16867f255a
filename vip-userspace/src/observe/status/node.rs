//! The state of a node, and the reason.

use vip_node::PeerState;
use vip_node::health::Server;

use super::{Node, NodeState};

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
            // Its agent is heard, so it is not down.
            Some(PeerState::Up) if !self.alive => NodeState::Joining,
            _ if !self.confirmed => NodeState::Joining,
            _ if !self.alive => NodeState::Down,
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
