//! Looks whether the programs run, by what they must have counted: frames that came in, a test
//! frame that goes out, a test socket that connects.

use std::net::{IpAddr, UdpSocket};

use vip_common::abi::Counter;

use super::Supervisor;
use super::hooks::{Hooks, ask, hook, neighbour_frames, seen};
use super::setup::redirect;
use crate::clock::now;
use crate::config::XdpMode;
use crate::datapath::{Attachment, Look, Mode, Seen, Way};
use crate::net::NetError;
use crate::observe::event::{Event, Repair};
use vip_node::hooks::{Ask, Hook, Placing, Running};
use vip_node::{Fault, Input};

/// Tests in a row that leave no trace until a program is taken not to run.
const TESTS: u32 = 3;

impl Supervisor {
    /// Looks whether the programs are where they should be, first at their hooks, and run.
    pub(super) async fn look_at_hooks(&mut self, xdp: Option<u32>) {
        let seen = match self.seen(xdp).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(%error, "cannot look at the filters of the NIC");
                return;
            }
        };
        let mut looks = self.looks(&seen);
        if looks.iter().any(|(_, look)| !look.attached) {
            self.node_thread.tell(Input::Fault {
                fault: Fault::Programs,
                present: true,
            });
            if !self.attach_again() {
                return;
            }
            looks = match self.seen_now().await {
                Some(seen) => self.looks(&seen),
                None => return,
            };
        }
        self.node_thread.tell(Input::Fault {
            fault: Fault::Programs,
            present: false,
        });
        for (way, look) in looks {
            self.place(way, look);
        }
        self.test_egress();
        self.tell_hooks();
    }

    fn looks(&mut self, seen: &Seen) -> Vec<(Way, Look)> {
        let mut looks = Vec::new();
        for way in [Way::In, Way::Out] {
            match self
                .datapath
                .look(way, &self.nic.name, self.attachment, seen)
            {
                Ok(look) => looks.push((way, look)),
                Err(error) => tracing::debug!(%error, "cannot look at a hook"),
            }
        }
        looks
    }

    async fn seen(&self, xdp: Option<u32>) -> Result<Seen, NetError> {
        seen(&self.netlink, self.nic.index, xdp, self.attachment).await
    }

    /// The same, with what hangs at XDP now.
    async fn seen_now(&self) -> Option<Seen> {
        let link = self.netlink.link(self.nic.index).await.ok()??;
        self.seen(link.xdp).await.ok()
    }

    fn attach_again(&mut self) -> bool {
        let (name, index) = (self.nic.name.clone(), self.nic.index);
        let mode = self.config.datapath.mode;
        match self.datapath.attach(&name, index, mode, None) {
            Ok(attachment) => {
                self.attached(attachment);
                self.journal.note(Event::repaired(Repair::Programs));
                true
            }
            Err(error) => {
                self.journal
                    .note(Event::not_repaired(Repair::Programs, error.to_string()));
                false
            }
        }
    }

    /// The programs were attached. In another way than before, they must prove anew that they run.
    fn attached(&mut self, attachment: Attachment) {
        if attachment == self.attachment {
            return;
        }
        self.attachment = attachment;
        self.sockets.neighbours.drain();
        if let Ok(hooks) = Hooks::begin(&self.datapath, self.hooks.connect.is_some()) {
            self.hooks = hooks;
        }
    }

    /// Puts a program before those of others.
    fn place(&mut self, way: Way, look: Look) {
        let hook = hook(way);
        let placing = self.hooks.on(way).on_look(now(), look.ahead);
        let ahead = || -> String {
            let watch = match way {
                Way::In => &self.hooks.ingress,
                Way::Out | Way::Elsewhere => &self.hooks.egress,
            };
            let ahead: Vec<String> = watch.movable().map(ToString::to_string).collect();
            ahead.join(", ")
        };
        let event = match placing {
            Placing::Stay => return,
            Placing::GiveUp => Event::hook_contested(hook, &ahead()),
            Placing::First => {
                let before = ahead();
                let (name, index) = (self.nic.name.clone(), self.nic.index);
                let egress = self.attachment.egress;
                match self.datapath.put_first(way, &name, index, egress) {
                    Ok(()) => Event::hook_moved(hook, &before),
                    Err(error) => Event::not_repaired(Repair::Programs, error.to_string()),
                }
            }
        };
        self.journal.note(event);
    }

    /// Sends a frame that the program on the way out must count.
    fn test_egress(&mut self) {
        for _ in 0..TESTS {
            let Ok(before) = self.datapath.counter(Counter::GuardTested) else {
                return;
            };
            // A NIC that is down shows nothing of its programs.
            if self.sockets.neighbours.test_egress().is_err() {
                return;
            }
            match self.datapath.counter(Counter::GuardTested) {
                Ok(after) if after > before => return self.on_proof(Hook::Egress, Running::Yes),
                Ok(_) => {}
                Err(_) => return,
            }
        }
        self.on_proof(Hook::Egress, Running::No);
    }

    /// Connects a socket, which the programs for local sockets must count. Nothing is sent.
    pub(super) fn test_connect(&mut self) {
        // Where only some processes' connections are redirected, this one may not be among them.
        let whole = self
            .config
            .local
            .as_ref()
            .is_some_and(|local| local.cgroup.is_none());
        if self.hooks.connect.is_none() || !whole {
            return;
        }
        let vip = self.config.vip().address;
        for _ in 0..TESTS {
            let Ok(before) = self.datapath.counter(Counter::ConnectTested) else {
                return;
            };
            let any = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            if UdpSocket::bind(any)
                .and_then(|socket| socket.connect((vip, 0)))
                .is_err()
            {
                return;
            }
            match self.datapath.counter(Counter::ConnectTested) {
                Ok(after) if after > before => return self.on_proof(Hook::Connect, Running::Yes),
                Ok(_) => {}
                Err(_) => return,
            }
        }
        self.on_proof(Hook::Connect, Running::No);
        let watch = self.hooks.connect.get_or_insert_default();
        if watch.may_move(now()) {
            self.cgroup = redirect(&mut self.datapath, &self.config);
            self.journal.note(Event::repaired(Repair::Connect));
        }
    }

    /// The stack got a frame of ARP or Neighbour Discovery from the NIC.
    pub(super) fn prove(&mut self) {
        let was_open = self.hooks.proof.running() == Running::Unproven;
        let datapath = &self.datapath;
        self.hooks
            .proof
            .on_frame(|| neighbour_frames(datapath).ok());
        if was_open && self.hooks.proof.running() == Running::Unproven {
            // Not to wait for the next look.
            self.ask_all();
        }
        self.settle_ingress();
    }

    /// A look at what the program on the way in has counted, from time to time.
    pub(super) fn look_at_proof(&mut self) {
        let Ok(counted) = neighbour_frames(&self.datapath) else {
            return;
        };
        match self.hooks.proof.on_look(counted) {
            Ask::Nobody => {}
            Ask::All => self.ask_all(),
            Ask::One => {
                let peers = self.other_nodes();
                if !peers.is_empty() {
                    self.hooks.asked = (self.hooks.asked + 1) % peers.len();
                    ask(&self.sockets.neighbours, peers[self.hooks.asked]);
                }
            }
        }
        self.settle_ingress();
    }

    fn other_nodes(&self) -> Vec<IpAddr> {
        let all = self.peers.values().map(|peer| peer.address);
        all.filter(|address| *address != self.nic.address).collect()
    }

    fn ask_all(&self) {
        for peer in self.other_nodes() {
            ask(&self.sockets.neighbours, peer);
        }
    }

    fn settle_ingress(&mut self) {
        let running = self.hooks.proof.running();
        if running == self.hooks.ingress.running() {
            return;
        }
        self.on_proof(Hook::Ingress, running);
        if running == Running::No && self.attachment.mode == Mode::Native {
            let falls_back = self.config.datapath.mode != XdpMode::Native;
            self.journal.note(Event::xdp_blind(falls_back));
            if falls_back {
                self.fall_back();
            }
        }
        self.tell_hooks();
    }

    fn fall_back(&mut self) {
        let (name, index) = (self.nic.name.clone(), self.nic.index);
        match self.datapath.fall_back_to_generic(&name, index) {
            Ok(attachment) => self.attached(attachment),
            Err(error) => self
                .journal
                .note(Event::not_repaired(Repair::Programs, error.to_string())),
        }
    }

    fn on_proof(&mut self, hook: Hook, running: Running) {
        let watch = match hook {
            Hook::Ingress => &mut self.hooks.ingress,
            Hook::Egress => &mut self.hooks.egress,
            Hook::Connect => self.hooks.connect.get_or_insert_default(),
        };
        if !watch.on_proof(running) {
            return;
        }
        match (running, watch.cause()) {
            (Running::Yes, _) => self.journal.note(Event::hook_runs(hook)),
            (Running::No, Some(cause)) => self.journal.note(Event::hook_fails(hook, cause)),
            _ => {}
        }
    }

    /// Tells the thread what keeps the node from owning the VIP.
    fn tell_hooks(&self) {
        for (fault, watch) in [
            (Fault::Ingress, &self.hooks.ingress),
            (Fault::Egress, &self.hooks.egress),
        ] {
            self.node_thread.tell(Input::Fault {
                fault,
                present: watch.is_fault(),
            });
        }
    }
}
