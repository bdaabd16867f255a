//! The VIPs: on this machine, and on the hosts of the segment.

use std::net::IpAddr;

use vip_common::wire::addr::Mac;

use super::ask::{Ask, ask_all};
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
        format!("{vip} is on {}", elsewhere.join(", ")),
    )
    .code("vip_elsewhere")
    .remedy(format!(
        "no agent can start here while it is. If keepalived or kube-vip serves clients with it, do \
         this node last, as in docs/migrate.md; if nobody needs it there: `ip address del {vip} dev {}`",
        elsewhere[0]
    ))
}

/// What is known of the other nodes.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) others: &'a [Node],
    /// Whether there are no further ones.
    pub(super) complete: bool,
}

/// Asks the segment for the VIP, as any client would: who answers must be one of the nodes.
pub(super) async fn claimants(
    config: &Config,
    known: Known<'_>,
    vip: IpAddr,
    nic: &Nic,
    netlink: &Netlink,
) -> Finding {
    let answers = match answers(vip, nic).await {
        Ok(answers) => answers,
        Err(error) => {
            let text = format!("cannot ask the segment for {vip}: {error:#}");
            return finding(Grade::Warning, "segment", text).code("segment_unasked");
        }
    };
    let neighbours = netlink.neighbours(nic.index).await.unwrap_or_default();
    let node_of = |mac: Mac| {
        let address = neighbours
            .iter()
            .find(|neighbour| neighbour.mac.map(Mac::from_wire) == Some(mac))?
            .address;
        known.others.iter().find(|node| node.address == address)
    };
    if let Some(stranger) = answers.iter().find(|mac| node_of(**mac).is_none()) {
        if let Some(name) = nics::named(netlink, *stranger).await {
            let text = format!("{name} of this node answers for {vip}, beside the owner");
            let remedy = format!("set net.ipv4.conf.{name}.arp_ignore to 1, as `vip run` does");
            return finding(Grade::Failure, "segment", text)
                .code("vip_answered_here")
                .remedy(remedy);
        }
        if !known.complete
            && let Some(seed) = seed_with(config, *stranger, nic).await
        {
            let text = format!("{seed}, one of `seeds`, answers for {vip}");
            return finding(Grade::Ok, "segment", text);
        }
        return unknown_claimant(config, known.complete, *stranger, vip);
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

/// What is said of a host that answers for a VIP, and is none of the nodes that are known.
fn unknown_claimant(config: &Config, complete: bool, mac: Mac, vip: IpAddr) -> Finding {
    let port = config.members.port;
    if complete {
        let unless = if config.is_open() {
            format!(
                "; if it is a node of this cluster, its hellos do not arrive here: let UDP port \
                 {port} through, or set `seeds`"
            )
        } else {
            String::new()
        };
        let text = format!(
            "{mac}, which is none of the nodes, answers for {vip}: find that host and take the \
             address off it (keepalived, kube-vip, a duplicate){unless}"
        );
        return finding(Grade::Failure, "segment", text).code("vip_claimed");
    }
    let joins = if config.seeds.is_empty() {
        format!("let UDP port {port} through, or set `seeds`")
    } else {
        "`vip run` joins it by `seeds`".to_owned()
    };
    let text = format!(
        "{mac} answers for {vip}, and this check cannot know whether it is a member: no hello of this \
         cluster is heard. Compare with `ip link` on the nodes. If it is a node, {joins}; otherwise \
         find that host and take the address off it (keepalived, kube-vip, a duplicate)"
    );
    finding(Grade::Warning, "segment", text).code("vip_claimed_perhaps")
}

/// The seed that has this Ethernet address.
async fn seed_with(config: &Config, mac: Mac, nic: &Nic) -> Option<IpAddr> {
    if config.seeds.is_empty() {
        return None;
    }
    let asks = [Neighbours::ask as Ask, Neighbours::ask];
    let heard = ask_all(&config.seeds, nic, asks).await.ok()?;
    let seed = heard.into_iter().find(|heard| heard.mac == mac)?;
    Some(seed.address)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &str, complete: bool) -> (Grade, String) {
        let text = format!("vip = \"10.0.0.10\"\n{lines}");
        let config = Config::parse(&text, "vip.toml").expect("a configuration");
        let mac = Mac::from_wire([2, 0, 0, 0, 0, 1]);
        let found = unknown_claimant(&config, complete, mac, [10, 0, 0, 10].into());
        (found.grade, found.text)
    }

    #[test]
    fn who_answers_for_the_vip_is_a_stranger_only_if_all_nodes_are_known() {
        for lines in ["", "nodes = [\"10.0.0.11\"]"] {
            let (grade, text) = said(lines, true);
            assert_eq!(grade, Grade::Failure);
            assert!(
                text.contains("which is none of the nodes, answers for 10.0.0.10"),
                "{text}"
            );
        }
        let (grade, text) = said("", false);
        assert_eq!(grade, Grade::Warning);
        assert!(
            text.contains("cannot know") && text.contains("set `seeds`"),
            "{text}"
        );
        let (grade, text) = said("seeds = [\"10.0.0.11\"]", false);
        assert_eq!(grade, Grade::Warning);
        assert!(
            text.contains("joins it by `seeds`") && !text.contains("set `seeds`"),
            "{text}"
        );
    }
}
