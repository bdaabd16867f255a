//! ARP by packet socket: gratuitous ARP on takeover, and questions to peers. (For IPv6: see
//! [`ndp`](super::ndp).)

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use bytemuck::bytes_of;
use vip_common::wire::addr::{Be16, Be32, Mac};
use vip_common::wire::{Frame as _, arp, ethernet};

use super::filter::{At, Filter};
use super::frames::FrameSocket;
use super::heard::Heard;
use super::{NetError, Nic};

/// Length of an ARP frame in bytes: it has no payload.
const FRAME: usize = ethernet::LENGTH + arp::LENGTH;

/// Where a frame names the IPv4 address of its sender.
const SENDER: At = At::Data(ethernet::LENGTH as u32 + 14);

/// A gratuitous ARP request, which says that `mac` has `vip` (RFC 5227 section 3: an ARP
/// announcement). What most hosts and switches update their tables by.
fn announcement(mac: [u8; 6], vip: Ipv4Addr) -> [u8; FRAME] {
    let sender = (Mac::from_wire(mac), address(vip));
    let target = (Mac::default(), address(vip));
    frame(arp::operation::REQUEST, sender, target)
}

/// A gratuitous ARP reply, which says the same to hosts that take replies only (RFC 5944
/// section 4.6: the target's MAC is the sender's).
fn announcement_reply(mac: [u8; 6], vip: Ipv4Addr) -> [u8; FRAME] {
    let sender = (Mac::from_wire(mac), address(vip));
    frame(arp::operation::REPLY, sender, sender)
}

/// A request of the host `from`, which has `mac`, for the MAC of `target` (RFC 826).
fn question(mac: [u8; 6], from: Ipv4Addr, target: Ipv4Addr) -> [u8; FRAME] {
    let sender = (Mac::from_wire(mac), address(from));
    frame(
        arp::operation::REQUEST,
        sender,
        (Mac::default(), address(target)),
    )
}

/// All go to everybody.
fn frame(operation: Be16, sender: (Mac, Be32), target: (Mac, Be32)) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let (header, packet) = frame.split_at_mut(ethernet::LENGTH);
    header[..6].copy_from_slice(&Mac::BROADCAST.to_wire());
    header[6..12].copy_from_slice(&sender.0.to_wire());
    header[12..].copy_from_slice(&ethernet::ether_type::ARP.raw().to_ne_bytes());
    packet.copy_from_slice(bytes_of(&arp::Packet::new(operation, sender, target)));
    frame
}

fn address(address: Ipv4Addr) -> Be32 {
    Be32::from_wire(address.octets())
}

/// What an ARP frame says of its sender.
fn heard(frame: &[u8]) -> Option<Heard> {
    let packet = frame.view::<arp::Packet>(ethernet::LENGTH)?;
    packet.is_ipv4_over_ethernet().then(|| Heard {
        address: Ipv4Addr::from(packet.sender_address()).into(),
        mac: packet.sender_mac(),
    })
}

/// Lets through what is said of these addresses alone.
fn said_of(addresses: &[IpAddr]) -> Filter {
    Filter::default().address(SENDER, true, addresses)
}

/// Sends and receives ARP frames on one NIC.
#[derive(Debug)]
pub(super) struct ArpSocket {
    frames: FrameSocket,
    address: Ipv4Addr,
}

impl ArpSocket {
    /// Opens it, to hear what is said of these addresses. Must be called within a tokio runtime.
    pub(super) fn open(nic: &Nic, addresses: &[IpAddr]) -> Result<Self, NetError> {
        let filter = said_of(addresses);
        let frames = FrameSocket::open(nic, ethernet::ether_type::ARP, filter.finish())
            .map_err(NetError::io(format!("open an ARP socket on {}", nic.name)))?;
        Ok(Self {
            frames,
            address: match nic.address {
                IpAddr::V4(address) => address,
                // Nobody learns anything from it, then.
                IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
            },
        })
    }

    /// Hears what is said of these addresses from now on.
    pub(super) fn hear(&self, addresses: &[IpAddr]) -> io::Result<()> {
        self.frames.set_filter(said_of(addresses).finish())
    }

    /// The socket itself.
    pub(super) fn frames(&self) -> &FrameSocket {
        &self.frames
    }

    /// Tells everybody that this NIC has `vip`, in both ways.
    pub(super) fn announce(&self, vip: Ipv4Addr) -> io::Result<()> {
        let mac = self.frames.mac();
        self.frames.send(&announcement(mac, vip))?;
        self.frames.send(&announcement_reply(mac, vip))
    }

    /// Asks for the MAC of `target`. The answer comes by [`receive`](Self::receive), and to
    /// the kernel's own table only if that has an entry for it.
    pub(super) fn ask(&self, target: Ipv4Addr) -> io::Result<()> {
        let mac = self.frames.mac();
        self.frames.send(&question(mac, self.address, target))
    }

    /// Asks the host that has `mac` alone whether it has `target`.
    pub(super) fn verify(&self, target: Ipv4Addr, mac: Mac) -> io::Result<()> {
        let mut frame = question(self.frames.mac(), self.address, target);
        frame[..6].copy_from_slice(&mac.to_wire());
        self.frames.send(&frame)
    }

    /// Asks who has `target` without saying who asks (RFC 5227 section 1.1, an ARP probe).
    pub(super) fn probe(&self, target: Ipv4Addr) -> io::Result<()> {
        let mac = self.frames.mac();
        self.frames
            .send(&question(mac, Ipv4Addr::UNSPECIFIED, target))
    }

    /// What the next ARP frame says. Cancel-safe.
    pub(super) async fn receive(&self) -> io::Result<Option<Heard>> {
        let mut buffer = [0; FRAME];
        Ok(heard(self.frames.receive(&mut buffer).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::netlink::Netlink;
    use crate::net::testing::{self, A, B, Side, VIP, within_reach};

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn an_announcement_is_a_request_for_oneself() {
        let expected = [
            &[0xff; 6][..],
            &OWN,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &OWN,
            &VIP.octets(),
            &[0; 6],
            &VIP.octets(),
        ];
        assert_eq!(announcement(OWN, VIP).as_slice(), expected.concat());
    }

    #[test]
    fn an_announcing_reply_names_the_owner_twice() {
        let expected = [
            &[0xff; 6][..],
            &OWN,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
            &OWN,
            &VIP.octets(),
            &OWN,
            &VIP.octets(),
        ];
        assert_eq!(announcement_reply(OWN, VIP).as_slice(), expected.concat());
    }

    #[test]
    fn a_question_names_the_asker() {
        let expected = [
            &[0xff; 6][..],
            &OWN,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &OWN,
            &A.octets(),
            &[0; 6],
            &B.octets(),
        ];
        assert_eq!(question(OWN, A, B).as_slice(), expected.concat());
    }

    #[test]
    fn the_segment_hears_announcements_and_answers_questions() {
        testing::in_two_namespaces(async |pair| {
            let open = async |side, node: IpAddr| {
                pair.enter(side);
                let netlink = Netlink::connect().unwrap();
                let nic = netlink.find_nic(VIP.into(), &[node], None).await.unwrap();
                ArpSocket::open(&nic, &[A.into(), B.into(), VIP.into()]).unwrap()
            };
            let a = open(Side::A, A.into()).await;
            let b = open(Side::B, B.into()).await;
            let hears = async |socket: &ArpSocket, wanted: &[u8]| {
                let mut buffer = [0; 128];
                while within_reach(socket.frames.receive(&mut buffer))
                    .await
                    .unwrap()
                    != wanted
                {}
            };

            // Of an address that nobody asked about: the first that the other one hears is the next.
            a.announce(Ipv4Addr::new(10, 9, 0, 99)).unwrap();
            a.announce(VIP).unwrap();
            let mut buffer = [0; 128];
            let first = within_reach(b.frames.receive(&mut buffer)).await.unwrap();
            assert_eq!(first, announcement(Side::A.mac(), VIP));
            a.announce(VIP).unwrap();
            hears(&b, &announcement(Side::A.mac(), VIP)).await;
            hears(&b, &announcement_reply(Side::A.mac(), VIP)).await;

            a.ask(B).unwrap();
            hears(&b, &question(Side::A.mac(), A, B)).await;
            let mut answer = question(Side::B.mac(), B, A);
            answer[..6].copy_from_slice(&Side::A.mac());
            answer[21] = 2;
            answer[32..38].copy_from_slice(&Side::A.mac());
            hears(&a, &answer).await;

            // The same to B alone.
            a.verify(B, Mac::from_wire(Side::B.mac())).unwrap();
            let mut poll = question(Side::A.mac(), A, B);
            poll[..6].copy_from_slice(&Side::B.mac());
            hears(&b, &poll).await;
            hears(&a, &answer).await;
        });
    }
}
