//! How the agent has BFD's port: shared with other programs of the node, alone, or not at all.

use std::net::IpAddr;

use vip_common::wire::bfd::PORT;

use crate::config::Config;
use crate::datapath::{BfdPort, Loader, Pins};
use crate::net::Nic;
use crate::net::bfd::{BfdSocket, is_port_taken};

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
    pub(super) fn open(
        config: &Config,
        peers: &[IpAddr],
        nic: &Nic,
        pins: &Pins,
        loader: &mut Loader,
    ) -> (Self, Option<BfdSocket>) {
        let remove = || {
            if let Err(error) = BfdPort::remove(pins) {
                tracing::warn!(%error, "cannot remove the program for BFD's port");
            }
        };
        if config.bfd.is_none() {
            remove();
            return (Self::Off, None);
        }
        let refused = match share(nic, peers, pins, loader) {
            Ok((port, socket)) => return (Self::Shared(Box::new(port)), Some(socket)),
            Err(error) => brief(&error),
        };
        remove();
        match BfdSocket::open_alone(&nic.name, nic.address, peers) {
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

fn share(
    nic: &Nic,
    peers: &[IpAddr],
    pins: &Pins,
    loader: &mut Loader,
) -> anyhow::Result<(BfdPort, BfdSocket)> {
    let socket = BfdSocket::open_shared(&nic.name, nic.address, peers)?;
    let mut port = BfdPort::load(loader, nic.address, peers, &socket)?;
    port.set_shared(is_port_taken(nic.address)?)?;
    port.attach(pins)?;
    Ok((port, socket))
}
