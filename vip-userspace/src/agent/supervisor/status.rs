//! What `vip status` says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use vip_common::abi::{CheckIndex, Counter};
use vip_common::wire::addr::Mac;

use super::Supervisor;
use super::claims::Claim;
use super::peer::Peer;
use crate::agent::node_thread::View;
use crate::clock::now;
use crate::observe::event::Repair;
use crate::observe::status::{self, History, NodeState, Since, Status};
use vip_node::health::Server;
use vip_node::hooks::Running;

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn known(mac: Mac) -> Option<String> {
    (!mac.is_unknown()).then(|| mac.to_string())
}

impl Supervisor {
    pub(in crate::agent) async fn status(&mut self) -> anyhow::Result<Status> {
        let view = self.view().await?;
        let nodes = self.describe_nodes(&view)?;
        self.note_states(&nodes);
        self.describe(&view, nodes)
    }

    /// Notes since when each node is as it is.
    pub(super) fn note_states(&mut self, nodes: &[status::Node]) {
        let nodes = nodes.iter().map(|node| (node.address, node.state));
        self.states.look(now(), nodes.collect());
    }

    /// The nodes, but for what only all of them together tell: reasons, and since when.
    pub(super) fn describe_nodes(&self, view: &View) -> anyhow::Result<Vec<status::Node>> {
        // One may have come or left since the thread was asked.
        let known = |peer: &&Peer| view.nodes.get(peer.index).is_some();
        let nodes = self.peers.values().filter(known);
        let rosters = self.roster_sizes();
        let nodes = nodes.map(|peer| {
            let roster = rosters.get(&peer.address).copied().unwrap_or(0);
            self.node(view, peer, roster)
        });
        nodes.collect()
    }

    fn describe(&self, view: &View, nodes: Vec<status::Node>) -> anyhow::Result<Status> {
        let now = now();
        let own = self.cluster.own();
        let counters = Counter::ALL
            .iter()
            .filter(|counter| counter.tells_of_traffic())
            .map(|counter| Ok((counter.name().to_owned(), self.datapath.counter(*counter)?)));
        let faults = view.faults.iter();
        let claim = self.claims.open.last();
        let stranger = claim.filter(|claim| !claim.is_unheard());
        let alarms = self.segment.alarms.iter();
        let hellos = &self.sockets.peer_channel.counts;
        let mut status = Status {
            verdict: String::new(),
            problems: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: Some(Timestamp::now()),
            commit: option_env!("VIP_COMMIT").map(str::to_owned),
            vip: self.config.vip().endpoint(),
            services: self.services(view),
            credentials_trouble: self.credentials_trouble.clone(),
            local: self.cgroup.as_ref().map(|path| path.display().to_string()),
            owner: view.owner.and_then(|node| {
                let Peer { name, address, .. } = self.peers.get(node)?;
                Some(status::Peer {
                    name: name.clone(),
                    address: *address,
                })
            }),
            owner_since: Since::default(),
            state: view.state,
            priority: view.priority,
            faults: faults.map(|fault| fault.text().to_owned()).collect(),
            fault_codes: view.faults.clone(),
            answer_lease_remaining_ms: view.answer_until.since(now).as_millis() as u64,
            state_for_ms: now.since(self.since).as_millis() as u64,
            takeovers: self.takeovers,
            last_failover_ms: self.last_failover.map(millis),
            source_mac_changes: self.sources.changes(),
            conflicts: self.claims.reported,
            claimant: stranger.map(|claim| claim.mac.to_string()),
            claimant_unheard: claim.is_some_and(Claim::is_unheard),
            claim: claim.map(|claim| {
                let text = self.claim(claim.mac, claim.claimant);
                match claim.claimant.node() {
                    Some(node) => format!("{}: {text}", self.name(node)),
                    None => text,
                }
            }),
            last_claim: self.claims.last.map(|(mac, at)| status::Claim {
                claimant: mac.to_string(),
                ago_ms: now.since(at).as_millis() as u64,
            }),
            alarms: alarms
                .map(|(kind, about, alarm)| status::Alarm {
                    alarm: kind,
                    about: about.to_owned(),
                    text: alarm.text.clone(),
                })
                .collect(),
            hears_nobody: self.hears_nobody(view),
            node: self.name(own),
            xdp: status::Xdp {
                interface: self.nic.name.clone(),
                mode: self.attachment.mode,
                egress: self.attachment.egress,
                proven: self.hooks.ingress.running() == Running::Yes,
                adopted: self.datapath.adopted(),
            },
            bfd_port: self.bfd_port(),
            membership: Some(self.membership()),
            rosters: Some(self.roster_status()),
            refused: refused(view),
            received: by_protocol(view.packets.received().chain([("neighbour", self.heard)])),
            sent: by_protocol(view.packets.sent()),
            unsent: by_protocol(view.packets.unsent().chain([("hello", hellos.unsent())])),
            hooks: self.hooks.describe(),
            settings: self.other_nics.settings(),
            other_nics: self.other_nics.hindrances(),
            waiting_connections: self.longest_queue.load(Ordering::Relaxed),
            nodes,
            counters: counters.collect::<anyhow::Result<_>>()?,
            events: self.journal.counts().clone(),
            repairs: Repair::ALL
                .map(|part| (part, self.journal.repairs(part)))
                .into(),
            history: History::of(self.journal.since(0), &self.name(own)),
        };
        if let Some(owner) = &status.owner {
            let uptime = now.since(self.started);
            let history = &status.history;
            status.owner_since = history.owner_since(&owner.name, Timestamp::now(), uptime);
        }
        let reasons: Vec<String> = status
            .nodes
            .iter()
            .map(|node| status.reason(node))
            .collect();
        for (node, reason) in status.nodes.iter_mut().zip(reasons) {
            node.reason = reason;
            node.since = self.states.node(now, node.address);
        }
        status.verdict = status.verdict();
        status.problems = status.problems();
        Ok(status)
    }

    fn node(&self, view: &View, peer: &Peer, roster: u64) -> anyhow::Result<status::Node> {
        let counters = self.datapath.backend_counters(peer.index)?;
        let seen = view.nodes.get(peer.index);
        let seen = seen.context("a node that the thread does not know")?;
        let session = seen.session.as_ref();
        let alive = view.masks.alive.contains(peer.index);
        let server = seen.servers[0];
        let gone = view.gone.contains(peer.index);
        let own = peer.address == self.nic.address;
        let mut node = status::Node {
            name: peer.name.clone(),
            address: peer.address,
            own,
            state: NodeState::default(),
            since: Since::default(),
            reason: String::new(),
            liveness: seen.state,
            silent: seen.silent,
            hung: alive && peer.hangs[CheckIndex::API.get()].is_some(),
            mac: known(peer.mac),
            source_mac: known(self.sources.of(peer.index)),
            alive,
            ready: alive && server == Server::Ready,
            unknown: alive && server == Server::Unknown,
            draining: seen.draining,
            usable: view
                .masks
                .for_new_connections(CheckIndex::API.raw())
                .contains(peer.index),
            echo: seen.echo,
            bfd: session.map(|session| status::Bfd {
                state: session.state,
                detection_ms: millis(session.detection),
                round_trip_ms: session.round_trip.map(millis),
            }),
            told: if own {
                Some(self.summary(view).into())
            } else {
                // What it told before it was gone is of the past.
                let told = peer.told.clone().filter(|_| !gone);
                told.map(status::Told::from)
            },
            confirmed: view.confirmed.contains(peer.index),
            gone,
            roster,
            probe: if server == Server::Unready {
                self.why_unready(peer, CheckIndex::API)
            } else {
                peer.last_probe(CheckIndex::API).to_owned()
            },
            rtt_ms: peer.rtt.map(millis),
            certificate_not_after: peer.certificate_not_after,
            packets: counters.packets(),
            bytes: counters.bytes,
            connections: counters.syns,
            packets_per_second: peer.rates.packets_per_second,
            connections_per_second: peer.rates.connections_per_second,
        };
        node.state = node.state();
        Ok(node)
    }

    fn membership(&self) -> status::Membership {
        let channel = &self.sockets.peer_channel;
        let refused = channel.counts.refused();
        status::Membership {
            admission: channel.admission,
            key: channel.keys().map(|keys| keys.current().to_string()),
            port: self.config.members.port,
            mute: channel.is_mute(),
            sent: channel.counts.sent(),
            received: channel.counts.taken(),
            refused: refused
                .map(|(why, count)| (why.to_owned(), count))
                .collect(),
        }
    }

    fn services(&self, view: &View) -> Vec<status::Service> {
        let usable = |check: CheckIndex| {
            let usable = view.masks.for_new_connections(check.raw());
            let peers = self
                .peers
                .values()
                .filter(|peer| usable.contains(peer.index));
            peers.map(|peer| peer.name.clone()).collect()
        };
        let vips = self.config.vips.iter();
        vips.flat_map(|vip| vip.services.iter().map(move |service| (vip, service)))
            .map(|(vip, service)| status::Service {
                endpoint: SocketAddr::new(vip.address, service.port),
                target_port: service.target,
                usable: usable(service.check),
                resort: view.resorts[service.check.get()],
                allow: service.allow.iter().map(ToString::to_string).collect(),
            })
            .collect()
    }
}

fn by_protocol(counts: impl Iterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
    counts
        .map(|(protocol, packets)| (protocol.to_owned(), packets))
        .collect()
}

fn refused(view: &View) -> Vec<status::Refused> {
    let refused = view.packets.refused();
    refused
        .map(|(protocol, reason, packets)| status::Refused {
            protocol: protocol.to_owned(),
            reason: reason.to_owned(),
            packets,
        })
        .collect()
}
