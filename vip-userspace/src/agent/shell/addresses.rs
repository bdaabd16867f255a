//! The VIPs on `lo`: what agents put there, and nobody else.

use std::net::IpAddr;

use crate::agent::notes;
use crate::config::Config;
use crate::net::netlink::Netlink;

use super::setup::addresses_of;

/// Takes off `lo` what agents put there and the configuration has no longer. To be done before
/// programs that do not know it take the place of those that do: the kernel would speak for it.
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

/// Puts a VIP on `lo`, and notes that before. False if it is there already and no agent put it
/// there: then it is the operator's, and stays when it is a VIP no more.
pub(super) async fn put(netlink: &Netlink, config: &Config, vip: IpAddr) -> anyhow::Result<bool> {
    let mut noted = notes::addresses(&config.run_dir);
    if !noted.contains(&vip) {
        if netlink.is_on_lo(vip).await? {
            return Ok(false);
        }
        noted.insert(vip);
        notes::note_addresses(&config.run_dir, &noted)?;
    }
    netlink.add_vip(vip).await?;
    Ok(true)
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
            for vip in [VIP.into(), VIP6.into()] {
                assert!(put(&netlink, &all, vip).await.unwrap());
            }
            // Again, as the next agent does.
            for vip in [VIP.into(), VIP6.into()] {
                assert!(put(&netlink, &all, vip).await.unwrap());
            }
            assert!(!put(&netlink, &all, theirs).await.unwrap());
            assert!(leave_old(&netlink, &all).await.unwrap().is_empty());

            let less = config(run_dir, &format!("\"{VIP}\""));
            let left = leave_old(&netlink, &less).await.unwrap();
            assert_eq!(left, [IpAddr::from(VIP6)]);
            for (address, stays) in [(VIP.into(), true), (VIP6.into(), false), (theirs, true)] {
                assert_eq!(netlink.is_on_lo(address).await.unwrap(), stays, "{address}");
            }
            assert_eq!(notes::addresses(run_dir), [VIP.into()].into());
            assert!(leave_old(&netlink, &less).await.unwrap().is_empty());
        });
    }
}
