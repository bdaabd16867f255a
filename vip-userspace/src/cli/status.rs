//! `vip status`.

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use jiff::{Timestamp, Zoned};
use ratatui::crossterm::terminal;

use super::exit::Exit;
use super::output::{Format, Output, complain, json, print, print_line, yaml};
use super::poll::Poll;
use crate::observe::paint::{Ink, paint};
use crate::observe::status::Status;
use crate::run_dir::RunDir;

/// Between looks, while it waits.
const LOOK: Duration = Duration::from_millis(200);

/// Between two pictures with `--watch`.
const PERIOD: Duration = Duration::from_secs(1);

/// An agent that runs answers within milliseconds. After this time, the operator is told of the wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where nobody knows the width of what reads it.
const WIDTH: usize = 80;

/// Puts the cursor into the first column of the first line, and clears what is behind it.
const REDRAW: &str = "\u{1b}[H\u{1b}[J";

/// Prints the status. `wait`: once the cluster is healthy, or after that time.
pub(super) fn run(
    run_directory: &RunDir,
    output: Output,
    exit_code: bool,
    wait: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let end = Instant::now() + wait.unwrap_or_default();
    let mut poll = Poll::new(run_directory);
    let status = loop {
        let asked = patiently(&mut poll);
        let is_over = Instant::now() >= end;
        match asked {
            // There may be no agent yet.
            Err(_) if !is_over => {}
            Ok(status) if !is_over && !status.problems().is_empty() => {}
            answered => break answered?,
        }
        sleep(LOOK);
    };
    print(shown(&status, output.format(), width())?)?;
    let degraded = !status.problems().is_empty();
    Ok(if degraded && (exit_code || wait.is_some()) {
        Exit::Degraded.into()
    } else {
        ExitCode::SUCCESS
    })
}

/// Prints the status until it is interrupted: on a terminal in one place, once a second; else a block for
/// each change. It outlives the agent.
pub(super) fn watch(run_directory: &RunDir, output: Output) -> anyhow::Result<ExitCode> {
    let format = output.format();
    let is_drawn = stdout().is_terminal() && matches!(format, Format::Text | Format::Wide);
    let mut before = None;
    let mut poll = Poll::new(run_directory);
    loop {
        let next = Instant::now() + PERIOD;
        poll.ask();
        let asked = poll.answer(PERIOD);
        let time = Zoned::now().strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
        let (news, text) = match &asked {
            Some(Ok(status)) => (gist(status), shown(status, format, width())?),
            Some(Err(error)) => {
                let why = format!("{error:#}");
                let text = format!("the agent on this node does not answer: {why}\n");
                (why, text)
            }
            None => ("no answer yet".to_owned(), format!("{}\n", poll.excuse())),
        };
        if is_drawn {
            let head = paint(Ink::Faint, format!("{time}, every second; Ctrl-C ends it"));
            print(format_args!("{REDRAW}{head}\n\n{}", cut(&text)))?;
        } else if before.as_ref() != Some(&news) {
            match (format, &asked) {
                (Format::Text | Format::Wide, _) => {
                    print(format_args!("{}\n{text}\n", paint(Ink::Faint, time)))?;
                }
                (Format::Json, Some(Ok(status))) => print_line(serde_json::to_string(status)?)?,
                (Format::Yaml, Some(Ok(_))) => print(format_args!("---\n{text}"))?,
                _ => complain(text.trim_end()),
            }
            before = Some(news);
        }
        sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Asks the agent, and says so if the answer takes long.
fn patiently(poll: &mut Poll) -> anyhow::Result<Status> {
    poll.ask();
    if let Some(answer) = poll.answer(PATIENCE) {
        return answer;
    }
    complain("the agent does not answer yet; waiting a few seconds more");
    loop {
        if let Some(answer) = poll.answer(PATIENCE) {
            return answer;
        }
    }
}

fn shown(status: &Status, format: Format, width: usize) -> anyhow::Result<String> {
    match format {
        Format::Text => Ok(status.text(width)),
        Format::Wide => Ok(status.wide(Timestamp::now())),
        Format::Json => json(status),
        Format::Yaml => yaml(status),
    }
}

/// What counts as a change: all that is no figure and no age.
fn gist(status: &Status) -> String {
    let nodes = status.nodes.iter();
    let nodes: Vec<_> = nodes
        .map(|node| (&node.name, node.state(), status.reason(node)))
        .collect();
    let problems = status.problems();
    let codes: Vec<_> = problems
        .iter()
        .map(|problem| (&problem.code, &problem.node))
        .collect();
    format!(
        "{:?} {codes:?} {nodes:?} {}",
        status.owner, status.conflicts
    )
}

/// The terminal's width.
fn width() -> usize {
    let size = stdout().is_terminal().then(terminal::size);
    match size {
        Some(Ok((columns, _))) if columns > 0 => columns.into(),
        _ => WIDTH,
    }
}

/// As many lines as a terminal has room for below the time. A line that is longer than the terminal is
/// wide needs more room than one.
fn cut(text: &str) -> String {
    let Ok((columns, rows)) = terminal::size() else {
        return text.to_owned();
    };
    cut_to(
        text,
        columns.max(1).into(),
        usize::from(rows).saturating_sub(3).max(1),
    )
}

fn cut_to(text: &str, columns: usize, room: usize) -> String {
    let height = |line: &str| {
        let plain = anstream::adapter::strip_str(line).to_string();
        plain.chars().count().div_ceil(columns).max(1)
    };
    let needed: usize = text.lines().map(height).sum();
    if needed <= room {
        return text.to_owned();
    }
    let mut used = 1;
    let shown = text.lines().take_while(|line| {
        used += height(line);
        used <= room
    });
    let shown: Vec<&str> = shown.collect();
    let left = text.lines().count() - shown.len();
    format!(
        "{}\n({left} more lines: a larger terminal shows them)",
        shown.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::cut_to;

    #[test]
    fn a_long_line_takes_the_room_that_it_needs() {
        let text = "HEALTHY\n\nOwner\n12345678901234567890\nlast";
        assert_eq!(cut_to(text, 20, 5), text);
        assert_eq!(
            cut_to(text, 10, 5),
            "HEALTHY\n\nOwner\n(2 more lines: a larger terminal shows them)"
        );
    }
}
