//! The clients of a node that is gone are asked by the owner, as the agent's thread does it; and the
//! packet path decides about what they answer.
//!
//! All agents have the same roster of a node. It also has clients that have closed their connection
//! or are connected to another node by now: a real one may be as old.

use std::net::SocketAddr;

use vip_common::testing::{CLIENT, PORT, VIP};
use vip_common::wire::tcp;
use vip_node::roster::{self, Key, Nudge};

use super::nudging::Group;
use super::open::{End, Wanted};
use super::*;

/// A unit in the time that [`Nudges`] counts: as with the default timers.
const UNIT: u64 = 50_000_000;

/// Clients in a roster, and clients that have lost their node, at most.
const CLIENTS: usize = 150;

/// When a node loses its power, all its clients have been reset after so many units: it is gone for
/// all others after `reset_after`, a detection time of 4 units and the time from one hello to the
/// next. The round that comes then, up to 30 units later, is answered by all.
const ALL_TOLD: u64 = RESET_AFTER + 4 + RESET_AFTER / 3 + 30;

/// A client's connection in a roster.
fn connection(port: u16) -> roster::Connection {
    roster::Connection {
        client: SocketAddr::new(IpAddr::from(CLIENT.to_wire()), port),
        server: SocketAddr::new(IpAddr::from(VIP.to_wire()), PORT),
        unacknowledged: 0,
        expected: 0,
    }
}

impl World {
    /// The time that [`Nudges`] counts.
    fn nudges_clock(&self) -> BootNanos {
        let units = u128::from(self.now) * u128::from(UNIT) / u128::from(self.unit());
        BootNanos(units as u64)
    }

    /// When [`Self::nudges_clock`] shows that time.
    fn when_nudges_clock_shows(&self, time: BootNanos) -> Time {
        let units = u128::from(time.0) * u128::from(self.unit());
        units.div_ceil(u128::from(UNIT)) as Time
    }

    /// The port of a client that connects: now and then one that another node has in its roster.
    pub(super) fn port(&mut self) -> u16 {
        let known: Vec<u16> = self
            .hosts
            .iter()
            .flat_map(|host| &host.roster)
            .copied()
            .collect();
        if !known.is_empty() && self.random.percent(10) {
            return known[self.random.below(known.len() as u64) as usize];
        }
        1024 + self.random.below(60_000) as u16
    }

    /// A connection comes into the roster of its node.
    pub(super) fn enroll(&mut self, connection: Connection) {
        let Connection { port, holder } = connection;
        self.stranded.retain(|client| client.port != port);
        let roster = &mut self.hosts[holder].roster;
        roster.insert(port);
        if roster.len() > CLIENTS {
            let old = roster.iter().copied().find(|port| {
                let mut living = self.connections.iter().map(|one| (one.port, one.holder));
                let mut stranded = self.stranded.iter().map(|one| (one.port, one.holder));
                let this = (*port, holder);
                !living.any(|one| one == this) && !stranded.any(|one| one == this)
            });
            if let Some(old) = old {
                roster.remove(&old);
            }
        }
    }

    /// A node has lost its power. Its clients do not know it.
    pub(super) fn strand(&mut self, node: usize) {
        let since = self.now;
        let of_node = |one: &mut Connection| one.holder == node;
        for Connection { port, holder } in self.connections.extract_if(.., of_node) {
            self.stranded.push(Stranded {
                port,
                holder,
                since,
                alone: None,
            });
        }
        let surplus = self.stranded.len().saturating_sub(CLIENTS);
        self.stranded.drain(..surplus);
    }

    /// What the agent's thread is told of a report.
    pub(super) fn tell_nudges(&mut self, node: usize, report: &Report) {
        if !self.profile.open || self.profile.hasty {
            return;
        }
        let now = self.nudges_clock();
        match report {
            Report::Active(_) | Report::Backup(_) => {
                let nudging = &mut self.hosts[node].nudging;
                nudging.owns = matches!(report, Report::Active(_));
                let of_others = |group: &Group| matches!(group, Group::Of(_));
                nudging.nudges.hold(now, !nudging.owns, of_others);
            }
            Report::Gone(slot) => {
                let gone = self.host(node, *slot);
                let roster: Vec<_> = self.hosts[gone]
                    .roster
                    .iter()
                    .copied()
                    .map(connection)
                    .collect();
                let nudging = &mut self.hosts[node].nudging;
                nudging.gone.insert(gone);
                let held = !nudging.owns;
                nudging.nudges.begin(now, Group::Of(gone), held, roster);
            }
            // A node that was forgotten comes as a new one.
            Report::Answers(slot) | Report::Admitted { node: slot, .. } => {
                let back = self.host(node, *slot);
                let nudging = &mut self.hosts[node].nudging;
                nudging.gone.remove(&back);
                nudging.nudges.end(Group::Of(back));
            }
            Report::BfdDown { node: slot, .. } => {
                let other = self.host(node, *slot);
                let since = (self.now, self.hosts[other].life);
                self.hosts[node].nudging.down.entry(other).or_insert(since);
            }
            Report::BfdUp(slot) => self.heard_again(node, self.host(node, *slot)),
            Report::Isolated(false) | Report::Confirmed(_) | Report::Removed { .. } => {
                self.hosts[node].nudging.nudges.again(now);
            }
            _ => return,
        }
        self.plan_nudges(node);
    }

    /// The session with `other` is up. If that one has run all the time, and has taken this node for
    /// gone, this node's clients may have been reset.
    fn heard_again(&mut self, node: usize, other: usize) {
        let Some((since, life)) = self.hosts[node].nudging.down.remove(&other) else {
            return;
        };
        let long = self.now - since >= RESET_AFTER * 3 / 4 * self.unit();
        if !long || self.hosts[other].life != life {
            return;
        }
        let of_node = self.connections.iter().filter(|one| one.holder == node);
        let own: Vec<_> = of_node.map(|one| connection(one.port)).collect();
        let now = self.nudges_clock();
        let nudges = &mut self.hosts[node].nudging.nudges;
        nudges.begin(now, Group::Own, false, own);
    }

    fn plan_nudges(&mut self, node: usize) {
        let nudging = &mut self.hosts[node].nudging;
        nudging.turn += 1;
        let turn = nudging.turn;
        let Some(deadline) = nudging.nudges.next_deadline() else {
            return;
        };
        // The agent's thread waits for a millisecond at least.
        let millisecond = self.unit() / 50;
        let time = self.when_nudges_clock_shows(deadline);
        let time = time.max(self.now + millisecond);
        self.at(time, Happening::Nudges { node, turn });
    }

    /// An agent sends what is due.
    pub(super) fn nudge(&mut self, node: usize, turn: u64) {
        let host = &mut self.hosts[node];
        if host.nudging.turn != turn || host.agent.is_none() {
            return;
        }
        if !host.runs() {
            self.at(self.now + self.unit(), Happening::Nudges { node, turn });
            return;
        }
        let now = self.nudges_clock();
        let nudges = &mut self.hosts[node].nudging.nudges;
        let due = nudges.take(now);
        nudges.outcomes(now);
        // Invariant 10.
        let gone = &self.hosts[node].nudging.gone;
        let living = gone
            .iter()
            .find(|other| self.heard_each_other(node, **other));
        if let Some(other) = living
            && !self.is_disturbed()
        {
            self.fail(&format!(
                "node {node} asks the clients of node {other}, which lives"
            ));
        }
        for nudge in due {
            self.ask(node, nudge);
        }
        self.plan_nudges(node);
    }

    fn is_lost(&mut self) -> bool {
        let loss = self.loss;
        self.random.percent(loss)
    }

    /// A client is asked by a node, and answers if it has the connection. If two nodes answer for the
    /// VIP, what it sends may come to either.
    fn ask(&mut self, node: usize, nudge: Nudge) {
        self.nudges.nudges += 1;
        let host = &self.hosts[node];
        if !host.carrier || !host.port || self.is_lost() {
            return;
        }
        let port = nudge.connection.client.port();
        let living = self.connections.iter().find(|one| one.port == port);
        let living = living.copied();
        let stranded = self.stranded.iter().find(|one| one.port == port);
        let (of, wanted) = match (living, stranded) {
            (Some(living), _) => (0, Wanted::ConnectionOf(living.holder)),
            (None, Some(_)) => (1, Wanted::Lost),
            // It knows nothing of it.
            (None, None) => return,
        };
        self.nudges.answers[of] += 1;
        for owner in self.owners() {
            if self.is_lost() {
                continue;
            }
            let end = self.walk(owner, port, tcp::ACK, wanted);
            self.say(|| format!("node {node} asks {port}, which answers {owner}: {end:?}"));
            let End::Reset(by) = end else {
                continue;
            };
            self.nudges.resets[of] += 1;
            self.is_reset(by, nudge.connection.key());
            match living {
                Some(living) => self.reset(by, living),
                None if self.is_lost() => continue,
                None => self.told(port),
            }
            return;
        }
    }

    /// A client has got a reset.
    fn told(&mut self, port: u16) {
        let (now, troubles) = (self.now, self.troubles);
        for client in self.stranded.extract_if(.., |client| client.port == port) {
            if client.alone == Some(troubles) {
                let units = (now - client.since) as f64 / self.profile.unit as f64;
                self.nudges.slowest = self.nudges.slowest.max(units);
            }
        }
    }

    /// The agent of `by` sees that its stack resets a connection, and tells the others twice.
    fn is_reset(&mut self, by: usize, key: Key) {
        let now = self.nudges_clock();
        let host = &self.hosts[by];
        if !host.runs() || !host.nudging.nudges.waits(now) {
            return;
        }
        for other in 0..self.hosts.len() {
            let host = &self.hosts[other];
            let is_there = host.runs() && host.carrier && host.port && !self.wires[by][other].cut;
            let hears = other == by || is_there && !(self.is_lost() && self.is_lost());
            if hears && self.hosts[other].nudging.nudges.answered(now, key) {
                self.plan_nudges(other);
            }
        }
    }

    /// A node of a healthy cluster has lost its power, and gets it back at that time, or is forgotten.
    pub(super) fn expect_all_told(&mut self, of: usize, back: Time) {
        let (bound, troubles) = (self.now + ALL_TOLD * self.unit(), self.troubles);
        if self.profile.open && !self.profile.hasty && bound < back {
            let since = self.now;
            let clients = self.stranded.iter_mut();
            for client in clients.filter(|one| one.holder == of && one.since == since) {
                client.alone = Some(troubles);
            }
            self.at(bound, Happening::AllTold { of, troubles });
        }
    }

    /// Invariant 11.
    pub(super) fn all_told(&mut self, of: usize, troubles: u64) {
        if self.troubles != troubles {
            return;
        }
        self.nudges.deaths += 1;
        let clients = self.stranded.iter().filter(|client| client.holder == of);
        let waiting: Vec<u16> = clients.map(|client| client.port).collect();
        if !waiting.is_empty() {
            self.fail(&format!(
                "the clients {waiting:?} of node {of}, which is dead, wait in vain"
            ));
        }
    }
}

#[test]
fn all_clients_of_a_node_without_power_are_told() {
    let mut counts = Counts::default();
    for seed in 1..=60 {
        let mut world = World::new(seed, open::profile(seed, false));
        // Members come, and clients connect to them.
        world.advance(3000 * world.unit());
        let is_trouble = |planned: &Planned| matches!(planned.happening, Happening::Trouble);
        world.queue.retain(|Reverse(planned)| !is_trouble(planned));
        let end = world.now + 400 * world.unit() + world.calm();
        world.advance(end);
        let members: Vec<usize> = (0..world.hosts.len())
            .filter(|&node| world.hosts[node].runs())
            .collect();
        let has_clients = |node: &usize| world.connections.iter().any(|one| one.holder == *node);
        let Some(&dead) = members.iter().find(|node| has_clients(node)) else {
            continue;
        };
        if members.len() < 3 {
            continue;
        }
        world.say(|| format!("node {dead} loses its power"));
        world.cut_power(dead);
        let bound = world.now + (ALL_TOLD + 1) * world.unit();
        world.expect_all_told(dead, bound);
        world.advance(bound);
        counts.add(&world.nudges);
    }
    println!("{counts}");
    assert!(counts.deaths > 20);
}
