//! `vip top`: the cluster as this node sees it, once a second, until `q`.

mod colours;
mod nodes;
mod view;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::view::View;
use super::poll::Poll;
use crate::agent::state;
use crate::observe::journal;
use crate::observe::socket::{self, Request};
use crate::run_dir::{self, RunDir};

/// Between questions to the agent.
const PERIOD: Duration = Duration::from_secs(1);

/// How long a key may have to wait for an agent that does not answer.
const PATIENCE: Duration = Duration::from_millis(200);

pub(super) fn run(run_directory: &RunDir) -> anyhow::Result<ExitCode> {
    // Without an agent there is nothing to show, and no reason to touch the terminal.
    let mut view = View::default();
    let status = socket::ask(run_directory, &Request::Status)?;
    view.take(status, Instant::now());
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
    let mut poll = Poll::new(run_directory);
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            next = Instant::now() + PERIOD;
            poll.ask();
            match poll.answer(PATIENCE) {
                Some(Ok(status)) => view.take(status, Instant::now()),
                Some(Err(error)) => view.trouble = Some(format!("{error:#}")),
                None => view.trouble = Some(poll.excuse()),
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
