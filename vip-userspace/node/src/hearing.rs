//! Why another node's agent is not heard, as far as that can be told from here: it does not run, a
//! firewall drops what it says or what is said to it, or the two nodes are not on one link.

use std::net::IpAddr;
use std::time::Duration;

use vip_common::wire::time::BootNanos;

/// How long something must be wrong until it is told: longer than an agent takes to start anew.
const PATIENCE: Duration = Duration::from_secs(5);

/// A sign of life that is older than this says nothing about now: a few seconds are between two of
/// them while a session is down.
const FRESH: Duration = Duration::from_secs(10);

/// An agent that was not heard for so long says nothing any more: while a session is down, each side
/// speaks once a second at least (RFC 5880, section 6.8.3).
const SILENCE: Duration = Duration::from_secs(3);

/// How long a refusal counts: two surveys. Kernels refuse once a second at most, so some questions stay without an
/// answer though nobody listens.
const REFUSAL: Duration = Duration::from_secs(12);

/// How another node is reached.
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

/// What came of a datagram to a node's BFD port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// Nothing: somebody listens, or a firewall drops it or the answer.
    Silent,
    /// Its kernel says that nobody listens. (Some firewalls say so, too.)
    Refused,
    /// A firewall on the way says that it is not let through.
    Prohibited,
    /// A firewall of this node drops it.
    Forbidden,
}

/// What is known of another node's agent. Times are those of the last sign; `None`: there was none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The BFD session is up: both hear each other.
    pub up: bool,
    /// Its kernel answered: ARP or Neighbour Discovery, or TCP.
    pub answered: Option<BootNanos>,
    /// The agent got a BFD packet of it.
    pub heard: Option<BootNanos>,
    /// A BFD packet of it came to the NIC, whatever became of it then, with this TTL.
    pub on_nic: Option<(BootNanos, u8)>,
    /// How it is reached.
    pub route: Route,
    /// Its BFD port refused a datagram.
    pub refused: Option<BootNanos>,
    /// What came of the last ones that were sent there.
    pub port: Option<Port>,
}

impl Facts {
    /// Takes in what came of datagrams to the BFD port.
    pub fn take_port(&mut self, now: BootNanos, port: Port) {
        self.port = Some(port);
        if port == Port::Refused {
            self.refused = Some(now);
        }
    }

    /// Nobody listens at the node's BFD port, as far as its kernel says.
    #[must_use]
    pub fn runs_no_agent(&self, now: BootNanos) -> bool {
        is_within(now, self.refused, REFUSAL)
    }

    /// What is wrong, if anything is and it can be told.
    #[must_use]
    pub fn diagnose(&self, now: BootNanos) -> Option<Trouble> {
        if let Route::Via(router) = self.route {
            return Some(Trouble::OffLink(router));
        }
        // One that answers nothing at all is down, or cut off: that is told otherwise.
        if self.up || !is_within(now, self.answered, FRESH) {
            return None;
        }
        if self.port == Some(Port::Forbidden) {
            return Some(Trouble::NotSent);
        }
        if is_within(now, self.heard, SILENCE) {
            return Some(Trouble::NotHeardThere);
        }
        // What came to the NIC while the agent got it as well is of an agent that has ended since.
        let is_lost = |at: BootNanos| !is_within(at, self.heard, SILENCE);
        if let Some((at, ttl)) = self.on_nic
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
    /// It is reached by way of this router.
    OffLink(IpAddr),
    /// It comes with this TTL, by way of a router.
    Routed(u8),
    /// It is heard, and does not hear this node.
    NotHeardThere,
    /// It comes to the NIC, and a firewall of this node drops it.
    DroppedHere,
    /// What this node sends, a firewall of its own drops.
    NotSent,
    /// Nobody listens there.
    NoAgent,
    /// A firewall on the way says that it lets nothing through.
    Prohibited,
    /// Nothing comes at all.
    Silent,
}

/// One node's troubles over time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hearing {
    since: Option<BootNanos>,
    told: Option<Trouble>,
}

impl Hearing {
    /// Takes in what is wrong now. Returns what is to be told from now on, if that is something else
    /// than before.
    pub fn update(&mut self, now: BootNanos, trouble: Option<Trouble>) -> Option<Option<Trouble>> {
        self.since = trouble.and(self.since.or(Some(now)));
        // A wrong route does not heal by waiting; whatever else comes with starts and ends of agents.
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
        let came = |ttl| Some((at(0), ttl));
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
            on_nic: Some((at(1), 255)),
            ..answers()
        };
        assert_eq!(ended.diagnose(at(5)), None, "nothing is known yet");
        let refused = Facts {
            refused: Some(at(4)),
            ..ended
        };
        assert_eq!(refused.diagnose(at(5)), Some(Trouble::NoAgent));
        // It speaks on, and the agent gets nothing of it.
        let dropped = Facts {
            on_nic: Some((at(4), 255)),
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
