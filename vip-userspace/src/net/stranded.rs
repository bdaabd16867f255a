//! Connections of this node and its pods to a VIP that went by the network until the VIP came to be
//! on this node.
//!
//! From then on their packets end here, where nobody has the connection, and what the server sends
//! comes from an address that is this node's own and is dropped (`martian source`). Nothing tells
//! the client before it sends something: a watch would stay silent until its keepalive. So each
//! client is asked: a SYN-ACK that belongs to nothing makes it confirm where it stands (challenge
//! ACK, RFC 5961, section 4.2), which ends at this node's kernel, and is answered by a reset that
//! fits.
//!
//! Of its own connections the kernel tells in `/proc/net/tcp`; those of pods it knows where it
//! tracks connections, as it does for Services (`/proc/net/nf_conntrack`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::NetError;
use super::nudge::{Kind, Segment};
use crate::random;

/// A connection to the VIP, from the view of the node that answers for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Stranded {
    vip: SocketAddr,
    client: SocketAddr,
}

/// A socket's own address and its peer's.
type Ends = (SocketAddr, SocketAddr);

/// Ends the connections to the `ports` of a VIP that is on this node now. Returns how many there
/// were.
///
/// # Errors
/// A packet cannot be sent: no `CAP_NET_RAW`.
pub fn end(vip: IpAddr, ports: &[u16]) -> Result<usize, NetError> {
    let sockets = ["tcp", "tcp6"].map(|file| of_sockets(&read(file))).concat();
    let tracked = of_conntrack(&read("nf_conntrack"));
    let stranded = find(vip, ports, &sockets, &tracked);
    if !stranded.is_empty() {
        let failed = NetError::io(format!("end connections to {vip} from before it was here"));
        send(vip, &stranded).map_err(failed)?;
    }
    Ok(stranded.len())
}

/// Those that nobody on this node serves. With connection tracking the node's own are in both lists.
fn find(vip: IpAddr, ports: &[u16], sockets: &[Ends], tracked: &[Stranded]) -> BTreeSet<Stranded> {
    // This node's own server may have been the VIP's before.
    let own = sockets.iter().filter(|(local, _)| local.ip() == vip);
    let served: BTreeSet<SocketAddr> = own.map(|(_, client)| *client).collect();
    let is_stranded = |one: &Stranded| {
        let asked = one.vip.ip() == vip && ports.contains(&one.vip.port());
        // Those of the node to itself were here all the time.
        asked && one.client.ip() != vip && !served.contains(&one.client)
    };
    let by_sockets = sockets
        .iter()
        .map(|&(client, vip)| Stranded { vip, client });
    let all = by_sockets.chain(tracked.iter().copied());
    all.filter(is_stranded).collect()
}

/// A file of this thread's network namespace; nothing where the kernel has none.
fn read(file: &str) -> String {
    fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default()
}

/// `TCP_ESTABLISHED`, `TCP_FIN_WAIT1` and `2`, `TCP_CLOSE_WAIT` (include/net/tcp_states.h): the
/// client may still wait for something.
const OPEN: [&str; 4] = ["01", "04", "05", "08"];

/// Connections of the node's own sockets, each with its own end first (`get_tcp4_sock`,
/// net/ipv4/tcp_ipv4.c).
fn of_sockets(table: &str) -> Vec<Ends> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (words.next()?, words.next()?);
        let is_open = OPEN.contains(&words.next()?);
        is_open.then_some((endpoint(local)?, endpoint(remote)?))
    };
    table.lines().filter_map(line).collect()
}

/// An address in words as the machine reads them, and a port.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = address.get(8 * at..8 * at + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    };
    let address = if address.len() == 8 {
        Ipv4Addr::from(word(0)?).into()
    } else {
        let words = [word(0)?, word(1)?, word(2)?, word(3)?];
        Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>(words)).to_canonical()
    };
    Some(SocketAddr::new(
        address,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

/// Connections that the kernel tracks (`ct_seq_show`, net/netfilter/nf_conntrack_standalone.c):
/// first as the client began it, then as it is answered. The answer's way is that by which packets
/// find the client, also behind NAT.
fn of_conntrack(table: &str) -> Vec<Stranded> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if words.get(2) != Some(&"tcp") || words.get(5) != Some(&"ESTABLISHED") {
            return None;
        }
        // The second of each.
        let value = |key: &str| {
            let mut values = words.iter().filter_map(|word| word.strip_prefix(key));
            values.nth(1)
        };
        let address = |key| value(key)?.parse::<IpAddr>().ok();
        let port = |key| value(key)?.parse::<u16>().ok();
        Some(Stranded {
            vip: SocketAddr::new(address("src=")?, port("sport=")?),
            client: SocketAddr::new(address("dst=")?, port("dport=")?),
        })
    };
    table.lines().filter_map(line).collect()
}

fn send(vip: IpAddr, stranded: &BTreeSet<Stranded>) -> io::Result<()> {
    let domain = if vip.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(vip, 0).into())?;
    for one in stranded {
        // The kernel takes a port for a protocol's number here.
        let client = SockAddr::from(SocketAddr::new(one.client.ip(), 0));
        let question = Segment {
            source: one.vip,
            client: one.client,
            kind: Kind::SynAck(random::secret()),
        };
        match socket.send_to(question.tcp().as_slice(), &client) {
            // Its pod has gone, or a firewall stands before it.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                tracing::debug!(%error, client = %one.client, "cannot end a connection");
            }
            other => drop(other?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::net::netlink::Netlink;
    use crate::net::testing::{self, A, A6, B, B6, Side, VIP, VIP6};

    fn stranded(vip: &str, client: &str) -> Stranded {
        Stranded {
            vip: vip.parse().unwrap(),
            client: client.parse().unwrap(),
        }
    }

    #[test]
    fn sockets_are_read_as_the_kernel_prints_them() {
        // Of a machine whose least significant byte comes first.
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n   \
             0: 0B00000A:D431 0A00000A:192B 01 00000000:00000000 02:00000A4B 00000000 0\n   \
             1: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0\n   \
             2: 0000000000000000FFFF00000B00000A:D432 0000000000000000FFFF00000A00000A:192B 08\n   \
             3: 000000FD000000000000000011000000:D433 000000FD000000000000000010000000:192B 01\n";
        if cfg!(target_endian = "little") {
            let expected = [
                ("10.0.0.11:54321", "10.0.0.10:6443"),
                ("10.0.0.11:54322", "10.0.0.10:6443"),
                ("[fd00::11]:54323", "[fd00::10]:6443"),
            ];
            let expected = expected.map(|(local, remote)| {
                let [local, remote] = [local, remote].map(|end| end.parse().unwrap());
                (local, remote)
            });
            assert_eq!(of_sockets(table), expected);
        }
    }

    #[test]
    fn tracked_connections_are_found_where_their_answers_go() {
        let table = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.244.0.2 dst=10.0.0.10 \
             sport=40000 dport=6443 src=10.0.0.10 dst=10.0.0.12 sport=6443 dport=61000 [ASSURED] \
             mark=0 zone=0 use=2\n\
             ipv4     2 tcp      6 119 TIME_WAIT src=10.244.0.2 dst=10.0.0.10 sport=40001 \
             dport=6443 src=10.0.0.10 dst=10.244.0.2 sport=6443 dport=40001 [ASSURED] mark=0 use=2\n\
             ipv4     2 udp      17 29 src=10.244.0.2 dst=10.0.0.10 sport=1 dport=6443 \
             src=10.0.0.10 dst=10.244.0.2 sport=6443 dport=1 mark=0 use=2\n\
             ipv6     10 tcp      6 300 ESTABLISHED src=fd01::2 dst=fd00::10 sport=40002 dport=6443 \
             src=fd00::10 dst=fd01::2 sport=6443 dport=40002 [ASSURED] mark=0 zone=0 use=2\n";
        let expected = [
            stranded("10.0.0.10:6443", "10.0.0.12:61000"),
            stranded("[fd00::10]:6443", "[fd01::2]:40002"),
        ];
        assert_eq!(of_conntrack(table), expected);
    }

    #[test]
    fn clients_of_this_nodes_own_server_are_not_stranded() {
        let [vip, node, client, pod] = [
            "10.0.0.10:6443",
            "10.0.0.11:54321",
            "10.0.0.100:40000",
            "10.244.0.2:40001",
        ]
        .map(|end| end.parse().unwrap());
        let sockets = [(node, vip), (vip, client)];
        let tracked = [node, client, pod].map(|client| Stranded { vip, client });
        let found = find(vip.ip(), &[6443], &sockets, &tracked);
        let expected = [node, pod].map(|client| Stranded { vip, client });
        assert_eq!(found, expected.into());
    }

    #[test]
    fn connections_by_the_network_end_when_the_vip_comes_here_and_others_stay() {
        testing::in_two_namespaces(async |pair| {
            for (vip, own, other) in [
                (IpAddr::from(VIP), IpAddr::from(A), IpAddr::from(B)),
                (VIP6.into(), A6.into(), B6.into()),
            ] {
                // Somebody else has it.
                pair.enter(Side::B);
                let netlink = Netlink::connect().unwrap();
                netlink.add_vip(vip).await.unwrap();
                let there = TcpListener::bind((vip, 6443)).unwrap();
                pair.enter(Side::A);
                testing::ip(&format!("route add {vip} via {other}"));
                let mut client = TcpStream::connect((vip, 6443)).unwrap();
                client
                    .set_read_timeout(Some(Duration::from_secs(60)))
                    .unwrap();
                assert_eq!(client.local_addr().unwrap().ip(), own);
                let _server = there.accept().unwrap();
                let netlink = Netlink::connect().unwrap();
                netlink.add_vip(vip).await.unwrap();
                let here = TcpListener::bind((vip, 6443)).unwrap();
                let mut local = testing::connect_soon(vip);
                let _its_server = here.accept().unwrap();
                assert_eq!(end(vip, &[443]).unwrap(), 0);
                assert_eq!(end(vip, &[443, 6443]).unwrap(), 1);
                let ended = client.read(&mut [0]).unwrap_err();
                assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{vip}");
                local
                    .set_read_timeout(Some(Duration::from_millis(100)))
                    .unwrap();
                let open = local.read(&mut [0]).unwrap_err();
                assert_eq!(open.kind(), ErrorKind::WouldBlock, "{vip}");
            }
        });
    }
}
