//! The whole node, as far as it decides: who owns the VIP, who lives, who may have connections.
//!
//! It puts three things together. The [VRRP machine](super::vrrp) elects the owner. A [BFD
//! session](super::bfd) with every other node tells within a few packets that its agent is gone,
//! and so hastens the election. Probes of the API servers and the state of this node's own NIC,
//! programs and addresses decide whether it is fit to be the owner.
//!
//! Pure: the clock is handed in, and all that is to be done comes out as [`Action`]s. The agent
//! and the simulator drive the same code.
//!
//! # The fence
//!
//! The owner answers for the VIP until its fence, and no other node may take over on a time-out
//! before that. There are two time-outs, so the fence is the earlier of two ends: two and a half
//! advertisement intervals after the last advertisement, and half a BFD interval before any peer
//! could miss this node's BFD packets. Both are moved on only by sending what the peers wait
//! for: a node that cannot send, or is not running, loses the VIP in the kernel.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use vip_common::layout::{BackendIndex, BackendMask, BootNanos, Mac, Masks};
use vip_common::wire::bfd::{ControlPacket, Diagnostic};
use vip_common::wire::vrrp::{Advertisement, PRIORITY_RESIGNED};

use super::announce::Schedule;
use super::bfd::{self, Session};
use super::health::{Health, Probe, Thresholds, Transition};
use super::vrrp::{self, Machine, State};

/// Echo requests that a silent node may leave unanswered until it is taken for dead.
const ECHOES: u32 = 3;

/// Between echo requests at least. A host answers within a fraction of that.
const ECHO_INTERVAL: Duration = Duration::from_millis(20);

/// RFC 5227, section 2.1.1: probes before an address is used.
const CLAIM_PROBES: u32 = 3;

/// Between them, and from the last one to the claim. The RFC's one to two seconds are for hosts
/// that wait for spanning trees; a control plane must not.
const CLAIM_PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// RFC 5227, section 2.4 (`DEFEND_INTERVAL`): an address is defended no more often.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Before an address that somebody else claims is asked for again.
const CLAIM_RETRY: Duration = Duration::from_secs(1);

/// How long an owner waits for its successor to speak, beside three advertisement intervals:
/// more than any skew time at an interval of one second, which is keepalived's default.
const HANDOVER_PATIENCE: Duration = Duration::from_millis(1500);

/// What an owner that hands over advertises to all: it is still there, and nobody is worse.
const PRIORITY_HANDING_OVER: u8 = 1;

/// What a node is and knows of the others.
#[derive(Clone, Debug)]
pub struct Params {
    /// This node's place in `nodes`.
    pub own: BackendIndex,
    /// All nodes, in the order of the configuration, which is the same on each of them.
    pub nodes: Vec<Member>,
    /// VRRP.
    pub vrrp: VrrpParams,
    /// BFD; `None` if it is off.
    pub bfd: Option<bfd::Params>,
    /// Probes that change the picture.
    pub thresholds: Thresholds,
    /// Whether to ask the segment for the VIP before the first claim (RFC 5227).
    pub probe_address: bool,
    /// Makes the random numbers (BFD's jitter and discriminators) this node's own.
    pub seed: u64,
}

/// A node of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its address on the segment.
    pub address: IpAddr,
    /// Its VRRP priority while it is healthy, as far as this node knows, `1..=255`.
    pub priority: u8,
}

/// VRRP, the same for all nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VrrpParams {
    /// Time between advertisements.
    pub interval: vip_common::wire::vrrp::Centiseconds,
    /// As [`vrrp::Params::preempt`].
    pub preempt: bool,
    /// As [`vrrp::Params::preempt_delay`].
    pub preempt_delay: Duration,
}

/// Why a node cannot own the VIP, whatever its priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The NIC has no carrier, is down or is gone.
    Carrier,
    /// The programs are not on the NIC: nothing would answer or steer.
    Programs,
    /// The VIP is not on `lo`: the stack would not take what is steered here.
    Vip,
    /// The node's own address is not on the NIC: its peers would not know it.
    Address,
}

impl Fault {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Carrier, Self::Programs, Self::Vip, Self::Address];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Carrier => "no carrier",
            Self::Programs => "programs are not attached",
            Self::Vip => "the VIP is not on lo",
            Self::Address => "the node's own address is gone",
        }
    }
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// An advertisement of our virtual router came from this node.
    Advert {
        /// Who sent it.
        source: BackendIndex,
        /// What it says.
        advert: &'a Advertisement,
    },
    /// A BFD packet came from this node.
    Bfd {
        /// Who sent it.
        source: BackendIndex,
        /// What it says.
        packet: &'a ControlPacket,
    },
    /// A node answered an echo request.
    Echo(BackendIndex),
    /// A probe of an API server ended.
    Probe(BackendIndex, Probe),
    /// Something this node needs is missing, or is there (again).
    Fault(Fault, bool),
    /// Somebody who is no node of the cluster says the VIP is his.
    Claim(Mac),
    /// The operator wants another node to own the VIP: this one, or whichever is best.
    Handover(Option<BackendIndex>),
    /// The agent is to end.
    Shutdown,
}

/// Where an advertisement goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// To all other nodes.
    All,
    /// To one of them.
    One(BackendIndex),
}

/// What the shell has to do, in the order given.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Let the kernel answer for the VIP until then; [`BootNanos::ZERO`]: no more.
    SetFence(BootNanos),
    /// Write health to the map.
    SetMasks(Masks),
    /// Send an advertisement.
    SendAdvert {
        /// To whom.
        to: To,
        /// With this priority, 0 to resign.
        priority: u8,
    },
    /// Send a BFD packet.
    SendBfd {
        /// To whom.
        to: BackendIndex,
        /// What.
        packet: ControlPacket,
    },
    /// Send an ICMP echo request.
    SendEcho(BackendIndex),
    /// Announce the VIP: gratuitous ARP.
    Announce,
    /// Ask the segment who has the VIP (RFC 5227, an ARP probe).
    ProbeAddress,
    /// Tell whoever listens: log, metrics, status.
    Report(Report),
    /// The node has given up all it held; the agent may end.
    Done,
}

/// What changed, and why.
#[derive(Clone, PartialEq, Debug)]
pub enum Report {
    /// This node became the owner.
    Active,
    /// This node is no owner (any more).
    Backup,
    /// Another node is the owner now, as far as this one hears.
    Owner(Option<BackendIndex>),
    /// A BFD session came up.
    BfdUp(BackendIndex),
    /// A BFD session went down.
    BfdDown(BackendIndex, Diagnostic),
    /// A node does not answer at all.
    Dead(BackendIndex),
    /// A node that was silent answers.
    Answers(BackendIndex),
    /// What probes found.
    Health(BackendIndex, Transition),
    /// A fault came (`true`) or went.
    Fault(Fault, bool),
    /// Somebody else claims the VIP; whether it is defended.
    Conflict {
        /// His Ethernet address.
        mac: Mac,
        /// Whether the VIP was announced against him.
        defended: bool,
    },
    /// The VIP is handed over to that node.
    HandingOver(BackendIndex),
    /// It has it.
    HandedOver(BackendIndex),
    /// Why the VIP was not handed over.
    NotHandedOver(NoHandover),
    /// The priority changed with the node's health.
    Priority(u8),
}

/// Why the VIP stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoHandover {
    /// This node does not own it.
    NotOwner,
    /// There is no other node that lives.
    NoOtherNode,
    /// The node that was named is this one.
    Own,
    /// The node that was named does not live.
    Dead(BackendIndex),
    /// The node did not take it.
    NoAnswer(BackendIndex),
}

impl std::fmt::Display for NoHandover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotOwner => "this node does not own the VIP; ask the owner (`vip status`)",
            Self::NoOtherNode => "no other node lives that could take the VIP",
            Self::Own => "the node that was named owns the VIP already",
            Self::Dead(_) => "the node that was named does not live",
            Self::NoAnswer(_) => "the other node did not take the VIP",
        })
    }
}

/// How another node is doing, beside what probes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Liveness {
    /// Nothing speaks against it.
    Trusted,
    /// Its agent fell silent. The kernel's echo tells whether the node went with it: an agent
    /// that crashed takes no connection with it, a node does.
    Doubted {
        /// Echo requests sent.
        asked: u32,
        /// When to send the next one, or give up.
        next: BootNanos,
    },
    /// Nothing answers.
    Dead,
}

#[derive(Clone, Debug)]
struct Peer {
    session: Option<Session>,
    liveness: Liveness,
    /// Its agent was heard, so that the VIP lies on its `lo`: only then does its stack take what
    /// is steered there. (It stays there when the agent ends.)
    joined: bool,
}

/// The owner's way out.
#[derive(Clone, Copy, Debug)]
enum Farewell {
    /// None: it stays.
    None,
    /// It asks this node to take over, until then.
    Handover { to: BackendIndex, until: BootNanos },
    /// It has resigned and answers until somebody else does, or until then.
    Leaving { until: BootNanos, next: BootNanos },
    /// It has left.
    Left,
}

/// Looking for somebody else who has the VIP.
#[derive(Clone, Copy, Debug)]
struct Claims {
    /// ARP probes still to send before the VIP may be claimed.
    probes_left: u32,
    /// When the next one is due, or the claim allowed.
    next: BootNanos,
    /// When the VIP was last defended.
    defended: Option<BootNanos>,
}

/// Who owns the VIP, as far as a node hears.
#[derive(Clone, Copy, Debug)]
struct Owner {
    index: BackendIndex,
    priority: u8,
    /// Not the owner any more if nothing is heard of it until then.
    until: BootNanos,
}

/// Who resigned last, and has not said that it stays after all.
#[derive(Clone, Copy, Debug)]
struct Resigned {
    index: BackendIndex,
    /// So long it may go on speaking to others, as one that hands over does.
    until: BootNanos,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    params: Params,
    machine: Machine,
    /// By backend index; `None` for this node itself.
    peers: Vec<Option<Peer>>,
    health: Health,
    schedule: Schedule,
    faults: u8,
    masks: Option<Masks>,
    fence: BootNanos,
    /// The best owner that is heard. (There are two where a segment has fallen apart.)
    owner: Option<Owner>,
    resigned: Option<Resigned>,
    farewell: Farewell,
    claims: Claims,
    started: bool,
    /// Kept to save an allocation with each BFD packet.
    bfd: Vec<bfd::Action>,
}

impl Node {
    /// A node that has not started.
    #[must_use]
    pub fn new(params: Params) -> Self {
        let own = params.nodes[params.own.get()];
        let peers = (0..params.nodes.len()).map(|index| {
            (index != params.own.get()).then(|| Peer {
                session: params.bfd.map(|bfd| {
                    let seed = mix(params.seed, index as u64);
                    let discriminator =
                        NonZeroU32::new((seed >> 32) as u32).unwrap_or(NonZeroU32::MIN);
                    Session::new(bfd, discriminator, seed)
                }),
                liveness: Liveness::Trusted,
                // Without BFD there is nothing to hear it by.
                joined: params.bfd.is_none(),
            })
        });
        Self {
            machine: Machine::new(vrrp::Params {
                address: own.address,
                priority: own.priority,
                interval: params.vrrp.interval,
                preempt: params.vrrp.preempt,
                preempt_delay: params.vrrp.preempt_delay,
            }),
            peers: peers.collect(),
            health: Health::new(params.nodes.len(), params.thresholds),
            schedule: Schedule::default(),
            faults: 0,
            masks: None,
            fence: BootNanos::ZERO,
            owner: None,
            resigned: None,
            farewell: Farewell::None,
            claims: Claims {
                probes_left: if params.probe_address {
                    CLAIM_PROBES
                } else {
                    0
                },
                next: BootNanos::ZERO,
                defended: None,
            },
            started: false,
            bfd: Vec::new(),
            params,
        }
    }

    /// Starts it. `fence` is the one that lies in the map: where it ends ahead of `now`, an
    /// agent before this one owned the VIP until a moment ago, and this one goes on. `known` is
    /// the health that an agent before this one has left in the map.
    pub fn on_start(
        &mut self,
        now: BootNanos,
        fence: BootNanos,
        known: Masks,
        out: &mut Vec<Action>,
    ) {
        self.started = true;
        for index in self.others() {
            if let Some(peer) = self.peer_mut(index) {
                peer.joined |= known.alive.contains(index);
            }
        }
        for index in self.others() {
            self.session(index, out, |session, out| session.on_start(now, out));
        }
        if fence > now {
            // It was asked before it was claimed.
            self.claims.probes_left = 0;
        }
        self.claims.next = now;
        if self.faults == 0 {
            let actions = self.machine.on_start(now, fence);
            self.carry_out(now, actions, out);
        } else {
            self.set_fence(BootNanos::ZERO, out);
        }
        self.settle(now, out);
    }

    /// Something happened.
    pub fn on_event(&mut self, now: BootNanos, event: Event<'_>, out: &mut Vec<Action>) {
        self.wake(now, out);
        match event {
            Event::Advert { source, advert } => self.on_advert(now, source, advert, out),
            Event::Bfd { source, packet } => {
                self.session(source, out, |session, out| {
                    session.on_packet(now, packet, out);
                });
                self.on_sessions(now, source, out);
            }
            Event::Echo(index) => self.answers(index, out),
            Event::Probe(index, probe) => {
                if probe != Probe::Silent {
                    self.answers(index, out);
                }
                for transition in self.health.on_probe(index, probe) {
                    out.push(Action::Report(Report::Health(index, transition)));
                }
                self.set_priority(out);
            }
            Event::Fault(fault, present) => self.on_fault(now, fault, present, out),
            Event::Claim(mac) => self.on_claim(now, mac, out),
            Event::Handover(to) => self.on_handover(now, to, out),
            Event::Shutdown => self.on_shutdown(now, out),
        }
        self.settle(now, out);
    }

    /// To be called at [`Self::next_deadline`] or later. Earlier calls do nothing.
    ///
    /// Whatever waits in sockets is to be handed in first: what came in time must not count as
    /// missing because this node was late.
    pub fn on_timer(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        self.wake(now, out);
        let mut next_packet = None;
        for index in self.others() {
            let due = |session: &Session| session.next_deadline() <= now;
            if self.bfd(index).is_some_and(due) {
                self.session(index, out, |session, out| {
                    let sends = session.next_packet() <= now;
                    session.on_timer(now, out);
                    if sends {
                        next_packet = Some(session.next_packet());
                    }
                });
                self.on_sessions(now, index, out);
            }
            self.doubt(now, index, out);
        }
        if let Some(next) = next_packet {
            // One wake-up for the packets to all peers, and one move of the fence.
            for index in self.others() {
                self.session(index, out, |session, out| {
                    session.on_company(now, next, out);
                });
            }
        }
        self.probe_address(now, out);
        if now >= self.next_claim() {
            let actions = self.machine.on_timer(now);
            self.carry_out(now, actions, out);
        }
        self.leave(now, out);
        self.settle(now, out);
    }

    /// An owner that comes back after its fence has ended was away, and steps down before
    /// anything else: what it does next must not move the fence on.
    fn wake(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if self.machine.state() == State::Active && now >= self.fence {
            let actions = self.machine.on_timer(now);
            self.carry_out(now, actions, out);
        }
    }

    /// When to call [`Self::on_timer`], unless something happens before.
    #[must_use]
    pub fn next_deadline(&self) -> BootNanos {
        if !self.started {
            return BootNanos(u64::MAX);
        }
        let mut deadline = self.next_claim();
        let mut earliest = |at: BootNanos| deadline = deadline.min(at);
        for peer in self.peers.iter().flatten() {
            if let Some(session) = &peer.session {
                earliest(session.next_deadline());
            }
            if let Liveness::Doubted { next, .. } = peer.liveness {
                earliest(next);
            }
        }
        if self.machine.state() == State::Active {
            earliest(self.fence);
            if let Some(at) = self.schedule.deadline() {
                earliest(at);
            }
        } else if self.claims.probes_left > 0 && self.faults == 0 {
            earliest(self.claims.next);
        }
        match self.farewell {
            Farewell::None | Farewell::Left => {}
            Farewell::Handover { until, .. } => earliest(until),
            Farewell::Leaving { until, next } => {
                earliest(until);
                earliest(next);
            }
        }
        deadline
    }

    /// What VRRP says this node is.
    #[must_use]
    pub fn state(&self) -> State {
        self.machine.state()
    }

    /// The priority in force.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.machine.priority()
    }

    /// Who owns the VIP, as far as this node knows.
    #[must_use]
    pub fn owner(&self) -> Option<BackendIndex> {
        self.owner.map(|owner| owner.index)
    }

    /// Until when this node answers for the VIP.
    #[must_use]
    pub fn fence(&self) -> BootNanos {
        self.fence
    }

    /// Health as the packet path sees it.
    #[must_use]
    pub fn masks(&self) -> Masks {
        self.masks.unwrap_or_else(|| self.health.masks())
    }

    /// The BFD session with a node, if there is to be one.
    #[must_use]
    pub fn bfd(&self, index: BackendIndex) -> Option<&Session> {
        self.peer(index)?.session.as_ref()
    }

    /// What keeps this node from owning the VIP.
    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        let faults = self.faults;
        Fault::ALL
            .into_iter()
            .filter(move |fault| faults & fault.bit() != 0)
    }

    /// Whether it has left for good.
    #[must_use]
    pub fn has_left(&self) -> bool {
        matches!(self.farewell, Farewell::Left)
    }

    fn others(&self) -> impl Iterator<Item = BackendIndex> + use<> {
        let own = self.params.own;
        (0..self.params.nodes.len())
            .filter_map(BackendIndex::new)
            .filter(move |index| *index != own)
    }

    fn peer(&self, index: BackendIndex) -> Option<&Peer> {
        self.peers.get(index.get())?.as_ref()
    }

    fn peer_mut(&mut self, index: BackendIndex) -> Option<&mut Peer> {
        self.peers.get_mut(index.get())?.as_mut()
    }

    /// When the election's own timer fires: for a backup not before it may claim the VIP.
    fn next_claim(&self) -> BootNanos {
        let deadline = self.machine.next_deadline();
        match self.machine.state() {
            State::Initialize => BootNanos(u64::MAX),
            State::Active => deadline,
            State::Backup if self.claims.probes_left > 0 => BootNanos(u64::MAX),
            State::Backup => deadline.max(self.claims.next).after(self.turn()),
        }
    }

    /// Drives one BFD session and carries out what it says, its ups and downs excepted: see
    /// [`Self::on_sessions`].
    fn session(
        &mut self,
        index: BackendIndex,
        out: &mut Vec<Action>,
        drive: impl FnOnce(&mut Session, &mut Vec<bfd::Action>),
    ) {
        let Some(Some(Peer {
            session: Some(session),
            ..
        })) = self.peers.get_mut(index.get())
        else {
            return;
        };
        drive(session, &mut self.bfd);
        out.extend(
            self.bfd
                .extract_if(.., |action| matches!(action, bfd::Action::Send(_)))
                .filter_map(|action| match action {
                    bfd::Action::Send(packet) => Some(Action::SendBfd { to: index, packet }),
                    bfd::Action::Up | bfd::Action::Down(_) => None,
                }),
        );
    }

    /// What the ups and downs of a session mean.
    fn on_sessions(&mut self, now: BootNanos, index: BackendIndex, out: &mut Vec<Action>) {
        while let Some(action) = self.bfd.pop() {
            match action {
                bfd::Action::Send(_) => {}
                bfd::Action::Up => {
                    if let Some(peer) = self.peer_mut(index) {
                        peer.joined = true;
                    }
                    out.push(Action::Report(Report::BfdUp(index)));
                    self.answers(index, out);
                    if self.machine.state() == State::Active {
                        // A node has come back, and others with it that heard another owner.
                        self.schedule.repeat(now);
                    }
                }
                bfd::Action::Down(diagnostic) => {
                    out.push(Action::Report(Report::BfdDown(index, diagnostic)));
                    if diagnostic == Diagnostic::ControlDetectionTimeExpired {
                        self.on_silence(now, index);
                    }
                }
            }
        }
    }

    /// A node's BFD packets stay out: its agent is gone, and maybe the node.
    fn on_silence(&mut self, now: BootNanos, index: BackendIndex) {
        if let Some(peer) = self.peer_mut(index) {
            peer.liveness = Liveness::Doubted {
                asked: 0,
                next: now,
            };
        }
        let Some(bfd) = self.params.bfd else {
            return;
        };
        let lost = self.params.nodes[index.get()].address;
        // An owner whose advertisements come in is there, whatever became of its BFD packets.
        let heard = self.machine.heard().unwrap_or(now);
        let detection = bfd.interval * u32::from(bfd.detect_mult.get());
        if self.machine.owner() == Some(lost) && now.since(heard) >= detection / 2 {
            self.machine.hasten(now);
        }
    }

    /// How long to let others go first once the owner is gone: a BFD interval for each living
    /// node that stands before this one, so that not all of them take over at once. Nodes may
    /// disagree for a moment about who is ready, and each let the other go first, or neither. Then
    /// their places by configured priority, worth half an interval in all, keep them apart.
    fn turn(&self) -> Duration {
        let Some(bfd) = self.params.bfd else {
            return Duration::ZERO;
        };
        let configured = self.params.nodes[self.params.own.get()];
        let own = (self.machine.priority(), configured.address);
        let mut before = 0;
        let mut configured_before = 0;
        for index in self.others() {
            let node = self.params.nodes[index.get()];
            if self.machine.owner() != Some(node.address) {
                let rank = (node.priority, node.address);
                configured_before += u32::from(rank > (configured.priority, configured.address));
            }
            let lives = self.bfd(index).is_some_and(Session::is_up);
            let rank = (priority(node.priority, self.is_ready(index)), node.address);
            let resigned = self
                .resigned
                .is_some_and(|resigned| resigned.index == index);
            before += u32::from(lives && !resigned && rank > own);
        }
        let others = self.others().count().max(1) as u32;
        bfd.interval * before + bfd.interval * configured_before / (2 * others)
    }

    fn on_advert(
        &mut self,
        now: BootNanos,
        source: BackendIndex,
        advert: &Advertisement,
        out: &mut Vec<Action>,
    ) {
        let Some(address) = self.params.nodes.get(source.get()).map(|node| node.address) else {
            return;
        };
        let resigns = advert.priority == PRIORITY_RESIGNED;
        let leaving = self.has_resigned(now, source);
        self.follow(now, source, address, advert);
        match self.farewell {
            Farewell::Left => return,
            Farewell::Leaving { .. } if !resigns => {
                // The next owner has spoken.
                out.push(Action::Report(Report::HandedOver(source)));
                self.left(out);
                return;
            }
            Farewell::Leaving { .. } => return,
            // Whoever speaks: it may also be the owner of the other part of a segment that has
            // come together again.
            Farewell::Handover { .. } if !resigns => {
                self.farewell = Farewell::None;
                let actions = self.machine.yield_to(now, address, advert.interval);
                out.push(Action::Report(Report::HandedOver(source)));
                self.carry_out(now, actions, out);
                self.owner = None;
                self.follow(now, source, address, advert);
                return;
            }
            Farewell::Handover { .. } | Farewell::None => {}
        }
        // One that leaves or hands over says so again and again, and to others that it is still
        // there. That is no reason to wait any longer.
        if leaving && advert.priority <= PRIORITY_HANDING_OVER {
            return;
        }
        if !resigns {
            // A node of the cluster owns the VIP: nobody else needs to be asked.
            self.claims.probes_left = 0;
            self.claims.next = now;
        }
        let was = self.machine.state();
        let unfit = self.is_ready(self.params.own) && !self.is_ready(source);
        let actions = self.machine.on_advert(now, address, advert, unfit);
        self.carry_out(now, actions, out);
        match self.machine.state() {
            // Two owners met, and this one stays: hosts may have believed the other.
            State::Active if was == State::Active && !resigns => self.schedule.repeat(now),
            // Its turn, and not the skew time, decides who is next.
            State::Backup
                if resigns
                    && self.params.bfd.is_some()
                    && self.machine.owner() == Some(address) =>
            {
                self.machine.hasten(now);
            }
            _ => {}
        }
    }

    /// Notes who owns the VIP.
    fn follow(
        &mut self,
        now: BootNanos,
        source: BackendIndex,
        address: IpAddr,
        advert: &Advertisement,
    ) {
        let rank = |owner: &Owner| (owner.priority, self.params.nodes[owner.index.get()].address);
        if advert.priority == PRIORITY_RESIGNED {
            self.owner = self.owner.filter(|owner| owner.index != source);
            self.resigned = Some(Resigned {
                index: source,
                until: now.after(self.handover_patience()),
            });
            return;
        }
        let hands_over = advert.priority == PRIORITY_HANDING_OVER && self.has_resigned(now, source);
        if !hands_over {
            self.resigned = self.resigned.filter(|resigned| resigned.index != source);
        }
        let better = |owner: Owner| {
            owner.index == source || now >= owner.until || rank(&owner) < (advert.priority, address)
        };
        if self.owner.is_none_or(better) {
            self.owner = Some(Owner {
                index: source,
                priority: advert.priority,
                // One more than it takes to be taken for dead.
                until: now.after(advert.interval.duration() * 4),
            });
        }
    }

    /// Whether a node has resigned lately.
    fn has_resigned(&self, now: BootNanos, index: BackendIndex) -> bool {
        self.resigned
            .is_some_and(|resigned| resigned.index == index && now < resigned.until)
    }

    fn is_ready(&self, index: BackendIndex) -> bool {
        self.health
            .backend(index)
            .is_none_or(super::health::Backend::ready)
    }

    /// Sends the echo requests that tell a crashed agent from a dead node.
    fn doubt(&mut self, now: BootNanos, index: BackendIndex, out: &mut Vec<Action>) {
        let pause = self
            .params
            .bfd
            .map_or(ECHO_INTERVAL, |bfd| bfd.interval.max(ECHO_INTERVAL));
        let Some(peer) = self.peer_mut(index) else {
            return;
        };
        let Liveness::Doubted { asked, next } = peer.liveness else {
            return;
        };
        if now < next {
            return;
        }
        if asked < ECHOES {
            peer.liveness = Liveness::Doubted {
                asked: asked + 1,
                next: now.after(pause),
            };
            out.push(Action::SendEcho(index));
        } else {
            peer.liveness = Liveness::Dead;
            out.push(Action::Report(Report::Dead(index)));
        }
    }

    /// A node gave a sign of life.
    fn answers(&mut self, index: BackendIndex, out: &mut Vec<Action>) {
        if let Some(peer) = self.peer_mut(index) {
            let was = std::mem::replace(&mut peer.liveness, Liveness::Trusted);
            if was == Liveness::Dead {
                out.push(Action::Report(Report::Answers(index)));
            }
        }
    }

    /// The priority follows the node's health. A quarter is less than any healthy node's among
    /// the first seven.
    fn set_priority(&mut self, out: &mut Vec<Action>) {
        let base = self.params.nodes[self.params.own.get()].priority;
        let wanted = priority(base, self.is_ready(self.params.own));
        if wanted != self.machine.priority() {
            self.machine.set_priority(wanted);
            out.push(Action::Report(Report::Priority(wanted)));
        }
    }

    fn on_fault(&mut self, now: BootNanos, fault: Fault, present: bool, out: &mut Vec<Action>) {
        let before = self.faults;
        if present {
            self.faults |= fault.bit();
        } else {
            self.faults &= !fault.bit();
        }
        if before == self.faults {
            return;
        }
        out.push(Action::Report(Report::Fault(fault, present)));
        if !self.started || !matches!(self.farewell, Farewell::None | Farewell::Handover { .. }) {
            return;
        }
        if before == 0 {
            self.farewell = Farewell::None;
            let actions = self.machine.on_shutdown();
            self.carry_out(now, actions, out);
        } else if self.faults == 0 {
            let actions = self.machine.on_start(now, BootNanos::ZERO);
            self.carry_out(now, actions, out);
        }
    }

    fn on_claim(&mut self, now: BootNanos, mac: Mac, out: &mut Vec<Action>) {
        let due = self
            .claims
            .defended
            .is_none_or(|defended| now.since(defended) >= DEFEND_INTERVAL);
        let defended = self.machine.state() == State::Active && due;
        if defended {
            self.claims.defended = Some(now);
            out.push(Action::Announce);
        } else if self.claims.probes_left > 0 || now < self.claims.next {
            // It has not been claimed yet, and will not be while he is there.
            self.claims.probes_left = CLAIM_PROBES;
            self.claims.next = now.after(CLAIM_RETRY);
        }
        out.push(Action::Report(Report::Conflict { mac, defended }));
    }

    /// Asks the segment for the VIP before it is claimed.
    fn probe_address(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        let claims = &mut self.claims;
        if self.machine.state() == State::Active || claims.probes_left == 0 || self.faults != 0 {
            return;
        }
        if now >= claims.next {
            claims.probes_left -= 1;
            claims.next = now.after(CLAIM_PROBE_INTERVAL);
            out.push(Action::ProbeAddress);
        }
    }

    fn on_handover(&mut self, now: BootNanos, to: Option<BackendIndex>, out: &mut Vec<Action>) {
        let to = match self.successor(to) {
            Ok(to) => to,
            Err(why) => {
                out.push(Action::Report(Report::NotHandedOver(why)));
                return;
            }
        };
        self.farewell = Farewell::Handover {
            to,
            until: now.after(self.handover_patience()),
        };
        out.push(Action::Report(Report::HandingOver(to)));
        // To him alone: nobody else feels called.
        out.push(Action::SendAdvert {
            to: To::One(to),
            priority: PRIORITY_RESIGNED,
        });
    }

    fn handover_patience(&self) -> Duration {
        HANDOVER_PATIENCE + self.machine.interval().duration() * 3
    }

    /// The node to hand over to.
    fn successor(&self, to: Option<BackendIndex>) -> Result<BackendIndex, NoHandover> {
        if self.machine.state() != State::Active
            || !matches!(self.farewell, Farewell::None | Farewell::Handover { .. })
        {
            return Err(NoHandover::NotOwner);
        }
        match to {
            Some(to) if to == self.params.own => Err(NoHandover::Own),
            Some(to) if !self.lives(to) => Err(NoHandover::Dead(to)),
            Some(to) => Ok(to),
            None => self
                .others()
                .filter(|&index| self.lives(index))
                .max_by_key(|&index| {
                    let node = self.params.nodes[index.get()];
                    (priority(node.priority, self.is_ready(index)), node.address)
                })
                .ok_or(NoHandover::NoOtherNode),
        }
    }

    /// Whether a node could take the VIP.
    fn lives(&self, index: BackendIndex) -> bool {
        let Some(peer) = self.peer(index) else {
            return false;
        };
        match &peer.session {
            Some(session) => session.is_up(),
            None => self
                .health
                .backend(index)
                .is_some_and(super::health::Backend::alive),
        }
    }

    fn on_shutdown(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if matches!(self.farewell, Farewell::Leaving { .. } | Farewell::Left) {
            return;
        }
        let active = self.machine.state() == State::Active;
        let successor = active && self.others().any(|index| self.lives(index));
        // The peers are told that the silence to come is meant, before the next of them takes
        // over.
        for index in self.others() {
            self.session(index, out, |session, out| session.admin_down(now, out));
            self.bfd.clear();
        }
        if successor {
            self.farewell = Farewell::Leaving {
                until: now.after(self.handover_patience()),
                next: now,
            };
            self.leave(now, out);
        } else {
            let actions = self.machine.on_shutdown();
            self.carry_out(now, actions, out);
            self.left(out);
        }
    }

    /// The owner that leaves goes on answering until the next one speaks.
    fn leave(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        match self.farewell {
            Farewell::None | Farewell::Left => {}
            Farewell::Handover { to, until } => {
                if self.machine.state() != State::Active {
                    self.farewell = Farewell::None;
                } else if now >= until {
                    self.farewell = Farewell::None;
                    out.push(Action::Report(Report::NotHandedOver(NoHandover::NoAnswer(
                        to,
                    ))));
                }
            }
            Farewell::Leaving { until, next } => {
                if now >= until || self.machine.state() != State::Active {
                    let actions = self.machine.on_shutdown();
                    self.carry_out(now, actions, out);
                    self.left(out);
                } else if now >= next {
                    let next = now.after(self.machine.interval().duration());
                    self.farewell = Farewell::Leaving { until, next };
                    out.push(Action::SendAdvert {
                        to: To::All,
                        priority: PRIORITY_RESIGNED,
                    });
                }
            }
        }
    }

    fn left(&mut self, out: &mut Vec<Action>) {
        self.farewell = Farewell::Left;
        self.machine.on_shutdown();
        self.schedule.end();
        self.set_fence(BootNanos::ZERO, out);
        out.push(Action::Done);
    }

    fn carry_out(
        &mut self,
        now: BootNanos,
        actions: impl IntoIterator<Item = vrrp::Action>,
        out: &mut Vec<Action>,
    ) {
        for action in actions {
            match action {
                vrrp::Action::RenewFence { .. } => {
                    if let Some(limit) = self.patience() {
                        self.machine.limit_fence(limit);
                    }
                    // Set below, once for all that happens now.
                }
                vrrp::Action::LowerFence => self.set_fence(BootNanos::ZERO, out),
                vrrp::Action::SendAdvert { priority } => {
                    let to = To::All;
                    match self.farewell {
                        Farewell::None | Farewell::Left => {
                            out.push(Action::SendAdvert { to, priority });
                        }
                        Farewell::Handover { to: successor, .. } => {
                            // Still here for all others, and no reason for the successor to
                            // yield, who is asked again: packets get lost.
                            let priority = PRIORITY_HANDING_OVER;
                            out.push(Action::SendAdvert { to, priority });
                            out.push(Action::SendAdvert {
                                to: To::One(successor),
                                priority: PRIORITY_RESIGNED,
                            });
                        }
                        // It resigns again and again instead: see `leave`.
                        Farewell::Leaving { .. } => {}
                    }
                }
                vrrp::Action::BecomeActive => {
                    out.push(Action::Report(Report::Active));
                    self.schedule.begin(now);
                }
                vrrp::Action::BecomeBackup => {
                    out.push(Action::Report(Report::Backup));
                    self.schedule.end();
                }
            }
        }
    }

    /// When the first peer could miss this node's BFD packets, less half an interval: for the
    /// clocks, which are not the same, and for the time that packets take.
    fn patience(&self) -> Option<BootNanos> {
        let margin = self.params.bfd?.interval / 2;
        let sessions = self
            .peers
            .iter()
            .flatten()
            .filter_map(|peer| peer.session.as_ref());
        let first = sessions.filter_map(Session::peer_patience).min()?;
        Some(BootNanos(first.0.saturating_sub(margin.as_nanos() as u64)))
    }

    fn set_fence(&mut self, until: BootNanos, out: &mut Vec<Action>) {
        if self.fence != until {
            self.fence = until;
            out.push(Action::SetFence(until));
        }
    }

    /// Brings fence, masks and the owner's name in line with what was decided.
    fn settle(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if let Some(limit) = self.patience() {
            self.machine.limit_fence(limit);
        } else {
            self.machine.limit_fence(BootNanos(u64::MAX));
        }
        if let Some(until) = self.machine.fence() {
            self.set_fence(until, out);
        }
        let masks = self.overlay();
        if self.masks != Some(masks) {
            self.masks = Some(masks);
            out.push(Action::SetMasks(masks));
        }
        let known = self.owner();
        self.owner = match self.machine.state() {
            State::Active => Some(Owner {
                index: self.params.own,
                priority: self.machine.priority(),
                until: BootNanos(u64::MAX),
            }),
            State::Backup => self
                .owner
                .filter(|owner| owner.index != self.params.own && now < owner.until),
            State::Initialize => None,
        };
        if self.owner() != known {
            out.push(Action::Report(Report::Owner(self.owner())));
        }
        if self.machine.state() == State::Active && self.schedule.due(now) {
            out.push(Action::Announce);
        }
    }

    /// What probes say, and what the peers' silence adds to it. A node whose agent was never
    /// heard gets nothing: its API server may be ready, but its stack does not have the VIP. New connections avoid a silent
    /// node at once; open ones, which a crashed agent does not harm, only once the node itself
    /// does not answer. A BFD session that is up proves life.
    fn overlay(&self) -> Masks {
        let mut masks = self.health.masks();
        for index in self.others() {
            let Some(peer) = self.peer(index) else {
                continue;
            };
            match peer.liveness {
                _ if !peer.joined => {
                    masks.ready = masks.ready.with(index, false);
                    masks.alive = masks.alive.with(index, false);
                }
                Liveness::Trusted => {
                    if peer.session.as_ref().is_some_and(Session::is_up) {
                        masks.alive = masks.alive.with(index, true);
                    }
                }
                Liveness::Doubted { .. } => masks.ready = masks.ready.with(index, false),
                Liveness::Dead => {
                    masks.ready = masks.ready.with(index, false);
                    masks.alive = masks.alive.with(index, false);
                }
            }
        }
        debug_assert!(masks.alive.and(BackendMask::first(self.params.nodes.len())) == masks.alive);
        masks
    }
}

/// The priority of a node whose own API server is ready, or is not.
fn priority(base: u8, ready: bool) -> u8 {
    if ready { base } else { (base / 4).max(1) }
}

/// A number of its own for each peer.
fn mix(seed: u64, index: u64) -> u64 {
    let mixed =
        (seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use vip_common::wire::vrrp::{Addresses, Centiseconds};

    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> BootNanos {
        BootNanos(1_000_000 * MS + ms * MS)
    }

    fn index(node: usize) -> BackendIndex {
        BackendIndex::new(node).unwrap()
    }

    fn params(own: usize, bfd: bool) -> Params {
        Params {
            own: index(own),
            nodes: [250, 220, 190]
                .iter()
                .enumerate()
                .map(|(node, &priority)| Member {
                    address: IpAddr::from([10, 0, 0, 11 + node as u8]),
                    priority,
                })
                .collect(),
            vrrp: VrrpParams {
                interval: Centiseconds::new(10).unwrap(),
                preempt: false,
                preempt_delay: Duration::ZERO,
            },
            bfd: bfd.then(|| bfd::Params {
                detect_mult: NonZeroU8::new(3).unwrap(),
                interval: Duration::from_millis(50),
            }),
            thresholds: Thresholds { rise: 1, fall: 1 },
            probe_address: false,
            seed: 1,
        }
    }

    /// A node with what it did last.
    struct Bench {
        node: Node,
        out: Vec<Action>,
    }

    impl Bench {
        fn new(params: Params) -> Self {
            let mut bench = Self {
                node: Node::new(params),
                out: vec![],
            };
            let known = Masks::default();
            bench
                .node
                .on_start(at(0), BootNanos::ZERO, known, &mut bench.out);
            bench
        }

        fn event(&mut self, now: BootNanos, event: Event<'_>) -> &[Action] {
            self.out.clear();
            self.node.on_event(now, event, &mut self.out);
            &self.out
        }

        fn advert(&mut self, now: BootNanos, source: usize, priority: u8) -> &[Action] {
            let advert = Advertisement {
                router_id: 10,
                priority,
                interval: self.node.params.vrrp.interval,
                addresses: Addresses::new(&[IpAddr::from([10, 0, 0, 10])]).unwrap(),
            };
            let (source, advert) = (index(source), &advert);
            self.event(now, Event::Advert { source, advert })
        }

        /// Lets the timers run until then.
        fn run(&mut self, until: BootNanos) -> &[Action] {
            self.out.clear();
            while self.node.next_deadline() <= until {
                let now = self.node.next_deadline();
                self.node.on_timer(now, &mut self.out);
            }
            &self.out
        }
    }

    fn owner(params: Params) -> Bench {
        let mut bench = Bench::new(params);
        bench.run(at(2000));
        assert_eq!(bench.node.state(), State::Active);
        bench
    }

    #[test]
    fn takeover_raises_the_fence_before_it_announces() {
        let mut bench = Bench::new(params(0, false));
        let actions = bench.run(at(400));
        let place = |wanted: fn(&Action) -> bool| actions.iter().position(wanted).unwrap();
        let fence = place(|action| matches!(action, Action::SetFence(until) if until.0 > 0));
        let announce = place(|action| *action == Action::Announce);
        assert!(
            fence < announce,
            "the guard lets no announcement out before"
        );
    }

    #[test]
    fn priority_is_a_quarter_while_the_own_server_is_not_ready() {
        let mut bench = Bench::new(params(0, false));
        bench.event(at(1), Event::Probe(index(0), Probe::Refused));
        assert_eq!(bench.node.priority(), 62);
        bench.event(at(2), Event::Probe(index(0), Probe::Ready));
        assert_eq!(bench.node.priority(), 250);
    }

    #[test]
    fn vip_leaves_an_owner_whose_server_failed_only_for_one_whose_is_ready() {
        for (own_ready, leaves) in [(true, true), (false, false)] {
            let mut bench = Bench::new(params(1, false));
            bench.event(at(1), Event::Probe(index(0), Probe::Refused));
            let own = if own_ready {
                Probe::Ready
            } else {
                Probe::Refused
            };
            bench.event(at(1), Event::Probe(index(1), own));
            for tick in 1..20 {
                bench.advert(at(tick * 50), 0, 62);
                bench.run(at(tick * 50 + 49));
            }
            let active = bench.node.state() == State::Active;
            assert_eq!(active, leaves, "own ready: {own_ready}");
        }
    }

    #[test]
    fn owner_that_lacks_something_gives_the_vip_up_at_once_and_comes_back() {
        for fault in Fault::ALL {
            let mut bench = owner(params(0, false));
            let actions = bench.event(at(2001), Event::Fault(fault, true));
            assert!(
                actions.contains(&Action::SetFence(BootNanos::ZERO)),
                "{fault:?}"
            );
            assert_eq!(bench.node.faults().collect::<Vec<_>>(), [fault]);
            bench.run(at(5000));
            assert_eq!(bench.node.state(), State::Initialize);
            bench.event(at(5001), Event::Fault(fault, false));
            bench.run(at(6000));
            assert_eq!(bench.node.state(), State::Active);
        }
    }

    #[test]
    fn handover_asks_one_node_alone_and_keeps_answering_until_it_speaks() {
        let mut bench = owner(params(0, false));
        bench.event(at(2001), Event::Probe(index(1), Probe::Ready));
        bench.event(at(2001), Event::Probe(index(2), Probe::Ready));
        let actions = bench.event(at(2010), Event::Handover(Some(index(2))));
        let resigned = Action::SendAdvert {
            to: To::One(index(2)),
            priority: PRIORITY_RESIGNED,
        };
        assert!(actions.contains(&resigned));
        assert!(bench.node.fence() > at(2010), "it still answers");
        // To the others it is still there, and to the successor, who is asked again each time,
        // no reason to yield.
        let adverts: Vec<_> = bench
            .run(at(2200))
            .iter()
            .filter_map(|action| match action {
                Action::SendAdvert { to, priority } => Some((*to, *priority)),
                _ => None,
            })
            .collect();
        assert_eq!(adverts, [(To::All, 1), (To::One(index(2)), 0)].repeat(2));
        let actions = bench.advert(at(2210), 2, 190);
        assert!(actions.contains(&Action::Report(Report::HandedOver(index(2)))));
        assert_eq!(bench.node.fence(), BootNanos::ZERO);
        assert_eq!(bench.node.owner(), Some(index(2)));
    }

    /// Delivers what was sent, for that many milliseconds, in batches: a busy node hears several
    /// packets at once. Returns the time after that.
    fn exchange(nodes: &mut [Bench], start: BootNanos, ms: u64, batch: u64) -> BootNanos {
        let mut waiting = vec![];
        let mut now = start;
        for step in 1..=ms {
            now = start.after(Duration::from_millis(step));
            for (from, bench) in nodes.iter_mut().enumerate() {
                // What events have caused, too.
                let mut sent = std::mem::take(&mut bench.out);
                sent.extend(bench.run(now).iter().cloned());
                bench.out.clear();
                waiting.extend(sent.into_iter().map(|action| (from, action)));
            }
            if step % batch != 0 {
                continue;
            }
            for (from, action) in waiting.drain(..) {
                for (node, bench) in nodes.iter_mut().enumerate() {
                    let source = index(from);
                    let mine = |to: To| {
                        node != from && matches!(to, To::All) || to == To::One(index(node))
                    };
                    match &action {
                        Action::SendBfd { to, packet } if *to == index(node) => {
                            let event = Event::Bfd { source, packet };
                            bench.node.on_event(now, event, &mut bench.out);
                        }
                        Action::SendAdvert { to, priority } if mine(*to) => {
                            let kept = std::mem::take(&mut bench.out);
                            let more = bench.advert(now, from, *priority).to_vec();
                            bench.out = [kept, more].concat();
                        }
                        _ => {}
                    }
                }
            }
        }
        now
    }

    #[test]
    fn any_successor_takes_over_though_the_owner_still_speaks() {
        for (to, batch) in [(1, 1), (2, 1), (1, 15), (2, 15)] {
            // A turn takes longer than it takes the owner to speak again.
            let mut nodes = [0, 1, 2].map(|own| {
                let mut params = params(own, true);
                params.vrrp.interval = Centiseconds::new(1).unwrap();
                Bench::new(params)
            });
            let now = exchange(&mut nodes, at(0), 5000, 1);
            let active = |nodes: &[Bench]| -> Vec<usize> {
                let states = nodes.iter().map(|bench| bench.node.state());
                let numbered = states.enumerate();
                numbered
                    .filter(|(_, state)| *state == State::Active)
                    .map(|(node, _)| node)
                    .collect()
            };
            assert_eq!(active(&nodes), [0]);
            let handover = Event::Handover(Some(index(to)));
            let bench = &mut nodes[0];
            bench.node.on_event(now, handover, &mut bench.out);
            exchange(&mut nodes, now, 500, batch);
            assert_eq!(active(&nodes), [to], "in batches of {batch} ms");
        }
    }

    #[test]
    fn an_owner_that_stays_after_all_is_believed() {
        let mut bench = Bench::new(params(1, false));
        bench.advert(at(1), 0, 250);
        bench.advert(at(10), 0, PRIORITY_RESIGNED);
        bench.advert(at(11), 0, 250);
        bench.run(at(300));
        assert_eq!(bench.node.state(), State::Backup);
    }

    #[test]
    fn handover_that_nobody_answers_leaves_the_vip_where_it_is() {
        let mut bench = owner(params(0, false));
        bench.event(at(2001), Event::Probe(index(1), Probe::Ready));
        bench.event(at(2010), Event::Handover(None));
        let actions = bench.run(at(5000));
        let failed = NoHandover::NoAnswer(index(1));
        assert!(actions.contains(&Action::Report(Report::NotHandedOver(failed))));
        assert_eq!(bench.node.state(), State::Active);
        for (to, why) in [
            (Some(index(0)), NoHandover::Own),
            (Some(index(2)), NoHandover::Dead(index(2))),
        ] {
            bench.event(at(5001), Event::Probe(index(2), Probe::Silent));
            let actions = bench.event(at(5002), Event::Handover(to));
            assert!(actions.contains(&Action::Report(Report::NotHandedOver(why))));
        }
    }

    #[test]
    fn owner_that_leaves_answers_until_the_next_one_speaks() {
        let mut bench = owner(params(0, false));
        bench.event(at(2001), Event::Probe(index(1), Probe::Ready));
        let actions = bench.event(at(2010), Event::Shutdown);
        let resigned = Action::SendAdvert {
            to: To::All,
            priority: PRIORITY_RESIGNED,
        };
        assert!(actions.contains(&resigned) && !actions.contains(&Action::Done));
        bench.run(at(2500));
        assert!(bench.node.fence() > at(2500), "nobody else answers yet");
        let actions = bench.advert(at(2510), 1, 220);
        assert!(actions.contains(&Action::Done));
        assert_eq!(bench.node.fence(), BootNanos::ZERO);
        assert!(bench.node.has_left());
    }

    #[test]
    fn stranger_keeps_the_vip_from_being_claimed_and_is_answered_once_in_ten_seconds_later() {
        let stranger = Mac::from_wire([2, 9, 9, 9, 9, 9]);
        let mut bench = Bench::new(Params {
            probe_address: true,
            ..params(0, false)
        });
        for second in 0..5 {
            bench.event(at(second * 1000 + 50), Event::Claim(stranger));
            bench.run(at(second * 1000 + 1000));
            assert_eq!(bench.node.state(), State::Backup, "after {second} s");
        }
        bench.run(at(10_000));
        assert_eq!(bench.node.state(), State::Active);
        let mut defended = 0;
        for second in 0..25 {
            let actions = bench.event(at(20_000 + second * 1000), Event::Claim(stranger));
            defended += usize::from(actions.contains(&Action::Announce));
            bench.run(at(20_000 + second * 1000 + 999));
        }
        assert_eq!(defended, 3);
        assert_eq!(bench.node.state(), State::Active, "a claim moves nothing");
    }

    /// Two nodes whose BFD session is up; what the first one sends after that is lost.
    fn up() -> (Bench, Bench) {
        let mut nodes = [Bench::new(params(0, true)), Bench::new(params(1, true))];
        let mut now = at(0);
        for _ in 0..4000 {
            now = now.after(Duration::from_millis(1));
            for from in 0..2 {
                let sent = nodes[from].run(now).to_vec();
                for action in sent {
                    if let Action::SendBfd { to, packet } = action
                        && to == index(1 - from)
                    {
                        let (source, packet) = (index(from), &packet);
                        let event = Event::Bfd { source, packet };
                        nodes[1 - from].node.on_event(now, event, &mut Vec::new());
                    }
                }
            }
        }
        let [a, b] = nodes;
        assert!(a.node.bfd(index(1)).unwrap().is_up());
        (a, b)
    }

    #[test]
    fn node_gets_nothing_until_its_agent_was_heard() {
        let mut bench = Bench::new(params(1, true));
        bench.event(at(1), Event::Probe(index(0), Probe::Ready));
        let masks = bench.node.masks();
        assert!(!masks.ready.contains(index(0)) && !masks.alive.contains(index(0)));
        let (_, b) = up();
        let masks = b.node.masks();
        assert!(masks.ready.contains(index(0)) && masks.alive.contains(index(0)));
    }

    #[test]
    fn silent_agent_loses_new_connections_at_once_and_open_ones_only_with_its_node() {
        for answers in [true, false] {
            let (_, mut b) = up();
            let silent = at(4000 + 160);
            let echoes = b
                .run(silent)
                .iter()
                .filter(|a| matches!(a, Action::SendEcho(_)));
            assert!(echoes.count() > 0);
            let masks = b.node.masks();
            assert!(!masks.ready.contains(index(0)) && masks.alive.contains(index(0)));
            if answers {
                b.event(at(4170), Event::Echo(index(0)));
            }
            b.run(at(4600));
            let masks = b.node.masks();
            assert_eq!(masks.ready.contains(index(0)), answers);
            assert_eq!(masks.alive.contains(index(0)), answers);
        }
    }

    #[test]
    fn nodes_that_disagree_about_who_is_next_do_not_take_over_at_once() {
        // Neither hears the other, so each takes itself for the next.
        let claims = [1, 2].map(|own| {
            let mut bench = Bench::new(params(own, true));
            bench.advert(at(0), 0, 250);
            bench.advert(at(50), 0, PRIORITY_RESIGNED);
            bench.node.next_claim()
        });
        assert_eq!(claims[1].since(claims[0]), Duration::from_micros(12_500));
    }

    #[test]
    fn packets_to_all_peers_leave_at_the_same_moments() {
        let mut bench = Bench::new(params(0, true));
        bench.run(at(5000));
        let mut moments = 0;
        while bench.node.next_deadline() <= at(60_000) {
            let now = bench.node.next_deadline();
            let actions = bench.run(now);
            let sends = |action: &&Action| matches!(action, Action::SendBfd { .. });
            match actions.iter().filter(sends).count() {
                0 => {}
                packets => {
                    assert_eq!(packets, 2);
                    moments += 1;
                }
            }
        }
        // A second at most: sessions with nobody are slow.
        assert!(moments >= 55, "{moments}");
    }

    #[test]
    fn what_wakes_an_owner_after_its_fence_does_not_move_it_on() {
        let (mut a, b) = up();
        assert_eq!(a.node.state(), State::Active);
        let late = a.node.fence().after(Duration::from_millis(1));
        let session = b.node.bfd(index(0)).unwrap();
        let packet = ControlPacket {
            state: vip_common::wire::bfd::State::Up,
            diagnostic: Diagnostic::None,
            poll: true,
            final_: false,
            control_plane_independent: false,
            demand: false,
            detect_mult: NonZeroU8::new(3).unwrap(),
            my_discriminator: session.local_discriminator(),
            your_discriminator: a.node.bfd(index(1)).unwrap().local_discriminator().get(),
            desired_min_tx: vip_common::wire::bfd::Micros(50_000),
            required_min_rx: vip_common::wire::bfd::Micros(50_000),
            required_min_echo_rx: vip_common::wire::bfd::Micros(0),
        };
        let (source, packet) = (index(1), &packet);
        let actions = a.event(late, Event::Bfd { source, packet });
        assert_eq!(actions[0], Action::SetFence(BootNanos::ZERO));
        assert_eq!(a.node.state(), State::Backup);
    }
}
