//! Clusters without a list: members come, leave, are replaced and forgotten; and connections, whose
//! segments the packet path decides about.

use std::hash::Hasher as _;

use bytemuck::Zeroable as _;
use siphasher::sip::SipHasher13;
use vip_common::abi::{BackendMask, Counter, MAX_CHECKS, NOT_A_BACKEND, RankRow, State as Tables};
use vip_common::env::Socket;
use vip_common::testing::{self, NOW, ROWS, Segment, node_mac};
use vip_common::verdict::Kind;
use vip_common::wire::addr::Mac;
use vip_common::wire::tcp;

use super::*;

/// Connections that are kept.
const CONNECTIONS: usize = 60;

/// What a segment is for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// Each node has one, if its server is ready.
    Listener,
    /// A connection that this node has.
    ConnectionOf(usize),
    /// A connection that no node has.
    Lost,
}

/// Where a walk ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Kept(usize),
    Dropped,
    /// By the stack of this node.
    Reset(usize),
}

impl World {
    /// The first members of an open cluster: one, or a few at once.
    pub(super) fn found(&mut self) {
        let first = self.random.between(1, 3) as usize;
        for host in self.hosts.iter_mut().take(first) {
            host.present = true;
        }
        for host in self.hosts.iter_mut().skip(first) {
            host.power = false;
        }
        self.at(self.calm(), Happening::Traffic);
    }

    /// The members that an agent starts with.
    pub(super) fn members_at_start(&self, node: usize) -> Vec<IpAddr> {
        if !self.profile.open {
            return (0..self.hosts.len()).map(address).collect();
        }
        let host = &self.hosts[node];
        // Those of the maps keep their slots.
        let table: Vec<IpAddr> = host.kernel.table.values().copied().collect();
        let mut members = if table.is_empty() {
            host.disk.clone()
        } else {
            table
        };
        if !members.contains(&address(node)) {
            members.push(address(node));
        }
        members
    }

    /// What an agent finds in the maps. One that starts with other slots knows nothing.
    pub(super) fn masks_at_start(&mut self, node: usize) -> Masks {
        if !self.profile.open {
            return Masks::default();
        }
        let members = self.members_at_start(node);
        let kernel = &mut self.hosts[node].kernel;
        let was_there = !kernel.table.is_empty();
        let slots: Slots<IpAddr> = members.into_iter().collect();
        let same = kernel.table == slots && kernel.masks.no_forward.is_empty();
        kernel.table = slots;
        if was_there && same {
            kernel.masks
        } else {
            kernel.masks = Masks::default();
            Masks::default()
        }
    }

    /// The Ethernet addresses of all members are known.
    pub(super) fn locate(&mut self, node: usize) {
        let agent = self.hosts[node].agent.as_ref();
        let slots = agent.map_or(BackendMask::EMPTY, |agent| agent.members().mask());
        self.drive(node, |agent, now, out| {
            for slot in slots.iter() {
                agent.on_input(now, Input::Located(slot), out);
            }
        });
    }

    /// The members that an agent knows, this node not among them, and their hosts.
    pub(super) fn members(&self, node: usize) -> Vec<(BackendIndex, usize)> {
        let Some(agent) = &self.hosts[node].agent else {
            return Vec::new();
        };
        let members = agent.members();
        let hosts = members.iter();
        hosts
            .map(|(slot, address)| (slot, place(*address)))
            .collect()
    }

    /// The slot in which an agent has a host.
    pub(super) fn slot(&self, node: usize, other: usize) -> Option<BackendIndex> {
        self.hosts[node].agent.as_ref()?.slot(address(other))
    }

    /// The host that an agent has in a slot.
    pub(super) fn host(&self, node: usize, slot: BackendIndex) -> usize {
        let members = self.members(node);
        let found = members.iter().find(|(other, _)| *other == slot);
        found.map(|(_, host)| *host).expect("a member")
    }

    pub(super) fn send_to(&mut self, node: usize, slot: BackendIndex, message: Message) {
        let members = self.members(node);
        if let Some((_, to)) = members.iter().find(|(other, _)| *other == slot) {
            self.send(node, *to, message);
        }
    }

    /// A rank table is in use.
    pub(super) fn installed(&mut self, node: usize, life: u64, installation: &Installation) {
        let host = &mut self.hosts[node];
        if host.life != life || !host.power {
            return;
        }
        host.kernel.table = installation.members.map(|_, identity| identity.address);
        host.disk = host.kernel.table.values().copied().collect();
        let number = installation.number;
        self.drive(node, |agent, now, out| {
            agent.on_input(now, Input::Installed(number), out);
        });
    }

    /// A host comes to the cluster, or leaves it, or is replaced.
    pub(super) fn come_or_go(&mut self, node: usize) -> Relief {
        let absent: Vec<usize> = (0..self.hosts.len())
            .filter(|&node| !self.hosts[node].present && !self.hosts[node].power)
            .collect();
        let present = self.hosts.len() - absent.len();
        let chance = self.random.below(10);
        if (chance < 6 || present <= 1) && !absent.is_empty() {
            let new = absent[self.random.below(absent.len() as u64) as usize];
            self.say(|| format!("node {new} comes"));
            let host = &mut self.hosts[new];
            host.present = true;
            host.disk.clear();
            host.kernel = Kernel::default();
            return Relief::Boot(new);
        }
        if present <= 1 {
            return Relief::Calm;
        }
        if chance < 8 {
            self.say(|| format!("node {node} leaves"));
            self.hosts[node].present = false;
            // It was drained.
            self.connections
                .retain(|connection| connection.holder != node);
            self.drive(node, |agent, now, out| {
                agent.on_input(now, Input::Leave, out);
            });
            return Relief::Left(node);
        }
        self.say(|| format!("node {node} dies for good"));
        let host = &mut self.hosts[node];
        host.present = false;
        self.cut_power(node);
        Relief::Forget(node)
    }

    /// It said good-bye, and ends.
    pub(super) fn left(&mut self, node: usize) {
        if !self.hosts[node].present {
            self.cut_power(node);
        }
    }

    pub(super) fn cut_power(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        host.agent = None;
        host.power = false;
        host.answer_until = 0;
        host.kernel = Kernel::default();
        self.strand(node);
    }

    /// An operator forgets a node that is dead.
    pub(super) fn forget(&mut self, dead: usize) {
        let nodes = 0..self.hosts.len();
        let Some(node) = nodes.into_iter().find(|&node| self.hosts[node].runs()) else {
            return;
        };
        self.drive(node, |agent, now, out| {
            agent.on_input(now, Input::Forget(address(dead)), out);
        });
    }

    /// A client opens a connection by each owner, and some others send.
    pub(super) fn traffic(&mut self) {
        let (low, high) = if self.profile.hasty { (1, 2) } else { (10, 30) };
        let next = self.within(low, high);
        self.at(next, Happening::Traffic);
        for owner in self.owners() {
            let port = self.port();
            let end = self.walk(owner, port, tcp::SYN, Wanted::Listener);
            self.say(|| format!("SYN to {owner}: {end:?}"));
            // One that leaves has been drained before.
            if let End::Kept(holder) = end
                && self.hosts[holder].present
            {
                self.opened += 1;
                self.known_to_all(owner, holder);
                let connection = Connection { port, holder };
                self.connections.retain(|other| other.port != port);
                self.connections.push(connection);
                self.enroll(connection);
                if self.connections.len() > CONNECTIONS {
                    let old = self.random.below(CONNECTIONS as u64) as usize;
                    self.connections.swap_remove(old);
                }
            }
            for _ in 0..2 {
                if self.connections.is_empty() {
                    break;
                }
                let place = self.random.below(self.connections.len() as u64) as usize;
                let connection = self.connections[place];
                let wanted = Wanted::ConnectionOf(connection.holder);
                let end = self.walk(owner, connection.port, tcp::ACK, wanted);
                self.walks += 1;
                if let End::Reset(by) = end {
                    self.reset(by, connection);
                }
            }
        }
    }

    /// The nodes whose kernels answer for the VIP.
    pub(super) fn owners(&self) -> Vec<usize> {
        let nodes = 0..self.hosts.len();
        nodes
            .filter(|&node| self.hosts[node].answers(self.now))
            .collect()
    }

    /// Invariant 7: the stack of `by` resets a connection.
    pub(super) fn reset(&mut self, by: usize, connection: Connection) {
        let holder = connection.holder;
        let reached = self.heard_each_other(by, holder) || self.is_fresh(by, holder);
        // One that was cut off for long is gone, and what it had is reset once.
        self.connections
            .retain(|other| other.port != connection.port);
        if reached && !self.is_disturbed() {
            self.fail(&format!(
                "node {by} resets a connection of node {holder}, which lives"
            ));
        }
    }

    /// Whether `node` has heard another node, which it knows, less than `reset_after` ago, was not cut
    /// off from it shortly before that, and is heard by it: a node that is not answered believes
    /// nothing.
    fn is_fresh(&self, node: usize, other: usize) -> bool {
        let table = &self.hosts[node].kernel.table;
        let is_known = table.find(|known| *known == address(other)).is_some();
        let [wire, answers] = [&self.wires[other][node], &self.wires[node][other]];
        let window = (RESET_AFTER + 30) * self.unit();
        is_known
            && !answers.cut
            && (answers.foul == 0 || self.now - answers.foul > window)
            && self.now - wire.last < (RESET_AFTER - 4) * self.unit()
            && self.now - wire.back >= (RESET_AFTER - 4) * self.unit()
    }

    /// Whether nodes are late or packets are lost, so that nothing is promised.
    pub(super) fn is_disturbed(&self) -> bool {
        self.loss > 0 || self.hosts.iter().any(|host| host.slowness > 0 || host.late)
    }

    /// Whether packets between the two have passed for long enough that each knows of the other.
    pub(super) fn heard_each_other(&self, a: usize, b: usize) -> bool {
        let window = (RESET_AFTER + 30) * self.unit();
        let clean = |from: usize, to: usize| {
            let foul = self.wires[from][to].foul.max(self.disturbed);
            !self.wires[from][to].cut && (foul == 0 || self.now - foul > window)
        };
        let there = |node: usize| {
            let host = &self.hosts[node];
            host.power && !host.paused && host.carrier && host.port
        };
        there(a) && there(b) && clean(a, b) && clean(b, a)
    }

    /// Invariant 8: `owner` has sent a SYN to `holder`.
    fn known_to_all(&mut self, owner: usize, holder: usize) {
        if self.loss > 0 {
            return;
        }
        for other in 0..self.hosts.len() {
            let host = &self.hosts[other];
            // One that has not come to know the others yet hands nothing on, and resets nothing.
            let is_member = host.present && host.kernel.table.len() > 1;
            let reached = self.heard_each_other(owner, other);
            let is_known = host
                .kernel
                .table
                .find(|known| *known == address(holder))
                .is_some();
            let knows_all = host.kernel.resets_until > host.clock(self.now);
            if is_member && reached && knows_all && !is_known {
                if self.profile.hasty {
                    self.hasty_syns += 1;
                    return;
                }
                self.fail(&format!(
                    "node {owner} sends a SYN to node {holder}, which node {other} does not know"
                ));
            }
        }
    }

    /// Invariant 9. Members that are gone may be known to some.
    pub(super) fn agreed(&self, group: &[usize]) {
        for &node in group {
            for &other in group {
                let slot = self.slot(node, other);
                let agent = self.hosts[node].agent.as_ref();
                let confirmed = agent.map_or(BackendMask::EMPTY, Node::confirmed);
                if !slot.is_some_and(|slot| confirmed.contains(slot)) {
                    self.fail(&format!("node {node} does not find node {other} confirmed"));
                }
            }
        }
    }

    /// Lets a segment from a client to the owner go its way.
    pub(super) fn walk(&self, owner: usize, port: u16, flags: u8, wanted: Wanted) -> End {
        let mut frame = Segment::new(owner, port, flags).build();
        let mut node = owner;
        for _ in 0..40 {
            let host = &self.hosts[node];
            if !host.power || host.paused || !host.carrier || !host.port {
                return End::Dropped;
            }
            let (verdict, _) = self.kernel(node, wanted).run(&mut frame);
            self.say(|| format!("at {node}: {verdict:?}"));
            match verdict.kind() {
                Kind::Forward => {}
                Kind::Pass if verdict.counter() == Counter::NoSocket => {
                    return End::Reset(node);
                }
                Kind::Local => return End::Kept(node),
                _ => return End::Dropped,
            }
            let is_there = |other: &usize| node_mac(*other) == verdict.mac();
            let next = (0..self.hosts.len()).find(is_there).expect("a node");
            if self.wires[node][next].cut {
                return End::Dropped;
            }
            node = next;
        }
        self.fail("a frame goes round");
    }

    /// The packet path of a node.
    fn kernel(&self, node: usize, wanted: Wanted) -> testing::World {
        let host = &self.hosts[node];
        let mut world = testing::World::new(1, 0).owning(true);
        let table = &host.kernel.table;
        world.rows = (0..ROWS).map(|bucket| row(table, bucket)).collect();
        let own = table.find(|other| *other == address(node));
        let state: &mut Tables = &mut world.state;
        state.masks = host.kernel.masks;
        // Whoever is in the rank table gets SYNs, if nobody waits until all know it.
        if self.profile.hasty {
            state.masks.alive = table.mask();
            state.masks.new_connections = [state.masks.alive; MAX_CHECKS];
        }
        let clock = host.clock(self.now);
        let until = host.kernel.resets_until;
        state.resets_until = if until > clock {
            NOW.after(Duration::from_millis(1))
        } else {
            BootNanos::ZERO
        };
        state.config.own_index = own.map_or(NOT_A_BACKEND, |(slot, _)| slot.get() as u32);
        state.config.own_mac = node_mac(node);
        state.config.straight_mac = node_mac(node);
        state.config.backend_count = table.len() as u32;
        state.config.slot_count = table
            .iter()
            .next_back()
            .map_or(0, |(slot, _)| slot.get() as u32 + 1);
        state.backends = Tables::zeroed().backends;
        for (slot, other) in table.iter() {
            let backend = &mut state.backends[slot.get()];
            backend.address = (*other).into();
            backend.mac = node_mac(place(*other));
            backend.source = Mac::UNKNOWN;
        }
        state.config.peers = state.peers();
        world.socket = match wanted {
            Wanted::ConnectionOf(holder) if holder == node => Socket::Connection,
            Wanted::Listener if host.ready => Socket::Listener,
            Wanted::ConnectionOf(_) | Wanted::Listener | Wanted::Lost => Socket::None,
        };
        world
    }
}

/// A row of the rank table.
fn row(table: &Slots<IpAddr>, bucket: usize) -> RankRow {
    let mut order: Vec<(u64, BackendIndex)> = table
        .iter()
        .map(|(slot, address)| {
            let mut hash = SipHasher13::new();
            hash.write_usize(bucket);
            hash.write_usize(place(*address));
            (hash.finish(), slot)
        })
        .collect();
    order.sort_unstable();
    RankRow::new(order.into_iter().map(|(_, slot)| slot))
}

/// The host with this address.
fn place(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => usize::from(address.octets()[3]) - 11,
        IpAddr::V6(_) => unreachable!("all are of IPv4"),
    }
}

/// A run of an open cluster, by its seed alone.
pub(super) fn profile(seed: u64, hasty: bool) -> Profile {
    Profile {
        nodes: [3, 4, 5, 5, 7, 7, 9][Rng::new(seed).below(7) as usize],
        bfd: true,
        open: true,
        keyed: seed.is_multiple_of(2),
        hasty,
        ..super::profile(seed)
    }
}

/// As many hours as `VIP_SIM_OPEN_HOURS` says, or 400.
#[test]
fn members_come_and_go_and_no_connection_is_reset() {
    let hours = std::env::var("VIP_SIM_OPEN_HOURS").ok();
    let hours = hours.map_or(400.0, |hours| hours.parse().expect("a number"));
    let Totals {
        hours,
        troubles,
        opened,
        walks,
        nudges,
        ..
    } = run_for(hours, |seed| profile(seed, false));
    println!("{hours:.0} hours, {troubles} troubles, {opened} connections, {walks} segments");
    println!("{nudges}");
    // A simulation in which nothing happens proves nothing.
    assert!(troubles > 300 && opened > 1_000 && walks > 1_000);
    assert!(nudges.are_many());
}

#[test]
fn without_confirmation_members_get_syns_that_others_do_not_know() {
    let hasty_syns = |seed| {
        let mut world = World::new(seed, profile(seed, true));
        world.run();
        world.hasty_syns
    };
    let seed = (10..40).find(|seed| hasty_syns(*seed) > 0);
    println!("with the seed {seed:?}, a node that another one does not know gets a SYN");
    assert!(seed.is_some());
}

#[test]
fn replay_open() {
    let seed = std::env::var("VIP_SIM_OPEN_SEED").ok();
    let seed = seed.map_or(1, |seed| seed.parse().expect("a number"));
    let hasty = std::env::var_os("VIP_SIM_HASTY").is_some();
    World::new(seed, profile(seed, hasty)).run();
}
