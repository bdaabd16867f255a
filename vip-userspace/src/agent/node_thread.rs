//! The thread that keeps time: it drives the [`Node`], and is the only writer of the state that
//! the programs read.
//!
//! A lease that is renewed 50 ms late has ended. So this thread has real-time priority where
//! that is allowed, waits in `ppoll(2)` for nothing but its own few sockets and the next
//! deadline, and never for another thread: what is slow or may block (probes, netlink, the log)
//! happens elsewhere, and messages go both ways without a lock.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use tokio::sync::{mpsc as tokio_mpsc, oneshot};
use vip_common::abi::{BackendIndex, BackendMask, CheckIndex, Masks};
use vip_common::wire::addr::Mac;
use vip_common::wire::bfd::{self, ControlPacket};
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::{self, Addresses, Advertisement, Centiseconds};

use super::packet_counts::PacketCounts;
use super::peer_channel::PeerChannel;
use super::{privileges, realtime};
use crate::clock::now;
use crate::config::VrrpMode;
use crate::datapath::{DesiredState, Halves, StateMap, raise};
use crate::net::bfd::BfdSocket;
use crate::net::echo::EchoSocket;
use crate::net::vrrp::VrrpSocket;
use crate::net::{Neighbours, WitnessSocket};
use crate::random;
use vip_node::bfd::Session;
use vip_node::choice::Resort;
use vip_node::election::{Sealed, State};
use vip_node::envelope;
use vip_node::health::{Origin, Server, Thresholds};
use vip_node::hello::Instance;
use vip_node::seal::KeyRing;
use vip_node::slots::Slots;
use vip_node::{
    Action, Fault, Input, Installation, NoDrain, NoHandover, Node, PeerState, Report, To, Tuning,
};

/// How long BFD packets may wait in their socket at most. One that has waited for longer counts as
/// having come that long ago: it must not count as missing because this thread was late.
const LATEST_READING: Duration = Duration::from_millis(50);

/// BFD packets in one reading that are more than other agents send: a host floods this one. They do
/// not wait in their socket then, where they could keep others out.
const FLOOD: usize = 48;

/// How long a flood is taken to go on after its last sign.
const FLOODED: Duration = Duration::from_secs(1);

/// Packets taken from a socket before the others get their turn.
const BATCH: usize = 64;

/// What the rest of the agent tells the thread.
#[expect(
    clippy::large_enum_variant,
    reason = "handed over and consumed at once; a box would be an allocation for each"
)]
pub(super) enum Command {
    /// Something happened that the node decides about.
    Input(Input),
    /// This node is to take no new connections, unless nobody as good is left for them.
    DrainIfOthers(oneshot::Sender<Result<(), NoDrain>>),
    /// Another node is to own the VIP: this one, or whichever is best.
    Handover {
        to: Option<BackendIndex>,
        answer: oneshot::Sender<HandoverResult>,
    },
    /// Where frames for a node go.
    Mac(BackendIndex, Mac),
    /// Where frames of a node come from, if not from there.
    Source(BackendIndex, Mac),
    /// Hosts of the segment that are no nodes.
    Witnesses(Vec<(IpAddr, Mac)>),
    /// What the state should say, health and leases aside, and the halves of the tables in use.
    DesiredState(Arc<DesiredState>, Halves),
    /// Other VIPs, services or checks.
    Serve(Box<Serve>),
    /// The node has another NIC: speak and listen there from now on.
    Sockets(Box<Sockets>),
    /// The socket for BFD from now on; `None` if there is none.
    Bfd(Option<BfdSocket>),
    /// Other timers, another way to advertise, and other addresses of this node.
    Tune(Box<Tune>),
    /// Other keys seal what is sent, and are accepted.
    Keys(Arc<KeyRing>),
    /// Look whether the map says what it should.
    Reconcile,
    /// How is the node?
    View(oneshot::Sender<View>),
}

impl From<Input> for Command {
    fn from(input: Input) -> Self {
        Self::Input(input)
    }
}

/// What is served from now on.
pub(super) struct Serve {
    /// What the state should say, and the halves of the tables in use.
    pub(super) desired: Arc<DesiredState>,
    pub(super) halves: Halves,
    /// What is announced.
    pub(super) vips: Vec<IpAddr>,
    /// By which it is announced.
    pub(super) neighbours: Arc<Neighbours>,
    /// Where each check comes from.
    pub(super) origins: Vec<Origin>,
    pub(super) thresholds: Thresholds,
}

/// What else may change while the node runs.
pub(super) struct Tune {
    pub(super) tuning: Tuning,
    /// As in [`StaticConfig`].
    pub(super) interop: bool,
    pub(super) own_addresses: Vec<IpAddr>,
}

/// Who has the VIP now, or why nobody else.
pub(super) type HandoverResult = Result<BackendIndex, NoHandover>;

/// What the thread tells the rest of the agent.
pub(super) enum Notice {
    /// Something changed.
    Report(Report),
    /// The map was not as it should be, and is now.
    Repaired,
    /// Something could not be done.
    Failed(&'static str, io::Error),
    /// It has no real-time priority.
    NoPriority(io::Error),
    /// A rank table is to be made.
    Install(Box<Installation>),
    /// A host asks to be a member: its API server is to prove that it may be one.
    Prove(IpAddr, Instance),
}

/// The node, as `vip status` shows it.
pub(super) struct View {
    pub(super) state: State,
    pub(super) priority: u8,
    pub(super) owner: Option<BackendIndex>,
    pub(super) answer_until: BootNanos,
    pub(super) masks: Masks,
    pub(super) faults: Vec<Fault>,
    /// The members that are gone.
    pub(super) gone: BackendMask,
    /// The members that are known to all.
    pub(super) confirmed: BackendMask,
    /// What is known of each node.
    pub(super) nodes: Slots<NodeView>,
    /// By check: where new connections go.
    pub(super) resorts: Vec<Resort>,
    /// What the thread has read and sent.
    pub(super) packets: PacketCounts,
}

/// A node of the cluster, this one or another.
pub(super) struct NodeView {
    /// `None` for this node and without BFD.
    pub(super) session: Option<SessionView>,
    /// When the node's last advertisement came.
    pub(super) advert: Option<BootNanos>,
    /// It takes no new connections.
    pub(super) draining: bool,
    /// By check.
    pub(super) servers: Vec<Server>,
    /// Whether it answers ICMP echo, if that is known.
    pub(super) echo: Option<bool>,
    /// What is known of it; `None` for this node.
    pub(super) state: Option<PeerState>,
    /// Nothing on it answers.
    pub(super) silent: bool,
}

/// A BFD session.
pub(super) struct SessionView {
    pub(super) state: bfd::State,
    pub(super) detection: Duration,
    pub(super) round_trip: Option<Duration>,
    /// When the last packet came; `None` if none did.
    pub(super) heard: Option<BootNanos>,
}

/// What the thread sends and receives by.
pub(super) struct Sockets {
    pub(super) vrrp: VrrpSocket,
    pub(super) bfd: Option<BfdSocket>,
    pub(super) echo: EchoSocket,
    pub(super) witness: WitnessSocket,
    pub(super) neighbours: Arc<Neighbours>,
    pub(super) peer_channel: Arc<PeerChannel>,
}

/// What is known of the nodes' health when the thread starts.
#[derive(Default)]
pub(super) struct Known {
    /// What an agent before this one has left in the map.
    pub(super) masks: Option<Masks>,
    /// What the first probes found.
    pub(super) inputs: Vec<Input>,
}

/// What the thread knows of the configuration.
pub(super) struct StaticConfig {
    /// The nodes' addresses.
    pub(super) nodes: Slots<IpAddr>,
    /// This node's slot.
    pub(super) own: BackendIndex,
    /// What is announced. Those of the nodes' family tell our virtual router from others with
    /// the same number: one of them in common is enough, while VIPs are added or removed.
    pub(super) vips: Vec<IpAddr>,
    /// This node's own addresses on the segment.
    pub(super) own_addresses: Vec<IpAddr>,
    /// VRRP's virtual router.
    pub(super) router_id: u8,
    /// Where they go.
    pub(super) mode: VrrpMode,
    /// What seals them; `None`: they are plain VRRP.
    pub(super) keys: Option<Arc<KeyRing>>,
    /// Plain ones are sent too: other implementations of VRRP take part.
    pub(super) interop: bool,
    /// Checks of each server.
    pub(super) checks: usize,
}

impl StaticConfig {
    /// What advertisements name: the VIPs of the nodes' family.
    fn advertised(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = self.nodes[self.own].is_ipv4();
        let vips = self.vips.iter().copied();
        vips.filter(move |vip| vip.is_ipv4() == ipv4)
    }
}

/// The rest of the agent's end.
pub(super) struct NodeThread {
    teller: Teller,
    thread: JoinHandle<()>,
}

/// Tells the thread something.
#[derive(Clone)]
pub(super) struct Teller {
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
    /// It wakes up by itself within [`LATEST_READING`].
    runs_soon: Arc<AtomicBool>,
}

impl NodeThread {
    /// Starts the thread, which knows this from its first moment. Its notices come out of the
    /// receiver, which ends when the thread does.
    ///
    /// # Errors
    /// If the kernel gives no thread or no eventfd.
    pub(super) fn start(
        node: Node,
        state: StateMap,
        desired: (Arc<DesiredState>, Halves),
        known: Known,
        sockets: Sockets,
        config: StaticConfig,
    ) -> io::Result<(Self, tokio_mpsc::UnboundedReceiver<Notice>)> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags)?);
        let (commands, received) = mpsc::channel();
        let (notices, told) = tokio_mpsc::unbounded_channel();
        let runs_soon = Arc::new(AtomicBool::new(false));
        let node_loop = NodeLoop {
            node,
            state,
            desired,
            sockets,
            config,
            commands: received,
            wake: wake.clone(),
            runs_soon: runs_soon.clone(),
            notices,
            asked: None,
            known,
            witnesses: Vec::new(),
            actions: Vec::new(),
            flooded_until: BootNanos::ZERO,
            echoes: 0,
            adverts: 0,
            packets: PacketCounts::default(),
        };
        let thread = std::thread::Builder::new()
            .name("vip-node".to_owned())
            .spawn(|| node_loop.run())?;
        let teller = Teller {
            commands,
            wake,
            runs_soon,
        };
        Ok((Self { teller, thread }, told))
    }

    /// For others to tell it something.
    pub(super) fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// As [`Teller::tell`].
    pub(super) fn tell(&self, command: impl Into<Command>) {
        self.teller.tell(command);
    }

    /// As [`Teller::tell_soon`].
    pub(super) fn tell_soon(&self, input: Input) {
        self.teller.tell_soon(input);
    }

    /// Waits for the thread to end, which [`Input::Shutdown`] makes it do. False if it ended
    /// by a panic, which was logged.
    pub(super) fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

impl Teller {
    /// Tells the thread something. It has ended if it is not heard, and nothing is left to say.
    pub(super) fn tell(&self, command: impl Into<Command>) {
        if self.commands.send(command.into()).is_ok() {
            // Full only after 2^64 - 1 commands that nobody read.
            let _full = self.wake.write(1);
        }
    }

    /// The same for news that change nothing as long as all is well: they do not wake the thread up
    /// if it runs soon anyway.
    pub(super) fn tell_soon(&self, input: Input) {
        if !self.runs_soon.load(Ordering::Relaxed) {
            self.tell(input);
        } else {
            // As above.
            let _ended = self.commands.send(input.into());
        }
    }
}

struct NodeLoop {
    node: Node,
    state: StateMap,
    desired: (Arc<DesiredState>, Halves),
    sockets: Sockets,
    config: StaticConfig,
    commands: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
    runs_soon: Arc<AtomicBool>,
    notices: tokio_mpsc::UnboundedSender<Notice>,
    /// Who waits for a handover to end.
    asked: Option<oneshot::Sender<HandoverResult>>,
    known: Known,
    /// Hosts of the segment that are no nodes. Their answers prove that it works.
    witnesses: Vec<(IpAddr, Mac)>,
    /// Kept between turns to save allocations.
    actions: Vec<Action>,
    /// Until then, BFD packets do not wait in their socket.
    flooded_until: BootNanos,
    /// Sequence number of echo requests.
    echoes: u16,
    /// Number of the last sealed advertisement.
    adverts: u64,
    packets: PacketCounts,
}

/// What has something to read, or an error to tell.
struct Readable {
    wake: bool,
    vrrp: bool,
    echo: bool,
    witness: bool,
}

impl NodeLoop {
    fn run(mut self) {
        if let Err(error) = realtime::raise_thread() {
            self.tell(Notice::NoPriority(error));
        }
        if let Err(error) = privileges::drop_surplus() {
            self.tell(Notice::Failed(
                "give up capabilities",
                io::Error::other(error),
            ));
        }
        // All are the same, but for those that the configuration did not have before.
        let leases = self.state.get().vips().iter().map(|vip| vip.answer_until);
        let answer_until = leases.min().unwrap_or_default();
        let Known { masks, inputs } = std::mem::take(&mut self.known);
        let masks = masks.unwrap_or_default();
        self.node
            .on_start(now(), answer_until, masks, &mut self.actions);
        for index in self.config.nodes.mask().iter() {
            if !self.state.mac(index).is_unknown() {
                let located = Input::Located(index);
                self.node.on_input(now(), located, &mut self.actions);
            }
        }
        for input in inputs {
            self.node.on_input(now(), input, &mut self.actions);
        }
        // What the agent before has left, such as the end of its lease, is not taken for somebody
        // else's doing later.
        self.rewrite();
        let mut buffer = vec![0; crate::net::vrrp::BUFFER];
        while !self.node.has_left() {
            let readable = self.wait();
            // What came in time must not count as missing because this thread was late: all
            // that waits is taken before the clock is looked at.
            self.take_bfd(&mut buffer);
            if readable.vrrp {
                self.take_vrrp(&mut buffer);
            }
            if readable.echo {
                self.take_echoes(&mut buffer);
            }
            if readable.witness {
                self.take_witnesses();
            }
            self.take_commands(readable.wake);
            let now = now();
            if self.node.next_deadline() <= now {
                self.node.on_timer(now, &mut self.actions);
            }
            self.carry_out();
        }
    }

    /// Waits until there is something to read, which it tells, or something to do.
    fn wait(&self) -> Readable {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let now = now();
        let soon = |until: BootNanos| until.since(now) <= LATEST_READING;
        let runs_soon = now >= self.flooded_until && self.node.bfd_may_wait(now).is_some_and(soon);
        self.runs_soon.store(runs_soon, Ordering::Relaxed);
        let bfd = self.sockets.bfd.as_ref().filter(|_| !runs_soon);
        let mut fds = vec![
            readable(self.wake.as_fd()),
            readable(self.sockets.vrrp.as_fd()),
            readable(self.sockets.echo.as_fd()),
            readable(self.sockets.witness.as_fd()),
        ];
        fds.extend(bfd.map(|bfd| readable(bfd.as_fd())));
        let left = self.node.next_deadline().since(now);
        let woken = if left.is_zero() {
            poll(&mut fds, PollTimeout::ZERO)
        } else {
            ppoll(&mut fds, Some(TimeSpec::from_duration(left)), None)
        };
        // An interrupted wait tells nothing: then all are tried.
        let is =
            |place: usize| woken.is_err() || fds.get(place).and_then(PollFd::any).unwrap_or(false);
        Readable {
            wake: is(0),
            vrrp: is(1),
            echo: is(2),
            witness: is(3),
        }
    }

    fn index(&self, address: IpAddr) -> Option<BackendIndex> {
        let (slot, _) = self.config.nodes.find(|node| *node == address)?;
        Some(slot).filter(|slot| *slot != self.config.own)
    }

    /// `None` if the member has left meanwhile.
    fn address(&self, index: BackendIndex) -> Option<IpAddr> {
        self.config.nodes.get(index).copied()
    }

    /// The members have changed: hears them, and nobody else.
    fn hear_members(&self) {
        let own = self.config.own;
        let others = self.config.nodes.iter().filter(|(slot, _)| *slot != own);
        let others: Vec<IpAddr> = others.map(|(_, address)| *address).collect();
        let Sockets {
            vrrp, bfd, echo, ..
        } = &self.sockets;
        let mut heard = vrrp.set_peers(&others).and(echo.set_hosts(&others));
        if let Some(bfd) = bfd {
            heard = heard.and(bfd.set_peers(&others));
        }
        if let Err(error) = heard {
            self.tell(Notice::Failed("hear the members", error));
        }
    }

    /// Takes in what a report says of the members.
    fn note_members(&mut self, report: &Report) {
        match report {
            Report::Admitted { node, address } => drop(self.config.nodes.insert(*node, *address)),
            Report::Removed { node, .. } => drop(self.config.nodes.remove(*node)),
            _ => return,
        }
        self.hear_members();
    }

    fn take_vrrp(&mut self, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let received = match self.sockets.vrrp.receive(buffer) {
                Ok(Some(received)) => received,
                Ok(None) => return,
                Err(error) => return self.tell(Notice::Failed("receive VRRP", error)),
            };
            self.packets.vrrp.received += 1;
            // RFC 9568, section 7.1: from one hop away, and here from a member.
            let Some(source) = self
                .index(received.source)
                .filter(|_| received.ttl == vrrp::TTL)
            else {
                self.packets.vrrp.elsewhere += 1;
                tracing::debug!(source = %received.source, ttl = received.ttl, "VRRP packet from elsewhere");
                continue;
            };
            let (from, to) = (received.source, received.destination);
            let opened;
            let (sealed, payload) = if envelope::is_sealed_advert(received.payload) {
                let keys = self.config.keys.as_deref();
                match envelope::unwrap_advert(keys, from, received.payload) {
                    Ok((sealed, packet)) => {
                        opened = packet;
                        (Some(sealed), &opened[..])
                    }
                    Err(error) => {
                        self.packets.adverts_unopened += 1;
                        tracing::debug!(source = %from, %error, "advertisement refused");
                        continue;
                    }
                }
            } else {
                (None, received.payload)
            };
            let advert = match Advertisement::parse(payload, from, to) {
                Ok(advert) => advert,
                Err(error) => {
                    self.packets.vrrp.malformed += 1;
                    tracing::debug!(source = %from, %error, "VRRP packet refused");
                    continue;
                }
            };
            let ours = advert.router_id == self.config.router_id
                && self
                    .config
                    .advertised()
                    .any(|vip| advert.addresses.contains(vip));
            if !ours {
                self.packets.adverts_of_others += 1;
                tracing::debug!(source = %from, router_id = advert.router_id, "VRRP packet of another VIP");
                continue;
            }
            let input = Input::Advert {
                source,
                advert,
                sealed,
            };
            self.node.on_input(now(), input, &mut self.actions);
        }
    }

    fn take_bfd(&mut self, buffer: &mut [u8]) {
        for taken in 0..BATCH {
            if taken == FLOOD {
                self.flooded_until = now().after(FLOODED);
            }
            let Some(socket) = &self.sockets.bfd else {
                return;
            };
            let received = match socket.receive(buffer) {
                Ok(Some(received)) => received,
                Ok(None) => return,
                Err(error) => return self.tell(Notice::Failed("receive BFD", error)),
            };
            self.packets.bfd.received += 1;
            // RFC 5881, section 5: from one hop away.
            let Some(source) = self
                .index(received.source)
                .filter(|_| received.ttl == bfd::TTL)
            else {
                self.packets.bfd.elsewhere += 1;
                tracing::debug!(source = %received.source, ttl = received.ttl, "BFD packet from elsewhere");
                continue;
            };
            match ControlPacket::parse(received.payload) {
                Ok(packet) => {
                    let (input, now) = (Input::Bfd { source, packet }, now());
                    let came = received.at.clamp(now.before(LATEST_READING), now);
                    self.node.on_input(came, input, &mut self.actions);
                }
                Err(error) => {
                    self.packets.bfd.malformed += 1;
                    tracing::debug!(source = %received.source, %error, "BFD packet refused");
                }
            }
        }
    }

    fn take_echoes(&mut self, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            match self.sockets.echo.receive(buffer) {
                Ok(Some((source, _))) => {
                    self.packets.echo.received += 1;
                    if let Some(index) = self.index(source) {
                        self.node
                            .on_input(now(), Input::Echo(index), &mut self.actions);
                    }
                }
                Ok(None) => return,
                Err(error) => return self.tell(Notice::Failed("receive an echo", error)),
            }
        }
    }

    fn take_witnesses(&mut self) {
        for _ in 0..BATCH {
            match self.sockets.witness.receive() {
                Ok(Some(mac)) => {
                    if self.witnesses.iter().any(|(_, witness)| *witness == mac) {
                        self.node.on_input(now(), Input::Witness, &mut self.actions);
                    }
                }
                Ok(None) => return,
                Err(error) => return self.tell(Notice::Failed("receive ARP", error)),
            }
        }
    }

    fn take_commands(&mut self, woken: bool) {
        if woken {
            // Empty if the wait was interrupted.
            let _none = self.wake.read();
        }
        while let Ok(command) = self.commands.try_recv() {
            if let Some(input) = self.take(command) {
                self.node.on_input(now(), input, &mut self.actions);
            }
        }
    }

    /// Does what it is told. Returns what the node is to decide about, if anything.
    fn take(&mut self, command: Command) -> Option<Input> {
        match command {
            Command::Input(input) => Some(input),
            Command::DrainIfOthers(answer) => {
                let may = self.node.may_drain();
                let drains = may.is_ok();
                // Whoever asked may have gone.
                let _gone = answer.send(may);
                drains.then_some(Input::Drain(true))
            }
            Command::Handover { to, answer } => {
                // The one who asked before sees its sender dropped.
                self.asked = Some(answer);
                Some(Input::Handover(to))
            }
            Command::Mac(index, mac) => {
                let done = self.state.set_mac(index, mac);
                self.check("set an Ethernet address", done)?;
                Some(Input::Located(index))
            }
            Command::Source(index, mac) => {
                let done = self.state.set_source(index, mac);
                self.check("set the source of frames", done);
                None
            }
            Command::Witnesses(witnesses) => {
                self.witnesses = witnesses;
                None
            }
            Command::DesiredState(desired, halves) => {
                let moved = desired.own_mac != self.desired.0.own_mac;
                self.desired = (desired, halves);
                self.rewrite();
                moved.then_some(Input::Moved)
            }
            Command::Serve(serve) => {
                self.serve(*serve);
                None
            }
            Command::Sockets(sockets) => {
                self.sockets = *sockets;
                // One may have come while they were opened.
                self.hear_members();
                Some(Input::Moved)
            }
            Command::Bfd(socket) => {
                self.sockets.bfd = socket;
                self.hear_members();
                None
            }
            Command::Tune(tune) => {
                self.config.interop = tune.interop;
                self.config.own_addresses = tune.own_addresses;
                Some(Input::Tune(Box::new(tune.tuning)))
            }
            Command::Keys(keys) => {
                let auth = keys.bfd_auth();
                self.config.keys = Some(keys);
                Some(Input::Keys(auth))
            }
            Command::Reconcile => {
                if self.rewrite() {
                    self.tell(Notice::Repaired);
                }
                None
            }
            Command::View(answer) => {
                // Whoever asked may have gone.
                let _gone = answer.send(self.view());
                None
            }
        }
    }

    /// Serves something else from now on.
    fn serve(&mut self, serve: Serve) {
        // What was decided before is about other checks.
        self.carry_out();
        self.config.vips = serve.vips;
        self.config.checks = serve.origins.len();
        self.sockets.neighbours = serve.neighbours;
        let input = Input::Checks {
            origins: serve.origins,
            thresholds: serve.thresholds,
        };
        self.node.on_input(now(), input, &mut self.actions);
        // Services and the health of their checks change together, below.
        self.actions
            .retain(|action| !matches!(action, Action::SetMasks(_)));
        self.desired = (serve.desired, serve.halves);
        self.rewrite();
    }

    /// Makes the map say what it should, whoever wrote it. Returns whether it said something
    /// else.
    fn rewrite(&mut self) -> bool {
        // What was decided a moment ago is not there yet, and nothing to repair.
        self.carry_out();
        let (desired, halves) = self.desired.clone();
        let (answer_until, masks) = (self.node.answer_until(), self.node.masks());
        let resets_until = self.node.resets_until();
        let done = self.state.refresh().and_then(|()| {
            self.state.update(|state| {
                desired.write(state, halves);
                state.masks = masks;
                state.resets_until = resets_until;
                raise(state, answer_until);
            })
        });
        self.check("write the state", done) == Some(true)
    }

    fn carry_out(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        // Inputs that waited together may contradict each other for a moment.
        let is_masks = |action: &Action| matches!(action, Action::SetMasks(_));
        let last_masks = actions.iter().rposition(is_masks);
        let mut packet_bytes = [0; bfd::MAX_LENGTH];
        for (place, action) in actions.drain(..).enumerate() {
            match action {
                Action::SetAnswerUntil(until) => {
                    let done = self.state.set_answer_until(until);
                    self.check("set the lease", done);
                }
                Action::SetMasks(_) if last_masks != Some(place) => {}
                Action::SetMasks(masks) => {
                    let done = self.state.set_masks(masks);
                    self.check("set the health of the nodes", done);
                }
                Action::SetResetsUntil(until) => {
                    let done = self.state.set_resets_until(until);
                    self.check("set until when segments may be reset", done);
                }
                Action::SendAdvert {
                    to,
                    priority,
                    interval,
                } => self.advertise(to, priority, interval),
                Action::SendBfd { to, packet } => {
                    if let (Some(bfd), Some(to)) = (&self.sockets.bfd, self.address(to)) {
                        let sent = bfd.send(to, packet.emit(&mut packet_bytes));
                        self.packets.bfd.count_sent("BFD", sent);
                    }
                }
                Action::RefuseBfd { from, why } => {
                    self.packets.bfd_refused[why as usize] += 1;
                    tracing::debug!(source = ?self.address(from), error = %why, "BFD packet refused");
                }
                Action::RefuseAdvert { from, why } => {
                    self.packets.adverts_refused[why as usize] += 1;
                    tracing::debug!(source = ?self.address(from), error = %why, "VRRP packet refused");
                }
                Action::SendEcho(to) => {
                    self.echoes = self.echoes.wrapping_add(1);
                    if let Some(to) = self.address(to) {
                        let sent = self.sockets.echo.ask(to, self.echoes);
                        self.packets.echo.count_sent("echo", sent);
                    }
                }
                Action::AskNeighbor(to) => {
                    let mac = self.state.mac(to);
                    if let Some(address) = self.address(to).filter(|_| !mac.is_unknown()) {
                        unsent("ARP", self.sockets.neighbours.verify(address, mac));
                    }
                }
                Action::AskWitnesses => {
                    let nodes = self.config.nodes.iter();
                    let nodes = nodes
                        .filter(|(index, _)| *index != self.config.own)
                        .map(|(index, address)| (*address, self.state.mac(index)))
                        .filter(|(_, mac)| !mac.is_unknown());
                    for (address, mac) in self.witnesses.iter().copied().chain(nodes) {
                        unsent("ARP", self.sockets.neighbours.verify(address, mac));
                    }
                }
                Action::Announce => self.for_each(&self.config.vips, Neighbours::announce),
                Action::AnnounceOwn => {
                    self.for_each(&self.config.own_addresses, Neighbours::announce);
                }
                Action::ProbeAddress => self.for_each(&self.config.vips, Neighbours::probe),
                Action::Report(report) => {
                    self.answer(&report);
                    self.note_members(&report);
                    self.tell(Notice::Report(report));
                }
                Action::SendHello { hello, also } => {
                    let members = self.config.nodes.values().copied();
                    let channel = &self.sockets.peer_channel;
                    channel.send(&hello, members.chain(also));
                }
                Action::Prove { address, instance } => {
                    self.tell(Notice::Prove(address, instance));
                }
                Action::Install(installation) => self.tell(Notice::Install(installation)),
                Action::Done => {}
            }
        }
        self.actions = actions;
    }

    /// Tells or asks the segment about addresses.
    fn for_each(&self, addresses: &[IpAddr], speak: fn(&Neighbours, IpAddr) -> io::Result<()>) {
        for &address in addresses {
            let what = if address.is_ipv4() { "ARP" } else { "NDP" };
            unsent(what, speak(&self.sockets.neighbours, address));
        }
    }

    /// Answers whoever waits for a handover.
    fn answer(&mut self, report: &Report) {
        let result = match report {
            Report::HandedOver(to) => Ok(*to),
            Report::NotHandedOver(why) => Err(why.clone()),
            _ => return,
        };
        if let Some(asked) = self.asked.take() {
            // It may have gone.
            let _gone = asked.send(result);
        }
    }

    fn advertise(&mut self, to: To, priority: u8, interval: Centiseconds) {
        let vips: Vec<IpAddr> = self.config.advertised().collect();
        let Some(addresses) = Addresses::new(&vips) else {
            return;
        };
        let advert = Advertisement {
            router_id: self.config.router_id,
            priority,
            interval,
            addresses,
        };
        let own = self.config.nodes[self.config.own];
        match (to, self.config.mode) {
            (To::One(to), _) => {
                if let Some(to) = self.address(to) {
                    self.send_advert(&advert, to);
                }
            }
            (To::All, VrrpMode::Multicast) => {
                let group = if own.is_ipv4() {
                    IpAddr::from(vrrp::GROUP_V4)
                } else {
                    IpAddr::from(vrrp::GROUP_V6)
                };
                self.send_advert(&advert, group);
            }
            (To::All, VrrpMode::Unicast) => {
                let nodes: Vec<IpAddr> = self.config.nodes.values().copied().collect();
                for to in nodes.into_iter().filter(|to| *to != own) {
                    self.send_advert(&advert, to);
                }
            }
        }
    }

    /// Sends an advertisement to a node or to the group, in the forms that receivers believe.
    fn send_advert(&mut self, advert: &Advertisement, to: IpAddr) {
        let own = self.config.nodes[self.config.own];
        let mut bytes = [0; vrrp::MAX_LENGTH];
        let packet = advert.emit(&mut bytes, own, to);
        if self.config.keys.is_none() || self.config.interop {
            let sent = self.sockets.vrrp.send(to, packet);
            self.packets.vrrp.count_sent("VRRP", sent);
        }
        let (Some(keys), Ok(nonce)) = (&self.config.keys, random::bytes()) else {
            return;
        };
        self.adverts += 1;
        let sealed = Sealed {
            instance: self.node.instance(),
            number: self.adverts,
        };
        if let Some(sealed) = envelope::wrap_advert(keys, nonce, own, sealed, packet) {
            let sent = self.sockets.vrrp.send(to, &sealed);
            self.packets.vrrp.count_sent("VRRP", sent);
        }
    }

    fn view(&self) -> View {
        let session = |session: &Session| SessionView {
            state: session.state(),
            detection: session.detection_time(),
            round_trip: session.round_trip(),
            heard: Some(session.heard()).filter(|heard| *heard > BootNanos::ZERO),
        };
        let checks = CheckIndex::first(self.config.checks);
        View {
            state: self.node.state(),
            priority: self.node.priority(),
            owner: self.node.owner(),
            answer_until: self.node.answer_until(),
            masks: self.node.masks(),
            faults: self.node.faults().collect(),
            gone: self.node.gone(),
            confirmed: self.node.confirmed(),
            nodes: self.config.nodes.map(|slot, _| NodeView {
                session: self.node.bfd(slot).map(session),
                advert: self.node.advert(slot),
                draining: self.node.is_draining(slot),
                servers: checks
                    .clone()
                    .map(|check| self.node.server(slot, check))
                    .collect(),
                echo: self.node.answers_echo(slot),
                state: self.node.peer_state(slot),
                silent: self.node.is_silent(slot),
            }),
            packets: self.packets,
            resorts: checks
                .clone()
                .map(|check| self.node.resort(check))
                .collect(),
        }
    }

    fn check<T>(
        &self,
        what: &'static str,
        done: Result<T, crate::datapath::DatapathError>,
    ) -> Option<T> {
        done.map_err(|error| self.tell(Notice::Failed(what, io::Error::other(error))))
            .ok()
    }

    fn tell(&self, notice: Notice) {
        // The rest of the agent is ending.
        let _gone = self.notices.send(notice);
    }
}

/// A packet that cannot be sent is as good as lost, which the protocols are made for, and its
/// receiver's entry in the status says so.
fn unsent(what: &str, sent: io::Result<()>) {
    if let Err(error) = sent {
        tracing::debug!(what, %error, "cannot send");
    }
}
