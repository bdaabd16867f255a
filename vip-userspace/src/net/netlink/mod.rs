//! Links, addresses, neighbours, routes and filters, by rtnetlink.

mod addresses;
mod filters;
mod links;
mod neighbours;
mod routes;
mod watch;

pub use self::links::LinkState;
pub use self::neighbours::Neighbour;
pub use self::routes::Path;
pub use self::watch::NetEvent;

use std::fs;
use std::io;
use std::net::IpAddr;

use rtnetlink::Handle;

use super::NetError;
use super::nic::{self, Nic};

/// The kernel's rtnetlink, for this network namespace.
#[derive(Clone, Debug)]
pub struct Netlink {
    pub(in crate::net) handle: Handle,
}

impl Netlink {
    /// Connects. A task that reads the socket runs until the last clone is dropped.
    ///
    /// # Errors
    /// The socket cannot be opened.
    ///
    /// # Panics
    /// If there is no tokio runtime.
    pub fn connect() -> Result<Self, NetError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(NetError::io("open a netlink socket"))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The NIC of the VIP: it has the address of one of `nodes`, and `vip` is in its subnet.
    /// With `interface` it is that one, and the subnet may be any.
    ///
    /// # Errors
    /// [`NetError`] says which of these does not hold, and what to do.
    pub async fn find_nic(
        &self,
        vip: IpAddr,
        nodes: &[IpAddr],
        interface: Option<&str>,
    ) -> Result<Nic, NetError> {
        let links = self.links().await?;
        let addresses = self.addresses().await?;
        let mut nic = nic::choose(&links, &addresses, vip, nodes, interface)?;
        if nic.driver.is_none() {
            let driver = fs::read_link(format!("/sys/class/net/{}/device/driver", nic.name));
            nic.driver = driver
                .ok()
                .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        }
        Ok(nic)
    }

    /// Finds this node's own address and its NIC, where no list says which it is. `vips`: the one that
    /// names the cluster first.
    ///
    /// # Errors
    /// There is none, there are several, or the kernel's.
    pub async fn find_own_nic(
        &self,
        vips: &[IpAddr],
        interface: Option<&str>,
    ) -> Result<Nic, NetError> {
        let (links, addresses) = (self.links().await?, self.addresses().await?);
        let own = nic::own_address(&links, &addresses, vips, interface)?;
        self.find_nic(vips[0], &[own], interface).await
    }

    /// Refuses VIPs, nodes' addresses and seeds that no host of the NIC's subnets can have.
    ///
    /// # Errors
    /// [`NetError::NoHost`], or the kernel's.
    pub async fn refuse_no_hosts(
        &self,
        nic: &Nic,
        vips: impl IntoIterator<Item = IpAddr>,
        nodes: impl IntoIterator<Item = IpAddr>,
        seeds: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), NetError> {
        let addresses = self.addresses().await?;
        let vips = vips.into_iter().map(|vip| ("VIP", vip));
        let nodes = nodes.into_iter().map(|node| ("node", node));
        let seeds = seeds.into_iter().map(|seed| ("seed", seed));
        for (what, address) in vips.chain(nodes).chain(seeds) {
            nic::refuse_no_host(nic, &addresses, what, address)?;
        }
        Ok(())
    }
}

/// The error of a request that the kernel refused.
pub(in crate::net) fn refused(
    what: impl Into<String>,
) -> impl FnOnce(rtnetlink::Error) -> NetError {
    let what = what.into();
    |error| {
        let error = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        };
        NetError::Io { what, error }
    }
}

#[cfg(test)]
mod tests;
