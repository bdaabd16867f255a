//! The agent around the thread that keeps time: what may be slow.
//!
//! It puts everything in place, watches the node's network, probes, and turns what happens into
//! [`Command`]s for the [`Pacer`]; what comes back goes to the log and to `vip status`.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use vip_common::layout::{
    AllowKey, BackendIndex, Be16, Be128, BootNanos, Counter, Mac, Service, Vip, flag,
};
use vip_common::wire::vrrp::Centiseconds;

use super::clock::now;
use super::pacer::{Command, HandoverResult, Notice, Pacer, Setting, View, Wires};
use super::proof::Proof;
use crate::config::{self, Config, VrrpMode, XdpMode};
use crate::datapath::{Allowed, Attachment, Datapath, Mode, NodeAddresses, Pins, Plan};
use crate::decide::bfd;
use crate::decide::health::{Probe, Thresholds, Transition};
use crate::decide::node::{Fault, Member, Node, Params, Report, VrrpParams};
use crate::decide::vrrp::State;
use crate::net::bfd::BfdSocket;
use crate::net::echo::EchoSocket;
use crate::net::netlink::{NetEvent, Netlink};
use crate::net::vrrp::{Delivery, VrrpSocket};
use crate::net::{Groups, Heard, Neighbours, Nic};
use crate::observe::status::{self, Status};
use crate::probe::ProbeResult;
use crate::{cgroup, rank};

/// File in the run directory that says which addresses were put on `lo`, one a line.
pub const ADDRESSES: &str = "addresses";

/// File in the run directory that says that this node is to take no new connections.
pub const DRAINED: &str = "drained";

/// A node as this one sees it.
struct Peer {
    index: BackendIndex,
    address: IpAddr,
    name: String,
    /// Where its frames go, as the thread was told.
    mac: Mac,
    /// What the last probe by each check said.
    probes: Vec<String>,
    rtt: Option<Duration>,
    /// Frames and new connections at the last reconciliation, and a second since.
    counted: (u64, u64),
    rates: (f64, f64),
}

/// Everything the loop drives.
pub(super) struct Shell {
    config: Config,
    nic: Nic,
    netlink: Netlink,
    plan: Arc<Plan>,
    datapath: Datapath,
    attachment: Attachment,
    proof: Proof,
    neighbours: Arc<Neighbours>,
    /// `None` if there is no VIP of IPv6.
    _groups: Option<Groups>,
    /// Whose connections are redirected.
    cgroup: Option<PathBuf>,
    pacer: Pacer,
    peers: Vec<Peer>,
    state: State,
    /// Since when the node is in its state.
    since: BootNanos,
    takeovers: u64,
    /// Claims of the VIP by strangers that are known of, as the program counts them, and all.
    claims: (u64, u64),
    claimant: Option<Mac>,
    /// When rates were last computed.
    sampled: BootNanos,
}

impl Shell {
    /// Puts everything in place: maps, programs, the VIP, and the thread that keeps the fence.
    pub(super) async fn start(
        config: Config,
        nic: Nic,
        netlink: Netlink,
    ) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<Notice>)> {
        let plan = Arc::new(plan(&config, &nic)?);
        let own = BackendIndex::new(nic.node_index).context("more nodes than there may be")?;
        let pins = Pins::open(&config.datapath.bpffs, &config.run_dir)?;
        let log = if tracing::enabled!(target: "vip", tracing::Level::DEBUG) {
            aya_log::Level::Debug as u8
        } else {
            0
        };
        // Sockets first: without them there is no use in touching the NIC.
        let delivery = match config.vrrp.mode {
            VrrpMode::Unicast => Delivery::Unicast,
            VrrpMode::Multicast => Delivery::Multicast,
        };
        let vips: Vec<IpAddr> = addresses_of(&config).collect();
        let spoken_of = [&vips[..], &[nic.address]].concat();
        let neighbours = Arc::new(Neighbours::open(&nic, &spoken_of)?);
        let groups = vips.iter().any(IpAddr::is_ipv6);
        let groups = groups.then(|| Groups::join(&nic, &vips)).transpose()?;
        let address = nic.address;
        let bfd = config.bfd.map(|_| BfdSocket::open(&nic.name, address));
        let wires = Wires {
            vrrp: VrrpSocket::open(&nic.name, address, delivery)?,
            bfd: bfd.transpose()?,
            echo: EchoSocket::open(&nic.name, address)?,
            neighbours: neighbours.clone(),
        };
        let (mut datapath, state) = Datapath::load(Some(pins), &plan, log)?;
        let attachment = datapath.attach(&nic.name, nic.index, config.datapath.mode, None)?;
        let cgroup = redirect(&mut datapath, &config);
        // Last: once the VIPs are here, only the programs keep the kernel from speaking for them.
        note_addresses(&config)?;
        for vip in addresses_of(&config) {
            netlink.add_vip(vip).await?;
        }
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            vip = %config.vip().endpoint(),
            node = %nic.address,
            interface = nic.name,
            driver = nic.driver,
            mode = %attachment.mode,
            adopted = datapath.adopted(),
            "attached"
        );

        let peers = config
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| {
                // The configuration has at most MAX_BACKENDS nodes.
                let index = BackendIndex::new(index)?;
                Some(Peer {
                    index,
                    address: node.address,
                    name: node.name.clone(),
                    mac: state.mac(index),
                    probes: vec!["not probed yet".to_owned(); config.checks.len()],
                    rtt: None,
                    counted: (0, 0),
                    rates: (0.0, 0.0),
                })
            })
            .collect();
        let proof = proof(&datapath, attachment.mode)?;
        let conflicts = conflicts(&datapath)?;
        let rank_base = datapath.rank_base();
        let known = datapath.adopted().then(|| state.get().masks);
        let node = Node::new(params(&config, &nic, own));
        let setting = Setting {
            nodes: config.addresses(),
            own,
            vips: addresses_of(&config).collect(),
            router_id: config.vrrp.router_id,
            interval: advert_interval(&config),
            mode: config.vrrp.mode,
        };
        let (pacer, notices) = Pacer::start(
            node,
            state,
            (plan.clone(), rank_base),
            known,
            wires,
            setting,
        )
        .context("cannot start the thread that keeps the fence")?;
        let now = now();
        let mut shell = Self {
            config,
            nic,
            netlink,
            plan,
            datapath,
            attachment,
            proof,
            neighbours,
            _groups: groups,
            cgroup,
            pacer,
            peers,
            state: State::Initialize,
            since: now,
            takeovers: 0,
            claims: (conflicts, 0),
            claimant: None,
            sampled: now,
        };
        if shell.drain_note().exists() {
            shell.pacer.tell(Command::Drain(true));
        }
        shell.reconcile().await?;
        Ok((shell, notices))
    }

    /// By which it hears who has which address.
    pub(super) fn neighbours(&self) -> Arc<Neighbours> {
        self.neighbours.clone()
    }

    fn drain_note(&self) -> PathBuf {
        self.config.run_dir.join(DRAINED)
    }

    /// Brings no new connections to this node, or brings them again, also after a restart.
    /// Returns the node's name.
    pub(super) fn drain(&mut self, draining: bool) -> anyhow::Result<String> {
        anyhow::ensure!(
            self.config.bfd.is_some(),
            "the other nodes are told by BFD, which is off: set `enabled = true` in [bfd]"
        );
        let note = self.drain_note();
        if draining {
            fs::write(&note, "").with_context(|| format!("cannot write {}", note.display()))?;
        } else if note.exists() {
            fs::remove_file(&note).with_context(|| format!("cannot remove {}", note.display()))?;
        }
        self.pacer.tell(Command::Drain(draining));
        Ok(self.config.nodes[self.nic.node_index].name.clone())
    }

    /// What the thread has to tell.
    pub(super) fn on_notice(&mut self, notice: Notice) {
        let report = match notice {
            Notice::Report(report) => report,
            Notice::Repaired => {
                tracing::warn!("the state in the kernel was not as it should be: repaired");
                return;
            }
            Notice::Failed(what, error) => {
                tracing::error!(%error, "cannot {what}");
                return;
            }
            Notice::NoPriority(error) => {
                tracing::warn!(
                    %error,
                    "no real-time priority: a busy machine may lose the VIP for a moment"
                );
                return;
            }
        };
        let name = |index: BackendIndex| self.peers[index.get()].name.as_str();
        match report {
            Report::Active => {
                tracing::info!(vip = %self.config.vip().address, "became the owner");
                self.state = State::Active;
                self.takeovers += 1;
                self.since = now();
            }
            Report::Backup => {
                tracing::info!(vip = %self.config.vip().address, "became a backup");
                self.state = State::Backup;
                self.since = now();
            }
            Report::Owner(Some(node)) => tracing::info!(owner = name(node), "owner"),
            Report::Owner(None) => tracing::info!("no owner is heard"),
            Report::BfdUp(node) => tracing::info!(node = name(node), "BFD session is up"),
            Report::BfdDown(node, diagnostic) => {
                tracing::warn!(node = name(node), ?diagnostic, "BFD session is down");
            }
            Report::Dead(node) => tracing::warn!(node = name(node), "node is dead"),
            Report::Answers(node) => tracing::info!(node = name(node), "node answers again"),
            Report::Health(node, check, transition) => {
                let peer = &self.peers[node.get()];
                let port = self.config.checks[check].port;
                let (node, reason) = (&peer.name, &peer.probes[check]);
                match transition {
                    Transition::Alive => tracing::info!(node, reason, "probes are answered"),
                    Transition::Dead => tracing::warn!(node, reason, "probes are not answered"),
                    Transition::Ready if check == 0 => tracing::info!(node, "API server is ready"),
                    Transition::Ready => tracing::info!(node, port, "server is ready"),
                    Transition::NotReady(_) if check == 0 => {
                        tracing::warn!(node, reason, "API server is not ready");
                    }
                    Transition::NotReady(_) => {
                        tracing::warn!(node, port, reason, "server is not ready");
                    }
                }
            }
            Report::Draining(node, true) => {
                tracing::info!(node = name(node), "node takes no new connections");
            }
            Report::Draining(node, false) => {
                tracing::info!(node = name(node), "node takes new connections");
            }
            Report::Fault(fault, true) => {
                tracing::warn!(fault = fault.text(), "this node cannot own the VIP");
            }
            Report::Fault(fault, false) => tracing::info!(fault = fault.text(), "fault is gone"),
            Report::Conflict { mac, defended } => {
                self.claims.1 += 1;
                self.claimant = Some(mac);
                tracing::warn!(
                    vip = %self.config.vip().address,
                    claimant = %mac,
                    defended,
                    "somebody who is no node of the cluster claims the VIP"
                );
            }
            Report::HandingOver(node) => tracing::info!(to = name(node), "handing over"),
            Report::HandedOver(node) => tracing::info!(to = name(node), "handed over"),
            Report::NotHandedOver(why) => tracing::warn!(%why, "not handed over"),
            Report::Priority(priority) => tracing::info!(priority, "priority"),
        }
    }

    pub(super) fn on_probe(&mut self, node: usize, check: usize, outcome: &ProbeResult) {
        let own = node == self.nic.node_index;
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        let (found, text) = match outcome {
            ProbeResult::Ready { rtt } => {
                if check == 0 {
                    peer.rtt = Some(*rtt);
                }
                (Probe::Ready, "ready".to_owned())
            }
            ProbeResult::NotReady { reason } => (Probe::NotReady(reason.clone()), reason.clone()),
            ProbeResult::Refused => (Probe::Refused, "connection refused".to_owned()),
            // This node lives: silence is its server's, or its firewall's.
            ProbeResult::Silent { reason } if own => {
                (Probe::NotReady(reason.clone()), reason.clone())
            }
            ProbeResult::Silent { reason } => (Probe::Silent, reason.clone()),
        };
        peer.probes[check] = text;
        self.pacer.tell(Command::Probe(peer.index, check, found));
    }

    pub(super) async fn on_network(&mut self, event: NetEvent) -> anyhow::Result<()> {
        match event {
            NetEvent::Neighbour(neighbour) => {
                if let Some(mac) = neighbour.mac {
                    self.learn(neighbour.address, Mac::from_wire(mac));
                }
            }
            NetEvent::Link => self.look_at_link().await?,
            NetEvent::Address { address, .. }
                if address == self.nic.address
                    || addresses_of(&self.config).any(|vip| vip == address) =>
            {
                self.look_at_addresses().await;
            }
            NetEvent::Address { .. } => {}
            NetEvent::Overrun => {
                self.look_at_link().await?;
                self.look_at_addresses().await;
                self.learn_neighbours().await;
            }
        }
        Ok(())
    }

    /// Carrier, name and Ethernet address of the NIC, and whether the program is on it.
    async fn look_at_link(&mut self) -> anyhow::Result<()> {
        let link = match self.netlink.link(self.nic.index).await {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(%error, "cannot look at the NIC");
                return Ok(());
            }
        };
        let fault = |fault, present| self.pacer.tell(Command::Fault(fault, present));
        let Some(link) = link else {
            fault(Fault::Carrier, true);
            if let Some(nic) = self.successor_of_nic().await {
                anyhow::bail!(
                    "{} is gone, and {} has the node's address now: start the agent again",
                    self.nic.name,
                    nic.name
                );
            }
            return Ok(());
        };
        fault(Fault::Carrier, !link.up);
        if link.name != self.nic.name {
            tracing::warn!(from = self.nic.name, to = link.name, "NIC was renamed");
            self.nic.name = link.name;
        }
        if let Some(mac) = link.mac.filter(|mac| *mac != self.nic.mac) {
            tracing::warn!(interface = self.nic.name, mac = %Mac::from_wire(mac), "NIC has another Ethernet address");
            self.nic.mac = mac;
            let plan = Plan {
                own_mac: Mac::from_wire(mac),
                ..(*self.plan).clone()
            };
            self.plan = Arc::new(plan);
            self.neighbours.set_mac(mac);
            let base = self.datapath.rank_base();
            self.pacer.tell(Command::Plan(self.plan.clone(), base));
            self.learn(self.nic.address, Mac::from_wire(mac));
        }
        let steers = self
            .datapath
            .steers(&self.nic.name, self.attachment, link.xdp)
            .unwrap_or(true);
        let egress = self.attachment.egress;
        let guards = self.datapath.guards(&self.nic.name, egress).unwrap_or(true);
        if !steers || !guards {
            self.pacer.tell(Command::Fault(Fault::Programs, true));
            tracing::warn!(
                interface = self.nic.name,
                steers,
                guards,
                "a program is not on the NIC: attaching both again"
            );
            match self.datapath.attach(
                &self.nic.name,
                self.nic.index,
                self.config.datapath.mode,
                None,
            ) {
                Ok(attachment) => {
                    self.attachment = attachment;
                    self.pacer.tell(Command::Fault(Fault::Programs, false));
                }
                Err(error) => tracing::error!(%error, "cannot attach the programs"),
            }
        } else {
            self.pacer.tell(Command::Fault(Fault::Programs, false));
        }
        Ok(())
    }

    /// The NIC that has the node's address now, if it is not the one it was.
    async fn successor_of_nic(&self) -> Option<Nic> {
        let nodes = self.config.addresses();
        let interface = self.config.interface.as_deref();
        let nic = self
            .netlink
            .find_nic(self.config.vip().address, &nodes, interface)
            .await
            .ok()?;
        (nic.index != self.nic.index).then_some(nic)
    }

    /// The node's own address on the NIC, and the VIPs on `lo`.
    async fn look_at_addresses(&mut self) {
        match self
            .netlink
            .has_address(self.nic.index, self.nic.address)
            .await
        {
            Ok(there) => self.pacer.tell(Command::Fault(Fault::Address, !there)),
            Err(error) => tracing::warn!(%error, "cannot look for the node's address"),
        }
        let vips: Vec<IpAddr> = addresses_of(&self.config).collect();
        for vip in vips {
            let lost = match self.netlink.has_vip(vip).await {
                Ok(places) => !places.iter().any(|place| place == "lo"),
                Err(error) => {
                    tracing::warn!(%error, "cannot look for the VIP");
                    return;
                }
            };
            if lost {
                self.pacer.tell(Command::Fault(Fault::Vip, true));
                tracing::warn!(%vip, "the VIP is not on lo: putting it there");
                if let Err(error) = self.netlink.add_vip(vip).await {
                    tracing::error!(%error, "cannot put the VIP on lo");
                    return;
                }
            }
        }
        self.pacer.tell(Command::Fault(Fault::Vip, false));
    }

    /// Takes the Ethernet addresses from the kernel's table, and asks for those it lacks.
    async fn learn_neighbours(&mut self) {
        let own = Mac::from_wire(self.nic.mac);
        self.learn(self.nic.address, own);
        match self.netlink.neighbours(self.nic.index).await {
            Ok(neighbours) => {
                for neighbour in neighbours {
                    if let Some(mac) = neighbour.mac {
                        self.learn(neighbour.address, Mac::from_wire(mac));
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot read the neighbours"),
        }
        for peer in &self.peers {
            if peer.mac.is_unknown()
                && let Err(error) = self.netlink.resolve(self.nic.index, peer.address).await
            {
                tracing::debug!(node = peer.name, %error, "cannot resolve");
            }
        }
    }

    fn learn(&mut self, address: IpAddr, mac: Mac) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == address) else {
            return;
        };
        if peer.mac != mac {
            tracing::info!(node = peer.name, %mac, "Ethernet address");
            peer.mac = mac;
            self.pacer.tell(Command::Mac(peer.index, mac));
        }
    }

    /// The stack got a frame from the NIC that may say who has an address.
    pub(super) fn on_neighbour(&mut self, heard: Option<Heard>) {
        self.prove();
        // Who asks for the VIP, or claims it to others, the program has dealt with. Who answers
        // a probe for it comes here.
        if let Some(heard) = heard
            && addresses_of(&self.config).any(|vip| vip == heard.address)
        {
            self.on_claim(heard.mac);
        }
    }

    fn on_claim(&mut self, mac: Mac) {
        // A node whose address is not known yet announces the VIP like a stranger.
        let stranger = self.peers.iter().all(|peer| peer.mac != mac)
            && self.peers.iter().all(|peer| !peer.mac.is_unknown());
        if stranger {
            self.pacer.tell(Command::Claim(mac));
        }
    }

    fn prove(&mut self) {
        if !matches!(self.proof, Proof::Open { .. }) {
            return;
        }
        let Ok(counted) = neighbour_frames(&self.datapath) else {
            return;
        };
        self.proof = self.proof.on_frame(counted);
        match self.proof {
            Proof::Open { .. } => {}
            Proof::Seen => tracing::info!(mode = %self.attachment.mode, "XDP sees frames"),
            Proof::Blind if self.config.datapath.mode == XdpMode::Native => {
                tracing::error!(
                    interface = self.nic.name,
                    driver = self.nic.driver,
                    "the driver attached the program and does not run it"
                );
            }
            Proof::Blind => {
                tracing::warn!(
                    interface = self.nic.name,
                    driver = self.nic.driver,
                    "the driver attached the program and does not run it: falling back"
                );
                match self
                    .datapath
                    .fall_back_to_generic(&self.nic.name, self.nic.index)
                {
                    Ok(attachment) => self.attachment = attachment,
                    Err(error) => tracing::error!(%error, "cannot fall back to generic XDP"),
                }
            }
        }
    }

    /// Looks whether everything is as it should be, whatever events said or did not say.
    ///
    /// # Errors
    /// If the agent must be started anew.
    pub(super) async fn reconcile(&mut self) -> anyhow::Result<()> {
        if self.datapath.repair(&self.plan)? {
            tracing::warn!("rank table or allow lists were not as they should be: repaired");
        }
        self.pacer.tell(Command::Reconcile);
        self.look_at_link().await?;
        self.look_at_addresses().await;
        self.learn_neighbours().await;
        if matches!(self.proof, Proof::Open { .. }) {
            for peer in self
                .peers
                .iter()
                .filter(|peer| peer.address != self.nic.address)
            {
                if let Err(error) = self.neighbours.ask(peer.address) {
                    tracing::debug!(%error, "cannot ask a peer");
                }
            }
        }
        if let Ok(counted) = conflicts(&self.datapath) {
            if counted > self.claims.0
                && let Ok(mac) = self.datapath.claimant()
            {
                self.on_claim(mac);
            }
            self.claims.0 = counted;
        }
        self.sample();
        Ok(())
    }

    fn sample(&mut self) {
        let now = now();
        let seconds = now.since(self.sampled).as_secs_f64().max(0.001);
        self.sampled = now;
        for peer in &mut self.peers {
            let Ok(counters) = self.datapath.backend_counters(peer.index) else {
                continue;
            };
            let counted = (counters.packets, counters.syns);
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            peer.rates = (
                rate(counted.0, peer.counted.0),
                rate(counted.1, peer.counted.1),
            );
            peer.counted = counted;
        }
    }

    /// Asks the thread for another owner.
    pub(super) fn handover(
        &self,
        to: Option<&str>,
    ) -> anyhow::Result<oneshot::Receiver<HandoverResult>> {
        let to = to
            .map(|name| {
                let named = |peer: &&Peer| peer.name == name || peer.address.to_string() == name;
                let peer = self.peers.iter().find(named);
                peer.map(|peer| peer.index).with_context(|| {
                    let names: Vec<_> = self.peers.iter().map(|peer| peer.name.as_str()).collect();
                    format!("no node {name}; there are {}", names.join(", "))
                })
            })
            .transpose()?;
        let (answer, answered) = oneshot::channel();
        self.pacer.tell(Command::Handover(to, answer));
        Ok(answered)
    }

    /// The nodes' names, by backend index.
    pub(super) fn names(&self) -> Vec<String> {
        self.peers.iter().map(|peer| peer.name.clone()).collect()
    }

    /// Gives the VIP up, for another node to take. The thread ends when one has.
    pub(super) fn resign(&self) {
        self.pacer.tell(Command::Shutdown);
    }

    /// The thread has ended.
    pub(super) fn end(self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.pacer.join(),
            "the thread that keeps the fence panicked: start the agent again, and report this"
        );
        tracing::info!("stopped; programs and VIP stay until `vip cleanup`");
        Ok(())
    }

    pub(super) async fn status(&self) -> anyhow::Result<Status> {
        let (answer, answered) = oneshot::channel();
        self.pacer.tell(Command::View(answer));
        let view = answered.await.context("the agent is ending")?;
        self.describe(&view)
    }

    fn describe(&self, view: &View) -> anyhow::Result<Status> {
        let now = now();
        let named = |index: BackendIndex| {
            let peer = &self.peers[index.get()];
            status::Peer {
                name: peer.name.clone(),
                address: peer.address,
            }
        };
        let nodes = self.peers.iter().map(|peer| {
            let counters = self.datapath.backend_counters(peer.index)?;
            let session = view.sessions.get(peer.index.get()).and_then(Option::as_ref);
            Ok(status::Node {
                name: peer.name.clone(),
                address: peer.address,
                own: peer.address == self.nic.address,
                mac: (!peer.mac.is_unknown()).then(|| peer.mac.to_string()),
                alive: view.masks.alive.contains(peer.index),
                ready: view.masks.ready[0].contains(peer.index),
                draining: view.draining[peer.index.get()],
                bfd: session.map(|session| status::Bfd {
                    state: session.state.to_owned(),
                    detection_ms: session.detection.as_secs_f64() * 1000.0,
                }),
                probe: peer.probes[0].clone(),
                rtt_ms: peer.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
                packets: counters.packets,
                bytes: counters.bytes,
                connections: counters.syns,
                packets_per_second: peer.rates.0,
                connections_per_second: peer.rates.1,
            })
        });
        let counters = Counter::ALL
            .iter()
            .filter(|counter| **counter != Counter::Untouched)
            .map(|counter| Ok((counter.name().to_owned(), self.datapath.counter(*counter)?)));
        let own = BackendIndex::new(self.nic.node_index).context("more nodes than there may be")?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            vip: self.config.vip().endpoint().to_string(),
            services: self.services(view),
            local: self.cgroup.as_ref().map(|path| path.display().to_string()),
            owner: view.owner.map(named),
            state: match view.state {
                State::Initialize => "initialize",
                State::Backup => "backup",
                State::Active => "active",
            }
            .to_owned(),
            priority: view.priority,
            faults: view
                .faults
                .iter()
                .map(|fault| fault.text().to_owned())
                .collect(),
            fence_remaining_ms: view.fence.since(now).as_millis() as u64,
            state_for_ms: now.since(self.since).as_millis() as u64,
            takeovers: self.takeovers,
            conflicts: self.claims.1,
            claimant: self.claimant.map(|mac| mac.to_string()),
            node: named(own).name,
            xdp: status::Xdp {
                interface: self.nic.name.clone(),
                mode: self.attachment.mode.to_string(),
                egress: self.attachment.egress.to_string(),
                proven: self.proof == Proof::Seen,
                adopted: self.datapath.adopted(),
            },
            nodes: nodes.collect::<anyhow::Result<_>>()?,
            counters: counters.collect::<anyhow::Result<_>>()?,
        })
    }

    fn services(&self, view: &View) -> Vec<status::Service> {
        let ready = |check: usize| {
            let ready = view.masks.ready[check];
            let peers = self.peers.iter().filter(|peer| ready.contains(peer.index));
            peers.map(|peer| peer.name.clone()).collect()
        };
        let vips = self.config.vips.iter();
        vips.flat_map(|vip| vip.services.iter().map(move |service| (vip, service)))
            .map(|(vip, service)| status::Service {
                endpoint: SocketAddr::new(vip.address, service.port).to_string(),
                target_port: service.target,
                ready: ready(service.check),
            })
            .collect()
    }

    /// The log of the eBPF programs, if it is wanted.
    pub(super) fn program_log(&mut self) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
        tracing::enabled!(target: "vip", tracing::Level::DEBUG)
            .then(|| self.datapath.log())
            .flatten()
    }
}

/// The configuration's interval, which it checks to be one that VRRP can say.
fn advert_interval(config: &Config) -> Centiseconds {
    Centiseconds::from_duration(config.vrrp.interval).unwrap_or(Centiseconds::MAX)
}

/// What the decisions need to know.
fn params(config: &Config, nic: &Nic, own: BackendIndex) -> Params {
    let nodes = config.nodes.iter().enumerate().map(|(index, node)| {
        // Another node's own file may say something else: then its place in the succession is
        // a guess, and the advertisements set it right.
        let configured = config.vrrp.priority.filter(|_| index == nic.node_index);
        Member {
            address: node.address,
            priority: configured.unwrap_or_else(|| Config::node_priority(index)),
        }
    });
    Params {
        own,
        nodes: nodes.collect(),
        vrrp: VrrpParams {
            interval: advert_interval(config),
            preempt: config.vrrp.preempt,
            preempt_delay: config.vrrp.preempt_delay,
        },
        bfd: config.bfd.and_then(|bfd| {
            Some(bfd::Params {
                detect_mult: std::num::NonZeroU8::new(bfd.multiplier)?,
                interval: bfd.interval,
            })
        }),
        checks: config.checks.len(),
        thresholds: Thresholds {
            rise: config.health.rise,
            fall: config.health.fall,
        },
        probe_address: config.vrrp.probe_address,
        // Different on each node and after each start, which is all that is asked of it.
        seed: now().0 ^ (own.get() as u64) << 48 ^ u64::from(std::process::id()),
    }
}

/// The VIPs.
fn addresses_of(config: &Config) -> impl Iterator<Item = IpAddr> {
    config.vips.iter().map(|vip| vip.address)
}

/// Notes what is put on `lo`, for `vip cleanup`, before it is.
fn note_addresses(config: &Config) -> anyhow::Result<()> {
    let note = config.run_dir.join(ADDRESSES);
    // Those of an agent with another configuration are still there.
    let mut known: BTreeSet<String> = fs::read_to_string(&note)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    known.extend(addresses_of(config).map(|vip| vip.to_string()));
    let text = known
        .into_iter()
        .map(|line| line + "\n")
        .collect::<String>();
    fs::write(&note, text).with_context(|| format!("cannot write {}", note.display()))
}

/// Redirects connections of this node and its pods, if that is wanted and can be had. Returns
/// whose.
fn redirect(datapath: &mut Datapath, config: &Config) -> Option<PathBuf> {
    let found = config.local.as_ref().and_then(|local| {
        let found = local.cgroup.clone().or_else(cgroup::root);
        if found.is_none() {
            tracing::warn!(
                "no cgroup2 is mounted: connections of this node and its pods to the VIP go to \
                 this node's own server, whether it is ready or not"
            );
        }
        found
    });
    match datapath.redirect(found.as_deref()) {
        Ok(()) => found,
        Err(error) => {
            tracing::warn!(
                %error,
                "connections of this node and its pods to the VIP go to this node's own server, \
                 whether it is ready or not"
            );
            None
        }
    }
}

/// What should lie in the maps.
fn plan(config: &Config, nic: &Nic) -> anyhow::Result<Plan> {
    let key = config.hash_key();
    let mut id = 0;
    let mut allowed = vec![];
    let vips = config.vips.iter().map(|vip| {
        let address = Be128::from(vip.address);
        let services: Vec<Service> = vip
            .services
            .iter()
            .map(|service| {
                id += 1;
                allowed.extend(service.allow.iter().map(|network| allow(id, network)));
                let when = |flag, wanted| if wanted { flag } else { 0 };
                Service {
                    target: Be16::new(service.target),
                    id,
                    check: service.check as u8,
                    flags: when(flag::ALLOW_LIST, !service.allow.is_empty())
                        | when(flag::SYN_LIMIT, service.syn_rate.is_some()),
                    syn_rate: service.syn_rate.unwrap_or(0),
                    ..Service::new(key, address, Be16::new(service.port))
                }
            })
            .collect();
        Vip::new(address, &services)
    });
    Ok(Plan {
        own_index: BackendIndex::new(nic.node_index),
        own_mac: Mac::from_wire(nic.mac),
        own_address: Be128::from(nic.address).ipv4().unwrap_or_default(),
        vips: vips.collect(),
        allowed,
        redirects: config.local.is_some(),
        netns: crate::net::netns_cookie().unwrap_or(0),
        backends: config
            .nodes
            .iter()
            .map(|node| NodeAddresses {
                address: node.address.into(),
                other: node.other_address.map_or(Be128::UNSPECIFIED, Be128::from),
            })
            .collect(),
        hash_key: key,
        rows: rank::table(key, &config.identities(), config.datapath.buckets)?,
    })
}

/// An entry of a service's allow list.
fn allow(service: u16, network: &config::Network) -> Allowed {
    // Prefixes of IPv4 are counted from where an IPv4 address begins in one of IPv6.
    let before = if network.address.is_ipv4() { 96 } else { 0 };
    let bits = AllowKey::SERVICE_BITS + before + u32::from(network.prefix_len);
    (
        bits,
        bytemuck::cast(AllowKey::new(service, network.address.into())),
    )
}

/// Frames of ARP and Neighbour Discovery that the program on the way in has passed to the stack.
fn neighbour_frames(datapath: &Datapath) -> anyhow::Result<u64> {
    Ok(datapath.counter(Counter::ArpPassed)? + datapath.counter(Counter::NdpPassed)?)
}

/// Claims of the VIP by strangers that the program has seen.
fn conflicts(datapath: &Datapath) -> anyhow::Result<u64> {
    Ok(datapath.counter(Counter::ArpConflict)? + datapath.counter(Counter::NdpConflict)?)
}

/// What the stack itself runs needs no proof.
fn proof(datapath: &Datapath, mode: Mode) -> anyhow::Result<Proof> {
    Ok(match mode {
        Mode::Native => Proof::begin(neighbour_frames(datapath)?),
        Mode::Generic | Mode::Tc => Proof::Seen,
    })
}
