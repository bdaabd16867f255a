//! The VIPs: on this machine, and on the hosts of the segment.

use std::net::IpAddr;

use vip_common::wire::addr::Mac;

use super::ask::ask_all;
use super::finding::{Finding, Grade, finding};
use super::nics;
use crate::config::{Config, Node};
use crate::net::netlink::Netlink;
use crate::net::{Neighbours, Nic};

pub(super) fn in_use(vip: IpAddr, places: &[String]) -> Finding {
    let elsewhere: Vec<_> = places
        .iter()
        .filter(|place| *place != "lo")
        .cloned()
        .collect();
    if elsewhere.is_empty() {
        let here = if places.is_empty() {
            "not on this machine yet"
        } else {
            "on lo"
        };
        return finding(Grade::Ok, "VIP", format!("{vip} is {here}"));
    }
    finding(
        Grade::Failure,
        "VIP",
        format!(
            "{vip} is on {}: remove it (`ip address del {vip} dev {}`), and stop what put it there \
             (keepalived, kube-vip)",
            elsewhere.join(", "),
            elsewhere[0],
        ),
    )
}

/// Asks the segment for the VIP, as any client would: who answers must be one of the nodes.
pub(super) async fn claimants(
    config: &Config,
    others: &[Node],
    vip: IpAddr,
    nic: &Nic,
    netlink: &Netlink,
) -> Finding {
    let answers = match answers(vip, nic).await {
        Ok(answers) => answers,
        Err(error) => {
            let text = format!("cannot ask the segment for {vip}: {error:#}");
            return finding(Grade::Warning, "segment", text);
        }
    };
    let neighbours = netlink.neighbours(nic.index).await.unwrap_or_default();
    let node_of = |mac: Mac| {
        let address = neighbours
            .iter()
            .find(|neighbour| neighbour.mac.map(Mac::from_wire) == Some(mac))?
            .address;
        others.iter().find(|node| node.address == address)
    };
    if let Some(stranger) = answers.iter().find(|mac| node_of(**mac).is_none()) {
        if let Some(name) = nics::named(netlink, *stranger).await {
            let text = format!(
                "{name} of this node answers for {vip}, beside the owner: set \
                 net.ipv4.conf.{name}.arp_ignore to 1, as `vip run` does"
            );
            return finding(Grade::Failure, "segment", text);
        }
        let unless = if config.is_open() {
            format!(
                "; if it is a node of this cluster, its hellos do not arrive here: let UDP port {} \
                 through, or set `seeds`",
                config.members.port
            )
        } else {
            String::new()
        };
        return finding(
            Grade::Failure,
            "segment",
            format!(
                "{stranger}, which is none of the nodes, answers for {vip}: find that host and \
                 take the address off it (keepalived, kube-vip, a duplicate){unless}"
            ),
        );
    }
    match answers.first().and_then(|mac| node_of(*mac)) {
        Some(node) => finding(
            Grade::Ok,
            "segment",
            format!("{} answers for {vip}", node.name),
        ),
        None => finding(
            Grade::Ok,
            "segment",
            format!("no other host answers for {vip}"),
        ),
    }
}

/// The Ethernet addresses that ARP or Neighbour Discovery give for the VIP.
async fn answers(vip: IpAddr, nic: &Nic) -> anyhow::Result<Vec<Mac>> {
    // The kernel does not answer questions that seem to come from itself: its other NICs are only
    // heard by a question that does not say who asks. Of IPv6 there is no other: the node may have
    // no address.
    let ask = if vip.is_ipv4() {
        Neighbours::ask
    } else {
        Neighbours::probe
    };
    let mut found: Vec<Mac> = ask_all(&[vip], nic, [ask, Neighbours::probe])
        .await?
        .into_iter()
        .map(|heard| heard.mac)
        .collect();
    found.retain(|mac| *mac != Mac::from_wire(nic.mac));
    found.sort_unstable_by_key(|mac| mac.to_wire());
    found.dedup();
    Ok(found)
}
