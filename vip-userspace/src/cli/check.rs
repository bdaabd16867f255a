//! `vip check`: whether the agent would run here, and what would be in its way. Changes nothing.

mod agent;
mod ask;
mod finding;
mod listeners;
mod machine;
mod nic;
mod nics;
mod segment;
mod vip;

use std::process::ExitCode;

use anyhow::Context as _;

use self::finding::{Finding, Grade, finding, list};
use super::output::print_line;
use crate::config::{Config, Flags};
use crate::key_file;
use crate::net::Nic;
use crate::net::netlink::Netlink;

pub(super) fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let config = flags.into_config()?;
    let vips = list(&config.vips, |vip| vip.endpoint());
    let text = format!("{vips}, {} nodes", config.nodes.len());
    let mut findings = vec![finding(Grade::Ok, "config", text)];
    if let Some(path) = &config.key_file {
        let text = format!("{}: {}", path.display(), key_file::keys(path)?);
        findings.push(finding(Grade::Ok, "key", text));
    }
    findings.extend(machine::findings(&config));
    findings.extend(agent::health(&config));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    findings.extend(runtime.block_on(network(&config))?);
    findings.extend(listeners::findings(&config));
    for Finding { grade, what, text } in &findings {
        match print_line(format_args!("{grade:4}  {what:9}  {text}")) {
            // The exit code is about all findings, also about those that nobody reads.
            Err(error) if error.is_unread() => break,
            other => other?,
        }
    }
    let worst = findings.iter().map(|finding| finding.grade).max();
    Ok(if worst == Some(Grade::Failure) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The node's network, as far as this machine is one of the nodes.
async fn network(config: &Config) -> anyhow::Result<Vec<Finding>> {
    let netlink = Netlink::connect()?;
    let nic = netlink
        .find_nic(
            config.vip().address,
            &config.addresses(),
            config.interface.as_deref(),
        )
        .await;
    let mut findings = match nic {
        Ok(nic) => on_nic(config, &nic, &netlink).await,
        Err(error) => vec![finding(Grade::Failure, "node", error.to_string())],
    };
    for vip in &config.vips {
        let places = netlink.places_of(vip.address).await?;
        findings.push(vip::in_use(vip.address, &places));
    }
    Ok(findings)
}

async fn on_nic(config: &Config, nic: &Nic, netlink: &Netlink) -> Vec<Finding> {
    let mut findings = nic::findings(config, nic);
    findings.extend(agent::findings(config, nic, netlink).await);
    findings.extend(segment::findings(config, nic, netlink).await);
    findings.extend(nics::findings(config, nic, netlink).await);
    let vips = config.vips.iter().map(|vip| vip.address);
    let refused = netlink.refuse_no_hosts(nic, vips, config.addresses());
    if let Err(error) = refused.await {
        findings.push(finding(Grade::Failure, "address", error.to_string()));
    }
    for vip in &config.vips {
        findings.push(vip::claimants(config, vip.address, nic, netlink).await);
    }
    findings
}
