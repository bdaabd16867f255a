//! Searches in the [`State`], in loops whose bound the verifier sees.

use super::backends::BackendMask;
use super::limits::{MAX_BACKENDS, MAX_PORTS, MAX_VIPS};
use super::service::{Service, Vip};
use super::state::State;
use crate::wire::addr::{Be16, Be32, Be128, Mac};

/// The VIP with this IPv4 address.
#[inline(always)]
pub(crate) fn find_ipv4(state: &State, address: Be32) -> Option<&Vip> {
    let found = position(state.config.ipv4_count, |index| {
        state.ipv4[index] == address
    });
    found.map(|index| &state.vips[state.hide_from_verifier::<MAX_VIPS>(index)])
}

/// The VIP with this IPv6 address.
#[inline(always)]
pub(crate) fn find_ipv6(state: &State, address: Be128) -> Option<&Vip> {
    let found = position(state.config.ipv6_count, |index| {
        state.ipv6[index] == address
    });
    // Behind those of IPv4; the verifier does not know how many these are.
    found.map(|index| &state.vips[(state.config.ipv4_count as usize + index) & (MAX_VIPS - 1)])
}

/// The VIP with this address, of either family.
#[inline(always)]
pub(crate) fn find(state: &State, address: Be128) -> Option<&Vip> {
    match address.ipv4() {
        Some(address) => find_ipv4(state, address),
        None => find_ipv6(state, address),
    }
}

/// Whether one of these IPv4 addresses is a VIP. One search for both: the verifier would follow the
/// second once for each place where the first can end.
#[inline(always)]
pub(crate) fn is_any_ipv4(state: &State, addresses: [Be32; 2]) -> bool {
    let found = position(state.config.ipv4_count, |index| {
        let vip = state.ipv4[index];
        vip == addresses[0] || vip == addresses[1]
    });
    found.is_some()
}

/// The same for IPv6 addresses.
#[inline(always)]
pub(crate) fn is_any_ipv6(state: &State, addresses: [Be128; 3]) -> bool {
    let found = position(state.config.ipv6_count, |index| {
        let vip = state.ipv6[index];
        vip == addresses[0] || vip == addresses[1] || vip == addresses[2]
    });
    found.is_some()
}

/// The first of `count` indices that is `wanted`, below [`MAX_VIPS`].
#[inline(always)]
fn position(count: u32, wanted: impl Fn(usize) -> bool) -> Option<usize> {
    // The minimum is the bound that the verifier sees. LLVM would unroll a loop with two conditions
    // sixteen times.
    let count = (count as usize).min(MAX_VIPS);
    let mut index = 0;
    while index < count {
        if wanted(index) {
            return Some(index);
        }
        index += 1;
    }
    None
}

/// The first service of a VIP that is `wanted`.
#[inline(always)]
pub(crate) fn service<'v>(
    state: &State,
    vip: &'v Vip,
    wanted: impl Fn(&Service) -> bool,
) -> Option<&'v Service> {
    // Most VIPs have one.
    if wanted(&vip.services[0]) {
        return Some(&vip.services[0]);
    }
    let count = (vip.service_count as usize).min(MAX_PORTS);
    let mut index = 1;
    while index < count {
        if wanted(&vip.services[index]) {
            return Some(&vip.services[state.hide_from_verifier::<MAX_PORTS>(index)]);
        }
        index += 1;
    }
    None
}

/// Whether any service of any VIP has this target.
#[inline(always)]
pub(crate) fn is_target(state: &State, port: Be16) -> bool {
    let vips = (state.config.ipv4_count + state.config.ipv6_count) as usize;
    let mut vip = 0;
    while vip < vips.min(MAX_VIPS) {
        let services = &state.vips[vip].services;
        let count = (state.vips[vip].service_count as usize).min(MAX_PORTS);
        let mut index = 0;
        while index < count {
            if services[index].target == port {
                return true;
            }
            index += 1;
        }
        vip += 1;
    }
    false
}

/// Whether one of these nodes has this address as its own; this node does not count.
#[inline(always)]
pub(crate) fn is_own_address_of(state: &State, nodes: BackendMask, address: Be128) -> bool {
    let count = (state.config.slot_count as usize).min(MAX_BACKENDS);
    let mut index = 0;
    while index < count {
        let backend = &state.backends[index];
        if backend.address == address || backend.other_address == address {
            return index as u32 != state.config.own_index && nodes.has_index(index as u32);
        }
        index += 1;
    }
    false
}

/// Whether this Ethernet address is a peer's.
#[inline(always)]
pub(crate) fn is_peer(state: &State, mac: Mac) -> bool {
    // Nearly all frames come from clients and routers, and the filter rules most of those out
    // without a search of the backends.
    state.config.peers.may_hold(mac) && is_peer_that(state, mac, |_| true)
}

/// Whether this Ethernet address is that of a peer which is alive or suspect: its agent was heard,
/// so that it may be the owner.
#[inline(always)]
pub(crate) fn is_living_peer(state: &State, mac: Mac) -> bool {
    is_peer_that(state, mac, |index| {
        state.masks.living().has_index(index as u32)
    })
}

/// Whether this Ethernet address is that of a peer for whose index `wanted` is true: either the
/// address that it receives at or the one that it sends from.
#[inline(always)]
fn is_peer_that(state: &State, mac: Mac, wanted: impl Fn(usize) -> bool) -> bool {
    let count = (state.config.slot_count as usize).min(MAX_BACKENDS);
    let mut index = 0;
    while index < count {
        let backend = &state.backends[index];
        if backend.mac == mac || backend.source == mac {
            return index as u32 != state.config.own_index && !mac.is_unknown() && wanted(index);
        }
        index += 1;
    }
    false
}
