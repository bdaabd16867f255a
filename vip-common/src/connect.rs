//! The decision about connections that this node and its pods make to a VIP.
//!
//! They never pass the NIC, and the VIP is on every node's `lo`: left alone, they would all end
//! at this node's own server, whether it lives or not. So the `connect` itself is turned to a
//! server that is ready. That also keeps a server from being its own client through another
//! node, which no direct server return could answer.

use crate::abi::lookup::{find, service};
use crate::abi::{BackendIndex, State};
use crate::wire::addr::{Be16, Be128};

/// Where a connection is turned to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// A node's own address, of the same family as the VIP's.
    pub address: Be128,
    /// The port that it listens on.
    pub port: Be16,
}

/// Decides about a connection to `address` and `port`; `None` if it stays as it is.
///
/// This node's own server comes first if it may have new connections and `listens`, which is asked
/// only then, for a check of its service. Else one of the others, by `random`.
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

/// Whether a UDP socket that connects to `address` and `port` is the agent's test of whether
/// the programs at `connect` run. Nothing is sent by that, and nobody else has a use for port 0.
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
    fn port_0_of_a_vip_is_the_agents_test() {
        let state = world(|_| {});
        assert!(is_self_test(&state, VIP.into(), Be16::new(0)));
        assert!(is_self_test(&state, VIP6, Be16::new(0)));
        assert!(!is_self_test(&state, VIP.into(), Be16::new(PORT)));
        assert!(!is_self_test(&state, node_address(0).into(), Be16::new(0)));
    }

    #[test]
    fn only_those_for_local_connections_are_chosen_and_nobody_means_as_it_is() {
        let nobody = world(|state| state.masks.connect[0] = BackendMask::EMPTY);
        assert_eq!(to(&nobody, true, 0), None);
        let alone =
            world(|state| state.masks.connect[0] = BackendMask::EMPTY.with(backend(0), true));
        assert_eq!(to(&alone, true, 0), node(0));
        assert_eq!(to(&alone, false, 0), None);
    }

    #[test]
    fn other_connections_stay_as_they_are() {
        let state = world(|_| {});
        let redirect = |address, port| redirect(&state, address, Be16::new(port), |_, _| true, 0);
        assert_eq!(redirect(CLIENT.into(), PORT), None);
        assert_eq!(redirect(VIP.into(), 22), None);
        let off = world(|state| state.config.redirects = 0);
        assert_eq!(to(&off, true, 0), None);
    }

    #[test]
    fn nodes_without_an_address_of_the_family_are_left_out() {
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
    fn a_service_with_another_port_is_redirected_to_it() {
        let mut state = World::new(3, 0).mapping(443, PORT).state;
        state.config.redirects = 1;
        let to = redirect(&state, VIP.into(), Be16::new(443), |_, _| true, 0);
        assert_eq!(to, node(0));
    }
}
