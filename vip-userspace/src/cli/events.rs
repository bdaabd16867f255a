//! `vip events`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::error::BadInput;
use super::output::{Format, Output, complain, print, print_line, yaml, zone};
use crate::agent::state;
use crate::observe::event::{NAMES, Record, Severity};
use crate::observe::journal;
use crate::run_dir::{EVENTS, RunDir};
use crate::words::nearest;

/// Between looks at the file with `--follow`.
const PAUSE: Duration = Duration::from_millis(250);

/// Which events are printed, and how.
#[derive(Args)]
pub(super) struct Options {
    /// Go on printing what happens
    #[arg(long, short)]
    follow: bool,
    /// Only those since a time: 1h, 2d, 2026-11-28T01:00:00Z, or 2026-11-28 01:00 in local time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only the last ones, this many; with --follow, before those that are to come
    #[arg(long, short = 'n', value_name = "NUMBER")]
    lines: Option<usize>,
    /// Only those of this severity or a higher one
    #[arg(long, value_name = "SEVERITY")]
    severity: Option<AtLeast>,
    /// Only those with this name, as -o json and -o wide show it; may be repeated
    #[arg(long, value_name = "NAME")]
    event: Vec<String>,
    /// Only those about this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Times in UTC [default: local time]
    #[arg(long)]
    utc: bool,
    #[command(flatten)]
    output: Output,
    /// The state directory [default: the one the agent has noted, or /var/lib/vip]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// The lowest severity that is printed.
#[derive(Clone, Copy, ValueEnum)]
enum AtLeast {
    Info,
    Warning,
    Error,
}

/// What the options ask for.
struct Filter {
    since: Option<Timestamp>,
    severity: Severity,
    names: Vec<String>,
    node: Option<String>,
}

impl Filter {
    fn wants(&self, Record { time, event, .. }: &Record) -> bool {
        self.since.is_none_or(|since| *time >= since)
            && event.severity >= self.severity
            && (self.names.is_empty() || self.names.iter().any(|name| *name == event.name))
            && (self.node.is_none() || self.node == event.node)
    }
}

/// What `--since` says. `zone`: of a time that names none.
fn moment(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, BadInput> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    if let Ok(time) = text.parse::<DateTime>()
        && let Ok(time) = zone.to_timestamp(time)
    {
        return Ok(time);
    }
    let back = text.parse::<Span>().ok().filter(|span| !span.is_negative());
    let back = back.and_then(|span| now.to_zoned(zone.clone()).checked_sub(span).ok());
    back.map(|time| time.timestamp()).ok_or_else(|| {
        BadInput(format!(
            "--since {text}: not a time; write how long ago, like 30m, 1h or 2d, or when, like \
             2026-11-28T01:00:00Z or \"2026-11-28 01:00\""
        ))
    })
}

/// A name that no event of this version has is a typing error: nothing would ever be printed.
fn refuse_unknown(names: &[String]) -> Result<(), BadInput> {
    let Some(name) = names.iter().find(|name| !NAMES.contains(&name.as_str())) else {
        return Ok(());
    };
    let advice = match nearest(name, NAMES.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "`vip events -o wide` shows names".to_owned(),
    };
    let message = format!("--event {name}: no event has this name; {advice}");
    Err(BadInput(message))
}

/// Reads the journal. `None`: there is none yet, which is no error for who waits for events.
fn read(run_dir: &RunDir, options: &Options) -> anyhow::Result<Option<Vec<Record>>> {
    let directory = state::directory(options.state_dir.as_deref(), run_dir);
    let Some(path) = directory.map(|directory| directory.join(EVENTS)) else {
        anyhow::ensure!(
            options.follow,
            "no agent has noted in {} where its events are: give its --state-dir",
            run_dir.path().display()
        );
        return Ok(None);
    };
    match journal::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            anyhow::ensure!(
                options.follow,
                "no events at {}: has `vip run` run on this node?",
                path.display()
            );
            Ok(None)
        }
        read => {
            let records = read.with_context(|| format!("cannot read {}", path.display()))?;
            anyhow::ensure!(
                options.follow || !records.is_empty(),
                "there is no event in {} that can be read",
                path.display()
            );
            Ok(Some(records))
        }
    }
}

fn show(record: &Record, format: Format, zone: &TimeZone) -> anyhow::Result<()> {
    match format {
        Format::Text => print_line(record.line(zone))?,
        Format::Wide => print_line(format_args!(
            "{}  [{} #{}]",
            record.line(zone),
            record.event.name,
            record.sequence
        ))?,
        Format::Json => print_line(serde_json::to_string(record)?)?,
        // A document each, so that a reader has each event as soon as it is there.
        Format::Yaml => print(format!("---\n{}", yaml(record)?))?,
    }
    Ok(())
}

pub(super) fn run(run_dir: &RunDir, options: &Options) -> anyhow::Result<ExitCode> {
    let zone = match options.utc {
        true => TimeZone::UTC,
        false => zone(),
    };
    let since = options.since.as_deref();
    let since = since.map(|text| moment(text, Timestamp::now(), &zone));
    refuse_unknown(&options.event)?;
    let filter = Filter {
        since: since.transpose()?,
        severity: match options.severity {
            None | Some(AtLeast::Info) => Severity::Info,
            Some(AtLeast::Warning) => Severity::Warning,
            Some(AtLeast::Error) => Severity::Error,
        },
        names: options.event.clone(),
        node: options.node.clone(),
    };
    let mut next = 0;
    let mut most = options.lines;
    loop {
        // Whoever follows may do so before the first agent starts, and over the next start of one,
        // which says where it is.
        let records = read(run_dir, options)?.unwrap_or_default();
        // After `vip cleanup` they are counted from the beginning.
        if records
            .last()
            .is_some_and(|last| last.sequence.saturating_add(1) < next)
        {
            next = 0;
        }
        let new = records.iter().filter(|record| record.sequence >= next);
        let wanted: Vec<&Record> = new.filter(|record| filter.wants(record)).collect();
        // The limit is one of the past.
        let first = most
            .take()
            .map_or(0, |most| wanted.len().saturating_sub(most));
        for record in &wanted[first..] {
            show(record, options.output.format(), &zone)?;
        }
        next = records
            .last()
            .map_or(next, |last| last.sequence.saturating_add(1));
        if !options.follow {
            if wanted.is_empty() {
                complain("no event matches; see `vip events` without filters");
            }
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::event::Event;

    #[test]
    fn since_is_a_duration_or_a_time() {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let since = |text: &str| moment(text, now, &zone).map(|time| time.to_string());
        for (text, time) in [
            ("1h", "2026-11-28T11:00:00Z"),
            ("1h30m", "2026-11-28T10:30:00Z"),
            ("2d", "2026-11-26T12:00:00Z"),
            ("90s", "2026-11-28T11:58:30Z"),
            ("2026-11-28T01:00:00Z", "2026-11-28T01:00:00Z"),
            ("2026-11-28T01:00:00+02:00", "2026-11-27T23:00:00Z"),
            ("2026-11-28 01:00", "2026-11-28T00:00:00Z"),
            ("2026-11-28", "2026-11-27T23:00:00Z"),
        ] {
            assert_eq!(since(text).expect(text), time, "{text}");
        }
        for text in ["", "yesterday", "-1h", "1x", "99999999999d"] {
            let why = since(text).expect_err(text).to_string();
            assert!(
                why.starts_with(&format!("--since {text}: not a time")),
                "{why}"
            );
        }
    }

    #[test]
    fn events_are_chosen_by_time_severity_name_and_node() {
        let record = |event| Record {
            sequence: 0,
            time: Timestamp::UNIX_EPOCH,
            event,
        };
        let away = record(Event::node_away("cp2".to_owned()));
        let up = record(Event::bfd_up("cp3".to_owned()));
        let all = || Filter {
            since: None,
            severity: Severity::Info,
            names: vec![],
            node: None,
        };
        let wants = |filter: &Filter| [&away, &up].map(|record| filter.wants(record));
        assert_eq!(wants(&all()), [true, true]);
        let severity = Severity::Warning;
        assert_eq!(wants(&Filter { severity, ..all() }), [true, false]);
        let names = vec!["bfd_up".to_owned()];
        assert_eq!(wants(&Filter { names, ..all() }), [false, true]);
        let node = Some("cp2".to_owned());
        assert_eq!(wants(&Filter { node, ..all() }), [true, false]);
        let since = Some(Timestamp::from_second(1).expect("a time"));
        assert_eq!(wants(&Filter { since, ..all() }), [false, false]);
        let why = refuse_unknown(&["bfd_upp".to_owned()]).expect_err("a typing error");
        assert!(why.to_string().ends_with("did you mean bfd_up?"), "{why}");
    }
}
