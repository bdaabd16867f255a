//! Neighbour Discovery by packet socket: unsolicited advertisements on takeover, questions to
//! peers, and the groups that solicitations for the VIPs go to.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::bytes_of;
use nix::libc;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vip_common::layout::{Be128, Mac};
use vip_common::wire::{ethernet, icmp, ipv6, ndp};

use super::announce::{packed, unpacked};
use super::{NetError, Nic, raw};

/// Frame around a message of Neighbour Discovery, whose checksum is put in.
fn frame(mac: [u8; 6], source: Be128, group: Be128, message: &[u8]) -> Vec<u8> {
    let header = ipv6::Header::new(
        source,
        group,
        ipv6::next_header::ICMP,
        ndp::HOP_LIMIT,
        message.len() as u16,
    );
    let mut message = message.to_vec();
    message[icmp::CHECKSUM..][..2].fill(0);
    let sum = ndp::checksum(&message, source, group);
    message[icmp::CHECKSUM..][..2].copy_from_slice(&sum.raw().to_ne_bytes());
    [
        &ndp::group_mac(group).to_wire()[..],
        &mac,
        &ethernet::ether_type::IPV6.raw().to_ne_bytes(),
        bytes_of(&header),
        &message,
    ]
    .concat()
}

/// An unsolicited advertisement: `mac` has `vip` (RFC 4861, section 7.2.6). It comes from the
/// VIP, which is as much an address of the node as any other.
#[must_use]
pub fn announcement(mac: [u8; 6], vip: Ipv6Addr) -> Vec<u8> {
    let vip = IpAddr::from(vip).into();
    let message = ndp::Advertisement::new(
        vip,
        Mac::from_wire(mac),
        ndp::flag::OVERRIDE,
        vip,
        ipv6::ALL_NODES,
    );
    frame(mac, vip, ipv6::ALL_NODES, bytes_of(&message))
}

/// A solicitation for `target`. From the unspecified address it asks whether anybody has it
/// without saying who asks (RFC 4862, section 5.4.2), and all hear the answer; else the asker is.
#[must_use]
pub fn question(mac: [u8; 6], from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let (source, target) = (IpAddr::from(from).into(), IpAddr::from(target).into());
    let mut message = bytes_of(&ndp::Message::solicitation(target)).to_vec();
    if !from.is_unspecified() {
        // The asker's Ethernet address (section 4.6.1).
        message.extend([1, 1]);
        message.extend(mac);
    }
    frame(mac, source, ndp::solicited_node(target), &message)
}

/// Sends Neighbour Discovery on one NIC, and receives advertisements.
#[derive(Debug)]
pub struct NdpSocket {
    socket: AsyncFd<Socket>,
    /// The NIC's, first byte lowest: it may change while another thread announces.
    mac: AtomicU64,
    address: Ipv6Addr,
    /// Holds the memberships: without them neither NIC nor switch lets solicitations through.
    _groups: Socket,
}

impl NdpSocket {
    /// Opens it, and joins the groups that solicitations for `vips` go to. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// No `CAP_NET_RAW`, the NIC is gone, or has IPv6 turned off.
    pub fn open(nic: &Nic, vips: &[Ipv6Addr]) -> Result<Self, NetError> {
        let open = || -> io::Result<_> {
            // Protocol 0 gets nothing until it is bound; else it would get that of all NICs.
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
            socket.set_nonblocking(true)?;
            socket.attach_filter(&ADVERTISEMENTS)?;
            socket.bind(&raw::link_layer(nic.index, ethernet::ether_type::IPV6)?)?;
            raw::readable(socket)
        };
        let socket = open().map_err(NetError::io(format!("open an NDP socket on {}", nic.name)))?;
        let join = || -> io::Result<_> {
            let groups = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
            for vip in vips {
                let group = ndp::solicited_node(IpAddr::from(*vip).into());
                groups.join_multicast_v6(&Ipv6Addr::from(group.to_wire()), nic.index)?;
            }
            Ok(groups)
        };
        let groups = join().map_err(NetError::io(format!(
            "join the solicited-node groups of the VIPs on {}",
            nic.name
        )))?;
        Ok(Self {
            socket,
            mac: AtomicU64::new(packed(nic.mac)),
            address: match nic.address {
                IpAddr::V6(address) => address,
                IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
            },
            _groups: groups,
        })
    }

    /// The NIC has another Ethernet address.
    pub fn set_mac(&self, mac: [u8; 6]) {
        self.mac.store(packed(mac), Ordering::Relaxed);
    }

    fn mac(&self) -> [u8; 6] {
        unpacked(self.mac.load(Ordering::Relaxed))
    }

    /// Tells everybody that this NIC has `vip`.
    ///
    /// # Errors
    /// The kernel's: link down, queue full.
    pub fn announce(&self, vip: Ipv6Addr) -> io::Result<()> {
        self.send(&announcement(self.mac(), vip))
    }

    /// Asks for the MAC of `target`. The answer comes by [`receive`](Self::receive).
    ///
    /// # Errors
    /// The kernel's: link down, queue full.
    pub fn ask(&self, target: Ipv6Addr) -> io::Result<()> {
        self.send(&question(self.mac(), self.address, target))
    }

    /// Asks who has `target` without saying who asks: no host learns anything from it.
    ///
    /// # Errors
    /// The kernel's: link down, queue full.
    pub fn probe(&self, target: Ipv6Addr) -> io::Result<()> {
        self.send(&question(self.mac(), Ipv6Addr::UNSPECIFIED, target))
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.get_ref().send(frame).map(drop)
    }

    /// The next advertisement that XDP passed, Ethernet header included, and cut to what
    /// `buffer` holds. Cancel-safe.
    ///
    /// # Errors
    /// The kernel's: link down.
    pub async fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = self
            .socket
            .async_io(Interest::READABLE, |mut socket| socket.read(buffer))
            .await?;
        Ok(&buffer[..length])
    }
}

/// Lets through advertisements alone, as they lie in an Ethernet frame: the agent is not to wake
/// for each packet of IPv6.
const ADVERTISEMENTS: [SockFilter; 6] = {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// Place of the next header in the IPv6 header.
    const NEXT_HEADER: u32 = 6;
    let protocol = ethernet::LENGTH as u32 + NEXT_HEADER;
    let kind = (ethernet::LENGTH + ipv6::LENGTH) as u32;
    [
        SockFilter::new(LOAD, 0, 0, protocol),
        SockFilter::new(EQUAL, 0, 3, ipv6::next_header::ICMP as u32),
        SockFilter::new(LOAD, 0, 0, kind),
        SockFilter::new(EQUAL, 0, 1, ndp::kind::ADVERTISEMENT as u32),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::netlink::Netlink;
    use crate::net::testing::{self, A, A6, B, B6, Side, VIP, VIP6, within_reach};

    #[test]
    fn the_segment_hears_announcements_and_answers_questions() {
        testing::in_two_namespaces(async |pair| {
            let open = async |side, node: IpAddr, address| {
                pair.enter(side);
                let netlink = Netlink::connect().unwrap();
                let nic = netlink.find_nic(VIP.into(), &[node], None).await.unwrap();
                let nic = Nic {
                    address: IpAddr::from(address),
                    ..nic
                };
                NdpSocket::open(&nic, &[VIP6]).unwrap()
            };
            let a = open(Side::A, A.into(), A6).await;
            let b = open(Side::B, B.into(), B6).await;
            let hears = async |socket: &NdpSocket, wanted: &[u8]| {
                let mut buffer = [0; 128];
                while within_reach(socket.receive(&mut buffer)).await.unwrap() != wanted {}
            };
            a.announce(VIP6).unwrap();
            hears(&b, &announcement(Side::A.mac(), VIP6)).await;

            // The kernel over there believes checksum and form, or it would not answer.
            a.ask(B6).unwrap();
            let mut buffer = [0; 128];
            loop {
                let frame = within_reach(a.receive(&mut buffer)).await.unwrap();
                if frame[6..12] == Side::B.mac() && frame[62..78] == B6.octets() {
                    break;
                }
            }
            pair.enter(Side::A);
            let joined = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
            assert!(joined.contains("ff0200000000000000000001ff"), "{joined}");
        });
    }

    #[test]
    fn a_question_from_nobody_has_no_option() {
        let anonymous = question([2; 6], Ipv6Addr::UNSPECIFIED, VIP6);
        let named = question([2; 6], A6, VIP6);
        assert_eq!((anonymous.len(), named.len()), (78, 86));
    }
}
