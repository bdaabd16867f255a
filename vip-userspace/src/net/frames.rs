//! Whole Ethernet frames, in and out by one NIC: what ARP and Neighbour Discovery are spoken by.

use std::io::{self, Read as _};
use std::sync::atomic::{AtomicU64, Ordering};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vip_common::layout::{Be16, Mac};

use super::filter::Filter;
use super::{Nic, raw};

/// A packet socket for the frames of one EtherType.
#[derive(Debug)]
pub(super) struct FrameSocket {
    socket: AsyncFd<Socket>,
    /// The NIC's Ethernet address, a [`Mac`]: it may change while another thread sends.
    mac: AtomicU64,
}

impl FrameSocket {
    /// Opens it. Only frames that pass the filter come in. Must be called within a tokio runtime.
    pub(super) fn open(nic: &Nic, ether_type: Be16, filter: Filter) -> io::Result<Self> {
        // Protocol 0 gets nothing until it is bound; else it would get that of all NICs.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        filter.attach(&socket)?;
        socket.bind(&raw::link_layer(nic.index, ether_type)?)?;
        let opened = Self {
            socket: raw::readable(socket)?,
            mac: AtomicU64::new(0),
        };
        opened.set_mac(nic.mac);
        Ok(opened)
    }

    /// The NIC has another Ethernet address.
    pub(super) fn set_mac(&self, mac: [u8; 6]) {
        let word = bytemuck::cast(Mac::from_wire(mac));
        self.mac.store(word, Ordering::Relaxed);
    }

    /// The NIC's Ethernet address.
    pub(super) fn mac(&self) -> [u8; 6] {
        let mac: Mac = bytemuck::cast(self.mac.load(Ordering::Relaxed));
        mac.to_wire()
    }

    /// Sends a frame, Ethernet header included.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.get_ref().send(frame).map(drop)
    }

    /// The next frame that XDP passed, Ethernet header included, and cut to what `buffer` holds.
    /// Cancel-safe.
    pub(super) async fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let length = self
            .socket
            .async_io(Interest::READABLE, |mut socket| socket.read(buffer))
            .await?;
        Ok(&buffer[..length])
    }
}
