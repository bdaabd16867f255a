//! The VIP goes to another node: by `vip handover`, or because the agent ends.

use vip_common::abi::BackendIndex;
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::PRIORITY_RESIGNED;

use super::{Node, Trigger};
use crate::action::{Action, Loss, NoHandover, Report, To};
use crate::transfer::Due;

impl Node {
    pub(super) fn on_handover(
        &mut self,
        now: BootNanos,
        to: Option<BackendIndex>,
        out: &mut Vec<Action>,
    ) {
        let owns =
            self.election.is_owner() && (self.transfer.stays() || self.transfer.hands_over());
        let successor = if owns {
            self.view().successor(to)
        } else {
            let owner = self.owner().filter(|owner| *owner != self.members.own());
            Err(NoHandover::NotOwner(owner))
        };
        let to = match successor {
            Ok(to) => to,
            Err(why) => {
                out.push(Action::Report(Report::NotHandedOver(why)));
                return;
            }
        };
        self.transfer.hand_over(now, to);
        out.push(Action::Report(Report::HandingOver(to)));
        // To the successor alone, so that no other node takes over.
        out.push(self.advertisement(To::One(to), PRIORITY_RESIGNED));
    }

    pub(super) fn on_shutdown(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if self.transfer.is_leaving() || self.transfer.has_left() {
            return;
        }
        let hands_over = self.election.is_owner() && self.view().has_successor();
        // The peers learn that this agent ends before one of them takes over.
        self.live(now, out, |liveness, members, out| {
            liveness.end(now, members, out);
        });
        if hands_over {
            self.transfer.leave(now);
            self.go_on_with_transfer(now, out);
        } else {
            let actions = self.election.stop();
            self.carry_out(now, Trigger::Loss(Loss::Shutdown), actions, out);
            self.go(now, out);
        }
    }

    /// Takes the next step of a transfer.
    pub(super) fn go_on_with_transfer(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        match self.transfer.due(now, self.election.is_owner()) {
            Due::Nothing => {}
            Due::Unanswered(to) => {
                let why = NoHandover::NoAnswer(to);
                out.push(Action::Report(Report::NotHandedOver(why)));
            }
            Due::Resign => out.push(self.advertisement(To::All, PRIORITY_RESIGNED)),
            Due::Go => {
                let actions = self.election.stop();
                self.carry_out(now, Trigger::Loss(Loss::Shutdown), actions, out);
                self.go(now, out);
            }
        }
    }

    /// The last step of a shutdown.
    pub(super) fn go(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        self.transfer.go();
        self.end_lease(out);
        // Its resignation was sent already, or must not be sent.
        self.election.stop();
        self.schedule.end();
        self.say_good_bye(now, out);
        out.push(Action::Done);
    }
}
