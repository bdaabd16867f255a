//! `vip check`: whether the agent would run here, and what would be in its way. Changes nothing.

mod ask;
mod finding;
mod listeners;
mod machine;
mod members;
mod nic;
mod nics;
mod node;
mod segment;
mod vip;

use std::process::ExitCode;

use anyhow::Context as _;

use self::finding::{Finding, Grade, finding, list};
use super::output::print_line;
use crate::agent;
use crate::config::{Config, Flags, Vip};
use crate::key_file;
use crate::net::Nic;
use crate::net::netlink::Netlink;
use crate::words::counted;
use vip_node::seal::KeyRing;

pub(super) fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let config = flags.into_config()?;
    // The one that names the cluster first, as the configuration does.
    let mut vips: Vec<&Vip> = config.vips.iter().collect();
    vips.sort_by_key(|vip| vip.address != config.vip().address);
    let vips = list(&vips, |vip| vip.endpoint());
    let nodes = match config.nodes.len() {
        0 => "the agents find each other".to_owned(),
        count => counted(count, "node", "nodes"),
    };
    let mut findings = vec![finding(Grade::Ok, "config", format!("{vips}, {nodes}"))];
    let keys = config.key_file.as_deref().map(key_file::keys).transpose()?;
    if let (Some(path), Some(keys)) = (&config.key_file, &keys) {
        let text = format!("{}: {keys}", path.display());
        findings.push(finding(Grade::Ok, "key", text));
    }
    findings.extend(members::admission(&config));
    findings.extend(machine::findings(&config));
    findings.extend(node::health(&config));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    findings.extend(runtime.block_on(network(&config, keys.as_ref()))?);
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
async fn network(config: &Config, keys: Option<&KeyRing>) -> anyhow::Result<Vec<Finding>> {
    let netlink = Netlink::connect()?;
    let mut findings = match agent::look_for_nic(config, &netlink).await {
        Ok(nic) => on_nic(config, keys, &nic, &netlink).await,
        Err(error) => vec![finding(Grade::Failure, "node", error.to_string())],
    };
    for vip in &config.vips {
        let places = netlink.places_of(vip.address).await?;
        findings.push(vip::in_use(vip.address, &places));
    }
    Ok(findings)
}

async fn on_nic(
    config: &Config,
    keys: Option<&KeyRing>,
    nic: &Nic,
    netlink: &Netlink,
) -> Vec<Finding> {
    let mut findings = nic::findings(config, nic);
    findings.extend(node::findings(config, nic, netlink).await);
    let members::Others {
        nodes: others,
        complete,
        findings: found,
    } = members::others(config, keys, nic).await;
    findings.extend(found);
    findings.extend(members::seeds(config, nic, netlink).await);
    findings.extend(segment::findings(config, &others, nic, netlink).await);
    findings.extend(nics::findings(config, nic, netlink).await);
    let vips = config.vips.iter().map(|vip| vip.address);
    let refused = netlink.refuse_no_hosts(nic, vips, config.addresses(), config.seeds.clone());
    if let Err(error) = refused.await {
        findings.push(finding(Grade::Failure, "address", error.to_string()));
    }
    let known = vip::Known {
        others: &others,
        complete,
    };
    for vip in &config.vips {
        findings.push(vip::claimants(config, known, vip.address, nic, netlink).await);
    }
    findings
}
