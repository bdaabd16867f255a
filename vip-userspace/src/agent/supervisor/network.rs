//! What the agent sees of the node's network: the NIC, addresses, neighbours.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use vip_common::wire::addr::Mac;

use super::hooks::Hooks;
use super::rosters::hearers;
use super::segment::KnownMac;
use super::setup::{NicSockets, addresses_of, described};
use super::{Supervisor, addresses, claims};
use crate::agent::node_thread::Command;
use crate::clock::now;
use crate::datapath::{DesiredState, Loader};
use crate::net::netlink::{LinkState, NetEvent};
use crate::net::{Heard, Nic};
use crate::observe::event::{Event, Repair};
use vip_node::{Fault, Input};

impl Supervisor {
    pub(in crate::agent) async fn on_network(&mut self, event: NetEvent) -> anyhow::Result<()> {
        match event {
            NetEvent::Neighbour(neighbour) => {
                if let Some(mac) = neighbour.mac.map(Mac::from_wire) {
                    let address = neighbour.address;
                    // It may become a member later.
                    let known = &mut self.segment.known_macs;
                    known.retain(|known| known.address != address);
                    known.push(KnownMac { mac, address });
                    self.learn(address, mac);
                }
            }
            NetEvent::Link => self.look_at_link().await?,
            NetEvent::LinkGone => {
                // Sockets that are bound to it hear nothing more, also if another one gets its
                // number.
                self.nic_is_gone = true;
                self.look_at_link().await?;
            }
            NetEvent::Announce => {
                self.look_at_link().await?;
                self.node_thread.tell(Input::Moved);
            }
            NetEvent::OtherLink => self.look_at_other_nics().await,
            NetEvent::Address { address, .. }
                if address == self.nic.address
                    || addresses_of(&self.config).any(|vip| vip == address) =>
            {
                self.look_at_addresses().await?;
            }
            NetEvent::Address { .. } => {}
            NetEvent::Overrun => {
                self.look_at_link().await?;
                self.look_at_other_nics().await;
                self.look_at_addresses().await?;
                self.learn_neighbours().await;
            }
        }
        Ok(())
    }

    /// Carrier, name and Ethernet address of the NIC, and whether the program is on it.
    pub(super) async fn look_at_link(&mut self) -> anyhow::Result<()> {
        let link = match self.netlink.link(self.nic.index).await {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(%error, "cannot look at the NIC");
                return Ok(());
            }
        };
        if self.follow_address(link.as_ref()).await? {
            return Ok(());
        }
        let Some(link) = link else {
            self.node_thread.tell(Input::Fault {
                fault: Fault::Carrier,
                present: true,
            });
            return Ok(());
        };
        self.node_thread.tell(Input::Fault {
            fault: Fault::Carrier,
            present: !link.up,
        });
        // Gone and back between two looks: switches may have forgotten where this node is.
        if link.carrier_changes != self.carrier_changes {
            self.carrier_changes = link.carrier_changes;
            self.node_thread.tell(Input::Moved);
        }
        if link.name != self.nic.name {
            let from = std::mem::replace(&mut self.nic.name, link.name);
            let to = self.nic.name.clone();
            self.journal.note(Event::nic_renamed(&from, &to));
        }
        if let Some(mac) = link.mac.filter(|mac| *mac != self.nic.mac) {
            self.journal.note(Event::nic_address(Mac::from_wire(mac)));
            self.use_mac(mac);
        }
        self.look_at_hooks(link.xdp).await;
        Ok(())
    }

    /// Follows the node's address to the interface that has it now, if the NIC does not have it
    /// any more, or is a port of that interface. Returns whether it did. `link` is the NIC.
    ///
    /// # Errors
    /// It cannot, though the address is there: the agent must be started anew.
    async fn follow_address(&mut self, link: Option<&LinkState>) -> anyhow::Result<bool> {
        let address = self.nic.address;
        let there = match self.netlink.has_address(self.nic.index, address).await {
            Ok(there) => there,
            Err(error) => {
                tracing::warn!(%error, "cannot look for the node's address");
                return Ok(false);
            }
        };
        let is_port = link.is_some_and(|link| link.master.is_some());
        if there && !is_port && !self.nic_is_gone {
            self.not_followed = None;
            return Ok(false);
        }
        let vip = self.config.vip().address;
        let interface = self.config.interface.as_deref();
        // Where to is known: it may have other addresses, also of nodes.
        let nodes = [address];
        let nic = match self.netlink.find_nic(vip, &nodes, interface).await {
            Ok(nic) if nic.address == address => nic,
            // There is nowhere to follow it to: the fault says so.
            Ok(_) => return Ok(false),
            Err(error) => {
                let places = self.netlink.places_of(address).await;
                if !there && places.is_ok_and(|places| !places.is_empty()) {
                    self.cannot_follow(&error.to_string());
                }
                return Ok(false);
            }
        };
        if nic.index == self.nic.index && !self.nic_is_gone {
            return Ok(false);
        }
        let (from, to) = (self.nic.name.clone(), nic.name.clone());
        let is_port = link.is_some_and(|link| link.master == Some(nic.index));
        let standby = (is_port && self.desired.may_run_twice()).then_some(self.nic.index);
        self.datapath.stand_by(standby);
        let followed = self.move_to(nic.clone()).await;
        if followed.is_err() {
            // It may have moved on meanwhile.
            let there = self.netlink.has_address(nic.index, address).await;
            if !there.unwrap_or(true) {
                return Ok(false);
            }
        }
        followed.with_context(|| {
            format!("cannot follow {address} from {from} to {to}: the agent must be started anew")
        })?;
        Ok(true)
    }

    fn cannot_follow(&mut self, cause: &str) {
        if self.not_followed.as_deref() != Some(cause) {
            self.not_followed = Some(cause.to_owned());
            self.journal.note(Event::not_followed(cause.to_owned()));
        }
    }

    /// Speaks, listens and steers on another NIC from now on. Maps, health and sessions stay, and
    /// so does all that the kernel does until the programs are attached there.
    async fn move_to(&mut self, nic: Nic) -> anyhow::Result<()> {
        let (thread_sockets, sockets) = NicSockets::open(
            &self.config,
            &self.cluster.peers(),
            &nic,
            &self.pins,
            self.keys.clone(),
            &mut Loader::default(),
        )?;
        let mode = self.config.datapath.mode;
        // The programs on the old NIC are taken off once those on the new one are there, or stay
        // if it is a port of that.
        let attachment = self.datapath.attach(&nic.name, nic.index, mode, None)?;
        sockets.neighbours.drain();
        let from = std::mem::replace(&mut self.nic, nic).name;
        self.attachment = attachment;
        self.sockets = sockets;
        self.hooks = Hooks::begin(&self.datapath, self.hooks.connect.is_some())?;
        self.nic_is_gone = false;
        self.not_followed = None;
        self.node_thread
            .tell(Command::Sockets(Box::new(thread_sockets)));
        self.sockets
            .listen_to_peers(hearers(&self.node_thread, &self.rosters, &self.checking))?;
        self.tell_of_bfd();
        self.use_mac(self.nic.mac);
        self.journal.note(Event::nic_followed(
            &from,
            &described(&self.nic, attachment),
        ));
        let link = self.netlink.link(self.nic.index).await?;
        self.node_thread.tell(Input::Fault {
            fault: Fault::Carrier,
            present: !link.as_ref().is_some_and(|link| link.up),
        });
        self.node_thread.tell(Input::Fault {
            fault: Fault::Address,
            present: false,
        });
        self.look_at_hooks(link.and_then(|link| link.xdp)).await;
        self.look_at_proof();
        Ok(())
    }

    /// The NIC has this Ethernet address.
    fn use_mac(&mut self, mac: [u8; 6]) {
        self.nic.mac = mac;
        self.roster_network_changed();
        self.change_desired(DesiredState {
            own_mac: Mac::from_wire(mac),
            ..(*self.desired).clone()
        });
        self.sockets.neighbours.set_mac(mac);
        self.learn(self.nic.address, Mac::from_wire(mac));
    }

    pub(super) fn change_desired(&mut self, desired: DesiredState) {
        self.desired = Arc::new(desired);
        let halves = self.datapath.halves();
        self.node_thread
            .tell(Command::DesiredState(self.desired.clone(), halves));
    }

    /// The node's own address on the NIC, and the VIPs on `lo`.
    pub(super) async fn look_at_addresses(&mut self) -> anyhow::Result<()> {
        let (index, address) = (self.nic.index, self.nic.address);
        match self.netlink.has_address(index, address).await {
            Ok(true) => {
                self.address_gone = None;
                self.node_thread.tell(Input::Fault {
                    fault: Fault::Address,
                    present: false,
                });
            }
            Ok(false) => {
                self.node_thread.tell(Input::Fault {
                    fault: Fault::Address,
                    present: true,
                });
                self.look_at_link().await?;
                self.look_for_new_address().await?;
            }
            Err(error) => tracing::warn!(%error, "cannot look for the node's address"),
        }
        match addresses::leave_old(&self.netlink, &self.config).await {
            Ok(old) => {
                for address in old {
                    self.journal.note(Event::address_left(address));
                }
            }
            Err(error) => tracing::warn!("an address that is no VIP stays on lo: {error:#}"),
        }
        for vip in &self.config.vips {
            let lost = match self.netlink.places_of(vip.address).await {
                Ok(places) => !places.iter().any(|place| place == "lo"),
                Err(error) => {
                    tracing::warn!(%error, "cannot look for the VIP");
                    return Ok(());
                }
            };
            if lost {
                self.node_thread.tell(Input::Fault {
                    fault: Fault::Vip,
                    present: true,
                });
                match addresses::put(&self.netlink, &self.config, vip).await {
                    Ok(placed) => placed.tell(vip.address, &mut self.journal),
                    Err(error) => {
                        self.journal
                            .note(Event::not_repaired(Repair::Address, error.to_string()));
                        return Ok(());
                    }
                }
                self.journal.note(Event::repaired(Repair::Address));
            }
        }
        self.node_thread.tell(Input::Fault {
            fault: Fault::Vip,
            present: false,
        });
        Ok(())
    }

    /// The node's address is gone. Where agents find each other, it may have got another one (by DHCP,
    /// say): then it is another member.
    ///
    /// # Errors
    /// It has: the agent must be started anew.
    async fn look_for_new_address(&mut self) -> anyhow::Result<()> {
        /// A network that is started anew is without addresses for some seconds.
        const GRACE: Duration = Duration::from_secs(10);
        let old = self.nic.address;
        let since = *self.address_gone.get_or_insert(now());
        if !self.config.is_open() || now().since(since) < GRACE {
            return Ok(());
        }
        let vips: Vec<IpAddr> = self.config.vips_by_rank();
        let interface = self.config.interface.as_deref();
        match self.netlink.find_own_nic(&vips, interface).await {
            Ok(nic) if nic.address != old => anyhow::bail!(
                "this node's address is {} now, and was {old}: the agent must be started anew, as \
                 another member",
                nic.address
            ),
            _ => Ok(()),
        }
    }

    /// Takes the Ethernet addresses from the kernel's table, and asks for those it lacks.
    pub(super) async fn learn_neighbours(&mut self) {
        let own = Mac::from_wire(self.nic.mac);
        self.learn(self.nic.address, own);
        let gateway = self.gateway().await;
        match self.netlink.neighbours(self.nic.index).await {
            Ok(neighbours) => {
                self.segment.known_macs.clear();
                for neighbour in neighbours {
                    if let Some(mac) = neighbour.mac.map(Mac::from_wire) {
                        self.learn(neighbour.address, mac);
                        let address = neighbour.address;
                        self.segment.known_macs.push(KnownMac { mac, address });
                    }
                }
                self.choose_witnesses(gateway);
            }
            Err(error) => tracing::warn!(%error, "cannot read the neighbours"),
        }
        if let Some(gateway) = gateway
            && self
                .segment
                .known_macs
                .iter()
                .all(|known| known.address != gateway)
            && let Err(error) = self.netlink.resolve(self.nic.index, gateway).await
        {
            tracing::debug!(%gateway, %error, "cannot resolve");
        }
        for peer in self.peers.values() {
            if peer.mac.is_unknown()
                && let Err(error) = self.netlink.resolve(self.nic.index, peer.address).await
            {
                tracing::debug!(node = peer.name, %error, "cannot resolve");
            }
        }
    }

    /// The router by which packets from this node's address leave the segment, if there is one.
    async fn gateway(&self) -> Option<IpAddr> {
        // Addresses for documentation (RFC 5737, RFC 3849): no host has them, and no packet is sent.
        let far = match self.nic.address {
            IpAddr::V4(_) => IpAddr::from([192, 0, 2, 1]),
            IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
        };
        let path = self
            .netlink
            .path(self.nic.address, far, Some(self.nic.index));
        path.await.ok().flatten()?.gateway
    }

    /// Tells the thread which hosts can prove that the segment works: the gateway, and other
    /// neighbours that are no nodes.
    fn choose_witnesses(&mut self, gateway: Option<IpAddr>) {
        /// One that answers is enough.
        const MOST: usize = 6;
        let is_node = |address: IpAddr| {
            let mut nodes = self.peers.values().map(|peer| peer.address);
            nodes.any(|node| node == address)
                || addresses_of(&self.config).any(|vip| vip == address)
        };
        let mut witnesses: Vec<(IpAddr, Mac)> = self
            .segment
            .known_macs
            .iter()
            .filter(|known| known.address.is_ipv4() == self.nic.address.is_ipv4())
            .filter(|known| !known.mac.is_multicast() && !is_node(known.address))
            .map(|known| (known.address, known.mac))
            .collect();
        witnesses.sort_by_key(|(address, _)| Some(*address) != gateway);
        witnesses.truncate(MOST);
        if witnesses != self.segment.witnesses {
            self.segment.witnesses.clone_from(&witnesses);
            self.node_thread.tell(Command::Witnesses(witnesses));
        }
    }

    /// Takes the Ethernet address of a new member from what the kernel has told already.
    pub(super) fn learn_known(&mut self, address: IpAddr) {
        let mut known = self.segment.known_macs.iter();
        if let Some(mac) = known
            .find(|known| known.address == address)
            .map(|known| known.mac)
        {
            self.learn(address, mac);
        }
    }

    fn learn(&mut self, address: IpAddr, mac: Mac) {
        let Some(peer) = self.peers.values_mut().find(|peer| peer.address == address) else {
            return;
        };
        self.sources.on_neighbour(peer.index, mac);
        if peer.mac != mac {
            tracing::info!(node = peer.name, %mac, "Ethernet address");
            peer.mac = mac;
            self.node_thread.tell(Command::Mac(peer.index, mac));
        }
    }

    /// The stack got a frame from the NIC that may say who has an address.
    pub(in crate::agent) fn on_neighbour(&mut self, heard: Option<Heard>) {
        self.heard += 1;
        self.prove();
        let Some(heard) = heard else {
            return;
        };
        self.remember(heard);
        if let Some(peer) = self
            .peers
            .values()
            .find(|peer| peer.address == heard.address)
            && peer.mac == heard.mac
            && peer.address != self.nic.address
        {
            self.node_thread.tell_soon(Input::Neighbor(peer.index));
        }
        // The program answers questions for the VIP and drops announcements of it. A reply to an
        // address probe for it comes here, and the program has counted it.
        if addresses_of(&self.config).any(|vip| vip == heard.address) {
            self.on_claim(heard.mac);
            if let Ok(counted) = claims::count(&self.datapath) {
                self.claims.counted = counted;
            }
        } else {
            self.note_answer(heard.address, heard.mac);
        }
    }

    pub(super) fn tell_claim(&mut self, mac: Mac) {
        let node = self.sources.node(mac);
        if node != Some(self.cluster.own()) {
            let agent = node.is_some_and(|node| self.may_run_an_agent(node));
            self.node_thread.tell(Input::Claim { mac, node, agent });
        }
    }
}
