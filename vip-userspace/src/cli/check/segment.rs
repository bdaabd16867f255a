//! The part of `vip check` that looks at the segment: whether the VIP belongs there, and whether this
//! node and the others reach each other as agents must.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use vip_common::wire::addr::Mac;
use vip_common::wire::time::BootNanos;

use super::ask::ask_all;
use super::finding::{Finding, Grade, finding, list};
use crate::agent::survey::{self, Found, Wanted};
use crate::config::{Config, Node};
use crate::datapath::socket_lookup_programs;
use crate::net::bfd::BfdSocket;
use crate::net::netlink::Netlink;
use crate::net::overhear::{LISTEN, Router};
use crate::net::{Neighbours, Nic};
use crate::observe::socket::{Request, ask};
use crate::observe::status::Status;
use crate::observe::trouble::text;
use vip_node::alarm::Kind;
use vip_node::bfd::State;
use vip_node::hearing::{Facts, OnNic, Route, Trouble};

/// What the lines are called.
const NODES: &str = "nodes";

/// What is seen of the other nodes.
struct Seen {
    /// Their Ethernet addresses, by address.
    macs: BTreeMap<IpAddr, Mac>,
    found: Found,
    /// Whose BFD an agent here would get; `None` if an agent runs here, or something else listens.
    heard: Option<Vec<IpAddr>>,
    /// What the agent of this node says, if it runs.
    status: Option<Status>,
}

/// `others`: the nodes but this one.
pub(super) async fn findings(
    config: &Config,
    others: &[Node],
    nic: &Nic,
    netlink: &Netlink,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> = config
        .vips
        .iter()
        .map(|vip| vip.address)
        .filter(|vip| vip.is_ipv4() == nic.address.is_ipv4() && !nic.subnet_has(*vip))
        .map(|vip| {
            let text = format!(
                "{vip} is not in the subnet of {} ({}/{}): only hosts and routers that have a route \
                 to it on this segment reach it",
                nic.name, nic.address, nic.prefix_len
            );
            finding(Grade::Warning, "VIP", text).code("vip_off_subnet")
        })
        .collect();
    let peers: Vec<&Node> = others.iter().collect();
    if peers.is_empty() {
        return findings;
    }
    let seen = look(config, &peers, nic, netlink).await;
    for &peer in &peers {
        let mut of_peer = peer_findings(config, peer, nic, &seen);
        if let Some(other) = reached_by(peer, nic, netlink).await {
            of_peer.push(finding(
                Grade::Warning,
                NODES,
                format!(
                    "{} is reached by {other}, and agents reach it by {}: compare the prefixes and the \
                     metrics of the two routes",
                    called(peer),
                    nic.name
                ),
            )
            .code("node_other_route"));
        }
        if of_peer.is_empty() {
            let text = format!("{} answers on {}", called(peer), nic.name);
            of_peer.push(finding(Grade::Ok, NODES, text));
        }
        findings.extend(of_peer);
    }
    findings.extend(proxied(&peers, &seen));
    // What the agent knows and this cannot see: hosts that are not in the list, two owners.
    let others = seen.status.iter().flat_map(|status| &status.alarms);
    let others = others.filter(|alarm| peers.iter().all(|peer| peer.name != alarm.about));
    findings.extend(
        others.map(|alarm| finding(Grade::Failure, "segment", alarm.text.clone()).code("alarm")),
    );
    findings
}

/// A node, for people.
pub(super) fn called(node: &Node) -> String {
    let address = node.address.to_string();
    if node.name == address {
        address
    } else {
        format!("{} ({address})", node.name)
    }
}

async fn look(config: &Config, peers: &[&Node], nic: &Nic, netlink: &Netlink) -> Seen {
    let addresses: Vec<IpAddr> = peers.iter().map(|peer| peer.address).collect();
    let status = ask::<Status>(&config.run_dir, &Request::Status).ok();
    let answers = ask_all(&addresses, nic, [Neighbours::ask; 2]).await;
    let macs = answers.unwrap_or_default().into_iter();
    let ports = match config.bfd {
        Some(_) => addresses.clone(),
        None => Vec::new(),
    };
    let wanted = Wanted {
        listen: Some(Router {
            id: config.router_id(),
            vip: config.vip().address,
        }),
        routes: addresses.clone(),
        ports,
    };
    // In the agent's place, if there is none. The program that an agent leaves when it ends keeps
    // what other agents say from this socket.
    let free = status.is_none() && socket_lookup_programs().is_ok_and(|there| there.is_empty());
    let open = || BfdSocket::open_alone(&nic.name, nic.address, &addresses).ok();
    let socket = free.then(open).flatten();
    let (found, heard) = tokio::join!(survey::look(netlink, nic, wanted), listen(socket));
    Seen {
        macs: macs.map(|heard| (heard.address, heard.mac)).collect(),
        found,
        heard,
        status,
    }
}

/// Sources of the packets that come to the agent's own port.
async fn listen(socket: Option<BfdSocket>) -> Option<Vec<IpAddr>> {
    let socket = socket?;
    let end = Instant::now() + LISTEN;
    let mut heard = Vec::new();
    let mut buffer = [0; 128];
    while Instant::now() < end {
        while let Ok(Some(received)) = socket.receive(&mut buffer) {
            heard.push(received.source);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Some(heard)
}

/// The interface by which anything but an agent reaches a node, if that is another one.
async fn reached_by(peer: &Node, nic: &Nic, netlink: &Netlink) -> Option<String> {
    let path = netlink.path(nic.address, peer.address, None).await.ok()??;
    let other = netlink.link(path.interface).await.ok()??;
    (path.interface != nic.index).then_some(other.name)
}

/// What is wrong with a node, or noteworthy.
fn peer_findings(config: &Config, peer: &Node, nic: &Nic, seen: &Seen) -> Vec<Finding> {
    let of = |trouble, grade| {
        let text = text(
            trouble,
            &peer.name,
            peer.address,
            &nic.name,
            config.is_open(),
        );
        vec![finding(grade, NODES, text)]
    };
    let mut routes = seen.found.routes.iter();
    let route = routes.find(|(address, _)| *address == peer.address);
    if let Some((_, Ok(Route::Via(router)))) = route {
        return of(Trouble::OffLink(*router), Grade::Failure);
    }
    if !seen.macs.contains_key(&peer.address) {
        let text = format!(
            "{} does not answer on {}: is it up, and on this segment (VLAN)?",
            called(peer),
            nic.name
        );
        return vec![finding(Grade::Warning, NODES, text).code("node_silent")];
    }
    if config.bfd.is_none() {
        return Vec::new();
    }
    if let Some(status) = &seen.status {
        return told(status, peer);
    }
    let now = BootNanos(1);
    let overheard = seen
        .found
        .heard
        .as_ref()
        .and_then(|heard| heard.as_ref().ok());
    let overheard = overheard.and_then(|heard| heard.get(&peer.address));
    let got = seen
        .heard
        .as_ref()
        .map(|heard| heard.contains(&peer.address));
    let mut facts = Facts::default();
    facts.take_answer(now);
    facts.on_nic = overheard.and_then(|heard| {
        let ttl = heard.bfd?;
        Some(OnNic { at: now, ttl })
    });
    let ports = seen.found.ports.iter();
    for (_, port) in ports.filter(|(address, _)| *address == peer.address) {
        if let Ok(port) = port {
            facts.take_port(now, now, *port);
        }
    }
    match (facts.diagnose(now), got) {
        // Nobody listens here who could lack it.
        (Some(Trouble::DroppedHere), Some(true) | None) => {
            let text = format!("{} answers, and its agent is heard", called(peer));
            vec![finding(Grade::Ok, NODES, text)]
        }
        (Some(Trouble::NoAgent), _) if facts.is_refused() => {
            let text = format!(
                "{} answers, UDP port 3784 is let through, and no agent runs there yet",
                called(peer)
            );
            vec![finding(Grade::Ok, NODES, text)]
        }
        // It sends BFD to members, and this node is none before its agent runs.
        (Some(Trouble::Silent), _) if config.is_open() => {
            let text = format!(
                "{} answers on {}; its agent sends no BFD here before this node is a member",
                called(peer),
                nic.name
            );
            vec![finding(Grade::Ok, NODES, text)]
        }
        (Some(trouble), _) => of(trouble, Grade::Failure),
        (None, _) => Vec::new(),
    }
}

/// What the agent of this node says of another one.
fn told(status: &Status, peer: &Node) -> Vec<Finding> {
    let alarms = status.alarms.iter();
    let findings: Vec<Finding> = alarms
        .filter(|alarm| alarm.about == peer.name)
        .map(|alarm| {
            let grade = if alarm.alarm == Kind::NoAgent {
                Grade::Warning
            } else {
                Grade::Failure
            };
            finding(grade, NODES, alarm.text.clone())
        })
        .collect();
    let session = status.nodes.iter().find(|node| node.name == peer.name);
    let session = session.and_then(|node| node.bfd.as_ref());
    match session {
        Some(session) if findings.is_empty() => {
            let up = session.state == State::Up;
            let grade = if up { Grade::Ok } else { Grade::Warning };
            let text = format!(
                "{} answers, and its BFD session is {}",
                called(peer),
                session.state.name()
            );
            vec![finding(grade, NODES, text)]
        }
        _ => findings,
    }
}

/// Nodes that one host answers for: something between them and this node does.
fn proxied(peers: &[&Node], seen: &Seen) -> Option<Finding> {
    let mut by_mac = BTreeMap::<[u8; 6], Vec<String>>::new();
    for peer in peers {
        if let Some(mac) = seen.macs.get(&peer.address) {
            by_mac.entry(mac.to_wire()).or_default().push(called(peer));
        }
    }
    let (mac, nodes) = by_mac.into_iter().find(|(_, nodes)| nodes.len() > 1)?;
    let text = format!(
        "{} answers for {}: a router does so in their place (proxy ARP), and all nodes must be on one \
         segment",
        Mac::from_wire(mac),
        list(&nodes, Clone::clone)
    );
    Some(finding(Grade::Failure, NODES, text).code("proxy_arp"))
}
