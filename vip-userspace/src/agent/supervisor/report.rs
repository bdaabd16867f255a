//! Turns what the decisions report, by index, into events, which people read.

use std::time::Duration;

use vip_common::abi::{BackendIndex, CheckIndex};
use vip_common::wire::addr::Mac;
use vip_common::wire::bfd::Diagnostic;

use super::Supervisor;
use crate::agent::node_thread::Notice;
use crate::clock::now;
use crate::observe::event::{Event, Repair};
use vip_node::election::State;
use vip_node::health::{Probe, Transition};
use vip_node::{Claimant, Departure, Fault, Former, Loss, Report, Takeover};

/// Time after the agent's start in which it is as usual that the members do not know this node yet.
const START: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Takes a message of the thread.
    pub(in crate::agent) fn on_notice(&mut self, notice: Notice) {
        let event = match notice {
            Notice::Report(report) => {
                self.tell_rosters(&report);
                match self.on_report(report) {
                    Some(event) => event,
                    None => return,
                }
            }
            Notice::Install(installation) => return self.install(*installation),
            Notice::Prove(address, instance) => return self.ask_for_proof(address, instance),
            Notice::Repaired => Event::repaired(Repair::State),
            Notice::Failed(what, error) => {
                Event::failed(format!("cannot {what}"), error.to_string())
            }
            Notice::NoPriority(error) => Event::failed(
                "no real-time priority: a busy machine may lose the VIP for a moment",
                error.to_string(),
            ),
        };
        self.journal.note(event);
    }

    /// Keeps what `vip status` shows of a report. `None` if it is no news, or told in another way.
    fn on_report(&mut self, report: Report) -> Option<Event> {
        Some(match report {
            Report::Active(takeover) => self.on_active(takeover),
            Report::Backup(loss) => {
                self.state = State::Backup;
                self.since = now();
                self.instruments.note_loss(loss);
                Event::became_backup(self.lost(loss))
            }
            Report::Owner { owner, before } => {
                self.segment.another_owns = owner.is_some();
                let cause = before.map(|Former { node, why }| self.departed(node, why));
                Event::owner(owner.map(|node| self.name(node)), cause)
            }
            Report::BfdUp(node) => Event::bfd_up(self.name(node)),
            Report::BfdDown { node, diagnostic } => {
                Event::bfd_down(self.name(node), self.diagnosed(diagnostic))
            }
            Report::Away(node) => Event::node_away(self.name(node)),
            Report::Gone(node) => {
                self.keep_reachable([node]);
                Event::node_gone(self.name(node))
            }
            Report::Isolated(true) => Event::isolated(),
            Report::Isolated(false) => Event::not_isolated(),
            Report::Late(late) => Event::slow(late),
            Report::OnTime => Event::not_slow(),
            Report::Answers(node) => Event::node_answers(self.name(node)),
            Report::Echo { node, lost: true } => Event::echo_lost(self.name(node)),
            Report::Echo { node, lost: false } => Event::echo_back(self.name(node)),
            Report::Health {
                node,
                check,
                change,
            } => self.health(node, check, change)?,
            Report::Hang { node, check, hang } => {
                // Told as a change of health.
                self.note_hang(node, check, hang);
                return None;
            }
            Report::NewConnections { check, resort } => {
                Event::new_connections(self.config.checks.get(check.get())?.port, resort)
            }
            Report::Draining {
                node,
                draining: true,
            } => Event::drained(self.name(node)),
            Report::Draining {
                node,
                draining: false,
            } => Event::undrained(self.name(node)),
            Report::Fault {
                fault,
                present: true,
            } => {
                // At each start it takes a moment, also if there is no other member.
                let starts = fault == Fault::Unconfirmed && now().since(self.started) < START;
                Event::fault(fault.text(), starts)
            }
            Report::Fault {
                fault,
                present: false,
            } => Event::fault_gone(fault.text()),
            Report::Conflict {
                mac,
                claimant,
                defended,
                fresh,
            } => {
                self.claims.report(now(), mac, claimant);
                if !defended && !fresh {
                    return None;
                }
                let node = claimant.node().map(|node| self.name(node));
                Event::conflict(mac, &self.claim(mac, claimant), node, defended)
            }
            Report::ConflictOver { mac, claimant } => {
                self.claims.end(mac);
                Event::conflict_over(mac, claimant.node().map(|node| self.name(node)))
            }
            Report::TwoOwners { node, present } => {
                // Told as an alarm.
                self.on_two_owners(node, present);
                return None;
            }
            Report::HandingOver(node) => Event::handing_over(self.name(node)),
            Report::HandedOver(node) => Event::handed_over(self.name(node)),
            Report::NotHandedOver(why) => Event::not_handed_over(self.not_handed_over(&why)),
            Report::Priority(priority) => Event::priority(priority),
            Report::Admitted { node, address } => self.on_admitted(node, address),
            Report::Confirmed(node) => Event::member_confirmed(self.name(node)),
            Report::Removed { node, address } => self.on_removed(node, address),
            Report::Full(address) => self.on_full(address)?,
            Report::Told { node, text } => {
                self.on_told(node, &text);
                return None;
            }
            // Told as an alarm: its BFD packets are seen too.
            Report::Stranger(_) => return None,
        })
    }

    /// A node's name.
    pub(super) fn name(&self, node: BackendIndex) -> String {
        let peer = self.peers.get(node).map(|peer| peer.name.clone());
        peer.unwrap_or_else(|| "a node that has left".to_owned())
    }

    fn on_active(&mut self, takeover: Takeover) -> Event {
        self.state = State::Active;
        self.since = now();
        self.segment.another_owns = false;
        self.takeovers += 1;
        self.instruments.note_takeover(takeover);
        match takeover {
            Takeover::Resumed => {
                let cause = "the agent here before this one owned the VIP a moment ago";
                Event::became_owner(cause.to_owned(), None)
            }
            Takeover::Nobody => Event::became_owner("no owner was heard".to_owned(), None),
            Takeover::From { node, why, after } => {
                // A handover is planned, and no failover.
                if why == Departure::Silent {
                    self.last_failover = Some(after);
                }
                let outage: Option<Duration> = match why {
                    Departure::Resigned | Departure::Silent => Some(after),
                    Departure::Outranked => None,
                };
                Event::became_owner(self.departed(node, why), outage)
            }
        }
    }

    /// Why a node is the owner no more.
    fn departed(&self, node: BackendIndex, why: Departure) -> String {
        let node = self.name(node);
        match why {
            Departure::Resigned => format!("{node} gave the VIP up"),
            Departure::Silent => format!("{node} is no longer heard"),
            Departure::Outranked => format!("{node} ranks lower"),
        }
    }

    /// Why this node is a backup.
    fn lost(&self, loss: Loss) -> String {
        match loss {
            Loss::Started => "the agent has started, and listens for an owner".to_owned(),
            Loss::Outranked(node) => format!("{} ranks higher", self.name(node)),
            Loss::HandedOver(node) => format!("handed over to {}", self.name(node)),
            Loss::Overslept => "the agent did not run for longer than its answer lease".to_owned(),
            Loss::Fault(fault) => fault.text().to_owned(),
            Loss::Shutdown => "the agent is ending".to_owned(),
        }
    }

    /// Why a BFD session is down.
    fn diagnosed(&self, diagnostic: Diagnostic) -> String {
        match (diagnostic, self.config.bfd) {
            (Diagnostic::ControlDetectionTimeExpired, Some(bfd)) => format!(
                "no BFD packet within the detection time ({} packets, one every {} ms)",
                bfd.multiplier,
                bfd.interval.as_millis()
            ),
            (Diagnostic::NeighborSignaledSessionDown, _) => {
                "the agent there took the session down".to_owned()
            }
            (Diagnostic::AdministrativelyDown, _) => "this agent is ending".to_owned(),
            (other, _) => format!("diagnostic {other:?}"),
        }
    }

    /// `None` if there is no such check any more since a reload.
    fn health(&self, node: BackendIndex, check: CheckIndex, change: Transition) -> Option<Event> {
        let port = self.config.checks.get(check.get())?.port;
        let cause = |found: Probe| found.text().to_owned();
        let name = self.name(node);
        Some(match change {
            Transition::Alive => Event::probes_answered(name),
            Transition::Dead(found) => Event::probes_unanswered(name, cause(found)),
            Transition::Ready => Event::server_ready(name, port),
            Transition::Unknown(Probe::Ready) => {
                Event::server_unknown(name, port, self.not_yet_ready("ready"))
            }
            Transition::Unknown(found) => Event::server_unknown(name, port, cause(found)),
            Transition::NotReady(found) => Event::server_not_ready(name, port, cause(found)),
        })
    }

    /// A claim of the VIP in words. The node's name, if it is a node, comes before it.
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
                self.name(owner)
            ),
        }
    }
}
