//! What `vip top` draws: the verdict, what is wrong, the nodes, and what happened. It has no frames: a
//! terminal may be narrow.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::{self, Span};
use ratatui::widgets::{Paragraph, Sparkline, Widget};

use super::colours::{drawn, style};
use super::nodes;
use crate::cli::output::zone;
use crate::observe::event::Record;
use crate::observe::paint::Ink;
use crate::observe::status::{Line, Status, paragraph};

/// Seconds that a sparkline goes back.
const HISTORY: usize = 120;

/// Lines that are kept for events, with their heading.
const EVENTS: usize = 4;

/// Lines for changes of the owner, and as many for troubles, where there is room.
const HISTORY_LINES: usize = 3;

/// What is shown.
#[derive(Default)]
pub(super) struct View {
    status: Option<Status>,
    /// When that was said.
    taken: Option<Instant>,
    /// Packets a second of each node, the last ones.
    rates: BTreeMap<String, VecDeque<u64>>,
    /// The last events, oldest first.
    pub(super) events: Vec<Record>,
    /// Why there is nothing newer.
    pub(super) trouble: Option<String>,
}

impl View {
    /// Takes what the agent said at this time.
    pub(super) fn take(&mut self, status: Status, now: Instant) {
        if let (Some(before), Some(taken)) = (&self.status, self.taken) {
            let seconds = now.duration_since(taken).as_secs_f64().max(0.001);
            for node in &status.nodes {
                let earlier = before
                    .nodes
                    .iter()
                    .find(|earlier| earlier.name == node.name);
                let packets = earlier.map_or(node.packets, |earlier| earlier.packets);
                let rate = node.packets.saturating_sub(packets) as f64 / seconds;
                let rates = self.rates.entry(node.name.clone()).or_default();
                rates.push_back(rate.round() as u64);
                if rates.len() > HISTORY {
                    rates.pop_front();
                }
            }
        }
        self.status = Some(status);
        self.taken = Some(now);
        self.trouble = None;
    }

    /// Draws all of it.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let Some(status) = &self.status else {
            return;
        };
        let area = frame.area();
        let buffer = frame.buffer_mut();
        let (width, height) = (usize::from(area.width), usize::from(area.height));
        let (table, sparklines) = nodes::table(status, width);
        let owner = status.owner_lines(width);
        // Two blank lines and the foot.
        let mut lines = status.verdict_lines(width);
        let rest = lines.len() + owner.len() + table.lines.len() + 3 + EVENTS;
        lines.extend(problems(status, width, height.saturating_sub(rest)));
        lines.extend(owner);
        lines.push(Line::default());
        let begin = lines.len();
        lines.extend(table.lines);
        lines.push(Line::default());
        let room = height.saturating_sub(lines.len() + 1);
        lines.extend(self.happened(status, width, room));
        lines.truncate(height.saturating_sub(1));
        let lines: Vec<text::Line<'_>> = lines.iter().map(drawn).collect();
        Paragraph::new(lines).render(area, buffer);
        if let Some(column) = sparklines {
            for (name, line) in &table.rows {
                self.sparkline(name, begin + line, column, area, buffer);
            }
        }
        let foot = match &self.trouble {
            Some(trouble) => Span::styled(trouble.clone(), style(Ink::Error)),
            None => Span::raw("q: quit   all: vip events, vip status -o wide"),
        };
        let last = Rect {
            y: area.bottom().saturating_sub(1),
            height: area.height.min(1),
            ..area
        };
        text::Line::from(foot).render(last, buffer);
    }

    /// What has happened: the last owners and troubles where there is room, and the last events.
    fn happened(&self, status: &Status, width: usize, room: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        let now = Timestamp::now();
        let zone = zone();
        for (title, mut newest) in [
            ("OWNERS", status.history.owner_lines(now, width)),
            ("TROUBLES", status.history.trouble_lines(now, width)),
        ] {
            newest.truncate(HISTORY_LINES);
            // A title before it, a blank line behind it.
            if !newest.is_empty() && room >= lines.len() + newest.len() + 2 + EVENTS {
                lines.push(Line::new(Ink::Heading, title));
                lines.extend(newest);
                lines.push(Line::default());
            }
        }
        lines.push(Line::new(Ink::Heading, "EVENTS"));
        let newest = self.events.iter().rev().take(room);
        lines.extend(newest.flat_map(|record| {
            let severity = record.event.severity;
            paragraph(severity, &record.brief(now, &zone), width)
        }));
        lines
    }

    /// Draws a node's rates at the end of its line. The newest stand at the right.
    fn sparkline(&self, name: &str, line: usize, column: usize, area: Rect, buffer: &mut Buffer) {
        let place = Rect {
            x: column as u16,
            y: line as u16,
            width: area.width.saturating_sub(column as u16),
            height: 1,
        };
        let Some(rates) = self
            .rates
            .get(name)
            .filter(|_| place.bottom() < area.bottom() && place.right() <= area.right())
        else {
            return;
        };
        let shown = rates.len().min(place.width.into());
        let newest: Vec<u64> = rates.range(rates.len() - shown..).copied().collect();
        let place = Rect {
            x: place.right() - shown as u16,
            width: shown as u16,
            ..place
        };
        Sparkline::default()
            .data(&newest)
            .style(Style::new().fg(Color::Cyan))
            .render(place, buffer);
    }
}

/// What is wrong, in at most so many lines; the rows of the nodes have the reasons as well.
fn problems(status: &Status, width: usize, room: usize) -> Vec<Line> {
    let all = status.problems();
    let mut lines = Vec::new();
    for (place, problem) in all.iter().enumerate() {
        let next = problem.lines(width);
        let left = all.len() - place;
        let is_last = left == 1;
        if lines.len() + next.len() + usize::from(!is_last) > room {
            let more = format!("  {left} more: vip status");
            lines.push(Line::new(problem.severity, more));
            break;
        }
        lines.extend(next);
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::observe::status::tests::{golden, healthy, long_names};

    /// Between two answers of the agent.
    const PERIOD: Duration = Duration::from_secs(1);

    /// What the agent on `cp1`, the owner, says after so many packets to each node.
    fn status(packets: u64) -> Status {
        let mut status = healthy();
        for node in &mut status.nodes {
            node.packets = packets;
        }
        status.nodes[2].draining = true;
        status
    }

    fn drawn(view: &View, width: u16, height: u16) -> Vec<String> {
        let mut terminal =
            Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
        terminal.draw(|frame| view.draw(frame)).expect("draws");
        let buffer = terminal.backend().buffer();
        let lines = (0..height).map(|y| (0..width).map(move |x| buffer[(x, y)].symbol()));
        lines.map(Iterator::collect).collect()
    }

    fn watched(status: impl Fn(u64) -> Status, seconds: u64) -> View {
        let mut view = View::default();
        let begin = Instant::now();
        for second in 0..seconds {
            view.take(status(second * second), begin + PERIOD * second as u32);
        }
        view
    }

    #[test]
    fn rates_are_differences_in_time_and_the_newest_stands_at_the_right() {
        let mut view = View::default();
        let begin = Instant::now();
        for (second, packets) in [0, 100, 100, 500].into_iter().enumerate() {
            view.take(status(packets), begin + PERIOD * second as u32);
        }
        assert_eq!(view.rates["cp1"], [100, 0, 400]);
        // An agent that counts from the beginning is no reason for a rate below nothing.
        view.take(status(10), begin + PERIOD * 4);
        assert_eq!(view.rates["cp1"], [100, 0, 400, 0]);

        view.rates.values_mut().for_each(|rates| {
            rates.pop_back();
        });
        for width in [80, 160] {
            let lines = drawn(&view, width, 30);
            let line = |name: &str| lines.iter().find(|line| line.contains(name)).expect(name);
            // The owner is marked.
            assert!(line("* cp1").ends_with("▂ █"), "{}", line("* cp1"));
            assert!(line("  cp3  ").contains("drained"), "{}", line("  cp3  "));
            for text in ["DEGRADED", "cp3 is drained", "OWNERS", "EVENTS", "OPEN"] {
                assert!(lines.iter().any(|line| line.contains(text)), "{text}");
            }
        }
        let wide = drawn(&view, 160, 30);
        assert!(wide.iter().any(|line| line.contains("VERSION")));
    }

    #[test]
    fn rates_end_after_their_history() {
        let view = watched(status, 2 * HISTORY as u64);
        assert_eq!(view.rates["cp2"].len(), HISTORY);
    }

    #[test]
    fn state_and_reason_of_nodes_with_long_names_are_there_at_any_width() {
        let view = watched(|_| long_names(), 3);
        for width in [60, 80, 160] {
            let lines = drawn(&view, width, 40);
            let text = lines.join("\n");
            let states: Vec<&String> = lines
                .iter()
                .skip_while(|line| !line.contains("NODE"))
                .filter(|line| {
                    ["ready", "hung", "gone"]
                        .iter()
                        .any(|word| line.contains(word))
                })
                .collect();
            for number in 0..3 {
                let name = format!("{number}-0001");
                assert!(
                    states.iter().any(|line| line.contains(&name)),
                    "{width}:\n{text}"
                );
            }
            let words: Vec<&str> = text.split_whitespace().collect();
            let words = words.join(" ");
            assert!(
                words.contains("wait in its accept queue"),
                "{width}:\n{text}"
            );
        }
    }

    #[test]
    fn terminals_of_any_size_are_drawn_on() {
        for mut view in [
            watched(status, 100),
            watched(|_| golden(), 2),
            watched(|_| long_names(), 2),
        ] {
            view.trouble = Some("no agent".to_owned());
            for width in (1..40).chain([60, 80, 139]) {
                for height in 1..40 {
                    drawn(&view, width, height);
                }
            }
        }
    }
}
