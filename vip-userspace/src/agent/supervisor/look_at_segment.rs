//! What is wrong on the segment: other nodes' agents that are not heard, hosts that send to this
//! cluster and are not in its list, addresses that two have.

use std::net::IpAddr;
use std::time::Duration;

use tokio::spawn;
use vip_common::abi::BackendIndex;
use vip_common::wire::addr::Mac;
use vip_common::wire::bfd::{State, TTL};
use vip_common::wire::time::BootNanos;

use super::Supervisor;
use super::segment::{Agent, KnownMac, UnplacedClaim};
use crate::agent::node_thread::View;
use crate::agent::survey::{self, Found, Wanted};
use crate::clock::now;
use crate::net::overhear::{Overheard, Router};
use crate::observe::event::Event;
use crate::observe::trouble::{LET_THROUGH, text};
use vip_node::Input;
use vip_node::alarm::{Change, HEARD, Kind};
use vip_node::hearing::{OnNic, Route, Trouble};

/// Looks at what is there, every two seconds, from one survey to the next while nothing is wrong.
const CALM: u32 = 10;

/// The same while something is.
const WARY: u32 = 2;

/// From one question for the node's own address to the next.
const OWN: u32 = 4;

/// How long somebody else has the node's own address after it said so last: two questions that it
/// does not answer.
const DUPLICATE: Duration = Duration::from_secs(18);

/// How long a host that is no node must have spoken BFD in vain. A router does so for a moment when it
/// comes up before a BFD program of this host that is not ours.
const STRANGE: Duration = Duration::from_secs(8);

fn is_recent(now: BootNanos, sign: Option<BootNanos>) -> bool {
    sign.is_some_and(|sign| now.since(sign) < HEARD)
}

impl Supervisor {
    /// Looks at the segment as often as is due. What takes long goes on by itself, and ends in
    /// [`Self::on_survey`].
    pub(super) async fn look_at_segment(&mut self) {
        let now = now();
        let looks = self.segment.looks;
        self.segment.looks = looks.wrapping_add(1);
        if looks.is_multiple_of(OWN)
            && let Err(error) = self.neighbours().probe(self.nic.address)
        {
            tracing::debug!(%error, "cannot ask for the node's own address");
        }
        let due = |claim: &mut UnplacedClaim| now.since(claim.since) >= Duration::from_secs(1);
        if let Some(claim) = self.segment.unplaced.take_if(due) {
            self.tell_claim(claim.mac);
        }
        if let Ok(view) = self.view().await {
            self.tell_of_itself(&view);
            if let Ok(nodes) = self.describe_nodes(&view) {
                self.note_states(&nodes);
            }
            self.assess(now, &view);
            self.keep_reachable(view.gone.iter());
        }
        for change in self.segment.alarms.expire(now) {
            self.tell_change(Some(change));
        }
        self.survey();
    }

    /// Asks and listens for what cannot be seen otherwise.
    fn survey(&mut self) {
        let bfd = self.config.bfd.is_some();
        let others = self
            .peers
            .values()
            .filter(|peer| peer.address != self.nic.address);
        let silent: Vec<IpAddr> = others
            .clone()
            .filter(|peer| bfd && !peer.agent.facts.is_up())
            .map(|peer| peer.address)
            .collect();
        let routes = others.map(|peer| peer.address).collect();
        for &peer in &silent {
            // Whether its kernel answers.
            if let Err(error) = self.neighbours().ask(peer) {
                tracing::debug!(%error, "cannot ask a peer");
            }
        }
        let segment = &mut self.segment;
        let wary =
            !silent.is_empty() || !segment.alarms.is_empty() || !segment.strangers.is_empty();
        let every = if wary { WARY } else { CALM };
        if segment.under_way.is_some() || !(segment.looks - 1).is_multiple_of(every) {
            return;
        }
        segment.under_way = Some(now());
        let wanted = Wanted {
            listen: Some(Router {
                id: self.config.router_id(),
                vip: self.config.vip().address,
            }),
            routes,
            ports: silent,
        };
        let (netlink, nic) = (self.netlink.clone(), self.nic.clone());
        let surveys = segment.surveys.clone();
        drop(spawn(async move {
            let found = survey::look(&netlink, &nic, wanted).await;
            // The agent is ending.
            let _gone = surveys.send(found).await;
        }));
    }

    /// A survey has ended.
    pub(in crate::agent) fn on_survey(&mut self, found: Found) {
        let now = now();
        let begun = self.segment.under_way.take().unwrap_or(now);
        for (address, route) in found.routes {
            if let (Some(agent), Ok(route)) = (self.agent_of(address), route) {
                agent.facts.route = route;
            }
        }
        for (address, port) in found.ports {
            if let (Some(agent), Ok(port)) = (self.agent_of(address), port) {
                agent.facts.take_port(begun, now, port);
            }
        }
        match found.heard {
            None => {}
            Some(Err(error)) => tracing::debug!(%error, "cannot listen"),
            Some(Ok(heard)) => {
                for (address, heard) in heard {
                    self.on_overheard(now, address, heard);
                }
                self.segment
                    .strangers
                    .retain(|stranger| now.since(stranger.last) < HEARD);
            }
        }
    }

    fn agent_of(&mut self, address: IpAddr) -> Option<&mut Agent> {
        let peer = self.peers.values_mut().find(|peer| peer.address == address);
        peer.map(|peer| &mut peer.agent)
    }

    fn on_overheard(&mut self, now: BootNanos, address: IpAddr, heard: Overheard) {
        if let Some(agent) = self.agent_of(address) {
            if let Some(ttl) = heard.bfd {
                agent.facts.on_nic = Some(OnNic { at: now, ttl });
            }
            if heard.vrrp.is_some() {
                agent.advert_on_nic = Some(now);
            }
            return;
        }
        if heard.vrrp == Some(TTL) || heard.bfd == Some(TTL) && heard.unanswered {
            self.node_thread.tell(Input::Stranger);
        }
        let (what, remedy) = if self.config.is_open() {
            (
                "is no member",
                "see why in the log of its agent, or stop that agent",
            )
        } else {
            (
                "is not in `nodes`",
                "add it on every node, or stop its agent",
            )
        };
        let text = if heard.vrrp == Some(TTL) {
            format!(
                "{address} speaks VRRP for {} and {what}: {remedy}",
                self.config.vip().address
            )
        } else if heard.bfd == Some(TTL) && heard.unanswered {
            if now.since(self.segment.on_stranger(now, address)) < STRANGE {
                return;
            }
            format!("{address} speaks BFD to this node and {what}: {remedy}")
        } else {
            return;
        };
        let about = address.to_string();
        let until = Some(now.after(HEARD));
        let change = self
            .segment
            .alarms
            .raise(Kind::Stranger, &about, text, until);
        self.tell_change(change);
    }

    /// A frame came that says who has an address.
    pub(super) fn note_answer(&mut self, address: IpAddr, mac: Mac) {
        let now = now();
        if address != self.nic.address {
            if let Some(agent) = self.agent_of(address) {
                agent.facts.take_answer(now);
            }
            return;
        }
        // That this host's other NICs answer is a matter of its settings (`other_nics.rs`).
        if !self.desired.is_own(mac) && self.other_nics.name(mac, self.nic.index).is_none() {
            let text = format!(
                "{} has this node's own address {address} as well: take it off that host",
                self.who(mac)
            );
            let until = Some(now.after(DUPLICATE));
            let about = mac.to_string();
            let change = self
                .segment
                .alarms
                .raise(Kind::Duplicate, &about, text, until);
            self.tell_change(change);
        }
    }

    /// An Ethernet address, and whose it is as far as that is known.
    pub(super) fn who(&self, mac: Mac) -> String {
        let segment = &self.segment;
        if let Some(name) = self.other_nics.name(mac, self.nic.index) {
            return format!("{mac} (this node's own {name})");
        }
        let other = |known: &&KnownMac| known.mac == mac && known.address != self.nic.address;
        match segment.known_macs.iter().find(other) {
            Some(KnownMac { address, .. }) => format!("{mac} ({address})"),
            None => mac.to_string(),
        }
    }

    /// Somebody claims the VIP.
    pub(super) fn on_claim(&mut self, mac: Mac) {
        if self.desired.is_own(mac) || self.is_other_nic(mac) {
            return;
        }
        // A node whose address is not known yet announces the VIP like a stranger: it is asked for. So
        // does an owner whose address has changed, until that is learnt a moment later.
        let known = self.sources.node(mac).is_some();
        let is_open =
            self.segment.another_owns || self.peers.values().any(|peer| peer.mac.is_unknown());
        if !known && is_open {
            let since = now();
            let claim = UnplacedClaim { mac, since };
            self.segment.unplaced.get_or_insert(claim);
        } else {
            self.tell_claim(mac);
        }
    }

    /// Whether the host that answers for the VIP on that node may run an agent that is not heard, because it does
    /// not get to run or a firewall hides it. If not, it is something else.
    pub(super) fn may_run_an_agent(&self, node: BackendIndex) -> bool {
        let facts = &self.peers[node].agent.facts;
        self.config.bfd.is_some() && !facts.runs_no_agent(now())
    }

    /// Another node owns the VIP as well as this one (`true`), or no more.
    pub(super) fn on_two_owners(&mut self, node: BackendIndex, present: bool) {
        self.segment.rivals.retain(|rival| *rival != node);
        if present {
            self.segment.rivals.push(node);
            self.tell_rival(now(), node);
        } else {
            let about = self.name(node);
            let change = self.segment.alarms.lower(Kind::TwoOwners, &about);
            self.tell_change(change);
        }
    }

    fn tell_rival(&mut self, now: BootNanos, node: BackendIndex) {
        // It may have left while the thread reported it.
        let Some(peer) = self.peers.get(node) else {
            return;
        };
        let why = if is_recent(now, peer.agent.advert) {
            "it does not hear this node's VRRP: IP protocol 112 must be let through to it"
        } else if is_recent(now, peer.agent.advert_on_nic) {
            "a firewall on this node drops its VRRP: IP protocol 112 must be let through"
        } else {
            "its VRRP does not arrive: IP protocol 112 must be let through between the two"
        };
        let about = peer.name.clone();
        let text = format!("{about} owns the VIP as well as this node: {why}");
        let change = self
            .segment
            .alarms
            .raise(Kind::TwoOwners, &about, text, None);
        self.tell_change(change);
    }

    /// Brings the alarms about other nodes in line with what is known of them.
    fn assess(&mut self, now: BootNanos, view: &View) {
        let bfd = self.config.bfd.is_some();
        let is_open = self.config.is_open();
        let own = self.cluster.own();
        let mut changes = Vec::new();
        let alarms = &mut self.segment.alarms;
        for (index, peer) in self.peers.iter_mut() {
            if index == own {
                continue;
            }
            let agent = &mut peer.agent;
            let seen = view.nodes.get(index);
            agent.advert = seen.and_then(|seen| seen.advert);
            let session = seen.and_then(|seen| seen.session.as_ref());
            let up = session.is_some_and(|session| session.state == State::Up);
            agent.facts.take_session(up);
            agent.facts.heard = session.and_then(|session| session.heard);
            let off_link = matches!(agent.facts.route, Route::Via(_));
            let trouble = agent.facts.diagnose(now).filter(|_| bfd || off_link);
            // With another key, BFD is not taken either. That is no firewall.
            let trouble = trouble.filter(|_| !alarms.is_up(Kind::Refused, &peer.name));
            let Some(news) = agent.hearing.update(now, trouble) else {
                continue;
            };
            let (name, address) = (&peer.name, peer.address);
            let told = news.map(|trouble| {
                let text = text(trouble, name, address, &self.nic.name, is_open);
                (kind(trouble), text)
            });
            for lowered in [Kind::Unheard, Kind::NoAgent, Kind::OffLink] {
                if told.as_ref().is_none_or(|(raised, _)| *raised != lowered) {
                    changes.push(alarms.lower(lowered, name));
                }
            }
            if let Some((kind, text)) = told {
                changes.push(alarms.raise(kind, name, text, None));
            }
        }
        for change in changes {
            self.tell_change(change);
        }
        for node in self.segment.rivals.clone() {
            self.tell_rival(now, node);
        }
    }

    pub(super) fn tell_change(&mut self, change: Option<Change>) {
        let Some(Change { kind, about, text }) = change else {
            return;
        };
        self.journal.note(match text {
            Some(text) => Event::alarm(kind, &about, text),
            None => Event::alarm_over(kind, &about),
        });
    }

    /// What keeps this node from being one of the cluster: it hears no other agent, though there are
    /// servers that answer, and no kernel says that no agent runs there.
    pub(super) fn hears_nobody(&self, view: &View) -> Option<String> {
        let now = now();
        self.config.bfd?;
        let others = || {
            let peers = self.peers.iter();
            peers.filter(|(slot, _)| *slot != self.cluster.own())
        };
        let heard = others().any(|(slot, _)| {
            let seen = view.nodes.get(slot);
            let session = seen.and_then(|seen| seen.session.as_ref());
            let state = session.map(|session| session.state);
            matches!(state, Some(State::Init | State::Up))
                || is_recent(now, seen.and_then(|seen| seen.advert))
        });
        let mute: Vec<&str> = others()
            .filter(|(_, peer)| peer.agent.serves && !peer.agent.facts.runs_no_agent(now))
            .map(|(_, peer)| peer.name.as_str())
            .collect();
        (!heard && !mute.is_empty()).then(|| {
            format!(
                "no agent of another node is heard, though the servers of {} answer: {LET_THROUGH}",
                mute.join(", ")
            )
        })
    }
}

fn kind(trouble: Trouble) -> Kind {
    match trouble {
        Trouble::OffLink(_) | Trouble::Routed(_) => Kind::OffLink,
        Trouble::NoAgent => Kind::NoAgent,
        Trouble::NotHeardThere
        | Trouble::DroppedHere
        | Trouble::NotSent
        | Trouble::Prohibited
        | Trouble::Silent => Kind::Unheard,
    }
}
