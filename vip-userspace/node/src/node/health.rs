//! Servers: what probes find, and what the other nodes are told of it.

use vip_common::abi::{BackendIndex, CheckIndex};
use vip_common::wire::time::BootNanos;

use super::Node;
use crate::action::{Action, Report};
use crate::bfd;
use crate::health::{Hang, Probe, Transition};
use crate::selection::Selection;

impl Node {
    pub(super) fn on_probe(
        &mut self,
        now: BootNanos,
        node: BackendIndex,
        check: CheckIndex,
        found: Probe,
        out: &mut Vec<Action>,
    ) {
        let found = self.liveness.dated(node, found);
        if found.is_silent() && node != self.members.own() && self.liveness.is_isolated() {
            // It is this node that is not reached.
            return;
        }
        if !found.is_silent() {
            self.live(now, out, |liveness, _, out| {
                liveness.on_sign_of_life(now, node, out);
            });
        }
        self.change_health(node, check, out, |selection| {
            selection.on_probe(node, check, found)
        });
        let alive = self.selection.is_alive(node);
        self.live(now, out, |liveness, _, out| {
            liveness.conclude(now, node, alive, out);
        });
        self.tell_path(now, out);
    }

    pub(super) fn set_hang(
        &mut self,
        now: BootNanos,
        node: BackendIndex,
        check: CheckIndex,
        hang: Option<Hang>,
        out: &mut Vec<Action>,
    ) {
        self.change_health(node, check, out, |selection| {
            selection.set_hang(now, node, check, hang)
        });
    }

    /// Changes what is known of a server, and reports it.
    pub(super) fn change_health<T: IntoIterator<Item = Transition>>(
        &mut self,
        node: BackendIndex,
        check: CheckIndex,
        out: &mut Vec<Action>,
        change: impl FnOnce(&mut Selection) -> T,
    ) {
        let before = self.selection.hang(node, check);
        let report = |change| {
            Action::Report(Report::Health {
                node,
                check,
                change,
            })
        };
        out.extend(change(&mut self.selection).into_iter().map(report));
        let hang = self.selection.hang(node, check);
        if before != hang {
            out.push(Action::Report(Report::Hang { node, check, hang }));
        }
    }

    /// Tells the other nodes, by BFD and by the priority, whether this one is good for new
    /// connections.
    pub(super) fn tell_path(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        let own = self.members.own();
        let path = if self.selection.is_draining(own) {
            bfd::Path::Drains
        } else if self.selection.hang(own, CheckIndex::API).is_some() {
            bfd::Path::Hangs
        } else {
            bfd::Path::Serves
        };
        self.live(now, out, |liveness, members, out| {
            liveness.set_path(now, members, path, out);
        });
    }
}
