//! The lines of the table.

use vip_common::abi::Counter;
use vip_common::testing::{CLIENT, Segment, node_mac};
use vip_common::wire::addr::Be32;
use vip_common::wire::tcp;

use super::products::{CLIENTS, Setup};

/// Source of the flows that have a connection.
pub(super) const CONNECTED: Be32 = Be32::from_wire([10, 2, 0, 0]);

/// Port of the VIPs where it is another than the node's.
const FRONT: u16 = 443;

/// TTL of a frame that a peer has handed over (`vip_common::ingress`).
const HANDED_OVER: u8 = 34;

/// Where programs hang.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hook {
    Xdp,
    Tc,
}

impl Hook {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "XDP",
            Self::Tc => "tc",
        }
    }

    /// The return value of a program whose packet goes up the stack: `XDP_PASS` or
    /// `TC_ACT_UNSPEC`.
    pub(super) const fn pass(self) -> u32 {
        match self {
            Self::Xdp => 2,
            Self::Tc => u32::MAX,
        }
    }

    /// The return value of a program whose packet is sent on: `XDP_TX` or `TC_ACT_REDIRECT`.
    pub(super) const fn send(self) -> u32 {
        match self {
            Self::Xdp => 3,
            Self::Tc => 7,
        }
    }
}

/// Whose packets take turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flows {
    One,
    /// As many as there are connections.
    Connections,
    Million,
    /// A million. The caches are evicted before each slice of packets.
    Cold,
}

impl Flows {
    pub(crate) const fn count(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Connections => 1000,
            Self::Million | Self::Cold => 1_000_000,
        }
    }

    pub(super) fn label(self) -> String {
        match self {
            Self::One | Self::Connections | Self::Million => self.count().to_string(),
            Self::Cold => format!("{}, cold", self.count()),
        }
    }
}

/// The packets that some cases share, and with them a floor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Traffic {
    pub(crate) hook: Hook,
    pub(crate) ipv6: bool,
    pub(crate) flows: Flows,
}

/// The program under test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    Pass,
    /// Parse, swap addresses, send back.
    Send,
    Product(Setup),
}

/// The most that a packet may cost.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    /// In floors.
    Floors(f64),
    /// In nanoseconds, above the same case in the usual configuration.
    Above(f64),
}

/// One line of the table.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) traffic: Traffic,
    pub(crate) target: Target,
    /// One of the packets, as IPv4.
    pub(super) segment: Segment,
    /// The product must have counted each packet there.
    pub(super) counter: Option<Counter>,
    pub(super) bound: Option<Bound>,
}

impl Case {
    /// A packet. A full-sized one would cost no more: only headers are touched.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let segment = self.segment;
        let ipv6 = self.traffic.ipv6;
        let mut frame = if ipv6 { segment.ipv6() } else { segment }.build();
        frame.resize(78, 0);
        frame
    }

    /// What the program returns.
    pub(super) fn action(&self) -> u32 {
        let hook = self.traffic.hook;
        let forwarded = [Counter::ForwardedSegment, Counter::ForwardedSyn];
        let sent = self.counter.is_some_and(|one| forwarded.contains(&one));
        if sent || self.target == Target::Send {
            hook.send()
        } else {
            hook.pass()
        }
    }

    fn bound(self, bound: Bound) -> Self {
        Self {
            bound: Some(bound),
            ..self
        }
    }
}

impl Traffic {
    pub(crate) fn floor(self, name: &'static str, target: Target) -> Case {
        self.case(name, target, client(tcp::ACK), None)
    }

    /// The bound of its family.
    fn floors(self, ipv4: f64, ipv6: f64) -> Bound {
        Bound::Floors(if self.ipv6 { ipv6 } else { ipv4 })
    }

    /// A segment that goes to another node.
    pub(crate) fn sent(self, name: &'static str, setup: Setup, segment: Segment) -> Case {
        let counter = if segment.flags == tcp::SYN {
            Counter::ForwardedSyn
        } else {
            Counter::ForwardedSegment
        };
        self.case(name, Target::Product(setup), segment, Some(counter))
    }

    /// A segment that this node keeps.
    fn kept(self, name: &'static str, setup: Setup, segment: Segment) -> Case {
        let counter = if segment.flags == tcp::SYN {
            Counter::LocalSyn
        } else {
            Counter::LocalSegment
        };
        self.case(name, Target::Product(setup), segment, Some(counter))
    }

    fn case(
        self,
        name: &'static str,
        target: Target,
        segment: Segment,
        counter: Option<Counter>,
    ) -> Case {
        let port = match target {
            Target::Product(setup) => setup.port,
            Target::Pass | Target::Send => segment.port,
        };
        Case {
            name,
            traffic: self,
            target,
            segment: Segment { port, ..segment },
            counter,
            bound: None,
        }
    }
}

/// A segment of the first flow.
pub(crate) fn client(flags: u8) -> Segment {
    Segment {
        source: CLIENTS.into(),
        ..Segment::new(0, 1024, flags)
    }
}

fn connected(flags: u8) -> Segment {
    Segment {
        source: CONNECTED.into(),
        ..client(flags)
    }
}

/// The segment as a peer hands it over.
fn handed_over(segment: Segment) -> Segment {
    Segment {
        from: node_mac(1),
        ttl: HANDED_OVER,
        ..segment
    }
}

/// All lines.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for ipv6 in [false, true] {
        for flows in [Flows::One, Flows::Connections, Flows::Million, Flows::Cold] {
            let traffic = Traffic {
                hook: Hook::Xdp,
                ipv6,
                flows,
            };
            cases.extend(bare(traffic));
            match flows {
                Flows::One => {
                    cases.extend(steered(traffic));
                    cases.extend(kept_syns(traffic));
                    cases.extend(kept_segments(traffic));
                }
                Flows::Connections => cases.extend(kept_segments(traffic)),
                Flows::Million => {
                    cases.extend(steered(traffic));
                    cases.extend(kept_syns(traffic));
                    cases.extend(other_setups(traffic));
                }
                Flows::Cold => cases.extend(steered(traffic)),
            }
        }
    }
    for ipv6 in [false, true] {
        let traffic = Traffic {
            hook: Hook::Tc,
            ipv6,
            flows: Flows::Million,
        };
        cases.extend(bare(traffic));
        cases.extend(steered(traffic));
    }
    cases
}

/// Those that need little time: of one flow, in the usual configuration.
pub(super) fn few() -> Vec<Case> {
    let mut cases = all();
    cases.retain(|case| {
        let Traffic { hook, flows, .. } = case.traffic;
        let usual = match case.target {
            Target::Pass | Target::Send => true,
            Target::Product(setup) => setup == Setup::USUAL,
        };
        hook == Hook::Xdp && flows == Flows::One && usual
    });
    cases
}

/// The floors. The first one also shows what making the packet anew costs.
fn bare(traffic: Traffic) -> [Case; 2] {
    [
        traffic.floor("floor: pass", Target::Pass),
        traffic.floor("floor: parse, swap, send", Target::Send),
    ]
}

fn steered(traffic: Traffic) -> [Case; 3] {
    let to_client = Segment {
        destination: CLIENT.into(),
        ..client(tcp::ACK)
    };
    let usual = Setup::USUAL;
    let other = traffic.case("not for a VIP", Target::Product(usual), to_client, None);
    let segment = traffic.sent("established, to another node", usual, client(tcp::ACK));
    let syn = traffic.sent("SYN, to another node", usual, client(tcp::SYN));
    match (traffic.hook, traffic.flows) {
        (Hook::Tc, _) => [other, segment, syn],
        (Hook::Xdp, Flows::Cold) => {
            let most = Bound::Floors(1.7);
            [other, segment.bound(most), syn.bound(most)]
        }
        (Hook::Xdp, Flows::One | Flows::Connections | Flows::Million) => {
            let most = traffic.floors(1.3, 1.4);
            let other = other.bound(Bound::Floors(1.05));
            [other, segment.bound(most), syn.bound(most)]
        }
    }
}

fn kept_syns(traffic: Traffic) -> [Case; 3] {
    let mapped = Setup {
        port: FRONT,
        ..Setup::FIRST
    };
    let syn = client(tcp::SYN);
    let kept = traffic.kept("SYN, kept", Setup::FIRST, syn);
    let from_peer = traffic.kept("SYN, handed over, kept", Setup::USUAL, handed_over(syn));
    [
        kept.bound(traffic.floors(4.0, 4.5)),
        traffic.kept("SYN, kept, port mapped", mapped, syn),
        from_peer.bound(traffic.floors(3.8, 4.3)),
    ]
}

fn kept_segments(traffic: Traffic) -> [Case; 2] {
    let ack = connected(tcp::ACK);
    let kept = traffic.kept("established, kept", Setup::FIRST, ack);
    let name = "established, handed over, kept";
    let from_peer = traffic.kept(name, Setup::USUAL, handed_over(ack));
    [
        kept.bound(traffic.floors(4.0, 4.5)),
        from_peer.bound(traffic.floors(3.8, 4.3)),
    ]
}

fn other_setups(traffic: Traffic) -> Vec<Case> {
    let usual = Setup::USUAL;
    let ack = client(tcp::ACK);
    let mut cases: Vec<_> = [
        ("established, 7 nodes", Setup { nodes: 7, ..usual }),
        ("established, 16 nodes", Setup { nodes: 16, ..usual }),
        ("established, last of 8 VIPs", Setup { vips: 8, ..usual }),
    ]
    .into_iter()
    .map(|(name, setup)| traffic.sent(name, setup, ack))
    .collect();
    for (name, networks, flags) in [
        ("established, 10 networks allowed", 10, tcp::ACK),
        ("SYN, 10 networks allowed", 10, tcp::SYN),
        ("established, 16,384 networks allowed", 16_384, tcp::ACK),
        ("SYN, 16,384 networks allowed", 16_384, tcp::SYN),
    ] {
        let case = traffic.sent(name, Setup { networks, ..usual }, client(flags));
        cases.push(case.bound(Bound::Above(25.0)));
    }
    cases
}
