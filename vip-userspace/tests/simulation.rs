//! Whole nodes in virtual time: the decision code that the agent runs, driven through crashes,
//! power cuts, freezes, partitions, loss, duplication, reordering, drifting clocks and slow
//! nodes, for thousands of hours in seconds.
//!
//! A run is made by its seed alone. One that breaks a promise prints how to replay it:
//! `VIP_SIM_SEED=<seed> cargo test -p vip-userspace --test simulation replay -- --nocapture`.
//!
//! Everything is measured in the BFD interval, the *unit*, from 10 ms to 10 s: latencies, pauses
//! and faults scale with it, so that an hour at 10 s a unit holds as much trouble as 18 seconds
//! at 50 ms. Most of the hours are of that kind, since an hour of 10 ms packets takes a minute.
//!
//! # What is promised
//!
//! 1. A node that takes over on a time-out finds no fence up, neither of an owner that crashed,
//!    hangs or lost its power nor of another successor, as long as nothing was lost or late
//!    between the two.
//! 2. Two nodes that hear each other do not both answer for longer than it takes them to notice.
//! 3. When a majority lives, hears each other and is left alone, it has one owner within a bound,
//!    all of it agrees on who that is, and on who lives. A healthy cluster whose owner dies,
//!    hangs or is paused has another one within six units, or ten without BFD.
//! 4. The owner changes no more often than faults and operators give reason to.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vip_common::layout::{BackendIndex, BootNanos, Masks};
use vip_common::wire::bfd::ControlPacket;
use vip_common::wire::vrrp::{Addresses, Advertisement, Centiseconds};
use vip_userspace::config::Config;
use vip_userspace::decide::bfd;
use vip_userspace::decide::health::{Probe, Thresholds};
use vip_userspace::decide::node::{
    Action, Event, Fault, Member, Node, Params, Report, To, VrrpParams,
};
use vip_userspace::decide::vrrp::State;

const SECOND: u64 = 1_000_000_000;

/// A moment of virtual time, in nanoseconds.
type Time = u64;

/// Small and fast; the same everywhere (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..4 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What travels.
#[derive(Clone, Copy)]
enum Message {
    /// An advertisement with this priority.
    Advert(u8),
    Bfd(ControlPacket),
    EchoRequest,
    EchoReply,
}

/// What is to happen.
enum Happening {
    /// A message arrives.
    Arrival {
        from: usize,
        to: usize,
        message: Message,
    },
    /// A node's deadline, unless it has another one by now.
    Deadline { node: usize, turn: u64 },
    /// A node looks at all API servers.
    Probes { node: usize, life: u64 },
    /// The next piece of trouble.
    Trouble,
    /// If nothing else has happened since that many troubles, there must be another owner.
    Successor { of: usize, troubles: u64 },
    /// The end of one.
    Relief(Relief),
}

/// What happens when; what was planned first comes first.
struct Planned {
    time: Time,
    order: u64,
    happening: Happening,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.order).cmp(&(other.time, other.order))
    }
}

/// How a piece of trouble ends.
#[derive(Clone, Copy)]
enum Relief {
    /// Power comes back, and with it the agent.
    Boot(usize),
    /// The agent starts again.
    Restart(usize),
    /// The agent runs again.
    Thaw(usize),
    /// The machine runs again.
    Resume(usize),
    /// A cable is mended.
    Mend(usize, usize),
    /// Nothing is lost, doubled or late any more.
    Calm,
    /// The NIC has its carrier again.
    Carrier(usize),
    /// The API server is ready again.
    Ready(usize),
    /// The node is quick again.
    Quick(usize),
}

/// A machine.
struct Host {
    /// `None` without power, or between two agents.
    agent: Option<Node>,
    power: bool,
    /// The whole machine stands still, as a virtual one may.
    paused: bool,
    /// The agent stands still.
    frozen: bool,
    carrier: bool,
    ready: bool,
    /// What waits in the sockets of a frozen agent.
    inbox: VecDeque<(usize, Message)>,
    /// What lies in the map: by the machine's own clock.
    fence: u64,
    /// The clock: by which part of 2^32 it is fast, and when it began.
    drift: i64,
    booted: Time,
    /// How late everything is done.
    slowness: u64,
    /// Counts deadlines and starts, so that old ones are told from new ones.
    turn: u64,
    life: u64,
}

impl Host {
    fn clock(&self, now: Time) -> BootNanos {
        let passed = now - self.booted;
        BootNanos(SECOND + passed.wrapping_add_signed(self.wrong(passed)))
    }

    /// By how much the clock is ahead after so long.
    fn wrong(&self, passed: u64) -> i64 {
        ((i128::from(passed) * i128::from(self.drift)) >> 32) as i64
    }

    /// When the clock will say that.
    fn when(&self, clock: BootNanos) -> Time {
        let shown = clock.0.saturating_sub(SECOND);
        let mut passed = shown;
        // Each round is some thousand times closer.
        for _ in 0..4 {
            passed = shown.saturating_add_signed(-self.wrong(passed));
        }
        while self.clock(self.booted + passed) < clock {
            passed += 1;
        }
        self.booted + passed
    }

    fn runs(&self) -> bool {
        self.agent.is_some() && self.power && !self.paused && !self.frozen
    }

    /// Whether the kernel answers for the VIP.
    fn answers(&self, now: Time) -> bool {
        self.power && !self.paused && self.clock(now).0 < self.fence
    }
}

/// A direction of a cable.
#[derive(Clone, Copy)]
struct Wire {
    cut: bool,
    /// When something was last lost on it, or could have been.
    foul: Time,
    /// When something of an agent last arrived.
    last: Time,
    /// The last advertisement that arrived.
    priority: u8,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            cut: false,
            foul: 0,
            last: 0,
            priority: u8::MAX,
        }
    }
}

/// How a run goes.
#[derive(Clone, Copy)]
struct Profile {
    nodes: usize,
    /// The BFD interval in nanoseconds.
    unit: u64,
    preempt: bool,
    /// Without it there are only advertisements and probes.
    bfd: bool,
    hours: f64,
}

struct World {
    seed: u64,
    profile: Profile,
    now: Time,
    random: Random,
    order: u64,
    queue: BinaryHeap<Reverse<Planned>>,
    /// What every advertisement says, its priority aside.
    advert: Advertisement,
    hosts: Vec<Host>,
    wires: Vec<Vec<Wire>>,
    /// Percent of packets that are lost and doubled, and the longest delay in nanoseconds.
    loss: u64,
    doubling: u64,
    latency: u64,
    /// Since when two nodes answer that hear each other.
    overlap: Vec<Vec<Option<Time>>>,
    /// When trouble last began or ended.
    troubled: Time,
    /// When packets or a node were last late.
    disturbed: Time,
    troubles: u64,
    takeovers: u64,
    events: u64,
    actions: Vec<Action>,
    trace: bool,
}

fn backend(index: usize) -> BackendIndex {
    BackendIndex::new(index).expect("few nodes")
}

/// The advertisement interval: two units, in whole centiseconds.
fn interval(unit: u64) -> Centiseconds {
    Centiseconds::from_duration(Duration::from_nanos(2 * unit)).expect("whole centiseconds")
}

fn address(index: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, 11 + index as u8])
}

impl World {
    fn new(seed: u64, profile: Profile) -> Self {
        let mut random = Random::new(seed);
        let count = profile.nodes;
        let hosts = (0..count).map(|_| Host {
            agent: None,
            power: true,
            paused: false,
            frozen: false,
            carrier: true,
            ready: true,
            inbox: VecDeque::new(),
            fence: 0,
            // Up to 200 ppm either way, a few times what a crystal may be off.
            drift: random.below(2 * 858_993) as i64 - 858_993,
            booted: 0,
            slowness: 0,
            turn: 0,
            life: 0,
        });
        let hosts = hosts.collect();
        let mut world = Self {
            seed,
            profile,
            now: 0,
            random,
            order: 0,
            queue: BinaryHeap::new(),
            advert: Advertisement {
                router_id: 10,
                priority: 0,
                interval: interval(profile.unit),
                addresses: Addresses::new(&[IpAddr::from([10, 0, 0, 10])]).expect("one"),
            },
            hosts,
            wires: vec![vec![Wire::default(); count]; count],
            loss: 0,
            doubling: 0,
            latency: profile.unit / 50,
            overlap: vec![vec![None; count]; count],
            troubled: 0,
            disturbed: 0,
            troubles: 0,
            takeovers: 0,
            events: 0,
            actions: Vec::new(),
            trace: std::env::var_os("VIP_SIM_TRACE").is_some(),
        };
        for node in 0..count {
            let spread = world.random.below(profile.unit);
            world.at(spread, Happening::Relief(Relief::Restart(node)));
        }
        world.at(world.calm(), Happening::Trouble);
        world
    }

    fn unit(&self) -> u64 {
        self.profile.unit
    }

    /// After this long without trouble everything must have settled: peers are found dead in 3
    /// units and some, doubted ones in 4 more; an election takes 4 intervals of 2 units; a BFD
    /// session comes up within 3 packets of at least a second each; probes find what they find.
    fn calm(&self) -> u64 {
        60 * self.unit() + 25 * SECOND
    }

    fn at(&mut self, time: Time, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Planned {
            time,
            order: self.order,
            happening,
        }));
    }

    fn within(&mut self, low: u64, high: u64) -> Time {
        self.now + self.random.between(low * self.unit(), high * self.unit())
    }

    fn fail(&self, what: &str) -> ! {
        let hosts: Vec<String> = (0..self.hosts.len())
            .map(|node| {
                let host = &self.hosts[node];
                let state = host.agent.as_ref().map(|agent| {
                    let owner = agent.owner().map(BackendIndex::get);
                    (agent.state(), agent.priority(), owner, agent.masks())
                });
                format!(
                    "{node}: power {} paused {} frozen {} carrier {} ready {} answers {} {state:?}",
                    host.power,
                    host.paused,
                    host.frozen,
                    host.carrier,
                    host.ready,
                    host.answers(self.now)
                )
            })
            .collect();
        panic!(
            "{what}, at {:.3} units\n{}\nreplay: VIP_SIM_SEED={} cargo test -p vip-userspace \
             --test simulation replay -- --nocapture (VIP_SIM_TRACE=1 shows all that happens)",
            self.now as f64 / self.unit() as f64,
            hosts.join("\n"),
            self.seed
        );
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:12.3} {}", self.now as f64 / self.unit() as f64, what());
        }
    }

    fn run(&mut self) {
        let end = (self.profile.hours * 3600.0) as u64 * SECOND;
        while let Some(Reverse(planned)) = self.queue.pop() {
            let Planned {
                time, happening, ..
            } = planned;
            if time > end {
                break;
            }
            self.now = self.now.max(time);
            self.events += 1;
            match happening {
                Happening::Arrival { from, to, message } => self.arrive(from, to, message),
                Happening::Deadline { node, turn } => {
                    if self.hosts[node].turn == turn {
                        self.wake(node);
                    }
                }
                Happening::Probes { node, life } => self.probe(node, life),
                Happening::Trouble => self.trouble(),
                Happening::Successor { of, troubles } => {
                    let follows = |node: usize| node != of && self.hosts[node].answers(self.now);
                    if self.troubles == troubles && !(0..self.hosts.len()).any(follows) {
                        self.fail(&format!("nobody followed node {of} in time"));
                    }
                }
                Happening::Relief(relief) => self.relieve(relief),
            }
            self.watch();
        }
        // Promise 4: a piece of trouble moves the VIP away and perhaps back, in both parts of a
        // cluster that falls apart.
        let reasons = self.troubles * 3 + 10;
        if self.takeovers > reasons {
            self.fail(&format!(
                "{} takeovers for {} troubles",
                self.takeovers, self.troubles
            ));
        }
    }

    /// Drives an agent and carries out what it says.
    fn drive(&mut self, node: usize, drive: impl FnOnce(&mut Node, BootNanos, &mut Vec<Action>)) {
        let now = self.now;
        let host = &mut self.hosts[node];
        let local = host.clock(now);
        let Some(agent) = &mut host.agent else { return };
        let mut actions = std::mem::take(&mut self.actions);
        drive(agent, local, &mut actions);
        for action in actions.drain(..) {
            self.carry_out(node, action);
        }
        self.actions = actions;
        self.plan_wake(node);
    }

    fn plan_wake(&mut self, node: usize) {
        let now = self.now;
        let host = &mut self.hosts[node];
        let Some(agent) = &host.agent else { return };
        if agent.has_left() {
            host.agent = None;
            return;
        }
        let deadline = agent.next_deadline();
        host.turn += 1;
        if deadline.0 == u64::MAX {
            return;
        }
        let turn = host.turn;
        let slowness = host.slowness;
        let when = host.when(deadline).max(now);
        let late = if slowness == 0 {
            self.random.below(self.unit() / 500)
        } else {
            self.random.below(slowness)
        };
        self.at(when + late, Happening::Deadline { node, turn });
    }

    fn carry_out(&mut self, node: usize, action: Action) {
        match action {
            Action::SetFence(until) => {
                self.hosts[node].fence = until.0;
            }
            Action::SendAdvert { to, priority } => {
                for index in 0..self.hosts.len() {
                    if to == To::All || to == To::One(backend(index)) {
                        self.send(node, index, Message::Advert(priority));
                    }
                }
            }
            Action::SendBfd { to, packet } => self.send(node, to.get(), Message::Bfd(packet)),
            Action::SendEcho(to) => self.send(node, to.get(), Message::EchoRequest),
            Action::Report(report) => self.hear(node, &report),
            Action::SetMasks(_) | Action::Announce | Action::ProbeAddress | Action::Done => {}
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if from == to || !self.hosts[from].carrier {
            return;
        }
        let copies = 1 + u64::from(self.random.percent(self.doubling));
        for _ in 0..copies {
            if self.wires[from][to].cut || self.random.percent(self.loss) {
                self.wires[from][to].foul = self.now;
                continue;
            }
            // Now and then one takes longer, and others overtake it.
            let delay = self.random.between(self.unit() / 1000, self.latency);
            self.at(self.now + delay, Happening::Arrival { from, to, message });
        }
    }

    fn arrive(&mut self, from: usize, to: usize, message: Message) {
        let now = self.now;
        let host = &mut self.hosts[to];
        if !host.power || host.paused || !host.carrier || self.wires[from][to].cut {
            self.wires[from][to].foul = now;
            return;
        }
        // The kernel answers, whatever the agent does.
        if matches!(message, Message::EchoRequest) {
            self.send(to, from, Message::EchoReply);
            return;
        }
        if host.agent.is_none() {
            return;
        }
        // A slow node finds several at once.
        if host.frozen || host.slowness > 0 && !host.inbox.is_empty() {
            // A socket buffer: what does not fit is lost, the newest first.
            if host.inbox.len() < 500 {
                host.inbox.push_back((from, message));
            } else {
                self.wires[from][to].foul = now;
            }
            return;
        }
        if host.slowness > 0 {
            host.inbox.push_back((from, message));
            host.turn += 1;
            let turn = host.turn;
            let late = self.random.below(self.hosts[to].slowness);
            self.at(now + late, Happening::Deadline { node: to, turn });
            return;
        }
        self.take(from, to, message);
        self.after_messages(to);
    }

    fn take(&mut self, from: usize, to: usize, message: Message) {
        let source = backend(from);
        let wire = &mut self.wires[from][to];
        wire.last = self.now;
        if let Message::Advert(priority) = message {
            wire.priority = priority;
            let advert = Advertisement {
                priority,
                ..self.advert
            };
            let advert = &advert;
            self.drive(to, |agent, now, out| {
                agent.on_event(now, Event::Advert { source, advert }, out);
            });
            return;
        }
        self.drive(to, |agent, now, out| match &message {
            Message::Bfd(packet) => agent.on_event(now, Event::Bfd { source, packet }, out),
            Message::EchoReply => agent.on_event(now, Event::Echo(source), out),
            Message::Advert(_) | Message::EchoRequest => {}
        });
    }

    /// As the agent's thread does it: first what waits, then the clock.
    fn wake(&mut self, node: usize) {
        if !self.hosts[node].runs() {
            return;
        }
        while let Some((from, message)) = self.hosts[node].inbox.pop_front() {
            self.take(from, node, message);
        }
        self.after_messages(node);
        self.plan_wake(node);
    }

    fn after_messages(&mut self, node: usize) {
        let due = |host: &Host, now| {
            host.agent
                .as_ref()
                .is_some_and(|agent| agent.next_deadline() <= host.clock(now))
        };
        if due(&self.hosts[node], self.now) {
            self.drive(node, |agent, now, out| agent.on_timer(now, out));
        }
    }

    fn start(&mut self, node: usize) {
        let count = self.hosts.len();
        let unit = self.unit();
        let interval = interval(unit);
        let preempt = self.profile.preempt;
        let seed = self.random.next();
        let host = &mut self.hosts[node];
        host.life += 1;
        host.inbox.clear();
        host.frozen = false;
        let params = Params {
            own: backend(node),
            nodes: (0..count)
                .map(|index| Member {
                    address: address(index),
                    priority: Config::node_priority(index),
                })
                .collect(),
            vrrp: VrrpParams {
                interval,
                preempt,
                preempt_delay: Duration::ZERO,
            },
            bfd: self.profile.bfd.then(|| bfd::Params {
                detect_mult: NonZeroU8::new(3).expect("is not 0"),
                interval: Duration::from_nanos(unit),
            }),
            checks: 1,
            thresholds: Thresholds { rise: 2, fall: 2 },
            probe_address: true,
            seed,
        };
        host.agent = Some(Node::new(params));
        let (fence, carrier, life) = (BootNanos(host.fence), host.carrier, host.life);
        self.drive(node, |agent, now, out| {
            if !carrier {
                agent.on_event(now, Event::Fault(Fault::Carrier, true), out);
            }
            agent.on_start(now, fence, Masks::default(), out);
        });
        self.at(self.now + 1, Happening::Probes { node, life });
    }

    /// An agent probes the API servers. Only what differs from what it believes is told (and
    /// that twice, which is what it takes), to save time.
    fn probe(&mut self, node: usize, life: u64) {
        if self.hosts[node].life != life || self.hosts[node].agent.is_none() {
            return;
        }
        let next = self.within(4, 6);
        self.at(next, Happening::Probes { node, life });
        if !self.hosts[node].runs() {
            return;
        }
        for index in 0..self.hosts.len() {
            let there = &self.hosts[index];
            let reached = index == node
                || there.power
                    && !there.paused
                    && there.carrier
                    && self.hosts[node].carrier
                    && !self.wires[node][index].cut
                    && !self.wires[index][node].cut;
            let found = match (reached, there.ready) {
                (false, _) => Probe::Silent,
                (true, true) => Probe::Ready,
                (true, false) => Probe::NotReady(String::new()),
            };
            self.drive(node, |agent, now, out| {
                agent.on_event(now, Event::Probe(backend(index), 0, found), out);
            });
        }
    }

    /// What an agent reports.
    fn hear(&mut self, node: usize, report: &Report) {
        self.say(|| format!("node {node}: {report:?}"));
        if !matches!(report, Report::Active(_)) {
            return;
        }
        self.takeovers += 1;
        // Promise 1.
        let window = 12 * self.unit();
        let late = self.latency > self.unit() / 50 || self.hosts.iter().any(|h| h.slowness > 0);
        // Asked to take over, or better than an owner that said so itself.
        let priority = self.priority(node);
        let by_right = (0..self.hosts.len())
            .any(|other| other != node && self.wires[other][node].priority < priority);
        if late || self.loss > 0 || by_right {
            return;
        }
        for other in 0..self.hosts.len() {
            if other == node || !self.hosts[other].answers(self.now) {
                continue;
            }
            let clean = |from: usize, to: usize| {
                let foul = self.wires[from][to].foul.max(self.disturbed);
                !self.wires[from][to].cut && (foul == 0 || self.now - foul > window)
            };
            // A node that has just come may not know the others yet.
            let session = self.hosts[node]
                .agent
                .as_ref()
                .and_then(|agent| agent.bfd(backend(other)));
            let knows = !self.hosts[other].runs() || session.is_some_and(bfd::Session::is_up);
            if clean(other, node) && clean(node, other) && knows {
                self.fail(&format!(
                    "node {node} took over while the fence of node {other} was up"
                ));
            }
        }
    }

    fn priority(&self, node: usize) -> u8 {
        self.hosts[node].agent.as_ref().map_or(0, Node::priority)
    }

    fn hear_each_other(&self, a: usize, b: usize) -> bool {
        let fine = |node: usize| self.hosts[node].runs() && self.hosts[node].carrier;
        let clean = |from: usize, to: usize| !self.wires[from][to].cut;
        fine(a) && fine(b) && clean(a, b) && clean(b, a) && self.loss == 0
    }

    /// Promise 2.
    fn watch(&mut self) {
        // An owner advertises every interval, and acts on what it hears within its slowness.
        let slowness: u64 = self
            .hosts
            .iter()
            .map(|host| host.slowness)
            .max()
            .unwrap_or(0);
        let limit = 2 * 2 * self.unit() + 4 * self.latency + 4 * slowness;
        for a in 0..self.hosts.len() {
            if !self.hosts[a].answers(self.now) {
                for b in 0..self.hosts.len() {
                    self.overlap[a][b] = None;
                }
                continue;
            }
            for b in a + 1..self.hosts.len() {
                if !self.hosts[b].answers(self.now) || !self.hear_each_other(a, b) {
                    self.overlap[a][b] = None;
                    continue;
                }
                let since = *self.overlap[a][b].get_or_insert(self.now);
                if self.now - since > limit {
                    self.fail(&format!(
                        "nodes {a} and {b} both answer, and hear each other"
                    ));
                }
            }
        }
    }

    /// Promise 3.
    fn settled(&self) {
        if self.now - self.troubled < self.calm() || self.loss > 0 {
            return;
        }
        let group: Vec<usize> = (0..self.hosts.len())
            .filter(|&node| {
                let host = &self.hosts[node];
                host.runs() && host.carrier && host.slowness == 0
            })
            .collect();
        let connected = group
            .iter()
            .all(|&a| group.iter().all(|&b| a == b || self.hear_each_other(a, b)));
        if group.len() * 2 <= self.hosts.len() || !connected {
            return;
        }
        let owners: Vec<usize> = group
            .iter()
            .copied()
            .filter(|&node| self.hosts[node].answers(self.now))
            .collect();
        let [owner] = owners[..] else {
            self.fail(&format!("the majority {group:?} has the owners {owners:?}"));
        };
        for &node in &group {
            let agent = self.hosts[node].agent.as_ref().expect("runs");
            if (agent.state() == State::Active) != (node == owner) {
                self.fail(&format!("node {node} is {:?}", agent.state()));
            }
            for &other in &group {
                if !agent.masks().alive.contains(backend(other)) {
                    self.fail(&format!("node {node} takes node {other} for dead"));
                }
            }
            for other in 0..self.hosts.len() {
                let dead = !self.hosts[other].power || self.hosts[other].paused;
                if dead && agent.masks().alive.contains(backend(other)) {
                    self.fail(&format!("node {node} takes node {other} for alive"));
                }
            }
        }
    }

    fn trouble(&mut self) {
        self.settled();
        let healthy = self.now - self.troubled >= self.calm()
            && self.loss == 0
            && (0..self.hosts.len()).all(|node| {
                let host = &self.hosts[node];
                host.runs() && host.carrier && host.slowness == 0
            })
            && self.wires.iter().flatten().all(|wire| !wire.cut);
        self.troubles += 1;
        self.troubled = self.now;
        let node = self.random.below(self.hosts.len() as u64) as usize;
        // Half of the time at the owner: that is where it hurts.
        let owner = (0..self.hosts.len()).find(|&node| self.hosts[node].answers(self.now));
        let node = owner.filter(|_| self.random.percent(50)).unwrap_or(node);
        let soon = self.within(11, 40);
        let kind = self.random.below(14);
        self.say(|| format!("trouble {kind} at node {node}"));
        if healthy && kind < 4 && owner == Some(node) {
            let (of, troubles) = (node, self.troubles);
            self.at(
                self.now + if self.profile.bfd { 6 } else { 10 } * self.unit(),
                Happening::Successor { of, troubles },
            );
        }
        let relief = match kind {
            0 => {
                self.hosts[node].agent = None;
                Relief::Restart(node)
            }
            1 => {
                let host = &mut self.hosts[node];
                host.agent = None;
                host.power = false;
                host.fence = 0;
                Relief::Boot(node)
            }
            2 => {
                self.hosts[node].frozen = true;
                Relief::Thaw(node)
            }
            3 => {
                self.hosts[node].paused = true;
                Relief::Resume(node)
            }
            4 | 5 => {
                let to = self.random.below(self.hosts.len() as u64) as usize;
                self.wires[node][to].cut = true;
                if self.random.percent(50) {
                    self.wires[to][node].cut = true;
                }
                Relief::Mend(node, to)
            }
            6 => {
                self.loss = self.random.between(1, 40);
                Relief::Calm
            }
            7 => {
                self.doubling = self.random.between(1, 50);
                self.latency = self.random.between(self.unit() / 50, self.unit() / 4);
                self.disturbed = self.now;
                Relief::Calm
            }
            8 => {
                self.hosts[node].carrier = false;
                self.drive(node, |agent, now, out| {
                    agent.on_event(now, Event::Fault(Fault::Carrier, true), out);
                });
                Relief::Carrier(node)
            }
            9 => {
                self.hosts[node].ready = false;
                Relief::Ready(node)
            }
            10 => {
                self.hosts[node].slowness = self.random.between(1, self.unit() / 2);
                self.disturbed = self.now;
                Relief::Quick(node)
            }
            11 if self.hosts[node].runs() => {
                let to = self.random.below(self.hosts.len() as u64) as usize;
                let to = self.random.percent(50).then(|| backend(to));
                self.drive(node, |agent, now, out| {
                    agent.on_event(now, Event::Handover(to), out);
                });
                Relief::Calm
            }
            12 if self.hosts[node].runs() => {
                self.drive(node, |agent, now, out| {
                    agent.on_event(now, Event::Shutdown, out);
                });
                Relief::Restart(node)
            }
            _ => Relief::Calm,
        };
        self.at(soon, Happening::Relief(relief));
        // Often the next comes on top of it.
        let next = if self.random.percent(40) {
            self.within(1, 20)
        } else {
            soon + self.calm() + self.random.below(20 * self.unit())
        };
        self.at(next, Happening::Trouble);
    }

    fn relieve(&mut self, relief: Relief) {
        self.troubled = self.now;
        match relief {
            Relief::Boot(node) => {
                let host = &mut self.hosts[node];
                if !host.power {
                    host.power = true;
                    host.booted = self.now;
                    host.fence = 0;
                    self.start(node);
                }
            }
            Relief::Restart(node) => {
                if self.hosts[node].power && self.hosts[node].agent.is_none() {
                    self.start(node);
                }
            }
            Relief::Thaw(node) => {
                self.hosts[node].frozen = false;
                self.wake(node);
            }
            Relief::Resume(node) => {
                self.hosts[node].paused = false;
                self.wake(node);
            }
            Relief::Mend(a, b) => {
                self.wires[a][b].cut = false;
                self.wires[b][a].cut = false;
                self.wires[a][b].foul = self.now;
                self.wires[b][a].foul = self.now;
            }
            Relief::Calm => {
                self.disturbed = self.now;
                self.loss = 0;
                self.doubling = 0;
                self.latency = self.unit() / 50;
            }
            Relief::Carrier(node) => {
                self.hosts[node].carrier = true;
                if self.hosts[node].runs() {
                    self.drive(node, |agent, now, out| {
                        agent.on_event(now, Event::Fault(Fault::Carrier, false), out);
                    });
                }
            }
            Relief::Ready(node) => self.hosts[node].ready = true,
            Relief::Quick(node) => {
                self.disturbed = self.now;
                self.hosts[node].slowness = 0;
                self.wake(node);
            }
        }
    }
}

/// A run, by its seed alone.
fn profile(seed: u64) -> Profile {
    let mut random = Random::new(!seed);
    let nodes = [3, 3, 3, 3, 5, 5, 7][random.below(7) as usize];
    let preempt = random.percent(25);
    let bfd = random.percent(85);
    let (unit, hours) = match seed % 20 {
        0 => (10_000_000, 0.05),
        1 => (50_000_000, 0.25),
        2 => (1_000_000_000, 5.0),
        _ => (10_000_000_000, 50.0),
    };
    Profile {
        nodes,
        unit,
        preempt,
        bfd,
        hours,
    }
}

#[test]
fn ten_thousand_hours_keep_all_promises() {
    const HOURS: f64 = 10_000.0;
    let next = AtomicU64::new(1);
    let totals = std::sync::Mutex::new((0.0, 0, 0, 0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    if totals.lock().expect("no panic").0 >= HOURS {
                        return;
                    }
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let profile = profile(seed);
                    let mut world = World::new(seed, profile);
                    world.run();
                    let mut totals = totals.lock().expect("no panic");
                    totals.0 += profile.hours;
                    totals.1 += world.troubles;
                    totals.2 += world.takeovers;
                    totals.3 += world.events;
                }
            });
        }
    });
    let (hours, troubles, takeovers, events) = totals.into_inner().expect("no panic");
    println!("{hours:.0} hours, {troubles} troubles, {takeovers} takeovers, {events} events");
    assert!(hours >= HOURS);
    // A simulation in which nothing happens proves nothing.
    assert!(troubles > 10_000 && takeovers > 1_000);
}

#[test]
fn replay() {
    let Some(seed) = std::env::var("VIP_SIM_SEED").ok() else {
        // Nothing to replay: the first run that the other test makes.
        World::new(1, profile(1)).run();
        return;
    };
    let seed = seed.parse().expect("VIP_SIM_SEED is a number");
    World::new(seed, profile(seed)).run();
}
