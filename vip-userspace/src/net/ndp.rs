//! Neighbour Discovery by packet socket: unsolicited advertisements on takeover, questions to
//! peers, and the groups that solicitations for the VIPs go to. (For IPv4: see
//! [`arp`](super::arp).)

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use bytemuck::bytes_of;
use socket2::{Domain, Socket, Type};
use vip_common::wire::addr::{Be128, Mac};
use vip_common::wire::{Frame as _, ethernet, icmp, ipv6, ndp};

use super::filter::{At, Filter};
use super::frames::FrameSocket;
use super::heard::Heard;
use super::{NetError, Nic};

/// Frame around a message of Neighbour Discovery.
fn frame(mac: [u8; 6], source: Be128, group: Be128, message: &[u8]) -> Vec<u8> {
    let header = ipv6::Header::new(
        source,
        group,
        ipv6::next_header::ICMP,
        ndp::HOP_LIMIT,
        message.len() as u16,
    );
    [
        &ndp::group_mac(group).to_wire()[..],
        &mac,
        &ethernet::ether_type::IPV6.raw().to_ne_bytes(),
        bytes_of(&header),
        message,
    ]
    .concat()
}

/// An unsolicited advertisement: `mac` has `vip` (RFC 4861, section 7.2.6). It comes from the
/// VIP, which is as much an address of the node as any other.
fn announcement(mac: [u8; 6], vip: Ipv6Addr) -> Vec<u8> {
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
/// without saying who asks (RFC 4862, section 5.4.2), and all hear the answer; else
/// the asker alone does.
fn question(mac: [u8; 6], from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let (source, target): (Be128, Be128) = (IpAddr::from(from).into(), IpAddr::from(target).into());
    let group = ndp::solicited_node(target);
    let mut message = bytes_of(&ndp::Message::solicitation(target)).to_vec();
    if !from.is_unspecified() {
        // The asker's Ethernet address (section 4.6.1).
        message.extend([1, 1]);
        message.extend(mac);
    }
    let sum = ndp::checksum(&message, source, group);
    message[icmp::CHECKSUM..][..2].copy_from_slice(&sum.raw().to_ne_bytes());
    frame(mac, source, group, &message)
}

/// Memberships in the groups that solicitations for some addresses go to. Without them neither
/// NIC nor switch lets solicitations through.
#[derive(Debug)]
pub struct Groups {
    _socket: Socket,
}

impl Groups {
    /// Joins those of the addresses that are of IPv6.
    ///
    /// # Errors
    /// The NIC is gone, or has IPv6 turned off.
    pub fn join(nic: &Nic, addresses: &[IpAddr]) -> Result<Self, NetError> {
        let join = || {
            let groups = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
            for address in addresses.iter().filter(|address| address.is_ipv6()) {
                let group = ndp::solicited_node((*address).into());
                groups.join_multicast_v6(&Ipv6Addr::from(group.to_wire()), nic.index)?;
            }
            Ok(Self { _socket: groups })
        };
        join().map_err(NetError::io(format!(
            "join the solicited-node groups of the VIPs on {}",
            nic.name
        )))
    }
}

/// What a neighbour advertisement says of its target.
fn heard(frame: &[u8]) -> Option<Heard> {
    let message = frame.view::<ndp::Message>(ethernet::LENGTH + ipv6::LENGTH)?;
    Some(Heard {
        address: message.target().into(),
        mac: frame.view::<ethernet::Header>(0)?.source(),
    })
}

/// Enough of a frame to see what an advertisement says.
const FRAME: usize = ethernet::LENGTH + ipv6::LENGTH + ndp::WITH_OPTION;

/// Sends Neighbour Discovery on one NIC, and receives advertisements.
#[derive(Debug)]
pub(super) struct NdpSocket {
    frames: FrameSocket,
    address: Ipv6Addr,
}

impl NdpSocket {
    /// Opens it, to hear what is said of these addresses. Must be called within a tokio runtime.
    pub(super) fn open(nic: &Nic, addresses: &[IpAddr]) -> Result<Self, NetError> {
        let filter = advertisements(addresses);
        let frames = FrameSocket::open(nic, ethernet::ether_type::IPV6, filter.finish())
            .map_err(NetError::io(format!("open an NDP socket on {}", nic.name)))?;
        Ok(Self {
            frames,
            address: match nic.address {
                IpAddr::V6(address) => address,
                IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
            },
        })
    }

    /// Hears what is said of these addresses from now on.
    pub(super) fn hear(&self, addresses: &[IpAddr]) -> io::Result<()> {
        self.frames.set_filter(advertisements(addresses).finish())
    }

    /// The socket itself.
    pub(super) fn frames(&self) -> &FrameSocket {
        &self.frames
    }

    /// Tells everybody that this NIC has `vip`.
    pub(super) fn announce(&self, vip: Ipv6Addr) -> io::Result<()> {
        self.frames.send(&announcement(self.frames.mac(), vip))
    }

    /// Asks for the MAC of `target`. The answer comes by [`receive`](Self::receive).
    pub(super) fn ask(&self, target: Ipv6Addr) -> io::Result<()> {
        let mac = self.frames.mac();
        self.frames.send(&question(mac, self.address, target))
    }

    /// Asks the host that has `mac` alone whether it has `target`. The group's address in it may go
    /// to one host (RFC 6085).
    pub(super) fn verify(&self, target: Ipv6Addr, mac: Mac) -> io::Result<()> {
        let mut frame = question(self.frames.mac(), self.address, target);
        frame[..6].copy_from_slice(&mac.to_wire());
        self.frames.send(&frame)
    }

    /// Asks who has `target` without saying who asks.
    pub(super) fn probe(&self, target: Ipv6Addr) -> io::Result<()> {
        let mac = self.frames.mac();
        self.frames
            .send(&question(mac, Ipv6Addr::UNSPECIFIED, target))
    }

    /// What the next advertisement says. Cancel-safe.
    pub(super) async fn receive(&self) -> io::Result<Option<Heard>> {
        let mut buffer = [0; FRAME];
        Ok(heard(self.frames.receive(&mut buffer).await?))
    }
}

/// Lets through advertisements of these addresses alone, as they lie in an Ethernet frame: the
/// agent is not to wake for each packet of IPv6.
fn advertisements(addresses: &[IpAddr]) -> Filter {
    /// Places in the IPv6 header, and of the target behind it.
    const NEXT_HEADER: u32 = 6;
    const HOP_LIMIT: u32 = 7;
    const TARGET: u32 = ipv6::LENGTH as u32 + 8;
    let at = |offset| At::Data(ethernet::LENGTH as u32 + offset);
    Filter::default()
        .byte(at(NEXT_HEADER), ipv6::next_header::ICMP)
        .byte(at(HOP_LIMIT), ndp::HOP_LIMIT)
        .byte(at(ipv6::LENGTH as u32), ndp::kind::ADVERTISEMENT)
        .address(at(TARGET), false, addresses)
}

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
                let groups = Groups::join(&nic, &[VIP6.into()]).unwrap();
                (
                    NdpSocket::open(&nic, &[A6.into(), B6.into(), VIP6.into()]).unwrap(),
                    groups,
                )
            };
            let (a, _groups) = open(Side::A, A.into(), A6).await;
            let (b, _groups_b) = open(Side::B, B.into(), B6).await;
            let hears = async |socket: &NdpSocket, wanted: &[u8]| {
                let mut buffer = [0; 128];
                while within_reach(socket.frames.receive(&mut buffer))
                    .await
                    .unwrap()
                    != wanted
                {}
            };
            // Of an address that nobody asked about: the first that the other one hears is the next.
            a.announce(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0x99))
                .unwrap();
            a.announce(VIP6).unwrap();
            let mut buffer = [0; 128];
            let first = within_reach(b.frames.receive(&mut buffer)).await.unwrap();
            assert_eq!(first, announcement(Side::A.mac(), VIP6));
            a.announce(VIP6).unwrap();
            hears(&b, &announcement(Side::A.mac(), VIP6)).await;

            // The other kernel accepts checksum and form, or it would not answer.
            a.ask(B6).unwrap();
            let mut buffer = [0; 128];
            loop {
                let frame = within_reach(a.frames.receive(&mut buffer)).await.unwrap();
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
