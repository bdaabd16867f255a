//! Why another node's agent is not heard, as far as this node can find out: it does not run, a
//! firewall drops packets in one direction or both, or the two nodes are not on one link.

use std::net::IpAddr;
use std::time::Duration;

use vip_common::wire::time::BootNanos;

/// How long a problem must last until it is reported: longer than an agent takes to restart.
const PATIENCE: Duration = Duration::from_secs(5);

/// Age at which a sign of life does not count any more. While a session is down, there is one every
/// few seconds.
const FRESH: Duration = Duration::from_secs(10);

/// Time without a BFD packet after which an agent sends none any more. While a session is down,
/// each side sends about one a second (RFC 5880, section 6.8.3).
const SILENCE: Duration = Duration::from_secs(3);

/// How long a refusal counts: two surveys. Kernels limit ICMP errors to one a second, so some
/// datagrams to a closed port get no answer.
const REFUSAL: Duration = Duration::from_secs(12);

/// The route to another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Route {
    /// Not known (yet).
    #[default]
    Unknown,
    /// It is a neighbour on the VIP's NIC.
    OnLink,
    /// By way of this router.
    Via(IpAddr),
}

/// The effect of a datagram to a node's BFD port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// None: a socket is open, or a firewall drops the datagram or the answer.
    Silent,
    /// ICMP port unreachable: no socket is open there. (Some firewalls send it too.)
    Refused,
    /// ICMP administratively prohibited: a firewall on the way drops it.
    Prohibited,
    /// A firewall of this node drops it.
    Forbidden,
}

/// A BFD packet at the NIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OnNic {
    /// When it was seen.
    pub at: BootNanos,
    /// Its TTL or hop limit: 255, unless a router forwarded it.
    pub ttl: u8,
}

/// Observations about another node's agent. Times are those of the last one; `None`: there was
/// none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The BFD session is up.
    up: bool,
    /// Its kernel answered ARP, Neighbor Discovery or TCP.
    answered: Option<BootNanos>,
    /// From when on it has answered, without a pause of [`FRESH`].
    answers_since: Option<BootNanos>,
    /// This agent received a BFD packet of it.
    pub heard: Option<BootNanos>,
    /// The last BFD packet of it that arrived at the NIC, also one that a firewall dropped later.
    pub on_nic: Option<OnNic>,
    /// The route to it.
    pub route: Route,
    /// Its BFD port refused a datagram.
    refused: Option<BootNanos>,
    /// The effect of the last datagrams to its BFD port, while its session is down and its kernel answers.
    port: Option<Port>,
    /// When they were sent, at the earliest.
    tried: Option<BootNanos>,
}

impl Facts {
    /// Takes whether the BFD session is up.
    pub fn take_session(&mut self, up: bool) {
        self.up = up;
        if up {
            self.port = None;
        }
    }

    /// Whether the BFD session is up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// Takes an answer of its kernel.
    pub fn take_answer(&mut self, now: BootNanos) {
        if !is_within(now, self.answered, FRESH) {
            self.answers_since = Some(now);
            self.port = None;
        }
        self.answered = Some(now);
    }

    /// Takes the effect of datagrams to the BFD port. `begun`: when they were sent, at the earliest.
    pub fn take_port(&mut self, begun: BootNanos, now: BootNanos, port: Port) {
        // The port of a node that is down or boots is silent, too.
        let is_void = port == Port::Silent && self.answers_since.is_none_or(|since| begun < since);
        if !is_void {
            self.port = Some(port);
            self.tried = Some(begun);
        }
        if port == Port::Refused {
            self.refused = Some(now);
        }
    }

    /// Whether datagrams to the BFD port were refused the last time.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.port == Some(Port::Refused)
    }

    /// Whether the node's kernel reported lately that its BFD port is closed.
    #[must_use]
    pub fn runs_no_agent(&self, now: BootNanos) -> bool {
        is_within(now, self.refused, REFUSAL)
    }

    /// The problem, if there is one that the observations show.
    #[must_use]
    pub fn diagnose(&self, now: BootNanos) -> Option<Trouble> {
        if let Route::Via(router) = self.route {
            return Some(Trouble::OffLink(router));
        }
        // A node that does not answer at all is down or cut off, which is reported elsewhere.
        if self.up || !is_within(now, self.answered, FRESH) {
            return None;
        }
        if self.port == Some(Port::Forbidden) {
            return Some(Trouble::NotSent);
        }
        if is_within(now, self.heard, SILENCE) {
            return Some(Trouble::NotHeardThere);
        }
        // If this agent received packets at that time too, the other agent has ended since.
        let is_lost = |at: BootNanos| !is_within(at, self.heard, SILENCE);
        if let Some(OnNic { at, ttl }) = self.on_nic
            && is_within(now, Some(at), FRESH)
            && is_lost(at)
        {
            return Some(if ttl == u8::MAX {
                Trouble::DroppedHere
            } else {
                Trouble::Routed(ttl)
            });
        }
        if self.runs_no_agent(now) {
            return Some(Trouble::NoAgent);
        }
        match self.port? {
            Port::Prohibited => Some(Trouble::Prohibited),
            // It may be down since its last answer.
            _ if self.answered < self.tried => None,
            Port::Silent | Port::Refused | Port::Forbidden => Some(Trouble::Silent),
        }
    }
}

fn is_within(now: BootNanos, sign: Option<BootNanos>, time: Duration) -> bool {
    sign.is_some_and(|sign| now.since(sign) < time)
}

/// Why a node's agent is not heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The route to it leads by this router.
    OffLink(IpAddr),
    /// Its packets arrive with this TTL, so a router forwarded them.
    Routed(u8),
    /// It is heard, but its session is not up: it does not hear this node.
    NotHeardThere,
    /// Its packets arrive at the NIC, and a firewall of this node drops them.
    DroppedHere,
    /// A firewall of this node drops the packets to it.
    NotSent,
    /// Its BFD port is closed: no agent runs there.
    NoAgent,
    /// A firewall on the way reports that it drops the packets to it.
    Prohibited,
    /// No packets arrive, and there is no other sign.
    Silent,
}

/// The problem with one node's agent over time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hearing {
    since: Option<BootNanos>,
    told: Option<Trouble>,
}

impl Hearing {
    /// Takes the present problem. Returns what to report if that changed: a problem that lasts, or
    /// `Some(None)` for its end.
    pub fn update(&mut self, now: BootNanos, trouble: Option<Trouble>) -> Option<Option<Trouble>> {
        self.since = trouble.and(self.since.or(Some(now)));
        // A wrong route does not pass by itself. All else also occurs while agents start and end.
        let at_once = matches!(trouble, Some(Trouble::OffLink(_)));
        let due = at_once || self.since.is_some_and(|since| now.since(since) >= PATIENCE);
        let tells = trouble.filter(|_| due || self.told.is_some());
        (std::mem::replace(&mut self.told, tells) != tells).then_some(tells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootNanos {
        BootNanos(1_000_000_000_000).after(Duration::from_secs(seconds))
    }

    /// A node whose kernel answers, and nothing else is known.
    fn answers() -> Facts {
        Facts {
            answered: Some(at(0)),
            route: Route::OnLink,
            ..Facts::default()
        }
    }

    #[test]
    fn what_is_seen_tells_where_packets_are_lost() {
        let router = IpAddr::from([10, 0, 0, 1]);
        let came = |ttl| Some(OnNic { at: at(0), ttl });
        let refused = Facts {
            refused: Some(at(0)),
            port: Some(Port::Silent),
            ..answers()
        };
        let silent = Facts {
            port: Some(Port::Silent),
            ..answers()
        };
        for (facts, wanted) in [
            (answers(), None),
            (silent, Some(Trouble::Silent)),
            (Facts { up: true, ..silent }, None),
            // A node that is down.
            (
                Facts {
                    answered: None,
                    ..silent
                },
                None,
            ),
            (refused, Some(Trouble::NoAgent)),
            (
                Facts {
                    heard: Some(at(0)),
                    port: Some(Port::Forbidden),
                    ..answers()
                },
                Some(Trouble::NotSent),
            ),
            (
                Facts {
                    port: Some(Port::Prohibited),
                    ..answers()
                },
                Some(Trouble::Prohibited),
            ),
            (
                Facts {
                    heard: Some(at(0)),
                    on_nic: came(255),
                    ..silent
                },
                Some(Trouble::NotHeardThere),
            ),
            (
                Facts {
                    on_nic: came(255),
                    ..refused
                },
                Some(Trouble::DroppedHere),
            ),
            (
                Facts {
                    on_nic: came(254),
                    ..silent
                },
                Some(Trouble::Routed(254)),
            ),
            (
                Facts {
                    up: true,
                    route: Route::Via(router),
                    ..silent
                },
                Some(Trouble::OffLink(router)),
            ),
        ] {
            assert_eq!(facts.diagnose(at(1)), wanted, "{facts:?}");
        }
        // Old signs are none.
        let late = Facts {
            answered: Some(at(60)),
            heard: Some(at(0)),
            on_nic: came(255),
            ..refused
        };
        assert_eq!(late.diagnose(at(61)), Some(Trouble::Silent));
    }

    #[test]
    fn an_agent_that_has_ended_is_not_taken_for_one_that_is_not_let_through() {
        // Seen on the NIC a moment before its end, by a survey that was under way then.
        let ended = Facts {
            answered: Some(at(5)),
            heard: Some(at(0)),
            on_nic: Some(OnNic {
                at: at(1),
                ttl: 255,
            }),
            ..answers()
        };
        assert_eq!(ended.diagnose(at(5)), None, "nothing is known yet");
        let refused = Facts {
            refused: Some(at(4)),
            ..ended
        };
        assert_eq!(refused.diagnose(at(5)), Some(Trouble::NoAgent));
        // It still sends packets, and this agent receives none of them.
        let dropped = Facts {
            on_nic: Some(OnNic {
                at: at(4),
                ttl: 255,
            }),
            ..ended
        };
        assert_eq!(dropped.diagnose(at(5)), Some(Trouble::DroppedHere));
    }

    #[test]
    fn a_node_that_boots_is_not_taken_for_one_behind_a_firewall() {
        let mut facts = Facts {
            route: Route::OnLink,
            ..Facts::default()
        };
        // The session was up until the power was cut, a moment after an answer.
        facts.take_port(at(0), at(3), Port::Silent);
        facts.take_session(true);
        facts.take_answer(at(100));
        facts.take_session(false);
        assert_eq!(facts.diagnose(at(101)), None);
        for begun in [101, 105, 109, 113] {
            facts.take_port(at(begun), at(begun + 3), Port::Silent);
            assert_eq!(facts.diagnose(at(begun + 3)), None, "it is down");
        }
        // A survey was under way when its kernel came back.
        facts.take_answer(at(117));
        facts.take_port(at(116), at(119), Port::Silent);
        assert_eq!(facts.diagnose(at(119)), None);
        facts.take_answer(at(120));
        facts.take_port(at(120), at(123), Port::Refused);
        assert_eq!(facts.diagnose(at(123)), Some(Trouble::NoAgent));
        // Its agent starts, and a firewall drops its packets.
        for begun in [124, 128, 132, 136] {
            facts.take_answer(at(begun));
            facts.take_port(at(begun), at(begun + 3), Port::Silent);
        }
        facts.take_answer(at(138));
        assert_eq!(facts.diagnose(at(139)), Some(Trouble::Silent));
    }

    #[test]
    fn trouble_is_told_once_it_lasts_and_its_end_at_once() {
        let mut hearing = Hearing::default();
        let silent = Some(Trouble::Silent);
        assert_eq!(hearing.update(at(0), silent), None);
        assert_eq!(hearing.update(at(3), None), None);
        for second in 4..9 {
            assert_eq!(hearing.update(at(second), silent), None, "{second}");
        }
        assert_eq!(hearing.update(at(9), silent), Some(silent));
        assert_eq!(hearing.update(at(10), silent), None);
        // More is known of it.
        let more = Some(Trouble::DroppedHere);
        assert_eq!(hearing.update(at(11), more), Some(more));
        assert_eq!(hearing.update(at(12), None), Some(None));
        let route = Some(Trouble::OffLink([10, 0, 0, 1].into()));
        assert_eq!(hearing.update(at(13), route), Some(route));
    }
}
