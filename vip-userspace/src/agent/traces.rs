//! What an agent leaves on the machine when it ends, so that the node goes on steering and the next
//! agent takes over; and how it is removed when there is to be no next one.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;

use super::notes;
use crate::config::Config;
use crate::datapath::{self, Leftover};
use crate::net::netlink::Netlink;
use crate::run_dir::RunDir;
use vip_node::settings::{self, Change, Wanted};

/// Whether something is removed, or only listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// It is removed.
    Remove,
    /// It is listed, and nothing is changed.
    List,
}

/// Who is told of each thing that is, or would be, removed.
pub type Tell<'a> = &'a dyn Fn(fmt::Arguments<'_>);

impl How {
    /// Removes a thing, and tells of it.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(
        self,
        tell: Tell<'_>,
        what: &dyn fmt::Display,
        remove: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Remove => {
                remove()?;
                tell(format_args!("removed {what}"));
            }
            Self::List => tell(format_args!("would remove {what}")),
        }
        Ok(())
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// It is, and cannot be removed.
    pub fn remove_file(self, tell: Tell<'_>, path: &Path) -> anyhow::Result<()> {
        if !path.exists() {
            return Ok(());
        }
        self.remove(tell, &path.display(), || {
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
        })
    }
}

/// Whether an agent has left nothing in the kernel or noted in its run directory.
pub(super) fn are_none(bpffs: &Path, run_dir: &RunDir) -> bool {
    let noted = notes::files(run_dir).iter().any(|file| file.exists());
    !noted && datapath::leftovers(bpffs, run_dir).is_empty()
}

/// Removes what an agent has put into the kernel: the VIPs on `lo`, which it has noted or which are
/// given, settings, programs and maps; and its notes about that.
///
/// # Errors
/// Something is there and cannot be removed.
pub async fn remove(
    bpffs: &Path,
    run_dir: &RunDir,
    vips: impl Iterator<Item = IpAddr>,
    how: How,
    tell: Tell<'_>,
) -> anyhow::Result<()> {
    let leftovers = datapath::leftovers(bpffs, run_dir);
    let mut addresses: BTreeSet<IpAddr> = notes::addresses(run_dir);
    addresses.extend(vips);
    let netlink = Netlink::connect()?;
    // The address first: with the programs gone the kernel would answer for it.
    for address in addresses {
        let places = netlink.places_of(address).await?;
        if places.iter().any(|place| place == "lo") {
            if how == How::Remove {
                netlink.remove_vip(address).await?;
            }
            how.remove(tell, &format_args!("address {address} on lo"), || Ok(()))?;
        }
    }
    set_back(&netlink, run_dir, how, tell).await?;
    for leftover in &leftovers {
        if let (Leftover::Qdisc { index, .. }, How::Remove) = (leftover, how) {
            netlink.remove_clsact(*index).await?;
        }
        how.remove(tell, leftover, || Ok(datapath::remove(leftover)?))?;
    }
    for file in notes::files(run_dir) {
        how.remove_file(tell, &file)?;
    }
    Ok(())
}

/// Removes what this agent has put into the kernel.
pub(super) async fn undo(config: &Config) {
    let (bpffs, run_dir) = (&config.datapath.bpffs, &config.run_dir);
    let none = std::iter::empty();
    let done = remove(bpffs, run_dir, none, How::Remove, &|_| {}).await;
    if let Err(error) = done {
        tracing::warn!("something is left, see `vip cleanup`: {error:#}");
    }
}

/// Sets the kernel's settings back that are still as an agent has set them.
async fn set_back(
    netlink: &Netlink,
    run_dir: &RunDir,
    how: How,
    tell: Tell<'_>,
) -> anyhow::Result<()> {
    let noted = notes::settings(run_dir);
    let (seen, _) = netlink.settings().await?;
    let decision = settings::decide(&seen, &noted, Wanted::default());
    let verb = match how {
        How::Remove => "set",
        How::List => "would set",
    };
    for change in &decision.changes {
        if how == How::Remove {
            netlink.change_setting(change).await?;
        }
        let Change { name, key, to, .. } = change;
        tell(format_args!(
            "{verb} net.ipv4.conf.{name}.{key} back to {to}"
        ));
    }
    Ok(())
}
