//! On veth pairs, each test in its own namespaces.

use std::fs;
use std::net::IpAddr;

use futures_util::stream::{BoxStream, StreamExt as _};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkEvent, LinkMessage};
use rtnetlink::packet_core::NetlinkPayload;

use super::watch::event;
use super::{Neighbour, NetEvent, Netlink, Path};
use crate::net::testing::{self, Side, VIP6, within_reach};
use crate::net::{NetError, Nic};

const A: IpAddr = IpAddr::V4(testing::A);
const B: IpAddr = IpAddr::V4(testing::B);
const VIP: IpAddr = IpAddr::V4(testing::VIP);

async fn nic(netlink: &Netlink) -> Nic {
    netlink.find_nic(VIP, &[B, A], None).await.unwrap()
}

async fn until(
    events: &mut BoxStream<'static, NetEvent>,
    mut wanted: impl FnMut(&NetEvent) -> bool,
) -> NetEvent {
    within_reach(async {
        loop {
            let event = events.next().await.expect("the socket stays open");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

#[test]
fn the_node_finds_itself_and_its_nic() {
    testing::in_two_namespaces(async |pair| {
        pair.enter(Side::A);
        let netlink = Netlink::connect().unwrap();
        let nic = nic(&netlink).await;
        assert_eq!((nic.name.as_str(), nic.address), ("a0", A));
        assert_eq!(
            (nic.mac, nic.mtu, nic.prefix_len),
            (Side::A.mac(), 1500, 24)
        );
        assert_eq!((nic.driver.as_deref(), nic.up), (Some("veth"), true));
        let error = netlink.find_nic(VIP, &[B], None).await.unwrap_err();
        assert!(error.to_string().contains(&A.to_string()), "{error}");
    });
}

#[test]
fn the_nic_is_found_by_an_alternative_name() {
    testing::in_two_namespaces(async |pair| {
        pair.enter(Side::A);
        let name = "enp0s31f6-by-a-name-of-more-than-fifteen-characters";
        testing::ip(&format!("link property add dev a0 altname {name}"));
        let netlink = Netlink::connect().unwrap();
        let nic = netlink.find_nic(VIP, &[B, A], Some(name)).await.unwrap();
        assert_eq!(nic.name, "a0");
        let error = netlink.find_nic(VIP, &[B, A], Some("enp9")).await;
        assert!(error.unwrap_err().to_string().contains("no interface enp9"));
    });
}

#[test]
fn an_address_that_is_tentative_is_waited_for() {
    testing::in_two_namespaces(async |pair| {
        pair.enter(Side::A);
        let netlink = Netlink::connect().unwrap();
        let own = "fd77::11".parse().unwrap();
        let vip = "fd77::10".parse().unwrap();
        let find = async || netlink.find_nic(vip, &[own], None).await;
        let mut events = netlink.watch(1).unwrap();
        // Two questions, a second apart.
        let questions = "/proc/sys/net/ipv6/conf/a0/dad_transmits";
        fs::write(questions, "2").unwrap();
        testing::ip("address add fd77::11/64 dev a0");
        let error = find().await.unwrap_err();
        assert!(
            matches!(error, NetError::Tentative { address, .. } if address == own),
            "{error}"
        );
        // The kernel tells of it when it may be used.
        within_reach(async {
            while find().await.is_err() {
                until(
                    &mut events,
                    |event| matches!(event, NetEvent::Address { address, .. } if *address == own),
                )
                .await;
            }
        })
        .await;
    });
}

#[test]
fn the_vip_is_put_on_lo_once_and_taken_off() {
    testing::in_two_namespaces(async |pair| {
        pair.enter(Side::A);
        testing::ip("link set lo down");
        let netlink = Netlink::connect().unwrap();
        for (vip, whole) in [(VIP, 32), (IpAddr::from(VIP6), 128)] {
            assert!(netlink.places_of(vip).await.unwrap().is_empty());
            for _ in 0..2 {
                netlink.add_vip(vip).await.unwrap();
                assert_eq!(netlink.places_of(vip).await.unwrap(), ["lo"]);
            }
            let addresses = netlink.addresses().await.unwrap();
            let ours = addresses.iter().find(|local| local.address == vip).unwrap();
            assert_eq!(ours.prefix_len, whole);
            assert_eq!(ours.host_scope, vip.is_ipv4());
            assert!(netlink.loopback().await.unwrap().enabled);
            for _ in 0..2 {
                netlink.remove_vip(vip).await.unwrap();
                assert!(netlink.places_of(vip).await.unwrap().is_empty());
            }
        }
    });
}

#[test]
fn a_vip_of_global_scope_on_lo_is_replaced() {
    testing::in_two_namespaces(async |pair| {
        pair.enter(Side::A);
        testing::ip(&format!("address add {VIP}/32 dev lo scope global"));
        let netlink = Netlink::connect().unwrap();
        netlink.add_vip(VIP).await.unwrap();
        let addresses = netlink.addresses().await.unwrap();
        let ours = addresses.iter().filter(|local| local.address == VIP);
        assert_eq!(
            ours.map(|local| local.host_scope).collect::<Vec<_>>(),
            [true]
        );
    });
}

#[test]
fn a_vip_on_the_nic_is_seen_there() {
    testing::in_two_namespaces(async |pair| {
        pair.enter(Side::A);
        testing::ip(&format!("address add {VIP}/24 dev a0"));
        let netlink = Netlink::connect().unwrap();
        netlink.add_vip(VIP).await.unwrap();
        assert_eq!(netlink.places_of(VIP).await.unwrap(), ["lo", "a0"]);
    });
}

#[test]
fn what_the_kernel_announces_on_the_nic_is_told_of() {
    let told = |reason, index| {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Event(reason));
        let message = RouteNetlinkMessage::NewLink(message);
        event(7, NetlinkPayload::InnerMessage(message))
    };
    for reason in [LinkEvent::NotifyPeers, LinkEvent::BondingFailover] {
        assert_eq!(told(reason, 7), Some(NetEvent::Announce));
        assert_eq!(told(reason, 8), Some(NetEvent::OtherLink));
    }
    assert_eq!(told(LinkEvent::Features, 7), Some(NetEvent::Link));
}

#[test]
fn a_route_by_a_router_is_told_from_a_direct_one() {
    testing::in_two_namespaces(async |pair| {
        pair.enter(Side::A);
        let netlink = Netlink::connect().unwrap();
        let nic = nic(&netlink).await;
        let path = async |to| netlink.path(A, to, Some(nic.index)).await.unwrap();
        let direct = Path {
            interface: nic.index,
            gateway: None,
        };
        assert_eq!(path(B).await, Some(direct));
        testing::ip(&format!("route add 10.9.0.77/32 via {B}"));
        let routed = Path {
            gateway: Some(B),
            ..direct
        };
        assert_eq!(path([10, 9, 0, 77].into()).await, Some(routed));
    });
}

#[test]
fn a_neighbour_that_is_asked_for_is_told_of() {
    testing::in_two_namespaces(async |pair| {
        pair.enter(Side::A);
        let netlink = Netlink::connect().unwrap();
        let nic = nic(&netlink).await;
        let mut events = netlink.watch(nic.index).unwrap();
        netlink.resolve(nic.index, B).await.unwrap();
        let found = Neighbour {
            address: B,
            mac: Some(Side::B.mac()),
        };
        until(&mut events, |event| *event == NetEvent::Neighbour(found)).await;
        assert!(
            netlink
                .neighbours(nic.index)
                .await
                .unwrap()
                .contains(&found)
        );
        // One that is known may be asked for too.
        netlink.resolve(nic.index, B).await.unwrap();

        testing::ip("neighbour flush dev a0");
        let lost = Neighbour { mac: None, ..found };
        until(&mut events, |event| *event == NetEvent::Neighbour(lost)).await;
    });
}

#[test]
fn a_neighbour_that_does_not_answer_has_no_mac() {
    testing::in_two_namespaces(async |pair| {
        pair.enter(Side::A);
        let netlink = Netlink::connect().unwrap();
        let nic = nic(&netlink).await;
        let mut events = netlink.watch(nic.index).unwrap();
        let nobody = IpAddr::from([10, 9, 0, 77]);
        netlink.resolve(nic.index, nobody).await.unwrap();
        let unknown = Neighbour {
            address: nobody,
            mac: None,
        };
        until(&mut events, |event| *event == NetEvent::Neighbour(unknown)).await;
        assert!(
            netlink
                .neighbours(nic.index)
                .await
                .unwrap()
                .contains(&unknown)
        );
    });
}

#[test]
fn a_neighbour_that_does_not_answer_is_confirmed_and_a_permanent_entry_stays() {
    testing::in_two_namespaces(async |pair| {
        pair.enter(Side::A);
        let netlink = Netlink::connect().unwrap();
        let nic = nic(&netlink).await;
        let mut events = netlink.watch(nic.index).unwrap();
        let nobody = IpAddr::from([10, 9, 0, 77]);
        let by_ipv6 = "fd77::77".parse().unwrap();
        let fixed = IpAddr::from([10, 9, 0, 78]);
        testing::ip(&format!(
            "neighbour add {fixed} lladdr 02:00:00:00:00:99 dev a0 nud permanent"
        ));
        netlink.resolve(nic.index, nobody).await.unwrap();
        let unknown = Neighbour {
            address: nobody,
            mac: None,
        };
        until(&mut events, |event| *event == NetEvent::Neighbour(unknown)).await;
        let mac = [2, 0, 0, 0, 0, 0x77];
        // Again, as the agent does it every two seconds.
        for _ in 0..2 {
            let all = [nobody, by_ipv6, fixed];
            netlink.confirm(nic.index, &all, mac).await.unwrap();
        }
        for address in [nobody, by_ipv6] {
            let shown = testing::ip(&format!("neighbour show {address} dev a0"));
            assert!(shown.contains("02:00:00:00:00:77 REACHABLE"), "{shown}");
        }
        let shown = testing::ip(&format!("neighbour show {fixed} dev a0"));
        assert!(shown.contains("02:00:00:00:00:99 PERMANENT"), "{shown}");
    });
}

#[test]
fn carrier_link_and_address_changes_are_told_of() {
    testing::in_two_namespaces(async |pair| {
        pair.enter(Side::A);
        let netlink = Netlink::connect().unwrap();
        let nic = nic(&netlink).await;
        let mut events = netlink.watch(nic.index).unwrap();

        testing::ip(&format!("address add {VIP}/24 dev a0"));
        let added = NetEvent::Address {
            index: nic.index,
            address: VIP,
            present: true,
        };
        until(&mut events, |event| *event == added).await;

        // Names and programs change with the link, so one event says to look at all of it.
        for (change, name, up) in [
            ("link set b0 down", "a0", false),
            ("link set b0 up", "a0", true),
        ] {
            pair.enter(Side::B);
            testing::ip(change);
            within_reach(async {
                loop {
                    until(&mut events, |event| *event == NetEvent::Link).await;
                    let link = netlink.link(nic.index).await.unwrap().expect("is there");
                    if (link.name.as_str(), link.up) == (name, up) {
                        break;
                    }
                }
            })
            .await;
        }
        assert!(netlink.has_address(nic.index, A).await.unwrap());
        assert!(!netlink.has_address(nic.index, B).await.unwrap());
        testing::ip("link delete b0");
        within_reach(async {
            while netlink.link(nic.index).await.unwrap().is_some() {
                until(&mut events, |event| *event == NetEvent::LinkGone).await;
            }
        })
        .await;
    });
}
