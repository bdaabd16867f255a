//! Members that come and go while the agent runs: what the rest of the agent does for them.
//!
//! The thread hears a new member at once. Here it gets its place in the maps and its probes; then a
//! rank table with it is made in another thread, and written into the half that is not in use.

use std::net::IpAddr;

use anyhow::Context as _;
use tokio::spawn;
use tokio::task::spawn_blocking;
use vip_common::abi::{BackendIndex, MAX_BACKENDS};
use vip_common::wire::addr::Mac;
use vip_node::alarm::{HEARD, Kind};
use vip_node::envelope::Refused;
use vip_node::hello::Instance;
use vip_node::rank::Identity;
use vip_node::slots::Slots;
use vip_node::{Input, Installation, rank};

use super::Supervisor;
use super::bfd_access::Access;
use super::peer::Peer;
use super::setup::{addresses, spoken_of};
use crate::agent::cluster::own_node;
use crate::agent::members_file::StoredMember;
use crate::agent::node_thread::View;
use crate::agent::probes::{Outcome, Table};
use crate::clock::now;
use crate::config::{Node, digests, node_name};
use crate::datapath::NodeAddresses;
use crate::observe::event::Event;
use crate::observe::summary::Summary;
use crate::probe::proof;

impl Supervisor {
    /// A host has become a member.
    pub(super) fn on_admitted(&mut self, slot: BackendIndex, address: IpAddr) -> Event {
        let listed = self.config.listed(address).cloned();
        let node = listed.unwrap_or_else(|| Node::at(address));
        let other_address = node.other_address;
        let peer = Peer::new(slot, &node, Mac::UNKNOWN, self.config.checks.len());
        let name = peer.name.clone();
        self.cluster.admit(slot, node);
        self.peers.insert(slot, peer);
        self.checking.add(slot, address, false);
        // Another one may have been in its slot.
        if let Err(error) = self.datapath.restart_backend(slot) {
            tracing::warn!(%error, %address, "counters of a new member begin with those of a former one");
        }
        // Its place in the maps comes before a rank table that names it.
        let mut desired = (*self.desired).clone();
        let addresses = addresses(address, other_address);
        desired.backends.insert(slot, addresses);
        self.change_desired(desired);
        self.learn_known(address);
        self.members_changed();
        let (netlink, index) = (self.netlink.clone(), self.nic.index);
        drop(spawn(async move {
            // It is asked for again every two seconds.
            if let Err(error) = netlink.resolve(index, address).await {
                tracing::debug!(%address, %error, "cannot resolve");
            }
        }));
        Event::member_admitted(name)
    }

    /// Makes the kernel go on to send to members that are gone, at the Ethernet addresses that they
    /// had.
    ///
    /// The egress program answers what this node and its pods send to them with a reset, so that
    /// their connections end at once. But it sees a frame only if the kernel knows where to send it,
    /// and the kernel finds out within seconds that such a member answers no ARP. A connection may
    /// send much later, a keepalive after 15 to 30 s for instance. So this is done again every two
    /// seconds for as long as the member is gone.
    pub(super) fn keep_reachable(&self, gone: impl IntoIterator<Item = BackendIndex>) {
        for slot in gone {
            let (Some(peer), Some(node)) = (self.peers.get(slot), self.desired.backends.get(slot))
            else {
                continue;
            };
            if peer.mac.is_unknown() {
                continue;
            }
            let all = [node.address, node.other];
            let all: Vec<IpAddr> = all
                .into_iter()
                .filter(|address| !address.is_unspecified())
                .map(IpAddr::from)
                .collect();
            let (netlink, index, mac) = (self.netlink.clone(), self.nic.index, peer.mac.to_wire());
            drop(spawn(async move {
                if let Err(error) = netlink.confirm(index, &all, mac).await {
                    tracing::debug!(?all, %error, "cannot confirm a neighbour");
                }
            }));
        }
    }

    /// A member has left, or was forgotten.
    pub(super) fn on_removed(&mut self, slot: BackendIndex, address: IpAddr) -> Event {
        self.checking.remove(slot);
        self.cluster.remove(slot);
        self.sources.forget(slot);
        self.segment.rivals.retain(|rival| *rival != slot);
        let name = self.peers.remove(slot).map(|peer| peer.name);
        let name = name.unwrap_or_else(|| address.to_string());
        for change in self.segment.alarms.end(&name) {
            self.tell_change(Some(change));
        }
        self.members_changed();
        Event::member_removed(name)
    }

    /// A member tells of itself.
    pub(super) fn on_told(&mut self, slot: BackendIndex, text: &str) {
        let Some(told) = Summary::parse(text) else {
            return;
        };
        if self.config.is_open() {
            self.take_name(slot, &told);
        }
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.told = Some(told);
        }
        self.compare_with(slot);
    }

    /// Compares what must be the same on all nodes with what a member has told.
    fn compare_with(&mut self, slot: BackendIndex) {
        let (Some(own), Some(peer)) = (&self.told_others, self.peers.get(slot)) else {
            return;
        };
        let told = peer.told.iter();
        let differ = told.flat_map(|told| told.differences(&own.digests));
        let differ: Vec<_> = differ.collect();
        let name = peer.name.clone();
        let alarms = &mut self.segment.alarms;
        let change = if differ.is_empty() {
            alarms.lower(Kind::Differs, &name)
        } else {
            let keys: Vec<&str> = differ.iter().map(|agreed| agreed.key).collect();
            let keys = keys.join(", ");
            let text = format!(
                "{name} has another configuration: {keys}; make it the same on all nodes, then `vip \
                 reload` or restart its agent"
            );
            alarms.raise(Kind::Differs, &name, text, None)
        };
        self.tell_change(change);
    }

    /// An agent has a configuration that misroutes: it is not heard.
    pub(in crate::agent) fn on_differs(&mut self, address: IpAddr, key: &str) {
        let text = format!(
            "{address} runs an agent for this VIP with another {key}, which would bring connections to \
             other servers: it is no member until that is the same on all nodes"
        );
        let until = Some(now().after(HEARD));
        let about = address.to_string();
        let alarms = &mut self.segment.alarms;
        let change = alarms.raise(Kind::Differs, &about, text, until);
        self.tell_change(change);
    }

    /// A hello is sealed otherwise than this node's. Of hosts that are no members, this is no news: they
    /// may be of another cluster.
    pub(in crate::agent) fn on_refused(&mut self, address: IpAddr, why: Refused) {
        let Some((_, peer)) = self.peers.find(|peer| peer.address == address) else {
            return;
        };
        let about = peer.name.clone();
        let text = format!(
            "hellos of {about} are not taken: {why}; give all nodes the same `key_file`, then `vip reload`"
        );
        let until = Some(now().after(HEARD));
        let change = self
            .segment
            .alarms
            .raise(Kind::Refused, &about, text, until);
        self.tell_change(change);
    }

    /// Takes over the name and the other address that a member tells of itself.
    fn take_name(&mut self, slot: BackendIndex, told: &Summary) {
        let is_taken = |name: &str| {
            let mut peers = self.peers.iter();
            peers.any(|(other, peer)| other != slot && peer.name == name)
        };
        let valid = node_name(&told.name).ok();
        let name = valid.filter(|name| !is_taken(name));
        let Some(node) = self.cluster.node_mut(slot) else {
            return;
        };
        let is_ipv4 = node.address.is_ipv4();
        let other = told
            .other_address
            .filter(|other| other.is_ipv4() != is_ipv4);
        let name = name.unwrap_or_else(|| node.name.clone());
        self.set_node(slot, name, other);
    }

    /// Changes the name and the other address of a member.
    fn set_node(&mut self, slot: BackendIndex, name: String, other: Option<IpAddr>) {
        let Some(node) = self.cluster.node_mut(slot) else {
            return;
        };
        let before = node.clone();
        (node.name, node.other_address) = (name, other);
        let node = node.clone();
        if node == before {
            return;
        }
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.name.clone_from(&node.name);
        }
        self.note_members();
        if slot == self.cluster.own() {
            self.roster_servers_changed();
        }
        if node.other_address != before.other_address {
            let mut desired = (*self.desired).clone();
            let addresses = addresses(node.address, node.other_address);
            desired.backends.insert(slot, addresses);
            self.change_desired(desired);
        }
    }

    /// Makes the members those of the configuration, with the names and other addresses that it has:
    /// those of the list, or this node alone.
    pub(super) fn change_nodes(&mut self) {
        let own = self.cluster.own();
        for (slot, address) in self.cluster.addresses().iter() {
            let node = match self.config.is_open() {
                true => (slot == own).then(|| own_node(&self.config, *address)),
                false => self.config.listed(*address).cloned(),
            };
            if let Some(node) = node {
                self.set_node(slot, node.name, node.other_address);
            }
        }
        if !self.config.is_open() {
            let nodes = self.config.nodes.iter();
            let list = nodes.map(|node| Identity {
                address: node.address,
                weight: node.weight,
            });
            self.node_thread.tell(Input::List(list.collect()));
        }
    }

    /// Whether a node may be taken off the list: its connections would hang, since the others do not
    /// bring it their segments any more.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn may_remove(&self, view: &View, node: &Node) -> Result<(), String> {
        let Some((slot, peer)) = self.peers.find(|peer| peer.address == node.address) else {
            return Ok(());
        };
        let name = &peer.name;
        if slot == self.cluster.own() {
            return Err(format!(
                "{name} is this node, and not in the new list; stop its agent to take it out"
            ));
        }
        if view.gone.contains(slot) {
            return Ok(());
        }
        if view.owner == Some(slot) {
            return Err(format!("{name} owns the VIP; run `vip handover` there"));
        }
        let drains = view.nodes.get(slot).is_some_and(|node| node.draining);
        if !drains {
            return Err(format!(
                "{name} is not gone and does not drain, so its connections would hang; run `vip drain` \
                 there, wait until it has none, and reload again"
            ));
        }
        Ok(())
    }

    /// What this node tells of itself.
    pub(super) fn summary(&self, view: &View) -> Summary {
        let own = self.cluster.own_node();
        let owner = view.owner.and_then(|owner| self.peers.get(owner));
        Summary {
            name: own.name.clone(),
            other_address: own.other_address,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: Some(view.state),
            owner: owner.map(|owner| owner.address),
            mode: Some(self.attachment.mode),
            digests: Summary::written(&digests(&self.config)),
            faults: view.faults.clone(),
            draining: view.nodes.get(self.cluster.own()).map(|seen| seen.draining),
            connections: self.connections.open,
            conflict: self.claims.open.iter().any(|claim| !claim.is_unheard()),
        }
    }

    /// Tells the other agents of this node.
    pub(super) fn tell_of_itself(&mut self, view: &View) {
        let summary = self.summary(view);
        if self.told_others.as_ref() == Some(&summary) {
            return;
        }
        let text = summary.text();
        // The number of connections changes all the time.
        let connections = summary.connections;
        let before = self.told_others.replace(summary.clone());
        let before = before.map(|before| Summary {
            connections,
            ..before
        });
        let at_once = before.as_ref() != Some(&summary);
        self.node_thread.tell(Input::Text { text, at_once });
        // By a reload, or because others have told before this node knew itself.
        if before.is_none_or(|before| before.digests != summary.digests) {
            let others: Vec<BackendIndex> = self.peers.iter().map(|(slot, _)| slot).collect();
            for slot in others {
                self.compare_with(slot);
            }
        }
    }

    /// There is no place for a host. `None` if that was told.
    pub(super) fn on_full(&mut self, address: IpAddr) -> Option<Event> {
        if self.refused.contains(&address) {
            return None;
        }
        self.refused.truncate(MAX_BACKENDS - 1);
        self.refused.insert(0, address);
        Some(Event::members_full(address))
    }

    /// Hears the members there are, and notes them for the next start.
    fn members_changed(&mut self) {
        self.roster_peers_changed();
        let peers = self.cluster.peers();
        let spoken_of = spoken_of(&self.config, &self.nic, &peers);
        if let Err(error) = self.sockets.neighbours.hear(&spoken_of) {
            tracing::warn!(%error, "cannot hear ARP of the members");
        }
        if let Access::Shared(port) = &mut self.sockets.bfd
            && let Err(error) = port.set_peers(self.nic.address, &peers)
        {
            tracing::warn!(%error, "cannot hear BFD of the members");
        }
        self.note_members();
    }

    /// Notes the members for the next start.
    pub(super) fn note_members(&mut self) {
        if !self.config.is_open() {
            return;
        }
        let own = self.cluster.own();
        let others = self.cluster.nodes().iter().filter(|(slot, _)| *slot != own);
        let members: Vec<StoredMember> = others.map(|(_, node)| StoredMember::of(node)).collect();
        self.state_dir.note_members(&members);
    }

    /// Whether this node may leave the cluster, once it has drained.
    ///
    /// # Errors
    /// The members are those of a list; or no other node takes new connections, and this is not
    /// `force`d.
    pub(in crate::agent) async fn may_leave(&self, force: bool) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.config.is_open(),
            "the members are those of `nodes`: run `vip drain` here, and take this node off the list on \
             every node"
        );
        let view = self.view().await?;
        let own = self.cluster.own();
        let stays = |slot: BackendIndex| {
            let drains = view.nodes.get(slot).is_none_or(|seen| seen.draining);
            slot != own && !drains && !view.gone.contains(slot)
        };
        anyhow::ensure!(
            force || self.peers.iter().any(|(slot, _)| stays(slot)),
            "all other nodes drain or are gone, and would leave no server for new connections: run `vip \
             undrain` on one of them or here, or give --force"
        );
        Ok(())
    }

    /// Leaves the cluster. The thread ends when the VIP is another node's.
    ///
    /// # Errors
    /// This node may not leave, or does not drain.
    pub(in crate::agent) async fn leave(&mut self, force: bool) -> anyhow::Result<String> {
        self.may_leave(force).await?;
        self.ensure_drained().await?;
        self.journal.note(Event::leaving());
        // An agent that is started here again joins as a new one would.
        if let Err(error) = self.state_dir.set_drained(false).await {
            tracing::warn!("the drain is still noted: {error:#}");
        }
        self.state_dir.note_members(&[]);
        self.node_thread.tell(Input::Leave);
        Ok(self.cluster.own_node().name.clone())
    }

    /// Forgets a member that does not come back, and lets all others forget it.
    ///
    /// # Errors
    /// There is no such member, or it is not gone.
    pub(in crate::agent) async fn forget(&self, node: &str) -> anyhow::Result<String> {
        anyhow::ensure!(
            self.config.is_open(),
            "the members are those of `nodes`: take {node} off the list on every node"
        );
        let slot = self.named(node)?;
        let peer = &self.peers[slot];
        let name = peer.name.clone();
        anyhow::ensure!(
            slot != self.cluster.own(),
            "{name} is this node: `vip leave` takes it out of the cluster"
        );
        anyhow::ensure!(
            self.view().await?.gone.contains(slot),
            "{name} is not gone: something on it answers, or did in the last moment (`reset_after`), so it \
             may have connections. Run `vip leave` there, after a start of its agent if that has ended; or \
             turn the machine off, and wait a moment"
        );
        self.node_thread.tell(Input::Forget(peer.address));
        Ok(name)
    }

    /// The member with this name or address.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn named(&self, name: &str) -> anyhow::Result<BackendIndex> {
        let found = self
            .peers
            .find(|peer| is_called(&peer.name, peer.address, name))
            .map(|(slot, _)| slot);
        found.with_context(|| {
            let names: Vec<_> = self.peers.values().map(|peer| peer.name.as_str()).collect();
            format!("no node {name}; there are {}", names.join(", "))
        })
    }

    /// The thread wants a rank table for these members.
    pub(super) fn install(&self, installation: Installation) {
        let outcomes = self.checking.outcomes();
        let key = self.desired.hash_key;
        drop(spawn(async move {
            // Too long for a thread that others wait for.
            let made = spawn_blocking(move || {
                let rows = rank::table_of_slots(key, &installation.members);
                Table { installation, rows }
            });
            if let Ok(table) = made.await {
                // The agent is ending.
                let _gone = outcomes.send(Outcome::Table(Box::new(table))).await;
            }
        }));
    }

    /// A rank table was made: it is used from now on.
    pub(in crate::agent) fn on_table(&mut self, table: Table) {
        let Table { installation, rows } = table;
        let Installation { number, members } = installation;
        let put = rows.map_err(anyhow::Error::from).and_then(|rows| {
            self.datapath.change_ranks(&rows)?;
            Ok(rows)
        });
        let rows = match put {
            Ok(rows) => rows,
            Err(error) => {
                let what = "cannot use a rank table for the members that there are now";
                self.journal.note(Event::failed(what, format!("{error:#}")));
                return;
            }
        };
        for (slot, identity) in members.iter() {
            if let Some(node) = self.cluster.node_mut(slot) {
                node.weight = identity.weight;
            }
        }
        let mut desired = (*self.desired).clone();
        desired.rows = rows;
        // Members that have left go when no row names them any more.
        self.change_desired(desired.clone());
        let present: Slots<NodeAddresses> = desired
            .backends
            .iter()
            .filter(|(slot, _)| self.peers.get(*slot).is_some())
            .map(|(slot, node)| (slot, *node))
            .collect();
        if present != desired.backends {
            desired.backends = present;
            self.change_desired(desired);
        }
        self.node_thread.tell(Input::Installed(number));
    }

    /// A host that runs an agent asks to be a member: its API server is to show a certificate of the
    /// cluster.
    pub(super) fn ask_for_proof(&mut self, address: IpAddr, instance: Instance) {
        if self.proving.contains(&address) {
            return;
        }
        self.proving.push(address);
        let wanted = proof::Wanted::of(&self.config, address);
        let outcomes = self.checking.outcomes();
        drop(spawn(async move {
            let proof = wanted.ask().await.map(|()| instance);
            // The agent is ending.
            let _gone = outcomes.send(Outcome::Proof(address, proof)).await;
        }));
    }

    /// A host has shown a certificate, or why it has not.
    pub(in crate::agent) fn on_member_proof(
        &mut self,
        address: IpAddr,
        proof: Result<Instance, String>,
    ) {
        self.proving.retain(|asked| *asked != address);
        match proof {
            Ok(instance) => {
                self.unproved.retain(|(host, _)| *host != address);
                self.node_thread.tell(Input::Proved { address, instance });
            }
            Err(why) => {
                // It asks with each hello.
                let told = (address, why);
                if !self.unproved.contains(&told) {
                    self.unproved.retain(|(host, _)| *host != address);
                    self.unproved.truncate(MAX_BACKENDS - 1);
                    self.journal
                        .note(Event::member_unproved(address, told.1.clone()));
                    self.unproved.insert(0, told);
                }
            }
        }
    }
}

/// Whether a node is meant by `text`: its address in any spelling, or its name.
fn is_called(name: &str, address: IpAddr, text: &str) -> bool {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match bare.unwrap_or(text).parse::<IpAddr>() {
        Ok(meant) => meant == address,
        Err(_) => text == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_called_by_its_name_or_its_address_in_any_spelling() {
        let address = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0x13]);
        for text in ["cp3", "fd00::13", "FD00:0::0:13", "[fd00::13]"] {
            assert!(is_called("cp3", address, text), "{text}");
        }
        for text in ["cp1", "fd00::1", "10.0.0.13", ""] {
            assert!(!is_called("cp3", address, text), "{text}");
        }
        // A node without a name is called by its address.
        assert!(is_called("fd00::13", address, "fd00::0013"));
    }
}
