//! The table of nodes, with more columns and with sparklines where they have room.

use crate::observe::paint::Ink;
use crate::observe::status::{Column, Status, Table};

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

/// Least width of a sparkline, with the space before it.
const SPARKLINE: usize = 12;

/// Above the sparklines, with the space before it.
const TITLE: &str = "  PACKETS, LAST 2 MIN";

/// The table in a width, and the column where the sparklines begin, if they have room.
pub(super) fn table(status: &Status, width: usize) -> (Table, Option<usize>) {
    let mut table = status.table(width, SPARKLINE, &MORE);
    let room = width.saturating_sub(table.width);
    if room >= TITLE.len() {
        let head = std::mem::take(&mut table.lines[0]);
        table.lines[0] = head.and(Ink::Heading, TITLE);
    }
    let begin = (room >= SPARKLINE).then_some(table.width + 2);
    (table, begin)
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}
