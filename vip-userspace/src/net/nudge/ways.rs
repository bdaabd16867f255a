//! How packets reach clients.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::net::NetError;
use crate::net::netlink::{Netlink, Path};
use crate::net::nic::Link;

/// How a packet reaches a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The client's address is one of this host's own.
    Own,
    /// By this hop.
    By(Hop),
    /// The kernel does not know the Ethernet address of the next hop. It has been asked to find out:
    /// look the way up again later.
    NoNeighbour {
        /// Index of the interface.
        interface: u32,
    },
    /// By an interface without Ethernet addresses, such as WireGuard's or that of a TUN device. No
    /// frame can be sent to it. (The XDP program does not see such clients' packets either, so `vip`
    /// does not balance them.)
    NotEthernet {
        /// Index of the interface.
        interface: u32,
    },
    /// This host has no route to the client, or one that refuses packets.
    NoRoute,
}

impl Way {
    /// Whether the client is on this host: it has one of the host's own addresses, or packets to it
    /// leave by another interface than the NIC with this index, as those to pods do. (A host with
    /// several NICs may reach other hosts by these, too.)
    #[must_use]
    pub const fn is_here(&self, nic: u32) -> bool {
        match *self {
            Self::Own => true,
            Self::By(Hop { interface, .. })
            | Self::NoNeighbour { interface }
            | Self::NotEthernet { interface } => interface != nic,
            Self::NoRoute => false,
        }
    }
}

/// The first host on the way to a client: the client itself or a router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Index of the interface that leads there.
    pub interface: u32,
    /// Ethernet address of that interface.
    pub source: [u8; 6],
    /// Ethernet address of the host.
    pub destination: [u8; 6],
}

/// A server's address and its client's.
pub type Pair = (IpAddr, IpAddr);

/// Requests that wait for the kernel's answer at the same time. The answers must all find room in the
/// socket (about 200 kB), or they are lost.
const AT_ONCE: usize = 32;

/// Looks up ways, and keeps what it has found. Meant for one run of a few seconds: it does not notice
/// that routes, addresses or known neighbours change.
#[derive(Debug)]
pub struct Ways {
    netlink: Netlink,
    links: HashMap<u32, Link>,
    own: HashSet<IpAddr>,
    /// `None`: no route.
    paths: HashMap<Pair, Option<Path>>,
    /// Ethernet addresses by interface and IP address.
    neighbours: HashMap<(u32, IpAddr), [u8; 6]>,
}

impl Ways {
    /// Reads this host's interfaces and addresses.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn open(netlink: &Netlink) -> Result<Self, NetError> {
        let links = netlink.links().await?;
        let addresses = netlink.addresses().await?;
        Ok(Self {
            netlink: netlink.clone(),
            links: links.into_iter().map(|link| (link.index, link)).collect(),
            own: addresses.iter().map(|local| local.address).collect(),
            paths: HashMap::new(),
            neighbours: HashMap::new(),
        })
    }

    /// Finds the ways of packets between pairs of addresses. Only what is not known yet costs
    /// something: about 10 us for a pair.
    ///
    /// A link-local client of IPv6 may be sought on the wrong interface, because a pair does not name
    /// one. Clients use such an address for a link-local VIP (RFC 6724, section 5, rule 2).
    ///
    /// # Errors
    /// The kernel cannot be asked, or the addresses of a pair are of different families.
    pub async fn look_up(
        &mut self,
        pairs: impl IntoIterator<Item = Pair>,
    ) -> Result<HashMap<Pair, Way>, NetError> {
        let pairs: HashSet<Pair> = pairs.into_iter().collect();
        self.find_paths(&pairs).await?;
        self.find_neighbours(&pairs).await?;
        Ok(pairs.iter().map(|&pair| (pair, self.way(pair))).collect())
    }

    async fn find_paths(&mut self, pairs: &HashSet<Pair>) -> Result<(), NetError> {
        let is_new = |pair: &&Pair| !self.own.contains(&pair.1) && !self.paths.contains_key(*pair);
        let new = pairs.iter().filter(is_new).map(|&pair| {
            let netlink = &self.netlink;
            let source = self.source_of_route(pair);
            async move { Ok((pair, path(netlink, source, pair.1).await?)) }
        });
        let requests = stream::iter(new.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        let found: Vec<_> = requests.try_collect().await?;
        self.paths.extend(found);
        Ok(())
    }

    /// The source to ask for a route with, as for a segment of a socket: rules may choose tables by it
    /// (`ip rule add from`). From the address of another node, the kernel finds no route of IPv4
    /// (`ip_route_output_key_hash_rcu`, net/ipv4/route.c), so the destination alone decides.
    fn source_of_route(&self, (source, client): Pair) -> IpAddr {
        if self.own.contains(&source) {
            source
        } else if client.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        }
    }

    async fn find_neighbours(&mut self, pairs: &HashSet<Pair>) -> Result<(), NetError> {
        let hops = pairs.iter().filter_map(|&pair| {
            let (interface, _, address) = self.next_hop(pair)?;
            Some((interface, address))
        });
        let mut unknown: HashSet<(u32, IpAddr)> = hops
            .filter(|hop| !self.neighbours.contains_key(hop))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        for (interface, neighbour) in self.netlink.all_neighbours().await? {
            if let Some(mac) = neighbour.mac {
                self.neighbours.insert((interface, neighbour.address), mac);
            }
        }
        unknown.retain(|hop| !self.neighbours.contains_key(hop));
        let netlink = &self.netlink;
        stream::iter(unknown)
            .for_each_concurrent(AT_ONCE, async |(interface, address)| {
                // One interface that has just gone, or a full table of neighbours, must not keep the
                // other clients waiting.
                if let Err(error) = netlink.resolve(interface, address).await {
                    tracing::debug!(%error, "cannot find out where to send a nudge");
                }
            })
            .await;
        Ok(())
    }

    /// Index and Ethernet address of the interface, and IP address of the next hop.
    fn next_hop(&self, pair: Pair) -> Option<(u32, [u8; 6], IpAddr)> {
        let path = self.paths.get(&pair).copied().flatten()?;
        let mac = self.links.get(&path.interface)?.mac?;
        Some((path.interface, mac, path.gateway.unwrap_or(pair.1)))
    }

    /// The way of a pair that was looked up.
    fn way(&self, pair: Pair) -> Way {
        if self.own.contains(&pair.1) {
            return Way::Own;
        }
        if let Some((interface, source, address)) = self.next_hop(pair) {
            return match self.neighbours.get(&(interface, address)) {
                None => Way::NoNeighbour { interface },
                Some(&destination) => Way::By(Hop {
                    interface,
                    source,
                    destination,
                }),
            };
        }
        let path = self.paths.get(&pair).copied().flatten();
        let link = path.and_then(|path| self.links.get(&path.interface));
        match link {
            // A prefix that is all this host's own (`ip route add local`).
            Some(link) if link.loopback => Way::Own,
            Some(link) => Way::NotEthernet {
                interface: link.index,
            },
            None => Way::NoRoute,
        }
    }
}

/// The path as the kernel chooses it.
async fn path(netlink: &Netlink, source: IpAddr, client: IpAddr) -> Result<Option<Path>, NetError> {
    match netlink.path(source, client, None).await {
        // A route of the type `blackhole` (net/ipv4/fib_semantics.c).
        Err(NetError::Io { error, .. }) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        found => found,
    }
}
