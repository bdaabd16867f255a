//! TCP sockets of this network namespace, by the kernel's socket monitoring interface
//! (sock_diag(7)): the length of accept queues, the connections in them, and their end.
//!
//! A listener is looked up as by a SYN, so that a look costs a few microseconds however many
//! sockets the machine has. Only a list of connections walks the kernel's whole table.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};

use bytemuck::{Pod, Zeroable};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};
use vip_node::backlog::{Fate, Queue};

/// `SOCK_DIAG_BY_FAMILY`, `SOCK_DESTROY` (include/uapi/linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;

/// `TCP_ESTABLISHED`, `TCP_CLOSE_WAIT`, `TCP_LISTEN` (include/net/tcp_states.h). A connection
/// whose client has given up waits in the queue as `CLOSE_WAIT`.
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

/// `struct nlmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid`: a socket's own end, and the other one. An IPv4 address takes the
/// first four bytes.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Id {
    own_port: [u8; 2],
    other_port: [u8; 2],
    own: [u8; 16],
    other: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `INET_DIAG_NOCOOKIE`: any socket with these ends.
const NO_COOKIE: [u32; 2] = [u32::MAX; 2];

/// `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    id: Id,
}

/// `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: Id,
    expires: u32,
    receive_queue: u32,
    send_queue: u32,
    user: u32,
    inode: u32,
}

/// A connection of this network namespace.
#[derive(Clone, Copy)]
pub struct Connection {
    family: u8,
    id: Id,
    /// No program has accepted it.
    pub waits: bool,
}

impl Connection {
    fn new(answer: &Answer) -> Self {
        Self {
            family: answer.family,
            id: answer.id,
            waits: answer.inode == 0 && matches!(answer.state, ESTABLISHED | CLOSE_WAIT),
        }
    }

    /// This node's end.
    #[must_use]
    pub fn own(&self) -> SocketAddr {
        self.end(self.id.own, self.id.own_port)
    }

    /// The client's end.
    #[must_use]
    pub fn other(&self) -> SocketAddr {
        self.end(self.id.other, self.id.other_port)
    }

    fn end(&self, address: [u8; 16], port: [u8; 2]) -> SocketAddr {
        let address = if i32::from(self.family) == libc::AF_INET {
            let [a, b, c, d, ..] = address;
            IpAddr::from([a, b, c, d])
        } else {
            IpAddr::from(address).to_canonical()
        };
        SocketAddr::new(address, u16::from_be_bytes(port))
    }
}

/// Asks the kernel about TCP sockets. It answers at once, so no call waits.
#[derive(Debug)]
pub struct SocketDiag(Socket);

impl SocketDiag {
    /// Opens one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
        Ok(Self(socket))
    }

    /// Connections in the accept queue of the listener that takes new connections to an address;
    /// zero if nothing listens. `guest` chooses among sockets that share a port (`SO_REUSEPORT`).
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn queue_length(&self, address: SocketAddr, guest: u16) -> io::Result<u32> {
        let request = Request::new(family(address.ip()), Id::from_ends(address, guest));
        let answers = self.ask(BY_FAMILY, libc::NLM_F_REQUEST, request)?;
        let listener = answers.iter().find(|answer| answer.state == LISTEN);
        Ok(listener.map_or(0, |answer| answer.receive_queue))
    }

    /// All connections to a port of this node.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn connections(&self, port: u16) -> io::Result<Vec<Connection>> {
        let all = self.list(port, 1 << ESTABLISHED | 1 << CLOSE_WAIT)?;
        Ok(all.iter().map(Connection::new).collect())
    }

    /// The accept queues of all that listen at a port of this node.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn accept_queues(&self, port: u16) -> io::Result<Vec<Queue>> {
        let queue = |answer: &Answer| {
            let [low, high] = answer.id.cookie.map(u64::from);
            Queue {
                listener: high << 32 | low,
                length: answer.receive_queue,
            }
        };
        let all = self.list(port, 1 << LISTEN)?;
        Ok(all.iter().map(queue).collect())
    }

    /// All sockets in these states whose own end is a port.
    fn list(&self, port: u16, states: u32) -> io::Result<Vec<Answer>> {
        let mut all = Vec::new();
        // Those of a listener for both families are of IPv6.
        for family in [libc::AF_INET, libc::AF_INET6] {
            let id = Id {
                own_port: port.to_be_bytes(),
                ..Id::zeroed()
            };
            let mut request = Request::new(family as u8, id);
            request.states = states;
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            all.extend(self.ask(BY_FAMILY, flags, request)?);
        }
        Ok(all)
    }

    /// All connections to these ends of this node.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn connections_to(&self, ends: &BTreeSet<SocketAddr>) -> io::Result<Vec<Connection>> {
        let ports: BTreeSet<u16> = ends.iter().map(SocketAddr::port).collect();
        let mut found = Vec::new();
        for port in ports {
            let all = self.connections(port)?.into_iter();
            found.extend(all.filter(|one| ends.contains(&one.own())));
        }
        Ok(found)
    }

    /// What became of a connection that no program had accepted.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn fate(&self, connection: &Connection) -> io::Result<Fate> {
        let request = Request::new(connection.family, connection.id);
        let answers = self.ask(BY_FAMILY, libc::NLM_F_REQUEST, request)?;
        Ok(match answers.first().map(Connection::new) {
            Some(Connection { waits: true, .. }) => Fate::Waits,
            Some(_) => Fate::Accepted,
            None => Fate::Gone,
        })
    }

    /// Resets a connection: its client and its program are told. One that is gone is as good.
    ///
    /// # Errors
    /// The kernel's: it is built without `CONFIG_INET_DIAG_DESTROY`, or `CAP_NET_ADMIN` is missing.
    pub fn reset(&self, connection: &Connection) -> io::Result<()> {
        self.destroy(Request::new(connection.family, connection.id))
    }

    /// Resets connections, as [`reset`](Self::reset) does each. Returns their number.
    ///
    /// # Errors
    /// As [`reset`](Self::reset).
    pub fn reset_all(&self, connections: &[Connection]) -> io::Result<usize> {
        for connection in connections {
            self.reset(connection)?;
        }
        Ok(connections.len())
    }

    /// Whether the kernel can reset connections.
    ///
    /// # Errors
    /// As [`reset`](Self::reset).
    pub fn can_reset(&self) -> io::Result<()> {
        // Nothing has port 0.
        self.destroy(Request::new(libc::AF_INET as u8, Id::zeroed()))
    }

    fn destroy(&self, request: Request) -> io::Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        match self.ask(DESTROY, flags, request) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Err(io::Error::other(
                "the kernel is built without CONFIG_INET_DIAG_DESTROY",
            )),
            other => other.map(drop),
        }
    }

    /// Sends a request and reads all answers. No socket with these ends: there are none.
    fn ask(&self, kind: u16, flags: libc::c_int, request: Request) -> io::Result<Vec<Answer>> {
        let header = Header {
            length: (size_of::<Header>() + size_of::<Request>()) as u32,
            kind,
            flags: flags as u16,
            sequence: 0,
            port: 0,
        };
        let message = [bytemuck::bytes_of(&header), bytemuck::bytes_of(&request)].concat();
        self.0.send(&message)?;
        let one = flags & libc::NLM_F_DUMP == 0;
        let mut answers = Vec::new();
        // The kernel makes parts of a list as large as that.
        let mut buffer = vec![0; if one { 512 } else { 32 << 10 }];
        loop {
            let length = (&self.0).read(&mut buffer)?;
            if take(&buffer[..length], &mut answers)? || one {
                return Ok(answers);
            }
        }
    }
}

impl Request {
    fn new(family: u8, id: Id) -> Self {
        Self {
            family,
            protocol: libc::IPPROTO_TCP as u8,
            extensions: 0,
            padding: 0,
            states: u32::MAX,
            id: Id {
                cookie: if id.cookie == [0; 2] {
                    NO_COOKIE
                } else {
                    id.cookie
                },
                ..id
            },
        }
    }
}

impl Id {
    /// A listener's, as by a SYN from a port of no host.
    fn from_ends(own: SocketAddr, other_port: u16) -> Self {
        let mut id = Self {
            own_port: own.port().to_be_bytes(),
            other_port: other_port.to_be_bytes(),
            ..Self::zeroed()
        };
        match own.ip() {
            IpAddr::V4(address) => id.own[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => id.own = address.octets(),
        }
        id
    }
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    family as u8
}

/// Takes the messages of a datagram. Returns whether it holds the end of the answer.
fn take(mut datagram: &[u8], answers: &mut Vec<Answer>) -> io::Result<bool> {
    let malformed = || io::Error::other("malformed netlink message");
    while !datagram.is_empty() {
        let header = datagram.get(..size_of::<Header>()).ok_or_else(malformed)?;
        let header: Header = bytemuck::pod_read_unaligned(header);
        let length = header.length as usize;
        let content = datagram.get(size_of::<Header>()..length);
        let content = content.ok_or_else(malformed)?;
        match i32::from(header.kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let error = content.get(..4).ok_or_else(malformed)?;
                return match -bytemuck::pod_read_unaligned::<i32>(error) {
                    // No such socket, or another one with the same ends.
                    0 | libc::ENOENT | libc::ESTALE => Ok(true),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                };
            }
            _ => {
                let answer = content.get(..size_of::<Answer>()).ok_or_else(malformed)?;
                answers.push(bytemuck::pod_read_unaligned(answer));
            }
        }
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_that_nobody_accepts_are_seen_and_reset() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).expect("listens");
            let port = listener.local_addr().expect("bound").port();
            // A listener for both families is asked for by IPv4, too.
            let ip: IpAddr = match address {
                "[::1]:0" => "::1",
                _ => "127.0.0.1",
            }
            .parse()
            .expect("an address");
            let at = SocketAddr::new(ip, port);
            let diag = SocketDiag::open().expect("opens");
            let length = || diag.queue_length(at, 1).expect("answers");
            assert_eq!(length(), 0);
            assert!(diag.connections(port).expect("answers").is_empty());

            let clients = [(); 3].map(|()| TcpStream::connect(at).expect("connects"));
            assert_eq!(length(), 3);
            let all = diag.connections(port).expect("answers");
            assert!(all.len() == 3 && all.iter().all(|one| one.waits && one.own() == at));
            let ends = |clients: &[TcpStream]| {
                let ends = clients.iter().map(|client| client.local_addr());
                ends.collect::<io::Result<BTreeSet<_>>>().expect("bound")
            };
            assert_eq!(
                all.iter().map(Connection::other).collect::<BTreeSet<_>>(),
                ends(&clients)
            );
            let to = |ends: &[SocketAddr]| {
                let ends = ends.iter().copied().collect();
                diag.connections_to(&ends).expect("answers").len()
            };
            let elsewhere = SocketAddr::new(IpAddr::from([127, 0, 0, 9]), port);
            assert_eq!((to(&[at, elsewhere]), to(&[elsewhere]), to(&[])), (3, 0, 0));
            drop(clients);
            let count = || {
                let waits = |one: &&Connection| diag.fate(one).expect("answers") == Fate::Waits;
                all.iter().filter(waits).count()
            };
            assert_eq!(count(), 3, "their clients have gone, and they still wait");
            let _accepted = listener.accept().expect("accepts");
            assert_eq!((count(), length()), (2, 2));
        }
    }

    #[test]
    fn only_the_server_takes_connections_out_of_its_queue() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            let listener = TcpListener::bind(address).expect("listens");
            let port = listener.local_addr().expect("bound").port();
            let at = SocketAddr::from(([127, 0, 0, 1], port));
            let diag = SocketDiag::open().expect("opens");
            let queue = || match diag.accept_queues(port).expect("answers")[..] {
                [queue] => queue,
                ref all => panic!("{all:?}"),
            };
            let empty = queue();
            assert_eq!(empty.length, 0);

            let _clients = [(); 3].map(|()| TcpStream::connect(at).expect("connects"));
            let all = diag.connections(port).expect("answers");
            let waiting: Vec<_> = all.iter().filter(|one| one.waits).collect();
            assert_eq!(waiting.len(), 3);
            let fates = || {
                let fate = |one: &&Connection| diag.fate(one).expect("answers");
                waiting.iter().map(fate).collect::<Vec<_>>()
            };
            diag.reset(waiting[2]).expect("resets");
            let (length, listener_of) = (queue().length, queue().listener);
            assert_eq!((length, listener_of), (3, empty.listener));
            let gone = fates().iter().filter(|fate| **fate == Fate::Gone).count();
            assert_eq!(gone, 1, "it was reset, and nothing shows it");
            let _accepted = [(); 3].map(|()| listener.accept());
            assert_eq!(queue().length, 0);
            let accepted = fates();
            let accepted = accepted.iter().filter(|fate| **fate == Fate::Accepted);
            assert_eq!(accepted.count(), 2);
        }
    }

    #[test]
    fn a_connection_is_reset_and_its_client_told() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let at = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(at).expect("connects");
        let _server = listener.accept().expect("accepts");
        let diag = SocketDiag::open().expect("opens");
        diag.can_reset().expect("this kernel can");
        let [connection] = diag.connections(at.port()).expect("answers")[..] else {
            panic!("one connection");
        };
        assert!(!connection.waits);
        diag.reset(&connection).expect("resets");
        let error = client.read(&mut [0]).expect_err("reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        diag.reset(&connection).expect("gone already");
    }

    #[test]
    fn a_port_without_a_listener_has_no_queue() {
        let diag = SocketDiag::open().expect("opens");
        let at = "127.0.0.1:1".parse().expect("an address");
        assert_eq!(diag.queue_length(at, 1).expect("answers"), 0);
    }
}
