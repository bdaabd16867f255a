//! What commands print. All of them print by this, so that none panics when its reader has gone
//! (`vip status | head -1`), which `println!` does, and so that colours go to terminals only.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use serde::Serialize;

/// Standard output takes nothing more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub(super) struct Unprinted(io::Error);

impl Unprinted {
    /// Whether the reader has gone: it has read what it wanted, which is no error.
    pub(super) fn is_unread(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}

/// How a command prints what it knows, with the flags of kubectl.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Output {
    /// How it is printed [default: text]
    #[arg(short = 'o', long = "output", value_name = "FORMAT")]
    format: Option<Format>,
    /// The same as `-o json`
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// A way to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For people, with all that is known
    Wide,
    /// For programs
    Json,
    /// For programs, and easier to read
    Yaml,
}

impl Output {
    /// What was asked for.
    pub(super) const fn format(self) -> Format {
        match (self.format, self.json) {
            (Some(format), _) => format,
            (None, true) => Format::Json,
            (None, false) => Format::Text,
        }
    }
}

/// A value as JSON.
///
/// # Errors
/// It has none.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// A value as YAML.
///
/// # Errors
/// It has none.
pub(super) fn yaml(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_yaml_ng::to_string(value)?)
}

/// Prints text as it is, without colours if no terminal reads it or `NO_COLOR` is set, for a command that does nothing else and so ends if this fails.
///
/// # Errors
/// It cannot be written.
pub(super) fn print(text: impl Display) -> Result<(), Unprinted> {
    let mut out = anstream::stdout().lock();
    write!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(Unprinted)
}

/// Prints a line, as [`print`] does.
///
/// # Errors
/// It cannot be written.
pub(super) fn print_line(text: impl Display) -> Result<(), Unprinted> {
    print(format_args!("{text}\n"))
}

/// Prints a line about work that is done, and that goes on whether somebody reads of it or not.
pub(super) fn tell(text: impl Display) {
    let _unread = print_line(text);
}

/// Prints text on standard error, each line with the name of the program. If that is closed, there is
/// nowhere to complain.
pub(super) fn complain(text: impl Display) {
    let mut out = anstream::stderr().lock();
    for line in text.to_string().lines() {
        let _unread = writeln!(out, "vip: {line}");
    }
}

/// The machine's time zone; without one, as in the container image, UTC.
pub(super) fn zone() -> TimeZone {
    TimeZone::try_system().unwrap_or(TimeZone::UTC)
}
