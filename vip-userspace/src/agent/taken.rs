//! What another agent on this machine has already.

use crate::config::Config;
use crate::datapath::{self, Claim};
use crate::net::Nic;
use crate::net::netlink::Netlink;

/// Looks whether another agent on this machine has what this one wants. Changes nothing.
///
/// # Errors
/// One has.
pub async fn refuse_taken(config: &Config, nic: &Nic, netlink: &Netlink) -> anyhow::Result<()> {
    let link = netlink.link(nic.index).await?;
    let vips: Vec<_> = config.vips.iter().map(|vip| vip.address).collect();
    let claim = Claim {
        run_directory: config.run_dir.path(),
        interface: &nic.name,
        index: nic.index,
        xdp: link.and_then(|link| link.xdp),
        vips: &vips,
        netns: crate::net::netns_cookie().unwrap_or(0),
    };
    datapath::refuse_taken(&config.datapath.bpffs, &claim)?;
    Ok(())
}
