//! What lies in the BPF maps: the contract between the agent, which writes it, and the
//! XDP and tcx programs, which read it.
//!
//! Everything is plain old data (`#[repr(C)]`, no padding that is not named), so that both
//! sides see the same bytes. A change of any type here is a new [`LAYOUT_VERSION`]: an agent
//! that finds pinned maps of another version must not write to them.

mod backends;
pub mod bench;
mod clients;
mod counters;
mod limits;
pub(crate) mod lookup;
pub mod maps;
mod service;
mod state;

pub use self::backends::*;
pub use self::clients::*;
pub use self::counters::*;
pub use self::limits::*;
pub use self::service::*;
pub use self::state::*;

#[cfg(test)]
mod tests;
