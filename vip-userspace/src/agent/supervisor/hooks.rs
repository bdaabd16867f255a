//! Whether the programs run, by what they must have counted: frames that came in, a test frame
//! that goes out, a test socket that connects.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use vip_common::abi::Counter;

use super::Supervisor;
use super::setup::redirect;
use crate::agent::clock::now;
use crate::config::XdpMode;
use crate::datapath::{Attachment, Datapath, Look, Mode, Seen, Way};
use crate::net::Neighbours;
use crate::observe::event::{Event, Repair};
use crate::observe::status;
use vip_node::hooks::{Ask, Hook, IngressProof, Placing, Running, Watch};
use vip_node::{Fault, Input};

/// Tests in a row that leave no trace until a program is taken not to run.
const TESTS: u32 = 3;

/// How long an agent that starts behind somebody else's program waits for proof that its own
/// runs. Peers answer within a millisecond or so.
const PATIENCE: Duration = Duration::from_millis(200);

/// What is known of the programs.
#[derive(Debug)]
pub(super) struct Hooks {
    pub(super) ingress: Watch,
    pub(super) egress: Watch,
    /// `None` where no connection is redirected.
    pub(super) connect: Option<Watch>,
    proof: IngressProof,
    /// The peer that was asked last on a quiet segment.
    asked: usize,
}

impl Hooks {
    /// The programs have just been attached.
    pub(super) fn begin(datapath: &Datapath, redirects: bool) -> anyhow::Result<Self> {
        Ok(Self {
            ingress: Watch::default(),
            egress: Watch::default(),
            connect: redirects.then(Watch::default),
            proof: IngressProof::begin(neighbour_frames(datapath)?),
            asked: 0,
        })
    }

    fn on(&mut self, way: Way) -> &mut Watch {
        match way {
            Way::In => &mut self.ingress,
            Way::Out | Way::Elsewhere => &mut self.egress,
        }
    }

    /// As `vip status` shows them.
    pub(super) fn describe(&self) -> Vec<status::Hook> {
        let all = [
            (Hook::Ingress, Some(&self.ingress)),
            (Hook::Egress, Some(&self.egress)),
            (Hook::Connect, self.connect.as_ref()),
        ];
        let describe = |(hook, watch): (Hook, Option<&Watch>)| {
            let watch = watch?;
            Some(status::Hook {
                name: hook.name().to_owned(),
                runs: watch.running().name().to_owned(),
                ahead: watch.ahead().iter().map(ToString::to_string).collect(),
                cause: watch.cause(),
            })
        };
        all.into_iter().filter_map(describe).collect()
    }

    /// Waits a moment for proof that the program on the way in runs, if somebody else's stands
    /// before it: a node that cannot tell must not own the VIP, and one that can need not give it
    /// up for a restart of its agent.
    pub(super) async fn prove_at_start(
        &mut self,
        datapath: &mut Datapath,
        neighbours: &Neighbours,
        look: Look,
        peers: &[IpAddr],
    ) {
        self.ingress.on_look(now(), look.ahead);
        if !self.ingress.is_fault() {
            return;
        }
        for peer in peers {
            ask(neighbours, *peer);
        }
        let end = Instant::now() + PATIENCE;
        while self.proof.running() == Running::Unproven
            && let Ok(Ok(_)) = timeout_at(end, neighbours.receive()).await
        {
            self.proof.on_frame(|| neighbour_frames(datapath).ok());
        }
        self.ingress.on_proof(self.proof.running());
    }
}

fn ask(neighbours: &Neighbours, peer: IpAddr) {
    if let Err(error) = neighbours.ask(peer) {
        tracing::debug!(%error, "cannot ask a peer");
    }
}

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

    async fn seen(&self, xdp: Option<u32>) -> Result<Seen, crate::net::NetError> {
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
                self.journal.note(Event::Repaired(Repair::Programs));
                true
            }
            Err(error) => {
                self.journal.note(Event::NotRepaired {
                    what: Repair::Programs,
                    cause: error.to_string(),
                });
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
            Placing::GiveUp => Event::HookContested {
                hook: hook.name(),
                by: ahead(),
            },
            Placing::First => {
                let before = ahead();
                let (name, index) = (self.nic.name.clone(), self.nic.index);
                let egress = self.attachment.egress;
                match self.datapath.put_first(way, &name, index, egress) {
                    Ok(()) => Event::HookMoved {
                        hook: hook.name(),
                        before,
                    },
                    Err(error) => Event::NotRepaired {
                        what: Repair::Programs,
                        cause: error.to_string(),
                    },
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
            // A NIC that is down says nothing of its programs.
            if self.sockets.neighbours.test_guard().is_err() {
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
            self.journal.note(Event::Repaired(Repair::Connect));
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
        let all = self.peers.iter().map(|peer| peer.address);
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
            self.journal.note(Event::XdpBlind { falls_back });
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
            Err(error) => self.journal.note(Event::NotRepaired {
                what: Repair::Programs,
                cause: error.to_string(),
            }),
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
        let hook = hook.name();
        match (running, watch.cause()) {
            (Running::Yes, _) => self.journal.note(Event::HookRuns { hook }),
            (Running::No, Some(cause)) => self.journal.note(Event::HookFails { hook, cause }),
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
                fault: fault,
                present: watch.is_fault(),
            });
        }
    }
}

fn hook(way: Way) -> Hook {
    match way {
        Way::In => Hook::Ingress,
        Way::Out | Way::Elsewhere => Hook::Egress,
    }
}

/// What rtnetlink tells of programs on an interface. Filters only where they are of use.
pub(super) async fn seen(
    netlink: &crate::net::netlink::Netlink,
    index: u32,
    xdp: Option<u32>,
    attachment: Attachment,
) -> Result<Seen, crate::net::NetError> {
    let [ingress, egress] = match attachment.egress {
        crate::datapath::Egress::Tcx => [vec![], vec![]],
        crate::datapath::Egress::Clsact => netlink.filters(index).await?,
    };
    Ok(Seen {
        xdp,
        ingress,
        egress,
    })
}

/// Frames of ARP and Neighbour Discovery that the program on the way in has seen. Whatever comes
/// to the agent's sockets is among them, and any other proves as well that the program runs.
fn neighbour_frames(datapath: &Datapath) -> anyhow::Result<u64> {
    const SEEN: [Counter; 10] = [
        Counter::ArpAnswered,
        Counter::ArpNotOwner,
        Counter::ArpAnnouncement,
        Counter::ArpConflict,
        Counter::ArpPassed,
        Counter::NdpAnswered,
        Counter::NdpNotOwner,
        Counter::NdpAnnouncement,
        Counter::NdpConflict,
        Counter::NdpPassed,
    ];
    let counts = SEEN.into_iter().map(|counter| datapath.counter(counter));
    Ok(counts.sum::<Result<u64, _>>()?)
}
