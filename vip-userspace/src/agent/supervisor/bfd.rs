//! Looks after BFD's port: whether the agent still has it, and who else does.

use vip_common::wire::bfd::PORT;

use super::Supervisor;
use super::bfd_access::Access;
use crate::agent::node_thread::Command;
use crate::datapath::Loader;
use crate::net::bfd::is_port_taken;
use crate::observe::event::{Event, Repair};
use crate::observe::status;
use vip_node::{Fault, Input};

impl Supervisor {
    /// Looks whether the agent still gets its packets, and who else has the port. Opens it if it is
    /// not.
    pub(super) fn look_at_bfd(&mut self) {
        match &mut self.sockets.bfd {
            Access::Off | Access::Alone => {}
            Access::Shared(port) => {
                let repaired = port.is_attached().and_then(|attached| {
                    if attached {
                        return Ok(false);
                    }
                    port.attach(&self.pins).map(|()| true)
                });
                match repaired {
                    Ok(false) => {}
                    Ok(true) => self.journal.note(Event::repaired(Repair::BfdPort)),
                    Err(error) => self
                        .journal
                        .note(Event::not_repaired(Repair::BfdPort, error.to_string())),
                }
                let taken = match is_port_taken(self.nic.address) {
                    Ok(taken) => taken,
                    Err(error) => {
                        tracing::warn!(%error, "cannot find out whether another program has UDP port {PORT}");
                        return;
                    }
                };
                match port.set_shared(taken) {
                    Ok(false) => {}
                    Ok(true) => self.journal.note(Event::bfd_port(taken)),
                    Err(error) => {
                        tracing::warn!(%error, "cannot tell the eBPF program whether another program has UDP port {PORT}");
                    }
                }
            }
            Access::Lost(told) => {
                let (access, socket) = Access::open(
                    &self.config,
                    &self.cluster.peers(),
                    &self.nic,
                    &self.pins,
                    &mut Loader::default(),
                );
                if let Access::Lost(why) = &access
                    && why == told
                {
                    return;
                }
                self.sockets.bfd = access;
                self.node_thread.tell(Command::Bfd(socket));
                self.tell_of_bfd();
            }
        }
    }

    /// Says whether the port is lost.
    pub(super) fn tell_of_bfd(&mut self) {
        let lost = matches!(self.sockets.bfd, Access::Lost(_));
        self.node_thread.tell(Input::Fault {
            fault: Fault::BfdPort,
            present: lost,
        });
        if let Access::Lost(why) = &self.sockets.bfd {
            self.journal.note(Event::failed(
                format!(
                    "UDP port {PORT} (BFD) cannot be opened, and is tried again every 2 s: end \
                     the program that has it (FRR's bfdd, BIRD), or set `enabled = false` in [bfd]"
                ),
                why.clone(),
            ));
        }
    }

    /// For `vip status`.
    pub(super) fn bfd_port(&self) -> Option<status::BfdPort> {
        match &self.sockets.bfd {
            Access::Off => None,
            Access::Shared(port) if port.is_shared() => Some(status::BfdPort::Shared),
            Access::Shared(_) => Some(status::BfdPort::Sole),
            Access::Alone => Some(status::BfdPort::Bound),
            Access::Lost(_) => Some(status::BfdPort::Lost),
        }
    }
}
