//! What `vip status` says.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;
use vip_common::layout::{BackendIndex, Counter};

use super::Shell;
use crate::agent::clock::now;
use crate::agent::pacer::{Command, View};
use crate::agent::proof::Proof;
use crate::decide::vrrp::State;
use crate::observe::event::Repair;
use crate::observe::status::{self, Status};

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Shell {
    pub(in crate::agent) async fn status(&self) -> anyhow::Result<Status> {
        let (answer, answered) = oneshot::channel();
        self.pacer.tell(Command::View(answer));
        let view = answered.await.context("the agent is ending")?;
        self.describe(&view)
    }

    fn describe(&self, view: &View) -> anyhow::Result<Status> {
        let now = now();
        let named = |index: BackendIndex| {
            let peer = &self.peers[index.get()];
            status::Peer {
                name: peer.name.clone(),
                address: peer.address,
            }
        };
        let nodes = self.peers.iter().map(|peer| {
            let counters = self.datapath.backend_counters(peer.index)?;
            let session = view.sessions.get(peer.index.get()).and_then(Option::as_ref);
            Ok(status::Node {
                name: peer.name.clone(),
                address: peer.address,
                own: peer.address == self.nic.address,
                mac: (!peer.mac.is_unknown()).then(|| peer.mac.to_string()),
                alive: view.masks.alive.contains(peer.index),
                ready: view.masks.ready[0].contains(peer.index),
                draining: view.draining[peer.index.get()],
                bfd: session.map(|session| status::Bfd {
                    state: session.state.to_owned(),
                    detection_ms: millis(session.detection),
                    round_trip_ms: session.round_trip.map(millis),
                }),
                probe: peer.probes[0].clone(),
                rtt_ms: peer.rtt.map(millis),
                packets: counters.packets,
                bytes: counters.bytes,
                connections: counters.syns,
                packets_per_second: peer.rates.0,
                connections_per_second: peer.rates.1,
            })
        });
        let counters = Counter::ALL
            .iter()
            .filter(|counter| **counter != Counter::Untouched)
            .map(|counter| Ok((counter.name().to_owned(), self.datapath.counter(*counter)?)));
        let own = BackendIndex::new(self.nic.node_index).context("more nodes than there may be")?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            vip: self.config.vip().endpoint().to_string(),
            services: self.services(view),
            local: self.cgroup.as_ref().map(|path| path.display().to_string()),
            owner: view.owner.map(named),
            state: match view.state {
                State::Initialize => "initialize",
                State::Backup => "backup",
                State::Active => "active",
            }
            .to_owned(),
            priority: view.priority,
            faults: view
                .faults
                .iter()
                .map(|fault| fault.text().to_owned())
                .collect(),
            fence_remaining_ms: view.fence.since(now).as_millis() as u64,
            state_for_ms: now.since(self.since).as_millis() as u64,
            takeovers: self.takeovers,
            last_failover_ms: self.last_failover.map(millis),
            conflicts: self.claims.1,
            claimant: self.claimant.map(|mac| mac.to_string()),
            node: named(own).name,
            xdp: status::Xdp {
                interface: self.nic.name.clone(),
                mode: self.attachment.mode.to_string(),
                egress: self.attachment.egress.to_string(),
                proven: self.proof == Proof::Seen,
                adopted: self.datapath.adopted(),
            },
            settings: self.other_nics.settings(),
            other_nics: self.other_nics.hindrances(),
            nodes: nodes.collect::<anyhow::Result<_>>()?,
            counters: counters.collect::<anyhow::Result<_>>()?,
            events: self
                .journal
                .counts()
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            repairs: Repair::ALL
                .iter()
                .map(|what| (what.name().to_owned(), self.journal.repairs(*what)))
                .collect(),
        })
    }

    fn services(&self, view: &View) -> Vec<status::Service> {
        let ready = |check: usize| {
            let ready = view.masks.ready[check];
            let peers = self.peers.iter().filter(|peer| ready.contains(peer.index));
            peers.map(|peer| peer.name.clone()).collect()
        };
        let vips = self.config.vips.iter();
        vips.flat_map(|vip| vip.services.iter().map(move |service| (vip, service)))
            .map(|(vip, service)| status::Service {
                endpoint: SocketAddr::new(vip.address, service.port).to_string(),
                target_port: service.target,
                ready: ready(service.check),
            })
            .collect()
    }
}
