//! Whole Ethernet frames, in and out by one NIC: what ARP and Neighbour Discovery are spoken by.

use std::io::{self, Read as _};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::libc;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vip_common::wire::addr::{Be16, Be32, Mac};
use vip_common::wire::{arp, ethernet};

use super::{Nic, raw};

/// The begin of a filter: drops frames with the tag of a VLAN. They are none of this interface's,
/// and the programs leave them alone.
pub(super) fn untagged() -> [SockFilter; 5] {
    use libc::{
        BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_LD, BPF_RET, BPF_W, SKF_AD_VLAN_TAG,
        SKF_AD_VLAN_TAG_PRESENT,
    };
    let step = |code: u32, jump_true, jump_false, operand| {
        SockFilter::new(code as u16, jump_true, jump_false, operand)
    };
    let of_frame = |field: i32| (libc::SKF_AD_OFF + field).cast_unsigned();
    [
        step(
            BPF_LD | BPF_W | BPF_ABS,
            0,
            0,
            of_frame(SKF_AD_VLAN_TAG_PRESENT),
        ),
        step(BPF_JMP | BPF_JEQ, 3, 0, 0),
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0, of_frame(SKF_AD_VLAN_TAG)),
        // The number; 0 is that of none.
        step(BPF_JMP | BPF_JSET, 0, 1, 0x0fff),
        step(BPF_RET, 0, 0, 0),
    ]
}

fn attach(socket: &Socket, filter: impl IntoIterator<Item = SockFilter>) -> io::Result<()> {
    let filter: Vec<SockFilter> = untagged().into_iter().chain(filter).collect();
    socket.attach_filter(&filter)
}

/// A packet socket for the frames of one EtherType.
#[derive(Debug)]
pub(super) struct FrameSocket {
    socket: AsyncFd<Socket>,
    /// The NIC's Ethernet address, a [`Mac`]: it may change while another thread sends.
    mac: AtomicU64,
}

impl FrameSocket {
    /// Opens it. Only frames of no other VLAN that pass the filter come in. Must be called within a
    /// tokio runtime.
    pub(super) fn open(
        nic: &Nic,
        ether_type: Be16,
        filter: impl IntoIterator<Item = SockFilter>,
    ) -> io::Result<Self> {
        // Protocol 0 gets nothing until it is bound; else it would get that of all NICs.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        attach(&socket, filter)?;
        socket.bind(&raw::link_layer(nic.index, ether_type)?)?;
        let opened = Self {
            socket: raw::readable(socket)?,
            mac: AtomicU64::new(0),
        };
        opened.set_mac(nic.mac);
        Ok(opened)
    }

    /// Only frames that pass this filter come in from now on.
    pub(super) fn set_filter(
        &self,
        filter: impl IntoIterator<Item = SockFilter>,
    ) -> io::Result<()> {
        attach(self.socket.get_ref(), filter)
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

    /// Sends the frame by which the agent finds out whether the program on the way out runs. If it
    /// does, it drops the frame. Otherwise the frame goes to this NIC's own address, where no
    /// switch sends it on.
    pub(super) fn test_egress(&self) -> io::Result<()> {
        let own = Mac::from_wire(self.mac());
        let sender = (own, Be32::default());
        let packet = arp::Packet::new(arp::operation::SELF_TEST, sender, sender);
        let frame = [
            &own.to_wire()[..],
            &own.to_wire(),
            &ethernet::ether_type::ARP.raw().to_ne_bytes(),
            bytemuck::bytes_of(&packet),
        ];
        match self.send(&frame.concat()) {
            // How the kernel says that a program has dropped it.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            sent => sent,
        }
    }

    /// Throws away what came so far.
    pub(super) fn drain(&self) {
        let mut socket = self.socket.get_ref();
        while socket.read(&mut [0; 1]).is_ok() {}
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
