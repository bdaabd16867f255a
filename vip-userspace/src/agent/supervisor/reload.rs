//! `vip reload` and SIGHUP: what a changed configuration changes while the agent runs.
//!
//! All that may be refused comes first. Then an address that is no VIP any more leaves `lo` before
//! the programs forget it, and a new one comes there after they know it: at no time does the kernel
//! alone answer for one.

use std::net::IpAddr;
use std::sync::Arc;

use vip_common::abi::CheckIndex;
use vip_common::wire::time::BootNanos;

use super::setup::{NicSockets, addresses_of, own_addresses, params, served};
use super::{Supervisor, addresses};
use crate::agent::cluster::own_node;
use crate::agent::node_thread::{Command, Serve, Tune};
use crate::agent::taken::refuse_taken;
use crate::config::{Change, Changes, Config, Listen, Node, Reread};
use crate::datapath::DesiredState;
use crate::key_file;
use crate::observe::event::{Event, Repair};
use crate::observe::socket::Reloaded;
use vip_node::Input;
use vip_node::health::{Origin, Thresholds};
use vip_node::seal::KeyRing;

impl Supervisor {
    /// Where the agent is to listen for HTTP.
    pub(in crate::agent) fn http(&self) -> Option<Listen> {
        self.config.http
    }

    /// Reads the configuration again, and applies what changed. A bad one changes nothing.
    pub(in crate::agent) async fn reload(&mut self) -> Reloaded {
        match self.apply().await {
            Ok(changes) => {
                self.journal.note(Event::reloaded(&changes));
                Reloaded::Done(changes)
            }
            Err(error) => {
                // A line for each fault; an event is one line.
                let why = format!("{error:#}");
                let in_one_line = why.lines().collect::<Vec<_>>().join("; ");
                self.journal.note(Event::reload_refused(in_one_line));
                Reloaded::Refused(why)
            }
        }
    }

    async fn apply(&mut self) -> anyhow::Result<Changes> {
        let view = self.view().await?;
        let may_remove = |node: &Node| self.may_remove(&view, node);
        let Reread {
            config,
            source,
            origins,
            mut changes,
        } = self.source.again(&self.config, may_remove)?;
        let other_keys = self.read_keys()?;
        let other_vips = !addresses_of(&config).eq(addresses_of(&self.config));
        let mut listening = None;
        if other_vips || config.seeds != self.config.seeds {
            let vips = addresses_of(&config);
            let (nodes, seeds) = (config.addresses(), config.seeds.clone());
            self.netlink
                .refuse_no_hosts(&self.nic, vips, nodes, seeds)
                .await?;
        }
        if other_vips {
            let (nic, netlink) = (&self.nic, &self.netlink);
            refuse_taken(&config, nic, netlink).await?;
            listening = Some(NicSockets::listen(&config, &self.cluster.peers(), nic)?);
            let left = addresses::leave_old(netlink, &config).await?;
            for address in left {
                self.journal.note(Event::address_left(address));
            }
        }
        if let Some((neighbours, groups)) = listening {
            neighbours.drain();
            self.sockets.neighbours = neighbours;
            self.sockets.groups = groups;
        }
        let before = std::mem::replace(&mut self.config, config);
        self.source = source;
        self.change_served(&before, origins).await?;
        self.tune(&before);
        self.change_nodes();
        self.roster_servers_changed();
        if other_vips {
            self.put_new(&before).await;
        }
        self.look_at_other_nics().await;
        if let Some((keys, change)) = other_keys {
            self.use_keys(keys);
            changes.applied.push(change);
        }
        if self.config.health.reset_on_hang && !before.health.reset_on_hang {
            self.tell_of_reset();
        }
        Ok(changes)
    }

    /// Changes timers and limits.
    fn tune(&self, before: &Config) {
        let tuning = |config: &Config| params(config, &self.cluster, self.keys.as_deref()).tuning();
        let own_addresses = |config: &Config| {
            let address = self.nic.address;
            let listed = config.listed(address).cloned();
            own_addresses(&listed.unwrap_or_else(|| own_node(config, address)))
        };
        let (now, then) = (&self.config, before);
        if tuning(now) != tuning(then) || own_addresses(now) != own_addresses(then) {
            self.node_thread.tell(Command::Tune(Box::new(Tune {
                tuning: tuning(now),
                interop: now.vrrp.interop,
                own_addresses: own_addresses(now),
            })));
        }
        let seeds = self.config.seeds.clone();
        self.sockets.peer_channel.set_seeds(seeds);
    }

    /// Reads the file with the keys again. `None`: they are those of before.
    ///
    /// # Errors
    /// It cannot be used: the keys of before stay.
    fn read_keys(&self) -> anyhow::Result<Option<(Arc<KeyRing>, Change)>> {
        let (Some(file), Some(before)) = (&self.config.key_file, &self.keys) else {
            return Ok(None);
        };
        let keys = key_file::keys(file)?;
        let (old, new) = (before.to_string(), keys.to_string());
        let key = file.display().to_string();
        let change = (old != new).then_some(Change { key, old, new });
        Ok(change.map(|change| (Arc::new(keys), change)))
    }

    /// Seals and accepts by other keys from now on. No session ends by that.
    fn use_keys(&mut self, keys: Arc<KeyRing>) {
        self.sockets.peer_channel.set_keys(keys.clone());
        self.node_thread.tell(Command::Keys(keys.clone()));
        self.keys = Some(keys);
    }

    /// Changes what the programs and the thread know of VIPs, services and checks, and who asks the
    /// servers. Returns when the programs know it.
    async fn change_served(&mut self, before: &Config, origins: Vec<Origin>) -> anyhow::Result<()> {
        let asks = |config: &Config| {
            let health = &config.health;
            let proofs = (health.tls.clone(), health.credentials.clone());
            (
                config.checks.clone(),
                proofs,
                health.interval,
                health.timeout,
            )
        };
        let others = asks(before) != asks(&self.config) || before.vips != self.config.vips;
        if others {
            self.checking.stop();
            self.move_checks(&origins);
        }
        if before.health.credentials != self.config.health.credentials {
            self.credentials_trouble = None;
        }
        let (vips, allowed) = served(&self.config);
        let desired = DesiredState {
            vips,
            allowed,
            ..(*self.desired).clone()
        };
        self.datapath.change_lists(&desired.allowed);
        self.desired = Arc::new(desired);
        let health = &self.config.health;
        self.node_thread.tell(Command::Serve(Box::new(Serve {
            desired: self.desired.clone(),
            halves: self.datapath.halves(),
            vips: addresses_of(&self.config).collect(),
            neighbours: self.sockets.neighbours.clone(),
            thresholds: Thresholds {
                rise: health.rise,
                fall: health.fall,
            },
            origins,
        })));
        // Its answer comes after that.
        self.view().await?;
        if others {
            let queues = self.longest_queue.clone();
            self.checking.start(&self.config, &self.cluster, queues);
        }
        Ok(())
    }

    /// Puts the VIPs on `lo` that were none, and announces them.
    async fn put_new(&mut self, before: &Config) {
        let old: Vec<IpAddr> = addresses_of(before).collect();
        let new = self.config.vips.iter();
        for vip in new.filter(|vip| !old.contains(&vip.address)) {
            match addresses::put(&self.netlink, &self.config, vip).await {
                Ok(placed) => placed.tell(vip.address, &mut self.journal),
                // It is tried again every two seconds.
                Err(error) => self
                    .journal
                    .note(Event::not_repaired(Repair::Address, format!("{error:#}"))),
            }
        }
        self.node_thread.tell(Input::Moved);
    }

    /// Keeps what is known of the servers, by the checks that there are now.
    fn move_checks(&mut self, origins: &[Origin]) {
        let known = |origin: &Origin| match origin {
            Origin::Same(index) | Origin::Like(index) => Some(index.get()),
            Origin::New => None,
        };
        for peer in self.peers.values_mut() {
            let from = |origin| known(origin).and_then(|index| peer.probes.get(index)?.clone());
            let probes = origins.iter().map(from).collect();
            let from = |origin| known(origin).and_then(|index| *peer.hangs.get(index)?);
            peer.hangs = origins.iter().map(from).collect();
            peer.probes = probes;
        }
        let before = std::mem::take(&mut self.checking.hung);
        for (hung, origin) in self.checking.hung.iter_mut().zip(origins) {
            *hung = known(origin).is_some_and(|index| before[index]);
        }
        let checks = CheckIndex::first(origins.len()).zip(origins);
        for (check, _) in checks.filter(|(_, origin)| **origin == Origin::New) {
            // The place may have been that of another check, whose listener says nothing.
            if let Err(error) = self.datapath.note_listener(check, BootNanos::ZERO) {
                tracing::warn!(%error, "cannot forget the server of a check that is no more");
            }
        }
    }
}
