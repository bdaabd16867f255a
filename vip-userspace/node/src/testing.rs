//! Shared by the tests of the parts: three nodes on one segment.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use vip_common::abi::{BackendIndex, BackendMask};
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::Centiseconds;

use crate::bfd;
use crate::election::{MAX_LEASE, Trust};
use crate::health::Thresholds;
use crate::input::{Params, VrrpParams};
use crate::liveness::{Event, Liveness};
use crate::membership::Membership;
use crate::rank::Identity;

/// Nanoseconds in a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// So many milliseconds after a node was started.
pub(crate) fn at(ms: u64) -> BootNanos {
    BootNanos(1_000_000 * MS + ms * MS)
}

/// A node's index.
pub(crate) fn index(node: usize) -> BackendIndex {
    BackendIndex::new(node).unwrap()
}

/// Parameters of the node `own`, with or without BFD: a packet every 50 ms, an advertisement every
/// 100 ms.
pub(crate) fn params(own: usize, bfd: bool) -> Params {
    Params {
        own: index(own),
        nodes: (0..3)
            .map(|node| Identity {
                address: IpAddr::from([10, 0, 0, 11 + node]),
                weight: 1,
            })
            .collect(),
        open: None,
        hello_interval: Duration::from_secs(1),
        vips: vec![1],
        priority: None,
        vrrp: VrrpParams {
            interval: Centiseconds::new(10).unwrap(),
            preempt: false,
            preempt_delay: Duration::ZERO,
        },
        trust: Trust::Plain,
        bfd: bfd.then(|| bfd::Params {
            detect_mult: NonZeroU8::new(3).unwrap(),
            interval: Duration::from_millis(50),
            auth: None,
        }),
        checks: 1,
        thresholds: Thresholds { rise: 1, fall: 1 },
        probe_address: false,
        reset_after: Duration::from_secs(2),
        max_lease: MAX_LEASE,
        max_slowdown: crate::MAX_SLOWDOWN,
        seed: 1,
    }
}

/// One node of a [`Segment`].
pub(crate) struct End {
    pub(crate) members: Membership,
    pub(crate) liveness: Liveness,
    /// Its agent runs: it sends BFD packets, and receives them.
    pub(crate) agent: bool,
    /// Its kernel answers ICMP echo requests.
    pub(crate) echo: bool,
    /// Its kernel answers ARP.
    pub(crate) neighbor: bool,
    /// Its server answers the probes of the others.
    pub(crate) server: bool,
    /// All events but packets.
    pub(crate) events: Vec<(BootNanos, Event)>,
    /// When it sent BFD packets, and to how many nodes.
    pub(crate) sent: Vec<(BootNanos, usize)>,
}

/// Nodes that hear each other, reduced to their [`Liveness`].
pub(crate) struct Segment {
    pub(crate) now: BootNanos,
    pub(crate) ends: Vec<End>,
    /// A host that is no member answers.
    pub(crate) witness: bool,
}

impl Segment {
    /// The first `count` of the three nodes, started now.
    pub(crate) fn new(count: usize) -> Self {
        let now = at(0);
        let end = |own| {
            let params = params(own, true);
            End {
                members: Membership::new(&params),
                liveness: Liveness::new(&params),
                agent: true,
                echo: true,
                neighbor: true,
                server: true,
                events: Vec::new(),
                sent: Vec::new(),
            }
        };
        let ends = (0..count).map(end).collect();
        let witness = true;
        let mut segment = Self { now, ends, witness };
        for own in 0..count {
            segment.tell(own, |liveness, now, members, out| {
                liveness.on_start(now, members, BackendMask::EMPTY, out);
            });
        }
        segment
    }

    /// The first `count` nodes, whose BFD sessions are up.
    pub(crate) fn up(count: usize) -> Self {
        let mut segment = Self::new(count);
        segment.run(4000);
        segment.ends.iter_mut().for_each(|end| end.events.clear());
        segment
    }

    /// Passes an input to one node, and delivers its packets.
    pub(crate) fn tell(
        &mut self,
        own: usize,
        tell: impl FnOnce(&mut Liveness, BootNanos, &Membership, &mut Vec<Event>),
    ) {
        let mut out = Vec::new();
        let end = &mut self.ends[own];
        tell(&mut end.liveness, self.now, &end.members, &mut out);
        let packets = out
            .iter()
            .filter(|event| matches!(event, Event::SendBfd { .. }))
            .count();
        if packets > 0 {
            end.sent.push((self.now, packets));
        }
        for event in out {
            self.act_on(own, event);
        }
    }

    fn act_on(&mut self, own: usize, event: Event) {
        match event {
            Event::SendBfd { to, packet } => {
                let source = index(own);
                if self.ends.get(to.get()).is_some_and(|end| end.agent) {
                    self.tell(to.get(), |liveness, now, _, out| {
                        liveness.on_packet(now, source, &packet, out);
                    });
                }
                return;
            }
            Event::AskWitnesses if self.witness => {
                self.tell(own, |liveness, now, _, out| liveness.on_witness(now, out));
                return;
            }
            Event::Ask(node) => {
                let asked = self.ends.get(node.get());
                let (echo, neighbor) = asked.map_or((false, false), |end| (end.echo, end.neighbor));
                self.tell(own, |liveness, now, _, out| {
                    if echo {
                        liveness.on_echo(now, node, out);
                    }
                    if neighbor {
                        liveness.on_neighbor(now, node, out);
                    }
                });
            }
            Event::Up(_)
            | Event::Down { .. }
            | Event::Away(_)
            | Event::Gone(_)
            | Event::Answers(_)
            | Event::Echo { .. }
            | Event::AskWitnesses
            | Event::Isolated(_)
            | Event::RefuseBfd { .. }
            | Event::Silent => {}
        }
        self.ends[own].events.push((self.now, event));
    }

    /// Lets that many milliseconds pass.
    pub(crate) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now = self.now.after(Duration::from_millis(1));
            for own in 0..self.ends.len() {
                if self.ends[own].agent {
                    let servers: Vec<bool> = self.ends.iter().map(|end| end.server).collect();
                    let alive = |node: BackendIndex| servers.get(node.get()) == Some(&true);
                    self.tell(own, |liveness, now, members, out| {
                        liveness.on_timer(now, members, alive, out);
                    });
                }
            }
        }
    }

    /// The agent on a node does not run any more.
    pub(crate) fn kill_agent(&mut self, node: usize) {
        self.ends[node].agent = false;
    }

    /// Nothing on a node runs any more.
    pub(crate) fn kill(&mut self, node: usize) {
        let end = &mut self.ends[node];
        (end.agent, end.echo, end.neighbor, end.server) = (false, false, false, false);
    }
}
