//! The state of a node in one word, what it means, and what to do.

use serde::{Deserialize, Serialize};

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
            Self::NoAgent => {
                "its kernel answers, its agent does not: connections to it go on, unless `vip \
                              cleanup` ran there"
            }
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
                "`vip status` there says what hangs; see the API server and etcd there, and restart the API \
                 server if it stays so"
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
