//! What agents on the segment say to this node, whoever they are and whether it gets to the agent's
//! own sockets or not: VRRP and BFD as they come to the NIC, before any firewall of this node.
//!
//! The kernel asks a filter about every packet that comes in while this listens, so it is not to be
//! open all the time: a second now and then is enough to hear who is there.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use nix::libc;
use socket2::SockFilter;
use tokio::time::timeout;
use vip_common::wire::addr::Be128;
use vip_common::wire::bfd::{self, ControlPacket, State};
use vip_common::wire::vrrp::{self, Advertisement};
use vip_common::wire::{Frame as _, ethernet, ipv4, ipv6};

use super::frames::FrameSocket;
use super::{NetError, Nic};

/// IANA's number of UDP.
const UDP: u8 = 17;

/// Length of its header in bytes (RFC 768).
const UDP_LENGTH: usize = 8;

/// Longest packet that is looked at: an advertisement behind an IP header with all its options.
const FRAME: usize = 512;

/// Packets that are looked at in one go. Twice what fifteen nodes say in a second and a half.
const MOST: usize = 2000;

/// How long to listen. While a session is down BFD speaks once a second at least (RFC 5880, section
/// 6.8.3).
pub const LISTEN: Duration = Duration::from_millis(1300);

/// What was heard of one host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Overheard {
    /// TTL or hop limit of the last BFD packet.
    pub bfd: Option<u8>,
    /// Its BFD session is down and has never heard of one of this node.
    pub unanswered: bool,
    /// TTL or hop limit of the last advertisement of our virtual router.
    pub vrrp: Option<u8>,
}

/// Which virtual router is ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Router {
    /// VRRP's number.
    pub id: u8,
    /// An address that it advertises.
    pub vip: IpAddr,
}

/// Listens on a NIC for a moment, for packets of the node's family. Returns what was heard, by the
/// address of who said it.
///
/// # Errors
/// No `CAP_NET_RAW`; the NIC is gone or down.
pub async fn overhear(nic: &Nic, router: Router) -> Result<BTreeMap<IpAddr, Overheard>, NetError> {
    let refused = || NetError::io(format!("listen on {} for other agents", nic.name));
    let socket = if nic.address.is_ipv4() {
        FrameSocket::open(nic, ethernet::ether_type::IPV4, IPV4)
    } else {
        FrameSocket::open(nic, ethernet::ether_type::IPV6, IPV6)
    };
    let socket = socket.map_err(refused())?;
    let mut heard = BTreeMap::<IpAddr, Overheard>::new();
    let listen = async {
        let mut buffer = [0; FRAME];
        for _ in 0..MOST {
            let frame = socket.receive(&mut buffer).await?;
            // What is for another host's address comes here if that was this host's before: the others
            // may not have learned of it.
            let is_for_this = |packet: &Packet| {
                packet.source != nic.address
                    && (packet.destination == nic.address || packet.destination.is_multicast())
            };
            let Some(packet) = parse(frame).filter(is_for_this) else {
                continue;
            };
            match packet.said {
                Said::Bfd(says) => {
                    let entry = heard.entry(packet.source).or_default();
                    entry.bfd = Some(packet.ttl);
                    entry.unanswered = says.state == State::Down && says.your_discriminator == 0;
                }
                Said::Vrrp(advert)
                    if advert.router_id == router.id && advert.addresses.contains(router.vip) =>
                {
                    heard.entry(packet.source).or_default().vrrp = Some(packet.ttl);
                }
                Said::Vrrp(_) => {}
            }
        }
        io::Result::Ok(())
    };
    match timeout(LISTEN, listen).await {
        Ok(Err(error)) => Err(refused()(error)),
        Ok(Ok(())) | Err(_) => Ok(heard),
    }
}

/// A packet of one of the two protocols.
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    said: Said,
}

enum Said {
    Vrrp(Box<Advertisement>),
    Bfd(ControlPacket),
}

/// Reads a frame; `None` if it is anything else.
fn parse(frame: &[u8]) -> Option<Packet> {
    let ethernet = frame.view::<ethernet::Header>(0)?;
    let address = |address: Be128| IpAddr::from(std::net::Ipv6Addr::from(address.to_wire()));
    let (source, destination, ttl, protocol, start) = match ethernet.ether_type() {
        ethernet::ether_type::IPV4 => {
            let ip = frame.view::<ipv4::Header>(ethernet::LENGTH)?;
            let start = ethernet::LENGTH + ip.header_length();
            let (from, to) = (ip.source().to_wire(), ip.destination().to_wire());
            (from.into(), to.into(), ip.ttl(), ip.protocol(), start)
        }
        ethernet::ether_type::IPV6 => {
            let ip = frame.view::<ipv6::Header>(ethernet::LENGTH)?;
            let start = ethernet::LENGTH + ipv6::LENGTH;
            let (from, to) = (address(ip.source()), address(ip.destination()));
            (from, to, ip.hop_limit(), ip.next_header(), start)
        }
        _ => return None,
    };
    let payload = frame.get(start..)?;
    let said = match protocol {
        vrrp::PROTOCOL => {
            let advert = Advertisement::parse(payload, source, destination).ok()?;
            Said::Vrrp(Box::new(advert))
        }
        UDP => Said::Bfd(ControlPacket::parse(payload.get(UDP_LENGTH..)?).ok()?),
        _ => return None,
    };
    Some(Packet {
        source,
        destination,
        ttl,
        said,
    })
}

const BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const HALF_BEHIND_HEADER: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
const HEADER_LENGTH: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Bytes of the Ethernet header, and places behind it.
const IP: u32 = ethernet::LENGTH as u32;
const IPV4_FRAGMENT: u32 = IP + 6;
const IPV4_PROTOCOL: u32 = IP + 9;
const IPV6_NEXT_HEADER: u32 = IP + 6;
const UDP_DESTINATION: u32 = 2;

/// Lets through VRRP and what goes to BFD's port.
const IPV4: [SockFilter; 10] = [
    SockFilter::new(BYTE, 0, 0, IPV4_PROTOCOL),
    SockFilter::new(EQUAL, 6, 0, vrrp::PROTOCOL as u32),
    SockFilter::new(EQUAL, 0, 6, UDP as u32),
    SockFilter::new(HALF, 0, 0, IPV4_FRAGMENT),
    // The fragment offset: such a piece has no ports.
    SockFilter::new(ANY_BIT, 4, 0, 0x1fff),
    SockFilter::new(HEADER_LENGTH, 0, 0, IP),
    SockFilter::new(HALF_BEHIND_HEADER, 0, 0, IP + UDP_DESTINATION),
    SockFilter::new(EQUAL, 0, 1, bfd::PORT as u32),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
    SockFilter::new(RETURN, 0, 0, 0),
];

/// The same. What agents send has no extension headers.
const IPV6: [SockFilter; 7] = [
    SockFilter::new(BYTE, 0, 0, IPV6_NEXT_HEADER),
    SockFilter::new(EQUAL, 3, 0, vrrp::PROTOCOL as u32),
    SockFilter::new(EQUAL, 0, 3, UDP as u32),
    SockFilter::new(HALF, 0, 0, IP + ipv6::LENGTH as u32 + UDP_DESTINATION),
    SockFilter::new(EQUAL, 0, 1, bfd::PORT as u32),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
    SockFilter::new(RETURN, 0, 0, 0),
];

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU8, NonZeroU32};

    use vip_common::wire::bfd::{Diagnostic, Micros};
    use vip_common::wire::vrrp::{Addresses, Centiseconds};

    use super::*;
    use crate::net::bfd::BfdSocket;
    use crate::net::netlink::Netlink;
    use crate::net::testing::{self, A, A6, B, B6, Side, VIP, VIP6};
    use crate::net::vrrp::{Delivery, VrrpSocket};

    fn packet(state: State, your_discriminator: u32) -> Vec<u8> {
        // Who overhears a packet looks at its state, whether it has a key or not.
        let authentication = (state == State::Down).then_some(bfd::Authentication {
            key_id: 1,
            reserved: 0,
            sequence: 1,
            digest: [7; _],
        });
        let packet = ControlPacket {
            state,
            diagnostic: Diagnostic::None,
            poll: false,
            final_: false,
            control_plane_independent: false,
            demand: false,
            detect_mult: NonZeroU8::MIN,
            my_discriminator: NonZeroU32::MIN,
            your_discriminator,
            desired_min_tx: Micros(1_000_000),
            required_min_rx: Micros(50_000),
            required_min_echo_rx: Micros(0),
            authentication,
        };
        packet.emit(&mut [0; bfd::MAX_LENGTH]).to_vec()
    }

    /// Both families, with nobody at the sockets here: whatever is told came by the NIC.
    #[test]
    fn agents_are_heard_on_the_nic_and_others_are_not() {
        testing::in_two_namespaces(async |pair| {
            for (here, there, vip) in [
                (IpAddr::from(A), IpAddr::from(B), IpAddr::from(VIP)),
                (A6.into(), B6.into(), VIP6.into()),
            ] {
                pair.enter(Side::B);
                let bfd = BfdSocket::open_alone("b0", there, &[here]).unwrap();
                let vrrp = VrrpSocket::open("b0", there, &[here], Delivery::Unicast).unwrap();
                pair.enter(Side::A);
                let netlink = Netlink::connect().unwrap();
                let nic = netlink.find_nic(vip, &[here], None).await.unwrap();
                let advert = |router_id| {
                    let advert = Advertisement {
                        router_id,
                        priority: 100,
                        interval: Centiseconds::new(100).unwrap(),
                        addresses: Addresses::new(&[vip]).unwrap(),
                    };
                    let mut bytes = [0; vrrp::MAX_LENGTH];
                    advert.emit(&mut bytes, there, here).to_vec()
                };
                let router = Router { id: 10, vip };
                let listen = async |packets: &[(bool, Vec<u8>)]| {
                    let speak = async {
                        tokio::time::sleep(LISTEN / 4).await;
                        for (is_bfd, bytes) in packets {
                            if *is_bfd {
                                bfd.send(here, bytes).unwrap();
                            } else {
                                vrrp.send(here, bytes).unwrap();
                            }
                        }
                    };
                    tokio::join!(overhear(&nic, router), speak).0.unwrap()
                };
                let down = packet(State::Down, 0);
                let heard = listen(&[(true, down), (false, advert(10))]).await;
                let wanted = Overheard {
                    bfd: Some(255),
                    unanswered: true,
                    vrrp: Some(255),
                };
                assert_eq!(heard, BTreeMap::from([(there, wanted)]));

                // A session that somebody else here may have, and another virtual router.
                let up = packet(State::Up, 7);
                let heard = listen(&[(true, up), (false, advert(11))]).await;
                let wanted = Overheard {
                    bfd: Some(255),
                    ..Overheard::default()
                };
                assert_eq!(heard, BTreeMap::from([(there, wanted)]));
            }
        });
    }
}
