//! Answers of hosts that are no nodes: proof that the segment works in both directions.
//!
//! The questions are sent by [`Neighbours::verify`](super::Neighbours::verify). The answers come by
//! a socket of their own, because the thread that keeps time waits for them.

use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use vip_common::wire::addr::{Be16, Mac};
use vip_common::wire::{Frame as _, arp, ethernet, ipv6, ndp};

use super::filter::{At, Filter};
use super::frames::untagged;
use super::{NetError, Nic, raw};

/// As much of a frame as is looked at.
const FRAME: usize = ethernet::LENGTH;

/// Where an ARP packet has its operation and its target's IPv4 address (RFC 826).
const OPERATION: At = At::Data(ethernet::LENGTH as u32 + 6);
const TARGET: At = At::Data(ethernet::LENGTH as u32 + 24);

/// Where an IPv6 header has its next header and its destination.
const NEXT_HEADER: At = At::Data(ethernet::LENGTH as u32 + 6);
const DESTINATION: At = At::Data(ethernet::LENGTH as u32 + 24);

/// Receives answers to this node's questions by ARP or Neighbor Discovery.
#[derive(Debug)]
pub struct WitnessSocket(Socket);

impl WitnessSocket {
    /// Opens it on a NIC, for answers to its address.
    ///
    /// # Errors
    /// No `CAP_NET_RAW`, or the NIC is gone.
    pub fn open(nic: &Nic) -> Result<Self, NetError> {
        let what = format!("open a packet socket on {}", nic.name);
        Self::try_open(nic).map_err(NetError::io(what))
    }

    fn try_open(nic: &Nic) -> io::Result<Self> {
        let (ether_type, filter) = answers_to(nic.address);
        // Protocol 0 gets nothing until it is bound; else it would get that of all NICs.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        let filter: Vec<SockFilter> = untagged().into_iter().chain(filter.finish()).collect();
        socket.attach_filter(&filter)?;
        socket.bind(&raw::link_layer(nic.index, ether_type)?)?;
        Ok(Self(socket))
    }

    /// The Ethernet address of the host that has answered; `None` if no further one has.
    ///
    /// # Errors
    /// The kernel's: link down.
    pub fn receive(&self) -> io::Result<Option<Mac>> {
        let mut buffer = [0; FRAME];
        match (&self.0).read(&mut buffer) {
            Ok(length) => Ok(buffer[..length]
                .view::<ethernet::Header>(0)
                .map(ethernet::Header::source)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for WitnessSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets through ARP replies, or Neighbor Advertisements, to this address alone.
fn answers_to(address: IpAddr) -> (Be16, Filter) {
    match address {
        IpAddr::V4(_) => {
            let filter = Filter::default()
                .half(OPERATION, arp::operation::REPLY.get())
                .address(TARGET, true, &[address]);
            (ethernet::ether_type::ARP, filter)
        }
        IpAddr::V6(_) => {
            let kind = At::Data((ethernet::LENGTH + ipv6::LENGTH) as u32);
            let filter = Filter::default()
                .byte(NEXT_HEADER, ipv6::next_header::ICMP)
                .byte(kind, ndp::kind::ADVERTISEMENT)
                .address(DESTINATION, false, &[address]);
            (ethernet::ether_type::IPV6, filter)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Neighbours;
    use crate::net::netlink::Netlink;
    use crate::net::testing::{self, A, A6, B, B6, Side, VIP, within_reach};

    #[test]
    fn answer_of_another_host_is_heard_with_its_ethernet_address() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let netlink = Netlink::connect().unwrap();
            let nic = netlink
                .find_nic(VIP.into(), &[A.into()], None)
                .await
                .unwrap();
            for (own, other) in [(A.into(), B.into()), (A6.into(), B6.into())] {
                let nic = Nic {
                    address: own,
                    ..nic.clone()
                };
                let socket = WitnessSocket::open(&nic).unwrap();
                let neighbours = Neighbours::open(&nic, &[own, other]).unwrap();
                let mac = Mac::from_wire(Side::B.mac());
                let answers = async {
                    loop {
                        // An address may still be tentative.
                        neighbours.verify(other, mac).unwrap();
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        if let Some(mac) = socket.receive().unwrap() {
                            return mac;
                        }
                    }
                };
                assert_eq!(within_reach(answers).await, mac, "{other}");
            }
        });
    }
}
