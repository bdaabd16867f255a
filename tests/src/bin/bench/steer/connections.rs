//! The sockets that a node finds for the flows that it keeps.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use vip_common::testing::{PORT, VIP, VIP6};
use vip_common::wire::addr::Be128;

use super::cases::{CONNECTED, Flows};

/// A listener, and connections of the first flows of both families.
pub(super) struct Connections {
    _listener: TcpListener,
    _ends: Vec<Socket>,
}

impl Connections {
    /// `flows`: how many connections of each family.
    pub(super) fn open(flows: Flows) -> Result<Self> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        ip(&["link", "set", "lo", "up"])?;
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
        let mut ends = Vec::new();
        let [a, b, c, d] = CONNECTED.to_wire();
        let mut client6 = [0; 16];
        client6[0] = 0xfd;
        client6[12..].copy_from_slice(&[a, b, c, d]);
        for (vip, client) in [
            (Be128::from(VIP), CONNECTED.into()),
            (VIP6, Be128::from_wire(client6)),
        ] {
            let (vip, client) = (IpAddr::from(vip), IpAddr::from(client));
            for address in [vip, client] {
                ip(&["address", "add", &address.to_string(), "dev", "lo"])?;
            }
            for number in 0..flows.count() as u16 {
                let from = SocketAddr::from((client, 1024 + number));
                let to = SocketAddr::from((vip, PORT));
                let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
                socket.bind(&from.into())?;
                socket
                    .connect(&to.into())
                    .with_context(|| format!("connect {from} to {to}"))?;
                let (accepted, _) = listener.accept()?;
                ends.extend([socket, accepted.into()]);
            }
        }
        Ok(Self {
            _listener: listener,
            _ends: ends,
        })
    }
}

pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip")
        .args(arguments)
        .status()
        .context("run ip (iproute2)")?;
    ensure!(status.success(), "ip {arguments:?}: {status}");
    Ok(())
}
