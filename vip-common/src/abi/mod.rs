//! The types of the BPF maps: the contract between the agent and the programs.
//!
//! Everything is plain old data (`#[repr(C)]`, all padding is a named field), so that both sides
//! see the same bytes. Words are in host byte order, except `Be16`, `Be32` and `Be128`. A change of
//! any type here needs a new [`LAYOUT_VERSION`]: an agent that finds pinned maps of another version
//! must not write to them.

mod allow;
mod backends;
pub mod bench;
mod clients;
mod counters;
mod limits;
pub(crate) mod lookup;
pub mod maps;
mod service;
mod state;

pub use self::allow::*;
pub use self::backends::*;
pub use self::clients::*;
pub use self::counters::*;
pub use self::limits::*;
pub use self::service::*;
pub use self::state::*;

#[cfg(test)]
mod tests;
