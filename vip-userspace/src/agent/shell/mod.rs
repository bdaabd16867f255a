//! The agent around the thread that keeps time: what may be slow.
//!
//! It puts everything in place, watches the node's network, probes, and turns what happens into
//! [`Command`]s for the [`Pacer`]; what comes back goes to the log and to `vip status`.

mod addresses;
mod describe;
mod network;
mod other_nics;
mod setup;
mod tell;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use vip_common::layout::{BackendIndex, BootNanos, Counter, Mac};

use self::other_nics::OtherNics;
use self::setup::{addresses_of, advert_interval, params, plan, redirect};
use super::clock::now;
use super::pacer::{Command, HandoverResult, Notice, Pacer, Setting, Wires};
use super::proof::Proof;
use crate::config::{Config, VrrpMode, XdpMode};
use crate::datapath::{Attachment, Datapath, Mode, Pins, Plan};
use crate::decide::health::Probe;
use crate::decide::node::Node;
use crate::decide::vrrp::State;
use crate::net::bfd::BfdSocket;
use crate::net::echo::EchoSocket;
use crate::net::netlink::Netlink;
use crate::net::vrrp::{Delivery, VrrpSocket};
use crate::net::{Groups, Neighbours, Nic};
use crate::observe::event::{Event, Record, Repair};
use crate::observe::journal::Journal;
use crate::observe::metrics::ProbeTimes;
use crate::probe::ProbeResult;

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
    other_nics: OtherNics,
    /// Whose connections are redirected.
    cgroup: Option<PathBuf>,
    pacer: Pacer,
    peers: Vec<Peer>,
    state: State,
    /// Since when the node is in its state.
    since: BootNanos,
    takeovers: u64,
    last_failover: Option<Duration>,
    /// Claims of the VIP by strangers that are known of, as the program counts them, and all.
    claims: (u64, u64),
    claimant: Option<Mac>,
    /// When rates were last computed.
    sampled: BootNanos,
    journal: Journal,
    probe_times: ProbeTimes,
}

impl Shell {
    /// Puts everything in place: maps, programs, the VIP, and the thread that keeps the fence.
    pub(super) async fn start(
        config: Config,
        nic: Nic,
        netlink: Netlink,
        probe_times: ProbeTimes,
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
        // Before the programs know it no more: from then on the kernel would speak for it.
        let old = addresses::leave_old(&netlink, &config).await?;
        let (mut datapath, state) = Datapath::load(Some(pins), &plan, log)?;
        let attachment = datapath.attach(&nic.name, nic.index, config.datapath.mode, None)?;
        let cgroup = redirect(&mut datapath, &config);
        let mut other_nics = OtherNics::open(&config);
        let settled = other_nics.settle(&netlink, &config, nic.index).await;
        // Last: once the VIPs are here, only programs and settings keep the kernel from speaking
        // for them.
        let mut theirs = Vec::new();
        for vip in addresses_of(&config) {
            if !addresses::put(&netlink, &config, vip).await? {
                theirs.push(vip);
            }
        }
        let mut journal = Journal::open(&config.run_dir);
        for address in old {
            journal.note(Event::AddressLeft { address });
        }
        for address in theirs {
            journal.note(Event::AddressTheirs { address });
        }
        if let Err(error) = settled {
            let cause = format!("{error:#}");
            journal.note(Event::OtherNics { cause });
        }
        journal.note(Event::Started {
            version: env!("CARGO_PKG_VERSION"),
            attached: format!(
                "{} ({}), XDP mode {}",
                nic.name,
                nic.driver.as_deref().unwrap_or("unknown driver"),
                attachment.mode
            ),
            adopted: datapath.adopted(),
        });

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
            other_nics,
            cgroup,
            pacer,
            peers,
            state: State::Initialize,
            since: now,
            takeovers: 0,
            last_failover: None,
            claims: (conflicts, 0),
            claimant: None,
            sampled: now,
            journal,
            probe_times,
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
                let port = self.config.checks[check].port;
                self.probe_times.note(&peer.name, port, *rtt);
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
            Proof::Seen => self.journal.note(Event::XdpProven),
            Proof::Blind => {
                let falls_back = self.config.datapath.mode != XdpMode::Native;
                self.journal.note(Event::XdpBlind { falls_back });
                if !falls_back {
                    return;
                }
                match self
                    .datapath
                    .fall_back_to_generic(&self.nic.name, self.nic.index)
                {
                    Ok(attachment) => self.attachment = attachment,
                    Err(error) => self.journal.note(Event::NotRepaired {
                        what: Repair::Programs,
                        cause: error.to_string(),
                    }),
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
            self.journal.note(Event::Repaired(Repair::Tables));
        }
        self.pacer.tell(Command::Reconcile);
        self.look_at_link().await?;
        self.look_at_other_nics().await;
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

    /// What happened from this event on.
    pub(super) fn events(&self, since: u64) -> Vec<Record> {
        self.journal.since(since).cloned().collect()
    }

    /// Something happened to the agent itself.
    pub(super) fn note(&mut self, event: Event) {
        self.journal.note(event);
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
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.pacer.join(),
            "the thread that keeps the fence panicked: start the agent again, and report this"
        );
        self.journal.note(Event::Stopped);
        Ok(())
    }

    /// The log of the eBPF programs, if it is wanted.
    pub(super) fn program_log(&mut self) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
        tracing::enabled!(target: "vip", tracing::Level::DEBUG)
            .then(|| self.datapath.log())
            .flatten()
    }
}

/// Frames of ARP and Neighbour Discovery that the program on the way in has seen. Whatever comes
/// to the agent's sockets is among them, and any other proves as well that the program runs.
fn neighbour_frames(datapath: &Datapath) -> anyhow::Result<u64> {
    const SEEN: [Counter; 10] = [
        Counter::ArpAnswered,
        Counter::ArpNotOwner,
        Counter::ArpAnnouncement,
        Counter::ArpConflict,
        Counter::ArpPassed,
        Counter::NdpAnswered,
        Counter::NdpNotOwner,
        Counter::NdpAnnouncement,
        Counter::NdpConflict,
        Counter::NdpPassed,
    ];
    let counts = SEEN.into_iter().map(|counter| datapath.counter(counter));
    Ok(counts.sum::<Result<u64, _>>()?)
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
