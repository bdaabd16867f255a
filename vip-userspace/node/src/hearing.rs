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
    pub up: bool,
    /// Its kernel answered ARP, Neighbor Discovery or TCP.
    pub answered: Option<BootNanos>,
    /// This agent received a BFD packet of it.
    pub heard: Option<BootNanos>,
    /// The last BFD packet of it that arrived at the NIC, also one that a firewall dropped later.
    pub on_nic: Option<OnNic>,
    /// The route to it.
    pub route: Route,
    /// Its BFD port refused a datagram.
    pub refused: Option<BootNanos>,
    /// The effect of the last datagrams to its BFD port.
    pub port: Option<Port>,
}

impl Facts {
    /// Takes the effect of datagrams to the BFD port.
    pub fn take_port(&mut self, now: BootNanos, port: Port) {
        self.port = Some(port);
        if port == Port::Refused {
            self.refused = Some(now);
        }
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
        Some(match self.port? {
            Port::Prohibited => Trouble::Prohibited,
            Port::Silent | Port::Refused | Port::Forbidden => Trouble::Silent,
        })
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
