//! BFD's port: shared with other programs of the node, or taken alone, or lost and asked for again.

use std::net::IpAddr;

use vip_common::wire::bfd::PORT;

use super::Supervisor;
use crate::agent::node_thread::Command;
use crate::config::Config;
use crate::datapath::{BfdPort, Pins};
use crate::net::Nic;
use crate::net::bfd::{BfdSocket, is_port_taken};
use crate::observe::event::{Event, Repair};
use vip_node::{Fault, Input};

/// How this node has BFD's port.
pub(super) enum Access {
    /// BFD is off.
    Off,
    /// A program hands the agent its packets, and others theirs.
    Shared(Box<BfdPort>),
    /// The agent is bound to it, and no other program can be.
    Alone,
    /// It cannot be opened; why, as it was told last.
    Lost(String),
}

impl Access {
    /// Opens it, with a program if the kernel has that, else alone. The socket is missing if BFD is
    /// off or the port cannot be opened.
    pub(super) fn open(config: &Config, nic: &Nic, pins: &Pins) -> (Self, Option<BfdSocket>) {
        let remove = || {
            if let Err(error) = BfdPort::remove(pins) {
                tracing::warn!(%error, "cannot remove the program for BFD's port");
            }
        };
        if config.bfd.is_none() {
            remove();
            return (Self::Off, None);
        }
        let peers = config.peers(nic.node_index);
        let refused = match share(nic, &peers, pins) {
            Ok((port, socket)) => return (Self::Shared(Box::new(port)), Some(socket)),
            Err(error) => brief(&error),
        };
        remove();
        match BfdSocket::open_alone(&nic.name, nic.address, &peers) {
            Ok(socket) => {
                tracing::warn!(
                    %refused,
                    "UDP port {PORT} cannot be shared: no other BFD program can start on this node"
                );
                (Self::Alone, Some(socket))
            }
            Err(error) => (Self::Lost(format!("{error}; not shared: {refused}")), None),
        }
    }
}

/// An error without what the verifier says of each instruction, which is not the same twice.
fn brief(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    match text.split_once(" Verifier output:") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

fn share(nic: &Nic, peers: &[IpAddr], pins: &Pins) -> anyhow::Result<(BfdPort, BfdSocket)> {
    let socket = BfdSocket::open_shared(&nic.name, nic.address, peers)?;
    let mut port = BfdPort::load(nic.address, peers, &socket)?;
    port.set_shared(is_port_taken(nic.address)?)?;
    port.attach(pins)?;
    Ok((port, socket))
}

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
                    Ok(true) => self.journal.note(Event::Repaired(Repair::BfdPort)),
                    Err(error) => self.journal.note(Event::NotRepaired {
                        what: Repair::BfdPort,
                        cause: error.to_string(),
                    }),
                }
                let taken = match is_port_taken(self.nic.address) {
                    Ok(taken) => taken,
                    Err(error) => {
                        tracing::warn!(%error, "cannot look who else has UDP port {PORT}");
                        return;
                    }
                };
                match port.set_shared(taken) {
                    Ok(false) => {}
                    Ok(true) => self.journal.note(Event::BfdPort { shared: taken }),
                    Err(error) => tracing::warn!(%error, "cannot tell who else has the port"),
                }
            }
            Access::Lost(told) => {
                let (access, socket) = Access::open(&self.config, &self.nic, &self.pins);
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
            self.journal.note(Event::Failed {
                what: format!(
                    "UDP port {PORT} (BFD) cannot be opened, and is tried again every 2 s: end \
                     the program that has it (FRR's bfdd, BIRD), or set `enabled = false` in [bfd]"
                )
                .into(),
                cause: why.clone(),
            });
        }
    }

    /// For `vip status`.
    pub(super) fn bfd_port(&self) -> Option<&'static str> {
        match &self.sockets.bfd {
            Access::Off => None,
            Access::Shared(port) if port.is_shared() => Some("shared"),
            Access::Shared(_) => Some("sole"),
            Access::Alone => Some("bound"),
            Access::Lost(_) => Some("lost"),
        }
    }
}
