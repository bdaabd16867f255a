//! What is wrong with a configuration, and where it was said.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;

/// Why there is no configuration: what is wrong, where, and what to do, one line for each fault.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// In flags and at places of a file: all that was found, flags first, then by line.
    #[error("{}", lines(.0))]
    Faults(Vec<Located>),
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
    #[error(
        "nothing configured; give --vip ADDRESS[:PORT], or a file (--config FILE; `vip manifest`: --from FILE)"
    )]
    Nothing,
}

/// One fault of a configuration.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Located {
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
}

fn lines(faults: &[Located]) -> String {
    let lines: Vec<String> = faults.iter().map(Located::to_string).collect();
    lines.join("\n")
}

/// A file's text.
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Where there is no file.
    pub(super) const NONE: Self = Self { name: "", text: "" };

    pub(super) fn error(&self, faults: Faults) -> ConfigError {
        let faults = faults.sorted().into_iter();
        ConfigError::Faults(faults.map(|fault| self.locate(fault)).collect())
    }

    fn locate(&self, fault: Fault) -> Located {
        let Fault { place, message, .. } = fault;
        match place {
            Place::Flag(flag) => Located::Flag { flag, message },
            Place::File(at) => {
                let before = self.text.get(..at).unwrap_or(self.text);
                let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
                Located::File {
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
///
/// Flags come first, and places of a file in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    Flag(&'static str),
    /// At this byte of the file.
    File(usize),
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
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) message: String,
    about: About,
}

/// What a fault means to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum About {
    Value,
    /// This key is missing.
    Missing(&'static str),
    /// An unknown key stands where this one was probably meant: it is not missing, too.
    Misspelt(&'static str),
}

impl Fault {
    /// This key is missing.
    pub(super) fn of_missing(self, key: &'static str) -> Self {
        let about = About::Missing(key);
        Self { about, ..self }
    }

    /// An unknown key stands where this one was probably meant.
    pub(super) fn of_misspelt(self, key: &'static str) -> Self {
        let about = About::Misspelt(key);
        Self { about, ..self }
    }

    pub(super) fn new(place: impl Into<Place>, message: impl Into<String>) -> Self {
        Self {
            about: About::Value,
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

/// All that is wrong with a configuration.
#[derive(Default, Debug)]
pub(super) struct Faults(Vec<Fault>);

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// The value, or `None` and its faults among the others.
    pub(super) fn keep<T>(&mut self, read: Result<T, impl Into<Self>>) -> Option<T> {
        read.map_err(|faults| self.0.extend(faults.into().0)).ok()
    }

    /// The value of something that was checked, unless anything is wrong.
    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }

    /// All values, or the faults of all of them.
    pub(super) fn collect<T>(
        read: impl IntoIterator<Item = Result<T, impl Into<Self>>>,
    ) -> Result<Vec<T>, Self> {
        let mut faults = Self::default();
        let values = read.into_iter().filter_map(|value| faults.keep(value));
        let values = values.collect();
        faults.or(values)
    }

    /// Flags first, then by line, each fault once.
    fn sorted(self) -> Vec<Fault> {
        let Self(mut faults) = self;
        let misspelt = |key| {
            faults
                .iter()
                .any(|fault| fault.about == About::Misspelt(key))
        };
        let is_told = |fault: &Fault| match fault.about {
            About::Missing(key) => misspelt(key),
            About::Value | About::Misspelt(_) => false,
        };
        let told: Vec<bool> = faults.iter().map(is_told).collect();
        let mut told = told.into_iter();
        faults.retain(|_| told.next() != Some(true));
        faults.sort_by_key(|fault| match fault.place {
            // In the order in which they were found.
            Place::Flag(_) => Place::Flag(""),
            place @ Place::File(_) => place,
        });
        faults.dedup();
        faults
    }
}
