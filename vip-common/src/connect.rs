//! The decision about connections that this node and its pods make to a VIP.
//!
//! They never pass the NIC, because the VIP is on every node's `lo`. Without this program they
//! would all end at this node's own server, even if it is down. The program therefore rewrites the
//! destination of the `connect` call to a server that is ready.
//!
//! This also keeps a server from reaching itself through a peer: its answer, sent directly, would
//! never leave the node.

use crate::abi::lookup::{find, service};
use crate::abi::{BackendIndex, State};
use crate::wire::addr::{Be16, Be128};

/// The server that a connection is redirected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// A node's own address, of the same family as the VIP's.
    pub address: Be128,
    /// The service's target.
    pub port: Be16,
}

/// The server for a connection to `address` and `port`; `None` if the connection is not redirected.
///
/// The first choice is this node's own server, if it may have new connections and `listens` says
/// that it listens. `listens` gets the server and the index of the service's check, and is called
/// for no other reason. Otherwise `random` chooses one of the peers.
#[inline(always)]
pub fn redirect(
    state: &State,
    address: Be128,
    port: Be16,
    listens: impl FnOnce(Target, u8) -> bool,
    random: u32,
) -> Option<Target> {
    if state.config.redirects == 0 {
        return None;
    }
    let vip = find(state, address)?;
    let service = service(state, vip, |service| service.port == port)?;
    let usable = state.masks.for_connect(service.check);
    let usable = usable.and(state.config.nodes_like(address));
    let target = |node: BackendIndex| {
        state.backends[node.get()]
            .address_like(address)
            .map(|address| Target {
                address,
                port: service.target,
            })
    };

    let mut others = usable;
    if let Some(own) = BackendIndex::new(state.config.own_index as usize) {
        if usable.contains(own)
            && let Some(target) = target(own)
            && listens(target, service.check)
        {
            return Some(target);
        }
        others = usable.with(own, false);
    }
    let count = others.count();
    if count == 0 {
        return None;
    }
    target(others.nth(random % count)?)
}

/// Whether a UDP socket that connects to `address` and `port` is the agent's self-test of the
/// connect programs. Such a call sends nothing, and no other program connects to port 0.
#[inline(always)]
#[must_use]
pub fn is_self_test(state: &State, address: Be128, port: Be16) -> bool {
    port == Be16::new(0) && find(state, address).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::BackendMask;
    use crate::testing::{CLIENT, PORT, VIP, VIP6, World, backend, node_address, node_address6};

    fn world(change: impl FnOnce(&mut State)) -> State {
        let mut state = World::new(3, 0).state;
        state.config.redirects = 1;
        change(&mut state);
        state
    }

    fn to(state: &State, listens: bool, random: u32) -> Option<Target> {
        redirect(state, VIP.into(), Be16::new(PORT), |_, _| listens, random)
    }

    fn node(index: usize) -> Option<Target> {
        Some(Target {
            address: node_address(index).into(),
            port: Be16::new(PORT),
        })
    }

    fn unready(state: &mut State, index: usize) {
        state.masks.connect[0] = state.masks.connect[0].with(backend(index), false);
    }

    #[test]
    fn the_own_server_comes_first_while_it_is_ready_and_listens() {
        let healthy = world(|_| {});
        assert_eq!(to(&healthy, true, 1), node(0));
        let crashed: Vec<_> = (0..4).map(|random| to(&healthy, false, random)).collect();
        assert_eq!(crashed, [node(1), node(2), node(1), node(2)]);
        let draining = world(|state| unready(state, 0));
        assert_eq!(to(&draining, true, 0), node(1));
        let one_left = world(|state| {
            unready(state, 0);
            unready(state, 1);
        });
        assert_eq!(to(&one_left, true, 0), node(2));
        assert_eq!(to(&one_left, true, 1), node(2));
    }

    #[test]
    fn port_0_of_a_vip_is_the_self_test() {
        let state = world(|_| {});
        assert!(is_self_test(&state, VIP.into(), Be16::new(0)));
        assert!(is_self_test(&state, VIP6, Be16::new(0)));
        assert!(!is_self_test(&state, VIP.into(), Be16::new(PORT)));
        assert!(!is_self_test(&state, node_address(0).into(), Be16::new(0)));
    }

    #[test]
    fn without_a_usable_server_a_connection_is_not_redirected() {
        let none = world(|state| state.masks.connect[0] = BackendMask::EMPTY);
        assert_eq!(to(&none, true, 0), None);
        let alone =
            world(|state| state.masks.connect[0] = BackendMask::EMPTY.with(backend(0), true));
        assert_eq!(to(&alone, true, 0), node(0));
        assert_eq!(to(&alone, false, 0), None);
    }

    #[test]
    fn connections_to_no_service_are_not_redirected() {
        let state = world(|_| {});
        let redirect = |address, port| redirect(&state, address, Be16::new(port), |_, _| true, 0);
        assert_eq!(redirect(CLIENT.into(), PORT), None);
        assert_eq!(redirect(VIP.into(), 22), None);
        let off = world(|state| state.config.redirects = 0);
        assert_eq!(to(&off, true, 0), None);
    }

    #[test]
    fn a_node_without_an_address_of_the_family_is_not_chosen() {
        let to = |state: &State, listens| {
            redirect(state, VIP6, Be16::new(PORT), |_, _| listens, 0).map(|target| target.address)
        };
        let mut state = world(|_| {});
        assert_eq!(to(&state, true), Some(node_address6(0)));
        assert_eq!(to(&state, false), Some(node_address6(1)));
        let lose = |state: &mut State, node: usize| {
            state.backends[node].other_address = Be128::UNSPECIFIED;
            state.config.set_families(&state.backends[..3]);
        };
        lose(&mut state, 1);
        assert_eq!(to(&state, false), Some(node_address6(2)));
        lose(&mut state, 2);
        assert_eq!(to(&state, false), None);
    }

    #[test]
    fn a_connection_goes_to_the_target_of_its_service() {
        let mut state = World::new(3, 0).mapping(443, PORT).state;
        state.config.redirects = 1;
        let to = redirect(&state, VIP.into(), Be16::new(443), |_, _| true, 0);
        assert_eq!(to, node(0));
    }
}
