//! The table of nodes: a line each, and below it the reason if something is wrong.

use super::lines::Line;
use super::since::wrapped;
use super::{Node, NodeState, Status, shorten};
use crate::observe::event::Severity;
use crate::observe::paint::Ink;

/// A column: its head, its width, and its word for a node.
pub type Column = (&'static str, usize, fn(&Node) -> String);

/// Columns behind the name and the state, as many as there is room for.
const FIGURES: [Column; 4] = [
    ("FOR", 7, |node| node.since.brief()),
    ("OPEN", 6, Node::open_connections),
    ("CONN/S", 6, |node| {
        format!("{:.1}", node.connections_per_second)
    }),
    ("PACKET/S", 8, |node| {
        format!("{:.0}", node.packets_per_second)
    }),
];

/// Width of a state.
const STATE: usize = 9;

/// Between columns.
const GAP: usize = 2;

/// Least width for a name.
const NAME: usize = 12;

/// How far a reason is indented.
const REASON: usize = 6;

/// The table.
pub struct Table {
    /// Its lines, with a heading.
    pub lines: Vec<Line>,
    /// Each node's name, and its line.
    pub rows: Vec<(String, usize)>,
    /// How wide the heading and the nodes' lines are.
    pub width: usize,
}

impl Status {
    /// The table in a width. `more` columns are there if they leave as much room as is reserved. Names
    /// that are too long are shortened.
    #[must_use]
    pub fn table(&self, width: usize, reserved: usize, more: &[Column]) -> Table {
        let figures: usize = FIGURES.iter().map(|(_, width, _)| GAP + width).sum();
        let fixed = GAP + GAP + STATE + figures + reserved;
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        let names = shorten(&names, width.saturating_sub(fixed).max(NAME));
        let longest = names.iter().map(|name| name.chars().count()).max();
        let longest = longest.unwrap_or(0).max(4);
        let mut used = GAP + longest + GAP + STATE;
        let figures = FIGURES.iter().map(|column| (column, 0));
        let more = more.iter().map(|column| (column, reserved));
        let columns = figures.chain(more).filter(|((_, wide, _), reserved)| {
            let fits = used + GAP + wide + reserved <= width;
            used += if fits { GAP + wide } else { 0 };
            fits
        });
        let columns: Vec<&Column> = columns.map(|(column, _)| column).collect();

        let mut head = format!("  {:longest$}  {:STATE$}", "NODE", "STATE");
        for (name, width, _) in &columns {
            head += &format!("  {name:>width$}");
        }
        let mut lines = vec![Line::new(Ink::Heading, head)];
        let mut rows = Vec::new();
        for (node, name) in self.nodes.iter().zip(&names) {
            rows.push((node.name.clone(), lines.len()));
            let mark = if self.owns(node) { "*" } else { " " };
            let state = node.state();
            let figures = columns
                .iter()
                .map(|(_, width, word)| format!("  {:>width$}", word(node)));
            lines.push(
                Line::new(Ink::Plain, format!("{mark} {name:longest$}  "))
                    .and(state.ink(), format!("{:STATE$}", state.text()))
                    .and(Ink::Plain, figures.collect::<String>()),
            );
            let reason = wrapped(&self.reason(node), width.saturating_sub(REASON));
            let reason = reason.iter().map(|line| format!("{:REASON$}{line}", ""));
            lines.extend(reason.map(|line| Line::new(Ink::Plain, line)));
        }
        Table {
            lines,
            rows,
            width: used,
        }
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
    pub(super) fn ink(self) -> Ink {
        match self.severity() {
            Severity::Info => Ink::Good,
            severity => severity.into(),
        }
    }
}
