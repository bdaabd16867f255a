//! A value as it is given: in a file, or as text by a flag or a default.

use std::ffi::OsStr;

use toml::Spanned;
use toml::de::DeValue;

use super::fault::{Fault, Place};

#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    File(&'a Spanned<DeValue<'a>>),
    /// By a flag, or the default.
    Text(&'a OsStr, Place),
}

impl<'a> Given<'a> {
    pub(super) fn place(self) -> Place {
        match self {
            Self::File(value) => value.span().into(),
            Self::Text(_, place) => place,
        }
    }

    /// As it is written, in one line. `source` is the text of the file.
    pub(super) fn written(self, source: &str) -> String {
        match self {
            Self::Text(text, _) => text.display().to_string(),
            Self::File(value) => {
                // The span of a list that is written as `[[services]]` is that of its first header.
                let tables = match value.get_ref() {
                    DeValue::Array(values) => tables(values, source),
                    _ => None,
                };
                let words = source.get(value.span()).unwrap_or_default();
                match tables {
                    Some(tables) if words.starts_with("[[") => tables,
                    _ => in_one_line(words),
                }
            }
        }
    }

    pub(super) fn fault(self, message: impl Into<String>) -> Fault {
        Fault::new(self.place(), message)
    }

    /// It is of another type than `wanted`.
    pub(super) fn wrong_type(self, wanted: &str) -> Fault {
        let found = match self {
            Self::Text(text, _) => format!("`{}` is text", text.display()),
            Self::File(value) => match value.get_ref() {
                DeValue::Boolean(boolean) => format!("`{boolean}` is a boolean"),
                DeValue::Integer(integer) => format!("{integer} is an integer"),
                other => format!("this is a value of type {}", other.type_str()),
            },
        };
        self.fault(format!("{found}, expected {wanted}"))
    }

    pub(super) fn is_string(self) -> bool {
        match self {
            Self::Text(..) => true,
            Self::File(value) => value.get_ref().is_str(),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Fault> {
        match self {
            Self::Text(text, _) => text
                .to_str()
                .ok_or_else(|| self.fault(format!("`{}` is not UTF-8", text.display()))),
            Self::File(value) => match value.get_ref() {
                DeValue::String(text) => Ok(text),
                _ => Err(self.wrong_type("a string in quotes")),
            },
        }
    }

    pub(super) fn integer(self) -> Result<i64, Fault> {
        match self {
            Self::Text(..) => {
                let text = self.text()?;
                text.parse()
                    .map_err(|_| self.fault(format!("`{text}` is not a whole number")))
            }
            Self::File(value) => match value.get_ref() {
                DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                    .map_err(|_| self.fault(format!("{integer} is too large"))),
                _ => Err(self.wrong_type("an integer")),
            },
        }
    }

    pub(super) fn boolean(self) -> Result<bool, Fault> {
        let boolean = match self {
            Self::Text(text, _) => text.to_str().and_then(|text| text.parse().ok()),
            Self::File(value) => value.get_ref().as_bool(),
        };
        boolean.ok_or_else(|| self.wrong_type("true or false"))
    }

    /// The values of a list, in text with commas between them; `wanted` is what the list should
    /// be, for the error.
    pub(super) fn list(self, wanted: &str) -> Result<Vec<Self>, Fault> {
        match self {
            Self::Text(_, place) => {
                let texts = self.text()?.split(',');
                Ok(texts
                    .map(|text| Self::Text(OsStr::new(text.trim()), place))
                    .collect())
            }
            Self::File(value) => match value.get_ref() {
                DeValue::Array(values) => Ok(values.iter().map(Self::File).collect()),
                _ => Err(self.wrong_type(wanted)),
            },
        }
    }
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A list of tables as it would be written in one line; `None` if there is anything else in it.
fn tables(values: &[Spanned<DeValue<'_>>], source: &str) -> Option<String> {
    let table = |value: &Spanned<DeValue<'_>>| {
        let DeValue::Table(keys) = value.get_ref() else {
            return None;
        };
        let mut keys: Vec<_> = keys.iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        let keys = keys.into_iter().map(|(key, value)| {
            let value = source.get(value.span()).unwrap_or_default();
            format!("{} = {}", key.get_ref(), in_one_line(value))
        });
        Some(format!("{{ {} }}", keys.collect::<Vec<_>>().join(", ")))
    };
    let tables: Option<Vec<String>> = values.iter().map(table).collect();
    Some(format!("[{}]", tables?.join(", ")))
}
