//! The status in words: what somebody needs first, in the width of a terminal. All there is to know is
//! in [`Status::wide`].

use jiff::Timestamp;
use vip_node::choice::Resort;

use super::lines::{LABEL, Line, hanging, joined, labelled, paragraph};
use super::{BfdPort, Health, Node, Problem, Rosters, Status, age};
use crate::observe::paint::Ink;
use crate::words::counted;

/// Certificates that expire within this time, in seconds, are spoken of: 30 days, as the alert does.
const EXPIRES_SOON: i64 = 30 * 86_400;

/// Below the table.
const LEGEND: &str = "* owns the VIP. OPEN: open connections of its servers. CONN/S, PACKET/S: what \
                      this node has sent there.";

/// Where there is more.
const MORE: &str = "vip status -o wide: all that is known; vip events: what happened";

impl BfdPort {
    /// For programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sole => "sole",
            Self::Shared => "shared",
            Self::Bound => "bound",
            Self::Lost => "lost",
        }
    }

    /// For people.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Sole => "no other program has it",
            Self::Shared => "shared with another program of this node",
            Self::Bound => "bound by the agent: no other BFD program can start on this node",
            Self::Lost => "cannot be opened: no agent of another node is heard",
        }
    }
}

impl Rosters {
    /// For people.
    #[must_use]
    pub fn text(&self, nodes: &[Node]) -> String {
        let others = nodes.iter().filter(|node| !node.own);
        let others: u64 = others.map(|node| node.roster).sum();
        let mut text = format!(
            "{} of this node told to the others, {others} of theirs known",
            counted(self.own, "connection", "connections")
        );
        if self.untold != 0 {
            text += &format!("; {} are too many to be told", self.untold);
        }
        if self.asked != 0 {
            text += &format!("; of dead nodes, {} were told", self.answered);
        }
        text
    }
}

impl Node {
    /// Connections that its servers have open, as its agent tells: `-` if it does not.
    #[must_use]
    pub fn open_connections(&self) -> String {
        let open = self.told.as_ref().and_then(|told| told.open_connections);
        open.map_or_else(|| "-".to_owned(), |open| open.to_string())
    }
}

impl Status {
    /// What an operator should see to though nothing is wrong with the VIP, one line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let told = self.credentials_trouble.iter().chain(&self.other_nics);
        let mut notes: Vec<String> = told.cloned().collect();
        if self.asks_in_vain() {
            notes.push(
                "no server says whether it is ready, to an agent that asks like this one: new \
                 connections go to all servers that serve; give the agent credentials for /readyz, if \
                 they want some"
                    .to_owned(),
            );
        }
        let now = self.time.map(Timestamp::as_second);
        let ends = self.nodes.iter().filter_map(|node| {
            let left = node.certificate_not_after? - now?;
            (left < EXPIRES_SOON).then_some((node, left))
        });
        for (node, left) in ends {
            notes.push(match left {
                1.. => format!(
                    "the certificate of the server on {} expires in {}",
                    node.name,
                    age(left as u64 * 1000)
                ),
                _ => format!("the certificate of the server on {} has expired", node.name),
            });
        }
        let deaf = self.nodes.iter().filter(|node| node.echo == Some(false));
        let deaf: Vec<&str> = deaf.map(|node| node.name.as_str()).collect();
        if !deaf.is_empty() {
            notes.push(format!(
                "no answer to ICMP echo requests from {}, though the node lives: allow them between \
                 the nodes",
                deaf.join(", ")
            ));
        }
        notes
    }

    /// The owner, for how long, and why.
    #[must_use]
    pub fn owner_text(&self) -> String {
        let Some(owner) = &self.owner else {
            return "none heard".to_owned();
        };
        let address = owner.address.to_string();
        let mut text = owner.name.clone();
        if address != owner.name {
            text += &format!(" ({address})");
        }
        text += &format!(", {}", self.owner_since.text());
        let last = self.history.owners.first();
        let last = last.filter(|last| last.to.as_ref() == Some(&owner.name));
        if let Some(cause) = last.and_then(|last| last.cause.as_ref()) {
            text += &format!(": {cause}");
        }
        if let Some(took) = last.and_then(|last| last.duration_ms) {
            text += &format!(" ({took:.0} ms)");
        }
        text
    }

    /// Claims of the VIP that were reported, if there were any, and whether they are over.
    #[must_use]
    pub fn claims_text(&self) -> Option<String> {
        let last = self.last_claim.as_ref()?;
        let claims = counted(self.conflicts, "claim", "claims");
        let over = if self.claimant.is_none() {
            "; it is over"
        } else {
            ""
        };
        Some(format!(
            "{claims} of the VIP by other hosts, the last one {} ago by {}{over}",
            age(last.ago_ms),
            last.claimant
        ))
    }

    /// What is needed first, for people, in lines of this width. Names of nodes that are too long for it
    /// are shortened in the table.
    #[must_use]
    pub fn text(&self, width: usize) -> String {
        let mut lines = self.head(width);
        lines.push(Line::default());
        lines.extend(self.table(width, 0, &[]).lines);
        lines.extend(paragraph(Ink::Plain, LEGEND, width));
        lines.extend(paragraph(Ink::Faint, MORE, width));
        joined(&lines)
    }

    /// The verdict, what is wrong, and the owner.
    pub(super) fn head(&self, width: usize) -> Vec<Line> {
        let problems = self.problems();
        let mut lines = self.verdict_lines(width);
        if !problems.is_empty() {
            lines.push(Line::default());
        }
        for (place, problem) in problems.iter().enumerate() {
            lines.extend(problem.lines(width));
            let next = problems.get(place + 1);
            // What helps against several problems is said once.
            if next.is_none_or(|next| next.remedy != problem.remedy) {
                let remedy = &problem.remedy;
                let arrow = format!("{:LABEL$}->", "");
                lines.extend(hanging(Ink::Plain, &arrow, LABEL + 3, remedy, width));
            }
        }
        lines.push(Line::default());
        lines.extend(self.owner_lines(width));
        if let Some(claims) = self.claims_text() {
            lines.extend(labelled("Claims", &claims, width));
        }
        for service in self.services.iter().filter(|_| self.services.len() > 1) {
            let mut usable = service.usable.join(", ");
            if usable.is_empty() {
                usable.push_str("no node");
            }
            if service.resort != Resort::Usable {
                usable = format!("{usable} ({})", service.resort.text());
            }
            let text = format!("{} to {usable}", service.endpoint);
            lines.extend(labelled("Service", &text, width));
        }
        for note in self.notes() {
            lines.extend(labelled("Note", &note, width));
        }
        lines
    }

    /// The verdict in one word, and whose view it is.
    #[must_use]
    pub fn verdict_lines(&self, width: usize) -> Vec<Line> {
        /// Behind the longest word.
        const COLUMN: usize = 10;
        let health = self.health();
        let ink = match health {
            Health::Healthy => Ink::Good,
            other => other.severity().into(),
        };
        let text = format!("{}, as {} sees it", self.vip, self.node);
        hanging(ink, health.word(), COLUMN, &text, width)
    }

    /// Who owns the VIP.
    #[must_use]
    pub fn owner_lines(&self, width: usize) -> Vec<Line> {
        labelled("Owner", &self.owner_text(), width)
    }
}

impl Problem {
    /// How bad it is, and what.
    #[must_use]
    pub fn lines(&self, width: usize) -> Vec<Line> {
        let label = format!("  {}", self.severity.name());
        hanging(self.severity, &label, LABEL, &self.text, width)
    }
}
