//! The failures and the profiles that `cargo xtask bench failover` takes.

use std::time::Duration;

use clap::ValueEnum;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(super) enum Scenario {
    /// The owner loses its power
    PowerCut,
    /// Another node loses its power
    OtherPowerCut,
    /// The API server of the owner is stopped for 5 s
    ServerHangs,
    /// The API server of another node is stopped for 5 s
    OtherServerHangs,
    /// `kill -9` of the owner's API server; requests that it had in hand do not count
    ServerKilled,
    /// The owner is asked to hand over (keepalived: SIGTERM)
    Handover,
    /// `kill -9` of the owner's agent (keepalived: of it)
    AgentKilled,
    /// `kill -9` of the owner's HAProxy; ours has nothing like it
    ProxyKilled,
    /// The owner's agent is stopped for 10 s
    AgentFrozen,
    /// Nothing happens: CPU time of the daemons
    Rest,
}

impl Scenario {
    /// Whether the node that fails is not the owner.
    pub(super) fn is_of_another_node(self) -> bool {
        matches!(self, Self::OtherPowerCut | Self::OtherServerHangs)
    }

    /// Whether no connection to the server of that node can go on.
    pub(super) fn stops_server(self) -> bool {
        match self {
            Self::PowerCut
            | Self::OtherPowerCut
            | Self::ServerHangs
            | Self::OtherServerHangs
            | Self::ServerKilled => true,
            Self::Handover
            | Self::AgentKilled
            | Self::ProxyKilled
            | Self::AgentFrozen
            | Self::Rest => false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Profile {
    Default,
    Fast,
    Guide,
    Tuned,
}

impl Profile {
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Default | Self::Fast)
    }

    /// Our agent's BFD interval; that of `default` is its own.
    pub(crate) fn bfd_interval(self) -> Duration {
        Duration::from_millis(if self == Self::Fast { 10 } else { 35 })
    }

    /// Our agent's `reset_after`; that of `default` is its own.
    pub(crate) fn reset_after(self) -> Duration {
        Duration::from_millis(if self == Self::Fast { 500 } else { 2000 })
    }
}

/// What a value is called on the command line and in the table.
pub(crate) fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}
