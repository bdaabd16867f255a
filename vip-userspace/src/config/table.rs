//! A table of TOML, out of which known keys are taken.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::fault::{Fault, Place};

/// A table out of which known keys are taken. What is left at the end is unknown.
pub(super) struct Table<'a> {
    values: DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(values: DeTable<'a>) -> Self {
        Self {
            values,
            known: vec![],
        }
    }

    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Spanned<DeValue<'a>>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        self.known.push(key);
        self.values.remove(key).map(read).transpose()
    }

    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Fault> {
        self.take(key, |value| Ok(text(value, read)?.0))
    }

    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Fault> {
        self.take(key, |value| number(&value, range))
    }

    /// A TCP or UDP port.
    pub(super) fn port(&mut self, key: &'static str) -> Result<Option<u16>, Fault> {
        let port = self.number(key, 1..=65_535)?;
        Ok(port.map(|port| port as u16))
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, Fault> {
        self.take(key, |value| match value.get_ref() {
            DeValue::Boolean(boolean) => Ok(*boolean),
            _ => Err(wrong_type(&value, "true or false")),
        })
    }

    /// A table in this one, empty if it is not there.
    pub(super) fn table(&mut self, key: &'static str) -> Result<Self, Fault> {
        let values = self.take(key, |value| table(value, "a table"))?;
        Ok(Self::new(values.unwrap_or_default()))
    }

    pub(super) fn end(self) -> Result<(), Fault> {
        let Some(key) = self.values.keys().min_by_key(|key| key.span().start) else {
            return Ok(());
        };
        let known: Vec<String> = self.known.iter().map(|key| format!("`{key}`")).collect();
        let message = format!(
            "unknown key `{}`, expected one of {}",
            key.get_ref(),
            known.join(", ")
        );
        Err(Fault::new(key.span(), message))
    }
}

pub(super) fn wrong_type(value: &Spanned<DeValue<'_>>, wanted: &str) -> Fault {
    let message = match value.get_ref() {
        DeValue::Boolean(boolean) => format!("`{boolean}` is a boolean, expected {wanted}"),
        DeValue::Integer(integer) => format!("{integer} is an integer, expected {wanted}"),
        other => format!(
            "this is a value of type {}, expected {wanted}",
            other.type_str()
        ),
    };
    Fault::new(value.span(), message)
}

/// The values of a list. `wanted` is what is expected, for the error.
pub(super) fn list<'a>(value: Spanned<DeValue<'a>>, wanted: &str) -> Result<DeArray<'a>, Fault> {
    let place = value.span();
    match value.into_inner() {
        DeValue::Array(values) => Ok(values),
        other => Err(wrong_type(&Spanned::new(place, other), wanted)),
    }
}

/// The values of a table; `wanted` as with [`list`].
pub(super) fn table<'a>(value: Spanned<DeValue<'a>>, wanted: &str) -> Result<DeTable<'a>, Fault> {
    let place = value.span();
    match value.into_inner() {
        DeValue::Table(values) => Ok(values),
        other => Err(wrong_type(&Spanned::new(place, other), wanted)),
    }
}

pub(super) fn text<T>(
    value: Spanned<DeValue<'_>>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<(T, Place), Fault> {
    match value.get_ref() {
        DeValue::String(text) => match read(text) {
            Ok(read) => Ok((read, value.span().into())),
            Err(message) => Err(Fault::new(value.span(), message)),
        },
        _ => Err(wrong_type(&value, "a string in quotes")),
    }
}

pub(super) fn number(
    value: &Spanned<DeValue<'_>>,
    range: RangeInclusive<i64>,
) -> Result<i64, Fault> {
    let DeValue::Integer(integer) = value.get_ref() else {
        return Err(wrong_type(value, "an integer"));
    };
    i64::from_str_radix(integer.as_str(), integer.radix())
        .map_err(|_| format!("{integer} is too large"))
        .and_then(|number| within(number, range))
        .map_err(|message| Fault::new(value.span(), message))
}

pub(super) fn within(number: i64, range: RangeInclusive<i64>) -> Result<i64, String> {
    if range.contains(&number) {
        Ok(number)
    } else {
        let (low, high) = range.into_inner();
        Err(format!("{number} is out of range, must be {low} to {high}"))
    }
}
