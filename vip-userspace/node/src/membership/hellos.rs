//! Hellos: what they say, and what this node learns by them.

use std::net::IpAddr;
use std::time::Duration;

use vip_common::abi::{BackendIndex, BackendMask};
use vip_common::wire::time::BootNanos;

use super::{Event, Membership};
use crate::hello::{Heard, Hello, Instance, Line, MAX_FORGOTTEN, MAX_HEARD, MAX_TEXT};
use crate::rank::Identity;

impl Membership {
    /// The others should know soon what has changed.
    pub(crate) fn hurry(&mut self) {
        self.exchange.hurry();
    }

    /// What this node tells of itself from now on. Too long a text is cut between two characters.
    /// `at_once`: a hello is due.
    pub(crate) fn set_text(&mut self, mut text: String, at_once: bool) {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        if self.exchange.text != text {
            self.exchange.text = text;
            if at_once {
                self.exchange.hurry();
            }
        }
    }

    /// This node will leave the cluster when its agent ends.
    pub(crate) fn leave(&mut self) {
        self.exchange.leaves = true;
    }

    /// The last hello of a node that leaves the cluster.
    pub(crate) fn take_good_bye(&mut self, now: BootNanos) -> Option<(Hello, Vec<IpAddr>)> {
        if !self.exchange.leaves {
            return None;
        }
        let (hello, also) = self.make_hello(now, true, |_| None)?;
        let leaves = true;
        Some((Hello { leaves, ..hello }, also))
    }

    /// The hello that is due, and hosts that get it though they are no members. `last_sign`: when this
    /// node itself last had a sign that a member lives.
    pub(crate) fn take_hello(
        &mut self,
        now: BootNanos,
        drains: bool,
        last_sign: impl Fn(BackendIndex) -> Option<BootNanos>,
    ) -> Option<(Hello, Vec<IpAddr>)> {
        if self.exchange.next_deadline()? > now {
            return None;
        }
        self.make_hello(now, drains, last_sign)
    }

    pub(crate) fn make_hello(
        &mut self,
        now: BootNanos,
        drains: bool,
        last_sign: impl Fn(BackendIndex) -> Option<BootNanos>,
    ) -> Option<(Hello, Vec<IpAddr>)> {
        let slots: Vec<BackendIndex> = self.members.mask().iter().collect();
        let own_row = self.installed();
        let joins = self.is_joining();
        let established = self.is_established();
        let members = self.members.iter().map(|(slot, known)| {
            let own = slot == self.own;
            let row = if own { Some(own_row) } else { known.row };
            let is_fresh = |heard: &BootNanos| self.exchange.is_fresh(now, *heard);
            let heard = known.heard.filter(is_fresh);
            Line {
                address: known.identity.address,
                instance: known.instance,
                weight: known.identity.weight,
                installed: known.installed,
                age: if own {
                    Some(Duration::ZERO)
                } else {
                    let evidence = known.evidence.max(last_sign(slot));
                    evidence.map(|evidence| now.since(evidence))
                },
                latest: heard.map_or(0, |_| known.latest),
                row_number: if own {
                    self.exchange.number + 1
                } else {
                    known.row_number
                },
                row: row.map_or(0, |row| to_places(row, &slots)),
            }
        });
        let members = members.collect();
        let exchange = &mut self.exchange;
        exchange.on_hello_sent(now);
        let hosts = exchange.hosts.iter().take(MAX_HEARD);
        let heard = hosts.map(|host| Heard {
            address: host.address,
            instance: host.instance,
            latest: host.latest,
        });
        let buried = exchange.buried.iter().take(MAX_FORGOTTEN);
        let hello = Hello {
            instance: exchange.instance,
            number: exchange.number,
            leaves: false,
            drains,
            joins,
            established,
            vips: exchange.vips.clone(),
            members,
            own: slots.iter().position(|slot| *slot == self.own)?,
            heard: heard.collect(),
            forgotten: buried
                .map(|buried| (buried.address, buried.instance))
                .collect(),
            text: exchange.text.clone(),
        };
        let also = exchange.hosts.iter().map(|host| host.address).collect();
        Some((hello, also))
    }

    /// A hello came. `admits`: it proves that its sender may be a member: it was sealed with the key
    /// of the cluster, or anybody may. `living`: the members that are not gone.
    pub(crate) fn on_hello(
        &mut self,
        now: BootNanos,
        source: IpAddr,
        hello: &Hello,
        admits: bool,
        living: BackendMask,
        out: &mut Vec<Event>,
    ) {
        let exchange = &mut self.exchange;
        let is_ours = hello.vips.iter().any(|vip| exchange.vips.contains(vip));
        let sender = *hello.sender();
        if !is_ours || sender.address != source || source == exchange.address {
            return;
        }
        let answered = exchange.answered(now, hello);
        let believed = answered.is_some();
        if let Some(at) = exchange.buried(source, hello.instance) {
            if hello.leaves {
                return;
            }
            // A late copy, or a node that was forgotten and runs: it was cut off, or another host has
            // said good-bye in its name. Only one that runs hears and answers what was sent since then.
            if answered.is_none_or(|answered| answered <= at) {
                return exchange.note_host(now, source, hello, false);
            }
            exchange.dig_up(source, hello.instance);
        }
        let Some(slot) = self.slot(source) else {
            return self.on_outsider(now, hello, admits, believed, living, out);
        };
        let Some(known) = self.members.get_mut(slot) else {
            return;
        };
        let is_new = known.instance != Some(hello.instance);
        if !believed {
            if is_new || hello.number > known.latest {
                self.exchange.note_host(now, source, hello, false);
            }
            return;
        }
        if known.has_ended(hello.instance) || !is_new && hello.number <= known.latest {
            return;
        }
        if hello.leaves && self.open.is_some() {
            return self.remove(now, slot, out);
        }
        if is_new {
            known.restart(hello.instance, true);
            self.exchange.hurry();
        }
        self.exchange.forget_host(source);
        if self.exchange.is_asked(hello) {
            self.exchange.hurry();
        }
        self.learn(now, slot, hello, living, out);
        let mine = self.installed().and(living.with(self.own, true));
        let open = self.open.is_some();
        if let Some(known) = self.members.get_mut(slot).filter(|_| open) {
            let row = known.row.unwrap_or_default();
            // One that is joining forwards nothing: what it got would be lost.
            let complete = !hello.joins && mine.without(row).is_empty();
            // One that goes on where its former run ended is as well known as that was.
            known.confirmed &= !is_new || complete;
            known.complete = complete || known.complete && !is_new;
        }
    }

    /// Takes over what a believed hello of a member says.
    fn learn(
        &mut self,
        now: BootNanos,
        slot: BackendIndex,
        hello: &Hello,
        living: BackendMask,
        out: &mut Vec<Event>,
    ) {
        for (place, line) in hello.members.iter().enumerate() {
            if place == hello.own || line.address == self.exchange.address {
                continue;
            }
            match self.slot(line.address) {
                Some(about) => self.learn_of(now, about, line, out),
                None => self.learn_of_stranger(now, line, out),
            }
        }
        let places: Vec<Option<BackendIndex>> = hello
            .members
            .iter()
            .map(|line| self.slot(line.address))
            .collect();
        for (line, place) in hello.members.iter().zip(&places) {
            if let Some(about) = *place
                && about != self.own
                && about != slot
                && let Some(known) = self.members.get_mut(about)
                && known.instance == line.instance
                && line.row_number > known.row_number
            {
                known.row = Some(from_places(line.row, &places));
                known.row_number = line.row_number;
            }
        }
        let installed = hello.members.iter().zip(&places);
        let installed = installed.filter(|(line, _)| line.installed);
        let row: BackendMask = installed.filter_map(|(_, slot)| *slot).collect();
        if let Some(known) = self.members.get_mut(slot) {
            if known.row != Some(row) {
                self.exchange.hurry();
            }
            (known.row, known.row_number) = (Some(row), hello.number);
            (known.heard, known.latest) = (Some(now), hello.number);
            known.told = true;
            self.exchange.met.get_or_insert(now);
            let fresh_until = self.exchange.fresh_until(now);
            out.push(Event::Believed {
                slot,
                fresh_until,
                drains: hello.drains,
                leaves: hello.leaves,
            });
            if known.note_evidence(now) {
                out.push(Event::Evidence(slot, now));
            }
            if known.text != hello.text {
                known.text.clone_from(&hello.text);
                out.push(Event::Told(slot, hello.text.clone()));
            }
        }
        for (address, instance) in &hello.forgotten {
            self.learn_of_forgotten(now, *address, *instance, living, out);
        }
    }

    /// Another member tells of a member.
    fn learn_of(&mut self, now: BootNanos, about: BackendIndex, line: &Line, out: &mut Vec<Event>) {
        let Some(known) = self.members.get_mut(about) else {
            return;
        };
        known.told = true;
        let at = line.age.map(|age| now.before(age));
        if known.instance != line.instance {
            let Some(instance) = line.instance else {
                return;
            };
            // Its kernel may have been heard while another member still knew its former run.
            let exchange = &self.exchange;
            let heard = known
                .heard
                .is_some_and(|heard| exchange.is_fresh(now, heard));
            let fresher = at.is_some_and(|at| known.evidence.is_none_or(|known| at > known));
            let stays = known.instance.is_some() && (heard || !fresher);
            if stays || known.has_retired(instance) {
                return;
            }
            known.restart(instance, false);
        }
        if let Some(at) = at
            && known.note_evidence(at)
        {
            out.push(Event::Evidence(about, at));
        }
    }

    /// A member tells of a member that this node does not know.
    fn learn_of_stranger(&mut self, now: BootNanos, line: &Line, out: &mut Vec<Event>) {
        let at = line.age.map(|age| now.before(age));
        let at = at.filter(|at| self.exchange.is_fresh(now, *at));
        let (Some(at), Some(instance)) = (at, line.instance) else {
            return;
        };
        if let Some(buried) = self.exchange.buried(line.address, instance) {
            // The sender may not know yet that it is forgotten.
            if at < buried.after(self.exchange.telling_time()) {
                return;
            }
            self.exchange.dig_up(line.address, instance);
        }
        // It may have connections, which this node would reset.
        self.exchange.hold(now);
        if self.open.is_none() {
            out.push(Event::Stranger(line.address));
            return;
        }
        if let Some(slot) = self.admit(now, line.identity(), instance, out) {
            if let Some(known) = self.members.get_mut(slot) {
                known.note_evidence(at);
            }
            out.push(Event::Evidence(slot, at));
        }
    }

    /// A member tells that another one was forgotten.
    fn learn_of_forgotten(
        &mut self,
        now: BootNanos,
        address: IpAddr,
        instance: Instance,
        living: BackendMask,
        out: &mut Vec<Event>,
    ) {
        let Some(slot) = self.slot(address).filter(|slot| *slot != self.own) else {
            return;
        };
        let known = self.members.get(slot);
        // Of one that was never heard, only the address is known.
        let is_it = known.is_some_and(|known| known.instance.is_none_or(|known| known == instance));
        // One that is heard was forgotten by mistake, or has not finished to leave.
        let heard = known.and_then(|known| known.evidence);
        let is_heard = heard.is_some_and(|heard| self.exchange.is_fresh(now, heard));
        if is_it && self.open.is_some() && !(living.contains(slot) && is_heard) {
            self.remove(now, slot, out);
        }
    }

    /// A hello of an agent that is no member.
    fn on_outsider(
        &mut self,
        now: BootNanos,
        hello: &Hello,
        admits: bool,
        believed: bool,
        living: BackendMask,
        out: &mut Vec<Event>,
    ) {
        let sender = *hello.sender();
        if hello.leaves {
            return;
        }
        if self.open.is_none() {
            self.exchange.hold(now);
            out.push(Event::Stranger(sender.address));
            // It may have this node in its list, and learns by an answer that it is in no other.
            self.exchange.note_stranger(now, sender.address, hello);
            return;
        }
        self.exchange.note_host(now, sender.address, hello, !admits);
        self.exchange.hold_for(now, sender.address);
        if !believed {
            return;
        }
        if !admits {
            out.push(Event::Prove(sender.address, hello.instance));
            return;
        }
        if let Some(slot) = self.admit(now, sender.identity(), hello.instance, out) {
            self.learn(now, slot, hello, living, out);
            self.exchange.forget_host(sender.address);
        }
    }

    /// An agent has proved that it may be a member, since [`Event::Prove`].
    pub(crate) fn on_proved(
        &mut self,
        now: BootNanos,
        address: IpAddr,
        instance: Instance,
        out: &mut Vec<Event>,
    ) {
        let host = self
            .exchange
            .hosts
            .iter()
            .find(|host| host.address == address);
        let host = host.filter(|host| host.instance == instance);
        if let Some(weight) = host.map(|host| host.weight)
            && self.open.is_some()
            && self.slot(address).is_none()
        {
            let identity = Identity { address, weight };
            if self.admit(now, identity, instance, out).is_some() {
                self.exchange.forget_host(address);
            }
        }
    }
}

/// A set of slots as one of places: one bit for each slot in the list.
fn to_places(set: BackendMask, slots: &[BackendIndex]) -> u16 {
    let places = slots.iter().enumerate();
    let places = places.filter(|(_, slot)| set.contains(**slot));
    places.fold(0, |row, (place, _)| row | 1 << place)
}

/// The reverse. Places without a slot are left out.
fn from_places(row: u16, places: &[Option<BackendIndex>]) -> BackendMask {
    let places = places.iter().enumerate();
    let set = places.filter(|(place, _)| row >> place & 1 != 0);
    set.filter_map(|(_, slot)| *slot).collect()
}
