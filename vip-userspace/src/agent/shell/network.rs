//! What the agent sees of the node's network: the NIC, addresses, neighbours.

use std::net::IpAddr;
use std::sync::Arc;

use vip_common::layout::Mac;

use super::setup::addresses_of;
use super::{Shell, addresses};
use crate::agent::pacer::Command;
use crate::datapath::{Egress, Plan, Seen};
use crate::decide::node::Fault;
use crate::net::netlink::NetEvent;
use crate::net::{Heard, Nic};
use crate::observe::event::{Event, Repair};

impl Shell {
    pub(in crate::agent) async fn on_network(&mut self, event: NetEvent) -> anyhow::Result<()> {
        match event {
            NetEvent::Neighbour(neighbour) => {
                if let Some(mac) = neighbour.mac {
                    self.learn(neighbour.address, Mac::from_wire(mac));
                }
            }
            NetEvent::Link => self.look_at_link().await?,
            NetEvent::OtherLink => self.look_at_other_nics().await,
            NetEvent::Address { address, .. }
                if address == self.nic.address
                    || addresses_of(&self.config).any(|vip| vip == address) =>
            {
                self.look_at_addresses().await;
            }
            NetEvent::Address { .. } => {}
            NetEvent::Overrun => {
                self.look_at_link().await?;
                self.look_at_other_nics().await;
                self.look_at_addresses().await;
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
        let fault = |fault, present| self.pacer.tell(Command::Fault(fault, present));
        let Some(link) = link else {
            fault(Fault::Carrier, true);
            if let Some(nic) = self.successor_of_nic().await {
                anyhow::bail!(
                    "{} is gone, and {} has the node's address now: start the agent again",
                    self.nic.name,
                    nic.name
                );
            }
            return Ok(());
        };
        fault(Fault::Carrier, !link.up);
        if link.name != self.nic.name {
            let from = std::mem::replace(&mut self.nic.name, link.name);
            let to = self.nic.name.clone();
            self.journal.note(Event::NicRenamed { from, to });
        }
        if let Some(mac) = link.mac.filter(|mac| *mac != self.nic.mac) {
            self.journal.note(Event::NicAddress {
                mac: Mac::from_wire(mac).to_string(),
            });
            self.nic.mac = mac;
            let plan = Plan {
                own_mac: Mac::from_wire(mac),
                ..(*self.plan).clone()
            };
            self.plan = Arc::new(plan);
            self.neighbours.set_mac(mac);
            let base = self.datapath.rank_base();
            self.pacer.tell(Command::Plan(self.plan.clone(), base));
            self.learn(self.nic.address, Mac::from_wire(mac));
        }
        let egress = self.attachment.egress;
        let filters = match egress {
            Egress::Tcx => Vec::new(),
            Egress::Clsact => match self.netlink.filters(self.nic.index).await {
                Ok(filters) => filters,
                Err(error) => {
                    tracing::warn!(%error, "cannot look at the filters of the NIC");
                    return Ok(());
                }
            },
        };
        let seen = Seen {
            xdp: link.xdp,
            filters,
        };
        let steers = self
            .datapath
            .steers(&self.nic.name, self.attachment, &seen)
            .unwrap_or(true);
        let guards = self
            .datapath
            .guards(&self.nic.name, egress, &seen)
            .unwrap_or(true);
        if !steers || !guards {
            self.pacer.tell(Command::Fault(Fault::Programs, true));
            match self.datapath.attach(
                &self.nic.name,
                self.nic.index,
                self.config.datapath.mode,
                None,
            ) {
                Ok(attachment) => {
                    self.attachment = attachment;
                    self.journal.note(Event::Repaired(Repair::Programs));
                    self.pacer.tell(Command::Fault(Fault::Programs, false));
                }
                Err(error) => self.journal.note(Event::NotRepaired {
                    what: Repair::Programs,
                    cause: error.to_string(),
                }),
            }
        } else {
            self.pacer.tell(Command::Fault(Fault::Programs, false));
        }
        Ok(())
    }

    /// The NIC that has the node's address now, if it is not the one it was.
    async fn successor_of_nic(&self) -> Option<Nic> {
        let nodes = self.config.addresses();
        let interface = self.config.interface.as_deref();
        let nic = self
            .netlink
            .find_nic(self.config.vip().address, &nodes, interface)
            .await
            .ok()?;
        (nic.index != self.nic.index).then_some(nic)
    }

    /// The node's own address on the NIC, and the VIPs on `lo`.
    pub(super) async fn look_at_addresses(&mut self) {
        match self
            .netlink
            .has_address(self.nic.index, self.nic.address)
            .await
        {
            Ok(there) => self.pacer.tell(Command::Fault(Fault::Address, !there)),
            Err(error) => tracing::warn!(%error, "cannot look for the node's address"),
        }
        match addresses::leave_old(&self.netlink, &self.config).await {
            Ok(old) => {
                for address in old {
                    self.journal.note(Event::AddressLeft { address });
                }
            }
            Err(error) => tracing::warn!("an address that is no VIP stays on lo: {error:#}"),
        }
        let vips: Vec<IpAddr> = addresses_of(&self.config).collect();
        for vip in vips {
            let lost = match self.netlink.has_vip(vip).await {
                Ok(places) => !places.iter().any(|place| place == "lo"),
                Err(error) => {
                    tracing::warn!(%error, "cannot look for the VIP");
                    return;
                }
            };
            if lost {
                self.pacer.tell(Command::Fault(Fault::Vip, true));
                if let Err(error) = addresses::put(&self.netlink, &self.config, vip).await {
                    self.journal.note(Event::NotRepaired {
                        what: Repair::Address,
                        cause: error.to_string(),
                    });
                    return;
                }
                self.journal.note(Event::Repaired(Repair::Address));
            }
        }
        self.pacer.tell(Command::Fault(Fault::Vip, false));
    }

    /// Takes the Ethernet addresses from the kernel's table, and asks for those it lacks.
    pub(super) async fn learn_neighbours(&mut self) {
        let own = Mac::from_wire(self.nic.mac);
        self.learn(self.nic.address, own);
        match self.netlink.neighbours(self.nic.index).await {
            Ok(neighbours) => {
                for neighbour in neighbours {
                    if let Some(mac) = neighbour.mac {
                        self.learn(neighbour.address, Mac::from_wire(mac));
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot read the neighbours"),
        }
        for peer in &self.peers {
            if peer.mac.is_unknown()
                && let Err(error) = self.netlink.resolve(self.nic.index, peer.address).await
            {
                tracing::debug!(node = peer.name, %error, "cannot resolve");
            }
        }
    }

    fn learn(&mut self, address: IpAddr, mac: Mac) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == address) else {
            return;
        };
        if peer.mac != mac {
            tracing::info!(node = peer.name, %mac, "Ethernet address");
            peer.mac = mac;
            self.pacer.tell(Command::Mac(peer.index, mac));
        }
    }

    /// The stack got a frame from the NIC that may say who has an address.
    pub(in crate::agent) fn on_neighbour(&mut self, heard: Option<Heard>) {
        self.prove();
        if let Some(heard) = heard {
            self.remember(heard);
        }
        // Who asks for the VIP, or claims it to others, the program has dealt with. Who answers
        // a probe for it comes here.
        if let Some(heard) = heard
            && addresses_of(&self.config).any(|vip| vip == heard.address)
        {
            self.on_claim(heard.mac);
        }
    }

    pub(super) fn on_claim(&mut self, mac: Mac) {
        if self.is_other_nic(mac) {
            return;
        }
        let node = self.peers.iter().find(|peer| peer.mac == mac);
        let node = node.map(|peer| peer.index);
        // A node whose address is not known yet announces the VIP like a stranger.
        let unknown = node.is_none() && self.peers.iter().any(|peer| peer.mac.is_unknown());
        if !unknown && node.is_none_or(|node| node.get() != self.nic.node_index) {
            self.pacer.tell(Command::Claim(mac, node));
        }
    }
}
