use std::net::IpAddr;
use std::num::NonZeroU8;

use vip_common::abi::{LONGEST_LEASE, lease_stands};
use vip_common::wire::addr::Mac;
use vip_common::wire::bfd::ControlPacket;
use vip_common::wire::vrrp::{Addresses, Centiseconds};

use super::*;
use crate::action::*;
use crate::choice::Resort;
use crate::election::MAX_LEASE;
use crate::health::{Probe, Server};
use crate::testing::{at, index, params};

mod announcements;
mod authentication;
mod conflict;
mod handover;
mod hellos;
mod liveness;
mod masks;
mod takeover;
mod transfer;
mod tune;

/// A node, and its actions at the last input.
struct Bench {
    node: Node,
    out: Vec<Action>,
    /// A host that is no member answers.
    witness: bool,
}

impl Bench {
    fn new(params: Params) -> Self {
        Self::knowing(params, |_| true)
    }

    /// A node that knows the Ethernet addresses of these nodes.
    fn knowing(params: Params, located: impl Fn(BackendIndex) -> bool) -> Self {
        let mut bench = Self {
            node: Node::new(&params),
            out: vec![],
            witness: true,
        };
        let known = Masks::default();
        bench
            .node
            .on_start(at(0), BootNanos::ZERO, known, &mut bench.out);
        for other in bench.node.members.others().filter(|index| located(*index)) {
            let located = Input::Located(other);
            bench.node.on_input(at(0), located, &mut bench.out);
        }
        bench
    }

    fn event(&mut self, now: BootNanos, event: Input) -> &[Action] {
        self.out.clear();
        self.node.on_input(now, event, &mut self.out);
        &self.out
    }

    /// A probe of the API server on a node ended.
    fn probe(&mut self, now: BootNanos, node: usize, found: Probe) -> &[Action] {
        let (node, check) = (index(node), CheckIndex::API);
        self.event(now, Input::Probe { node, check, found })
    }

    fn fault(&mut self, now: BootNanos, fault: Fault, present: bool) -> &[Action] {
        self.event(now, Input::Fault { fault, present })
    }

    fn advert(&mut self, now: BootNanos, source: usize, priority: u8) -> &[Action] {
        let interval = params(0, false).vrrp.interval;
        self.advert_every(interval, now, source, priority)
    }

    fn advert_every(
        &mut self,
        interval: Centiseconds,
        now: BootNanos,
        source: usize,
        priority: u8,
    ) -> &[Action] {
        let advert = Advertisement {
            router_id: 10,
            priority,
            interval,
            addresses: Addresses::new(&[IpAddr::from([10, 0, 0, 10])]).unwrap(),
        };
        let (source, sealed) = (index(source), None);
        self.event(
            now,
            Input::Advert {
                source,
                advert,
                sealed,
            },
        )
    }

    /// Lets the timers run until then.
    fn run(&mut self, until: BootNanos) -> &[Action] {
        self.out.clear();
        while self.node.next_deadline() <= until {
            let now = self.node.next_deadline();
            let before = self.out.len();
            self.node.on_timer(now, &mut self.out);
            if self.witness && self.out[before..].contains(&Action::AskWitnesses) {
                self.node.on_input(now, Input::Witness, &mut self.out);
            }
        }
        &self.out
    }
}

fn owner(params: Params) -> Bench {
    let mut bench = Bench::new(params);
    bench.run(at(2000));
    assert_eq!(bench.node.state(), State::Active);
    bench
}

/// Delivers packets for that many milliseconds, in batches: a busy node receives several
/// packets at once. Returns the time after that.
fn exchange(nodes: &mut [Bench], start: BootNanos, ms: u64, batch: u64) -> BootNanos {
    exchange_if(nodes, start, ms, batch, |action| {
        !matches!(action, Action::AskNeighbor(_))
    })
}

/// The same, for those packets that pass, questions to kernels among them.
fn exchange_if(
    nodes: &mut [Bench],
    start: BootNanos,
    ms: u64,
    batch: u64,
    mut passes: impl FnMut(&Action) -> bool,
) -> BootNanos {
    let mut waiting = vec![];
    let mut now = start;
    for step in 1..=ms {
        now = start.after(Duration::from_millis(step));
        for (from, bench) in nodes.iter_mut().enumerate() {
            // Also the actions of earlier inputs.
            let mut sent = std::mem::take(&mut bench.out);
            sent.extend(bench.run(now).iter().cloned());
            bench.out.clear();
            waiting.extend(sent.into_iter().map(|action| (from, action)));
        }
        if step % batch != 0 {
            continue;
        }
        for (from, action) in waiting.drain(..).filter(|(_, action)| passes(action)) {
            for (node, bench) in nodes.iter_mut().enumerate() {
                let source = index(from);
                let mine =
                    |to: To| node != from && matches!(to, To::All) || to == To::One(index(node));
                match &action {
                    Action::SendBfd { to, packet } if *to == index(node) => {
                        let event = Input::Bfd {
                            source,
                            packet: *packet,
                        };
                        bench.node.on_input(now, event, &mut bench.out);
                    }
                    Action::SendAdvert {
                        to,
                        priority,
                        interval,
                    } if mine(*to) => {
                        let kept = std::mem::take(&mut bench.out);
                        let more = bench.advert_every(*interval, now, from, *priority);
                        let more = more.to_vec();
                        bench.out = [kept, more].concat();
                    }
                    Action::AskNeighbor(to) if node == from => {
                        bench
                            .node
                            .on_input(now, Input::Neighbor(*to), &mut bench.out);
                    }
                    Action::SendHello { hello, .. } if node != from => {
                        let (source, hello) = (hello.sender().address, hello.clone());
                        let admits = true;
                        let event = Input::Hello {
                            source,
                            hello,
                            admits,
                        };
                        bench.node.on_input(now, event, &mut bench.out);
                    }
                    _ => {}
                }
            }
        }
    }
    now
}

/// Two nodes whose BFD session is up, and which answer echo requests. The first one's later packets
/// are lost.
fn up() -> (Bench, Bench) {
    let mut nodes = [Bench::new(params(0, true)), Bench::new(params(1, true))];
    let mut now = at(0);
    for _ in 0..4000 {
        now = now.after(Duration::from_millis(1));
        for from in 0..2 {
            let sent = nodes[from].run(now).to_vec();
            for action in sent {
                let (to, event) = match &action {
                    Action::SendBfd { to, packet } if *to == index(1 - from) => {
                        let source = index(from);
                        (
                            1 - from,
                            Input::Bfd {
                                source,
                                packet: *packet,
                            },
                        )
                    }
                    Action::SendEcho(to) => (from, Input::Echo(*to)),
                    _ => continue,
                };
                nodes[to].node.on_input(now, event, &mut Vec::new());
            }
        }
    }
    let [a, b] = nodes;
    assert!(a.node.bfd(index(1)).unwrap().is_up());
    (a, b)
}

/// Three nodes that hear each other, and whose servers are ready.
fn three() -> ([Bench; 3], BootNanos) {
    let mut nodes = [0, 1, 2].map(|own| Bench::new(params(own, true)));
    let now = exchange(&mut nodes, at(0), 5000, 1);
    for bench in &mut nodes {
        for server in 0..3 {
            bench.probe(now, server, Probe::Ready);
        }
    }
    (nodes, now)
}

fn drain(bench: &mut Bench, now: BootNanos) {
    bench.node.on_input(now, Input::Drain(true), &mut bench.out);
}

/// A probe that found no answer on a connection from then.
fn hung(connected: BootNanos) -> Probe {
    let reason = String::new();
    Probe::Hung { reason, connected }
}
