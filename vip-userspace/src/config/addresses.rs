//! Addresses, networks and endpoints, as people write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::types::{Listen, Network};

/// `ADDRESS` or `ADDRESS/LENGTH`.
pub(super) fn network(text: &str) -> Result<Network, String> {
    let malformed =
        || format!("`{text}` is not a network; write it like 10.0.0.0/8, fd00::/8 or 10.1.2.3");
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    if let Some(length) = length
        && length.len() > 1
        && length.bytes().all(|byte| byte.is_ascii_digit())
        && length.starts_with('0')
    {
        let length = length.trim_start_matches('0');
        let length = if length.is_empty() { "0" } else { length };
        return Err(format!(
            "`{text}` has a prefix length that begins with 0; write {address}/{length}"
        ));
    }
    let address: IpAddr = address.parse().map_err(|_| malformed())?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let prefix_len: u8 = match length {
        None => whole,
        Some(length) => length
            .parse()
            .ok()
            .filter(|length| *length <= whole)
            .ok_or_else(malformed)?,
    };
    if let IpAddr::V6(address) = address
        && let (Some(address), Some(length)) =
            (address.to_ipv4_mapped(), prefix_len.checked_sub(96))
    {
        return Err(format!(
            "`{text}` is an IPv4 network in the form of IPv6, which no source has; write {address}/{length}"
        ));
    }
    let masked: IpAddr = match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len));
            Ipv4Addr::from_bits(address.to_bits() & mask.unwrap_or(0)).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix_len));
            Ipv6Addr::from_bits(address.to_bits() & mask.unwrap_or(0)).into()
        }
    };
    if masked == address {
        Ok(Network {
            address,
            prefix_len,
        })
    } else {
        Err(format!(
            "`{text}` has bits behind its prefix; did you mean {masked}/{prefix_len}?"
        ))
    }
}

/// `ADDRESS` or `ADDRESS:PORT`, one of IPv6 in brackets if there is a port.
pub(super) fn endpoint(text: &str) -> Result<SocketAddr, String> {
    const DEFAULT_PORT: u16 = 6443;
    let (address, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, "")) => (address, None),
        Some((address, rest)) => match rest.strip_prefix(':') {
            Some(port) => (address, Some(port)),
            None => {
                return Err(format!(
                    "`{text}` is not an address; write it like [fd00::10]:6443"
                ));
            }
        },
        None => match text.rsplit_once(':') {
            Some((address, port)) if !address.contains(':') => (address, Some(port)),
            _ => (text, None),
        },
    };
    if !text.starts_with('[') && port.is_none() {
        refuse_hidden_port(text)?;
    }
    let address = unicast(address)?;
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => match port.parse() {
            Ok(number) if number != 0 => number,
            _ => return Err(format!("`{port}` is not a port, must be 1 to 65535")),
        },
    };
    Ok(SocketAddr::new(address, port))
}

/// Ports of Kubernetes' API servers, and of what joins nodes to k3s and RKE2.
const USUAL_PORTS: &[&str] = &["443", "6443", "8443", "9345"];

/// Refuses an address of IPv6 without brackets where its last group may be meant as a port:
/// `fd00::10:6443` is an address, and mostly another one than was meant.
fn refuse_hidden_port(text: &str) -> Result<(), String> {
    let Some((address, port)) = text.rsplit_once(':') else {
        return Ok(());
    };
    let is_whole = text.parse::<Ipv6Addr>().is_ok();
    let is_port = if is_whole {
        USUAL_PORTS.contains(&port)
    } else {
        port.parse::<u16>().is_ok()
    };
    if !is_port || address.parse::<Ipv6Addr>().is_err() {
        return Ok(());
    }
    Err(if is_whole {
        format!(
            "`{text}` is one address, though its end looks like a port; write [{address}]:{port}, \
             or [{text}] if that is the address"
        )
    } else {
        format!("`{text}` is not an address; write it like [{address}]:{port}")
    })
}

/// The address of a node, which has no port. One of IPv6 may stand in brackets.
pub(super) fn host(text: &str) -> Result<IpAddr, String> {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .filter(|text| text.parse::<Ipv6Addr>().is_ok());
    if let Some(address) = bracketed {
        return unicast(address);
    }
    let with_port = match text.rsplit_once(':') {
        Some((address, port)) if text.parse::<IpAddr>().is_err() => {
            let address = address.trim_start_matches('[').trim_end_matches(']');
            let is_port = port.parse::<u16>().is_ok();
            address.parse::<IpAddr>().ok().filter(|_| is_port)
        }
        Some((address, port)) if USUAL_PORTS.contains(&port) => {
            address.parse::<Ipv6Addr>().ok().map(IpAddr::from)
        }
        _ => None,
    };
    match with_port {
        None => unicast(text),
        Some(address) if text.parse::<IpAddr>().is_ok() => Err(format!(
            "`{text}` is one address, though its end looks like a port; write {address}, which \
             needs none, or [{text}] if that is the address"
        )),
        Some(address) => Err(format!(
            "`{text}` has a port, which a node's address needs not; write {address}"
        )),
    }
}

/// `PORT` of loopback, `node:PORT` of the node's own address, or `ADDRESS:PORT`, also on all
/// addresses, to listen at.
pub(super) fn listen(text: &str) -> Result<Listen, String> {
    let port = |text: &str| text.parse().ok().filter(|port: &u16| *port != 0);
    let alone = || port(text.strip_prefix(':').unwrap_or(text));
    let address = || text.parse().ok().filter(|at: &SocketAddr| at.port() != 0);
    if let Some(port) = text.strip_prefix("node:").and_then(port) {
        Ok(Listen::Node(port))
    } else if let Some(port) = alone() {
        Ok(Listen::At((Ipv4Addr::LOCALHOST, port).into()))
    } else if let Some(address) = address() {
        Ok(Listen::At(address))
    } else {
        Err(format!(
            "`{text}` is nothing to listen at; write it like 127.0.0.1:9643, [::1]:9643, or \
             node:9643 for each node's own address"
        ))
    }
}

/// An address that a host can have.
pub(super) fn unicast(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| {
        format!("`{text}` is not an IP address; write it like 10.0.0.10 or fd00::10")
    })?;
    let kind =
        if address.is_unspecified() || matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0) {
            "an unspecified"
        } else if address.is_loopback() {
            "a loopback"
        } else if address.is_multicast() {
            "a multicast"
        } else if match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        } {
            "a link-local"
        } else if match address {
            IpAddr::V4(address) => address.octets()[0] >= 240,
            // An IPv4 address as IPv6 has it is never on a wire.
            IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
        } {
            "a reserved"
        } else {
            return Ok(address);
        };
    Err(format!(
        "{address} is {kind} address; give one of the nodes' subnet"
    ))
}
