//! `vip top`: the cluster as this node sees it, once a second, until `q`.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IsTerminal as _};

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table, Widget};

use crate::agent::state;
use crate::observe::event::{Record, Severity};
use crate::observe::journal;
use crate::observe::socket::{Request, ask};
use crate::observe::status::{Label, Node, Status, Word, Words};
use crate::run_dir::{self, RunDir};
use crate::words::counted;

/// Between questions to the agent.
const PERIOD: Duration = Duration::from_secs(1);

/// Seconds that a sparkline goes back.
const HISTORY: usize = 120;

/// Lines of events.
const EVENTS: u16 = 8;

/// Columns of what this node sees of the others, and their widths; the node's name comes before them.
const SEEN: [(&str, u16); 9] = [
    ("ALIVE", 5),
    ("READY", 7),
    ("NEW", 5),
    ("BFD", 10),
    ("RTT ms", 6),
    ("PROBE ms", 8),
    ("PACKET/S", 8),
    ("CONN/S", 7),
    ("MB", 8),
];

/// A column's head, and its word for an agent.
type Told = (&'static str, fn(Words<'_>) -> String);

/// Columns of what the agents tell of themselves, as many as there is room for.
const TOLD: [Told; 4] = [
    ("STATE", |words| words.state.to_owned()),
    ("OPEN", |words| words.open_connections),
    ("OWNER", |words| words.owner),
    ("VERSION", |words| words.version.to_owned()),
];

/// Least width of the sparklines.
const SPARKLINE: u16 = 10;

pub(super) fn run(run_directory: &RunDir) -> anyhow::Result<ExitCode> {
    // Without an agent there is nothing to show, and no reason to touch the terminal.
    let mut view = View::default();
    view.take(ask(run_directory, &Request::Status)?, Instant::now());
    const NO_TERMINAL: &str = "`vip top` needs a terminal; see `vip status`";
    anyhow::ensure!(io::stdout().is_terminal(), NO_TERMINAL);
    let mut terminal = ratatui::try_init().context(NO_TERMINAL)?;
    let result = watch(run_directory, &mut terminal, view);
    // A terminal that has gone needs no restoring.
    let _gone = ratatui::try_restore();
    result.map(|()| ExitCode::SUCCESS)
}

fn watch(
    run_directory: &RunDir,
    terminal: &mut ratatui::DefaultTerminal,
    mut view: View,
) -> anyhow::Result<()> {
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            next = Instant::now() + PERIOD;
            match ask(run_directory, &Request::Status) {
                Ok(status) => view.take(status, Instant::now()),
                Err(error) => view.trouble = Some(format!("{error:#}")),
            }
            let directory = state::directory(None, run_directory);
            let events = directory.map(|directory| journal::read(&directory.join(run_dir::EVENTS)));
            view.events = events.and_then(Result::ok).unwrap_or_default();
        }
        terminal
            .draw(|frame| view.draw(frame))
            .context("cannot draw")?;
        let patience = next.saturating_duration_since(Instant::now());
        if event::poll(patience).context("cannot read the keyboard")?
            && ends(&event::read().context("cannot read the keyboard")?)
        {
            return Ok(());
        }
    }
}

fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else {
        return false;
    };
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// What is shown.
#[derive(Default)]
struct View {
    status: Option<Status>,
    /// When that was said.
    taken: Option<Instant>,
    /// Packets a second of each node, the last ones.
    rates: BTreeMap<String, VecDeque<u64>>,
    events: Vec<Record>,
    /// Why there is nothing newer.
    trouble: Option<String>,
}

impl View {
    fn take(&mut self, status: Status, now: Instant) {
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

    fn draw(&self, frame: &mut Frame<'_>) {
        let Some(status) = &self.status else {
            return;
        };
        let nodes = status.nodes.len() as u16;
        let [head, table, events, foot] = Layout::vertical([
            Constraint::Length(
                (6 + usize::from(status.rosters.is_some())
                    + status.faults.len()
                    + status.alarms.len()
                    + status.warnings().len()) as u16,
            ),
            Constraint::Length(nodes + 3),
            Constraint::Min(EVENTS.min(3)),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        self.head(status, head, frame.buffer_mut());
        self.nodes(status, table, frame.buffer_mut());
        self.events(events, frame.buffer_mut());
        let foot_text = match &self.trouble {
            Some(trouble) => Span::styled(trouble.clone(), style(Severity::Error)),
            None => Span::raw("q: quit   vip events: all events   vip status --json: all figures"),
        };
        Line::from(foot_text).render(foot, frame.buffer_mut());
    }

    fn head(&self, status: &Status, area: Rect, buffer: &mut Buffer) {
        let owner = match &status.owner {
            Some(owner) => Span::styled(
                format!("{} ({})", owner.name, owner.address),
                Style::new().add_modifier(Modifier::BOLD),
            ),
            None => Span::styled("none heard", style(Severity::Error)),
        };
        let failover = status
            .last_failover_ms
            .map_or_else(|| "-".to_owned(), |millis| format!("{millis:.0} ms"));
        let verdict = if status.problems().is_empty() {
            Severity::Info
        } else {
            Severity::Warning
        };
        let mut lines = vec![
            Line::styled(
                format!("{}{}", Label("Cluster"), status.verdict()),
                style(verdict),
            ),
            Line::from(vec![Label("Owner").to_string().into(), owner]),
            Line::from(format!(
                "{}{}, {}, priority {}, {}, last failover {failover}",
                Label("Node"),
                status.node,
                status.state.name(),
                status.priority,
                counted(status.takeovers, "takeover", "takeovers")
            )),
            Line::from(format!(
                "{}{};  {} XDP on {}, egress program by {}",
                Label("Answer lease"),
                status.answer_lease(),
                status.xdp.mode,
                status.xdp.interface,
                status.xdp.egress
            )),
        ];
        let mut add = |label, text: &str, severity| {
            lines.push(Line::styled(
                format!("{}{text}", Label(label)),
                style(severity),
            ));
        };
        if let Some(rosters) = &status.rosters {
            let text = rosters.text(&status.nodes);
            add("Clients", &text, Severity::Info);
        }
        for fault in &status.faults {
            add("Fault", fault, Severity::Error);
        }
        for alarm in &status.alarms {
            add("Alarm", &alarm.text, Severity::Error);
        }
        for warning in status.warnings() {
            add("Warning", &warning, Severity::Warning);
        }
        let title = format!(" VIP {} · vip {} ", status.vip, status.version);
        let block = Block::bordered().title(title);
        Paragraph::new(lines).block(block).render(area, buffer);
    }

    fn nodes(&self, status: &Status, area: Rect, buffer: &mut Buffer) {
        let name = status.nodes.iter().map(|node| node.name.len()).max();
        let mut columns = vec![("NODE", name.unwrap_or(0).max(4) as u16 + 2)];
        columns.extend(SEEN);
        let owner = status.owner.as_ref().map(|owner| owner.name.as_str());
        let mut rows: Vec<Vec<Cell<'_>>> = status
            .nodes
            .iter()
            .map(|node| row(node, owner).into())
            .collect();
        let block = Block::bordered().title(" Nodes ");
        let inner = block.inner(area);
        let taken = columns.iter().map(|(_, width)| width + 1).sum::<u16>() + SPARKLINE;
        let mut room = inner.width.saturating_sub(taken);
        for (head, word) in TOLD {
            let words = status.nodes.iter().map(|node| status.words(node));
            let words: Vec<String> = words.map(word).collect();
            let width = words.iter().map(String::len).max().unwrap_or(0);
            let width = width.max(head.len()) as u16;
            let Some(rest) = room.checked_sub(width + 1) else {
                break;
            };
            room = rest;
            columns.push((head, width));
            for (row, word) in rows.iter_mut().zip(words) {
                row.push(Cell::from(word));
            }
        }
        let heads = columns.iter().map(|(head, _)| *head);
        let header = Row::new(heads.chain(["PACKETS, LAST 2 MIN"]));
        let header = header.style(Style::new().add_modifier(Modifier::DIM));
        let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
        let widths: Vec<_> = widths.chain([Constraint::Min(SPARKLINE)]).collect();
        let rows = rows.into_iter().map(Row::new);
        let table = Table::new(rows, &widths).header(header).block(block);
        Widget::render(table, area, buffer);
        // The table has left the last column empty.
        let columns = Layout::horizontal(widths).spacing(1).split(inner);
        let Some(last) = columns.last() else { return };
        for (line, node) in status.nodes.iter().enumerate() {
            let place = Rect {
                y: last.y + 1 + line as u16,
                height: 1,
                ..*last
            };
            let Some(rates) = self
                .rates
                .get(&node.name)
                .filter(|_| place.bottom() <= inner.bottom())
            else {
                continue;
            };
            // The newest stand at the right end.
            let shown = rates.len().min(place.width as usize);
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

    fn events(&self, area: Rect, buffer: &mut Buffer) {
        let block = Block::bordered().title(" Events ");
        let room = block.inner(area).height as usize;
        let newest = self.events.iter().rev().take(room);
        let lines: Vec<Line<'_>> = newest
            .map(|record| Line::styled(record.to_string(), style(record.event.severity)))
            .collect();
        Paragraph::new(lines).block(block).render(area, buffer);
    }
}

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Info => Style::new(),
        Severity::Warning => Style::new().fg(Color::Yellow),
        Severity::Error => Style::new().fg(Color::Red),
    }
}

/// What this node sees of a node.
fn row<'a>(node: &'a Node, owner: Option<&str>) -> [Cell<'a>; SEEN.len() + 1] {
    let mark = if owner == Some(node.name.as_str()) {
        "*"
    } else {
        " "
    };
    let word = |word: Word| Cell::from(Span::styled(word.text, style(word.severity)));
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let bfd = node.bfd.as_ref();
    [
        Cell::from(format!("{mark} {}", node.name)),
        word(node.is_alive()),
        word(node.is_ready()),
        word(node.takes_new()),
        Cell::from(bfd.map_or("-", |bfd| bfd.state.name())),
        Cell::from(number(bfd.and_then(|bfd| bfd.round_trip_ms), 2)),
        Cell::from(number(node.rtt_ms, 1)),
        Cell::from(format!("{:.0}", node.packets_per_second)),
        Cell::from(format!("{:.1}", node.connections_per_second)),
        Cell::from(format!("{:.1}", node.bytes as f64 / 1e6)),
    ]
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use vip_node::alarm::Kind;

    use super::*;
    use crate::observe::status::Alarm;
    use crate::observe::status::tests::golden;

    fn node(number: u8, packets: u64) -> Node {
        Node {
            name: format!("cp{number}"),
            address: [10, 0, 0, 10 + number].into(),
            own: number == 1,
            mac: None,
            source_mac: None,
            alive: true,
            ready: number != 2,
            unknown: false,
            draining: number == 3,
            usable: number == 1,
            echo: None,
            bfd: None,
            told: golden().nodes[usize::from(number) - 1].told.clone(),
            confirmed: true,
            gone: false,
            roster: 0,
            probe: "ready".to_owned(),
            rtt_ms: Some(1.5),
            certificate_not_after: None,
            packets,
            bytes: packets * 100,
            connections: 1,
            packets_per_second: 0.0,
            connections_per_second: 0.0,
        }
    }

    /// What the agent on `cp1`, the owner, says after so many packets to each node.
    fn status(packets: u64) -> Status {
        Status {
            services: Vec::new(),
            credentials_trouble: None,
            faults: vec!["no carrier".to_owned()],
            alarms: vec![Alarm {
                alarm: Kind::NoAgent,
                about: "cp4".to_owned(),
                text: "cp4 runs no agent".to_owned(),
            }],
            nodes: (1..=3).map(|number| node(number, packets)).collect(),
            ..golden()
        }
    }

    fn drawn(view: &View, width: u16, height: u16) -> Vec<String> {
        let mut terminal =
            Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
        terminal.draw(|frame| view.draw(frame)).expect("draws");
        let buffer = terminal.backend().buffer();
        let lines = (0..height).map(|y| (0..width).map(move |x| buffer[(x, y)].symbol()));
        lines.map(Iterator::collect).collect()
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
        let lines = drawn(&view, 150, 30);
        let line = |name: &str| lines.iter().find(|line| line.contains(name)).expect(name);
        // The owner is marked.
        let bars = line("* cp1").trim_end_matches('│');
        assert!(bars.ends_with("▂ █"), "{bars}");
        assert!(line("cp3").contains("drain"));
        // What the agents tell, as much as there is room for.
        let told = ["STATE", "OPEN", "OWNER", "VERSION"];
        assert!(told.iter().all(|head| line("READY").contains(head)));
        assert!(line("* cp1").contains("active 12   cp1   0.1.0"));
        let narrow = drawn(&view, 105, 30);
        let heads = narrow.iter().find(|line| line.contains("READY"));
        let shown = told.map(|head| heads.is_some_and(|line| line.contains(head)));
        assert_eq!(shown, [true, true, false, false]);
        for said in [
            "Fault         no carrier",
            "Alarm         cp4 runs no agent",
        ] {
            assert!(lines.iter().any(|line| line.contains(said)), "{said}");
        }
    }

    #[test]
    fn rates_end_after_their_history() {
        let mut view = View::default();
        let begin = Instant::now();
        for second in 0..2 * HISTORY {
            view.take(status(second as u64), begin + PERIOD * second as u32);
        }
        assert_eq!(view.rates["cp2"].len(), HISTORY);
    }

    #[test]
    fn terminals_of_any_size_are_drawn_on() {
        let mut view = View::default();
        let begin = Instant::now();
        for second in 0..100 {
            view.take(status(second * second), begin + PERIOD * second as u32);
        }
        view.trouble = Some("no agent".to_owned());
        for width in 1..140 {
            for height in 1..40 {
                drawn(&view, width, height);
            }
        }
    }
}
