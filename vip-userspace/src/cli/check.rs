//! `vip check`: whether the agent would run here, and what would be in its way. Changes nothing.

mod ask;
mod finding;
mod listeners;
mod machine;
mod members;
mod nic;
mod nics;
mod node;
mod port;
mod segment;
mod vip;

use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use self::finding::{Finding, Grade, finding, list};
use super::exit::Exit;
use super::output::{Format, Output, json, print, print_line, yaml};
use super::quorum;
use crate::agent;
use crate::config::{Config, ConfigError, Flags, Located, Vip};
use crate::key_file;
use crate::net::Nic;
use crate::net::netlink::Netlink;
use crate::words::counted;
use vip_node::seal::KeyRing;

/// What is checked, and how that is told.
#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: Flags,
    /// Check the configuration alone, and do not look at this machine: for CI; needs no root
    #[arg(long)]
    config_only: bool,
    #[command(flatten)]
    output: Output,
}

/// All that is found, for programs.
#[derive(Serialize)]
struct Report<F: Serialize> {
    /// The severity of the worst finding.
    verdict: Grade,
    findings: Vec<F>,
}

/// A fault of the configuration, for programs.
#[derive(Serialize)]
struct Fault {
    code: &'static str,
    severity: Grade,
    subject: &'static str,
    text: String,
    remedy: Option<String>,
    /// The flag, if it is one of a flag.
    flag: Option<&'static str>,
    file: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
}

impl Fault {
    fn of(error: &ConfigError) -> Vec<Self> {
        let new = |text: &str| Self {
            code: "config_failure",
            severity: Grade::Failure,
            subject: "config",
            text: text.to_owned(),
            remedy: None,
            flag: None,
            file: None,
            line: None,
            column: None,
        };
        let ConfigError::Faults(faults) = error else {
            return vec![new(&error.to_string())];
        };
        let faults = faults.iter().map(|fault| match fault {
            Located::Flag { flag, message } => Self {
                flag: Some(flag),
                ..new(message)
            },
            Located::File {
                file,
                line,
                column,
                message,
            } => Self {
                file: Some(file.clone()),
                line: Some(*line),
                column: Some(*column),
                ..new(message)
            },
        });
        faults.collect()
    }
}

pub(super) fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options {
        config,
        config_only,
        output,
    } = options;
    let config = match config.into_config() {
        Ok(config) => config,
        Err(error) => {
            let findings = Fault::of(&error);
            let verdict = Grade::Failure;
            let report = Report { verdict, findings };
            tell_programs(&report, output.format())?;
            return Err(error.into());
        }
    };
    let mut findings = of_config(&config);
    if !config_only {
        findings.extend(of_machine(&config)?);
    }
    let worst = findings.iter().map(|finding| finding.grade).max();
    let verdict = worst.unwrap_or(Grade::Ok);
    let report = Report { verdict, findings };
    if !tell_programs(&report, output.format())? {
        for finding in &report.findings {
            match print_line(finding) {
                // The exit status is about all findings, also about those that nobody reads.
                Err(error) if error.is_unread() => break,
                other => other?,
            }
        }
    }
    Ok(match verdict {
        Grade::Failure => Exit::Failed,
        Grade::Ok | Grade::Hint | Grade::Warning => Exit::Done,
    }
    .into())
}

/// Prints a report, if it is asked for in a form for programs.
fn tell_programs<F: Serialize>(report: &Report<F>, format: Format) -> anyhow::Result<bool> {
    let text = match format {
        Format::Text | Format::Wide => return Ok(false),
        Format::Json => json(report)?,
        Format::Yaml => yaml(report)?,
    };
    match print(text) {
        Err(error) if error.is_unread() => {}
        other => other?,
    }
    Ok(true)
}

/// What the configuration says by itself.
fn of_config(config: &Config) -> Vec<Finding> {
    // The one that names the cluster first, as the configuration does.
    let mut vips: Vec<&Vip> = config.vips.iter().collect();
    vips.sort_by_key(|vip| vip.address != config.vip().address);
    let vips = list(&vips, |vip| vip.endpoint());
    let nodes = match config.nodes.len() {
        0 => "the agents find each other".to_owned(),
        count => counted(count, "node", "nodes"),
    };
    let mut findings = vec![finding(Grade::Ok, "config", format!("{vips}, {nodes}"))];
    findings.extend(of_quorum(config.nodes.len()));
    findings.extend(members::admission(config));
    findings
}

/// A word about etcd.
fn of_quorum(nodes: usize) -> Option<Finding> {
    quorum::hint(nodes).map(|hint| finding(Grade::Hint, "etcd", hint).code("etcd_even"))
}

/// What this machine, and the others, say to it.
fn of_machine(config: &Config) -> anyhow::Result<Vec<Finding>> {
    let mut findings = vec![];
    let keys = config.key_file.as_deref().map(key_file::keys).transpose()?;
    if let (Some(path), Some(keys)) = (&config.key_file, &keys) {
        let text = format!("{}: {keys}", path.display());
        findings.push(finding(Grade::Ok, "key", text));
    }
    findings.extend(machine::findings(config));
    findings.extend(node::health(config));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    findings.extend(runtime.block_on(network(config, keys.as_ref()))?);
    findings.extend(listeners::findings(config));
    Ok(findings)
}

/// The node's network, as far as this machine is one of the nodes.
async fn network(config: &Config, keys: Option<&KeyRing>) -> anyhow::Result<Vec<Finding>> {
    let netlink = Netlink::connect()?;
    let mut findings = match agent::look_for_nic(config, &netlink).await {
        Ok(nic) => on_nic(config, keys, &nic, &netlink).await,
        Err(error) => vec![finding(Grade::Failure, "node", error.to_string()).code("no_nic")],
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
    if config.is_open() && complete {
        findings.extend(of_quorum(others.len() + 1));
    }
    findings.extend(members::seeds(config, nic, netlink).await);
    findings.extend(segment::findings(config, &others, nic, netlink).await);
    findings.extend(nics::findings(config, nic, netlink).await);
    let vips = config.vips.iter().map(|vip| vip.address);
    let refused = netlink.refuse_no_hosts(nic, vips, config.addresses(), config.seeds.clone());
    if let Err(error) = refused.await {
        findings
            .push(finding(Grade::Failure, "address", error.to_string()).code("address_impossible"));
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
