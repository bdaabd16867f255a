//! Whether anybody listens at a node's BFD port, and whether datagrams get there and answers back.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Protocol, Type};
use vip_common::wire::bfd::PORT;

use super::{NetError, datagram};
use vip_node::hearing::Port;

/// Datagrams that are sent before silence counts, and the time between them. Kernels tell a host once
/// a second at most that nobody listens (`net.ipv4.icmp_ratelimit`), and BFD's own packets make them
/// tell it, too.
const TRIES: u32 = 12;
const PAUSE: Duration = Duration::from_millis(250);

/// Sends empty datagrams, which are no BFD, from a port of no meaning, until something comes of one.
///
/// # Errors
/// The interface or the address is not there.
pub async fn try_bfd_port(interface: &str, own: IpAddr, peer: IpAddr) -> Result<Port, NetError> {
    let refused = || NetError::io(format!("send from {interface} ({own}) to UDP port {PORT}"));
    let open = || {
        let socket = datagram::socket(own, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.bind(&SocketAddr::new(own, 0).into())?;
        socket.connect(&SocketAddr::new(peer, PORT).into())?;
        io::Result::Ok(socket)
    };
    let socket = open().map_err(refused())?;
    for _ in 0..TRIES {
        let sent = socket.send(&[]).err();
        tokio::time::sleep(PAUSE).await;
        let error = match sent {
            Some(error) => Some(error),
            None => socket.take_error().map_err(refused())?,
        };
        match error.as_ref().map(meaning) {
            None | Some(Port::Silent) => {}
            Some(told) => return Ok(told),
        }
    }
    Ok(Port::Silent)
}

/// What an error says of the port (`icmp_err_convert` in net/ipv4/icmp.c, `tab_unreach` and
/// `icmpv6_err_convert` in net/ipv6/icmp.c).
fn meaning(error: &io::Error) -> Port {
    match error.kind() {
        ErrorKind::ConnectionRefused => Port::Refused,
        // A firewall of this node that drops it lets the send fail.
        ErrorKind::PermissionDenied if error.raw_os_error() == Some(Errno::EPERM as i32) => {
            Port::Forbidden
        }
        ErrorKind::PermissionDenied
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable => Port::Prohibited,
        _ => Port::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::bfd::BfdSocket;
    use crate::net::testing::{self, A, A6, B, B6, Side};

    #[test]
    fn a_port_where_nobody_listens_is_told_from_one_where_somebody_does() {
        testing::in_two_namespaces(async |pair| {
            for (a, b) in [(IpAddr::from(A), IpAddr::from(B)), (A6.into(), B6.into())] {
                pair.enter(Side::A);
                assert_eq!(try_bfd_port("a0", a, b).await.unwrap(), Port::Refused);
                pair.enter(Side::B);
                let _agent = BfdSocket::open_alone("b0", b, &[a]).unwrap();
                pair.enter(Side::A);
                assert_eq!(try_bfd_port("a0", a, b).await.unwrap(), Port::Silent);
            }
        });
    }

    #[test]
    fn errors_mean_what_the_kernel_means_by_them() {
        for (errno, wanted) in [
            (Errno::ECONNREFUSED, Port::Refused),
            (Errno::EPERM, Port::Forbidden),
            (Errno::EACCES, Port::Prohibited),
            (Errno::EHOSTUNREACH, Port::Prohibited),
            (Errno::ENETUNREACH, Port::Prohibited),
            (Errno::ENOBUFS, Port::Silent),
        ] {
            let error = io::Error::from_raw_os_error(errno as i32);
            assert_eq!(meaning(&error), wanted, "{errno}");
        }
    }
}
