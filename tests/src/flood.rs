//! Packets for a node that its agent has no use for: from beyond a router, from strangers, and
//! answers to questions that nobody asked.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use nix::errno::Errno;
use vip_common::wire::tcp::SYN;

use crate::frames::{
    ARP_REQUEST, Arp, BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV4, Ipv4, Mac, TCP, checksum, ethernet,
    own_mac, tcp,
};
use crate::sys::packet_socket;
use crate::topology::{NIC, PORT};

/// Arguments of `testbed flood`.
#[derive(Args, Debug)]
pub struct FloodArgs {
    /// The node's address
    #[arg(long)]
    pub node: Ipv4Addr,
    /// Its Ethernet address
    #[arg(long)]
    pub mac: Mac,
    /// The address of another node, which the packets say that they are from
    #[arg(long)]
    pub member: Ipv4Addr,
    /// This host's own address
    #[arg(long)]
    pub own: Ipv4Addr,
    /// Packets of each kind
    #[arg(long)]
    pub count: u32,
    /// Only those of this kind
    #[arg(long)]
    pub only: Option<String>,
    /// Microseconds between two bursts of 64 packets
    #[arg(long, default_value_t = 1000)]
    pub pause_us: u64,
}

/// IP protocols, and the group of VRRP routers (RFC 9568).
const ICMP: u8 = 1;
const UDP: u8 = 17;
const VRRP: u8 = 112;
const VRRP_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const VRRP_GROUP_MAC: Mac = Mac([0x01, 0, 0x5e, 0, 0, 18]);

/// BFD's port, and the one that agents send from.
const BFD: u16 = 3784;
const AGENT: u16 = 63_784;

/// Makes a packet from this host's Ethernet address and the packet's number.
type Make = fn(&FloodArgs, Mac, u32) -> Vec<u8>;

/// All kinds, by name.
const KINDS: [(&str, Make); 9] = [
    ("bfd_routed", |args, own, number| {
        packet(args, own, (args.member, 254), UDP, &bfd(number))
    }),
    ("bfd_stranger", |args, own, number| {
        packet(args, own, (args.own, 255), UDP, &bfd(number))
    }),
    // A neighbour that knows no discriminator can forge this. It may be read, and must do no harm.
    ("bfd_forged", |args, own, number| {
        packet(args, own, (args.member, 255), UDP, &bfd(number))
    }),
    ("vrrp_routed", |args, own, _| {
        packet(args, own, (args.member, 254), VRRP, &[0; 12])
    }),
    ("vrrp_stranger", |args, own, _| {
        packet(args, own, (args.own, 255), VRRP, &[0; 12])
    }),
    ("vrrp_group", |args, own, _| {
        let ip = Ipv4 {
            source: args.own,
            destination: VRRP_GROUP,
            protocol: VRRP,
            ttl: 255,
            fragment: 0,
        };
        ethernet(
            own,
            VRRP_GROUP_MAC,
            ETHERTYPE_IPV4,
            &ip.packet(&[0x31, 10, 255, 1]),
        )
    }),
    ("echo", |args, own, number| {
        packet(args, own, (args.member, 64), ICMP, &echo_reply(number))
    }),
    ("arp", |args, own, number| {
        let [a, b, ..] = number.to_le_bytes();
        let question = Arp {
            operation: ARP_REQUEST,
            sender_mac: own,
            sender_ip: args.own,
            target_mac: Mac([0; 6]),
            target_ip: Ipv4Addr::new(10, 0, b | 1, a),
        };
        question.frame(own, BROADCAST)
    }),
    // To a server, from addresses of which none answers (RFC 2544 has them for benchmarks).
    ("syn", |args, own, number| {
        let [a, b, c, _] = number.to_le_bytes();
        let ip = Ipv4 {
            source: Ipv4Addr::new(198, 18 | (c & 1), b, a),
            destination: args.node,
            protocol: TCP,
            ttl: 64,
            fragment: 0,
        };
        let port = 1024 + (number >> 17) as u16;
        let segment = tcp(&ip, port, PORT, SYN, &[]);
        ethernet(own, args.mac, ETHERTYPE_IPV4, &ip.packet(&segment))
    }),
];

/// An IPv4 packet to the node, from an address with a TTL.
fn packet(
    args: &FloodArgs,
    own: Mac,
    (source, ttl): (Ipv4Addr, u8),
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let ip = Ipv4 {
        source,
        destination: args.node,
        protocol,
        ttl,
        fragment: 0,
    };
    ethernet(own, args.mac, ETHERTYPE_IPV4, &ip.packet(payload))
}

/// A BFD packet of a session that is down and knows no other side, and so names no session of the
/// receiver's, in a datagram without checksum.
fn bfd(number: u32) -> Vec<u8> {
    /// Version 1, state down, multiplier 3, 24 bytes.
    const HEAD: [u8; 4] = [0x20, 0x40, 3, 24];
    let mut datagram = Vec::new();
    for word in [AGENT, BFD, 8 + 24, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend(HEAD);
    datagram.extend((number | 1).to_be_bytes());
    datagram.extend([0; 4]);
    for interval in [1_000_000_u32, 50_000, 0] {
        datagram.extend(interval.to_be_bytes());
    }
    datagram
}

fn echo_reply(number: u32) -> Vec<u8> {
    let mut message = vec![0; 12];
    message[4..6].copy_from_slice(&(number as u16).to_be_bytes());
    let sum = checksum(&message, 0);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Until a full queue has room.
const PAUSE: Duration = Duration::from_millis(1);

/// Sends them all, the kinds one after the other, and prints how many of each.
///
/// # Errors
/// No permission, or the interface is down.
pub fn run(args: &FloodArgs) -> Result<()> {
    let socket = packet_socket(NIC, ETHERTYPE_ARP).with_context(|| format!("open {NIC}"))?;
    let own = own_mac(NIC)?;
    let kinds = KINDS
        .iter()
        .filter(|(name, _)| args.only.as_ref().is_none_or(|only| only == name));
    for (name, make) in kinds {
        for number in 0..args.count {
            let frame = make(args, own, number);
            // A queue on the way holds 256 frames.
            if number % 64 == 0 {
                std::thread::sleep(Duration::from_micros(args.pause_us));
            }
            while let Err(error) = nix::unistd::write(&socket, &frame) {
                if error != Errno::ENOBUFS {
                    return Err(error).with_context(|| format!("send a frame of kind {name}"));
                }
                std::thread::sleep(PAUSE);
            }
        }
        println!("{name} {}", args.count);
    }
    Ok(())
}
