//! Questions and announcements of addresses on the segment: by ARP for IPv4, by Neighbour Discovery
//! for IPv6.

use std::future::pending;
use std::io;
use std::net::IpAddr;

use vip_common::wire::addr::Mac;

use super::arp::ArpSocket;
use super::frames::FrameSocket;
use super::heard::Heard;
use super::ndp::NdpSocket;
use super::{NetError, Nic};

/// Asks for addresses and announces them on one NIC.
#[derive(Debug)]
pub struct Neighbours {
    /// `None` if no address is of IPv4.
    arp: Option<ArpSocket>,
    /// `None` if no address is of IPv6.
    ndp: Option<NdpSocket>,
}

impl Neighbours {
    /// Opens the sockets by which these addresses are asked for and announced. Must
    /// be called within a tokio runtime.
    ///
    /// # Errors
    /// No `CAP_NET_RAW`, or the NIC is gone.
    pub fn open(nic: &Nic, addresses: &[IpAddr]) -> Result<Self, NetError> {
        let arp = addresses.iter().any(IpAddr::is_ipv4);
        let ndp = addresses.iter().any(IpAddr::is_ipv6);
        Ok(Self {
            arp: arp.then(|| ArpSocket::open(nic, addresses)).transpose()?,
            ndp: ndp.then(|| NdpSocket::open(nic, addresses)).transpose()?,
        })
    }

    /// Hears what is said of these addresses from now on. Those of a family that none had when this
    /// was opened are left out.
    ///
    /// # Errors
    /// The kernel's: no memory.
    pub fn hear(&self, addresses: &[IpAddr]) -> io::Result<()> {
        if let Some(arp) = &self.arp {
            arp.hear(addresses)?;
        }
        self.ndp.as_ref().map_or(Ok(()), |ndp| ndp.hear(addresses))
    }

    /// The NIC has another Ethernet address.
    pub fn set_mac(&self, mac: [u8; 6]) {
        self.sockets().for_each(|socket| socket.set_mac(mac));
    }

    fn sockets(&self) -> impl Iterator<Item = &FrameSocket> {
        let arp = self.arp.as_ref().map(ArpSocket::frames);
        arp.into_iter()
            .chain(self.ndp.as_ref().map(NdpSocket::frames))
    }

    /// Throws away what came so far.
    pub fn drain(&self) {
        self.sockets().for_each(FrameSocket::drain);
    }

    /// Sends the frame that shows, by the program's counter, whether the one on the way out runs.
    ///
    /// # Errors
    /// The kernel's: link down.
    pub fn test_egress(&self) -> io::Result<()> {
        self.sockets()
            .next()
            .map_or(Ok(()), FrameSocket::test_egress)
    }

    /// Tells everybody that this NIC has `vip`.
    ///
    /// # Errors
    /// The kernel's: link down, queue full.
    pub fn announce(&self, vip: IpAddr) -> io::Result<()> {
        match (vip, &self.arp, &self.ndp) {
            (IpAddr::V4(vip), Some(arp), _) => arp.announce(vip),
            (IpAddr::V6(vip), _, Some(ndp)) => ndp.announce(vip),
            _ => Ok(()),
        }
    }

    /// Asks who has `target`. The answer comes by [`receive`](Self::receive).
    ///
    /// # Errors
    /// The kernel's: link down, queue full.
    pub fn ask(&self, target: IpAddr) -> io::Result<()> {
        match (target, &self.arp, &self.ndp) {
            (IpAddr::V4(target), Some(arp), _) => arp.ask(target),
            (IpAddr::V6(target), _, Some(ndp)) => ndp.ask(target),
            _ => Ok(()),
        }
    }

    /// Asks the host that has `mac`, and nobody else, whether it still has `target` (RFC 1122,
    /// section 2.3.2.1, a unicast poll). The answer comes by [`receive`](Self::receive).
    ///
    /// # Errors
    /// The kernel's: link down, queue full.
    pub fn verify(&self, target: IpAddr, mac: Mac) -> io::Result<()> {
        match (target, &self.arp, &self.ndp) {
            (IpAddr::V4(target), Some(arp), _) => arp.verify(target, mac),
            (IpAddr::V6(target), _, Some(ndp)) => ndp.verify(target, mac),
            _ => Ok(()),
        }
    }

    /// Asks who has `target` without saying who asks: no host learns anything from it.
    ///
    /// # Errors
    /// The kernel's: link down, queue full.
    pub fn probe(&self, target: IpAddr) -> io::Result<()> {
        match (target, &self.arp, &self.ndp) {
            (IpAddr::V4(target), Some(arp), _) => arp.probe(target),
            (IpAddr::V6(target), _, Some(ndp)) => ndp.probe(target),
            _ => Ok(()),
        }
    }

    /// The next frame that XDP passed, and what it says; `None` if nothing. Cancel-safe.
    ///
    /// # Errors
    /// The kernel's: link down.
    pub async fn receive(&self) -> io::Result<Option<Heard>> {
        tokio::select! {
            heard = or_never(self.arp.as_ref().map(ArpSocket::receive)) => heard,
            heard = or_never(self.ndp.as_ref().map(NdpSocket::receive)) => heard,
        }
    }
}

/// What comes of a future, if there is one.
async fn or_never<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
