//! Which node of the configuration this machine is, and which NIC is the VIP's.

use std::net::{IpAddr, Ipv4Addr};

use super::NetError;

/// The NIC that the VIP's traffic comes in by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nic {
    /// Index of the interface.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// The node's address on it, one of the configured nodes.
    pub address: IpAddr,
    /// Prefix length of that address.
    pub prefix_len: u8,
    /// The kernel's driver, or the kind of a virtual device (`veth`, `vlan`), if known.
    pub driver: Option<String>,
    /// Whether it was up and had a carrier when it was looked at.
    pub up: bool,
}

impl Nic {
    /// Whether an address is in the subnet of the node's.
    #[must_use]
    pub fn subnet_has(&self, address: IpAddr) -> bool {
        let own = LocalAddress {
            index: self.index,
            address: self.address,
            prefix_len: self.prefix_len,
            host_scope: false,
            usable: Usable::Yes,
        };
        own.subnet_has(address)
    }
}

/// An interface, as far as we care.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Other names of it (`ip link property add dev eth0 altname ...`).
    pub(super) alternative_names: Vec<String>,
    /// `None` unless it is Ethernet.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: u32,
    pub(super) loopback: bool,
    /// Administratively.
    pub(super) enabled: bool,
    /// Enabled, and with a carrier.
    pub(super) up: bool,
    /// Kind of a virtual device.
    pub(super) kind: Option<String>,
    /// The kernel's number of its XDP program.
    pub(super) xdp: Option<u32>,
    /// Index of the bridge or bond that it is a port of.
    pub(super) master: Option<u32>,
    /// How often its carrier came or went.
    pub(super) carrier_changes: u32,
}

impl Link {
    fn is_called(&self, name: &str) -> bool {
        let mut others = self.alternative_names.iter();
        self.name == name || others.any(|other| other == name)
    }
}

/// Whether `link` is a port of `master`, or of something that is one.
fn is_port_of(links: &[Link], link: &Link, master: &Link) -> bool {
    let mut above = link.master;
    // There are no circles, but the list may have been made while something moved.
    for _ in 0..links.len() {
        let Some(index) = above else { return false };
        if index == master.index {
            return true;
        }
        let next = links.iter().find(|link| link.index == index);
        above = next.and_then(|link| link.master);
    }
    false
}

/// An address of this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LocalAddress {
    pub(super) index: u32,
    pub(super) address: IpAddr,
    pub(super) prefix_len: u8,
    pub(super) host_scope: bool,
    pub(super) usable: Usable,
}

/// Whether an address may be used. Those of IPv4 always may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Usable {
    Yes,
    /// The kernel still asks whether another host has it (tentative).
    NotYet,
    /// Another host has it.
    Duplicate,
}

impl LocalAddress {
    /// Whether it is known of an address of this subnet that no host can have it: the first one names
    /// the network (with IPv6 it is that of all its routers, RFC 4291, section 2.6.1), the last one
    /// of IPv4 is for broadcast. Of two addresses (RFC 3021, RFC 6164) or one, each is a host's.
    fn is_no_host(&self, other: IpAddr) -> bool {
        if !self.subnet_has(other) {
            return false;
        }
        match other {
            IpAddr::V4(other) if self.prefix_len < 31 => {
                let behind = u32::MAX >> self.prefix_len;
                let place = other.to_bits() & behind;
                place == 0 || place == behind
            }
            IpAddr::V6(other) if self.prefix_len < 127 => {
                other.to_bits() & u128::MAX >> self.prefix_len == 0
            }
            _ => false,
        }
    }

    fn subnet_has(&self, other: IpAddr) -> bool {
        let behind = |whole: u32| whole.saturating_sub(u32::from(self.prefix_len));
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(behind(32)).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(behind(128)).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

/// Refuses an address that no host of the NIC's subnets can have. `what` it is to be: a VIP, a node.
pub(super) fn refuse_no_host(
    nic: &Nic,
    addresses: &[LocalAddress],
    what: &'static str,
    address: IpAddr,
) -> Result<(), NetError> {
    if what == "VIP" && address == nic.address {
        return Err(NetError::OwnAddress {
            vip: address,
            interface: nic.name.clone(),
        });
    }
    let mut on_nic = addresses.iter().filter(|local| local.index == nic.index);
    match on_nic.find(|local| local.is_no_host(address)) {
        None => Ok(()),
        Some(local) => Err(NetError::NoHost {
            what,
            address,
            interface: nic.name.clone(),
            own: local.address,
            prefix_len: local.prefix_len,
        }),
    }
}

/// Finds the NIC: it has the address of one of `nodes`, and `vip` is in the subnet of that
/// address. `named`, if given, must have the address too, or be a port of the bridge or bond that
/// has it, but its subnet may be any.
pub(super) fn choose(
    links: &[Link],
    addresses: &[LocalAddress],
    vip: IpAddr,
    nodes: &[IpAddr],
    named: Option<&str>,
) -> Result<Nic, NetError> {
    let named = match named {
        None => None,
        Some(name) => {
            let link = links.iter().find(|link| link.is_called(name));
            Some(link.ok_or_else(|| NetError::NoInterface {
                name: name.to_owned(),
                there: list(links.iter().map(|link| &link.name)),
            })?)
        }
    };

    let mut here = nodes
        .iter()
        .filter(|node| addresses.iter().any(|local| local.address == **node));
    let Some(&address) = here.next() else {
        return Err(NetError::NotANode {
            nodes: list(nodes),
            local: list(addresses.iter().map(|local| local.address)),
        });
    };
    if let Some(&other) = here.next() {
        return Err(NetError::TwoNodes(address, other));
    }

    // The same address may be on more than one interface.
    let all: Vec<(&Link, &LocalAddress)> = addresses
        .iter()
        .filter(|local| local.address == address)
        .filter_map(|local| {
            let link = links.iter().find(|link| link.index == local.index)?;
            Some((link, local))
        })
        .collect();
    // What comes in by a port is its bridge's or bond's, whatever addresses the port has left.
    let is_port = |link: &Link| all.iter().any(|(other, _)| is_port_of(links, link, other));
    let mut holders = all.clone();
    holders.retain(|(link, _)| !is_port(link));
    let found = match named {
        Some(named) => {
            let is_named =
                |link: &Link| link.index == named.index || is_port_of(links, named, link);
            holders.iter().find(|(link, _)| is_named(link))
        }
        None => holders
            .iter()
            .find(|(_, local)| local.subnet_has(vip))
            .or(holders.first()),
    };
    let Some(&(link, local)) = found else {
        return Err(NetError::OtherInterface {
            address,
            holder: list(holders.iter().map(|(link, _)| &link.name)),
            name: named.map(|named| named.name.clone()).unwrap_or_default(),
        });
    };
    let interface = link.name.clone();
    let Some(mac) = link.mac.filter(|_| !link.loopback) else {
        return Err(NetError::NotEthernet { interface, address });
    };
    let prefix_len = local.prefix_len;
    if named.is_none() && !local.subnet_has(vip) {
        return Err(NetError::OtherSubnet {
            vip,
            interface,
            address,
            prefix_len,
        });
    }
    match local.usable {
        Usable::Yes => {}
        Usable::NotYet => return Err(NetError::Tentative { address, interface }),
        Usable::Duplicate => return Err(NetError::Duplicate { address, interface }),
    }
    Ok(Nic {
        index: link.index,
        name: interface,
        mac,
        mtu: link.mtu,
        address,
        prefix_len,
        driver: link.kind.clone(),
        up: link.up,
    })
}

/// The node's own address in a cluster whose agents find each other: the first one on a NIC in the
/// subnet of `vip`. On the NIC that is `named`, it may be of any subnet, but one in that of the VIP
/// comes first.
pub(super) fn own_address(
    links: &[Link],
    addresses: &[LocalAddress],
    vips: &[IpAddr],
    named: Option<&str>,
) -> Result<IpAddr, NetError> {
    let [vip, ..] = *vips else {
        return Err(NetError::NoAddress {
            vip: Ipv4Addr::UNSPECIFIED.into(),
            local: list(addresses.iter().map(|local| local.address)),
        });
    };
    let is_link_local = |address: IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let of_nic = |local: &&LocalAddress| {
        let link = links.iter().find(|link| link.index == local.index);
        let is_nic = link.is_some_and(|link| link.mac.is_some() && !link.loopback);
        let is_meant = named.is_none_or(|name| {
            links.iter().any(|port| {
                port.is_called(name)
                    && (port.index == local.index
                        || link.is_some_and(|link| is_port_of(links, port, link)))
            })
        });
        is_nic
            && is_meant
            && local.address.is_ipv4() == vip.is_ipv4()
            && !local.host_scope
            && !is_link_local(local.address)
            && !vips.contains(&local.address)
    };
    let candidates: Vec<&LocalAddress> = addresses.iter().filter(of_nic).collect();
    let near = candidates.iter().filter(|local| local.subnet_has(vip));
    let near: Vec<&LocalAddress> = near.copied().collect();
    let chosen = match named {
        Some(_) => near.first().or(candidates.first()),
        None => near.first(),
    };
    let Some(chosen) = chosen else {
        // Then no wait helps. A VIP that an agent has put there is on `lo`.
        if let Some(error) = own_vip(links, addresses, vips) {
            return Err(error);
        }
        return Err(NetError::NoAddress {
            vip,
            local: list(addresses.iter().map(|local| local.address)),
        });
    };
    // A port of a bridge or bond may have kept the address that has moved there.
    let is_port = |local: &&&LocalAddress| {
        let link = links.iter().find(|link| link.index == local.index);
        link.is_some_and(|link| link.master.is_some())
    };
    let mut others: Vec<u32> = near
        .iter()
        .filter(|local| named.is_none() && !is_port(local))
        .map(|local| local.index)
        .collect();
    others.dedup();
    if others.len() > 1 {
        let name = |index: &u32| links.iter().find(|link| link.index == *index);
        return Err(NetError::ManyInterfaces {
            vip,
            names: list(others.iter().filter_map(name).map(|link| &link.name)),
        });
    }
    Ok(chosen.address)
}

/// Says that a VIP is an address of this machine on a NIC, if one is.
fn own_vip(links: &[Link], addresses: &[LocalAddress], vips: &[IpAddr]) -> Option<NetError> {
    let on_nic = |local: &LocalAddress| {
        let link = links.iter().find(|link| link.index == local.index)?;
        let is_nic = link.mac.is_some() && !link.loopback;
        let is_vip = vips.contains(&local.address) && !local.host_scope;
        (is_nic && is_vip).then(|| NetError::OwnAddress {
            vip: local.address,
            interface: link.name.clone(),
        })
    };
    addresses.iter().find_map(on_nic)
}

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() {
        return "none".to_owned();
    }
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: IpAddr = ip(10);
    const NODES: [IpAddr; 2] = [ip(11), ip(12)];

    const fn ip(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    fn link(index: u32, name: &str, mac: Option<[u8; 6]>) -> Link {
        Link {
            index,
            name: name.to_owned(),
            alternative_names: Vec::new(),
            mac,
            mtu: 1500,
            loopback: name == "lo",
            enabled: true,
            up: true,
            kind: None,
            xdp: None,
            master: None,
            carrier_changes: 0,
        }
    }

    fn links() -> [Link; 3] {
        [
            link(1, "lo", None),
            link(2, "eth0", Some([2, 0, 0, 0, 0, 1])),
            link(3, "tun0", None),
        ]
    }

    fn on(index: u32, address: [u8; 4], prefix_len: u8) -> LocalAddress {
        LocalAddress {
            index,
            address: address.into(),
            prefix_len,
            host_scope: false,
            usable: Usable::Yes,
        }
    }

    fn error(addresses: &[LocalAddress], named: Option<&str>) -> String {
        choose(&links(), addresses, VIP, &NODES, named)
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn a_vip_that_is_the_nodes_own_address_is_named_and_not_waited_for() {
        let own = [on(2, [10, 0, 0, 10], 24), on(1, [127, 0, 0, 1], 8)];
        let error = own_address(&links(), &own, &[VIP], None).expect_err("is the VIP");
        assert!(!error.may_come());
        assert!(
            error
                .to_string()
                .starts_with("VIP 10.0.0.10 is this machine's own address on eth0; "),
            "{error}"
        );
        // An agent has put it on `lo`: the node's own address may still come.
        let placed = [on(1, [10, 0, 0, 10], 32)];
        let error = own_address(&links(), &placed, &[VIP], None).expect_err("no address yet");
        assert!(error.may_come());
        // keepalived may have put it beside the node's own one.
        let beside = [on(2, [10, 0, 0, 10], 24), on(2, [10, 0, 0, 11], 24)];
        let found = own_address(&links(), &beside, &[VIP], None);
        assert_eq!(found.expect("its own"), ip(11));
    }

    #[test]
    fn first_and_last_addresses_of_a_subnet_are_no_hosts() {
        for (own, prefix_len, address, wanted) in [
            ("10.0.0.11", 24, "10.0.0.0", true),
            ("10.0.0.11", 24, "10.0.0.255", true),
            ("10.0.0.11", 24, "10.0.0.10", false),
            ("10.0.0.11", 24, "10.0.1.255", false),
            ("10.0.0.11", 16, "10.0.0.255", false),
            ("10.0.0.11", 31, "10.0.0.10", false),
            ("10.0.0.11", 32, "10.0.0.11", false),
            ("fd00::11", 64, "fd00::", true),
            ("fd00::11", 64, "fd00::ffff:ffff:ffff:ffff", false),
            ("fd00::11", 64, "fd00::10", false),
            ("fd00::11", 127, "fd00::10", false),
            ("fd00::11", 64, "10.0.0.255", false),
        ] {
            let local = LocalAddress {
                address: own.parse().unwrap(),
                ..on(2, [0; 4], prefix_len)
            };
            let found = local.is_no_host(address.parse().unwrap());
            assert_eq!(found, wanted, "{address} of {own}/{prefix_len}");
        }
    }

    #[test]
    fn each_subnet_of_the_nic_counts_and_those_of_others_do_not() {
        let addresses = [
            on(2, [10, 0, 0, 12], 24),
            on(2, [10, 1, 0, 12], 24),
            on(3, [10, 2, 0, 12], 24),
        ];
        let nic = choose(&links(), &addresses, VIP, &NODES, None).unwrap();
        let refused = |address: [u8; 4]| {
            let refused = refuse_no_host(&nic, &addresses, "VIP", address.into());
            refused.err().map(|error| error.to_string())
        };
        let error = refused([10, 1, 0, 255]).unwrap();
        assert_eq!(
            error,
            "VIP 10.1.0.255 is the first or the last address of the subnet of eth0 \
             (10.1.0.12/24), which no host can have; take another one"
        );
        assert_eq!(refused([10, 2, 0, 255]), None);
    }

    #[test]
    fn an_interface_is_found_by_any_of_its_names_and_called_by_its_own() {
        let mut links = links();
        let name = "enp0s31f6-of-the-control-plane";
        links[1].alternative_names = vec!["eno1".to_owned(), name.to_owned()];
        let addresses = [on(2, [10, 0, 0, 11], 24)];
        for named in ["eth0", "eno1", name] {
            let nic = choose(&links, &addresses, VIP, &NODES, Some(named)).unwrap();
            assert_eq!(nic.name, "eth0", "{named}");
        }
    }

    #[test]
    fn the_nic_has_a_node_address_in_the_subnet_of_the_vip() {
        let addresses = [
            on(1, [127, 0, 0, 1], 8),
            on(2, [192, 168, 0, 1], 24),
            on(2, [10, 0, 0, 12], 24),
        ];
        let nic = choose(&links(), &addresses, VIP, &NODES, None).unwrap();
        assert_eq!(
            (nic.index, nic.address, nic.prefix_len, nic.mac),
            (2, ip(12), 24, [2, 0, 0, 0, 0, 1])
        );
    }

    #[test]
    fn a_machine_that_is_no_node_is_told_its_own_addresses() {
        let text = error(&[on(1, [127, 0, 0, 1], 8), on(2, [10, 0, 0, 99], 24)], None);
        assert!(text.contains("10.0.0.11, 10.0.0.12"), "{text}");
        assert!(text.contains("127.0.0.1, 10.0.0.99"), "{text}");
        assert!(error(&[], None).contains("are none"));
    }

    #[test]
    fn without_a_list_the_address_in_the_subnet_of_the_vip_is_the_nodes() {
        let choose = |addresses: &[LocalAddress], named| {
            own_address(&links(), addresses, &[VIP], named).map_err(|error| error.to_string())
        };
        let addresses = [
            on(1, [127, 0, 0, 1], 8),
            on(2, [192, 168, 0, 1], 24),
            on(2, [10, 0, 0, 10], 32),
            on(2, [10, 0, 0, 12], 24),
            on(2, [10, 0, 0, 13], 24),
            on(3, [10, 0, 0, 99], 24),
        ];
        assert_eq!(choose(&addresses, None), Ok(ip(12)));
        assert_eq!(choose(&addresses, Some("eth0")), Ok(ip(12)));
        // On a NIC that is named, any will do; none is better than a tunnel's.
        assert_eq!(
            choose(&addresses[..2], Some("eth0")),
            Ok([192, 168, 0, 1].into())
        );
        for (addresses, named) in [(&addresses[..3], None), (&addresses[5..], Some("tun0"))] {
            let text = choose(addresses, named).expect_err("none fits");
            assert!(text.contains("10.0.0.10"), "{text}");
        }
    }

    #[test]
    fn several_nics_in_the_subnet_of_the_vip_are_named() {
        let mut links = links().to_vec();
        links.push(link(4, "eth1", Some([2, 0, 0, 0, 0, 2])));
        let addresses = [on(2, [10, 0, 0, 12], 24), on(4, [10, 0, 0, 13], 24)];
        let error = own_address(&links, &addresses, &[VIP], None).expect_err("which?");
        assert!(error.to_string().contains("eth0, eth1"), "{error}");
        let named = own_address(&links, &addresses, &[VIP], Some("eth1"));
        assert_eq!(named.ok(), Some(ip(13)));
        // As a bond's port that has kept it.
        links[1].master = Some(4);
        let found = own_address(&links, &addresses[..1], &[VIP], None);
        assert_eq!(found.ok(), Some(ip(12)));
    }

    #[test]
    fn a_machine_cannot_be_two_nodes() {
        let text = error(
            &[on(2, [10, 0, 0, 11], 24), on(2, [10, 0, 0, 12], 24)],
            None,
        );
        assert!(text.contains("10.0.0.11 and 10.0.0.12"), "{text}");
    }

    #[test]
    fn a_vip_of_another_subnet_is_refused_unless_the_interface_is_named() {
        let addresses = [on(2, [10, 0, 0, 11], 32)];
        let text = error(&addresses, None);
        assert!(text.contains("eth0 (10.0.0.11/32)"), "{text}");
        let nic = choose(&links(), &addresses, VIP, &NODES, Some("eth0")).unwrap();
        assert_eq!(nic.prefix_len, 32);
    }

    #[test]
    fn what_may_come_by_itself_is_told_from_what_must_be_corrected() {
        let addresses = [on(2, [10, 0, 0, 11], 24)];
        let refused = |addresses: &[LocalAddress], named: Option<&str>| {
            choose(&links(), addresses, VIP, &NODES, named).unwrap_err()
        };
        let is = |usable| {
            [LocalAddress {
                usable,
                ..addresses[0]
            }]
        };
        for come in [
            refused(&[], None),
            refused(&[on(2, [169, 254, 0, 1], 16)], None),
            refused(&addresses, Some("bond0")),
            refused(&is(Usable::NotYet), None),
            refused(&is(Usable::Duplicate), None),
        ] {
            assert!(come.may_come(), "{come}");
        }
        for stays in [
            refused(&addresses, Some("tun0")),
            refused(&[on(2, [10, 0, 0, 11], 32)], None),
            refused(&[on(3, [10, 0, 0, 11], 24)], None),
            refused(&[addresses[0], on(2, [10, 0, 0, 12], 24)], None),
        ] {
            assert!(!stays.may_come(), "{stays}");
        }
    }

    #[test]
    fn an_interface_without_ethernet_is_refused() {
        for index in [1, 3] {
            let text = error(&[on(index, [10, 0, 0, 11], 24)], None);
            assert!(text.contains("not Ethernet"), "{text}");
        }
    }

    #[test]
    fn a_named_interface_must_exist_and_have_the_address() {
        let addresses = [on(2, [10, 0, 0, 11], 24)];
        let text = error(&addresses, Some("eth7"));
        assert!(text.contains("lo, eth0, tun0"), "{text}");
        let text = error(&addresses, Some("tun0"));
        assert!(text.contains("is on eth0, not on"), "{text}");
    }

    #[test]
    fn the_address_of_a_port_is_on_its_bridge_whichever_is_named() {
        let mut links = links().to_vec();
        links.push(link(4, "br-ex", Some([2, 0, 0, 0, 0, 1])));
        links.push(link(5, "br-other", Some([2, 0, 0, 0, 0, 2])));
        links[1].master = Some(4);
        let moved = [on(4, [10, 0, 0, 11], 24)];
        let both = [on(2, [10, 0, 0, 11], 24), on(4, [10, 0, 0, 11], 24)];
        for addresses in [&moved[..], &both] {
            for named in [None, Some("eth0"), Some("br-ex")] {
                let nic = choose(&links, addresses, VIP, &NODES, named).unwrap();
                assert_eq!((nic.index, nic.name.as_str()), (4, "br-ex"));
            }
        }
        // It has gone to something that the named one is no port of.
        let elsewhere = [on(5, [10, 0, 0, 11], 24)];
        let error = choose(&links, &elsewhere, VIP, &NODES, Some("eth0")).unwrap_err();
        assert!(error.to_string().contains("br-other"), "{error}");
        assert_eq!(
            choose(&links, &elsewhere, VIP, &NODES, None).unwrap().index,
            5
        );
        // A bond below the bridge.
        links.push(link(6, "eth1", Some([2, 0, 0, 0, 0, 3])));
        links[5].master = Some(2);
        let nic = choose(&links, &moved, VIP, &NODES, Some("eth1")).unwrap();
        assert_eq!(nic.index, 4);
    }

    #[test]
    fn a_prefix_of_any_length_is_a_subnet() {
        let other = IpAddr::from([192, 0, 2, 1]);
        assert!(on(1, [10, 0, 0, 11], 0).subnet_has(other));
        assert!(!on(1, [10, 0, 0, 11], 32).subnet_has(VIP));
        assert!(on(1, [10, 0, 0, 11], 31).subnet_has(VIP));
        assert!(!on(1, [10, 0, 0, 11], 31).subnet_has(ip(12)));
        let ipv6 = |text: &str, prefix_len| LocalAddress {
            address: text.parse().unwrap(),
            ..on(1, [0; 4], prefix_len)
        };
        let vip: IpAddr = "fd00::10".parse().unwrap();
        assert!(ipv6("fd00::11", 64).subnet_has(vip));
        assert!(!ipv6("fd00:0:0:1::11", 64).subnet_has(vip));
        assert!(!ipv6("fd00::11", 128).subnet_has(vip));
        assert!(!ipv6("fd00::11", 0).subnet_has(VIP), "of another family");
    }
}
