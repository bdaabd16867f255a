//! What a decision may ask of the node it runs on: its tables, its clock, its sockets.
//!
//! In the kernel these are BPF maps and helpers, on the host plain values.

use crate::hash::Flow;
use crate::layout::{Be32, BootNanos, MAX_BACKENDS, MAX_VIPS, Mac, RankRow, State, Vip};

/// The tables, as the agent wrote them, and the clock that their fences are read by.
pub trait Tables {
    /// All but the rank table.
    fn state(&self) -> &State;
    /// A row of the rank table, both halves counted through.
    fn row(&self, index: u32) -> Option<RankRow>;
    /// The time.
    fn now(&self) -> BootNanos;
}

/// What the node's TCP stack knows of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Socket {
    /// Nothing.
    None,
    /// Only a socket that listens on the address and port.
    Listener,
    /// A listener, and the segment acknowledges a SYN cookie that it gave out.
    Cookie,
    /// A connection: established, being established (request), or half closed.
    Connection,
    /// What is left of a connection that this node's side closed first (time-wait).
    TimeWait,
}

/// The node's own sockets.
pub trait Sockets {
    /// Looks the flow up. `cookie`: the segment may acknowledge a SYN cookie; only then is
    /// [`Socket::Cookie`] looked for. `tcp` is the offset of the
    /// TCP header in the frame, in bytes.
    fn lookup(&self, flow: &Flow, cookie: bool, tcp: usize) -> Socket;
    /// Whether a socket listens where the flow goes, whatever else there is for the flow.
    fn listens(&self, flow: &Flow) -> bool;
}

/// The VIP with this address.
#[inline(always)]
pub(crate) fn find_vip(state: &State, address: Be32) -> Option<&Vip> {
    // The verifier wants to see an end. (The least of both, not two conditions: those LLVM
    // unrolls sixteen times.)
    let count = (state.config.vip_count as usize).min(MAX_VIPS);
    let mut index = 0;
    while index < count {
        if state.vips[index].address == address {
            return Some(&state.vips[index]);
        }
        index += 1;
    }
    None
}

/// Whether the Ethernet address is that of another node of the cluster.
#[inline(always)]
pub(crate) fn is_peer(state: &State, mac: Mac) -> bool {
    // Nearly all frames come from clients and routers, and the filter tells most of them apart
    // without a look at the backends.
    state.config.peers.may_hold(mac) && is_listed(state, mac)
}

#[inline(always)]
fn is_listed(state: &State, mac: Mac) -> bool {
    let count = (state.config.backend_count as usize).min(MAX_BACKENDS);
    let mut index = 0;
    while index < count {
        if state.backends[index].mac == mac {
            return index as u32 != state.config.own_index && !mac.is_unknown();
        }
        index += 1;
    }
    false
}
