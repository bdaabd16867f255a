//! What is wrong with a configuration, and where it was said.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;

/// Why there is no configuration: one line with what is wrong, where, and what to do.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// At a place in a file.
    #[error("{file}:{line}:{column}: {message}")]
    File {
        /// The file's name.
        file: String,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What is wrong, and what to do.
        message: String,
    },
    /// In a flag.
    #[error("{flag}: {message}")]
    Flag {
        /// The flag with its dashes.
        flag: &'static str,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {error}; give the path of a configuration file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A new VIP is the address of a node of the agent that runs.
    #[error(
        "the VIP {address} is still a node of the agent that runs; restart the agent, since `nodes` cannot change while it runs"
    )]
    StillANode {
        /// The address.
        address: IpAddr,
    },
    /// Neither a file nor flags.
    #[error("nothing configured; give --vip ADDRESS[:PORT], or --config FILE")]
    Nothing,
}

/// A file's text.
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn error(&self, fault: Fault) -> ConfigError {
        let Fault { place, message } = fault;
        match place {
            Place::Flag(flag) => ConfigError::Flag { flag, message },
            Place::File(at) => {
                let before = self.text.get(..at).unwrap_or(self.text);
                let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
                ConfigError::File {
                    file: self.name.to_owned(),
                    line: before.matches('\n').count() + 1,
                    column: before[line_start..].chars().count() + 1,
                    message,
                }
            }
        }
    }
}

/// Where something was said.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// At this byte of the file.
    File(usize),
    Flag(&'static str),
}

impl Place {
    pub(super) const fn is_flag(self) -> bool {
        match self {
            Self::Flag(_) => true,
            Self::File(_) => false,
        }
    }
}

impl From<Range<usize>> for Place {
    fn from(span: Range<usize>) -> Self {
        Self::File(span.start)
    }
}

/// A value, and where it was said: for errors that are only found when values are compared.
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// The place does not matter to what was said.
impl<T: fmt::Debug> fmt::Debug for Placed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// What is wrong, and where.
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(place: impl Into<Place>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            // What was said may hold line breaks and worse, and an error is one line.
            message: message
                .into()
                .chars()
                .flat_map(|c| {
                    let control = c.is_control().then(|| c.escape_default());
                    let other = (!c.is_control()).then_some(c);
                    control.into_iter().flatten().chain(other)
                })
                .collect(),
        }
    }
}
