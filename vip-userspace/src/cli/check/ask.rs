//! Asks the segment who has an address.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::net::{Heard, Neighbours, Nic};

/// How long to wait for answers to an ARP request. Hosts on a segment answer within a few
/// milliseconds.
const ANSWER: Duration = Duration::from_millis(300);

/// How to ask for an address.
pub(super) type Ask = fn(&Neighbours, IpAddr) -> io::Result<()>;

/// Asks in two ways for each of these addresses, and collects what is said of them.
pub(super) async fn ask_all(
    addresses: &[IpAddr],
    nic: &Nic,
    asks: [Ask; 2],
) -> anyhow::Result<Vec<Heard>> {
    let neighbours = Neighbours::open(nic, addresses)?;
    let mut found = Vec::new();
    for ask in asks {
        for &address in addresses {
            ask(&neighbours, address)?;
        }
        let pause = tokio::time::sleep(ANSWER);
        tokio::pin!(pause);
        loop {
            let heard = tokio::select! {
                () = &mut pause => break,
                heard = neighbours.receive() => heard?,
            };
            found.extend(heard.filter(|heard| addresses.contains(&heard.address)));
        }
    }
    Ok(found)
}
