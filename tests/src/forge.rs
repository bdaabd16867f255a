//! What a host of the segment may send that wants to be taken for an agent: recorded packets of
//! agents, sent again as they were and in many changed forms, and packets without a seal.

mod rosters;

pub use rosters::{ForgeRostersArgs, INVENTED, forge_rosters};

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd as _, OwnedFd};
use vip_common::wire::bfd::{ControlPacket, MAX_LENGTH as BFD_LENGTH};
use vip_common::wire::vrrp::{Addresses, Advertisement, Centiseconds, MAX_LENGTH as VRRP_LENGTH};
use vip_node::envelope;
use vip_node::hello::{Heard, Hello, Instance, Line, MAX_HEARD};

use crate::frames::{ETHERTYPE_IPV4, Ipv4, Mac, ethernet, own_mac};
use crate::sys::packet_socket;
use crate::topology::NIC;

/// Arguments of `testbed record`.
#[derive(Args, Debug)]
pub struct RecordArgs {
    /// This host's own address
    #[arg(long)]
    pub own: Ipv4Addr,
    /// For how long to listen
    #[arg(long, default_value_t = 2500)]
    pub millis: u64,
}

/// Arguments of `testbed forge`.
#[derive(Args, Debug)]
pub struct ForgeArgs {
    /// What `record` has printed
    #[arg(long)]
    pub recorded: PathBuf,
    /// The virtual address
    #[arg(long)]
    pub vip: Ipv4Addr,
    /// The Ethernet address of the node that gets the frames
    #[arg(long)]
    pub mac: Mac,
    /// This host's own address
    #[arg(long)]
    pub own: Ipv4Addr,
}

/// Arguments of `testbed pretend`.
#[derive(Args, Debug)]
pub struct PretendArgs {
    /// The address that it says it has
    #[arg(long)]
    pub address: Ipv4Addr,
    /// Say that it has owned the virtual address
    #[arg(long)]
    pub established: bool,
    /// Say good-bye in the name of the member with that address
    #[arg(long)]
    pub leaves: bool,
    /// Tell of another member in the name of the one with that address
    #[arg(long)]
    pub tells_of: Option<Ipv4Addr>,
}

/// The UDP ports of hellos and BFD, and the protocols.
const HELLO: u16 = 9643;
const BFD: u16 = 3784;
const UDP: u8 = 17;
const VRRP: u8 = 112;

/// A packet of an agent.
#[derive(Clone, Debug)]
struct Packet {
    destination_mac: Mac,
    ip: Ipv4,
    /// UDP header and data, or VRRP.
    payload: Vec<u8>,
}

impl Packet {
    fn parse(frame: &[u8]) -> Option<Self> {
        let (head, packet) = frame.split_at_checked(14)?;
        if head[12..] != ETHERTYPE_IPV4.to_be_bytes() || packet.first() != Some(&0x45) {
            return None;
        }
        let address = |at: usize| {
            let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(bytes))
        };
        let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        Some(Self {
            destination_mac: Mac(head[..6].try_into().ok()?),
            ip: Ipv4 {
                source: address(12)?,
                destination: address(16)?,
                protocol: packet[9],
                ttl: packet[8],
                fragment: 0,
            },
            payload: packet.get(20..length)?.to_vec(),
        })
    }

    /// Where UDP sends it to.
    fn port(&self) -> Option<u16> {
        let port = self.payload.get(2..4)?;
        (self.ip.protocol == UDP).then(|| u16::from_be_bytes([port[0], port[1]]))
    }

    fn is_an_agents(&self) -> bool {
        self.ip.protocol == VRRP || matches!(self.port(), Some(HELLO | BFD))
    }

    /// Where the data begin.
    fn start(&self) -> usize {
        if self.ip.protocol == UDP { 8 } else { 0 }
    }

    /// The same with other data.
    fn with(&self, data: &[u8]) -> Self {
        let mut payload = self.payload[..self.start()].to_vec();
        payload.extend(data);
        let mut changed = Self {
            payload,
            ..self.clone()
        };
        if self.ip.protocol == UDP {
            let length = u16::try_from(changed.payload.len()).unwrap_or(u16::MAX);
            changed.payload[4..6].copy_from_slice(&length.to_be_bytes());
            changed.payload[6..8].copy_from_slice(&[0, 0]);
        }
        changed
    }

    fn data(&self) -> &[u8] {
        self.payload.get(self.start()..).unwrap_or_default()
    }

    fn from(&self, source: Ipv4Addr) -> Self {
        let mut changed = self.with(self.data());
        changed.ip.source = source;
        changed
    }
}

/// Prints packets of other agents that come to this host, a line each.
///
/// # Errors
/// No permission, or the interface is down.
pub fn record(args: &RecordArgs) -> Result<()> {
    let socket = packet_socket(NIC, ETHERTYPE_IPV4).with_context(|| format!("open {NIC}"))?;
    let end = Instant::now() + Duration::from_millis(args.millis);
    let mut buffer = [0; 2048];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, timeout).context("wait for frames")? == 0 {
            return Ok(());
        }
        let length = nix::unistd::read(&socket, &mut buffer).context("read a frame")?;
        let frame = &buffer[..length];
        let of_others = Packet::parse(frame)
            .is_some_and(|packet| packet.is_an_agents() && packet.ip.source != args.own);
        if of_others {
            let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("{hex}");
        }
    }
}

/// The forms in which a recorded packet is sent.
fn forms(packet: &Packet, own: Ipv4Addr) -> Vec<(&'static str, Packet)> {
    let data = packet.data();
    let mut flipped = data.to_vec();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let mut head = data.to_vec();
    head[0] ^= 1;
    let long = [data, &[0; 200]].concat();
    let far = Packet {
        ip: Ipv4 {
            ttl: 254,
            ..packet.ip
        },
        ..packet.with(data)
    };
    vec![
        ("again", packet.with(data)),
        ("from another address", packet.from(own)),
        ("with a bit turned", packet.with(&flipped)),
        ("with another head", packet.with(&head)),
        ("cut short", packet.with(&data[..data.len() / 2])),
        ("empty", packet.with(&[])),
        ("too long", packet.with(&long)),
        ("from beyond a router", far),
    ]
}

/// What somebody without a key would send in the place of a recorded packet.
fn plain(packet: &Packet, args: &ForgeArgs) -> Vec<(&'static str, Packet)> {
    let (from, to) = (packet.ip.source, packet.ip.destination);
    match packet.port() {
        None => {
            let Some(addresses) = Addresses::new(&[IpAddr::V4(args.vip)]) else {
                return Vec::new();
            };
            let advert = |priority| {
                let advert = Advertisement {
                    router_id: args.vip.octets()[3],
                    priority,
                    interval: Centiseconds::MAX,
                    addresses,
                };
                let mut buffer = [0; VRRP_LENGTH];
                packet.with(advert.emit(&mut buffer, from.into(), to.into()))
            };
            vec![
                ("of the highest priority", advert(u8::MAX)),
                ("that resigns", advert(0)),
            ]
        }
        Some(BFD) => {
            let Ok(recorded) = ControlPacket::parse(packet.data()) else {
                return Vec::new();
            };
            let bare = ControlPacket {
                authentication: None,
                state: vip_common::wire::bfd::State::AdminDown,
                ..recorded
            };
            let mut buffer = [0; BFD_LENGTH];
            vec![("that ends the session", packet.with(bare.emit(&mut buffer)))]
        }
        Some(_) => vec![("that says nothing", packet.with(b"vip\0"))],
    }
}

/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(1);

/// What `record` has printed.
fn recorded(path: &Path) -> Result<Vec<Packet>> {
    let file = std::fs::File::open(path).context("open what was recorded")?;
    let mut packets = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.context("read what was recorded")?;
        let bytes = (0..line.len() / 2).map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16));
        let frame = bytes.collect::<Result<Vec<u8>, _>>().context("read hex")?;
        // Questions to another node's kernel are empty: there is nothing to change.
        packets.extend(Packet::parse(&frame).filter(|packet| !packet.data().is_empty()));
    }
    Ok(packets)
}

/// Sends packets from this host to one node.
struct Sender {
    socket: OwnedFd,
    own: Mac,
    to: Mac,
}

impl Sender {
    fn open(to: Mac) -> Result<Self> {
        let socket = packet_socket(NIC, ETHERTYPE_IPV4);
        Ok(Self {
            socket: socket.with_context(|| format!("open {NIC}"))?,
            own: own_mac(NIC)?,
            to,
        })
    }

    fn send(&self, packet: &Packet) -> Result<()> {
        let ip = packet.ip.packet(&packet.payload);
        // To the one node, whomever it was for.
        let to = if packet.ip.destination.is_multicast() {
            packet.destination_mac
        } else {
            self.to
        };
        let frame = ethernet(self.own, to, ETHERTYPE_IPV4, &ip);
        while let Err(error) = nix::unistd::write(&self.socket, &frame) {
            if error != Errno::ENOBUFS {
                return Err(error.into());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// Sends all forms of all recorded packets, and prints how many of each.
///
/// # Errors
/// No permission, or the interface is down.
pub fn forge(args: &ForgeArgs) -> Result<()> {
    let packets = recorded(&args.recorded)?;
    let sender = Sender::open(args.mac)?;
    for (kind, port) in [("hello", Some(HELLO)), ("bfd", Some(BFD)), ("vrrp", None)] {
        let of_kind: Vec<&Packet> = packets.iter().filter(|one| one.port() == port).collect();
        let mut sent = std::collections::BTreeMap::<&str, u32>::new();
        for packet in of_kind {
            let all = forms(packet, args.own)
                .into_iter()
                .chain(plain(packet, args));
            for (form, packet) in all {
                let is_sent = sender.send(&packet);
                is_sent.with_context(|| format!("send a {kind} {form}"))?;
                *sent.entry(form).or_default() += 1;
            }
            std::thread::sleep(PAUSE);
        }
        for (form, count) in sent {
            println!("{kind} {form}: {count}");
        }
    }
    Ok(())
}

/// Answers all plain hellos, in the name of an address, until it is ended.
///
/// # Errors
/// No permission, or the interface is down.
pub fn pretend(args: &PretendArgs) -> Result<()> {
    let socket = packet_socket(NIC, ETHERTYPE_IPV4).with_context(|| format!("open {NIC}"))?;
    let own_mac = own_mac(NIC)?;
    let own = IpAddr::V4(args.address);
    let needs_member = args.leaves || args.tells_of.is_some();
    let mut buffer = [0; 2048];
    let mut victims: Vec<Heard> = Vec::new();
    let mut member: Option<Hello> = None;
    for number in 1.. {
        let length = nix::unistd::read(&socket, &mut buffer).context("read a frame")?;
        let heard = Packet::parse(&buffer[..length]).filter(|packet| packet.port() == Some(HELLO));
        let Some(packet) = heard else {
            continue;
        };
        let source = IpAddr::V4(packet.ip.source);
        let Ok(hello) = envelope::unwrap(None, source, packet.data()) else {
            continue;
        };
        if source == own {
            member = Some(hello);
            continue;
        }
        let Hello {
            instance: of,
            number: latest,
            ref vips,
            ..
        } = hello;
        victims.retain(|victim| victim.address != source);
        victims.insert(
            0,
            Heard {
                address: source,
                instance: of,
                latest,
            },
        );
        victims.truncate(MAX_HEARD);
        if needs_member && member.is_none() {
            continue;
        }
        let mut answer = match &member {
            Some(last) => Hello {
                number: last.number + 1,
                ..last.clone()
            },
            None => Hello {
                instance: FORGED,
                number,
                leaves: false,
                drains: false,
                joins: false,
                established: args.established,
                vips: vips.clone(),
                members: vec![line(own)],
                own: 0,
                heard: Vec::new(),
                forgotten: Vec::new(),
                text: String::new(),
            },
        };
        answer.leaves = args.leaves;
        answer.heard.clone_from(&victims);
        answer
            .members
            .extend(args.tells_of.map(|other| line(other.into())));
        let Some(datagram) = envelope::wrap(None, [0; 24], own, &answer) else {
            continue;
        };
        let mut answer = packet.with(&datagram);
        answer.ip.source = args.address;
        answer.ip.destination = GROUP;
        let ip = answer.ip.packet(&answer.payload);
        let frame = ethernet(own_mac, GROUP_MAC, ETHERTYPE_IPV4, &ip);
        nix::unistd::write(&socket, &frame).context("send a hello")?;
    }
    Ok(())
}

/// The run of an agent that does not exist.
const FORGED: Instance = Instance(NonZeroU64::MIN);

/// What a hello says of a member that has just been heard.
fn line(address: IpAddr) -> Line {
    Line {
        address,
        instance: Some(FORGED),
        weight: 1,
        installed: true,
        age: Some(Duration::ZERO),
        latest: 0,
        row_number: 1,
        row: 1,
    }
}

/// The group that hellos go to.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const GROUP_MAC: Mac = Mac([0x01, 0, 0x5e, 0, 0, 18]);
