//! A digest of all actions of a run's nodes, and of their times. A change that only moves or
//! renames code must not change it.
//!
//! It is computed from numbers in this file, not from names, so that it does not depend on names.

use std::hash::Hasher as _;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use vip_common::abi::{BackendIndex, BackendMask};
use vip_common::wire::bfd::{Diagnostic, MAX_LENGTH};
use vip_node::health::{Hang, Probe, Transition};
use vip_node::{Action, Claimant, Departure, Loss, NoHandover, Report, Takeover, To, Unsuited};

/// Digest of the actions so far.
#[derive(Default)]
pub(super) struct Digest(SipHasher13);

impl Digest {
    /// It, in 16 hexadecimal digits.
    pub(super) fn text(&self) -> String {
        format!("{:016x}", self.0.finish())
    }

    /// A node did something.
    pub(super) fn add(&mut self, time: u64, node: usize, action: &Action) {
        self.words(&[time, node as u64]);
        match action {
            Action::SetAnswerUntil(until) => self.words(&[1, until.0]),
            Action::SetMasks(masks) => {
                self.words(&[2]);
                let sets = [
                    masks.alive,
                    masks.suspect,
                    masks.not_gone,
                    masks.draining,
                    masks.no_forward,
                ];
                let sets = sets.iter().chain(&masks.new_connections);
                for set in sets.chain(&masks.connect) {
                    self.set(*set);
                }
            }
            Action::SendAdvert {
                to,
                priority,
                interval,
            } => {
                let to = match to {
                    To::All => u64::MAX,
                    To::One(index) => place(*index),
                };
                self.words(&[3, to, u64::from(*priority), u64::from(interval.get())]);
            }
            Action::SendBfd { to, packet } => {
                self.words(&[4, place(*to)]);
                self.0.write(packet.emit(&mut [0; MAX_LENGTH]));
            }
            Action::SendEcho(to) => self.words(&[5, place(*to)]),
            Action::AskNeighbor(to) => self.words(&[6, place(*to)]),
            Action::Announce => self.words(&[7]),
            Action::AnnounceOwn => self.words(&[8]),
            Action::ProbeAddress => self.words(&[9]),
            Action::Report(report) => self.report(report),
            Action::Done => self.words(&[10]),
            Action::SetResetsUntil(until) => self.words(&[11, until.0]),
            Action::AskWitnesses => self.words(&[12]),
            Action::SendHello { hello, also } => {
                self.words(&[13, also.len() as u64]);
                self.0.write(&hello.emit().expect("fits"));
            }
            Action::Prove { instance, .. } => self.words(&[14, instance.0.get()]),
            Action::Install(installation) => self.words(&[15, installation.number]),
            Action::RefuseBfd { from, why } => self.words(&[16, place(*from), *why as u64]),
            Action::RefuseAdvert { from, why } => self.words(&[17, place(*from), *why as u64]),
        }
    }

    fn report(&mut self, report: &Report) {
        match report {
            Report::Active(takeover) => match takeover {
                Takeover::Resumed => self.words(&[20]),
                Takeover::Nobody => self.words(&[21]),
                Takeover::From { node, why, after } => {
                    self.words(&[22, place(*node), departure(*why), nanos(*after)]);
                }
            },
            Report::Backup(loss) => {
                let [kind, of] = match loss {
                    Loss::Started => [0, 0],
                    Loss::Outranked(node) => [1, place(*node)],
                    Loss::HandedOver(node) => [2, place(*node)],
                    Loss::Overslept => [3, 0],
                    Loss::Fault(fault) => [4, *fault as u64],
                    Loss::Shutdown => [5, 0],
                };
                self.words(&[23, kind, of]);
            }
            Report::Owner { owner, before } => {
                let owner = owner.map_or(u64::MAX, place);
                let (node, why) =
                    before.map_or((0, 0), |was| (1 + place(was.node), departure(was.why)));
                self.words(&[24, owner, node, why]);
            }
            Report::BfdUp(index) => self.words(&[25, place(*index)]),
            Report::BfdDown { node, diagnostic } => {
                self.words(&[26, place(*node), expired(*diagnostic)]);
            }
            Report::Away(index) => self.words(&[27, place(*index)]),
            Report::Gone(index) => self.words(&[40, place(*index)]),
            Report::Isolated(isolated) => self.words(&[41, u64::from(*isolated)]),
            Report::Late(late) => self.words(&[42, nanos(late.by), nanos(late.adverts)]),
            Report::OnTime => self.words(&[43]),
            Report::Answers(index) => self.words(&[28, place(*index)]),
            Report::Echo { node, lost } => self.words(&[29, place(*node), u64::from(*lost)]),
            Report::Health {
                node,
                check,
                change,
            } => {
                let (kind, found) = match change {
                    Transition::Alive => (0, 0),
                    Transition::Dead(_) => (1, 0),
                    Transition::Ready => (2, 0),
                    Transition::Unknown(found) => (3, probe(found)),
                    Transition::NotReady(found) => (4, probe(found)),
                };
                self.words(&[30, place(*node), check.get() as u64, kind, found]);
            }
            Report::Hang { node, check, hang } => {
                let kind = match hang {
                    None => 0,
                    Some(Hang::Queue { .. }) => 1,
                    Some(Hang::Reported) => 2,
                    Some(Hang::Probes) => 3,
                    Some(Hang::Before) => 4,
                };
                self.words(&[41, place(*node), check.get() as u64, kind]);
            }
            Report::NewConnections { check, resort } => {
                self.words(&[31, check.get() as u64, *resort as u64]);
            }
            Report::Draining { node, draining } => {
                self.words(&[32, place(*node), u64::from(*draining)]);
            }
            Report::Fault { fault, present } => {
                self.words(&[33, *fault as u64, u64::from(*present)]);
            }
            Report::Conflict {
                claimant,
                defended,
                fresh,
                ..
            } => self.words(&[34, of(*claimant), u64::from(*defended), u64::from(*fresh)]),
            Report::ConflictOver { claimant, .. } => self.words(&[35, of(*claimant)]),
            Report::TwoOwners { node, present } => {
                self.words(&[36, place(*node), u64::from(*present)]);
            }
            Report::HandingOver(index) => self.words(&[37, place(*index)]),
            Report::HandedOver(index) => self.words(&[38, place(*index)]),
            Report::NotHandedOver(why) => self.no_handover(why),
            Report::Priority(priority) => self.words(&[40, u64::from(*priority)]),
            Report::Admitted { node, .. } => self.words(&[41, place(*node)]),
            Report::Confirmed(node) => self.words(&[42, place(*node)]),
            Report::Removed { node, .. } => self.words(&[43, place(*node)]),
            Report::Stranger(_) => self.words(&[44]),
            Report::Full(_) => self.words(&[45]),
            Report::Told { node, text } => {
                self.words(&[46, place(*node)]);
                self.0.write(text.as_bytes());
            }
        }
    }

    fn no_handover(&mut self, why: &NoHandover) {
        match why {
            NoHandover::NotOwner(owner) => self.words(&[50, owner.map_or(u64::MAX, place)]),
            NoHandover::Own => self.words(&[51]),
            NoHandover::Unsuited(other) => {
                self.words(&[52, place(other.node), unsuited(other.why)]);
            }
            NoHandover::NoSuccessor(others) => {
                for other in others {
                    self.words(&[53, place(other.node), unsuited(other.why)]);
                }
            }
            NoHandover::NoAnswer(index) => self.words(&[54, place(*index)]),
        }
    }

    fn set(&mut self, set: BackendMask) {
        let nodes = (0..16).filter_map(BackendIndex::new);
        let bits = nodes.filter(|node| set.contains(*node));
        self.words(&[bits.fold(0, |bits, node| bits | 1 << node.get())]);
    }

    fn words(&mut self, words: &[u64]) {
        for word in words {
            self.0.write_u64(*word);
        }
    }
}

fn place(index: BackendIndex) -> u64 {
    index.get() as u64
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

fn expired(why: Diagnostic) -> u64 {
    u64::from(why == Diagnostic::ControlDetectionTimeExpired)
}

fn departure(why: Departure) -> u64 {
    match why {
        Departure::Resigned => 0,
        Departure::Silent => 1,
        Departure::Outranked => 2,
    }
}

fn of(claimant: Claimant) -> u64 {
    match claimant {
        Claimant::Stranger => 0,
        Claimant::NoAgent(node) => 1 + place(node),
        Claimant::Unheard { node, owner } => 100 + place(node) * 16 + place(owner),
    }
}

fn unsuited(why: Unsuited) -> u64 {
    match why {
        Unsuited::Unheard => 0,
        Unsuited::Draining => 1,
        Unsuited::Unready => 2,
        Unsuited::Outranked { own, theirs } => 3 + u64::from(own) * 256 + u64::from(theirs),
    }
}

fn probe(probe: &Probe) -> u64 {
    match probe {
        Probe::Ready => 0,
        Probe::Unknown(_) => 1,
        Probe::NotReady(_) => 2,
        Probe::Hung { .. } => 3,
        Probe::Refused => 4,
        Probe::Silent(_) => 5,
    }
}
