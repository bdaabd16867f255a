//! Messages about connections that no agent has sent, or not now: recorded ones in many forms, and
//! some that tell of connections of a bystander.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use vip_node::envelope;
use vip_node::roster::{Body, Connection, Message};
use vip_node::seal::{KeyRing, Secret};

use super::{FORGED, ForgeArgs, HELLO, Packet, Sender, forms, recorded};
use crate::topology::PORT;

/// Arguments of `testbed forge-rosters`.
#[derive(Args, Debug)]
pub struct ForgeRostersArgs {
    #[command(flatten)]
    forge: ForgeArgs,
    /// The address of the node that gets the frames
    #[arg(long)]
    node: Ipv4Addr,
    /// A host that has no connection to the virtual address
    #[arg(long)]
    bystander: Ipv4Addr,
    /// Send nothing but what a host can make that reads the messages of the member with that address:
    /// what comes next in the member's name
    #[arg(long)]
    reads: Option<Ipv4Addr>,
}

/// The bystander's ports from which the connections come that nobody has made.
pub const INVENTED: std::ops::Range<u16> = 20_001..20_011;

/// Between the forms of one recorded message and those of the next: an agent reads five thousand
/// datagrams in a second, and the members' own must be among them.
const PACE: Duration = Duration::from_millis(10);

/// UDP data of the longest packet on any Ethernet.
const LONGEST: usize = 1472;

/// More messages than an agent sends while a test runs.
const AHEAD: u64 = 1_000_000;

/// Connections of others in one message: they have room beside those of the bystander.
const OTHERS: usize = 50;

impl ForgeRostersArgs {
    /// A connection of the bystander.
    fn connection(&self, port: u16) -> Connection {
        Connection {
            client: SocketAddr::new(self.bystander.into(), port),
            server: SocketAddr::new(self.forge.vip.into(), PORT),
            unacknowledged: 1,
            expected: 1,
        }
    }
}

/// What somebody makes who cannot read the members' messages: the runs are guessed.
fn invented(packet: &Packet, args: &ForgeRostersArgs) -> Vec<(&'static str, Packet)> {
    let guess = Message {
        to: Some(FORGED),
        answers: u64::MAX,
        from: FORGED,
        number: u64::MAX,
        body: Body::Changes {
            removed: Vec::new(),
            connections: vec![args.connection(INVENTED.start)],
        },
    };
    let for_nobody = Message {
        to: None,
        ..guess.clone()
    };
    let stranger = packet.from(args.forge.own);
    let other_key = KeyRing::new(&Secret::new([7; 32]), None).expect("one key");
    [
        ("of a guessed run", packet, &guess, None),
        ("for no run", packet, &for_nobody, None),
        ("of a stranger", &stranger, &guess, None),
        ("with another key", packet, &guess, Some(&other_key)),
    ]
    .into_iter()
    .filter_map(|(form, like, message, keys)| {
        let from = like.ip.source.into();
        let datagram = envelope::wrap_roster(keys, [7; 24], from, message)?;
        Some((form, like.with(&datagram)))
    })
    .collect()
}

/// Messages of later versions, and one that is longer than any.
fn unknown(packet: &Packet) -> Vec<(&'static str, Packet)> {
    let changed = |place: usize, byte| {
        let mut data = packet.data().to_vec();
        data[place] = byte;
        packet.with(&data)
    };
    let mut long = packet.data().to_vec();
    long.resize(LONGEST, 0);
    vec![
        ("in a later envelope", changed(3, 5)),
        ("of a later version", changed(4, 2)),
        ("longer than any", packet.with(&long)),
    ]
}

/// The message in a packet, if it is not sealed.
fn plain(packet: &Packet) -> Option<Message> {
    envelope::unwrap_roster(None, packet.ip.source.into(), packet.data()).ok()
}

/// In a member's name: it has connections of the bystander, and those that others have.
fn goes_on(
    packets: &[Packet],
    args: &ForgeRostersArgs,
    member: Ipv4Addr,
) -> Option<(Packet, Message)> {
    let own = packets.iter().filter(|packet| packet.ip.source == member);
    let mut own = own.filter_map(|packet| Some((packet, plain(packet)?)));
    let (like, last) = own.rfind(|(_, message)| message.to.is_some())?;
    let others = packets.iter().filter(|packet| packet.ip.source != member);
    let others = others
        .filter_map(plain)
        .flat_map(|message| match message.body {
            Body::Range { connections, .. } | Body::Changes { connections, .. } => connections,
            _ => Vec::new(),
        });
    // The byte of old data that such a client is asked with would be new to it.
    let others = others.map(|one| Connection {
        unacknowledged: one.unacknowledged.wrapping_add(1),
        ..one
    });
    let invented = INVENTED.map(|port| args.connection(port));
    let message = Message {
        number: last.number + AHEAD,
        body: Body::Changes {
            removed: Vec::new(),
            connections: invented.chain(others.take(OTHERS)).collect(),
        },
        ..last
    };
    Some((like.clone(), message))
}

/// Sends messages to a node until it is ended. Prints after each round how many there were.
///
/// # Errors
/// No permission, the interface is down, or nothing fit was recorded.
pub fn forge_rosters(args: &ForgeRostersArgs) -> Result<()> {
    let mut packets = recorded(&args.forge.recorded)?;
    // The switch may have flooded some that were for others.
    packets.retain(|packet| {
        let is_roster = packet.port() == Some(HELLO) && envelope::is_roster(packet.data());
        is_roster && packet.ip.destination == args.node
    });
    let sender = Sender::open(args.forge.mac)?;
    if let Some(member) = args.reads {
        let (like, mut message) =
            goes_on(&packets, args, member).context("nothing of the member can be read")?;
        loop {
            message.number += 1;
            let datagram = envelope::wrap_roster(None, [0; 24], member.into(), &message);
            let datagram = datagram.context("the message is too long")?;
            sender.send(&like.with(&datagram)).context("send it")?;
            println!("1");
            std::thread::sleep(PACE);
        }
    }
    packets.first().context("nobody has told of connections")?;
    loop {
        let mut count = 0;
        for packet in &packets {
            let all = forms(packet, args.forge.own).into_iter();
            for (form, packet) in all.chain(unknown(packet)).chain(invented(packet, args)) {
                let is_sent = sender.send(&packet);
                is_sent.with_context(|| format!("send a message {form}"))?;
                count += 1;
            }
            std::thread::sleep(PACE);
        }
        println!("{count}");
    }
}
