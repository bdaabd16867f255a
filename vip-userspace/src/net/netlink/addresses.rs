//! Addresses of this host, and the VIPs on `lo`.

use std::net::IpAddr;

use futures_util::stream::TryStreamExt as _;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::LinkUnspec;

use super::{Netlink, refused};
use crate::net::NetError;
use crate::net::nic::{Link, LocalAddress, Usable};

impl Netlink {
    /// Puts `vip` alone on `lo`, scope host, and `lo` up. Nothing happens if all is so already.
    /// (The kernel gives addresses of IPv6 their scope itself.)
    ///
    /// # Errors
    /// The kernel refuses: no `CAP_NET_ADMIN`, say.
    pub async fn add_vip(&self, vip: IpAddr) -> Result<(), NetError> {
        let whole = if vip.is_ipv4() { 32 } else { 128 };
        let lo = self.loopback().await?;
        if !lo.enabled {
            let up = LinkUnspec::new_with_index(lo.index).up().build();
            let done = self.handle.link().set(up).execute().await;
            done.map_err(refused("set lo up"))?;
        }
        if self.is_on_lo(vip).await? {
            return Ok(());
        }
        // One of another scope or length, which others may adopt as the node's.
        self.remove_vip(vip).await?;
        let address = self.handle.address();
        let mut add = address.add(lo.index, vip, whole);
        add.message_mut().header.scope = AddressScope::Host;
        // Nobody else is asked about it: that is the owner's affair.
        add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        let done = add.execute().await;
        done.map_err(refused(format!("put {vip}/{whole} on lo")))
    }

    /// Whether `vip` is on `lo` as [`add_vip`](Self::add_vip) puts it there.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn is_on_lo(&self, vip: IpAddr) -> Result<bool, NetError> {
        let whole = if vip.is_ipv4() { 32 } else { 128 };
        let lo = self.loopback().await?.index;
        let is_it = |local: &LocalAddress| {
            let fits = (local.host_scope || vip.is_ipv6()) && local.prefix_len == whole;
            local.address == vip && local.index == lo && fits
        };
        Ok(self.addresses().await?.iter().any(is_it))
    }

    /// Takes `vip` off `lo`. Nothing happens if it is not there.
    ///
    /// # Errors
    /// The kernel refuses: no `CAP_NET_ADMIN`, say.
    pub async fn remove_vip(&self, vip: IpAddr) -> Result<(), NetError> {
        let lo = self.loopback().await?.index;
        let mut dump = self.handle.address().get().execute();
        while let Some(message) = dump.try_next().await.map_err(refused("list addresses"))? {
            if message.header.index != lo || local_address(&message) != Some(vip) {
                continue;
            }
            let done = self.handle.address().del(message).execute().await;
            done.map_err(refused(format!("take {vip} off lo")))?;
        }
        Ok(())
    }

    /// Names of the interfaces that have an address. (A VIP only `lo` should have.)
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn places_of(&self, address: IpAddr) -> Result<Vec<String>, NetError> {
        let links = self.links().await?;
        let addresses = self.addresses().await?;
        let holds = |link: &Link| {
            addresses
                .iter()
                .any(|local| local.index == link.index && local.address == address)
        };
        Ok(links
            .into_iter()
            .filter(holds)
            .map(|link| link.name)
            .collect())
    }

    /// Whether an address is on an interface.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn has_address(&self, index: u32, address: IpAddr) -> Result<bool, NetError> {
        let addresses = self.addresses().await?;
        Ok(addresses
            .iter()
            .any(|there| there.index == index && there.address == address))
    }

    pub(in crate::net) async fn addresses(&self) -> Result<Vec<LocalAddress>, NetError> {
        let messages: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(refused("list addresses"))?;
        let entry = |message: &AddressMessage| {
            Some(LocalAddress {
                index: message.header.index,
                address: local_address(message)?,
                prefix_len: message.header.prefix_len,
                host_scope: message.header.scope == AddressScope::Host,
                usable: usable(message.header.flags),
            })
        };
        Ok(messages.iter().filter_map(entry).collect())
    }
}

/// The address itself: of IPv4, and of IPv6 where it has a peer, "local" says so.
pub(super) fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let attributes = || message.attributes.iter();
    let local = attributes().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let own = || {
        attributes().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    local.or_else(own)
}

/// What the flags of an address say. One that is optimistic (RFC 4429) may be used at once.
fn usable(flags: AddressHeaderFlags) -> Usable {
    if flags.contains(AddressHeaderFlags::Dadfailed) {
        Usable::Duplicate
    } else if flags.contains(AddressHeaderFlags::Tentative)
        && !flags.contains(AddressHeaderFlags::Optimistic)
    {
        Usable::NotYet
    } else {
        Usable::Yes
    }
}
