//! What `vip check` says of the host's other NICs.

use std::collections::BTreeMap;

use anyhow::Context as _;
use vip_common::wire::addr::Mac;

use super::finding::{Finding, Grade, finding};
use crate::agent::notes;
use crate::config::Config;
use crate::net::netlink::Netlink;
use crate::net::{HostNic, Nic};
use vip_node::settings::{self, Key, Wanted, some};
use vip_node::ways::{self, Kind};

/// Whether the kernel is silent about the VIPs, and whether answers that leave by another NIC are
/// as they should be.
pub(super) async fn findings(config: &Config, nic: &Nic, netlink: &Netlink) -> Vec<Finding> {
    match look(config, nic, netlink).await {
        Ok(findings) => findings,
        Err(error) => vec![finding(Grade::Warning, "NICs", format!("{error:#}"))],
    }
}

async fn look(config: &Config, nic: &Nic, netlink: &Netlink) -> anyhow::Result<Vec<Finding>> {
    let (seen, nics) = netlink
        .settings()
        .await
        .context("cannot look at the NICs")?;
    let routes = netlink
        .routes()
        .await
        .context("cannot look at the routes")?;
    let ways = |ipv4_only: bool| -> Vec<&HostNic> {
        let routes = routes.iter().filter(|route| route.ipv4 || !ipv4_only);
        let ways = ways::others(routes.copied(), nic.index, |index| {
            let found = nics.iter().find(|nic| nic.interface.index == index);
            found.map_or(Kind::Other, |nic| nic.kind)
        });
        nics.iter()
            .filter(|nic| ways.contains(&nic.interface.index))
            .collect()
    };
    let silent = config.vips.iter().any(|vip| vip.address.is_ipv4());
    let wanted = Wanted {
        silent,
        loose: (silent && !ways(true).is_empty()).then_some(nic.index),
    };
    let noted = notes::settings(&config.run_dir);
    let decision = settings::decide(&seen, &noted, wanted);
    let mut findings = Vec::new();
    for hindrance in &decision.hindrances {
        findings.push(finding(Grade::Failure, "NICs", hindrance.to_string()));
    }
    let mut changes: BTreeMap<(Key, u32), Vec<String>> = BTreeMap::new();
    for change in &decision.changes {
        let names = changes.entry((change.key, change.to)).or_default();
        names.push(change.name.clone());
    }
    for ((key, to), names) in changes {
        let why = match key {
            Key::ArpIgnore => "the kernel would answer ARP for the VIP there",
            Key::ArpAnnounce => {
                "the kernel would use the VIP as the source of its ARP requests there"
            }
            Key::RpFilter => "clients whose answers leave by another NIC would be dropped",
        };
        let text = format!("`vip run` sets {key}={to} on {}: {why}", some(&names));
        findings.push(finding(Grade::Ok, "NICs", text));
    }
    let arp = nics.iter().filter(|nic| nic.interface.arp);
    let arp: Vec<String> = arp.map(|nic| nic.interface.name.clone()).collect();
    if findings.is_empty() && silent {
        let text = format!("the kernel does not answer for the VIP on {}", some(&arp));
        findings.push(finding(Grade::Ok, "NICs", text));
    }
    let others = ways(false);
    let maps_ports = config
        .vips
        .iter()
        .flat_map(|vip| &vip.services)
        .any(|service| service.port != service.target);
    let names = |nics: &[&HostNic]| {
        let names: Vec<String> = nics.iter().map(|nic| nic.interface.name.clone()).collect();
        some(&names)
    };
    if !others.is_empty() {
        let text = format!("answers to clients may leave by {}, too", names(&others));
        findings.push(finding(Grade::Ok, "routes", text));
    }
    let not_ethernet: Vec<&HostNic> = others.into_iter().filter(|nic| nic.mac.is_none()).collect();
    if maps_ports && !not_ethernet.is_empty() {
        let text = format!(
            "answers by {}, which is not Ethernet, would come from `target_port` and not from the \
             VIP's port: route clients by {}, or let both ports be the same",
            names(&not_ethernet),
            nic.name
        );
        findings.push(finding(Grade::Warning, "routes", text));
    }
    Ok(findings)
}

/// Which other NIC of this host has an Ethernet address.
pub(super) async fn named(netlink: &Netlink, mac: Mac) -> Option<String> {
    let (_, nics) = netlink.settings().await.ok()?;
    nics.into_iter()
        .find(|nic| nic.mac.map(Mac::from_wire) == Some(mac))
        .map(|nic| nic.interface.name)
}
