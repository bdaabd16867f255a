//! The keys in an entry of `nodes`, in one of `services`, and lists of addresses.

use std::net::{IpAddr, SocketAddr};

use vip_common::abi::{MAX_BACKENDS, MAX_VIPS};

use super::addresses::{endpoint, host, network};
use super::fault::{Fault, Faults, Place, Placed};
use super::given::Given;
use super::key::{Table, keys};
use super::kind::{Arity, Kind, number, tcp_port, text};
use super::names::{node_name, probe_path};
use super::types::{Network, Node};

keys! {
    /// An entry of `nodes`.
    pub(super) struct NodeKeys {
        /// The node's own address on the VIP's segment, by which the nodes talk to each other.
        pub(super) address: Placed<IpAddr> {
            kind: text("unicast, not the VIP", host).placed(),
            required: "\"10.0.0.11\"",
            reload: Live,
        }

        /// The node's address of the other family.
        ///
        /// It is only needed for `[local]`, to redirect connections to VIPs of that family.
        pub(super) other_address: Option<IpAddr> {
            kind: text("unicast, of the other family", host),
            unset: "none",
            reload: Live,
        }

        /// The name of the node in status, metrics and logs.
        pub(super) name: Option<String> {
            kind: text("1 to 63 letters, digits, `-`, `_`, `.`; each once", node_name),
            unset: "the address",
            reload: Live,
        }

        /// The node's share of new connections, relative to the others'.
        ///
        /// Raise it for a larger machine. It decides the order of nodes in the rank table, which must be
        /// the same on all nodes. So a node that stays in the list keeps its weight: take it off the
        /// list, and add it with the new one.
        pub(super) weight: u16 {
            kind: number(1..=u16::MAX),
            default: "1",
            reload: Restart,
        }
    }
}

keys! {
    /// An entry of `services`.
    #[derive(Debug)]
    pub(super) struct ServiceKeys {
        /// The port that clients connect to; each once, also beside the API's.
        pub(super) port: u16 {
            kind: tcp_port(),
            required: "9345",
            reload: Live,
            example: "9345",
        }

        /// The port that the nodes listen on; each once for a VIP.
        pub(super) target_port: Option<u16> {
            kind: tcp_port(),
            unset: "`port`",
            reload: Live,
            example: "9346",
        }

        /// The path that each server is asked for, by HTTPS, as in `[health]`.
        ///
        /// Without it, it is enough that a server takes connections. Credentials of `[health]` are
        /// not shown to it.
        pub(super) path: Option<String> {
            kind: text("begins with `/`", probe_path),
            unset: "none",
            reload: Live,
            example: "\"/healthz\"",
        }

        /// The port that the servers are asked on.
        pub(super) probe_port: Option<u16> {
            kind: tcp_port(),
            unset: "`target_port`",
            reload: Live,
            example: "9347",
        }

        /// The networks whose hosts may use this port.
        ///
        /// The list at the top is the API's alone.
        pub(super) allow: Option<Vec<Network>> {
            kind: networks("as at the top"),
            unset: "everybody",
            reload: Live,
            example: "[\"10.0.0.11\"]",
        }

        /// The limit of new connections to this port, as `syn_rate` at the top.
        pub(super) syn_rate: Option<u32> {
            kind: syn_rate(),
            unset: "no limit",
            reload: Live,
            example: "50",
        }
    }
}

/// New connections from one source.
pub(super) fn syn_rate() -> Kind<u32> {
    number(1..=1_000_000).unit("connections a second")
}

/// One VIP, or a list of them.
pub(super) fn vips() -> Kind<Vec<Placed<SocketAddr>>> {
    let range = "1 to 16 unicast addresses, IPv4 or IPv6, each once; port 1 to 65535, 6443 if left \
                 out";
    let name = "string, `ADDRESS[:PORT]`, or a list of them";
    Kind::new(name, range, Arity::List, |given| {
        let vip = text("", endpoint).placed();
        if let Given::File(_) = given
            && given.is_string()
        {
            return Ok(vec![vip.read(given)?]);
        }
        let vips = given.list("an address in quotes, or a list of them")?;
        if vips.is_empty() {
            return Err(given.fault("no VIP; give one, or a list of them").into());
        }
        let vips = Faults::collect(vips.into_iter().map(|given| vip.read(given)))?;
        check_vips(&vips)?;
        Ok(vips)
    })
}

/// The list of nodes, and the place of each and of the list.
pub(super) fn nodes() -> Kind<Placed<Vec<Placed<Node>>>> {
    let range = "1 to 16, each once, all of IPv4 or all of IPv6";
    let kind = Kind::new("list of strings or tables", range, Arity::List, |given| {
        let nodes = given.list("a list of addresses")?;
        let nodes = Faults::collect(nodes.into_iter().map(node))?;
        check_nodes(&nodes, given.place())?;
        Ok(nodes)
    });
    kind.placed()
}

/// A list of hosts, each once, and its place.
pub(super) fn seeds() -> Kind<Placed<Vec<IpAddr>>> {
    let range = "1 to 16 unicast addresses of one family, each once";
    let kind = Kind::new("list of strings", range, Arity::List, |given| {
        let given_list = given.list("a list of addresses")?;
        let one = text("", host);
        let seeds = given_list.into_iter().map(|given| one.read(given));
        let mut seeds = Faults::collect(seeds)?;
        seeds.sort_unstable();
        if let Some(twice) = seeds.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!("seed {} is listed twice; remove one", twice[0]);
            return Err(given.fault(message).into());
        }
        let mixed = seeds.iter().any(IpAddr::is_ipv4) && seeds.iter().any(IpAddr::is_ipv6);
        if seeds.is_empty() || seeds.len() > MAX_BACKENDS || mixed {
            let count = seeds.len();
            return Err(given.fault(format!(
                "{count} seeds: must be 1 to {MAX_BACKENDS} addresses of one family; leave `seeds` \
                 out if there are none"
            )).into());
        }
        Ok(seeds)
    });
    kind.placed()
}

fn node(given: Given<'_>) -> Result<Placed<Node>, Faults> {
    if given.is_string() {
        let address = text("", host).placed().read(given)?;
        return Ok(Placed {
            value: Node::at(address.value),
            place: address.place,
        });
    }
    let wanted = "an address in quotes, or a table with one";
    let NodeKeys {
        address,
        other_address,
        name,
        weight,
    } = Table::entry("nodes", given, wanted)?;
    Ok(Placed {
        place: address.place,
        value: Node {
            name: name.unwrap_or_else(|| address.value.to_string()),
            address: address.value,
            other_address,
            weight,
        },
    })
}

/// The list of services beside the API, and the place of each.
pub(super) fn services() -> Kind<Vec<Placed<ServiceKeys>>> {
    const WANTED: &str = "tables under `[[services]]`";
    Kind::new("list of tables", "7 at most", Arity::List, |given| {
        let services = given.list(WANTED)?.into_iter();
        let service = |given: Given<'_>| {
            let value = Table::entry("services", given, WANTED)?;
            let place = given.place();
            Ok::<_, Faults>(Placed { value, place })
        };
        Faults::collect(services.map(service))
    })
}

/// A list of networks, sorted and without duplicates.
pub(super) fn networks(range: &str) -> Kind<Vec<Network>> {
    let name = "list of strings, `ADDRESS` or `ADDRESS/LENGTH`";
    Kind::new(name, range, Arity::List, |given| {
        let one = text("", network);
        let networks = given.list("a list of networks")?.into_iter();
        let mut networks = Faults::collect(networks.map(|given| one.read(given)))?;
        if networks.is_empty() {
            let message =
                "an empty list would allow nobody; leave `allow` out if everybody may connect";
            return Err(given.fault(message).into());
        }
        networks.sort_unstable();
        networks.dedup();
        Ok(networks)
    })
}

/// Checks the VIPs by themselves.
fn check_vips(vips: &[Placed<SocketAddr>]) -> Result<(), Faults> {
    let mut faults = Faults::default();
    if let Some(last) = vips.last().filter(|_| vips.len() > MAX_VIPS) {
        let message = format!(
            "{} VIPs: at most {MAX_VIPS} are possible; leave some out",
            vips.len()
        );
        faults.add(Fault::new(last.place, message));
    }
    for (index, vip) in vips.iter().enumerate() {
        let address = vip.value.ip();
        let before = &vips[..index];
        if before.iter().any(|other| other.value.ip() == address) {
            let message = format!(
                "VIP {address} is listed twice; remove one, and add ports under `[[services]]`"
            );
            faults.add(Fault::new(vip.place, message));
        }
    }
    faults.or(())
}

/// Checks the nodes by themselves. `place` is that of the list.
fn check_nodes(nodes: &[Placed<Node>], place: Place) -> Result<(), Faults> {
    if nodes.is_empty() {
        let message = "0 nodes: list every control-plane node once, or leave `nodes` out, so that the \
                       agents find each other";
        return Err(Fault::new(place, message).into());
    }
    let mut faults = Faults::default();
    if nodes.len() > MAX_BACKENDS {
        let message = format!(
            "{} nodes: must be 1 to {MAX_BACKENDS}; list every control-plane node once",
            nodes.len()
        );
        faults.add(Fault::new(place, message));
    }
    for (index, Placed { value: node, place }) in nodes.iter().enumerate() {
        let address = node.address;
        let first = nodes[0].value.address;
        if address.is_ipv4() != first.is_ipv4() {
            let message = format!(
                "node {address} is not of the same family as node {first}; list all by one family, and the other as `other_address`"
            );
            faults.add(Fault::new(*place, message));
        }
        let other = node.other_address;
        if let Some(other) = other.filter(|other| other.is_ipv4() == address.is_ipv4()) {
            let message = format!(
                "{other} is of the same family as {address}; give `other_address` one of the other family"
            );
            faults.add(Fault::new(*place, message));
        }
        let clash = nodes[..index].iter().find_map(|before| {
            let before = &before.value;
            if before.address == address {
                Some(format!("node {address} is listed twice; remove one"))
            } else if before.name == node.name {
                Some(format!("two nodes are named `{}`; rename one", node.name))
            } else if other.is_some() && before.other_address == other {
                Some(format!(
                    "nodes {} and {address} have the same `other_address`; correct one",
                    before.address
                ))
            } else {
                None
            }
        });
        if let Some(message) = clash {
            faults.add(Fault::new(*place, message));
        }
    }
    faults.or(())
}
