//! The agent around the thread that keeps time: what may be slow.
//!
//! It puts everything in place, watches the node's network, probes, and turns what happens into
//! [`Command`]s for the [`NodeThread`]; what comes back goes to the log and to `vip status`.

mod addresses;
mod bfd;
mod first;
mod handover;
mod hooks;
mod network;
mod other_nics;
mod report;
mod segment;
mod setup;
mod sources;
mod status;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use vip_common::abi::{BackendIndex, Counter};
use vip_common::wire::addr::Mac;
use vip_common::wire::time::BootNanos;

use self::first::First;
use self::hooks::Hooks;
use self::other_nics::OtherNics;
use self::segment::{Agent, Segment};
use self::setup::{
    NicSockets, addresses_of, advert_interval, described, desired, own_addresses, params, redirect,
};
use super::clock::now;
use super::node_thread::{Command, Known, NodeThread, Notice, StaticConfig, View};
use super::state::StateDir;
use super::survey::Found;
use super::{Outcome, Probed, start_probes};
use crate::config::Config;
use crate::datapath::{Attachment, Datapath, DesiredState, Held, Pins, Way};
use crate::net::netlink::Netlink;
use crate::net::{Neighbours, Nic, port_macs};
use crate::observe::event::{Event, Record, Repair};
use crate::observe::journal::Journal;
use crate::observe::metrics::ProbeTimes;
use crate::observe::socket::Drained;
use crate::probe::{News, ProbeResult};
use vip_node::choice::Resort;
use vip_node::election::State;
use vip_node::health::Probe;
use vip_node::hooks::Hook;
use vip_node::sources::Sources;
use vip_node::{Claimant, Input, NoDrain, Node, Unfit};

/// A node as this one sees it.
struct Peer {
    index: BackendIndex,
    address: IpAddr,
    name: String,
    /// Where its frames go, as the thread was told.
    mac: Mac,
    /// What the last probe by each check found.
    probes: Vec<LastProbe>,
    rtt: Option<Duration>,
    /// Frames and new connections at the last reconciliation, and a second since.
    counted: (u64, u64),
    rates: (f64, f64),
    /// What is known of its agent.
    agent: Agent,
}

/// What a probe found last.
#[derive(Clone)]
struct LastProbe {
    /// `None` before the first one.
    found: Option<Probe>,
    /// The same for people.
    text: String,
}

/// Everything the loop drives.
pub(super) struct Supervisor {
    config: Config,
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
    /// Why the node's address was not followed, as it was last told.
    not_followed: Option<String>,
    /// Says to other agents that this one lives.
    _held: Held,
    other_nics: OtherNics,
    /// Whose connections are redirected.
    cgroup: Option<PathBuf>,
    node_thread: NodeThread,
    peers: Vec<Peer>,
    state: State,
    /// Since when the node is in its state.
    since: BootNanos,
    takeovers: u64,
    last_failover: Option<Duration>,
    /// Claims of the VIP by strangers that are known of, as the program counts them, and all.
    claims: (u64, u64),
    /// Who claims the VIP now, the latest one last.
    claimants: Vec<(Mac, Claimant)>,
    /// What else is wrong on the segment.
    segment: Segment,
    /// How often the NIC's carrier had come or gone when it was last looked at.
    carrier_changes: u32,
    /// When rates were last computed.
    sampled: BootNanos,
    journal: Journal,
    state_dir: StateDir,
    probe_times: ProbeTimes,
    /// What is wrong with the credentials for health checks.
    credentials_trouble: Option<String>,
}

impl Supervisor {
    /// Puts everything in place: maps, programs, the VIP, and the thread that keeps the lease.
    pub(super) async fn start(
        config: Config,
        nic: Nic,
        netlink: Netlink,
        probe_times: ProbeTimes,
        surveys: mpsc::Sender<Found>,
        mut state_dir: StateDir,
        (probes, outcomes): (mpsc::Sender<Outcome>, &mut mpsc::Receiver<Outcome>),
    ) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<Notice>)> {
        let (_, nics) = netlink.settings().await?;
        let desired = Arc::new(desired(
            &config,
            &nic,
            port_macs(&nics, nic.index, nic.mac),
        )?);
        let own = BackendIndex::new(nic.node_index).context("more nodes than there may be")?;
        let pins = Pins::open(&config.datapath.bpffs, &config.run_dir)?;
        let log = if tracing::enabled!(target: "vip", tracing::Level::DEBUG) {
            aya_log::Level::Debug as u8
        } else {
            0
        };
        let held = pins.hold()?;
        // Sockets first: without them there is no use in touching the NIC.
        let (thread_sockets, sockets) = NicSockets::open(&config, &nic, &pins)?;
        // Before the programs know it no more: from then on the kernel would speak for it.
        let old = addresses::leave_old(&netlink, &config).await?;
        let (mut datapath, mut state) = Datapath::load(Some(pins.clone()), &desired, log)?;
        let attachment = datapath.attach(&nic.name, nic.index, config.datapath.mode, None)?;
        // Not before: while the kernel verifies programs, nothing else is done here, and no answer is
        // read.
        start_probes(&config, &probes);
        // Where no agent was, connections to the VIP leave by the NIC until it is here. They are not
        // to be turned to a server that nobody has asked, this node's own least.
        let mut first = First::default();
        if !datapath.adopted() {
            first = first::wait(outcomes, &config).await;
            state.set_masks(first::masks(&first.probed, state.get().masks))?;
        }
        let cgroup = redirect(&mut datapath, &config);
        // What came before the programs did.
        sockets.neighbours.drain();
        let mut hooks = Hooks::begin(&datapath, cgroup.is_some())?;
        let link = netlink.link(nic.index).await?;
        let seen = hooks::seen(
            &netlink,
            nic.index,
            link.as_ref().and_then(|link| link.xdp),
            attachment,
        );
        let look = datapath.look(Way::In, &nic.name, attachment, &seen.await?)?;
        let mut others = config.addresses();
        others.retain(|address| *address != nic.address);
        hooks
            .prove_at_start(&mut datapath, &sockets.neighbours, look, &others)
            .await;
        let mut other_nics = OtherNics::open(&config);
        let settled = other_nics.settle(&netlink, &config, nic.index).await;
        // Last: once the VIPs are here, only programs and settings keep the kernel from speaking
        // for them.
        let mut placed = Vec::new();
        for vip in &config.vips {
            let how = addresses::put(&netlink, &config, vip).await?;
            placed.push((vip.address, how));
        }
        let mut journal = state_dir.begin()?;
        if let Some(cause) = state_dir.trouble() {
            let what = "events and `vip drain` will not outlive a reboot (`state_dir`)".into();
            journal.note(Event::Failed { what, cause });
        }
        for address in old {
            journal.note(Event::AddressLeft { address });
        }
        for (address, how) in placed {
            how.tell(address, &mut journal);
        }
        if let Err(error) = settled {
            let cause = format!("{error:#}");
            journal.note(Event::OtherNics { cause });
        }
        journal.note(Event::Started {
            version: env!("CARGO_PKG_VERSION"),
            attached: described(&nic, attachment),
            adopted: datapath.adopted(),
        });
        if let Some(cause) = hooks.ingress.cause() {
            let hook = Hook::Ingress.name();
            journal.note(Event::HookFails { hook, cause });
        }

        let mut sources = Sources::new(config.nodes.len(), own);
        for (index, node) in state.get().backends().iter().enumerate() {
            if let Some(index) = BackendIndex::new(index) {
                sources.on_neighbour(index, node.mac);
                sources.restore(index, node.source);
            }
        }
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
                    probes: vec![
                        LastProbe {
                            found: None,
                            text: "not probed yet".to_owned(),
                        };
                        config.checks.len()
                    ],
                    rtt: None,
                    counted: (0, 0),
                    rates: (0.0, 0.0),
                    agent: Agent::default(),
                })
            })
            .collect();
        let conflicts = conflicts(&datapath)?;
        let rank_base = datapath.rank_base();
        // One that had not come to know the others has left nothing that is worth knowing.
        let known = datapath.adopted().then(|| state.get().masks);
        let known = Known {
            masks: known.filter(|masks| masks.no_forward.is_empty()),
            inputs: first::inputs(&first.probed, nic.node_index),
        };
        let node = Node::new(&params(&config, &nic, own));
        let static_config = StaticConfig {
            nodes: config.addresses(),
            own,
            vips: addresses_of(&config).collect(),
            own_addresses: own_addresses(&config, &nic),
            router_id: config.vrrp.router_id,
            interval: advert_interval(&config),
            mode: config.vrrp.mode,
            checks: config.checks.len(),
        };
        let (node_thread, notices) = NodeThread::start(
            node,
            state,
            (desired.clone(), rank_base),
            known,
            thread_sockets,
            static_config,
        )
        .context("cannot start the thread that keeps the lease")?;
        let now = now();
        let mut supervisor = Self {
            config,
            nic,
            netlink,
            desired,
            datapath,
            attachment,
            hooks,
            sources,
            sockets,
            heard: 0,
            pins,
            nic_is_gone: false,
            not_followed: None,
            _held: held,
            other_nics,
            cgroup,
            node_thread,
            peers,
            state: State::Initialize,
            since: now,
            takeovers: 0,
            last_failover: None,
            claims: (conflicts, 0),
            claimants: Vec::new(),
            segment: Segment::new(surveys),
            carrier_changes: link.map_or(0, |link| link.carrier_changes),
            sampled: now,
            journal,
            state_dir,
            probe_times,
            credentials_trouble: None,
        };
        for probed in &first.probed {
            supervisor.note_probe(probed);
        }
        for news in first.news {
            supervisor.on_credentials(news);
        }
        supervisor.tell_of_bfd();
        let drains = supervisor.state_dir.is_drained();
        supervisor.node_thread.tell(Input::Drain(drains));
        supervisor.reconcile().await?;
        Ok((supervisor, notices))
    }

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

    /// Brings no new connections to this node, or brings them again, also after a reboot. Unless
    /// it is forced, not if nobody as good would be left for them.
    pub(super) async fn drain(&mut self, draining: bool, force: bool) -> anyhow::Result<Drained> {
        anyhow::ensure!(
            self.config.bfd.is_some(),
            "the other nodes are told by BFD, which is off: set `enabled = true` in [bfd]"
        );
        if draining && !force {
            let (answer, answered) = oneshot::channel();
            self.node_thread.tell(Command::DrainIfOthers(answer));
            let may = answered.await.context("the agent is ending")?;
            may.map_err(|why| anyhow::anyhow!(self.not_drained(&why)))?;
        } else {
            self.node_thread.tell(Input::Drain(draining));
        }
        let noted = self.state_dir.set_drained(draining).await;
        if noted.is_err() {
            // What does not hold over a restart is not to hold until then.
            self.node_thread.tell(Input::Drain(!draining));
        }
        let not_noted = noted?;
        let resort = self.view().await?.resorts.into_iter().max();
        Ok(Drained {
            node: self.config.nodes[self.nic.node_index].name.clone(),
            instead: resort
                .filter(|resort| draining && *resort != Resort::Usable)
                .map(|resort| resort.text().to_owned()),
            not_noted,
        })
    }

    /// Why this node is not drained.
    fn not_drained(&self, why: &NoDrain) -> String {
        let own = &self.peers[self.nic.node_index].name;
        let why = match why {
            NoDrain::LastUsable(why) => why,
            NoDrain::LastAgent => {
                return format!(
                    "no other agent is heard: the VIP cannot leave {own}, and nobody has it once the \
                     agent here ends; start another agent first, or give --force"
                );
            }
        };
        let port = self.config.checks[why.check].port;
        let others = why.others.iter().map(|(index, unfit)| {
            let peer = &self.peers[index.get()];
            let why = match unfit {
                Unfit::Dead => "does not live".to_owned(),
                Unfit::Silent => "is silent".to_owned(),
                Unfit::Draining => "drains".to_owned(),
                Unfit::Unready => self.why_unready(peer, why.check),
            };
            format!("{}: {why}", peer.name)
        });
        let others = others.collect::<Vec<_>>().join("; ");
        let others = if others.is_empty() {
            "there is no other node".to_owned()
        } else {
            others
        };
        format!(
            "{own} is the last node for new connections to port {port} ({others}): mend or \
             undrain another one first, or give --force"
        )
    }

    pub(super) async fn view(&self) -> anyhow::Result<View> {
        let (answer, answered) = oneshot::channel();
        self.node_thread.tell(Command::View(answer));
        answered.await.context("the agent is ending")
    }

    /// A probe has ended.
    pub(super) fn on_probe(&mut self, probed: &Probed) {
        if let Some((index, found)) = self.note_probe(probed) {
            self.node_thread.tell(Input::Probe {
                node: index,
                check: probed.check,
                found,
            });
        }
    }

    /// Keeps what a probe found, for people and for pods. Returns what it means.
    fn note_probe(&mut self, probed: &Probed) -> Option<(BackendIndex, Probe)> {
        let (own, check) = (probed.node == self.nic.node_index, probed.check);
        let found = first::meaning(probed, own);
        let peer = self.peers.get_mut(probed.node)?;
        if let ProbeResult::Ready { rtt } | ProbeResult::Unknown { rtt, .. } = probed.found {
            if check == 0 {
                peer.rtt = Some(rtt);
            }
            let port = self.config.checks[check].port;
            self.probe_times.note(&peer.name, port, rtt);
        }
        if own
            && !matches!(
                probed.found,
                ProbeResult::Refused | ProbeResult::Silent { .. }
            )
            && let Err(error) = self.datapath.note_listener(check as u8, probed.began)
        {
            tracing::warn!(%error, "pods are not connected to this node's server");
        }
        let answers = !matches!(found, Probe::Refused | Probe::Silent | Probe::Hung { .. });
        if !own && found != Probe::Silent {
            peer.agent.facts.answered = Some(now());
        }
        if check == 0 {
            peer.agent.serves = answers;
        }
        peer.probes[check] = LastProbe {
            found: Some(found.clone()),
            text: probed.found.text().to_owned(),
        };
        Some((peer.index, found))
    }

    /// Why a server that counts as not ready does so: the last probe may have found it ready, and
    /// one is not enough.
    fn why_unready(&self, peer: &Peer, check: usize) -> String {
        let last = &peer.probes[check];
        match last.found {
            Some(Probe::Ready | Probe::Unknown(_)) => self.not_yet_ready(&last.text),
            _ => last.text.clone(),
        }
    }

    fn not_yet_ready(&self, found: &str) -> String {
        let rise = self.config.health.rise;
        format!("{found} again, but not yet {rise} times in a row")
    }

    /// The credentials for health checks were read anew, or could not be.
    pub(super) fn on_credentials(&mut self, news: News) {
        self.credentials_trouble = news.clone().err();
        self.journal.note(match news {
            Ok(()) => Event::CredentialsRead,
            Err(cause) => Event::CredentialsUnread { cause },
        });
    }

    /// Looks whether everything is as it should be, whatever events said or did not say.
    ///
    /// # Errors
    /// If the agent must be started anew.
    pub(super) async fn reconcile(&mut self) -> anyhow::Result<()> {
        if self.datapath.repair(&self.desired)? {
            self.journal.note(Event::Repaired(Repair::Tables));
        }
        self.node_thread.tell(Command::Reconcile);
        self.look_at_link().await?;
        self.look_at_other_nics().await;
        self.look_at_addresses().await?;
        self.look_at_proof();
        self.look_at_bfd();
        self.test_connect();
        self.learn_neighbours().await;
        if let Ok(counted) = conflicts(&self.datapath) {
            if counted > self.claims.0
                && let Ok(mac) = self.datapath.claimant()
            {
                self.on_claim(mac);
            }
            self.claims.0 = counted;
        }
        self.look_at_segment().await;
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

    /// The thread has ended.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.node_thread.join(),
            "the thread that keeps the lease panicked: start the agent again, and report this"
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

/// Claims of the VIP by strangers that the program has seen.
fn conflicts(datapath: &Datapath) -> anyhow::Result<u64> {
    Ok(datapath.counter(Counter::ArpConflict)? + datapath.counter(Counter::NdpConflict)?)
}
