//! The table of nodes: a line each, and below it the reason if something is wrong.

use ratatui::text::{Line, Span};

use super::colours::{dim, good, style};
use crate::observe::event::Severity;
use crate::observe::status::{Node, NodeState, Status, shorten, wrapped};

/// A column: its head, its width, and its word for a node.
type Column = (&'static str, usize, fn(&Node) -> String);

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

/// Columns that are there if the sparklines have room, too.
const MORE: [Column; 7] = [
    ("BFD", 10, |node| {
        let bfd = node.bfd.as_ref();
        bfd.map_or("-", |bfd| bfd.state.name()).to_owned()
    }),
    ("RTT ms", 6, |node| {
        number(node.bfd.as_ref().and_then(|bfd| bfd.round_trip_ms), 2)
    }),
    ("PROBE ms", 8, |node| number(node.rtt_ms, 1)),
    ("ROLE", 10, |node| {
        let state = node.told.as_ref().and_then(|told| told.state);
        state.map_or("-", |state| state.name()).to_owned()
    }),
    ("VERSION", 8, |node| {
        let told = node.told.as_ref();
        let version = told.and_then(|told| told.version.clone());
        version.unwrap_or_else(|| "-".to_owned())
    }),
    ("LIVENESS", 8, |node| {
        node.liveness
            .map_or("-", |liveness| liveness.name())
            .to_owned()
    }),
    ("MB", 8, |node| format!("{:.1}", node.bytes as f64 / 1e6)),
];

/// Width of a state.
const STATE: usize = 9;

/// Between columns.
const GAP: usize = 2;

/// Least width of a name, and of a sparkline.
const NAME: usize = 12;
const SPARKLINE: usize = 10;

/// How far a reason is indented.
const REASON: usize = 4;

/// The table, ready to be drawn.
pub(super) struct Table {
    pub(super) lines: Vec<Line<'static>>,
    /// Each node, and its line.
    pub(super) rows: Vec<(String, usize)>,
    /// The column where the sparklines begin, if they have room.
    pub(super) sparklines: Option<usize>,
}

/// The table in a width.
pub(super) fn table(status: &Status, width: usize) -> Table {
    let figures: usize = FIGURES.iter().map(|(_, width, _)| width + GAP).sum();
    let fixed = GAP + GAP + STATE + figures + GAP + SPARKLINE;
    let names: Vec<&str> = status.nodes.iter().map(|node| node.name.as_str()).collect();
    let names = shorten(&names, width.saturating_sub(fixed).max(NAME));
    let longest = names.iter().map(|name| name.chars().count()).max();
    let longest = longest.unwrap_or(0).max(4);
    let mut used = GAP + longest + GAP + STATE;
    let mut columns: Vec<&Column> = Vec::new();
    for column in &FIGURES {
        if used + GAP + column.1 <= width {
            used += GAP + column.1;
            columns.push(column);
        }
    }
    let has_sparklines = used + GAP + SPARKLINE <= width;
    for column in MORE.iter().filter(|_| has_sparklines) {
        if used + GAP + column.1 + GAP + SPARKLINE <= width {
            used += GAP + column.1;
            columns.push(column);
        }
    }
    let mut head = format!("  {:longest$}  {:STATE$}", "NODE", "STATE");
    for (name, width, _) in &columns {
        head += &format!("  {name:>width$}");
    }
    let title = "PACKETS, LAST 2 MIN";
    if has_sparklines && width - used >= GAP + title.len() {
        head += &format!("  {title}");
    }
    let mut lines = vec![Line::styled(head, dim())];
    let mut rows = Vec::new();
    for (node, name) in status.nodes.iter().zip(&names) {
        rows.push((node.name.clone(), lines.len()));
        let mark = if status.owns(node) { "*" } else { " " };
        let state = node.state();
        let mut spans = vec![
            Span::raw(format!("{mark} {name:longest$}  ")),
            Span::styled(format!("{:STATE$}", state.text()), colour(state)),
        ];
        let figures = columns
            .iter()
            .map(|(_, width, word)| format!("  {:>width$}", word(node)));
        spans.push(Span::raw(figures.collect::<String>()));
        lines.push(Line::from(spans));
        for line in wrapped(&status.reason(node), width.saturating_sub(REASON)) {
            lines.push(Line::raw(format!("{:REASON$}{line}", "")));
        }
    }
    Table {
        lines,
        rows,
        sparklines: has_sparklines.then_some(used + GAP),
    }
}

fn colour(state: NodeState) -> ratatui::style::Style {
    match state.severity() {
        Severity::Info => good(),
        severity => style(severity),
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}
