//! Where the frames of other nodes come from: a packet socket that hears what members send to
//! each other anyway, BFD and VRRP.
//!
//! Nothing waits for it: the agent empties it from time to time. It holds a few dozen frames, and
//! what comes in the meantime is dropped by the kernel.

use std::io::{self, Read as _};
use std::net::IpAddr;

use nix::libc;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use vip_common::wire::addr::{Be128, Mac};
use vip_common::wire::{Frame as _, bfd, ethernet, ipv4, ipv6, vrrp};

use super::{NetError, Nic, raw};

/// Frames that are looked at in one turn.
const BATCH: usize = 128;

/// Room for frames in the socket, in bytes, with what the kernel needs for itself.
const ROOM: usize = 64 << 10;

/// What a frame is looked at for.
const FRAME: usize = ethernet::LENGTH + ipv6::LENGTH;

/// First bytes of VRRP's own Ethernet addresses (RFC 9568, section 7.3), which belong to a
/// virtual router and to no node: keepalived may send from them.
const VIRTUAL_ROUTER: [u8; 4] = [0x00, 0x00, 0x5e, 0x00];

/// Hears where frames of the nodes come from.
#[derive(Debug)]
pub struct SourceSocket {
    socket: Socket,
    ipv6: bool,
}

impl SourceSocket {
    /// Opens it on a NIC, for nodes of its address' family.
    ///
    /// # Errors
    /// No `CAP_NET_RAW`, or the NIC is gone.
    pub fn open(nic: &Nic) -> Result<Self, NetError> {
        let what = format!("open a packet socket on {}", nic.name);
        Self::try_open(nic).map_err(NetError::io(what))
    }

    fn try_open(nic: &Nic) -> io::Result<Self> {
        let ipv6 = nic.address.is_ipv6();
        // Protocol 0 gets nothing until it is bound; else it would get that of all NICs.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(ROOM)?;
        let ether_type = if ipv6 {
            socket.attach_filter(&members_ipv6())?;
            ethernet::ether_type::IPV6
        } else {
            socket.attach_filter(&members_ipv4())?;
            ethernet::ether_type::IPV4
        };
        socket.bind(&raw::link_layer(nic.index, ether_type)?)?;
        Ok(Self { socket, ipv6 })
    }

    /// IP and Ethernet source of the frames that have come since the last time, the latest ones
    /// perhaps not. They are from hosts on the segment, if not from those that they name.
    pub fn heard(&self) -> Vec<(IpAddr, Mac)> {
        let mut buffer = [0; FRAME];
        let mut heard = Vec::new();
        for _ in 0..BATCH {
            let Ok(length) = (&self.socket).read(&mut buffer) else {
                break;
            };
            if let Some(found) = self.sender(&buffer[..length])
                && !heard.contains(&found)
            {
                heard.push(found);
            }
        }
        heard
    }

    fn sender(&self, frame: &[u8]) -> Option<(IpAddr, Mac)> {
        let source: Be128 = if self.ipv6 {
            frame.view::<ipv6::Header>(ethernet::LENGTH)?.source()
        } else {
            frame
                .view::<ipv4::Header>(ethernet::LENGTH)?
                .source()
                .into()
        };
        let mac = frame.view::<ethernet::Header>(0)?.source();
        let virtual_router = mac.to_wire().starts_with(&VIRTUAL_ROUTER);
        (!virtual_router).then(|| (source.into(), mac))
    }
}

/// An instruction of a socket filter (Documentation/networking/filter.rst).
const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> SockFilter {
    SockFilter::new(code as u16, jt, jf, k)
}

/// Loads the byte at an offset of the frame.
const fn byte(offset: usize) -> SockFilter {
    instruction(
        libc::BPF_LD | libc::BPF_B | libc::BPF_ABS,
        0,
        0,
        offset as u32,
    )
}

/// Loads the two bytes at an offset of the frame.
const fn half(offset: usize) -> SockFilter {
    instruction(
        libc::BPF_LD | libc::BPF_H | libc::BPF_ABS,
        0,
        0,
        offset as u32,
    )
}

/// Goes on if what was loaded is that value, else skips some; or the other way round.
const fn equal(value: u32, skip_if: u8, skip_unless: u8) -> SockFilter {
    let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    instruction(code, skip_if, skip_unless, value)
}

/// Ends: so many bytes of the frame come in.
const fn end(bytes: usize) -> SockFilter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, bytes as u32)
}

const VRRP: u32 = vrrp::PROTOCOL as u32;
const UDP: u32 = libc::IPPROTO_UDP as u32;
const BFD: u32 = bfd::PORT as u32;

/// TTL and hop limit of what has passed no router.
const FULL: u32 = bfd::TTL as u32;

/// Lets through BFD and VRRP that have passed no router.
fn members_ipv4() -> [SockFilter; 12] {
    const IP: usize = ethernet::LENGTH;
    const FRAGMENT: u32 = 0x1fff;
    let test = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    let length_of_header = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
    let half_behind = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
    [
        byte(IP + 8),
        equal(FULL, 0, 9),
        byte(IP + 9),
        equal(VRRP, 6, 0),
        equal(UDP, 0, 6),
        half(IP + 6),
        instruction(test, 4, 0, FRAGMENT),
        instruction(length_of_header, 0, 0, IP as u32),
        // The destination port.
        instruction(half_behind, 0, 0, (IP + 2) as u32),
        equal(BFD, 0, 1),
        end(FRAME),
        end(0),
    ]
}

/// The same of IPv6, whose packets of either protocol have no extension headers.
fn members_ipv6() -> [SockFilter; 9] {
    const IP: usize = ethernet::LENGTH;
    [
        byte(IP + 7),
        equal(FULL, 0, 6),
        byte(IP + 6),
        equal(VRRP, 3, 0),
        equal(UDP, 0, 3),
        half(IP + ipv6::LENGTH + 2),
        equal(BFD, 0, 1),
        end(FRAME),
        end(0),
    ]
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::net::bfd::BfdSocket;
    use crate::net::datagram;
    use crate::net::netlink::Netlink;
    use crate::net::testing::{self, A, A6, B, B6, Side, VIP, VIP6, within_reach};
    use crate::net::vrrp::{Delivery, VrrpSocket};

    #[test]
    fn members_are_heard_by_bfd_and_vrrp_from_the_segment_alone() {
        testing::in_two_namespaces(async |pair| {
            for (a, b, vip) in [
                (IpAddr::from(A), IpAddr::from(B), IpAddr::from(VIP)),
                (A6.into(), B6.into(), VIP6.into()),
            ] {
                pair.enter(Side::A);
                let netlink = Netlink::connect().unwrap();
                let nic = netlink.find_nic(vip, &[a], None).await.unwrap();
                let sources = SourceSocket::open(&nic).unwrap();
                pair.enter(Side::B);
                let bfd = BfdSocket::open_alone("b0", b, &[]).unwrap();
                let vrrp = VrrpSocket::open("b0", b, &[], Delivery::Unicast).unwrap();
                let far = datagram::socket(b, Type::DGRAM, None).unwrap();
                far.bind(&SocketAddr::new(b, 0).into()).unwrap();
                let send = |ttl, port| {
                    datagram::mark(&far, b, ttl).unwrap();
                    let to = SocketAddr::new(a, port).into();
                    far.send_to(&[0; 24], &to).unwrap();
                };
                let heard = async || {
                    within_reach(async {
                        loop {
                            let heard = sources.heard();
                            if !heard.is_empty() {
                                return heard;
                            }
                            tokio::task::yield_now().await;
                        }
                    })
                    .await
                };
                let from_b = [(b, Mac::from_wire(Side::B.mac()))];
                bfd.send(a, &[0; bfd::LENGTH]).unwrap();
                assert_eq!(heard().await, from_b);
                vrrp.send(a, &[0; 12]).unwrap();
                assert_eq!(heard().await, from_b);
                // From afar, and something else; then what shows that these came before it.
                send(254, bfd::PORT);
                send(255, bfd::PORT + 1);
                send(255, bfd::PORT);
                assert_eq!(heard().await, from_b);
                assert_eq!(sources.heard(), []);
            }
        });
    }

    #[test]
    fn what_a_virtual_router_sends_names_no_node() {
        let socket = SourceSocket {
            socket: Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap(),
            ipv6: false,
        };
        let mut frame = [0; FRAME];
        frame[26..30].copy_from_slice(&[10, 0, 0, 11]);
        frame[6..12].copy_from_slice(&[0, 0, 0x5e, 0, 1, 10]);
        assert_eq!(socket.sender(&frame), None);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        let node = (
            IpAddr::from([10, 0, 0, 11]),
            Mac::from_wire([2, 0, 0, 0, 0, 1]),
        );
        assert_eq!(socket.sender(&frame), Some(node));
    }
}
