//! A look at the segment, which takes some seconds: which other hosts send to this node, how the other nodes
//! are reached, and whether their BFD ports let anything through. The agent looks now and then,
//! `vip check` once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures_util::future::{join, join_all};

use crate::net::netlink::Netlink;
use crate::net::overhear::{Overheard, Router, overhear};
use crate::net::port::try_bfd_port;
use crate::net::{NetError, Nic};
use vip_node::hearing::{Port, Route};

/// What to look for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whether to listen on the NIC, and for which virtual router.
    pub listen: Option<Router>,
    /// Nodes whose routes to look up.
    pub routes: Vec<IpAddr>,
    /// Nodes whose BFD ports to try.
    pub ports: Vec<IpAddr>,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// Hosts that were heard; `None` if the survey did not listen.
    pub heard: Option<Result<BTreeMap<IpAddr, Overheard>, NetError>>,
    /// How nodes are reached.
    pub routes: Vec<(IpAddr, Result<Route, NetError>)>,
    /// What became of datagrams to their BFD ports.
    pub ports: Vec<(IpAddr, Result<Port, NetError>)>,
}

/// Looks.
pub async fn look(netlink: &Netlink, nic: &Nic, wanted: Wanted) -> Found {
    let listen = async {
        match wanted.listen {
            Some(router) => Some(overhear(nic, router).await),
            None => None,
        }
    };
    let routes = wanted
        .routes
        .iter()
        .map(async |&peer| (peer, route(netlink, nic, peer).await));
    let ports = wanted
        .ports
        .iter()
        .map(async |&peer| (peer, try_bfd_port(&nic.name, nic.address, peer).await));
    let (heard, (routes, ports)) = join(listen, join(join_all(routes), join_all(ports))).await;
    Found {
        heard,
        routes,
        ports,
    }
}

/// How the agent's packets to a node leave, which all leave by the NIC.
///
/// # Errors
/// The kernel cannot be asked.
pub async fn route(netlink: &Netlink, nic: &Nic, peer: IpAddr) -> Result<Route, NetError> {
    let path = netlink.path(nic.address, peer, Some(nic.index)).await?;
    Ok(match path {
        None => Route::Unknown,
        Some(path) => path.gateway.map_or(Route::OnLink, Route::Via),
    })
}

/// What is wrong with a seed that only a router reaches.
#[must_use]
pub fn seed_off_link(seed: IpAddr, router: IpAddr) -> String {
    format!(
        "seed {seed} is behind the router {router}, and a hello that passes a router is not taken \
         (TTL below 255): give addresses of nodes on this segment"
    )
}

/// Whether this node can ever work with the others: not if it reaches all of them by a router.
///
/// # Errors
/// [`NetError::OffLink`], or the kernel cannot be asked.
pub async fn is_on_their_link(
    netlink: &Netlink,
    nic: &Nic,
    peers: &[IpAddr],
) -> Result<(), NetError> {
    let mut first = None;
    for &peer in peers {
        match route(netlink, nic, peer).await? {
            Route::Via(router) => first = first.or(Some(router)),
            Route::OnLink | Route::Unknown => return Ok(()),
        }
    }
    let Some(router) = first else {
        return Ok(());
    };
    let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
    Err(NetError::OffLink {
        peers: peers.join(", "),
        router,
        interface: nic.name.clone(),
        address: nic.address,
        prefix_len: nic.prefix_len,
    })
}
