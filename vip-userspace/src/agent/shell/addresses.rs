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
