//! What a decision may ask of the node it runs on: its tables, its clock, its sockets.
//!
//! In the kernel these are BPF maps and helpers, on the host plain values.

use crate::hash::Flow;
use crate::layout::{Backend, Be32, Config, MAX_BACKENDS, MAX_VIPS, Mac, Masks, RankRow, Vip};

/// The tables, as the agent wrote them.
pub trait Tables {
    /// The one [`Config`]. `None` until it exists, and then nothing is for us.
    fn config(&self) -> Option<&Config>;
    /// A VIP, by its place.
    fn vip(&self, index: u32) -> Option<&Vip>;
    /// A backend, by its place.
    fn backend(&self, index: u32) -> Option<&Backend>;
    /// Who is alive, who is ready.
    fn masks(&self) -> Masks;
    /// A row of the rank table, both halves counted through.
    fn row(&self, index: u32) -> Option<&RankRow>;
    /// Whether this node may answer for the VIP now: its fence ends after the present.
    fn fence_holds(&self, vip: u32) -> bool;
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
    /// A connection: established, being established (request), or just ended (time-wait).
    Connection,
}

/// The node's own sockets.
pub trait Sockets {
    /// Looks the flow up. `cookie`: the segment may acknowledge a SYN cookie; only then is
    /// [`Socket::Cookie`] looked for. `tcp` is the offset of the
    /// TCP header in the frame, in bytes.
    fn lookup(&self, flow: &Flow, cookie: bool, tcp: usize) -> Socket;
}

/// What [`find_vip`] finds for any other address. (Not an `Option`, for the reason given at
/// [`Verdict`](crate::steer::Verdict).)
pub(crate) const NO_VIP: u32 = u32::MAX;

/// The place of the VIP with this address, or [`NO_VIP`].
#[inline(always)]
pub(crate) fn find_vip<T: Tables>(tables: &T, config: &Config, address: Be32) -> u32 {
    // The verifier wants to see an end. (The least of both, not two conditions: those LLVM
    // unrolls sixteen times.)
    let count = config.vip_count.min(MAX_VIPS as u32);
    let mut index = 0;
    while index < count {
        match tables.vip(index) {
            Some(vip) if vip.address == address => return index,
            Some(_) => index += 1,
            None => return NO_VIP,
        }
    }
    NO_VIP
}

/// The VIP with this address: as [`find_vip`], without a second look at the table.
#[inline(always)]
pub(crate) fn get_vip<'t, T: Tables>(
    tables: &'t T,
    config: &Config,
    address: Be32,
) -> Option<&'t Vip> {
    let count = config.vip_count.min(MAX_VIPS as u32);
    let mut index = 0;
    while index < count {
        let vip = tables.vip(index)?;
        if vip.address == address {
            return Some(vip);
        }
        index += 1;
    }
    None
}

/// Whether the Ethernet address is that of another node of the cluster.
#[inline(always)]
pub(crate) fn is_peer<T: Tables>(tables: &T, config: &Config, mac: Mac) -> bool {
    // Nearly all frames come from clients and routers, and the filter tells most of them apart
    // without a look at the backends.
    config.peers.may_hold(mac) && is_listed(tables, config, mac)
}

#[inline(always)]
fn is_listed<T: Tables>(tables: &T, config: &Config, mac: Mac) -> bool {
    let count = config.backend_count.min(MAX_BACKENDS as u32);
    let mut index = 0;
    while index < count {
        match tables.backend(index) {
            Some(backend) if backend.mac == mac => {
                return index != config.own_index && !mac.is_unknown();
            }
            Some(_) => index += 1,
            None => return false,
        }
    }
    false
}
