//! `vip cleanup`.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use super::output::tell;
use crate::agent::{DRAINED, SOCKET, lock, notes};
use crate::config::{self, Config, ConfigError, Flags};
use crate::datapath::{self, Leftover};
use crate::decide::settings::{self, Change, Wanted};
use crate::net::netlink::Netlink;
use crate::observe::journal;

pub(super) fn run(flags: Flags, dry_run: bool) -> anyhow::Result<ExitCode> {
    // Without a configuration the agent's note says which VIPs there were.
    let run_dir = flags.overrides.run_dir()?;
    let configured = match flags.into_config() {
        Ok(config) => Some(config),
        Err(ConfigError::Nothing) => None,
        Err(error) => return Err(error.into()),
    };
    let (run_dir, bpffs) = match &configured {
        Some(Config {
            run_dir, datapath, ..
        }) => (run_dir.clone(), datapath.bpffs.clone()),
        None => (run_dir, config::BPFFS.into()),
    };
    // An agent that runs would put it all back.
    let lock = if run_dir.exists() {
        Some(lock::Lock::take(&run_dir)?)
    } else {
        None
    };

    let leftovers = datapath::leftovers(&bpffs, &run_dir);
    let mut addresses: BTreeSet<IpAddr> = notes::addresses(&run_dir);
    addresses.extend(
        configured
            .iter()
            .flat_map(|config| config.vips.iter().map(|vip| vip.address)),
    );

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let verb = if dry_run { "would remove" } else { "removed" };
    // The address first: with the programs gone the kernel would answer for it.
    runtime.block_on(async {
        let netlink = Netlink::connect()?;
        for address in addresses {
            if netlink
                .places_of(address)
                .await?
                .iter()
                .any(|place| place == "lo")
            {
                if !dry_run {
                    netlink.remove_vip(address).await?;
                }
                tell(format_args!("{verb} address {address} on lo"));
            }
        }
        set_back(&netlink, &run_dir, dry_run).await
    })?;
    for leftover in &leftovers {
        if !dry_run {
            if let Leftover::Qdisc { index, .. } = leftover {
                runtime.block_on(async { Netlink::connect()?.remove_clsact(*index).await })?;
            }
            datapath::remove(leftover)?;
        }
        tell(format_args!("{verb} {leftover}"));
    }
    let drained = run_dir.join(DRAINED);
    let events = run_dir.join(journal::FILE);
    let socket = run_dir.join(SOCKET);
    let others = [drained, events, socket, lock::path(&run_dir)];
    for file in notes::files(&run_dir).into_iter().chain(others) {
        remove_file(&file, dry_run, verb)?;
    }
    drop(lock);
    if run_dir.exists() {
        if !dry_run {
            fs::remove_dir(&run_dir)
                .with_context(|| format!("cannot remove {}", run_dir.display()))?;
        }
        tell(format_args!("{verb} directory {}", run_dir.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Sets the kernel's settings back that are still as an agent has set them.
async fn set_back(netlink: &Netlink, run_dir: &Path, dry_run: bool) -> anyhow::Result<()> {
    let noted = notes::settings(run_dir);
    let (seen, _) = netlink.settings().await?;
    let decision = settings::decide(&seen, &noted, Wanted::default());
    let verb = if dry_run { "would set" } else { "set" };
    for change in &decision.changes {
        if !dry_run {
            netlink.change_setting(change).await?;
        }
        let Change { name, key, to, .. } = change;
        tell(format_args!(
            "{verb} net.ipv4.conf.{name}.{key} back to {to}"
        ));
    }
    Ok(())
}

fn remove_file(path: &Path, dry_run: bool, verb: &str) -> anyhow::Result<()> {
    if path.exists() {
        if !dry_run {
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        tell(format_args!("{verb} {}", path.display()));
    }
    Ok(())
}
