//! The values of keys and flags, each checked by itself.

use std::path::Component;

use super::draft::Terms;
use super::fault::{Fault, Place};
use super::table::{Table, list, number, table, text, wrong_type};
use super::*;
use crate::run_dir::SOCKET;

pub(super) fn buckets(value: Spanned<DeValue<'_>>) -> Result<u32, Fault> {
    let range = i64::from(rank::MIN_BUCKETS)..=i64::from(rank::MAX_BUCKETS);
    let buckets = number(&value, range)? as u32;
    if buckets.is_power_of_two() {
        return Ok(buckets);
    }
    let (less, more) = (buckets.next_power_of_two() / 2, buckets.next_power_of_two());
    let message = format!("{buckets} is not a power of two; take {less} or {more}");
    Err(Fault::new(value.span(), message))
}

pub(super) type Nodes = (Vec<(Node, Place)>, Place);

pub(super) fn nodes(value: Spanned<DeValue<'_>>) -> Result<Nodes, Fault> {
    let place = value.span().into();
    let values = list(value, "a list of addresses")?;
    let nodes = values.into_iter().map(node).collect::<Result<_, _>>()?;
    Ok((nodes, place))
}

fn node(value: Spanned<DeValue<'_>>) -> Result<(Node, Place), Fault> {
    let place = value.span();
    match value.into_inner() {
        DeValue::Table(values) => {
            let mut table = Table::new(values);
            let address = table.take("address", |value| text(value, host))?;
            let other_address = table.text("other_address", host)?;
            let name = table.text("name", node_name)?;
            let weight = table.number("weight", 1..=65_535)?;
            table.end()?;
            let (address, place) = address.ok_or_else(|| {
                let message = "`address` is missing; add `address = \"10.0.0.11\"`";
                Fault::new(place, message)
            })?;
            let node = Node {
                name: name.unwrap_or_else(|| address.to_string()),
                weight: weight.unwrap_or(1) as u16,
                address,
                other_address,
            };
            Ok((node, place))
        }
        value @ DeValue::String(_) => {
            let (address, place) = text(Spanned::new(place, value), host)?;
            Ok((Node::at(address), place))
        }
        other => Err(wrong_type(
            &Spanned::new(place, other),
            "an address in quotes, or a table with one",
        )),
    }
}

/// One VIP, or a list of them.
pub(super) fn vips(value: Spanned<DeValue<'_>>) -> Result<Vec<(SocketAddr, Place)>, Fault> {
    let place = value.span();
    match value.into_inner() {
        DeValue::Array(values) if values.is_empty() => {
            Err(Fault::new(place, "no VIP; give one, or a list of them"))
        }
        DeValue::Array(values) => values
            .into_iter()
            .map(|value| text(value, endpoint))
            .collect(),
        value @ DeValue::String(_) => Ok(vec![text(Spanned::new(place, value), endpoint)?]),
        other => Err(wrong_type(
            &Spanned::new(place, other),
            "an address in quotes, or a list of them",
        )),
    }
}

/// Connections a second.
pub(super) fn syn_rate(value: Spanned<DeValue<'_>>) -> Result<u32, Fault> {
    Ok(number(&value, 1..=1_000_000)? as u32)
}

/// The entries of `services`.
pub(super) fn services(value: Spanned<DeValue<'_>>) -> Result<Vec<(u16, Terms, Place)>, Fault> {
    list(value, TABLES)?.into_iter().map(service).collect()
}

/// What is expected there.
const TABLES: &str = "tables under `[[services]]`";

fn service(value: Spanned<DeValue<'_>>) -> Result<(u16, Terms, Place), Fault> {
    let place = value.span();
    let mut table = Table::new(table(value, TABLES)?);
    let port = table.port("port")?;
    let terms = Terms {
        target: table.port("target_port")?,
        ask: table.text("path", probe_path)?.map_or(Ask::Tcp, Ask::Http),
        probe_port: table.port("probe_port")?,
        allow: table.take("allow", networks)?.unwrap_or_default(),
        syn_rate: table.take("syn_rate", syn_rate)?,
    };
    table.end()?;
    let port = port.ok_or_else(|| {
        let message = "`port` is missing; add `port = 9345`";
        Fault::new(place.clone(), message)
    })?;
    Ok((port, terms, place.into()))
}

/// A list of networks, sorted and without duplicates.
pub(super) fn networks(value: Spanned<DeValue<'_>>) -> Result<Vec<Network>, Fault> {
    let read = |value| Ok(text(value, network)?.0);
    let values = list(value, "a list of networks")?.into_iter();
    let mut networks = values.map(read).collect::<Result<Vec<_>, Fault>>()?;
    networks.sort_unstable();
    networks.dedup();
    Ok(networks)
}

/// `ADDRESS` or `ADDRESS/LENGTH`.
fn network(text: &str) -> Result<Network, String> {
    let malformed =
        || format!("`{text}` is not a network; write it like 10.0.0.0/8, fd00::/8 or 10.1.2.3");
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| malformed())?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let prefix_len = match length {
        None => whole,
        Some(length) => length
            .parse()
            .ok()
            .filter(|length| *length <= whole)
            .ok_or_else(malformed)?,
    };
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

pub(super) fn interface(text: &str) -> Result<String, String> {
    // ALTIFNAMSIZ less the final zero: it may be one of the interface's other names. Beside that,
    // what dev_valid_name (net/core/dev.c) allows.
    let valid = (1..=127).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` cannot be the name of an interface; see `ip link` for those there are"
        ))
    }
}

pub(super) fn node_name(text: &str) -> Result<String, String> {
    let valid = (1..=63).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` cannot be a node's name; take 1 to 63 letters, digits, `-`, `_` and `.`"
        ))
    }
}

pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err(format!("`{text}` is not an absolute path; begin it with /"))
    }
}

/// A directory of an agent's own, which it makes and `vip cleanup` removes.
pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    let path = absolute(text)?;
    let own = path.file_name().is_some();
    let plain = path.components().all(|part| part != Component::ParentDir);
    if own && plain {
        Ok(path)
    } else {
        Err(format!(
            "`{text}` cannot be an agent's own directory; write one like /run/vip, without `..`"
        ))
    }
}

/// One in which the agent's socket has a place: the kernel allows its path 107 bytes
/// (`sockaddr_un`, unix(7)).
pub(super) fn run_directory(text: &str) -> Result<PathBuf, String> {
    const LONGEST: usize = 107 - "/".len() - SOCKET.len();
    let path = directory(text)?;
    if path.as_os_str().len() <= LONGEST {
        Ok(path)
    } else {
        Err(format!(
            "`{text}` is too long for the agent's socket in it; at most {LONGEST} bytes are possible"
        ))
    }
}

pub(super) fn probe_path(text: &str) -> Result<String, String> {
    let valid = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not a path of a URL; write it like /readyz"
        ))
    }
}

pub(super) fn xdp_mode(text: &str) -> Result<XdpMode, String> {
    let modes = [
        ("auto", XdpMode::Auto),
        ("native", XdpMode::Native),
        ("generic", XdpMode::Generic),
        ("tc", XdpMode::Tc),
    ];
    one_of("mode", text, &modes)
}

/// What API servers are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckKind {
    Readyz,
    Tls,
    Tcp,
}

pub(super) fn check_kind(text: &str) -> Result<CheckKind, String> {
    let kinds = [
        ("readyz", CheckKind::Readyz),
        ("tls", CheckKind::Tls),
        ("tcp", CheckKind::Tcp),
    ];
    one_of("check", text, &kinds)
}

pub(super) fn vrrp_mode(text: &str) -> Result<VrrpMode, String> {
    let modes = [
        ("unicast", VrrpMode::Unicast),
        ("multicast", VrrpMode::Multicast),
    ];
    one_of("mode", text, &modes)
}

/// One of a few words; `what` they are called.
fn one_of<T: Copy>(what: &str, text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(name, _)| *name == text);
    found.map(|(_, word)| *word).ok_or_else(|| {
        let names: Vec<_> = words.iter().map(|(name, _)| format!("`{name}`")).collect();
        format!(
            "unknown {what} `{text}`, expected one of {}",
            names.join(", ")
        )
    })
}

pub(super) fn hash_key(text: &str) -> Result<[u64; 2], String> {
    let half = |range: Range<usize>| {
        let digits = text.get(range)?;
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| hexadecimal)
    };
    match (text.len(), half(0..16), half(16..32)) {
        (32, Some(k0), Some(k1)) => Ok([k0, k1]),
        // The text may be a key with a slip in it, so it is not repeated.
        _ => {
            Err("not a key: must be 32 hexadecimal digits; `openssl rand -hex 16` makes one".into())
        }
    }
}

pub(super) fn advert_interval(text: &str) -> Result<Duration, String> {
    let interval = duration(
        text,
        Duration::from_millis(10)..=Duration::from_millis(40_950),
    )?;
    // RFC 9568, section 5.2.7: the wire has centiseconds.
    if interval.as_millis().is_multiple_of(10) {
        Ok(interval)
    } else {
        Err(format!("`{text}` is not a multiple of 10ms; round it"))
    }
}

/// A number with a unit: `100ms`, `1.5s`, `2m`. In whole milliseconds.
pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let malformed = || format!("`{text}` is not a duration; write it like 100ms, 1.5s or 2m");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(unit_at.ok_or_else(malformed)?);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err(malformed()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| {
        let valid = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| valid)
    };
    let (whole, tail) = digits(whole).zip(digits(part)).ok_or_else(malformed)?;
    let scale = 10_u64.pow(part.len() as u32);
    let tail = tail * milliseconds;
    if !tail.is_multiple_of(scale) {
        return Err(format!(
            "`{text}` is not a whole number of milliseconds; round it"
        ));
    }
    let duration = Duration::from_millis(whole * milliseconds + tail / scale);
    if range.contains(&duration) {
        Ok(duration)
    } else {
        let (low, high) = range.into_inner();
        Err(format!(
            "`{text}` is out of range, must be {low:?} to {high:?}"
        ))
    }
}
