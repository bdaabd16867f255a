//! The status in words: what somebody needs first, in the width of a terminal. All there is to know is
//! in [`Status::wide`].

use std::fmt::Write as _;

use vip_node::choice::Resort;

use super::{BfdPort, Node, NodeState, Problem, Rosters, Status, age, shorten, wrapped};
use crate::observe::event::Severity;
use crate::observe::paint::{Painted, faint, good, heading, paint};
use crate::words::counted;

/// Width of labels, with the space behind them.
const LABEL: usize = 11;

/// Columns of a table of nodes beside the names, with the spaces between them.
const COLUMNS: usize = 38;

/// Columns that only terminals of some width have room for.
const PACKETS: usize = 10;

/// Least width for a name.
const NAME: usize = 12;

/// How far the reason of a node's state is indented.
const REASON: usize = 6;

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
        let mut out = self.head(width);
        out.push('\n');
        out += &self.table(width);
        let more = "vip status -o wide: all that is known; vip events: what happened";
        for line in wrapped(more, width) {
            let _infallible = writeln!(out, "{}", faint(line));
        }
        out
    }

    /// The verdict, what is wrong, and the owner.
    pub(super) fn head(&self, width: usize) -> String {
        let problems = self.problems();
        let health = self.health();
        let word = if problems.is_empty() {
            good(health.word())
        } else {
            paint(health.severity(), health.word())
        };
        let about = format!("{}, as {} sees it", self.vip, self.node);
        let mut out = String::new();
        for (place, line) in wrapped(&about, width.saturating_sub(LABEL))
            .iter()
            .enumerate()
        {
            let _infallible = if place == 0 {
                writeln!(out, "{word:10}{line}")
            } else {
                writeln!(out, "{:10}{line}", "")
            };
        }
        if !problems.is_empty() {
            out.push('\n');
        }
        for (place, problem) in problems.iter().enumerate() {
            let next = problems.get(place + 1);
            // What helps against several problems is said once.
            let again = next.is_some_and(|next| next.remedy == problem.remedy);
            out += &told(problem, !again, width);
        }
        out.push('\n');
        let owner = self.owner_text();
        out += &labelled("Owner", &owner, width);
        if let Some(claims) = self.claims_text() {
            out += &labelled("Claims", &claims, width);
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
            out += &labelled("Service", &text, width);
        }
        for note in self.notes() {
            out += &labelled("Note", &note, width);
        }
        out
    }

    fn table(&self, width: usize) -> String {
        let has_packets = width >= 2 + NAME + COLUMNS + PACKETS;
        let columns = COLUMNS + if has_packets { PACKETS } else { 0 };
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        let names = shorten(&names, width.saturating_sub(2 + columns).max(NAME));
        let longest = names.iter().map(|name| name.chars().count()).max();
        let longest = longest.unwrap_or(0).max(4);
        let mut out = String::new();
        let _infallible = write!(
            out,
            "  {:longest$}  {:9}  {:>7}  {:>6}  {:>6}",
            heading("NODE"),
            heading("STATE"),
            heading("FOR"),
            heading("OPEN"),
            heading("CONN/S"),
        );
        if has_packets {
            let _infallible = write!(out, "  {:>8}", heading("PACKET/S"));
        }
        out.push('\n');
        for (node, name) in self.nodes.iter().zip(&names) {
            let mark = if self.owns(node) { "*" } else { " " };
            let _infallible = write!(
                out,
                "{mark} {name:longest$}  {:9}  {:>7}  {:>6}  {:>6.1}",
                node.state().painted(),
                node.since.brief(),
                node.open_connections(),
                node.connections_per_second,
            );
            if has_packets {
                let _infallible = write!(out, "  {:>8.0}", node.packets_per_second);
            }
            out.push('\n');
            for line in wrapped(&self.reason(node), width.saturating_sub(REASON)) {
                let _infallible = writeln!(out, "{:REASON$}{line}", "");
            }
        }
        out.push_str("* owns the VIP.  OPEN: open connections of its servers.\n");
        out
    }

    /// Whether a node owns the VIP.
    #[must_use]
    pub fn owns(&self, node: &Node) -> bool {
        let owner = self.owner.as_ref();
        owner.is_some_and(|owner| owner.address == node.address)
    }
}

impl NodeState {
    /// In the colour of its severity.
    pub(super) fn painted(self) -> Painted<&'static str> {
        match self.severity() {
            Severity::Info => good(self.text()),
            severity => paint(severity, self.text()),
        }
    }
}

/// A problem: how bad it is, what, and what to do.
fn told(problem: &Problem, with_remedy: bool, width: usize) -> String {
    let mut out = String::new();
    let severity = problem.severity;
    let lines = wrapped(&problem.text, width.saturating_sub(LABEL));
    for (place, line) in lines.iter().enumerate() {
        let label = if place == 0 { severity.name() } else { "" };
        let _infallible = writeln!(out, "  {:9}{line}", paint(severity, label));
    }
    if with_remedy && !problem.remedy.is_empty() {
        let lines = wrapped(&problem.remedy, width.saturating_sub(LABEL + 3));
        for (place, line) in lines.iter().enumerate() {
            let arrow = if place == 0 { "->" } else { "" };
            let _infallible = writeln!(out, "{:LABEL$}{arrow:2} {line}", "");
        }
    }
    out
}

/// A line with a label, or some if the text is long.
pub(super) fn labelled(label: &str, text: &str, width: usize) -> String {
    let mut out = String::new();
    for (place, line) in wrapped(text, width.saturating_sub(LABEL))
        .iter()
        .enumerate()
    {
        let label = if place == 0 { label } else { "" };
        let _infallible = writeln!(out, "{:LABEL$}{line}", heading(label));
    }
    out
}
