//! The state of the exchange of hellos: when they are sent, and which are believed.

use std::net::IpAddr;
use std::time::Duration;

use vip_common::wire::time::BootNanos;

use crate::hello::{Hello, Instance};
use crate::input::Params;

/// Hello intervals within which a hello must answer one of this node's to be believed, and an agent
/// that was heard counts as one that is there now.
const FRESH: u32 = 5;

/// Hello intervals in which nothing is reset after a sign of an agent that is no known member: it
/// may have the connection.
const HOLD: u32 = 3;

/// Hello intervals that an agent which is no member has for proving that it may be one. Until then it
/// counts as one that may have connections.
const PROOF: u32 = 30;

/// Least time between two hellos, as a part of the interval.
const SPACING: u32 = 50;

/// Agents that are heard and not believed, at most. More than that are a flood.
const MAX_HOSTS: usize = 32;

/// How long it is remembered that a member was forgotten: as long as anybody may tell of it.
const BURIED: Duration = Duration::from_secs(3600);

/// Members that were forgotten lately, at most.
const MAX_BURIED: usize = 16;

/// An agent that is heard, and not believed: it is no member, or a member's agent that has just
/// started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    pub(super) address: IpAddr,
    pub(super) instance: Instance,
    pub(super) latest: u32,
    pub(super) weight: u16,
    /// When this run of it was heard first, and last.
    pub(super) since: BootNanos,
    pub(super) at: BootNanos,
    /// It is no member, and has not proved that it may be one.
    pub(super) unproved: bool,
    /// It has owned the VIP, or has other members.
    pub(super) established: bool,
}

/// A member that was forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buried {
    pub(super) address: IpAddr,
    pub(super) instance: Instance,
    pub(super) at: BootNanos,
}

/// The state of the exchange of hellos.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) address: IpAddr,
    pub(super) instance: Instance,
    /// Tags of the VIPs.
    pub(super) vips: Vec<u64>,
    pub(super) interval: Duration,
    /// Number of the last hello that was sent.
    pub(super) number: u32,
    /// Numbers and times of the last hellos, the latest first.
    sent: Vec<(u32, BootNanos)>,
    /// When the next hello is due; `None` before the start.
    next: Option<BootNanos>,
    /// Something has changed that the others should know.
    hurries: bool,
    pub(super) hosts: Vec<Host>,
    pub(super) buried: Vec<Buried>,
    /// Nothing is reset until then.
    held_until: BootNanos,
    /// When the first hello of a member was believed.
    pub(super) met: Option<BootNanos>,
    pub(super) leaves: bool,
    /// What this node tells of itself.
    pub(super) text: String,
}

impl Exchange {
    pub(super) fn new(params: &Params, address: IpAddr, instance: Instance) -> Self {
        Self {
            address,
            instance,
            vips: params.vips.clone(),
            interval: params.hello_interval,
            number: 0,
            sent: Vec::new(),
            next: None,
            hurries: false,
            hosts: Vec::new(),
            buried: Vec::new(),
            held_until: BootNanos::ZERO,
            met: None,
            leaves: false,
            text: String::new(),
        }
    }

    /// Another time between hellos.
    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
        self.hurry();
    }

    pub(super) fn on_start(&mut self, now: BootNanos) {
        self.next = Some(now);
    }

    /// No more hellos are sent.
    pub(super) fn end(&mut self) {
        self.next = None;
    }

    /// Counts a hello that is sent now, and forgets what is old.
    pub(super) fn on_hello_sent(&mut self, now: BootNanos) {
        self.number += 1;
        self.hurries = false;
        self.next = Some(now.after(self.interval));
        self.sent.insert(0, (self.number, now));
        let fresh = self.interval * FRESH;
        self.sent.retain(|(_, at)| now.since(*at) < fresh);
        self.hosts.retain(|host| now.since(host.at) < fresh);
        self.buried.retain(|buried| now.since(buried.at) < BURIED);
    }

    /// The next hello is sent as soon as may be.
    pub(super) fn hurry(&mut self) {
        self.hurries = true;
    }

    /// Whether nothing is to be reset now.
    pub(super) fn holds(&self, now: BootNanos) -> bool {
        now < self.held_until
    }

    /// How long members may take to tell of all others that there are.
    pub(super) fn telling_time(&self) -> Duration {
        self.interval * HOLD
    }

    pub(super) fn hold(&mut self, now: BootNanos) {
        self.held_until = now.after(self.interval * HOLD);
    }

    /// When the next hello is due.
    pub(super) fn next_deadline(&self) -> Option<BootNanos> {
        let next = self.next?;
        let last = self.sent.first().map_or(BootNanos::ZERO, |(_, at)| *at);
        let soonest = last.after(self.interval / SPACING);
        Some(if self.hurries {
            next.min(soonest)
        } else {
            next
        })
    }

    /// Whether this node gives way to an agent that has not proved to be a member: one that is
    /// established, if this node is not; of two that are alike, the one with the lower address.
    pub(super) fn gives_way(&self, now: BootNanos, established: bool) -> bool {
        let goes_first = |host: &Host| match (host.established, established) {
            (true, false) => true,
            (false, true) => false,
            (true, true) | (false, false) => host.address < self.address,
        };
        let mut hosts = self.hosts.iter();
        hosts.any(|host| host.unproved && goes_first(host) && self.is_fresh(now, host.at))
    }

    /// When this node sent the latest hello that this one answers; `None` if it answers none that was
    /// sent lately.
    pub(super) fn answered(&self, now: BootNanos, hello: &Hello) -> Option<BootNanos> {
        let named = hello.heard.iter();
        let named = named
            .filter(|heard| heard.address == self.address && heard.instance == self.instance)
            .map(|heard| heard.latest);
        let line = hello
            .members
            .iter()
            .find(|line| line.address == self.address);
        let line = line.filter(|line| line.instance == Some(self.instance));
        let latest = named.chain(line.map(|line| line.latest));
        let sent = latest.filter_map(|latest| {
            let sent = self.sent.iter().find(|(number, _)| *number == latest)?;
            Some(sent.1)
        });
        sent.filter(|at| self.is_fresh(now, *at)).max()
    }

    /// Whether the sender of a hello hears this node, and does not believe it yet: it waits for an
    /// answer.
    pub(super) fn is_asked(&self, hello: &Hello) -> bool {
        let mut heard = hello.heard.iter();
        heard.any(|heard| heard.address == self.address)
    }

    /// Whether something of that time counts as now.
    pub(super) fn is_fresh(&self, now: BootNanos, at: BootNanos) -> bool {
        now < self.fresh_until(at)
    }

    /// Until when something of that time counts as now.
    pub(super) fn fresh_until(&self, at: BootNanos) -> BootNanos {
        at.after(self.interval * FRESH)
    }

    /// An agent is believed, or a member now.
    pub(super) fn forget_host(&mut self, address: IpAddr) {
        self.hosts.retain(|host| host.address != address);
    }

    /// Notes an agent that is not believed. It gets an answer at once.
    pub(super) fn note_host(
        &mut self,
        now: BootNanos,
        address: IpAddr,
        hello: &Hello,
        unproved: bool,
    ) {
        let instance = hello.instance;
        let known = self.hosts.iter().find(|host| host.address == address);
        let known = known.filter(|host| host.instance == instance);
        let since = known.map_or(now, |host| host.since);
        self.forget_host(address);
        self.hosts.insert(
            0,
            Host {
                address,
                instance,
                latest: hello.number,
                weight: hello.sender().weight,
                since,
                at: now,
                unproved,
                established: hello.established,
            },
        );
        self.hosts.truncate(MAX_HOSTS);
        self.hurry();
    }

    /// Nothing is reset for some time, because this agent may have the connection: for longer only
    /// if it proves that it may be a member.
    pub(super) fn hold_for(&mut self, now: BootNanos, address: IpAddr) {
        let host = self.hosts.iter().find(|host| host.address == address);
        if host.is_some_and(|host| now.since(host.since) < self.interval * PROOF) {
            self.hold(now);
        }
    }

    /// Notes an agent that is not in the closed list. It gets an answer at once when it is new: it hears
    /// this node, so that two would otherwise answer each other without end.
    pub(super) fn note_stranger(&mut self, now: BootNanos, address: IpAddr, hello: &Hello) {
        let is_it = |host: &Host| (host.address, host.instance) == (address, hello.instance);
        let hurries = self.hurries || !self.hosts.iter().any(is_it);
        self.note_host(now, address, hello, false);
        self.hurries = hurries;
    }

    /// Remembers that a member was forgotten.
    pub(super) fn bury(&mut self, now: BootNanos, address: IpAddr, instance: Instance) {
        self.dig_up(address, instance);
        self.buried.insert(
            0,
            Buried {
                address,
                instance,
                at: now,
            },
        );
        self.buried.truncate(MAX_BURIED);
    }

    /// When a member was forgotten; `None` if this run of it was not.
    pub(super) fn buried(&self, address: IpAddr, instance: Instance) -> Option<BootNanos> {
        let mut buried = self.buried.iter();
        let found = buried.find(|buried| buried.address == address && buried.instance == instance);
        found.map(|buried| buried.at)
    }

    /// A run that was forgotten goes on: it may be a member again.
    pub(super) fn dig_up(&mut self, address: IpAddr, instance: Instance) {
        self.buried
            .retain(|buried| buried.address != address || buried.instance != instance);
    }
}
