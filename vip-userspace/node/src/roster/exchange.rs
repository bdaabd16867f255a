//! This node's roster and those of its peers, and what the agents send each other to keep them.
//!
//! A message is believed if it is for this run of the agent, and of the run of the peer that was
//! believed before. One of another run of the peer must answer a message that was sent after the last
//! believed one came: so a copy of what an earlier run has sent is of no use. Until an agent knows a
//! peer's run, it sends digests alone, which tell its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use vip_common::wire::time::BootNanos;

use super::message::MAX_ANSWERED;
use super::{Body, Buckets, Change, Connection, Key, MAX_TOLD, Message, Own, Told};
use crate::hello::Instance;

/// From one digest to the next.
const DIGEST: Duration = Duration::from_secs(1);

/// A peer that has not sent a message that is believed for so long is told digests alone.
const SILENT: Duration = Duration::from_secs(3);

/// Messages with changes that wait for a peer at most. Of more, the digests tell.
const BACKLOG: usize = 64;

/// How often clients that have answered are told to each peer: nobody asks for what was lost.
const REPEATS: usize = 2;

/// What became of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Taken {
    /// Its sender is no member.
    Stranger,
    /// It may be a copy of an earlier one.
    Unbelieved,
    /// It came before, or later than the next one.
    Old,
    /// It is believed. These clients have answered.
    Believed(Vec<Key>),
}

/// A peer.
#[derive(Default)]
struct Peer {
    /// The run of its agent whose messages are believed.
    run: Option<Instance>,
    /// A run that is not believed yet, and the number of its last message.
    next: Option<(Instance, u64)>,
    heard: Option<BootNanos>,
    /// Number of the last message to it when it was heard last.
    sent_when_heard: u64,
    told: Told,
    /// Number of the last message to it.
    number: u64,
    /// Buckets of this node's roster that it asks for.
    wanted: Buckets,
    /// Buckets of its roster to ask it for: those by its last digests, however many it sends.
    asks: Buckets,
    /// When the next digest is due.
    digest: BootNanos,
    backlog: VecDeque<Body>,
}

impl Peer {
    /// The run that is believed, and the number of its last message.
    fn believed(&self) -> Option<(Instance, u64)> {
        Some((self.run?, self.told.latest()))
    }

    fn is_heard(&self, now: BootNanos) -> bool {
        self.heard.is_some_and(|heard| now.since(heard) < SILENT)
    }
}

/// The rosters of a cluster, as one node has them.
pub struct Exchange {
    run: Instance,
    own: Own,
    peers: BTreeMap<IpAddr, Peer>,
    /// Clients that have answered, and how often the peers are still to be told.
    answered: [Vec<Key>; REPEATS],
}

impl Exchange {
    /// That of a run of an agent, before it knows anything.
    #[must_use]
    pub fn new(run: Instance) -> Self {
        Self {
            run,
            own: Own::default(),
            peers: BTreeMap::new(),
            answered: Default::default(),
        }
    }

    /// The peers are these from now on. The rosters of others are forgotten.
    pub fn set_peers(&mut self, peers: &BTreeSet<IpAddr>) {
        self.peers.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            self.peers.entry(*peer).or_default();
        }
        let room = self.room();
        for peer in self.peers.values_mut() {
            peer.told.set_room(room);
        }
    }

    /// Connections that each peer may tell of.
    fn room(&self) -> usize {
        MAX_TOLD / self.peers.len().max(1)
    }

    /// Takes in a scan of this node's connections.
    pub fn scanned(&mut self, now: BootNanos, scan: impl IntoIterator<Item = Connection>) {
        let bodies = self.own.scanned(scan);
        self.tell(now, &bodies);
    }

    /// Takes in which of them have come or gone.
    pub fn changed(&mut self, now: BootNanos, changes: impl IntoIterator<Item = Change>) {
        let bodies = self.own.changed(changes);
        self.tell(now, &bodies);
    }

    fn tell(&mut self, now: BootNanos, bodies: &[Body]) {
        for peer in self.peers.values_mut().filter(|peer| peer.is_heard(now)) {
            peer.backlog.extend(bodies.iter().cloned());
            if peer.backlog.len() > BACKLOG {
                peer.backlog.clear();
                peer.digest = now;
            }
        }
    }

    /// The peers are to be told that these clients have answered.
    pub fn answered(&mut self, names: &[Key]) {
        self.answered[0].extend(names);
    }

    /// Takes in a message of a host.
    pub fn take(&mut self, now: BootNanos, from: IpAddr, message: Message) -> Taken {
        let room = self.room();
        let Some(peer) = self.peers.get_mut(&from) else {
            return Taken::Stranger;
        };
        if message.to != Some(self.run) {
            // It is to know this run soon.
            if peer.next.is_none_or(|(run, _)| run != message.from) {
                peer.digest = now;
            }
            peer.next = Some((message.from, message.number));
            return Taken::Unbelieved;
        }
        if peer.run != Some(message.from) {
            if message.answers <= peer.sent_when_heard {
                return Taken::Unbelieved;
            }
            peer.run = Some(message.from);
            peer.told = Told::default();
            peer.told.set_room(room);
            peer.asks = Buckets::NONE;
            // What it knows of this node is nothing.
            peer.digest = now;
        }
        peer.next = None;
        let asks = match &message.body {
            Body::Request(wanted) => Some(*wanted),
            _ => None,
        };
        let is_digests = matches!(message.body, Body::Digests { .. });
        let names = match &message.body {
            Body::Answered(names) => names.clone(),
            _ => Vec::new(),
        };
        let Some(differ) = peer.told.take(message.number, message.body) else {
            return Taken::Old;
        };
        peer.heard = Some(now);
        peer.sent_when_heard = peer.number;
        if let Some(asks) = asks {
            peer.wanted = peer.wanted.or(asks);
        }
        if is_digests {
            peer.asks = differ;
        }
        Taken::Believed(names)
    }

    /// The messages that are due, `most` at most, and for whom they are.
    pub fn send(&mut self, now: BootNanos, most: usize) -> Vec<(IpAddr, Message)> {
        self.tell_answered(now);
        let mut due = Vec::new();
        // Digests come first: without them, a peer takes this node for silent.
        for (address, peer) in &mut self.peers {
            if peer.digest <= now && due.len() < most {
                peer.digest = now.after(DIGEST);
                // A run that is not believed yet does not keep the other one from being told.
                let mut runs: Vec<_> = peer
                    .believed()
                    .into_iter()
                    .chain(peer.next)
                    .map(Some)
                    .collect();
                if runs.is_empty() {
                    runs.push(None);
                }
                for to in runs {
                    due.push((*address, peer.message(self.run, to, self.own.digests())));
                }
            }
        }
        // One for each in turn, so that a peer that asks for much does not keep others waiting.
        let mut is_rest = false;
        while due.len() < most && !is_rest {
            is_rest = true;
            for (address, peer) in &mut self.peers {
                let Some(body) = (due.len() < most)
                    .then(|| peer.next_body(&self.own))
                    .flatten()
                else {
                    continue;
                };
                is_rest = false;
                let to = peer.believed();
                due.push((*address, peer.message(self.run, to, body)));
            }
        }
        due
    }

    fn tell_answered(&mut self, now: BootNanos) {
        let names = self.answered.concat();
        self.answered.rotate_right(1);
        self.answered[0].clear();
        let bodies = names.chunks(MAX_ANSWERED);
        let bodies: Vec<Body> = bodies.map(|part| Body::Answered(part.to_vec())).collect();
        for peer in self.peers.values_mut().filter(|peer| peer.is_heard(now)) {
            for body in bodies.iter().rev() {
                peer.backlog.push_front(body.clone());
            }
        }
    }

    /// When the next message is due, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<BootNanos> {
        let deadline = |peer: &Peer| {
            let rests = peer.backlog.is_empty() && peer.wanted.is_empty() && peer.asks.is_empty();
            if rests { peer.digest } else { BootNanos::ZERO }
        };
        self.peers.values().map(deadline).min()
    }

    /// This node's roster.
    #[must_use]
    pub const fn own(&self) -> &Own {
        &self.own
    }

    /// The run of a peer's agent whose messages are believed.
    #[must_use]
    pub fn run(&self, peer: IpAddr) -> Option<Instance> {
        self.peers.get(&peer)?.run
    }

    /// What a peer has told of its connections.
    #[must_use]
    pub fn told(&self, peer: IpAddr) -> Option<&Told> {
        self.peers.get(&peer).map(|peer| &peer.told)
    }

    /// What a peer that is gone has told, without the connections that this node or a peer that lives
    /// holds. A client has used its port again, or somebody tells in that peer's name what is not so:
    /// the numbers may be wrong, and old data new to the client.
    pub fn left_by(
        &self,
        gone: IpAddr,
        lives: impl Fn(IpAddr) -> bool,
    ) -> impl Iterator<Item = Connection> {
        let others = self.peers.iter();
        let others: Vec<&Told> = others
            .filter(|(peer, _)| **peer != gone && lives(**peer))
            .map(|(_, peer)| &peer.told)
            .collect();
        let is_held = move |key| self.own.has(key) || others.iter().any(|told| told.has(key));
        let told = self.told(gone).into_iter();
        told.flat_map(Told::connections)
            .filter(move |one| !is_held(one.key()))
    }

    /// The peers, and what they have told.
    pub fn peers(&self) -> impl Iterator<Item = (IpAddr, &Told)> {
        let peers = self.peers.iter();
        peers.map(|(address, peer)| (*address, &peer.told))
    }
}

impl Peer {
    /// What it is to be sent next, apart from digests.
    fn next_body(&mut self, own: &Own) -> Option<Body> {
        if !self.asks.is_empty() {
            return Some(Body::Request(std::mem::take(&mut self.asks)));
        }
        self.backlog.pop_front().or_else(|| {
            self.backlog.extend(own.bucket(&mut self.wanted)?);
            self.backlog.pop_front()
        })
    }

    /// A message to a run of the peer, the number of whose last message is known.
    fn message(&mut self, from: Instance, to: Option<(Instance, u64)>, body: Body) -> Message {
        self.number += 1;
        Message {
            to: to.map(|(run, _)| run),
            answers: to.map_or(0, |(_, number)| number),
            from,
            number: self.number,
            body,
        }
    }
}
