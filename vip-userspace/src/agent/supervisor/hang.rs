//! Servers that hang: what becomes of them, and of the connections on this node's own.

use std::io;
use std::time::Duration;

use vip_common::abi::{BackendIndex, CheckIndex};

use super::Supervisor;
use super::peer::Hanging;
use super::rosters::ends;
use crate::clock::now;
use crate::net::diag::SocketDiag;
use crate::observe::event::Event;
use vip_node::Input;
use vip_node::health::Hang;

/// How long this node's server must hang until its connections are reset, if that is configured.
const PATIENCE: Duration = Duration::from_secs(1);

/// The failure to do so.
const NO_RESET: &str =
    "cannot reset the connections of a server that hangs (`reset_on_hang` in [health])";

impl Supervisor {
    /// A server of this node does not accept connections, or does again.
    pub(in crate::agent) fn on_queue(
        &mut self,
        generation: u32,
        check: CheckIndex,
        hang: Option<Hang>,
    ) {
        if generation != self.checking.generation {
            return;
        }
        self.checking.hung[check.get()] = hang.is_some();
        self.node_thread.tell(Input::Hang { check, hang });
    }

    /// The kernel cannot be asked for accept queues.
    pub(in crate::agent) fn on_no_queues(&mut self, error: &io::Error) {
        let what = "cannot look at accept queues: only probes find that this node's server hangs";
        self.journal.note(Event::failed(what, error.to_string()));
    }

    /// Says whether the kernel cannot do what `reset_on_hang` needs.
    pub(super) fn tell_of_reset(&mut self) {
        if self.config.health.reset_on_hang
            && let Err(error) = SocketDiag::open().and_then(|diag| diag.can_reset())
        {
            let event = Event::failed(NO_RESET, error.to_string());
            self.journal.note(event);
        }
    }

    /// Keeps why a server counts as one that hangs.
    pub(super) fn note_hang(&mut self, node: BackendIndex, check: CheckIndex, hang: Option<Hang>) {
        let peer = self.peers.get_mut(node);
        let Some(known) = peer.and_then(|peer| peer.hangs.get_mut(check.get())) else {
            return;
        };
        *known = hang.map(|hang| Hanging {
            hang,
            ..known.unwrap_or(Hanging {
                hang,
                since: now(),
                was_reset: false,
            })
        });
    }

    /// Resets the connections on servers of this node that have hung for long enough, so that their
    /// clients go to other nodes.
    pub(in crate::agent) fn reset_hung(&mut self) {
        if !self.config.health.reset_on_hang {
            return;
        }
        for check in CheckIndex::first(self.config.checks.len()) {
            let own = self.peers.get_mut(self.cluster.own());
            let Some(known) = own.and_then(|own| own.hangs[check.get()].as_mut()) else {
                continue;
            };
            if known.was_reset || now().since(known.since) < PATIENCE {
                continue;
            }
            known.was_reset = true;
            let port = self.config.checks[check.get()].port;
            let ends = ends(&self.config, &self.cluster, |service| {
                service.check == check
            });
            let reset =
                SocketDiag::open().and_then(|diag| diag.reset_all(&diag.connections_to(&ends)?));
            self.journal.note(match reset {
                Ok(connections) => Event::hung_reset(port, connections),
                Err(error) => Event::failed(NO_RESET, error.to_string()),
            });
        }
    }
}
