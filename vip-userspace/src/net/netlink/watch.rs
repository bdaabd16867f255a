//! Changes of the node's network, as the kernel tells of them.

use std::net::IpAddr;

use futures_util::stream::{BoxStream, StreamExt as _};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkEvent, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;

use super::Netlink;
use super::addresses::local_address;
use super::neighbours::{Neighbour, neighbour};
use crate::net::NetError;

/// A change of the node's network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetEvent {
    /// A neighbour on the NIC was found, moved or was lost. The kernel also drops entries that
    /// nobody used for long: that one is lost does not say that it is down.
    Neighbour(Neighbour),
    /// The NIC changed: look at it.
    Link,
    /// The NIC is gone. Another one may have its number by the time that this is read.
    LinkGone,
    /// Hosts and switches must learn anew where the NIC's addresses are: a bond sends by another
    /// port, a virtual machine has moved. The kernel tells them of the addresses on the NIC, and
    /// not of those on `lo`.
    Announce,
    /// Another interface came, changed or went.
    OtherLink,
    /// An address came or went, on any interface.
    Address {
        /// Index of the interface.
        index: u32,
        /// The address.
        address: IpAddr,
        /// Whether it is there now.
        present: bool,
    },
    /// More happened than the socket could hold, and some of it is lost: look at all again.
    Overrun,
}

impl Netlink {
    /// Changes from now on, of neighbours of the NIC, and of all links and addresses. Call it
    /// before looking at what is there, so that nothing falls in between. Ends if the socket
    /// does.
    ///
    /// # Errors
    /// The socket cannot be opened.
    ///
    /// # Panics
    /// If there is no tokio runtime.
    pub fn watch(&self, nic_index: u32) -> Result<BoxStream<'static, NetEvent>, NetError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(NetError::io("open a netlink socket for changes"))?;
        tokio::spawn(connection);
        let events = messages
            .filter_map(move |(message, _)| std::future::ready(event(nic_index, message.payload)));
        Ok(events.boxed())
    }
}

pub(super) fn event(
    nic_index: u32,
    payload: NetlinkPayload<RouteNetlinkMessage>,
) -> Option<NetEvent> {
    let message = match payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(NetEvent::Overrun),
        _ => return None,
    };
    // A bridge tells of its ports too, in its own family.
    let is_nic = |message: &LinkMessage| {
        message.header.index == nic_index
            && message.header.interface_family == AddressFamily::Unspec
    };
    match message {
        RouteNetlinkMessage::NewNeighbour(message) if message.header.ifindex == nic_index => {
            neighbour(&message).map(NetEvent::Neighbour)
        }
        RouteNetlinkMessage::DelNeighbour(message) if message.header.ifindex == nic_index => {
            let lost = Neighbour {
                mac: None,
                ..neighbour(&message)?
            };
            Some(NetEvent::Neighbour(lost))
        }
        RouteNetlinkMessage::NewLink(message) if is_nic(&message) => {
            let announce = message.attributes.iter().any(must_be_announced);
            Some(if announce {
                NetEvent::Announce
            } else {
                NetEvent::Link
            })
        }
        RouteNetlinkMessage::DelLink(message) if is_nic(&message) => Some(NetEvent::LinkGone),
        RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)
            if message.header.interface_family == AddressFamily::Unspec
                && message.header.index != nic_index =>
        {
            Some(NetEvent::OtherLink)
        }
        RouteNetlinkMessage::NewAddress(message) => address_event(&message, true),
        RouteNetlinkMessage::DelAddress(message) => address_event(&message, false),
        _ => None,
    }
}

/// The kernel's own reason to announce what is on the NIC (`IFLA_EVENT`).
fn must_be_announced(attribute: &LinkAttribute) -> bool {
    matches!(
        attribute,
        LinkAttribute::Event(LinkEvent::NotifyPeers | LinkEvent::BondingFailover)
    )
}

fn address_event(message: &AddressMessage, present: bool) -> Option<NetEvent> {
    Some(NetEvent::Address {
        index: message.header.index,
        address: local_address(message)?,
        present,
    })
}
