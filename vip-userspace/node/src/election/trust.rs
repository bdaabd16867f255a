//! Which advertisements are believed.
//!
//! A plain advertisement proves nothing: any host of the segment can send one. One that was sealed
//! with the cluster's key was made by a member, but it may be an old one that somebody recorded. So it
//! carries the run of its sender's agent and a number. It counts only if a hello of that run was
//! believed, which an old one never is, and if the number is higher than the last.

use thiserror::Error;

use crate::hello::Instance;

/// How an advertisement came that was sealed with the cluster's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// The run of the agent that sent it.
    pub instance: Instance,
    /// That run numbers what it sends, whoever the receivers are: each advertisement has a higher
    /// number than those before it. The first one is 1.
    pub number: u64,
}

/// Which advertisements are believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Trust {
    /// Plain VRRP alone: there is no key.
    #[default]
    Plain,
    /// Those alone that are sealed with the cluster's key.
    Sealed,
    /// Both: with a key, and beside other implementations of VRRP.
    Both,
}

/// Why an advertisement of a member was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Refused {
    /// It is plain VRRP, which is not believed.
    #[error("VRRP packet that is not sealed")]
    Plain,
    /// It is sealed, and only plain VRRP is believed.
    #[error("sealed advertisement, and this node has no key")]
    Sealed,
    /// No hello of that run of its sender's agent was believed: the run is over, or has just begun.
    #[error("advertisement of a run of the agent whose hello was not heard")]
    Instance,
    /// Its number is not higher than that of the last one: it came twice, or late, or somebody has
    /// recorded it.
    #[error("advertisement that is not newer than the last one")]
    Number,
}

impl Refused {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Sealed, Self::Instance, Self::Number];

    /// The name in status and metrics, in `snake_case`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Sealed => "sealed",
            Self::Instance => "instance",
            Self::Number => "number",
        }
    }
}
