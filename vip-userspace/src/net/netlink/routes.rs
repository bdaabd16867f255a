//! How packets leave this host.

use std::io;
use std::net::IpAddr;

use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia,
};
use rtnetlink::RouteMessageBuilder;

use super::{Netlink, refused};
use crate::net::NetError;

/// How packets for an address leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// Index of the interface.
    pub interface: u32,
    /// The router that they go to; `None` if they go to the address itself.
    pub gateway: Option<IpAddr>,
}

impl Netlink {
    /// How packets from one address to another one leave, where they must by the interface `by`,
    /// if one is given. `None` if they cannot.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn path(
        &self,
        from: IpAddr,
        to: IpAddr,
        by: Option<u32>,
    ) -> Result<Option<Path>, NetError> {
        let request = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to, if to.is_ipv4() { 32 } else { 128 })
            .and_then(|request| request.source_prefix(from, if from.is_ipv4() { 32 } else { 128 }));
        let mut request = request
            .map_err(|error| NetError::io("ask for a route")(io::Error::other(error)))?
            .build();
        if let Some(interface) = by {
            request.attributes.push(RouteAttribute::Oif(interface));
        }
        let mut found = self.handle.route().get(request).execute().boxed();
        match found.try_next().await.map_err(refused("ask for a route")) {
            Ok(message) => Ok(message.as_ref().and_then(path)),
            Err(NetError::Io { error, .. })
                if matches!(
                    error.kind(),
                    // The last one: a route of the type `prohibit` (net/ipv4/fib_semantics.c).
                    io::ErrorKind::NetworkUnreachable
                        | io::ErrorKind::HostUnreachable
                        | io::ErrorKind::PermissionDenied
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Where a route goes. With IPv6 the kernel also answers with routes that refuse packets.
fn path(message: &RouteMessage) -> Option<Path> {
    if !matches!(message.header.kind, RouteType::Unicast | RouteType::Local) {
        return None;
    }
    let mut gateway = None;
    let mut interface = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                gateway = Some(IpAddr::from(*address));
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                gateway = Some(IpAddr::from(*address));
            }
            // A router of the other family (RFC 8950).
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(IpAddr::from(*address)),
            RouteAttribute::Oif(index) => interface = Some(*index),
            _ => {}
        }
    }
    Some(Path {
        interface: interface?,
        gateway,
    })
}
