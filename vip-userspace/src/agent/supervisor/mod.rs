//! The agent around the thread that keeps time: what may be slow.
//!
//! It puts everything in place, watches the node's network, probes, and turns what happens into
//! [`Command`]s for the [`NodeThread`]; what comes back goes to the log and to `vip status`.

mod addresses;
mod bfd;
mod bfd_access;
mod checking;
mod claims;
mod connections;
mod drain;
mod first;
mod handover;
mod hang;
mod hooks;
mod look_at_connections;
mod look_at_hooks;
mod look_at_other_nics;
mod look_at_segment;
mod members;
mod network;
mod other_nics;
mod peer;
mod probes;
mod reload;
mod remote;
mod report;
mod rosters;
mod segment;
mod setup;
mod sources;
mod start;
mod states;
mod status;

pub(super) use self::start::Start;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;
use vip_common::wire::time::BootNanos;

use self::checking::Checking;
use self::claims::Claims;
use self::connections::Connections;
use self::hooks::Hooks;
use self::other_nics::OtherNics;
use self::peer::Peer;
use self::segment::Segment;
use self::setup::NicSockets;
use self::states::States;
use super::cluster::Cluster;
use super::node_thread::{Command, NodeThread, View};
use super::roster::RosterThread;
use super::state::StateDir;
use crate::clock::now;
use crate::config::{Config, Source};
use crate::datapath::{Attachment, Datapath, DesiredState, Held, Pins};
use crate::net::netlink::Netlink;
use crate::net::{Neighbours, Nic};
use crate::observe::event::{Event, Record, Repair};
use crate::observe::journal::Journal;
use crate::observe::metrics::Instruments;
use crate::observe::summary::Summary;
use vip_node::Input;
use vip_node::election::State;
use vip_node::seal::KeyRing;
use vip_node::slots::Slots;
use vip_node::sources::Sources;

/// Everything the loop drives.
pub(super) struct Supervisor {
    config: Config,
    /// Where it was read.
    source: Source,
    checking: Checking,
    nic: Nic,
    netlink: Netlink,
    desired: Arc<DesiredState>,
    datapath: Datapath,
    attachment: Attachment,
    hooks: Hooks,
    sources: Sources,
    sockets: NicSockets,
    /// Frames of ARP and Neighbour Discovery that came by them.
    heard: u64,
    pins: Pins,
    /// The NIC went away, and with it all that was bound to it.
    nic_is_gone: bool,
    /// Since when the node's address is on no interface.
    address_gone: Option<BootNanos>,
    /// Why the node's address was not followed, as it was last told.
    not_followed: Option<String>,
    /// A lock: shows other agents that this one runs.
    _held: Held,
    other_nics: OtherNics,
    /// Whose connections are redirected.
    cgroup: Option<PathBuf>,
    node_thread: NodeThread,
    cluster: Cluster,
    peers: Slots<Peer>,
    state: State,
    /// Since when the node is in its state.
    since: BootNanos,
    takeovers: u64,
    last_failover: Option<Duration>,
    claims: Claims,
    /// Since when the owner and each node are as they are.
    states: States,
    /// What else is wrong on the segment.
    segment: Segment,
    /// How often the NIC's carrier had come or gone when it was last looked at.
    carrier_changes: u32,
    /// Those that the agents of the cluster share.
    keys: Option<Arc<KeyRing>>,
    started: BootNanos,
    /// What the other agents were told of this node.
    told_others: Option<Summary>,
    /// Hosts that are asked to prove that they may be members.
    proving: Vec<IpAddr>,
    /// Those that have not, and why, as it was told.
    unproved: Vec<(IpAddr, String)>,
    /// Those that there was no place for, as it was told.
    refused: Vec<IpAddr>,
    /// When rates were last computed.
    sampled: BootNanos,
    journal: Journal,
    state_dir: StateDir,
    instruments: Instruments,
    /// What is wrong with the credentials for health checks.
    credentials_trouble: Option<String>,
    /// Length of the longest accept queue of this node's servers.
    longest_queue: Arc<AtomicU32>,
    /// Connections to the VIPs that they have open.
    connections: Connections,
    rosters: RosterThread,
}

impl Supervisor {
    /// By which it hears who has which address.
    pub(super) fn neighbours(&self) -> Arc<Neighbours> {
        self.sockets.neighbours.clone()
    }

    /// Index of the NIC, which is another one once the node's address has moved.
    pub(super) fn nic(&self) -> u32 {
        self.nic.index
    }

    /// The node's own address on the VIPs' segment.
    pub(super) fn address(&self) -> IpAddr {
        self.nic.address
    }

    /// What the thread knows, once it has taken in what it was told before.
    pub(super) fn view(&self) -> impl Future<Output = anyhow::Result<View>> + use<> {
        let (answer, answered) = oneshot::channel();
        self.node_thread.tell(Command::View(answer));
        async { answered.await.context("the agent is ending") }
    }

    /// Looks whether everything is as it should be, whatever events said or did not say.
    ///
    /// # Errors
    /// If the agent must be started anew.
    pub(super) async fn reconcile(&mut self) -> anyhow::Result<()> {
        if self.datapath.repair(&self.desired)? {
            self.journal.note(Event::repaired(Repair::Tables));
        }
        self.node_thread.tell(Command::Reconcile);
        self.look_at_link().await?;
        self.look_at_other_nics().await;
        self.look_at_addresses().await?;
        self.look_at_proof();
        self.look_at_bfd();
        self.test_connect();
        self.learn_neighbours().await;
        if let Ok(counted) = claims::count(&self.datapath) {
            if counted > self.claims.counted
                && let Ok(mac) = self.datapath.claimant()
            {
                self.on_claim(mac);
            }
            self.claims.counted = counted;
        }
        self.look_at_segment().await;
        self.sample();
        self.count_connections();
        Ok(())
    }

    fn sample(&mut self) {
        let now = now();
        let seconds = now.since(self.sampled).as_secs_f64().max(0.001);
        self.sampled = now;
        for peer in self.peers.values_mut() {
            if let Ok(counters) = self.datapath.backend_counters(peer.index) {
                peer.count(counters, seconds);
            }
        }
    }

    /// What happened from this event on.
    pub(super) fn events(&self, since: u64) -> Vec<Record> {
        self.journal.since(since).cloned().collect()
    }

    /// Something happened to the agent itself.
    pub(super) fn note(&mut self, event: Event) {
        self.journal.note(event);
    }

    /// Gives the VIP up, for another node to take. The thread ends when one has.
    pub(super) fn resign(&self) {
        self.node_thread.tell(Input::Shutdown);
    }

    /// The thread has ended. `left`: this node has left the cluster.
    pub(super) fn end(mut self, left: bool) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.node_thread.join(),
            "the thread that renews the answer lease panicked: start the agent again, and report this"
        );
        self.journal.note(Event::stopped(left));
        Ok(())
    }

    /// The log of the eBPF programs, if it is wanted.
    pub(super) fn program_log(&mut self) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
        tracing::enabled!(target: "vip", tracing::Level::DEBUG)
            .then(|| self.datapath.log())
            .flatten()
    }
}
