//! The thread that keeps the rosters, and asks the clients of nodes that are gone.
//!
//! It has no real-time priority and waits for nobody: a scan of 100,000 connections takes a tenth of a
//! second, which the thread that keeps time could not spare.

mod cadence;
mod keeper;
mod stats;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use vip_node::roster::Message;

pub(super) use self::stats::Stats;

use self::keeper::Keeper;
use super::peer_channel::PeerChannel;
use super::probes;
use crate::datapath::Arrivals;
use crate::net::Nic;

/// Messages of peers that may wait.
const WAITING: usize = 1024;

/// Where connections come in on this node.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) nic: Nic,
    pub(super) channel: Arc<PeerChannel>,
}

/// Whose connections are in rosters.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    /// The VIPs.
    pub(super) vips: BTreeSet<IpAddr>,
    /// This node's own addresses.
    pub(super) own: BTreeSet<IpAddr>,
    /// Where servers of this node have their ends of connections: at VIPs, and at its own addresses,
    /// where other nodes' programs bring the connections of their own.
    pub(super) ends: BTreeSet<SocketAddr>,
    /// The ends at VIPs as clients know them, and as servers do.
    pub(super) mapped: BTreeMap<SocketAddr, SocketAddr>,
    /// As in the configuration: after that time, others take this node for gone.
    pub(super) reset_after: Duration,
}

/// What the thread is told.
pub(super) enum Command {
    /// Another NIC, or another channel.
    Network(Box<Network>),
    Servers(Box<Servers>),
    /// These are the other members.
    Peers(BTreeSet<IpAddr>),
    /// This node owns the VIP, or does not.
    Owner(bool),
    /// A node does not answer: its clients may have to be asked soon.
    Away(IpAddr),
    /// A node is gone. All its addresses, the one by which it is known first.
    Gone(Vec<IpAddr>),
    /// It is there again.
    Back(IpAddr),
    /// A session with a node has come up or gone down.
    Session(IpAddr, bool),
    /// Something has changed that may have kept rows from ending in a reset.
    Again,
}

/// What the thread tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clients {
    /// Of the VIPs, by any node.
    Vip,
    /// This node's own and those of its pods, by that node's own address.
    Local,
}

/// The rest of the agent's end. The thread ends when this is dropped.
pub(super) struct RosterThread {
    commands: mpsc::UnboundedSender<Command>,
    messages: mpsc::Sender<(IpAddr, Message)>,
    pub(super) stats: Arc<Stats>,
}

impl RosterThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel gives none.
    pub(super) fn start(
        network: Network,
        servers: Servers,
        arrivals: Option<Arrivals>,
        outcomes: mpsc::Sender<probes::Outcome>,
    ) -> io::Result<Self> {
        let (commands, told) = mpsc::unbounded_channel();
        let (messages, heard) = mpsc::channel(WAITING);
        let stats = Arc::new(Stats::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let keeper_stats = stats.clone();
        std::thread::Builder::new()
            .name("vip-roster".to_owned())
            .spawn(move || {
                let keeper = Keeper::new(network, servers, arrivals, outcomes, keeper_stats);
                runtime.block_on(keeper.run(told, heard));
            })?;
        Ok(Self {
            commands,
            messages,
            stats,
        })
    }

    /// Tells the thread something. It has ended if it is not heard.
    pub(super) fn tell(&self, command: Command) {
        let _ended = self.commands.send(command);
    }

    /// Where messages of peers go. If they are too many, the digests mend it.
    pub(super) fn messages(&self) -> mpsc::Sender<(IpAddr, Message)> {
        self.messages.clone()
    }
}
