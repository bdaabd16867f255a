//! Whole nodes in virtual time: the decision code that the agent runs, driven through crashes,
//! power cuts, freezes, partitions, loss, duplication, reordering, drifting clocks and slow
//! nodes, for thousands of hours in seconds.
//!
//! A run depends on its seed alone. One that violates an invariant prints how to replay it:
//! `VIP_SIM_SEED=<seed> cargo test -p vip-node --test simulation replay -- --nocapture`.
//!
//! `VIP_SIM_DIGESTS=100 cargo test -p vip-node --test simulation digests -- --nocapture`
//! prints a digest of each run: of all actions of its nodes, and their times. A change that only
//! moves or renames code must not change them.
//!
//! Everything is measured in the BFD interval, the *unit*, from 10 ms to 10 s: latencies, pauses
//! and faults scale with it, so that an hour at 10 s a unit holds as much trouble as 18 seconds
//! at 50 ms. Most of the hours are of that kind, since an hour of 10 ms packets takes a minute.
//!
//! Agents exchange hellos. A quarter of the clusters with a list, and half of those without, have a key:
//! BFD is authenticated, and advertisements are sealed.
//!
//! # Invariants
//!
//! 1. A node that takes over on a time-out finds no lease up, neither of an owner that crashed,
//!    hangs or lost its power nor of another successor, as long as nothing was lost or late
//!    between the two.
//! 2. Two nodes that hear each other do not both answer for longer than it takes them to notice.
//! 3. When a majority lives, hears each other and is left alone, it has one owner within a bound,
//!    all of it agrees on who that is, and on who lives. A healthy cluster whose owner dies,
//!    hangs or is paused has another one within six units, or ten without BFD.
//! 4. The owner changes no more often than faults and operators give reason to.
//! 5. No node is taken for away or gone whose kernel runs and can be reached, whatever became of its
//!    agent, and whether or not it answers echo requests. One that was out of reach for less than
//!    `reset_after` is not taken for gone, so that no segment for it is reset.
//! 6. With BFD and without preemption, a living owner does not yield to a node that was cut off.
//!
//! In a cluster without a list (`open.rs`), also:
//!
//! 7. No segment of a connection to a living member is reset.
//! 8. No member gets a SYN that another one does not have in its rank table, unless it does not hear
//!    that one.
//! 9. When all members hear each other and are left alone, each finds each other one confirmed: no
//!    newcomer is kept out.
//! 10. The owner asks the clients of a node that is gone, also those whose connection has ended or is at
//!     another node by now (`nudges.rs`). No answer of a client of a living node is reset (7), and
//!     the clients of a node that lives and can be reached are not asked.
//! 11. When a node of a healthy cluster loses its power and nothing else happens, all its clients have
//!     been reset within a bound.

mod digest;
mod faults;
mod invariants;
mod nudges;
mod nudging;
mod open;
mod rng;
mod world;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vip_common::abi::{BackendIndex, CheckIndex, Masks};
use vip_common::wire::bfd::ControlPacket;
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::{Addresses, Advertisement, Centiseconds};
use vip_node::bfd;
use vip_node::election::{MAX_LEASE, Sealed, State, Trust, default_priority};
use vip_node::health::{Probe, Thresholds};
use vip_node::hello::Hello;
use vip_node::rank::Identity;
use vip_node::slots::Slots;
use vip_node::{
    Action, Fault, Input, Installation, Loss, MAX_SLOWDOWN, Node, OpenCluster, Params, Report, To,
    Tuning, VrrpParams,
};

use digest::Digest;
use nudging::{Counts, Nudging, Stranded};
use rng::Rng;

const SECOND: u64 = 1_000_000_000;

/// `reset_after` in units: as with the default timers.
const RESET_AFTER: u64 = 40;

/// How late a node runs at most, in units: later than a peer waits for its packets.
const MAX_SLOWNESS: u64 = 4;

/// A moment of virtual time, in nanoseconds.
type Time = u64;

/// A packet on its way.
#[derive(Clone)]
enum Message {
    Advert {
        priority: u8,
        interval: Centiseconds,
        sealed: Option<Sealed>,
    },
    Bfd(ControlPacket),
    EchoRequest,
    EchoReply,
    /// ARP, which no firewall limits.
    NeighbourRequest,
    NeighbourReply,
    /// The answer of a host that is no member.
    Witness,
    Hello(Rc<Hello>),
}

/// An event of the simulation.
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
    /// A rank table is written.
    Installed {
        node: usize,
        life: u64,
        installation: Box<Installation>,
    },
    /// A client opens a connection, and others send.
    Traffic,
    /// The timers of a node change.
    Tune,
    /// A node asks clients of nodes that are gone, unless it does so at another time by now.
    Nudges { node: usize, turn: u64 },
    /// If nothing else has happened since that many troubles, all clients of this node, which has lost
    /// its power, have been reset.
    AllTold { of: usize, troubles: u64 },
}

/// Planned events by time. Those of the same time keep the order in which they were planned.
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
    /// The switch forwards again at the port of this node, and at all later ones after it.
    Port(usize),
    /// The API server is ready again.
    Ready(usize),
    /// The node is quick again.
    Quick(usize),
    /// The node answers all echo requests again.
    Echo(usize),
    /// A node that has said good-bye ends.
    Left(usize),
    /// An operator forgets a node that died.
    Forget(usize),
}

/// How a node's firewall deals with echo requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Firewall {
    Open,
    /// One passes in that many units.
    Limit(u64),
    Closed,
}

/// A packet that waits in a socket.
struct Waiting {
    came: Time,
    /// The agent wakes up for it.
    wakes: bool,
    from: usize,
    message: Message,
}

/// A member that was gone for so many units is forgotten.
const FORGET_AFTER: u64 = 3000;

/// What a node's kernel has: its part of the maps.
#[derive(Clone, Default)]
struct Kernel {
    masks: Masks,
    resets_until: BootNanos,
    /// The members in the rank table.
    table: Slots<IpAddr>,
}

/// A connection, known by the client's port.
#[derive(Clone, Copy)]
struct Connection {
    port: u16,
    holder: usize,
}

/// Timers of a node.
#[derive(Clone, Copy, Debug)]
struct Timers {
    /// The BFD interval, and half the advertisement interval, in percent of the unit.
    bfd: u64,
    adverts: u64,
    /// BFD's multiplier.
    multiplier: u8,
}

impl Timers {
    const USUAL: Self = Self {
        bfd: 100,
        adverts: 100,
        multiplier: 3,
    };

    /// Shorter ones, with which all invariants hold as with the usual ones.
    const SHORTER: [Self; 4] = [
        Self::USUAL,
        Self {
            bfd: 60,
            ..Self::USUAL
        },
        Self {
            bfd: 60,
            adverts: 50,
            multiplier: 5,
        },
        Self {
            adverts: 50,
            ..Self::USUAL
        },
    ];

    /// Any.
    const ANY: [Self; 4] = [
        Self::USUAL,
        Self {
            bfd: 1000,
            adverts: 2000,
            multiplier: 2,
        },
        Self {
            bfd: 20,
            adverts: 5000,
            multiplier: 20,
        },
        Self {
            bfd: 300,
            adverts: 50,
            multiplier: 10,
        },
    ];
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
    /// The switch forwards at its port.
    port: bool,
    /// When it last began to.
    port_back: Time,
    /// When it took the VIP over last.
    took_over: Time,
    /// The priority that its agent has told.
    priority: u8,
    /// Advertisements that its agent has sent.
    adverts: u64,
    ready: bool,
    firewall: Firewall,
    /// When an echo request last passed its limit.
    echoed: Time,
    /// Packets in the sockets of an agent that is frozen, or that lets BFD's wait.
    inbox: VecDeque<Waiting>,
    /// The lease in the map, by the machine's own clock.
    answer_until: u64,
    /// The clock: by which part of 2^32 it is fast, and when it began.
    drift: i64,
    booted: Time,
    /// How late everything is done.
    slowness: u64,
    /// Its agent has longer timers for that reason.
    late: bool,
    /// Those in its last advertisements, in nanoseconds.
    intervals: [u64; 5],
    /// When its agent runs next.
    planned: Time,
    /// It is one of the cluster: it was not replaced, and it has not left.
    present: bool,
    /// Its kernel's part: what the agent wrote last.
    kernel: Kernel,
    /// The members on its disk.
    disk: Vec<IpAddr>,
    /// The ports of clients that others believe to be connected to it: also of some that are no more.
    roster: BTreeSet<u16>,
    /// What its agent does for the clients of nodes that are gone.
    nudging: Nudging,
    /// The timers in its configuration.
    timers: Timers,
    /// Counts deadlines and starts, so that outdated ones can be ignored.
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

    /// When the machine's clock will show that time.
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
        self.power && !self.paused && self.clock(now).0 < self.answer_until
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
    /// When something did after a time in which the sender may have become gone.
    back: Time,
    /// The last advertisement that arrived.
    priority: u8,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            cut: false,
            foul: 0,
            last: 0,
            back: 0,
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
    /// There is a host on the segment that is no member.
    witness: bool,
    /// Members come and go: the cluster has no list.
    open: bool,
    /// There is a key: BFD is authenticated, and advertisements are sealed.
    keyed: bool,
    /// A member gets new connections before all others know it: the simulation shows that this is
    /// wrong.
    hasty: bool,
    /// As in the parameters of a node.
    max_slowdown: u32,
    /// Timers that nodes may have, if they change.
    timers: &'static [Timers],
    hours: f64,
}

struct World {
    seed: u64,
    profile: Profile,
    now: Time,
    random: Rng,
    order: u64,
    queue: BinaryHeap<Reverse<Planned>>,
    /// All advertisements, apart from the priority.
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
    /// BFD sessions that went down.
    ends: u64,
    events: u64,
    connections: Vec<Connection>,
    /// Clients whose node has lost its power, and who do not know it.
    stranded: Vec<Stranded>,
    opened: u64,
    walks: u64,
    nudges: Counts,
    /// SYNs to members that another one did not know, where that is expected.
    hasty_syns: u64,
    actions: Vec<Action>,
    trace: bool,
    digest: Digest,
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

/// A run, by its seed alone.
fn profile(seed: u64) -> Profile {
    let mut random = Rng::new(!seed);
    let nodes = [3, 3, 3, 3, 5, 5, 7][random.below(7) as usize];
    let preempt = random.percent(25);
    let bfd = random.percent(85);
    let witness = random.percent(75);
    let keyed = random.percent(25);
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
        witness,
        open: false,
        keyed,
        hasty: false,
        max_slowdown: MAX_SLOWDOWN,
        timers: &[],
        hours,
    }
}

/// What has happened in many runs.
#[derive(Default)]
struct Totals {
    hours: f64,
    troubles: u64,
    takeovers: u64,
    opened: u64,
    walks: u64,
    nudges: Counts,
    events: u64,
}

/// Runs the first seeds on all processors, until so many hours are simulated.
fn run_for(hours: f64, profile: impl Fn(u64) -> Profile + Sync) -> Totals {
    let next = AtomicU64::new(1);
    let totals = std::sync::Mutex::new(Totals::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while totals.lock().expect("no panic").hours < hours {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let profile = profile(seed);
                    let mut world = World::new(seed, profile);
                    world.run();
                    let mut totals = totals.lock().expect("no panic");
                    totals.hours += profile.hours;
                    totals.troubles += world.troubles;
                    totals.takeovers += world.takeovers;
                    totals.opened += world.opened;
                    totals.walks += world.walks;
                    totals.nudges.add(&world.nudges);
                    totals.events += world.events;
                }
            });
        }
    });
    totals.into_inner().expect("no panic")
}

#[test]
fn ten_thousand_hours_keep_all_promises() {
    const HOURS: f64 = 10_000.0;
    let totals = run_for(HOURS, profile);
    let Totals {
        hours,
        troubles,
        takeovers,
        events,
        ..
    } = totals;
    println!("{hours:.0} hours, {troubles} troubles, {takeovers} takeovers, {events} events");
    assert!(hours >= HOURS);
    // A simulation in which nothing happens proves nothing.
    assert!(troubles > 10_000 && takeovers > 1_000);
}

/// How often the VIP moves in a quarter of an hour in which all nodes run late, and nothing else
/// happens.
fn moves_of_late_nodes(seed: u64, max_slowdown: u32, units: u64) -> u64 {
    let unit = 50_000_000;
    let mut world = World::new(
        seed,
        Profile {
            nodes: 3,
            unit,
            preempt: false,
            bfd: true,
            witness: true,
            open: false,
            keyed: false,
            hasty: false,
            max_slowdown,
            timers: &[],
            hours: 0.25,
        },
    );
    let is_trouble = |planned: &Planned| matches!(planned.happening, Happening::Trouble);
    world.queue.retain(|Reverse(planned)| !is_trouble(planned));
    for host in &mut world.hosts {
        host.slowness = units * unit;
    }
    // They do not know each other's lateness at once.
    world.advance(30 * SECOND);
    let before = world.takeovers;
    world.advance(930 * SECOND);
    world.takeovers - before
}

#[test]
fn late_node_keeps_the_vip_because_it_says_so() {
    for units in [2, MAX_SLOWNESS, 8] {
        let moves = |most| [1, 2, 3].map(|seed| moves_of_late_nodes(seed, most, units));
        let (fixed, adapted) = (moves(1), moves(MAX_SLOWDOWN));
        println!(
            "up to {units} units late: {fixed:?} moves with fixed timers, {adapted:?} without"
        );
        assert_eq!(adapted, [0; 3]);
        assert!(fixed.iter().all(|moves| *moves >= 10));
    }
}

#[test]
fn timers_that_change_node_by_node_keep_all_promises() {
    let totals = run_for(300.0, |seed| Profile {
        timers: &Timers::SHORTER,
        ..profile(seed)
    });
    assert!(totals.troubles > 300 && totals.takeovers > 30);
}

#[test]
fn no_timers_move_the_vip_or_end_a_session() {
    for seed in 1..=20 {
        let profile = Profile {
            unit: 50_000_000,
            bfd: seed % 4 > 0,
            timers: &Timers::ANY,
            hours: 0.25,
            ..profile(seed)
        };
        let mut world = World::new(seed, profile);
        let is_trouble = |planned: &Planned| matches!(planned.happening, Happening::Trouble);
        world.queue.retain(|Reverse(planned)| !is_trouble(planned));
        world.advance(900 * SECOND);
        let first = if profile.preempt { profile.nodes } else { 1 };
        let (moves, ends) = (world.takeovers, world.ends);
        assert!(
            moves <= first as u64 && ends == 0,
            "seed {seed}: {moves} takeovers, {ends} sessions ended"
        );
    }
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

/// The digests of the runs with the first seeds: as many as `VIP_SIM_DIGESTS` says, or one, twice.
#[test]
fn digests() {
    let digest = |seed| {
        let mut world = World::new(seed, profile(seed));
        world.run();
        world.digest.text()
    };
    let Ok(count) = std::env::var("VIP_SIM_DIGESTS") else {
        assert_eq!(digest(1), digest(1), "a run is made by its seed alone");
        return;
    };
    let count: u64 = count.parse().expect("VIP_SIM_DIGESTS is a number");
    let next = AtomicU64::new(1);
    let found = std::sync::Mutex::new(std::collections::BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > count {
                        return;
                    }
                    let digest = digest(seed);
                    found.lock().expect("no panic").insert(seed, digest);
                }
            });
        }
    });
    for (seed, digest) in found.into_inner().expect("no panic") {
        println!("seed {seed} {digest}");
    }
}
