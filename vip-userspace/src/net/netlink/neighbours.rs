//! The kernel's neighbour table.

use std::net::IpAddr;

use futures_util::stream::TryStreamExt as _;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::{Netlink, refused};
use crate::net::NetError;

/// An entry of the kernel's neighbour table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its IP address.
    pub address: IpAddr,
    /// Its Ethernet address; `None` while the kernel does not know, or no longer.
    pub mac: Option<[u8; 6]>,
}

impl Netlink {
    /// The kernel's neighbours on an interface.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn neighbours(&self, nic_index: u32) -> Result<Vec<Neighbour>, NetError> {
        let all = self.all_neighbours().await?;
        let on_nic = all.into_iter().filter(|(index, _)| *index == nic_index);
        Ok(on_nic.map(|(_, neighbour)| neighbour).collect())
    }

    /// The kernel's neighbours, each with the index of its interface.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub(in crate::net) async fn all_neighbours(&self) -> Result<Vec<(u32, Neighbour)>, NetError> {
        let entries = self.entries().await?;
        let entry =
            |message: &NeighbourMessage| Some((message.header.ifindex, neighbour(message)?));
        Ok(entries.iter().filter_map(entry).collect())
    }

    /// The kernel's neighbours, as it tells them.
    async fn entries(&self) -> Result<Vec<NeighbourMessage>, NetError> {
        let request = self.handle.neighbours().get();
        let messages = request.execute().try_collect().await;
        messages.map_err(refused("list neighbours"))
    }

    /// Makes the kernel believe for a while, some 30 s by default (`base_reachable_time_ms`), that
    /// these addresses are reachable at this Ethernet address of an interface. After that it asks
    /// again by itself. An entry that the operator made permanent stays as it is.
    ///
    /// # Errors
    /// The kernel refuses: no `CAP_NET_ADMIN`, or the interface is down or gone.
    pub async fn confirm(
        &self,
        nic_index: u32,
        addresses: &[IpAddr],
        mac: [u8; 6],
    ) -> Result<(), NetError> {
        let entries = self.entries().await?;
        let is_fixed = |address: IpAddr| {
            entries.iter().any(|entry| {
                let fixed = [NeighbourState::Permanent, NeighbourState::Noarp];
                entry.header.ifindex == nic_index
                    && fixed.contains(&entry.header.state)
                    && neighbour(entry).is_some_and(|found| found.address == address)
            })
        };
        for &address in addresses.iter().filter(|address| !is_fixed(**address)) {
            let request = self.handle.neighbours().add(nic_index, address);
            let request = request
                .state(NeighbourState::Reachable)
                .link_layer_address(&mac)
                .replace();
            let done = request.execute().await;
            done.map_err(refused(format!("confirm neighbour {address}")))?;
        }
        Ok(())
    }

    /// Makes the kernel find out, or confirm, where `address` is on an interface. The answer
    /// comes as a [`NetEvent::Neighbour`](super::NetEvent::Neighbour), unless nothing changes.
    ///
    /// # Errors
    /// The kernel refuses: no `CAP_NET_ADMIN`, or the interface is down or gone.
    pub async fn resolve(&self, nic_index: u32, address: IpAddr) -> Result<(), NetError> {
        // As if a packet for it had come by: NTF_USE.
        let request = self
            .handle
            .neighbours()
            .add(nic_index, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        let done = request.execute().await;
        done.map_err(refused(format!("resolve neighbour {address}")))
    }
}

pub(super) fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    // The kernel keeps the old address of an entry whose confirmation failed.
    let known = !matches!(
        message.header.state,
        NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
    );
    Some(Neighbour {
        address: address?,
        mac: mac.filter(|_| known),
    })
}
