//! Turns what the decisions report, by index, into events, which people read.

use vip_common::abi::BackendIndex;
use vip_common::wire::addr::Mac;
use vip_common::wire::bfd::Diagnostic;

use super::Supervisor;
use crate::agent::clock::now;
use crate::agent::node_thread::Notice;
use crate::observe::event::{Event, Repair};
use vip_node::election::State;
use vip_node::health::{Probe, Transition};
use vip_node::{Claimant, Departure, Former, Loss, Report, Takeover};

impl Supervisor {
    /// What the thread has to tell.
    pub(in crate::agent) fn on_notice(&mut self, notice: Notice) {
        let event = match notice {
            Notice::Report(report) => match self.take(report) {
                Some(event) => event,
                None => return,
            },
            Notice::Repaired => Event::Repaired(Repair::State),
            Notice::Failed(what, error) => Event::Failed {
                what: format!("cannot {what}").into(),
                cause: error.to_string(),
            },
            Notice::NoPriority(error) => Event::Failed {
                what: "no real-time priority: a busy machine may lose the VIP for a moment".into(),
                cause: error.to_string(),
            },
        };
        self.journal.note(event);
    }

    /// Takes in what the decisions report; `None` if it is no news, or told in another way.
    fn take(&mut self, report: Report) -> Option<Event> {
        let news = match &report {
            Report::Conflict {
                defended, fresh, ..
            } => *defended || *fresh,
            _ => true,
        };
        self.follow(&report);
        self.event(report).filter(|_| news)
    }

    /// Keeps what `vip status` says of it.
    fn follow(&mut self, report: &Report) {
        match report {
            Report::Active(takeover) => {
                self.state = State::Active;
                self.segment.another_owns = false;
                self.takeovers += 1;
                self.since = now();
                if let Takeover::From { after, .. } = takeover {
                    self.last_failover = Some(*after);
                }
            }
            Report::Backup(_) => {
                self.state = State::Backup;
                self.since = now();
            }
            Report::Conflict { mac, claimant, .. } => {
                self.claims.1 += 1;
                self.claimants.retain(|(known, _)| known != mac);
                self.claimants.push((*mac, *claimant));
            }
            Report::Owner { owner, .. } => self.segment.another_owns = owner.is_some(),
            Report::ConflictOver { mac, .. } => self.claimants.retain(|(known, _)| known != mac),
            Report::TwoOwners { node, present } => self.on_two_owners(*node, *present),
            _ => {}
        }
    }

    /// What the probe found that changed the picture. A later one may have ended meanwhile, and
    /// have found something else.
    fn cause(&self, node: BackendIndex, check: usize, found: &Probe) -> String {
        let last = &self.peers[node.get()].probes[check];
        match found {
            _ if last.found.as_ref() == Some(found) => last.text.clone(),
            Probe::Ready => "ready".to_owned(),
            Probe::Unknown(text) | Probe::NotReady(text) | Probe::Hung { reason: text, .. } => {
                text.clone()
            }
            Probe::Refused => "connection refused".to_owned(),
            Probe::Silent => "no answer".to_owned(),
        }
    }

    /// Who claims the VIP, in words. The node's name comes before it.
    pub(super) fn claim(&self, mac: Mac, claimant: Claimant) -> String {
        match claimant {
            Claimant::Stranger => format!(
                "{}, which is no node of the cluster, claims the VIP",
                self.who(mac)
            ),
            Claimant::NoAgent(_) => {
                format!("{}, which runs no agent, claims the VIP", self.who(mac))
            }
            Claimant::Unheard { owner, .. } => format!(
                "answers for the VIP while {} owns it: its agent was not heard",
                self.peers[owner.get()].name
            ),
        }
    }

    fn event(&self, report: Report) -> Option<Event> {
        let name = |index: BackendIndex| self.peers[index.get()].name.clone();
        Some(match report {
            Report::Active(takeover) => {
                let (cause, after) = match takeover {
                    Takeover::Resumed => ("an agent here had it a moment ago".to_owned(), None),
                    Takeover::Nobody => ("nobody had it".to_owned(), None),
                    Takeover::From { node, why, after } => {
                        let node = name(node);
                        match why {
                            Departure::Resigned => (format!("{node} gave it up"), Some(after)),
                            Departure::Silent => (format!("{node} fell silent"), Some(after)),
                            Departure::Outranked => (format!("it is preferred to {node}"), None),
                        }
                    }
                };
                Event::BecameOwner { cause, after }
            }
            Report::Backup(loss) => Event::BecameBackup {
                cause: match loss {
                    Loss::Started => "it waits whether another node has the VIP".to_owned(),
                    Loss::Outranked(node) => format!("{} is preferred", name(node)),
                    Loss::HandedOver(node) => format!("handed over to {}", name(node)),
                    Loss::Overslept => "it did not run for so long that its lease fell".to_owned(),
                    Loss::Fault(fault) => fault.text().to_owned(),
                    Loss::Shutdown => "the agent is ending".to_owned(),
                },
            },
            Report::Owner { owner, before } => Event::Owner {
                node: owner.map(name),
                cause: before.map(|Former { node, why }| {
                    let node = name(node);
                    match why {
                        Departure::Resigned => format!("{node} gave the VIP up"),
                        Departure::Silent => format!("{node} fell silent"),
                        Departure::Outranked => format!("it is preferred to {node}"),
                    }
                }),
            },
            Report::BfdUp(node) => Event::BfdUp { node: name(node) },
            Report::BfdDown { node, diagnostic } => Event::BfdDown {
                node: name(node),
                cause: match diagnostic {
                    Diagnostic::ControlDetectionTimeExpired => "nothing was heard in time",
                    Diagnostic::NeighborSignaledSessionDown => "the other side says so",
                    Diagnostic::AdministrativelyDown => "this agent is ending",
                    _ => "for another reason",
                },
            },
            Report::Dead(node) => Event::NodeDead { node: name(node) },
            Report::Answers(node) => Event::NodeAnswers { node: name(node) },
            Report::Health {
                node,
                check,
                change,
            } => {
                let port = self.config.checks[check].port;
                let cause = |found: Probe| self.cause(node, check, &found);
                let node = name(node);
                match change {
                    Transition::Alive => Event::ProbesAnswered { node },
                    Transition::Dead => Event::ProbesUnanswered {
                        node,
                        cause: cause(Probe::Silent),
                    },
                    Transition::Ready => Event::ServerReady { node, port },
                    Transition::Unknown(Probe::Ready) => Event::ServerUnknown {
                        node,
                        port,
                        cause: self.not_yet_ready("ready"),
                    },
                    Transition::Unknown(found) => Event::ServerUnknown {
                        node,
                        port,
                        cause: cause(found),
                    },
                    Transition::NotReady(found) => Event::ServerNotReady {
                        node,
                        port,
                        cause: cause(found),
                    },
                }
            }
            Report::Echo { node, lost: true } => Event::EchoLost { node: name(node) },
            Report::Echo { node, lost: false } => Event::EchoBack { node: name(node) },
            Report::NewConnections { check, resort } => Event::NewConnections {
                port: self.config.checks[check].port,
                resort,
            },
            Report::Draining {
                node,
                draining: true,
            } => Event::Drained { node: name(node) },
            Report::Draining {
                node,
                draining: false,
            } => Event::Undrained { node: name(node) },
            Report::Fault {
                fault,
                present: true,
            } => Event::Fault {
                cause: fault.text(),
            },
            Report::Fault {
                fault,
                present: false,
            } => Event::FaultGone {
                cause: fault.text(),
            },
            Report::Conflict {
                mac,
                claimant,
                defended,
                ..
            } => Event::Conflict {
                claim: self.claim(mac, claimant),
                node: claimant.node().map(name),
                defended,
            },
            Report::ConflictOver { mac, claimant } => Event::ConflictOver {
                claimant: mac.to_string(),
                node: claimant.node().map(name),
            },
            // Told as an alarm.
            Report::TwoOwners { .. } => return None,
            Report::HandingOver(node) => Event::HandingOver { to: name(node) },
            Report::HandedOver(node) => Event::HandedOver { to: name(node) },
            Report::NotHandedOver(why) => Event::NotHandedOver {
                cause: self.not_handed_over(&why),
            },
            Report::Priority(priority) => Event::Priority(priority),
        })
    }
}
