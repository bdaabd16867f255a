//! Members that come and go: hellos, and what the other parts of a node make of them.

use std::net::IpAddr;

use vip_common::abi::BackendMask;
use vip_common::wire::time::BootNanos;

use super::Node;
use crate::action::{Action, Report};
use crate::bfd::Session;
use crate::election::State;
use crate::faults::Fault;
use crate::hello::{Hello, Instance};
use crate::membership;
use crate::rank::Identity;

impl Node {
    /// The members that are not gone, this node among them.
    fn living(&self) -> BackendMask {
        self.liveness.not_gone().with(self.members.own(), true)
    }

    pub(super) fn on_hello(
        &mut self,
        now: BootNanos,
        source: IpAddr,
        hello: &Hello,
        admits: bool,
        out: &mut Vec<Action>,
    ) {
        let mut events = Vec::new();
        let living = self.living();
        self.members
            .on_hello(now, source, hello, admits, living, &mut events);
        self.act_on_members(now, events, out);
    }

    pub(super) fn on_proved(
        &mut self,
        now: BootNanos,
        address: IpAddr,
        instance: Instance,
        out: &mut Vec<Action>,
    ) {
        let mut events = Vec::new();
        self.members.on_proved(now, address, instance, &mut events);
        self.act_on_members(now, events, out);
    }

    pub(super) fn on_list(&mut self, now: BootNanos, list: Vec<Identity>, out: &mut Vec<Action>) {
        let mut events = Vec::new();
        self.members.set_list(now, list, &mut events);
        self.act_on_members(now, events, out);
    }

    pub(super) fn forget(&mut self, now: BootNanos, address: IpAddr, out: &mut Vec<Action>) {
        let mut events = Vec::new();
        let living = self.living();
        self.members.forget(now, address, living, &mut events);
        self.act_on_members(now, events, out);
    }

    /// Brings members in line after an input, and sends a hello if one is due.
    pub(super) fn settle_members(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        let mut events = Vec::new();
        let living = self.living();
        let hears = |slot| self.liveness.hear_each_other(slot);
        self.members.settle(now, living, hears, &mut events);
        self.act_on_members(now, events, out);
        if !self.started || self.transfer.has_left() {
            return;
        }
        if self.election.state() == State::Active {
            self.members.on_owned();
        }
        if self.liveness.is_last(now) {
            self.members.on_last();
        }
        // Nobody may be left who could know this node: it serves, and resets nothing.
        let unconfirmed = !self.members.may_own(now) && !self.liveness.is_silent();
        self.on_fault(now, Fault::Unconfirmed, unconfirmed, out);
        let drains = self.selection.is_draining(self.members.own());
        let last_sign = |slot| self.liveness.last_sign(slot);
        if let Some((hello, also)) = self.members.take_hello(now, drains, last_sign) {
            let hello = Box::new(hello);
            out.push(Action::SendHello { hello, also });
        }
    }

    /// Tells the others that this node leaves the cluster, if it does.
    pub(super) fn say_good_bye(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        /// Nobody asks again for one that is lost.
        const TIMES: usize = 3;
        if let Some((hello, also)) = self.members.take_good_bye(now) {
            let hello = Box::new(hello);
            let farewell = Action::SendHello { hello, also };
            out.extend(std::iter::repeat_n(farewell, TIMES));
        }
        self.members.end();
    }

    fn act_on_members(
        &mut self,
        now: BootNanos,
        events: Vec<membership::Event>,
        out: &mut Vec<Action>,
    ) {
        for event in events {
            match event {
                membership::Event::Admitted(node) => {
                    let Some(member) = self.members.member(node) else {
                        continue;
                    };
                    let address = member.address;
                    out.push(Action::Report(Report::Admitted { node, address }));
                    self.selection.admit(node);
                    self.live(now, out, |liveness, members, out| {
                        let heard = members.is_open();
                        liveness.admit(now, node, members.all().count(), heard, out);
                    });
                }
                membership::Event::Removed(node, address) => {
                    self.selection.remove(node);
                    self.ownership.remove(node);
                    self.conflicts.remove(node);
                    self.liveness.remove(node, self.members.all().count());
                    out.push(Action::Report(Report::Removed { node, address }));
                }
                membership::Event::Evidence(node, at) => {
                    self.liveness.on_evidence(now, node, at);
                }
                membership::Event::Believed {
                    slot,
                    fresh_until,
                    drains,
                    leaves,
                } => {
                    self.live(now, out, |liveness, _, out| {
                        liveness.on_hello(now, slot, fresh_until, out);
                    });
                    // BFD tells it sooner, but not after a good-bye.
                    if leaves || self.bfd(slot).and_then(Session::remote_path).is_none() {
                        self.selection.set_draining(slot, drains, out);
                    }
                }
                membership::Event::Told(node, text) => {
                    out.push(Action::Report(Report::Told { node, text }));
                }
                membership::Event::Prove(address, instance) => {
                    out.push(Action::Prove { address, instance });
                }
                membership::Event::Stranger(address) => {
                    out.push(Action::Report(Report::Stranger(address)));
                }
                membership::Event::Full(address) => {
                    out.push(Action::Report(Report::Full(address)));
                }
                membership::Event::Confirmed(node) => {
                    out.push(Action::Report(Report::Confirmed(node)));
                }
                membership::Event::Install(installation) => {
                    out.push(Action::Install(installation));
                }
            }
        }
    }
}
