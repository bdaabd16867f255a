//! Frames for the VIP that no kernel would send: cut short, contradicting themselves, for
//! other ports and protocols, and at random.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use nix::errno::Errno;

use crate::frames::{
    ARP_REPLY, ARP_REQUEST, Arp, BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV4, Ipv4, Mac, TCP,
    ethernet, own_mac, tcp,
};
use crate::sys::packet_socket;
use crate::topology::NIC;

/// Arguments of `testbed stray`.
#[derive(Args, Debug)]
pub struct StrayArgs {
    /// The virtual address
    #[arg(long)]
    pub vip: Ipv4Addr,
    /// Its port
    #[arg(long)]
    pub port: u16,
    /// The Ethernet address of the node that gets the frames
    #[arg(long)]
    pub mac: Mac,
    /// This host's own address
    #[arg(long)]
    pub own: Ipv4Addr,
    /// Send so many acknowledgements instead, each of another connection that nobody has
    #[arg(long)]
    pub acks: Option<u16>,
    /// Hops left in these
    #[arg(long, default_value_t = 64)]
    pub ttl: u8,
    /// Frames at random, beside those of the list
    #[arg(long, default_value_t = 2000)]
    pub random: usize,
}

/// Between two bursts of frames.
const PAUSE: Duration = Duration::from_millis(5);

/// TCP flags (RFC 9293, section 3.1).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// MSS 1460, window scale 7, and padding.
const OPTIONS: [u8; 8] = [2, 4, 5, 0xb4, 1, 3, 3, 7];

/// Where frames come from and go to.
struct Between<'a> {
    args: &'a StrayArgs,
    source: Mac,
}

impl Between<'_> {
    fn ip(&self) -> Ipv4 {
        Ipv4 {
            source: self.args.own,
            destination: self.args.vip,
            protocol: TCP,
            ttl: 64,
            fragment: 0,
        }
    }

    fn frame(&self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        ethernet(self.source, self.args.mac, ethertype, payload)
    }

    fn segment(&self, ip: &Ipv4, port: u16, flags: u8) -> Vec<u8> {
        self.frame(
            ETHERTYPE_IPV4,
            &ip.packet(&tcp(ip, 1024, port, flags, &OPTIONS)),
        )
    }

    fn syn(&self) -> Vec<u8> {
        self.segment(&self.ip(), self.args.port, SYN)
    }

    /// Of a connection from this port.
    fn ack(&self, from: u16) -> Vec<u8> {
        let ip = Ipv4 {
            ttl: self.args.ttl,
            ..self.ip()
        };
        let segment = tcp(&ip, from, self.args.port, ACK, &[]);
        self.frame(ETHERTYPE_IPV4, &ip.packet(&segment))
    }

    /// The good SYN with some bytes of its IPv4 header and below replaced.
    fn altered(&self, at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut frame = self.syn();
        frame[14 + at..14 + at + bytes.len()].copy_from_slice(bytes);
        frame
    }

    fn arp(&self) -> Vec<u8> {
        Arp {
            operation: ARP_REQUEST,
            sender_mac: self.source,
            sender_ip: self.args.own,
            target_mac: Mac([0; 6]),
            target_ip: self.args.vip,
        }
        .frame(self.source, self.args.mac)
    }
}

/// A frame cut at every length that a packet socket can send.
fn truncated(frame: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (14..frame.len()).map(|length| frame[..length].to_vec())
}

fn bad_ipv4(b: &Between<'_>) -> Vec<Vec<u8>> {
    let port = b.args.port;
    let mut frames: Vec<Vec<u8>> = truncated(&b.syn()).collect();
    // Version, header length, total length, data offset.
    frames.extend(
        (0..=0xff)
            .filter(|byte| *byte != 0x45)
            .map(|byte| b.altered(0, &[byte])),
    );
    frames.extend(
        [0_u16, 1, 19, 20, 39, 41, 49, 1500, 0xffff].map(|l| b.altered(2, &l.to_be_bytes())),
    );
    frames.extend((0..16).map(|words: u8| b.altered(20 + 12, &[words << 4])));
    // Fragments: first, middle, last, with the reserved bit.
    for fragment in [0x2000, 0x2001, 0x0001, 0x1fff, 0x3fff, 0x8000, 0xffff] {
        frames.push(b.segment(&Ipv4 { fragment, ..b.ip() }, port, SYN));
    }
    for other in [0, 22, 80, 2379, port - 1, port + 1, 65535] {
        frames.push(b.segment(&b.ip(), other, SYN));
        frames.push(b.segment(&b.ip(), other, ACK));
    }
    for protocol in (0..=255).filter(|protocol| *protocol != TCP) {
        frames.push(b.frame(
            ETHERTYPE_IPV4,
            &Ipv4 { protocol, ..b.ip() }.packet(&[0; 32]),
        ));
        frames.push(b.frame(ETHERTYPE_IPV4, &Ipv4 { protocol, ..b.ip() }.packet(&[])));
    }
    frames.extend((0..=255).map(|flags| b.segment(&b.ip(), port, flags)));
    frames.extend([0, 1].map(|ttl| b.segment(&Ipv4 { ttl, ..b.ip() }, port, SYN)));
    // Checksums of IPv4 and TCP.
    frames.push(b.altered(10, &[0xde, 0xad]));
    frames.push(b.altered(20 + 16, &[0xde, 0xad]));
    for source in [
        b.args.vip,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
    ] {
        frames.push(b.segment(&Ipv4 { source, ..b.ip() }, port, SYN));
        frames.push(b.segment(&Ipv4 { source, ..b.ip() }, port, ACK));
    }
    frames
}

fn bad_ethernet(b: &Between<'_>) -> Vec<Vec<u8>> {
    let packet = &b.syn()[14..];
    let mut frames = Vec::new();
    for ethertype in [0, 46, 0x0600, 0x0801, 0x86dd, 0x8847, 0x88cc, 0xffff] {
        frames.push(b.frame(ethertype, packet));
    }
    // One and two VLAN tags.
    let mut tagged = vec![0, 7];
    tagged.extend(ETHERTYPE_IPV4.to_be_bytes());
    tagged.extend(packet);
    frames.push(b.frame(0x8100, &tagged));
    let mut twice = vec![0, 7, 0x81, 0];
    twice.extend(&tagged);
    frames.push(b.frame(0x88a8, &twice));
    frames.extend(truncated(&b.frame(0x8100, &tagged[..24])));
    for destination in [
        BROADCAST,
        Mac([1, 0, 0x5e, 0, 0, 1]),
        Mac([2, 0xde, 0xad, 0xbe, 0xef, 0]),
        Mac([0; 6]),
    ] {
        frames.push(ethernet(b.source, destination, ETHERTYPE_IPV4, packet));
    }
    frames
}

fn bad_arp(b: &Between<'_>) -> Vec<Vec<u8>> {
    let good = b.arp();
    let mut frames: Vec<Vec<u8>> = truncated(&good).collect();
    // Hardware, protocol, both lengths, operation: each byte in turn. Sent to one node only,
    // and never naming the VIP as sender, so that bystanders do not learn from it.
    for at in 0..8 {
        for byte in [0, 1, 2, 3, 7, 0x7f, 0xff] {
            let mut frame = good.clone();
            frame[14 + at] = byte;
            frames.push(frame);
        }
    }
    // Somebody else claims the VIP.
    for operation in [ARP_REQUEST, ARP_REPLY] {
        for target_ip in [b.args.vip, b.args.own] {
            let claim = Arp {
                operation,
                sender_mac: b.source,
                sender_ip: b.args.vip,
                target_mac: b.args.mac,
                target_ip,
            };
            frames.push(claim.frame(b.source, b.args.mac));
        }
    }
    frames.push(b.frame(ETHERTYPE_ARP, &[0; 28]));
    frames.push(b.frame(ETHERTYPE_ARP, &[0xff; 46]));
    frames
}

/// The good SYN with up to four bytes behind the Ethernet header replaced, and its length
/// changed: the same frames in every run.
fn random(b: &Between<'_>, count: usize) -> Vec<Vec<u8>> {
    // Xorshift (Marsaglia 2003).
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("less than a usize")
    };
    (0..count)
        .map(|_| {
            let mut frame = b.syn();
            for _ in 0..=next(4) {
                // Not the source address: answers go to the client or nowhere.
                let at = [14 + next(12), 30 + next(frame.len() - 30)][next(2)];
                frame[at] = u8::try_from(next(256)).expect("less than 256");
            }
            frame.resize(14 + next(80), 0);
            frame
        })
        .collect()
}

/// Arguments of `testbed claim`.
#[derive(Args, Debug)]
pub struct ClaimArgs {
    /// The address to claim
    #[arg(long)]
    pub vip: Ipv4Addr,
    /// Claim it again and again, until it is ended
    #[arg(long)]
    pub endless: bool,
}

/// Between two claims of an endless claimant: owners forget one after some seconds.
const CLAIM_INTERVAL: Duration = Duration::from_secs(1);

/// Claims an address by gratuitous ARP, and prints the Ethernet address that it is claimed for.
///
/// # Errors
/// No permission, or the interface is down.
pub fn claim(args: &ClaimArgs) -> Result<()> {
    let socket = packet_socket(NIC, ETHERTYPE_ARP).with_context(|| format!("open {NIC}"))?;
    let mac = own_mac(NIC)?;
    let claim = Arp {
        operation: ARP_REQUEST,
        sender_mac: mac,
        sender_ip: args.vip,
        target_mac: Mac([0; 6]),
        target_ip: args.vip,
    };
    let claim = claim.frame(mac, BROADCAST);
    nix::unistd::write(&socket, &claim).context("send a claim")?;
    println!("{mac}");
    if !args.endless {
        return Ok(());
    }
    loop {
        std::thread::sleep(CLAIM_INTERVAL);
        nix::unistd::write(&socket, &claim).context("send a claim")?;
    }
}

/// Sends them all, and prints how many.
///
/// # Errors
/// No permission, or the interface is down.
pub fn run(args: &StrayArgs) -> Result<()> {
    let socket = packet_socket(NIC, ETHERTYPE_ARP).with_context(|| format!("open {NIC}"))?;
    let between = Between {
        args,
        source: own_mac(NIC)?,
    };
    let frames = if let Some(acks) = args.acks {
        (0..acks)
            .map(|number| between.ack(10_000 + number))
            .collect()
    } else {
        let mut frames = bad_ipv4(&between);
        frames.extend(bad_ethernet(&between));
        frames.extend(bad_arp(&between));
        frames.extend(random(&between, args.random));
        frames
    };
    for (number, frame) in frames.iter().enumerate() {
        // A queue on the way holds 256 frames, and what is lost there tests nothing.
        if number % 64 == 0 {
            std::thread::sleep(PAUSE);
        }
        while let Err(error) = nix::unistd::write(&socket, frame) {
            if error != Errno::ENOBUFS {
                return Err(error)
                    .with_context(|| format!("send a frame of {} bytes", frame.len()));
            }
            std::thread::sleep(PAUSE);
        }
    }
    println!("{}", frames.len());
    Ok(())
}
