//! By which interfaces answers to clients may leave, beside the VIP's own NIC.
//!
//! The kernel routes an answer by its destination, whatever NIC the question came in by. So a
//! node with its default route elsewhere answers clients behind a router by another NIC. What
//! leads to pods alone is no such way: they reach a VIP by this host itself.

use std::collections::BTreeSet;

/// A way to somewhere, of the main table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Index of the interface that it leads by.
    pub interface: u32,
    /// To wherever nothing else leads.
    pub default: bool,
    /// By way of a router.
    pub gateway: bool,
    /// Of IPv4.
    pub ipv4: bool,
}

/// What an interface leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A network card, or a bond, team, VLAN or macvlan of one.
    Card,
    /// A bridge: that of containers, or the one that a card is a port of.
    Bridge,
    /// Anything else: tunnels, the host's ends of pods' interfaces.
    Other,
}

impl Kind {
    /// By the kernel's word for the kind of a virtual device.
    #[must_use]
    pub fn of(kind: Option<&str>) -> Self {
        match kind {
            None | Some("bond" | "team" | "vlan" | "macvlan" | "ipvlan") => Self::Card,
            Some("bridge") => Self::Bridge,
            Some(_) => Self::Other,
        }
    }
}

/// Interfaces by which answers may leave, other than `nic`. `kind` knows what an interface is.
#[must_use]
pub fn others(
    routes: impl IntoIterator<Item = Route>,
    nic: u32,
    kind: impl Fn(u32) -> Kind,
) -> BTreeSet<u32> {
    let leads_away = |route: &Route| {
        route.default
            || match kind(route.interface) {
                Kind::Card => true,
                Kind::Bridge => route.gateway,
                Kind::Other => false,
            }
    };
    routes
        .into_iter()
        .filter(|route| route.interface != nic && leads_away(route))
        .map(|route| route.interface)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIC: u32 = 2;

    /// Whether a route by an interface of that kind is another way.
    fn leads(kind: Kind, default: bool, gateway: bool) -> bool {
        let route = Route {
            interface: 3,
            default,
            gateway,
            ipv4: true,
        };
        !others([route], NIC, |_| kind).is_empty()
    }

    #[test]
    fn a_default_route_is_a_way_whatever_it_leads_by() {
        for kind in [Kind::Card, Kind::Bridge, Kind::Other] {
            assert!(leads(kind, true, true) && leads(kind, true, false));
        }
    }

    #[test]
    fn what_leads_to_pods_is_none() {
        // cni0; cali1234; flannel.1, which has gateways.
        assert!(!leads(Kind::Bridge, false, false));
        assert!(!leads(Kind::Other, false, false));
        assert!(!leads(Kind::Other, false, true));
        // A second card's segment; a router on that of a bridge.
        assert!(leads(Kind::Card, false, false));
        assert!(leads(Kind::Bridge, false, true));
    }

    #[test]
    fn the_nic_itself_is_none() {
        let route = |interface| Route {
            interface,
            default: true,
            gateway: true,
            ipv4: true,
        };
        let found = others([route(NIC), route(5)], NIC, |_| Kind::Card);
        assert_eq!(found, [5].into());
    }

    #[test]
    fn kinds_are_those_of_the_kernel() {
        assert_eq!(Kind::of(None), Kind::Card);
        assert_eq!(Kind::of(Some("vlan")), Kind::Card);
        assert_eq!(Kind::of(Some("bridge")), Kind::Bridge);
        assert_eq!(Kind::of(Some("vxlan")), Kind::Other);
    }
}
