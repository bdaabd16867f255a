//! Kinds of values: how one is read, and how the page `docs/configuration.md` names it.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::fault::{Faults, Placed};
use super::given::Given;
use super::names::absolute;

/// How a value of type `T` is written, checked and documented.
pub(super) struct Kind<T> {
    /// The type in the file, and the unit of a number.
    pub(super) name: String,
    /// What is allowed.
    pub(super) range: String,
    pub(super) arity: Arity,
    read: Read<T>,
}

type Read<T> = Box<dyn Fn(Given<'_>) -> Result<T, Faults>>;

/// How many values a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Arity {
    /// None: the flag alone says yes.
    Switch,
    One,
    List,
}

impl<T: 'static> Kind<T> {
    pub(super) fn new(
        name: &str,
        range: impl Into<String>,
        arity: Arity,
        read: impl Fn(Given<'_>) -> Result<T, Faults> + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            range: range.into(),
            arity,
            read: Box::new(read),
        }
    }

    pub(super) fn read(&self, given: Given<'_>) -> Result<T, Faults> {
        (self.read)(given)
    }

    /// What the number counts, for the page.
    pub(super) fn unit(mut self, unit: &str) -> Self {
        self.name = format!("{}, {unit}", self.name);
        self
    }

    /// The same, where values must meet one more condition.
    pub(super) fn also(
        self,
        condition: &str,
        check: impl Fn(T) -> Result<T, String> + 'static,
    ) -> Self {
        let Self {
            name,
            range,
            arity,
            read,
        } = self;
        Self::new(
            &name,
            format!("{range}, {condition}"),
            arity,
            move |given| check(read(given)?).map_err(|message| given.fault(message).into()),
        )
    }

    /// The same, with the place where the value was said.
    pub(super) fn placed(self) -> Kind<Placed<T>> {
        let Self {
            name,
            range,
            arity,
            read,
        } = self;
        Kind::new(&name, range, arity, move |given| {
            let place = given.place();
            Ok(Placed {
                value: read(given)?,
                place,
            })
        })
    }
}

/// A whole number.
pub(super) fn number<T>(range: RangeInclusive<T>) -> Kind<T>
where
    T: TryFrom<i64> + PartialOrd + Display + 'static,
{
    let limits = format!("{} to {}", range.start(), range.end());
    let message = format!("is out of range, must be {limits}");
    Kind::new("integer", limits, Arity::One, move |given| {
        let number = given.integer()?;
        T::try_from(number)
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| given.fault(format!("{number} {message}")).into())
    })
}

/// A TCP or UDP port.
pub(super) fn tcp_port() -> Kind<u16> {
    number(1..=65_535)
}

pub(super) fn boolean() -> Kind<bool> {
    Kind::new("boolean", "`true`, `false`", Arity::Switch, |given| {
        Ok(given.boolean()?)
    })
}

/// A string that `read` understands; `range` says in words what is allowed.
pub(super) fn text<T: 'static>(
    range: impl Into<String>,
    read: impl Fn(&str) -> Result<T, String> + 'static,
) -> Kind<T> {
    Kind::new("string", range, Arity::One, move |given| {
        read(given.text()?).map_err(|message| given.fault(message).into())
    })
}

/// One of a few words.
pub(super) fn word<T: Copy + 'static>(words: &'static [(&'static str, T)]) -> Kind<T> {
    let listed = |quote: &str| {
        let words = words
            .iter()
            .map(|(word, _)| format!("`{quote}{word}{quote}`"));
        words.collect::<Vec<_>>().join(", ")
    };
    let names = listed("");
    text(listed("\""), move |text| {
        let found = words.iter().find(|(word, _)| *word == text);
        let value = found.map(|(_, value)| *value);
        value.ok_or_else(|| format!("unknown value `{text}`, expected one of {names}"))
    })
}

/// A file: with an absolute path where the configuration file names it, while a flag may name one
/// in the directory in which the command runs.
pub(super) fn file(range: &str) -> Kind<PathBuf> {
    Kind::new("string", range, Arity::One, |given| match given {
        Given::Text(path, _) => Ok(path.into()),
        Given::File(_) => absolute(given.text()?).map_err(|message| given.fault(message).into()),
    })
}

/// A number with a unit: `100ms`, `1.5s`, `2m`. In whole milliseconds.
pub(super) fn duration(range: RangeInclusive<Duration>) -> Kind<Duration> {
    let (low, high) = (written(*range.start()), written(*range.end()));
    let limits = format!("`{low}` to `{high}`");
    let kind = text(limits, move |text| {
        let duration = milliseconds(text)?;
        let message = || format!("`{text}` is out of range, must be {low} to {high}");
        range
            .contains(&duration)
            .then_some(duration)
            .ok_or_else(message)
    });
    Kind {
        name: "duration".to_owned(),
        ..kind
    }
}

/// As it would be written in a file.
fn written(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.is_zero() {
        "0s".to_owned()
    } else if seconds >= 3600 && duration == Duration::from_secs(seconds / 3600 * 3600) {
        format!("{}h", seconds / 3600)
    } else {
        format!("{duration:?}")
    }
}

/// The duration that the text says, whatever its range.
pub(crate) fn milliseconds(text: &str) -> Result<Duration, String> {
    let malformed = || format!("`{text}` is not a duration; write it like 100ms, 1.5s, 2m or 1h");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(unit_at.ok_or_else(malformed)?);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(malformed()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(part) {
        return Err(malformed());
    }
    let too_long = || format!("`{text}` is too long; write less than 1000000000{unit}");
    let uneven = || format!("`{text}` is not a whole number of milliseconds; round it");
    let digits = |text: &str| text.parse::<u64>().ok().filter(|_| text.len() <= 9);
    let whole = digits(whole).ok_or_else(too_long)?;
    let tail = digits(part).ok_or_else(uneven)? * milliseconds;
    let scale = 10_u64.pow(part.len() as u32);
    if !tail.is_multiple_of(scale) {
        return Err(uneven());
    }
    Ok(Duration::from_millis(whole * milliseconds + tail / scale))
}
