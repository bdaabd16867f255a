//! What `vip top` draws: the verdict, what is wrong, the nodes, and what happened. It has no frames: a
//! terminal may be narrow.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline, Widget};

use super::colours::{good, heading, style};
use super::nodes;
use crate::observe::event::{Record, Severity};
use crate::observe::status::{Problem, Status, age, wrapped};

/// Seconds that a sparkline goes back.
const HISTORY: usize = 120;

/// Width of labels, with the space behind them.
const LABEL: usize = 9;

/// Lines that are kept for events, with their heading.
const EVENTS: usize = 4;

/// Changes of the owner that are shown where there is room.
const OWNERS: usize = 3;

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
        let table = nodes::table(status, width);
        let owner = labelled("Owner", &status.owner_text(), width);
        // Two blank lines and the foot.
        let mut lines = verdict(status, width);
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
        Paragraph::new(lines).render(area, buffer);
        if let Some(column) = table.sparklines {
            for (name, line) in &table.rows {
                self.sparkline(name, begin + line, column, area, buffer);
            }
        }
        let foot = match &self.trouble {
            Some(trouble) => Span::styled(trouble.clone(), style(Severity::Error)),
            None => Span::raw("q: quit   all: vip events, vip status -o wide"),
        };
        let last = Rect {
            y: area.bottom().saturating_sub(1),
            height: area.height.min(1),
            ..area
        };
        Line::from(foot).render(last, buffer);
    }

    /// What has happened: the last owners where there is room, and the last events.
    fn happened(&self, status: &Status, width: usize, room: usize) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        let now = Timestamp::now();
        let owners = status.history.owners.iter().take(OWNERS);
        let owners = owners.flat_map(|change| {
            let millis = now.as_millisecond() - change.time.as_millisecond();
            let ago = age(millis.max(0) as u64);
            hanging(
                &format!("{ago:>6} ago  {}", change.text()),
                width,
                Style::new(),
            )
        });
        let owners: Vec<_> = owners.collect();
        if !owners.is_empty() && room >= owners.len() + 2 + EVENTS {
            lines.push(Line::styled("OWNERS", heading()));
            lines.extend(owners);
            lines.push(Line::default());
        }
        lines.push(Line::styled("EVENTS", heading()));
        let newest = self.events.iter().rev().take(room);
        lines.extend(newest.flat_map(|record| {
            let colour = style(record.event.severity);
            hanging(&record.to_string(), width, colour)
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

/// The verdict in one word, and whose view it is.
fn verdict(status: &Status, width: usize) -> Vec<Line<'static>> {
    let health = status.health();
    let colour = if status.problems().is_empty() {
        good()
    } else {
        style(health.severity())
    };
    let word = health.word();
    let text = format!("{}, as {} sees it", status.vip, status.node);
    let indent = word.len() + 2;
    let text = wrapped(&text, width.saturating_sub(indent));
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (place, line) in text.into_iter().enumerate() {
        let word = if place == 0 { word } else { "" };
        let word = format!("{word:indent$}");
        lines.push(Line::from(vec![
            Span::styled(word, colour.add_modifier(Modifier::BOLD)),
            Span::raw(line),
        ]));
    }
    lines
}

/// A text in as many lines as it needs, all but the first one indented.
fn hanging(text: &str, width: usize, colour: Style) -> Vec<Line<'static>> {
    const INDENT: usize = 4;
    let lines = wrapped(text, width.saturating_sub(INDENT));
    let lines = lines.into_iter().enumerate().map(|(place, line)| {
        let indent = if place == 0 { 0 } else { INDENT };
        let line = format!("{:indent$}{line}", "");
        Line::styled(line, colour)
    });
    lines.collect()
}

/// What is wrong, in at most so many lines; the rows of the nodes have the reasons as well.
fn problems(status: &Status, width: usize, room: usize) -> Vec<Line<'static>> {
    let all = status.problems();
    let mut lines = Vec::new();
    for (place, problem) in all.iter().enumerate() {
        let next = problem_lines(problem, width);
        let left = all.len() - place;
        let is_last = left == 1;
        if lines.len() + next.len() + usize::from(!is_last) > room {
            lines.push(Line::styled(
                format!("{:LABEL$}{left} more: vip status", ""),
                style(problem.severity),
            ));
            break;
        }
        lines.extend(next);
    }
    lines
}

fn problem_lines(problem: &Problem, width: usize) -> Vec<Line<'static>> {
    let wrapped = wrapped(&problem.text, width.saturating_sub(LABEL));
    let lines = wrapped.into_iter().enumerate().map(|(place, line)| {
        let label = if place == 0 {
            problem.severity.name()
        } else {
            ""
        };
        Line::from(vec![
            Span::styled(format!("{label:LABEL$}"), style(problem.severity)),
            Span::raw(line),
        ])
    });
    lines.collect()
}

fn labelled(label: &str, text: &str, width: usize) -> Vec<Line<'static>> {
    let wrapped = wrapped(text, width.saturating_sub(LABEL));
    let lines = wrapped.into_iter().enumerate().map(|(place, line)| {
        let label = if place == 0 { label } else { "" };
        Line::from(vec![
            Span::styled(format!("{label:LABEL$}"), heading()),
            Span::raw(line),
        ])
    });
    lines.collect()
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
