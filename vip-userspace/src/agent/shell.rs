//! The node: its decisions, and the hands that carry them out.

use std::net::Ipv4Addr;
use std::time::Duration;

use vip_common::layout::{BackendIndex, Be16, BootNanos, Counter, Mac, Vip};
use vip_common::wire::vrrp::{
    Addresses, Advertisement, Centiseconds, MAX_LENGTH, PRIORITY_RESIGNED,
};

use super::clock::now;
use super::proof::Proof;
use crate::config::{Config, XdpMode};
use crate::datapath::{Attachment, Datapath, Mode, Pins, Plan, StateMap};
use crate::decide::announce::Schedule;
use crate::decide::health::{Backend, Health, Probe, Thresholds, Transition};
use crate::decide::vrrp::{Action, Machine, Params, State};
use crate::net::Nic;
use crate::net::announce::ArpSocket;
use crate::net::netlink::{NetEvent, Netlink};
use crate::net::vrrp::{Received, TTL, VrrpSocket};
use crate::observe::status::{self, Status};
use crate::probe::ProbeResult;
use crate::rank;

/// This version serves one VIP, which is the first of the maps.
const VIP: usize = 0;

/// A node as this one sees it.
struct Peer {
    index: BackendIndex,
    address: Ipv4Addr,
    name: String,
    /// What the last probe said.
    probe: String,
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
    plan: Plan,
    datapath: Datapath,
    state: StateMap,
    attachment: Attachment,
    proof: Proof,
    machine: Machine,
    schedule: Schedule,
    /// Who advertised last, and did not resign.
    heard: Option<Ipv4Addr>,
    health: Health,
    peers: Vec<Peer>,
    /// Since when the state machine is in its state.
    since: BootNanos,
    takeovers: u64,
    conflicts: u64,
    /// When rates were last computed.
    sampled: BootNanos,
}

impl Shell {
    /// Puts everything in place: maps, programs, the VIP.
    pub(super) async fn start(config: Config, nic: Nic, netlink: Netlink) -> anyhow::Result<Self> {
        let plan = plan(&config, &nic)?;
        let pins = Pins::open(&config.datapath.bpffs, &config.run_dir)?;
        let log = if tracing::enabled!(target: "vip", tracing::Level::DEBUG) {
            aya_log::Level::Debug as u8
        } else {
            0
        };
        let (mut datapath, state) = Datapath::load(Some(pins), &plan, log)?;
        let attachment = datapath.attach(&nic.name, nic.index, config.datapath.mode, None)?;
        // Last: once the VIP is here, only the programs keep the kernel from speaking for it.
        netlink.add_vip(config.vip.address).await?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            vip = %config.vip.address,
            port = config.vip.port,
            node = %nic.address,
            interface = nic.name,
            driver = nic.driver,
            mode = %attachment.mode,
            adopted = datapath.adopted(),
            "attached"
        );

        let now = now();
        let own = &config.nodes[nic.node_index];
        let machine = Machine::new(Params {
            address: own.address.into(),
            priority: priority(&config, &nic),
            interval: advert_interval(&config),
            preempt: config.vrrp.preempt,
            preempt_delay: Duration::ZERO,
        });
        let peers = config
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| {
                Some(Peer {
                    // The configuration has at most MAX_BACKENDS nodes.
                    index: BackendIndex::new(index)?,
                    address: node.address,
                    name: node.name.clone(),
                    probe: "not probed yet".to_owned(),
                    rtt: None,
                    counted: (0, 0),
                    rates: (0.0, 0.0),
                })
            })
            .collect();
        let proof = proof(&datapath, attachment.mode)?;
        let conflicts = datapath.counter(Counter::ArpConflict)?;
        let thresholds = Thresholds {
            rise: config.health.rise,
            fall: config.health.fall,
        };
        let health = Health::new(config.nodes.len(), thresholds);
        let mut shell = Self {
            health,
            config,
            nic,
            netlink,
            plan,
            datapath,
            state,
            attachment,
            proof,
            machine,
            schedule: Schedule::default(),
            heard: None,
            peers,
            since: now,
            takeovers: 0,
            conflicts,
            sampled: now,
        };
        shell.learn_neighbours().await;
        Ok(shell)
    }

    /// Who owns the VIP, as far as this node knows.
    fn owner(&self) -> Option<Ipv4Addr> {
        match self.machine.state() {
            State::Active => Some(self.nic.address),
            State::Backup | State::Initialize => self.heard,
        }
    }

    /// Starts to take part in the election.
    pub(super) fn elect(&mut self, packets: &VrrpSocket, arp: &ArpSocket) {
        let actions = self.machine.on_start(now(), BootNanos::ZERO);
        self.carry_out(&actions, packets, arp);
    }

    /// When [`Self::on_time`] has something to do.
    pub(super) fn deadline(&self) -> Option<BootNanos> {
        let election = Some(self.machine.next_deadline());
        [election, self.schedule.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn on_time(&mut self, packets: &VrrpSocket, arp: &ArpSocket) {
        let actions = self.machine.on_timer(now());
        self.carry_out(&actions, packets, arp);
        if self.schedule.due(now())
            && let Err(error) = arp.announce(self.config.vip.address)
        {
            tracing::warn!(%error, "cannot announce the VIP");
        }
    }

    pub(super) fn on_packet(
        &mut self,
        received: &Received<'_>,
        packets: &VrrpSocket,
        arp: &ArpSocket,
    ) {
        let Received {
            source,
            destination,
            ttl,
            payload,
        } = *received;
        let known = self.peers.iter().any(|peer| peer.address == source);
        // RFC 9568, section 7.1: from one hop away, and here from a configured peer.
        if ttl != TTL || !known || source == self.nic.address {
            tracing::debug!(%source, ttl, "VRRP packet from elsewhere");
            return;
        }
        let advert = match Advertisement::parse(payload, source, destination) {
            Ok(advert) => advert,
            Err(error) => {
                tracing::debug!(%source, ?error, "VRRP packet refused");
                return;
            }
        };
        if advert.router_id != self.config.vrrp.router_id
            || !advert
                .addresses
                .as_slice()
                .contains(&self.config.vip.address)
        {
            tracing::debug!(%source, router_id = advert.router_id, "VRRP packet of another VIP");
            return;
        }
        let actions = self.machine.on_advert(now(), source.into(), &advert, false);
        if advert.priority != PRIORITY_RESIGNED {
            self.heard = Some(source);
        } else if self.heard == Some(source) {
            self.heard = None;
        }
        self.carry_out(&actions, packets, arp);
    }

    fn carry_out(&mut self, actions: &[Action], packets: &VrrpSocket, arp: &ArpSocket) {
        for action in actions {
            match *action {
                Action::SendAdvert { priority } => self.advertise(priority, packets),
                Action::RenewFence { until } => self.set_fence(until),
                Action::LowerFence => self.set_fence(BootNanos::ZERO),
                Action::BecomeActive => {
                    self.takeovers += 1;
                    self.since = now();
                    self.schedule.begin(self.since);
                    tracing::info!(vip = %self.config.vip.address, "became the owner");
                    // The first announcement is due at once.
                    if self.schedule.due(self.since)
                        && let Err(error) = arp.announce(self.config.vip.address)
                    {
                        tracing::warn!(%error, "cannot announce the VIP");
                    }
                }
                Action::BecomeBackup => {
                    self.since = now();
                    self.schedule.end();
                    tracing::info!(
                        owner = self.heard.map(tracing::field::display),
                        "became a backup"
                    );
                }
            }
        }
    }

    fn advertise(&self, priority: u8, packets: &VrrpSocket) {
        let source = self.nic.address;
        // One address always fits.
        let Some(addresses) = Addresses::new(&[self.config.vip.address]) else {
            return;
        };
        let router_id = self.config.vrrp.router_id;
        let interval = advert_interval(&self.config);
        let advert = Advertisement {
            router_id,
            priority,
            interval,
            addresses,
        };
        for peer in self.peers.iter().filter(|peer| peer.address != source) {
            let mut buffer = [0; MAX_LENGTH];
            let payload = advert.emit(&mut buffer, source, peer.address);
            if let Err(error) = packets.send(peer.address, payload) {
                // A dead peer is no news, and its own entry in the status says so.
                tracing::debug!(peer = %peer.address, %error, "cannot send VRRP");
            }
        }
    }

    fn set_fence(&mut self, until: BootNanos) {
        if let Err(error) = self.state.set_fence(VIP, until) {
            tracing::error!(%error, "cannot set the fence");
        }
    }

    pub(super) fn on_probe(&mut self, node: usize, outcome: &ProbeResult) {
        let own = node == self.nic.node_index;
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        let (found, text) = match outcome {
            ProbeResult::Ready { rtt } => {
                peer.rtt = Some(*rtt);
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
        peer.probe = text;
        for transition in self.health.on_probe(peer.index, found) {
            let (node, reason) = (&peer.name, &peer.probe);
            match transition {
                Transition::Alive => tracing::info!(node, reason, "node is alive"),
                Transition::Dead => tracing::warn!(node, reason, "node is dead"),
                Transition::Ready => tracing::info!(node, "API server is ready"),
                Transition::NotReady(_) => tracing::warn!(node, reason, "API server is not ready"),
            }
        }
        self.set_masks();
    }

    fn set_masks(&mut self) {
        if let Err(error) = self.state.set_masks(self.health.masks()) {
            tracing::error!(%error, "cannot set the health of the nodes");
        }
    }

    pub(super) async fn on_network(&mut self, event: NetEvent) {
        match event {
            NetEvent::Neighbour(neighbour) => {
                if let Some(mac) = neighbour.mac {
                    self.learn(neighbour.address, Mac::from_wire(mac));
                }
            }
            NetEvent::Link { up, mac } => {
                if up != self.nic.up {
                    tracing::warn!(interface = self.nic.name, up, "link");
                }
                self.nic.up = up;
                if mac != self.nic.mac {
                    tracing::warn!(interface = self.nic.name, mac = %Mac::from_wire(mac), "NIC has another Ethernet address");
                    self.nic.mac = mac;
                    self.plan.own_mac = Mac::from_wire(mac);
                    self.install();
                    self.learn(self.nic.address, Mac::from_wire(mac));
                }
            }
            NetEvent::LinkGone => tracing::error!(interface = self.nic.name, "the NIC is gone"),
            NetEvent::Address {
                address,
                present: false,
                ..
            } if address == self.config.vip.address => {
                tracing::warn!(vip = %address, "somebody removed the VIP: putting it back");
                self.restore_vip().await;
            }
            NetEvent::Address { .. } => {}
            NetEvent::Overrun => self.learn_neighbours().await,
        }
    }

    async fn restore_vip(&self) {
        if let Err(error) = self.netlink.add_vip(self.config.vip.address).await {
            tracing::error!(%error, "cannot put the VIP on lo");
        }
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
            if self.state.mac(peer.index).is_unknown()
                && let Err(error) = self.netlink.resolve(self.nic.index, peer.address).await
            {
                tracing::debug!(node = peer.name, %error, "cannot resolve");
            }
        }
    }

    fn learn(&mut self, address: Ipv4Addr, mac: Mac) {
        let Some(peer) = self.peers.iter().find(|peer| peer.address == address) else {
            return;
        };
        if self.state.mac(peer.index) == mac {
            return;
        }
        tracing::info!(node = peer.name, %mac, "Ethernet address");
        if let Err(error) = self.state.set_mac(peer.index, mac) {
            tracing::error!(%error, "cannot set an Ethernet address");
        }
    }

    /// The stack got an ARP frame from the NIC.
    pub(super) fn on_arp(&mut self) {
        if !matches!(self.proof, Proof::Open { .. }) {
            return;
        }
        let Ok(counted) = arp_frames(&self.datapath) else {
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
    pub(super) async fn reconcile(&mut self, arp: &ArpSocket) {
        self.install();
        self.set_masks();
        self.learn_neighbours().await;
        match self.netlink.has_vip(self.config.vip.address).await {
            Ok(places) if !places.iter().any(|place| place == "lo") => {
                tracing::warn!(vip = %self.config.vip.address, "the VIP is not on lo: putting it there");
                self.restore_vip().await;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot look for the VIP"),
        }
        if matches!(self.proof, Proof::Open { .. }) {
            for peer in self
                .peers
                .iter()
                .filter(|peer| peer.address != self.nic.address)
            {
                if let Err(error) = arp.ask(peer.address) {
                    tracing::debug!(%error, "cannot ask a peer");
                }
            }
        }
        if let Ok(conflicts) = self.datapath.counter(Counter::ArpConflict) {
            if conflicts > self.conflicts {
                tracing::warn!(
                    vip = %self.config.vip.address,
                    frames = conflicts - self.conflicts,
                    "somebody who is no node of the cluster claims the VIP by ARP"
                );
            }
            self.conflicts = conflicts;
        }
        self.sample();
    }

    fn install(&mut self) {
        let repaired = self.datapath.repair(&self.plan);
        let base = self.datapath.rank_base();
        let done = self
            .state
            .refresh()
            .and_then(|()| self.state.update(|state| self.plan.write(state, base)));
        match done {
            Ok(false) if !repaired => {}
            Ok(_) => tracing::warn!("the maps were not as they should be: repaired"),
            Err(error) => tracing::error!(%error, "cannot write the maps"),
        }
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

    /// Gives the VIP up, for another node to take.
    pub(super) fn resign(&mut self, packets: &VrrpSocket) {
        for action in self.machine.on_shutdown() {
            match action {
                Action::SendAdvert { priority } => self.advertise(priority, packets),
                Action::LowerFence => self.set_fence(BootNanos::ZERO),
                Action::RenewFence { .. } | Action::BecomeActive | Action::BecomeBackup => {}
            }
        }
        tracing::info!("stopped; programs and VIP stay until `vip cleanup`");
    }

    pub(super) fn status(&self) -> anyhow::Result<Status> {
        let now = now();
        let named = |address: Ipv4Addr| {
            let peer = self.peers.iter().find(|peer| peer.address == address);
            let name = peer.map_or_else(|| address.to_string(), |peer| peer.name.clone());
            status::Peer { name, address }
        };
        let nodes = self.peers.iter().map(|peer| {
            let mac = self.state.mac(peer.index);
            let counters = self.datapath.backend_counters(peer.index)?;
            Ok(status::Node {
                name: peer.name.clone(),
                address: peer.address,
                own: peer.address == self.nic.address,
                mac: (!mac.is_unknown()).then(|| mac.to_string()),
                alive: self.health.backend(peer.index).is_some_and(Backend::alive),
                ready: self.health.backend(peer.index).is_some_and(Backend::ready),
                probe: peer.probe.clone(),
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
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            vip: format!("{}:{}", self.config.vip.address, self.config.vip.port),
            owner: self.owner().map(named),
            state: match self.machine.state() {
                State::Initialize => "initialize",
                State::Backup => "backup",
                State::Active => "active",
            }
            .to_owned(),
            priority: self.machine.priority(),
            fence_remaining_ms: self.state.get().vips[VIP]
                .owner_until
                .since(now)
                .as_millis() as u64,
            state_for_ms: now.since(self.since).as_millis() as u64,
            takeovers: self.takeovers,
            node: named(self.nic.address).name,
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

/// As configured, or by the node's place in the list.
fn priority(config: &Config, nic: &Nic) -> u8 {
    config
        .vrrp
        .priority
        .unwrap_or_else(|| Config::node_priority(nic.node_index))
}

/// What should lie in the maps.
fn plan(config: &Config, nic: &Nic) -> anyhow::Result<Plan> {
    let ports = [Be16::new(config.vip.port)];
    Ok(Plan {
        own_index: BackendIndex::new(nic.node_index),
        own_mac: Mac::from_wire(nic.mac),
        own_address: nic.address.into(),
        vips: vec![Vip::new(
            config.vip.address.into(),
            &ports,
            config.hash_key(),
        )],
        backends: config
            .nodes
            .iter()
            .map(|node| node.address.into())
            .collect(),
        hash_key: config.hash_key(),
        rows: rank::table(
            config.hash_key(),
            &config.identities(),
            config.datapath.buckets,
        )?,
    })
}

/// ARP frames that the program on the way in has passed to the stack.
fn arp_frames(datapath: &Datapath) -> anyhow::Result<u64> {
    Ok(datapath.counter(Counter::ArpPassed)?)
}

/// Generic XDP is run by the stack itself and needs no proof.
fn proof(datapath: &Datapath, mode: Mode) -> anyhow::Result<Proof> {
    Ok(match mode {
        Mode::Native => Proof::begin(arp_frames(datapath)?),
        Mode::Generic => Proof::Seen,
    })
}
