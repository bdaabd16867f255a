//! The members of the cluster: which there are, in which slots, and who knows whom.
//!
//! Members may come and go while the cluster works, and nobody agrees with anybody on the order in
//! which they do. It is enough that all nodes steer by a rank table of the same members; and where
//! two nodes know different ones for a moment, that nobody relies on a member which is not known to
//! all. So a member goes through these states:
//!
//! ```text
//!          its hello answers one      its place in the      all living members have it
//!          of this node, and a key    rank table is         in their rank tables, and it
//!          or certificate admits it   written               has ours in its own
//!  heard ─────────────────────────▶ admitted ────────▶ known ─────────────────────────▶ confirmed
//! ```
//!
//! - *Admitted*: it has a slot and a BFD session.
//! - *Known*: it gets the segments of open connections in its turn.
//! - *Confirmed*: it may get new connections. It may own the VIP if it finds itself confirmed, or if
//!   no other member's agent runs that could know it.
//!
//! # Living
//!
//! A member counts as *living* unless it is gone: nobody in the cluster has heard it for
//! `reset_after`. One that was not heard yet lives until the same is found of it. Whoever judged by
//! its own ears would confirm a newcomer without a member that it does not hear and others do.
//!
//! # A closed list
//!
//! With `nodes` in the configuration, the members are those of the list. They count as known to
//! each other as long as no hello says otherwise, so agents that send no hellos can be members. If
//! the list of another node lacks a member, that member is not confirmed. One that leaves stays in
//! the list, and drains until it comes back.
//!
//! The list may change while agents run, on one node after the other. A member that comes by it gets
//! nothing at all before all living members have it in their lists: a node that lacks it would not
//! know by its frames that it has looked for the socket. The agent of a host that is not in the list
//! is answered, so that it learns by the rows that it is not a member for all, and claims nothing.
//!
//! # Joining
//!
//! A node whose agent has just started is *joining*: it does not know the other nodes' health yet,
//! and they do not know its own. It forwards nothing until its BFD session with each other node is
//! up on both sides and each node's Ethernet address is known, or a time limit is over. Otherwise
//! it would send on segments of its own connections, to nodes that have not heard it yet.

mod exchange;
mod hellos;
mod knowledge;

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use vip_common::abi::{BackendIndex, BackendMask, MAX_BACKENDS};
use vip_common::wire::time::BootNanos;

use self::exchange::Exchange;
use self::knowledge::Known;
use crate::election::{Refused, Sealed, Trust};
use crate::hello::Instance;
use crate::input::{Member, OpenCluster, Params, Tuning};
use crate::priority::default_priority;
use crate::random::mix;
use crate::rank::Identity;
use crate::slots::Slots;

/// Least time limit of joining. Two agents that run bring their BFD session up within a few
/// packets.
const JOINING: Duration = Duration::from_millis(500);

/// The same, in BFD intervals.
const JOINING_INTERVALS: u32 = 10;

/// How long the slot of a member that was removed stays empty after the rank table without it is in
/// use: programs that still run with the old one must not meet another member there.
const REST: Duration = Duration::from_secs(1);

/// What follows for the other parts of the node, in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A member has come, in this slot.
    Admitted(BackendIndex),
    /// The member that was in this slot is none any more.
    Removed(BackendIndex, IpAddr),
    /// Somebody had this evidence that a member lives.
    Evidence(BackendIndex, BootNanos),
    /// A hello of a member was believed.
    Believed {
        /// The member.
        slot: BackendIndex,
        /// Its agent counts as one that is there now until then.
        fresh_until: BootNanos,
        /// It drains.
        drains: bool,
        /// It leaves, and stays in the closed list.
        leaves: bool,
    },
    /// A member tells another text of itself than before.
    Told(BackendIndex, String),
    /// An agent asks to be a member, and has not proved that it is one.
    Prove(IpAddr, Instance),
    /// An agent of this cluster that is no member.
    Stranger(IpAddr),
    /// There is no slot for an agent that asks to be a member.
    Full(IpAddr),
    /// A member is confirmed.
    Confirmed(BackendIndex),
    /// The rank table must be made anew, for these members.
    Install(Box<Installation>),
}

/// The members that a rank table is to be made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installation {
    /// Its number, which [`Input::Installed`](crate::Input::Installed) names.
    pub number: u64,
    /// The members.
    pub members: Slots<Identity>,
}

/// The members of the cluster, as this node knows them.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    own: BackendIndex,
    /// `None`: the list of members is closed.
    open: Option<OpenCluster>,
    /// Members of a changed list that have no slot yet.
    listed: Vec<Identity>,
    /// The configured priority of this node.
    own_priority: Option<u8>,
    members: Slots<Known>,
    exchange: Exchange,
    /// Which advertisements are believed.
    trust: Trust,
    /// Slots that members have left, and until when they stay empty; `None`: the rank table without
    /// the member is not in use yet.
    resting: Slots<Option<BootNanos>>,
    /// Number of changes of the set of members.
    changes: u64,
    /// The last installation that was asked for, and its members.
    requested: (u64, BackendMask),
    /// The last one that is done.
    installed: u64,
    /// This node finds itself confirmed.
    confirmed: bool,
    /// Since this agent started, those of all other members were down for a while.
    is_last: bool,
    /// This node has owned the VIP since it started, or went on for an earlier agent.
    has_owned: bool,
    /// The time limit of joining; `None` without BFD, where agents cannot be heard.
    joining_time: Option<Duration>,
    /// Nodes whose Ethernet address is known, so that frames can be forwarded to them.
    located: BackendMask,
    /// When joining ends at the latest; `None` if this node is not joining.
    joining: Option<BootNanos>,
}

impl Membership {
    /// No other member's address is known.
    pub(crate) fn new(params: &Params) -> Self {
        let bfd = params.bfd.map(|bfd| bfd.interval);
        let own = params.nodes[params.own];
        let instance =
            Instance(NonZeroU64::new(mix(params.seed, 0x1dea)).unwrap_or(NonZeroU64::MIN));
        let closed = params.open.is_none();
        let mut members = params
            .nodes
            .map(|_, identity| Known::stored(*identity, closed));
        if let Some(known) = members.get_mut(params.own) {
            known.instance = Some(instance);
        }
        Self {
            own: params.own,
            open: params.open,
            listed: Vec::new(),
            own_priority: params.priority,
            requested: (0, members.mask()),
            members,
            exchange: Exchange::new(params, own.address, instance),
            trust: params.trust,
            resting: Slots::new(),
            changes: 0,
            installed: 0,
            confirmed: closed,
            is_last: false,
            has_owned: false,
            joining_time: bfd.map(|interval| JOINING.max(interval * JOINING_INTERVALS)),
            located: BackendMask::EMPTY,
            joining: None,
        }
    }

    /// Other timers, and another priority of this node.
    pub(crate) fn tune(&mut self, tuning: &Tuning) {
        if let (Some(open), Some(forget_after)) = (&mut self.open, tuning.forget_after) {
            open.forget_after = forget_after;
        }
        self.own_priority = tuning.priority;
        self.trust = tuning.trust;
        self.exchange.set_interval(tuning.hello_interval);
    }

    /// The agent starts. `known`: the nodes that an earlier agent found alive; empty if there was
    /// no earlier agent. A node that goes on for an earlier agent is as well known as that was.
    pub(crate) fn on_start(&mut self, now: BootNanos, known: BackendMask) {
        if known.is_empty() {
            self.joining = self.joining_time.map(|time| now.after(time));
        } else {
            self.confirmed = true;
            self.has_owned = true;
            for member in self.members.values_mut() {
                member.confirmed = true;
            }
        }
        // Agents of a closed list send none yet.
        self.exchange.on_start(now);
    }

    /// The agent has ended.
    pub(crate) fn end(&mut self) {
        self.exchange.end();
        self.joining = None;
    }

    /// Whether members come by themselves.
    pub(crate) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// This node.
    pub(crate) const fn own(&self) -> BackendIndex {
        self.own
    }

    /// All members, this node among them.
    pub(crate) fn all(&self) -> impl Iterator<Item = BackendIndex> + use<> {
        self.members.mask().iter()
    }

    /// All members but this node.
    pub(crate) fn others(&self) -> impl Iterator<Item = BackendIndex> + use<> {
        self.members.mask().with(self.own, false).iter()
    }

    /// A member; `None` if there is none in this slot.
    pub(crate) fn member(&self, slot: BackendIndex) -> Option<Member> {
        let identity = self.members.get(slot)?.identity;
        let configured = self.own_priority.filter(|_| slot == self.own);
        // The order of two members does not depend on a third, and not on anybody's list.
        let before = |known: &&Known| known.identity.address < identity.address;
        let place = self.members.values().filter(before).count();
        Some(Member {
            address: identity.address,
            priority: configured.unwrap_or_else(|| default_priority(place)),
        })
    }

    /// The addresses of all members.
    pub(crate) fn addresses(&self) -> Slots<IpAddr> {
        self.members.map(|_, known| known.identity.address)
    }

    /// This node, as a member.
    ///
    /// # Panics
    /// Never: this node is a member.
    pub(crate) fn own_member(&self) -> Member {
        self.member(self.own).expect("this node is a member")
    }

    /// The slot of the member with this address.
    pub(crate) fn slot(&self, address: IpAddr) -> Option<BackendIndex> {
        let found = self.members.find(|known| known.identity.address == address);
        found.map(|(slot, _)| slot)
    }

    /// The run of this node's agent.
    pub(crate) const fn instance(&self) -> Instance {
        self.exchange.instance
    }

    /// An advertisement came from a member.
    ///
    /// # Errors
    /// It is not believed.
    pub(crate) fn on_advert(
        &mut self,
        slot: BackendIndex,
        sealed: Option<Sealed>,
    ) -> Result<(), Refused> {
        let Some(sealed) = sealed else {
            return match self.trust {
                Trust::Plain | Trust::Both => Ok(()),
                Trust::Sealed => Err(Refused::Plain),
            };
        };
        if self.trust == Trust::Plain {
            return Err(Refused::Sealed);
        }
        let known = self.members.get_mut(slot);
        // Another member's word of a new run is not enough: the run may be over.
        let is_it =
            |known: &&mut Known| known.heard.is_some() && known.instance == Some(sealed.instance);
        let known = known.filter(is_it).ok_or(Refused::Instance)?;
        if sealed.number <= known.advert {
            return Err(Refused::Number);
        }
        known.advert = sealed.number;
        Ok(())
    }

    /// A node's Ethernet address is known.
    pub(crate) fn locate(&mut self, slot: BackendIndex) {
        self.located = self.located.with(slot, true);
    }

    /// Whether this node is joining.
    pub(crate) const fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    /// The members that may get new connections.
    pub(crate) fn confirmed(&self) -> BackendMask {
        let own = self.own;
        self.members
            .which(|slot, known| slot == own || known.confirmed)
    }

    /// The members that have had a view as complete as this node's since they were last absent. They
    /// may get segments.
    pub(crate) fn complete(&self) -> BackendMask {
        let own = self.own;
        self.members
            .which(|slot, known| slot == own || known.complete)
    }

    /// A member's agent is not heard any more: what it knows is not known. A list goes on to tell it.
    pub(crate) fn on_absent(&mut self, slot: BackendIndex) {
        if let Some(known) = self.members.get_mut(slot).filter(|_| self.open.is_some()) {
            known.complete = false;
        }
    }

    /// This node owns the VIP.
    pub(crate) const fn on_owned(&mut self) {
        self.has_owned = true;
    }

    /// No other member is heard by BFD for a while. If none has sent a hello either, their agents are
    /// down, and nobody can confirm this node. It may own the VIP, but resets nothing. With a closed list,
    /// others may not hear it because their lists lack it.
    pub(crate) fn on_last(&mut self) {
        let silent = |known: &Known| known.heard.is_none();
        let mut others = self.members.iter().filter(|(slot, _)| *slot != self.own);
        self.is_last |= self.open.is_some() && others.all(|(_, known)| silent(known));
    }

    /// Whether this node is established: it has owned the VIP, or has other members. A newcomer that
    /// has proved nothing yet takes the VIP from no such node.
    fn is_established(&self) -> bool {
        self.has_owned || self.members.len() > 1
    }

    /// The closed list has changed. Members that are not in it any more go at once, others come as soon
    /// as there are slots for them.
    pub(crate) fn set_list(
        &mut self,
        now: BootNanos,
        mut list: Vec<Identity>,
        out: &mut Vec<Event>,
    ) {
        if self.open.is_some() {
            return;
        }
        let is_listed = |address| list.iter().any(|listed| listed.address == address);
        let own = self.own;
        let gone = self
            .members
            .which(|slot, known| slot != own && !is_listed(known.identity.address));
        for slot in gone.iter() {
            self.remove(now, slot, out);
        }
        list.retain(|listed| self.slot(listed.address).is_none());
        self.listed = list;
    }

    /// Takes members of the list in that had no slot.
    fn admit_listed(&mut self, out: &mut Vec<Event>) {
        let taken = self.members.mask().or(self.resting.mask());
        let mut listed = std::mem::take(&mut self.listed).into_iter();
        for slot in BackendMask::ALL.without(taken).iter() {
            let Some(identity) = listed.next() else {
                return;
            };
            self.changes += 1;
            self.members
                .insert(slot, Known::listed(identity, self.changes));
            self.exchange.forget_host(identity.address);
            self.exchange.hurry();
            out.push(Event::Admitted(slot));
        }
        self.listed = listed.collect();
    }

    /// Whether this node may own the VIP, as far as the other members know it. `now` matters where
    /// agents are heard that have not proved that they are members. Until they have, one of them
    /// owns the VIP: an established one, or else the one with the lowest address.
    pub(crate) fn may_own(&self, now: BootNanos) -> bool {
        (self.confirmed || self.is_last) && !self.exchange.gives_way(now, self.is_established())
    }

    /// Whether this node may reset segments, as far as members are concerned: all living ones know
    /// it, and it knows all that they know.
    pub(crate) fn may_reset(&self, now: BootNanos) -> bool {
        let all_installed = self.members.values().all(|known| known.installed);
        self.confirmed && all_installed && !self.exchange.holds(now)
    }

    /// Brings all in line after an input. `living`: the members that are not gone. `hears`: whether
    /// the BFD session with a node is up on both sides.
    pub(crate) fn settle(
        &mut self,
        now: BootNanos,
        living: BackendMask,
        hears: impl Fn(BackendIndex) -> bool,
        out: &mut Vec<Event>,
    ) {
        self.settle_joining(now, hears);
        self.settle_confirmed(living, out);
        self.forget_gone(now, living, out);
        self.forget_untold(now, out);
        self.resting_is_over(now);
        self.admit_listed(out);
        let changed = self.changes > self.requested.0;
        if changed && self.requested.0 == self.installed {
            self.requested = (self.changes, self.members.mask());
            out.push(Event::Install(Box::new(Installation {
                number: self.changes,
                members: self.members.map(|_, known| known.identity),
            })));
        }
    }

    /// Ends joining once its time limit is over or all other nodes are known. A node that knows no
    /// other one waits for the limit: others may not have answered yet.
    fn settle_joining(&mut self, now: BootNanos, hears: impl Fn(BackendIndex) -> bool) {
        let Some(until) = self.joining else {
            return;
        };
        let knows = |slot| self.located.contains(slot) && hears(slot);
        let is_known = self.open.is_none() || self.confirmed && self.members.len() > 1;
        if now >= until || is_known && self.others().all(knows) {
            self.joining = None;
            // The others send it segments from now on.
            self.exchange.hurry();
        }
    }

    /// Finds out who is known to all living members.
    fn settle_confirmed(&mut self, living: BackendMask, out: &mut Vec<Event>) {
        let closed = self.open.is_none();
        let own = self.own;
        let installed = self.installed();
        let others = living.and(self.members.mask()).with(own, false);
        // Of a member of a closed list that has sent no hello, the list tells its row.
        let knows = |who: &Known, whom| match who.row {
            Some(row) => row.contains(whom),
            None => closed,
        };
        let is_known_to_all = |whom: BackendIndex| {
            let others = others.with(whom, false);
            others
                .iter()
                .all(|other| self.members.get(other).is_some_and(|who| knows(who, whom)))
        };
        let known_to_all: BackendMask = installed
            .iter()
            .filter(|whom| is_known_to_all(*whom))
            .collect();
        for (slot, known) in self.members.iter_mut() {
            let is_known = known_to_all.contains(slot);
            if closed {
                // A list that lacks it may be corrected, or become wrong, at any time. It has no
                // connections before all have it in theirs.
                known.confirmed = is_known;
                known.complete |= is_known;
            } else if slot != own
                && !known.confirmed
                && is_known
                && known.complete
                && known.heard.is_some()
            {
                known.confirmed = true;
                self.exchange.hurry();
                out.push(Event::Confirmed(slot));
            }
        }
        let own_is_known = known_to_all.contains(own);
        if closed {
            self.confirmed = own_is_known;
        } else {
            self.confirmed |= own_is_known && self.joining.is_none();
        }
    }

    /// The members in this node's rank table.
    fn installed(&self) -> BackendMask {
        self.members.which(|_, known| known.installed)
    }

    /// Forgets members that have been gone for long.
    fn forget_gone(&mut self, now: BootNanos, living: BackendMask, out: &mut Vec<Event>) {
        let Some(open) = self.open else {
            return;
        };
        let mut over = BackendMask::EMPTY;
        for (slot, known) in self.members.iter_mut() {
            if living.contains(slot) || slot == self.own {
                known.gone_since = None;
            } else if now.since(*known.gone_since.get_or_insert(now)) >= open.forget_after {
                over = over.with(slot, true);
            }
        }
        for slot in over.iter() {
            self.remove(now, slot, out);
        }
    }

    /// Forgets members that an earlier agent knew, and that nobody knows any more: they have left
    /// while this node was away.
    fn forget_untold(&mut self, now: BootNanos, out: &mut Vec<Event>) {
        if self.told_until().is_none_or(|until| now < until) {
            return;
        }
        for slot in self.untold().iter() {
            self.remove(now, slot, out);
        }
    }

    /// The other members that nobody has told of.
    fn untold(&self) -> BackendMask {
        let untold = self.members.which(|_, known| !known.told);
        untold.with(self.own, false)
    }

    /// When others have told of all members; `None` if nobody was heard, or all were told of.
    fn told_until(&self) -> Option<BootNanos> {
        let waits = self.open.is_some() && !self.untold().is_empty();
        let met = self.exchange.met.filter(|_| waits)?;
        Some(met.after(self.exchange.telling_time()))
    }

    fn resting_is_over(&mut self, now: BootNanos) {
        let is_over = |until: &Option<BootNanos>| until.is_some_and(|until| now >= until);
        for slot in self.resting.which(|_, until| is_over(until)).iter() {
            self.resting.remove(slot);
        }
    }

    /// The rank table with this number is in use.
    pub(crate) fn on_installed(&mut self, now: BootNanos, number: u64) {
        let (requested, members) = self.requested;
        if number != requested {
            return;
        }
        self.installed = number;
        for (slot, known) in self.members.iter_mut() {
            known.installed |= members.contains(slot) && known.since <= number;
        }
        for (_, until) in self.resting.iter_mut() {
            until.get_or_insert(now.after(REST));
        }
        self.exchange.hurry();
    }

    /// Takes a member in. Returns its slot, or `None` if there is none.
    fn admit(
        &mut self,
        now: BootNanos,
        identity: Identity,
        instance: Instance,
        out: &mut Vec<Event>,
    ) -> Option<BackendIndex> {
        let taken = self.members.mask().or(self.resting.mask());
        let free = BackendMask::ALL.without(taken).iter().next();
        let Some(slot) = free else {
            if self.members.len() == MAX_BACKENDS {
                self.evict(now, identity.address, out);
            }
            out.push(Event::Full(identity.address));
            return None;
        };
        self.changes += 1;
        let known = Known::new(identity, instance, self.changes);
        self.members.insert(slot, known);
        self.exchange.hurry();
        out.push(Event::Admitted(slot));
        Some(slot)
    }

    /// Of newcomers that are not confirmed, the lowest address stays, so that two which were admitted
    /// on two sides do not keep each other out for ever.
    fn evict(&mut self, now: BootNanos, newcomer: IpAddr, out: &mut Vec<Event>) {
        let unconfirmed = self.members.iter().filter(|(slot, known)| {
            *slot != self.own && !known.confirmed && known.identity.address > newcomer
        });
        let last = unconfirmed.max_by_key(|(_, known)| known.identity.address);
        if let Some(slot) = last.map(|(slot, _)| slot) {
            self.remove(now, slot, out);
        }
    }

    /// Removes a member, and remembers that it was removed.
    fn remove(&mut self, now: BootNanos, slot: BackendIndex, out: &mut Vec<Event>) {
        let Some(known) = self.members.remove(slot) else {
            return;
        };
        let address = known.identity.address;
        // With a list, its agent is a stranger from now on.
        if let Some(instance) = known.instance.filter(|_| self.open.is_some()) {
            self.exchange.bury(now, address, instance);
        }
        for (_, other) in self.members.iter_mut() {
            other.row = other.row.map(|row| row.with(slot, false));
        }
        self.located = self.located.with(slot, false);
        self.resting.insert(slot, None);
        self.changes += 1;
        self.exchange.hurry();
        out.push(Event::Removed(slot, address));
    }

    /// `vip forget`: removes a member that is gone. Returns whether there was one.
    pub(crate) fn forget(
        &mut self,
        now: BootNanos,
        address: IpAddr,
        living: BackendMask,
        out: &mut Vec<Event>,
    ) -> bool {
        let slot = self.slot(address).filter(|slot| *slot != self.own);
        let slot = slot.filter(|slot| self.open.is_some() && !living.contains(*slot));
        if let Some(slot) = slot {
            self.remove(now, slot, out);
        }
        slot.is_some()
    }

    /// When [`Self::settle`] may have something to do; `None` if nothing waits for a time.
    pub(crate) fn next_deadline(&self) -> Option<BootNanos> {
        let resting = self.resting.values().filter_map(|until| *until);
        let forgotten = self.open.into_iter().flat_map(|open| {
            let gone = self.members.values().filter_map(|known| known.gone_since);
            gone.map(move |since| since.after(open.forget_after))
        });
        let hello = self.exchange.next_deadline();
        resting
            .chain(forgotten)
            .chain(self.joining)
            .chain(hello)
            .chain(self.told_until())
            .min()
    }
}

#[cfg(test)]
mod tests;
