//! Puts everything in place: maps, programs, the VIP, and the node thread.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;
use vip_common::abi::{BackendIndex, CheckIndex, Masks};

use super::Supervisor;
use super::addresses::{self, Placed};
use super::checking::Checking;
use super::claims::{self, Claims};
use super::connections::Connections;
use super::first::{self, First};
use super::hooks::{self, Hooks};
use super::other_nics::OtherNics;
use super::peer::Peer;
use super::rosters::{self, hearers};
use super::segment::Segment;
use super::setup::{NicSockets, addresses_of, described, desired, own_addresses, params, redirect};
use super::states::States;
use crate::agent::cluster::Cluster;
use crate::agent::members_file::StoredMember;
use crate::agent::node_thread::{Known, NodeThread, Notice, Sockets, StaticConfig};
use crate::agent::probes::Outcome;
use crate::agent::queues::{Hung, hung_before};
use crate::agent::roster::{Network, RosterThread};
use crate::agent::state::StateDir;
use crate::agent::survey::Found;
use crate::clock::now;
use crate::config::{Config, Node as Member, Source};
use crate::datapath::{
    self, Attachment, Datapath, DesiredState, Held, Loader, Pins, StateMap, Way,
};
use crate::net::netlink::Netlink;
use crate::net::{Nic, port_macs};
use crate::observe::event::Event;
use crate::observe::journal::Journal;
use crate::observe::metrics::Instruments;
use vip_node::election::State;
use vip_node::health::Hang;
use vip_node::hooks::Hook;
use vip_node::seal::KeyRing;
use vip_node::sources::Sources;
use vip_node::{Input, Node};

/// What an agent starts with.
pub(in crate::agent) struct Start<'a> {
    pub(in crate::agent) config: Config,
    /// Where it was read.
    pub(in crate::agent) source: Source,
    pub(in crate::agent) nic: Nic,
    pub(in crate::agent) netlink: Netlink,
    /// Those that the agents of the cluster share.
    pub(in crate::agent) keys: Option<Arc<KeyRing>>,
    pub(in crate::agent) instruments: Instruments,
    /// Where surveys of the segment end.
    pub(in crate::agent) surveys: mpsc::Sender<Found>,
    pub(in crate::agent) state_dir: StateDir,
    /// Where probes end.
    pub(in crate::agent) probes: mpsc::Sender<Outcome>,
    pub(in crate::agent) outcomes: &'a mut mpsc::Receiver<Outcome>,
}

impl Start<'_> {
    /// Starts. The order of the steps is what keeps the kernel from answering for the VIP, and
    /// connections from servers that nobody has probed.
    ///
    /// # Errors
    /// A step fails. What was done before it stays.
    pub(in crate::agent) async fn run(
        mut self,
    ) -> anyhow::Result<(Supervisor, mpsc::UnboundedReceiver<Notice>)> {
        let Self {
            config,
            source,
            nic,
            netlink,
            keys,
            ..
        } = self;
        let stored = self.state_dir.members().into_iter();
        let stored = stored.map(StoredMember::into_node).collect();
        let mut on = OnNic::put(&config, &nic, &netlink, stored, keys.clone()).await?;
        // Not before: while the kernel verifies programs, nothing else is done here, and no answer is
        // read.
        let mut checking = Checking::probe(&config, &on.cluster, self.probes);
        // Where no agent was, connections to the VIP leave by the NIC until it is here. They are not
        // to be turned to a server that nobody has probed, this node's own least.
        let first = on.first_probes(&config, self.outcomes).await?;
        let masks = on.known();
        if let Some(masks) = &masks {
            // If the kernel cannot be asked, those who look at queues say so.
            let hung = hung_before(&config, on.cluster.own(), masks);
            checking.hung = hung.unwrap_or_default();
        }
        let longest_queue = Arc::default();
        checking.watch(&config, Arc::clone(&longest_queue));
        let cgroup = redirect(&mut on.datapath, &config);
        // What came before the programs did.
        on.sockets.neighbours.drain();
        let link = netlink.link(nic.index).await?;
        let mut hooks = Hooks::begin(&on.datapath, cgroup.is_some())?;
        let xdp = link.as_ref().and_then(|link| link.xdp);
        let seen = hooks::seen(&netlink, nic.index, xdp, on.attachment).await?;
        let look = on.datapath.look(Way::In, &nic.name, on.attachment, &seen)?;
        let peers = on.cluster.peers();
        hooks
            .prove_at_start(&mut on.datapath, &on.sockets.neighbours, look, &peers)
            .await;
        let mut other_nics = OtherNics::open(&config);
        let settled = other_nics.settle(&netlink, &config, nic.index).await;
        // Last: once the VIPs are here, only programs and settings keep the kernel from answering
        // for them.
        let placed = place_vips(&netlink, &config).await?;
        let journal = Beginning {
            left: on.left,
            placed,
            settled,
            attached: described(&nic, on.attachment),
            adopted: on.datapath.adopted(),
            ingress_fails: hooks.ingress.cause(),
        }
        .note(&mut self.state_dir)?;

        let cluster = on.cluster;
        let sources = sources(&on.state, cluster.own());
        let checks = config.checks.len();
        let peers = cluster
            .nodes()
            .map(|slot, node| Peer::new(slot, node, on.state.mac(slot), checks));
        let counted = claims::count(&on.datapath)?;
        let thread = Thread {
            config: &config,
            cluster: &cluster,
            desired: on.desired.clone(),
            datapath: &on.datapath,
            inputs: inputs(&first, &checking.hung, cluster.own()),
            masks,
            keys: &keys,
        };
        let (node_thread, notices) = thread
            .start(on.state, on.thread_sockets)
            .context("cannot start the thread that renews the answer lease")?;
        let network = Network {
            nic: nic.clone(),
            channel: on.sockets.peer_channel.clone(),
        };
        let servers = rosters::servers(&config, &cluster);
        let tell = rosters::teller(checking.outcomes());
        let rosters = RosterThread::start(network, servers, tell)
            .context("cannot start the thread that keeps rosters")?;
        on.sockets
            .listen_to_peers(hearers(&node_thread, &rosters, &checking))?;
        let now = now();
        let mut supervisor = Supervisor {
            config,
            source,
            checking,
            nic,
            netlink,
            desired: on.desired,
            datapath: on.datapath,
            attachment: on.attachment,
            hooks,
            sources,
            sockets: on.sockets,
            heard: 0,
            pins: on.pins,
            nic_is_gone: false,
            address_gone: None,
            not_followed: None,
            _held: on.held,
            other_nics,
            cgroup,
            node_thread,
            cluster,
            peers,
            state: State::Initialize,
            since: now,
            takeovers: 0,
            last_failover: None,
            claims: Claims {
                counted,
                ..Claims::default()
            },
            states: States::new(now),
            keys,
            started: now,
            told_others: None,
            proving: Vec::new(),
            unproved: Vec::new(),
            refused: Vec::new(),
            segment: Segment::new(self.surveys),
            carrier_changes: link.map_or(0, |link| link.carrier_changes),
            sampled: now,
            journal,
            state_dir: self.state_dir,
            instruments: self.instruments,
            credentials_trouble: None,
            longest_queue,
            connections: Connections::default(),
            rosters,
        };
        supervisor.roster_peers_changed();
        supervisor.begin(first).await?;
        Ok((supervisor, notices))
    }
}

impl Supervisor {
    /// Takes in what was found while it started, and looks at everything for the first time.
    async fn begin(&mut self, first: First) -> anyhow::Result<()> {
        for probed in &first.probed {
            self.note_probe(probed);
        }
        for news in first.news {
            self.on_credentials(news);
        }
        // What was counted for an earlier agent is no rate of now.
        for peer in self.peers.values_mut() {
            peer.counted = self.datapath.backend_counters(peer.index)?;
        }
        self.tell_of_bfd();
        self.tell_of_reset();
        let drains = self.state_dir.is_drained();
        self.node_thread.tell(Input::Drain(drains));
        self.reconcile().await
    }
}

/// What is bound to the NIC.
struct OnNic {
    cluster: Cluster,
    desired: Arc<DesiredState>,
    pins: Pins,
    held: Held,
    thread_sockets: Sockets,
    sockets: NicSockets,
    /// Addresses that were taken off `lo`.
    left: Vec<IpAddr>,
    datapath: Datapath,
    state: StateMap,
    attachment: Attachment,
}

impl OnNic {
    /// Opens sockets and attaches the programs.
    async fn put(
        config: &Config,
        nic: &Nic,
        netlink: &Netlink,
        stored: Vec<Member>,
        keys: Option<Arc<KeyRing>>,
    ) -> anyhow::Result<Self> {
        let loader = Loader::begin().context("cannot start a thread")?;
        let (_, nics) = netlink.settings().await?;
        let macs = port_macs(&nics, nic.index, nic.mac);
        let pins = Pins::open(&config.datapath.bpffs, &config.run_dir)?;
        let held = pins.hold()?;
        let found = datapath::members(&pins);
        let cluster = if config.is_open() {
            Cluster::open(config, nic.address, &found, stored)
        } else {
            Cluster::new(&config.nodes, nic.address, &found)
        };
        let cluster = cluster.context("the configuration has too many nodes")?;
        let desired = Arc::new(desired(config, &cluster, nic, macs)?);
        // Sockets first: without them there is no use in touching the NIC.
        let mut loader = loader.end();
        let (thread_sockets, sockets) =
            NicSockets::open(config, &cluster.peers(), nic, &pins, keys, &mut loader)?;
        // Before the programs know it no more: from then on the kernel would answer for it.
        let left = addresses::leave_old(netlink, config).await?;
        let (mut datapath, state) = Datapath::load_by(loader, Some(pins.clone()), &desired)?;
        let attachment = datapath.attach(&nic.name, nic.index, config.datapath.mode, None)?;
        Ok(Self {
            cluster,
            desired,
            pins,
            held,
            thread_sockets,
            sockets,
            left,
            datapath,
            state,
            attachment,
        })
    }

    /// What an agent before this one has left in the maps. One that had not come to know the others
    /// has left nothing that is worth knowing.
    fn known(&self) -> Option<Masks> {
        let masks = self.datapath.adopted().then(|| self.state.get().masks);
        masks.filter(|masks| masks.no_forward.is_empty())
    }

    /// Waits for the first probes, where no agent was before.
    async fn first_probes(
        &mut self,
        config: &Config,
        outcomes: &mut mpsc::Receiver<Outcome>,
    ) -> anyhow::Result<First> {
        if self.datapath.adopted() {
            return Ok(First::default());
        }
        let first = first::wait(outcomes, self.cluster.nodes().len(), config.checks.len()).await;
        let masks = first::masks(&first.probed, self.state.get().masks);
        self.state.set_masks(masks)?;
        Ok(first)
    }
}

/// A VIP on `lo`, and whose it is.
struct PlacedVip {
    address: IpAddr,
    how: Placed,
}

/// What the journal of an agent begins with.
struct Beginning {
    /// Addresses that were taken off `lo`.
    left: Vec<IpAddr>,
    placed: Vec<PlacedVip>,
    /// Whether the kernel's settings of other NICs could be changed.
    settled: anyhow::Result<()>,
    /// The NIC, and how the program runs there.
    attached: String,
    adopted: bool,
    /// Why the program on the way in does not run, if it does not.
    ingress_fails: Option<String>,
}

impl Beginning {
    fn note(self, state_dir: &mut StateDir) -> anyhow::Result<Journal> {
        let mut journal = state_dir.begin()?;
        if let Some(cause) = state_dir.trouble() {
            let what = "events and `vip drain` will not outlive a reboot (`state_dir`)";
            journal.note(Event::failed(what, cause));
        }
        for address in self.left {
            journal.note(Event::address_left(address));
        }
        for PlacedVip { address, how } in self.placed {
            how.tell(address, &mut journal);
        }
        if let Err(error) = self.settled {
            let cause = format!("{error:#}");
            journal.note(Event::other_nics(cause));
        }
        journal.note(Event::started(
            env!("CARGO_PKG_VERSION"),
            &self.attached,
            self.adopted,
        ));
        if let Some(cause) = self.ingress_fails {
            journal.note(Event::hook_fails(Hook::Ingress, cause));
        }
        Ok(journal)
    }
}

/// Where frames of the nodes come from, as the state says.
fn sources(state: &StateMap, own: BackendIndex) -> Sources {
    let mut sources = Sources::new(own);
    for (slot, node) in state.get().backends() {
        sources.on_neighbour(slot, node.mac);
        sources.restore(slot, node.source);
    }
    sources
}

/// What was found before the node thread starts.
fn inputs(first: &First, hung: &Hung, own: BackendIndex) -> Vec<Input> {
    let hung = CheckIndex::first(hung.len()).filter(|check| hung[check.get()]);
    let hangs = hung.map(|check| Input::Hang {
        check,
        hang: Some(Hang::Before),
    });
    hangs.chain(first::inputs(&first.probed, own)).collect()
}

/// What the node thread starts with.
struct Thread<'a> {
    config: &'a Config,
    cluster: &'a Cluster,
    desired: Arc<DesiredState>,
    datapath: &'a Datapath,
    masks: Option<Masks>,
    inputs: Vec<Input>,
    keys: &'a Option<Arc<KeyRing>>,
}

impl Thread<'_> {
    fn start(
        self,
        state: StateMap,
        sockets: Sockets,
    ) -> io::Result<(NodeThread, mpsc::UnboundedReceiver<Notice>)> {
        let Self {
            config, cluster, ..
        } = self;
        let known = Known {
            masks: self.masks,
            inputs: self.inputs,
        };
        let static_config = StaticConfig {
            nodes: cluster.addresses(),
            own: cluster.own(),
            vips: addresses_of(config).collect(),
            own_addresses: own_addresses(cluster.own_node()),
            router_id: config.router_id(),
            mode: config.vrrp.mode,
            keys: self.keys.clone(),
            interop: config.vrrp.interop,
            checks: config.checks.len(),
        };
        NodeThread::start(
            Node::new(&params(config, cluster, self.keys.as_deref())),
            state,
            (self.desired, self.datapath.halves()),
            known,
            sockets,
            static_config,
        )
    }
}

/// Puts the VIPs on `lo`.
async fn place_vips(netlink: &Netlink, config: &Config) -> anyhow::Result<Vec<PlacedVip>> {
    let mut placed = Vec::new();
    for vip in &config.vips {
        let how = addresses::put(netlink, config, vip).await?;
        let address = vip.address;
        placed.push(PlacedVip { address, how });
    }
    Ok(placed)
}
