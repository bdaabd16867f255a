//! ICMP echo, for machines without the `ping` program.

use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use socket2::{Domain, Protocol, Socket, Type};

use crate::frames::checksum;

/// Arguments of `testbed ping`.
#[derive(Args, Debug)]
pub struct PingArgs {
    /// The address to ask
    #[arg(long)]
    pub target: Ipv4Addr,
    /// Questions to ask; all must be answered
    #[arg(long, default_value_t = 20)]
    pub count: u16,
}

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks and waits for each answer.
///
/// # Errors
/// An answer is missing, or there is no route.
pub fn run(args: &PingArgs) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))
        .context("open a raw ICMP socket")?;
    socket
        .set_read_timeout(Some(TIMEOUT))
        .context("set a time-out")?;
    socket
        .connect(&SocketAddr::from((args.target, 0)).into())
        .with_context(|| format!("no route to {}", args.target))?;
    let identifier = std::process::id().to_be_bytes();
    for number in 1..=args.count {
        // Type 8, code 0, checksum, identifier, sequence number (RFC 792).
        let mut message = vec![8, 0, 0, 0, identifier[2], identifier[3]];
        message.extend(number.to_be_bytes());
        let sum = checksum(&message, 0);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        socket.send(&message).context("send an echo request")?;
        loop {
            let mut reply = [0; 256];
            let received = match (&socket).read(&mut reply) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    bail!("{} does not answer echo request {number}", args.target)
                }
                Err(error) => return Err(error).context("receive an echo reply"),
            };
            // Behind an IPv4 header without options: type 0, then what was sent.
            if received >= 28 && reply[20] == 0 && reply[24..28] == message[4..8] {
                break;
            }
        }
    }
    Ok(())
}
