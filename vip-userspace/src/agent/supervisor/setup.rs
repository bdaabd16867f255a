//! What the configuration means to the pieces that the agent is made of, and what it puts on
//! the machine beside maps and programs.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use vip_common::abi::{AllowNode, MAX_BOND_PORTS, Service, Vip, flag};
use vip_common::wire::addr::{Be16, Be128, Mac};
use vip_common::wire::vrrp::Centiseconds;

use crate::agent::cluster::Cluster;
use crate::agent::node_thread::Sockets;
use crate::agent::peer_channel::{Hearers, Listener, PeerChannel};
use crate::config::{Config, Network, Node, VrrpMode};
use crate::datapath::{Attachment, Datapath, DesiredState, Loader, NodeAddresses, Pins};
use crate::kernel::cgroup;
use crate::net::echo::EchoSocket;
use crate::net::vrrp::{Delivery, VrrpSocket};
use crate::net::{Groups, Neighbours, Nic, SourceSocket, WitnessSocket};
use crate::random;
use vip_node::allow::{AllowLists, Prefix};
use vip_node::bfd;
use vip_node::election::{MAX_LEASE, Trust};
use vip_node::health::Thresholds;
use vip_node::hello;
use vip_node::rank;
use vip_node::seal::KeyRing;
use vip_node::{MAX_SLOWDOWN, OpenCluster, Params, VrrpParams};

use super::bfd_access::Access;

/// Time between hellos, at most. With a short `reset_after` they are sent more often: a member is gone
/// only if nobody has heard it for that time.
const HELLO: Duration = Duration::from_secs(1);

/// The configuration's interval, which it checks to be one that VRRP can say.
fn advert_interval(config: &Config) -> Centiseconds {
    Centiseconds::from_duration(config.vrrp.interval).unwrap_or(Centiseconds::MAX)
}

/// What the decisions need to know.
pub(super) fn params(config: &Config, cluster: &Cluster, keys: Option<&KeyRing>) -> Params {
    Params {
        own: cluster.own(),
        nodes: cluster.identities(),
        open: config.is_open().then_some(OpenCluster {
            forget_after: config.members.forget_after,
        }),
        hello_interval: HELLO.min(config.datapath.reset_after / 3),
        vips: addresses_of(config).map(hello::tag).collect(),
        priority: config.vrrp.priority,
        vrrp: VrrpParams {
            interval: advert_interval(config),
            preempt: config.vrrp.preempt,
            preempt_delay: config.vrrp.preempt_delay,
        },
        trust: match (keys, config.vrrp.interop) {
            (None, _) => Trust::Plain,
            (Some(_), false) => Trust::Sealed,
            (Some(_), true) => Trust::Both,
        },
        bfd: config.bfd.and_then(|bfd| {
            Some(bfd::Params {
                detect_mult: std::num::NonZeroU8::new(bfd.multiplier)?,
                interval: bfd.interval,
                auth: keys.map(KeyRing::bfd_auth),
            })
        }),
        checks: config.checks.len(),
        thresholds: Thresholds {
            rise: config.health.rise,
            fall: config.health.fall,
        },
        probe_address: config.vrrp.probe_address,
        reset_after: config.datapath.reset_after,
        max_lease: MAX_LEASE,
        max_slowdown: MAX_SLOWDOWN,
        seed: random::secret(),
    }
}

/// The NIC, and how the program runs there.
pub(super) fn described(nic: &Nic, attachment: Attachment) -> String {
    format!(
        "{} ({}), XDP mode {}",
        nic.name,
        nic.driver.as_deref().unwrap_or("unknown driver"),
        attachment.mode
    )
}

/// What the agent hears and asks by on the NIC. The thread has sockets of its own.
pub(super) struct NicSockets {
    pub(super) neighbours: Arc<Neighbours>,
    pub(super) sources: SourceSocket,
    /// `None` if there is no VIP of IPv6. They are left when it is dropped.
    pub(super) groups: Option<Groups>,
    /// How the thread has BFD's port.
    pub(super) bfd: Access,
    pub(super) peer_channel: Arc<PeerChannel>,
    /// The thread that listens there, once there is somebody to tell.
    listener: Option<Listener>,
}

impl NicSockets {
    /// Opens all that is bound to the NIC: the thread's, of which BFD's socket alone may be missing,
    /// and these.
    pub(super) fn open(
        config: &Config,
        peers: &[IpAddr],
        nic: &Nic,
        pins: &Pins,
        keys: Option<Arc<KeyRing>>,
        loader: &mut Loader,
    ) -> anyhow::Result<(Sockets, Self)> {
        let delivery = match config.vrrp.mode {
            VrrpMode::Unicast => Delivery::Unicast,
            VrrpMode::Multicast => Delivery::Multicast,
        };
        let (neighbours, groups) = Self::listen(config, peers, nic)?;
        let vrrp = VrrpSocket::open(&nic.name, nic.address, peers, delivery)?;
        let echo = EchoSocket::open(&nic.name, nic.address, peers)?;
        let sources = SourceSocket::open(nic)?;
        let witness = WitnessSocket::open(nic)?;
        let (access, bfd) = Access::open(config, peers, nic, pins, loader);
        let peer_channel = Arc::new(PeerChannel::open(config, nic, keys)?);
        let sockets = Sockets {
            vrrp,
            bfd,
            echo,
            witness,
            neighbours: neighbours.clone(),
            peer_channel: peer_channel.clone(),
        };
        let own = Self {
            neighbours,
            sources,
            groups,
            bfd: access,
            peer_channel,
            listener: None,
        };
        Ok((sockets, own))
    }

    /// Listens to other agents from now on.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub(super) fn listen_to_peers(&mut self, hearers: Hearers) -> anyhow::Result<()> {
        let listener = Listener::start(self.peer_channel.clone(), hearers);
        let listener = listener.context("cannot start the thread that listens to other agents")?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Opens what depends on the VIPs.
    pub(super) fn listen(
        config: &Config,
        peers: &[IpAddr],
        nic: &Nic,
    ) -> anyhow::Result<(Arc<Neighbours>, Option<Groups>)> {
        let vips: Vec<IpAddr> = addresses_of(config).collect();
        let neighbours = Arc::new(Neighbours::open(nic, &spoken_of(config, nic, peers))?);
        let groups = vips.iter().any(IpAddr::is_ipv6);
        let groups = groups.then(|| Groups::join(nic, &vips)).transpose()?;
        Ok((neighbours, groups))
    }
}

/// The addresses of which ARP and Neighbour Discovery are heard.
pub(super) fn spoken_of(config: &Config, nic: &Nic, peers: &[IpAddr]) -> Vec<IpAddr> {
    let own = [nic.address];
    let others = own.iter().chain(peers).copied();
    addresses_of(config).chain(others).collect()
}

/// The VIPs.
pub(super) fn addresses_of(config: &Config) -> impl Iterator<Item = IpAddr> {
    config.vips.iter().map(|vip| vip.address)
}

/// A member's addresses, as the maps have them.
pub(super) fn addresses(address: IpAddr, other: Option<IpAddr>) -> NodeAddresses {
    NodeAddresses {
        address: address.into(),
        other: other.map_or(Be128::UNSPECIFIED, Be128::from),
    }
}

/// This node's own addresses on the segment.
pub(super) fn own_addresses(own: &Node) -> Vec<IpAddr> {
    let addresses = [Some(own.address), own.other_address];
    addresses.into_iter().flatten().collect()
}

/// Redirects connections of this node and its pods, if that is wanted and can be had. Returns
/// whose.
pub(super) fn redirect(datapath: &mut Datapath, config: &Config) -> Option<PathBuf> {
    let found = config.local.as_ref().and_then(|local| {
        let found = local.cgroup.clone().or_else(cgroup::root);
        if found.is_none() {
            tracing::warn!(
                "no cgroup2 is mounted: connections of this node and its pods to the VIP go to \
                 this node's own server, whether it is ready or not"
            );
        }
        found
    });
    match datapath.redirect(found.as_deref()) {
        Ok(()) => found,
        Err(error) => {
            tracing::warn!(
                %error,
                "connections of this node and its pods to the VIP go to this node's own server, \
                 whether it is ready or not"
            );
            None
        }
    }
}

/// The VIPs with their services, and the allow lists of these.
pub(super) fn served(config: &Config) -> (Vec<Vip>, AllowLists) {
    let key = config.hash_key();
    let mut id = 0;
    let mut allowed = AllowLists::default();
    let vips = config.vips.iter().map(|vip| {
        let address = Be128::from(vip.address);
        let services: Vec<Service> = vip
            .services
            .iter()
            .map(|service| {
                id += 1;
                let when = |flag, wanted| if wanted { flag } else { 0 };
                Service {
                    target: Be16::new(service.target),
                    id,
                    check: service.check.raw(),
                    flags: when(flag::ALLOW_LIST, !service.allow.is_empty())
                        | when(flag::SYN_LIMIT, service.syn_rate.is_some()),
                    syn_rate: service.syn_rate.unwrap_or(0),
                    allowed: allow(&mut allowed, vip.address, &service.allow),
                    ..Service::new(key, address, Be16::new(service.port))
                }
            })
            .collect();
        Vip::new(address, &services)
    });
    let vips = vips.collect();
    (vips, allowed)
}

/// What should lie in the maps.
pub(super) fn desired(
    config: &Config,
    cluster: &Cluster,
    nic: &Nic,
    port_macs: [Mac; MAX_BOND_PORTS],
) -> anyhow::Result<DesiredState> {
    let key = config.hash_key();
    let (vips, allowed) = served(config);
    Ok(DesiredState {
        own_index: Some(cluster.own()),
        own_mac: Mac::from_wire(nic.mac),
        port_macs,
        own_address: Be128::from(nic.address).ipv4().unwrap_or_default(),
        vips,
        allowed,
        redirects: config.local.is_some(),
        netns: crate::net::netns_cookie().unwrap_or(0),
        backends: cluster
            .nodes()
            .map(|_, node| addresses(node.address, node.other_address)),
        log_level: program_log_level(),
        hash_key: key,
        rows: rank::table_of_slots(key, &cluster.identities())?,
    })
}

/// How much the eBPF programs log: everything with `--log vip=debug`, else nothing.
fn program_log_level() -> u8 {
    if tracing::enabled!(target: "vip", tracing::Level::DEBUG) {
        aya_log::Level::Debug as u8
    } else {
        0
    }
}

/// Adds the allow list of a service of this VIP, and returns its root. Clients have an address of the
/// VIP's family, so networks of the other one are left out.
fn allow(lists: &mut AllowLists, vip: IpAddr, list: &[Network]) -> AllowNode {
    if list.is_empty() {
        return AllowNode::EVERYTHING;
    }
    let networks = list
        .iter()
        .filter(|network| network.address.is_ipv4() == vip.is_ipv4());
    let prefixes: Vec<Prefix> = networks.map(prefix).collect();
    lists.add(&prefixes)
}

fn prefix(network: &Network) -> Prefix {
    // Prefixes of IPv4 are counted from where an IPv4 address begins in one of IPv6.
    let before = if network.address.is_ipv4() { 96 } else { 0 };
    let address = Be128::from(network.address).to_wire();
    Prefix::new(
        u128::from_be_bytes(address),
        before + u32::from(network.prefix_len),
    )
}
