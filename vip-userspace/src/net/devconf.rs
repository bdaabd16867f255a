//! The kernel's settings of interfaces, by rtnetlink: what `sysctl` shows below `net.ipv4.conf`.
//!
//! A container that is not privileged sees `/proc/sys` read-only. Netlink asks for `CAP_NET_ADMIN`
//! alone (`inet_set_link_af` in net/ipv4/devinet.c). What `conf.all` has, netlink does not tell;
//! that is only read, from `/proc/sys`.

use std::fs;

use futures_util::stream::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteType,
};
use rtnetlink::packet_core::DefaultNla;
use vip_common::abi::MAX_BOND_PORTS;
use vip_common::wire::addr::Mac;

use super::NetError;
use super::netlink::{Netlink, refused};
use vip_node::settings::{Change, Interface, Key, Seen, Values};
use vip_node::ways::{Kind, Route};

/// `IFLA_INET_CONF` (include/uapi/linux/if_link.h).
const IFLA_INET_CONF: u16 = 1;

/// `NLA_F_NESTED` (include/uapi/linux/netlink.h).
const NESTED: u16 = 1 << 15;

/// The kernel's number of a setting, `IPV4_DEVCONF_` in include/uapi/linux/ip.h.
const fn number(key: Key) -> u16 {
    match key {
        Key::RpFilter => 8,
        Key::ArpAnnounce => 18,
        Key::ArpIgnore => 19,
    }
}

/// An interface of this host, and what it leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostNic {
    /// It and its settings.
    pub interface: Interface,
    /// What it leads to.
    pub kind: Kind,
    /// Its Ethernet address, if it is Ethernet.
    pub mac: Option<[u8; 6]>,
    /// Index of the bond that it is a port of.
    pub bond: Option<u32>,
}

/// Ethernet addresses of the ports of a NIC that is a bond, other than its own.
#[must_use]
pub fn port_macs(nics: &[HostNic], nic: u32, own: [u8; 6]) -> [Mac; MAX_BOND_PORTS] {
    let ports = nics.iter().filter(|found| found.bond == Some(nic));
    let others = ports.filter_map(|port| port.mac).filter(|mac| *mac != own);
    let mut macs = [Mac::UNKNOWN; MAX_BOND_PORTS];
    for (place, mac) in macs.iter_mut().zip(others) {
        *place = Mac::from_wire(mac);
    }
    macs
}

impl Netlink {
    /// All interfaces but `lo` with their settings, and what applies to all of them.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn settings(&self) -> Result<(Seen, Vec<HostNic>), NetError> {
        let messages = self.link_messages().await?;
        let mut seen = Seen {
            all: Values {
                arp_ignore: of_all(Key::ArpIgnore.name()),
                arp_announce: of_all(Key::ArpAnnounce.name()),
                rp_filter: of_all(Key::RpFilter.name()),
            },
            route_localnet: of_all("route_localnet") != 0,
            interfaces: Vec::new(),
        };
        let mut nics = Vec::new();
        for message in &messages {
            // One whose MTU is too small for IPv4 has no settings, and no ARP.
            let Some(conf) = conf(message) else {
                continue;
            };
            if message.header.flags.contains(LinkFlags::Loopback) {
                seen.route_localnet |= conf.route_localnet != 0;
                continue;
            }
            nics.push(nic(message, conf));
        }
        seen.interfaces = nics.iter().map(|nic| nic.interface.clone()).collect();
        Ok((seen, nics))
    }

    /// Writes one value.
    ///
    /// # Errors
    /// The kernel refuses: no `CAP_NET_ADMIN`, or the interface is gone.
    pub async fn change_setting(&self, change: &Change) -> Result<(), NetError> {
        let Change {
            index,
            name,
            key,
            to,
            ..
        } = change;
        let mut message = LinkMessage::default();
        message.header.index = *index;
        let values = attribute(number(*key), &to.to_ne_bytes());
        let conf = AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NESTED, values));
        let of_ipv4 = AfSpecUnspec::Inet(vec![conf]);
        message
            .attributes
            .push(LinkAttribute::AfSpecUnspec(vec![of_ipv4]));
        let done = self.handle.link().set(message).execute().await;
        done.map_err(refused(format!("set net.ipv4.conf.{name}.{key} to {to}")))
    }

    /// The routes of the main table that lead by an interface.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn routes(&self) -> Result<Vec<Route>, NetError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            let answers: Vec<RouteMessage> = self
                .handle
                .route()
                .get(question)
                .execute()
                .try_collect()
                .await
                .map_err(refused("list routes"))?;
            routes.extend(answers.iter().flat_map(by_interface));
        }
        Ok(routes)
    }
}

/// A value of `conf.all`; 0 where this kernel, or this container, does not show it.
fn of_all(name: &str) -> u32 {
    fs::read_to_string(format!("/proc/sys/net/ipv4/conf/all/{name}"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// An attribute of netlink: length, number, value. Values of four bytes need no padding.
fn attribute(number: u16, value: &[u8; 4]) -> Vec<u8> {
    const LENGTH: u16 = 8;
    let mut bytes = LENGTH.to_ne_bytes().to_vec();
    bytes.extend(number.to_ne_bytes());
    bytes.extend(value);
    bytes
}

/// The settings of IPv4 that a link message tells.
fn conf(message: &LinkMessage) -> Option<&InetDevConf> {
    let families = message.attributes.iter().find_map(|found| match found {
        LinkAttribute::AfSpecUnspec(families) => Some(families),
        _ => None,
    });
    let of_ipv4 = families?.iter().find_map(|family| match family {
        AfSpecUnspec::Inet(of_ipv4) => Some(of_ipv4),
        _ => None,
    });
    of_ipv4?.iter().find_map(|found| match found {
        AfSpecInet::DevConf(conf) => Some(conf),
        _ => None,
    })
}

fn nic(message: &LinkMessage, conf: &InetDevConf) -> HostNic {
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut nic = HostNic {
        interface: Interface {
            index: message.header.index,
            name: String::new(),
            arp: ethernet && !message.header.flags.contains(LinkFlags::Noarp),
            values: Values {
                arp_ignore: conf.arp_ignore.cast_unsigned(),
                arp_announce: conf.arp_announce.cast_unsigned(),
                rp_filter: conf.rp_filter.cast_unsigned(),
            },
        },
        kind: Kind::of(None),
        mac: None,
        bond: None,
    };
    let mut port = false;
    let mut controller = None;
    let mut of_bond = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => nic.interface.name.clone_from(name),
            LinkAttribute::Address(bytes) if ethernet => nic.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Controller(index) => {
                port = true;
                controller = Some(*index);
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => nic.kind = Kind::of(Some(&kind.to_string())),
                        LinkInfo::PortKind(InfoPortKind::Vrf) => port = false,
                        LinkInfo::PortKind(InfoPortKind::Bond) => of_bond = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    // What comes in by a port is the bridge's or the bond's. One of a VRF hears for itself.
    nic.interface.arp &= !port;
    nic.bond = controller.filter(|_| of_bond);
    nic
}

/// A route, once for each interface that it leads by.
fn by_interface(message: &RouteMessage) -> Vec<Route> {
    let header = &message.header;
    // The table's number is in an attribute, too, if it is a large one.
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let is_gateway = |found: &RouteAttribute| {
        matches!(found, RouteAttribute::Gateway(_) | RouteAttribute::Via(_))
    };
    let route = |interface, gateway| Route {
        interface,
        default: header.destination_prefix_length == 0,
        gateway,
        ipv4: header.address_family == AddressFamily::Inet,
    };
    let gateway = message.attributes.iter().any(is_gateway);
    let mut routes = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(interface) => routes.push(route(*interface, gateway)),
            RouteAttribute::MultiPath(hops) => {
                let by_hop = |hop: &RouteNextHop| {
                    route(hop.interface_index, hop.attributes.iter().any(is_gateway))
                };
                routes.extend(hops.iter().map(by_hop));
            }
            _ => {}
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;
    use crate::net::testing::{self, A, A6, B, B6, Pair, Side, VIP, VIP6};
    use crate::net::{Groups, Neighbours, Nic};
    use vip_node::settings::{self, Wanted};
    use vip_node::ways;

    /// `b0` and its questions.
    async fn asker() -> (Nic, Neighbours) {
        let netlink = Netlink::connect().unwrap();
        let nic = netlink
            .find_nic(VIP.into(), &[B.into()], None)
            .await
            .unwrap();
        let neighbours =
            Neighbours::open(&nic, &[VIP.into(), VIP6.into(), A.into(), A6.into()]).unwrap();
        (nic, neighbours)
    }

    /// Whether side A answers for an address, which takes it less than a millisecond.
    async fn answers(asker: &Neighbours, address: IpAddr) -> bool {
        for _ in 0..3 {
            if address.is_ipv4() {
                asker.ask(address).unwrap();
            } else {
                asker.probe(address).unwrap();
            }
            let heard = tokio::time::timeout(Duration::from_millis(300), async {
                loop {
                    let heard = asker.receive().await.unwrap();
                    if heard.is_some_and(|heard| {
                        heard.address == address && heard.mac.to_wire() == Side::A.mac()
                    }) {
                        break;
                    }
                }
            });
            if heard.await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Does on side A what is decided, and returns what is noted then.
    async fn apply(
        pair: &Pair,
        netlink: &Netlink,
        wanted: Wanted,
        noted: &[settings::Note],
    ) -> Vec<settings::Note> {
        // What applies to all is read by way of the thread's own namespace.
        pair.enter(Side::A);
        let (seen, _) = netlink.settings().await.unwrap();
        let decision = settings::decide(&seen, noted, wanted);
        for change in &decision.changes {
            netlink.change_setting(change).await.unwrap();
        }
        decision.notes
    }

    /// Sets a value on side A.
    fn sysctl(pair: &Pair, path: &str, value: &str) {
        pair.enter(Side::A);
        fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
    }

    #[test]
    fn a_vip_on_lo_is_kept_quiet_also_with_route_localnet() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let netlink = Netlink::connect().unwrap();
            netlink.add_vip(VIP.into()).await.unwrap();
            pair.enter(Side::B);
            let (_nic, asker) = asker().await;
            assert!(answers(&asker, VIP.into()).await, "the kernel's default");
            for route_localnet in ["0", "1"] {
                sysctl(pair, "ipv4/conf/all/route_localnet", route_localnet);
                let wanted = Wanted {
                    silent: true,
                    loose: None,
                };
                let notes = apply(pair, &netlink, wanted, &[]).await;
                assert_eq!(notes.len(), 2, "arp_ignore and arp_announce of a0");
                assert!(!answers(&asker, VIP.into()).await);
                assert!(answers(&asker, A.into()).await, "its own address");
                assert_eq!(apply(pair, &netlink, Wanted::default(), &notes).await, []);
                assert!(answers(&asker, VIP.into()).await, "as it was before");
            }
            // Why 3 will not do.
            sysctl(pair, "ipv4/conf/a0/arp_ignore", "3");
            assert!(answers(&asker, VIP.into()).await);
            sysctl(pair, "ipv4/conf/all/route_localnet", "0");
            assert!(!answers(&asker, VIP.into()).await);
        });
    }

    #[test]
    fn a_vip_of_ipv6_on_lo_needs_nothing_to_be_quiet() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let netlink = Netlink::connect().unwrap();
            let nic = netlink
                .find_nic(VIP.into(), &[A.into()], None)
                .await
                .unwrap();
            netlink.add_vip(VIP6.into()).await.unwrap();
            // So that its kernel hears the questions.
            let _groups = Groups::join(&nic, &[VIP6.into()]).unwrap();
            for forwards in ["0", "1"] {
                sysctl(pair, "ipv6/conf/all/forwarding", forwards);
                for proxies in ["0", "1"] {
                    sysctl(pair, "ipv6/conf/a0/proxy_ndp", proxies);
                    sysctl(pair, "ipv6/conf/all/proxy_ndp", proxies);
                    pair.enter(Side::B);
                    let (_nic, asker) = asker().await;
                    assert!(answers(&asker, A6.into()).await, "its own address");
                    assert!(!answers(&asker, VIP6.into()).await, "{forwards} {proxies}");
                }
            }
            // What an operator asks for explicitly is theirs.
            pair.enter(Side::A);
            testing::ip(&format!("-6 neighbour add proxy {VIP6} dev a0"));
            pair.enter(Side::B);
            let (_nic, asker) = asker().await;
            assert!(answers(&asker, VIP6.into()).await);
            assert_ne!(A6, B6);
        });
    }

    #[test]
    fn interfaces_are_known_by_what_they_are() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            testing::ip("link add br0 type bridge");
            testing::ip("link add v0 type veth peer name v1");
            testing::ip("link set v0 master br0");
            testing::ip("link set v1 arp off");
            testing::ip("link set v1 up");
            testing::ip("link set v0 up");
            testing::ip("route add 10.77.0.0/16 via 10.9.0.2 dev a0");
            testing::ip("route add 10.78.0.0/16 nexthop via 10.9.0.2 dev a0 nexthop dev v1");
            testing::ip("-6 route add default via fd00:9::2 dev a0");
            let netlink = Netlink::connect().unwrap();
            let (seen, nics) = netlink.settings().await.unwrap();
            let found = |name: &str| nics.iter().find(|nic| nic.interface.name == name).unwrap();
            assert_eq!(found("br0").kind, Kind::Bridge);
            assert_eq!(found("a0").mac, Some(Side::A.mac()));
            let arp = ["a0", "br0", "v0", "v1"].map(|name| found(name).interface.arp);
            assert_eq!(arp, [true, true, false, false]);
            assert_eq!(seen.interfaces.len(), nics.len());
            assert!(
                seen.interfaces
                    .iter()
                    .all(|interface| interface.name != "lo")
            );
            let routes = netlink.routes().await.unwrap();
            let a0 = found("a0").interface.index;
            let v1 = found("v1").interface.index;
            let has = |interface, default, gateway, ipv4| {
                routes.contains(&Route {
                    interface,
                    default,
                    gateway,
                    ipv4,
                })
            };
            assert!(has(a0, false, false, true) && has(a0, false, true, true));
            assert!(has(v1, false, false, true));
            assert!(has(a0, true, true, false));
            let away = ways::others(routes.iter().copied(), 0, |_| Kind::Other);
            assert_eq!(away, [a0].into());
        });
    }
}
