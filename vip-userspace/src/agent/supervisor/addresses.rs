//! The VIPs on `lo`: what agents put there, and nobody else.

use std::net::IpAddr;
use std::time::Duration;

use tokio::spawn;
use tokio::time::sleep;

use crate::agent::notes;
use crate::config::{Config, Vip};
use crate::net::netlink::Netlink;
use crate::net::stranded;
use crate::observe::event::Event;
use crate::observe::journal::Journal;

use super::setup::addresses_of;

/// Takes off `lo` what agents put there and the configuration has no longer. To be done before
/// programs that do not know it take the place of those that do: the kernel would answer for it.
/// Returns what was there.
pub(super) async fn leave_old(netlink: &Netlink, config: &Config) -> anyhow::Result<Vec<IpAddr>> {
    let mut noted = notes::addresses(&config.run_dir);
    let is_old = |address: &IpAddr| addresses_of(config).all(|vip| vip != *address);
    let old: Vec<IpAddr> = noted.iter().copied().filter(is_old).collect();
    if old.is_empty() {
        return Ok(old);
    }
    for address in &old {
        netlink.remove_vip(*address).await?;
        noted.remove(address);
    }
    notes::note_addresses(&config.run_dir, &noted)?;
    Ok(old)
}

/// Whose a VIP on `lo` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Placed {
    /// An agent's, which has just put it there.
    Now {
        /// Connections that the node and its pods had to it by the network until then.
        ended: usize,
    },
    /// An agent's, which put it there before.
    Before,
    /// The operator's, for no agent put it there: it stays when it is a VIP no more.
    Theirs,
}

impl Placed {
    /// Notes what operators should know.
    pub(super) fn tell(self, address: IpAddr, journal: &mut Journal) {
        match self {
            Self::Theirs => journal.note(Event::address_theirs(address)),
            Self::Now { ended } if ended > 0 => journal.note(Event::stranded(address, ended)),
            Self::Now { .. } | Self::Before => {}
        }
    }
}

/// When connections that may not have heard of their end are told again. A client's kernel answers one
/// such packet in 500 ms (`tcp_invalid_ratelimit`), which may have been another one.
const AGAIN: Duration = Duration::from_millis(600);

/// How often they are told again: on a busy machine, packets are lost even on `lo`.
const TIMES: usize = 5;

/// Puts a VIP on `lo`, and notes that before.
pub(super) async fn put(netlink: &Netlink, config: &Config, vip: &Vip) -> anyhow::Result<Placed> {
    let address = vip.address;
    let mut noted = notes::addresses(&config.run_dir);
    let is_there = netlink.is_on_lo(address).await?;
    match (is_there, noted.contains(&address)) {
        (true, true) => return Ok(Placed::Before),
        (true, false) => return Ok(Placed::Theirs),
        (false, true) => {}
        (false, false) => {
            noted.insert(address);
            notes::note_addresses(&config.run_dir, &noted)?;
        }
    }
    netlink.add_vip(address).await?;
    let ports: Vec<u16> = vip.services.iter().map(|service| service.port).collect();
    let ended = end_stranded(address, &ports);
    if ended > 0 {
        drop(spawn(async move {
            for _ in 0..TIMES {
                sleep(AGAIN).await;
                if end_stranded(address, &ports) == 0 {
                    return;
                }
            }
        }));
    }
    Ok(Placed::Now { ended })
}

/// Ends connections of this node that reached the VIP by the network. Returns how many there were.
fn end_stranded(address: IpAddr, ports: &[u16]) -> usize {
    stranded::end(address, ports).unwrap_or_else(|error| {
        tracing::warn!(%error, "connections of this node that reached the VIP by the network are not reset: their clients \
             wait for a time-out");
        0
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Flags;
    use crate::net::testing::{self, Side, VIP, VIP6};

    /// A configuration with these VIPs.
    fn config(run_dir: &std::path::Path, vips: &str) -> Config {
        let text = format!(
            "vip = [{vips}]\nnodes = [\"10.9.0.1\", \"10.9.0.2\"]\nrun_dir = \"{}\"\n",
            run_dir.display()
        );
        let file = run_dir.join("vip.toml");
        fs::write(&file, text).unwrap();
        let flags = Flags {
            config: Some(file),
            ..Flags::default()
        };
        flags.into_config().unwrap()
    }

    #[test]
    fn what_agents_put_on_lo_leaves_it_and_what_was_there_stays() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let directory = tempfile::tempdir().unwrap();
            let run_dir = directory.path();
            let netlink = Netlink::connect().unwrap();
            let theirs: IpAddr = [10, 9, 0, 20].into();
            testing::ip(&format!("address add {theirs}/32 dev lo scope host"));
            let all = config(run_dir, &format!("\"{VIP}\", \"{theirs}\", \"{VIP6}\""));
            let put = async || {
                let mut placed = Vec::new();
                for vip in &all.vips {
                    placed.push((vip.address, put(&netlink, &all, vip).await.unwrap()));
                }
                placed.sort_by_key(|(address, _)| *address);
                placed.into_iter().map(|(_, placed)| placed)
            };
            let now = Placed::Now { ended: 0 };
            assert!(put().await.eq([now, Placed::Theirs, now]));
            // Again, as the next agent does.
            let before = Placed::Before;
            assert!(put().await.eq([before, Placed::Theirs, before]));
            assert!(leave_old(&netlink, &all).await.unwrap().is_empty());

            let less = config(run_dir, &format!("\"{VIP}\""));
            let left = leave_old(&netlink, &less).await.unwrap();
            assert_eq!(left, [IpAddr::from(VIP6)]);
            for (address, stays) in [(VIP.into(), true), (VIP6.into(), false), (theirs, true)] {
                assert_eq!(netlink.is_on_lo(address).await.unwrap(), stays, "{address}");
            }
            assert_eq!(notes::addresses(&run_dir.into()), [VIP.into()].into());
            assert!(leave_old(&netlink, &less).await.unwrap().is_empty());
        });
    }
}
