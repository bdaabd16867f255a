//! Lines of the views for people. `vip status` writes them with the codes of terminals, `vip top` with
//! its library, so both show the same.

use std::fmt::{self, Display};

use super::since::wrapped;
use crate::observe::paint::{Ink, paint};

/// Width of labels, with the space behind them.
pub(super) const LABEL: usize = 11;

/// A line: texts, one behind the other.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Line(Vec<(Ink, String)>);

impl Line {
    /// A line of one text.
    #[must_use]
    pub fn new(ink: impl Into<Ink>, text: impl Into<String>) -> Self {
        Self(vec![(ink.into(), text.into())])
    }

    /// With a text behind it.
    #[must_use]
    pub fn and(mut self, ink: impl Into<Ink>, text: impl Into<String>) -> Self {
        self.0.push((ink.into(), text.into()));
        self
    }

    /// All of it in one colour.
    pub(super) fn painted(mut self, ink: impl Into<Ink>) -> Self {
        let ink = ink.into();
        self.0.iter_mut().for_each(|text| text.0 = ink);
        self
    }

    /// Its texts.
    pub fn texts(&self) -> impl Iterator<Item = (Ink, &str)> {
        self.0.iter().map(|(ink, text)| (*ink, text.as_str()))
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts = self.texts();
        texts.try_for_each(|(ink, text)| write!(f, "{}", paint(ink, text)))
    }
}

/// Lines as one text, each with its end.
#[must_use]
pub fn joined(lines: &[Line]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A text behind a label, in as many lines as it needs in a width: all begin in the same column.
pub(super) fn hanging(
    ink: impl Into<Ink>,
    label: &str,
    column: usize,
    text: &str,
    width: usize,
) -> Vec<Line> {
    let ink = ink.into();
    let lines = wrapped(text, width.saturating_sub(column)).into_iter();
    lines
        .enumerate()
        .map(|(place, line)| {
            let label = if place == 0 { label } else { "" };
            Line::new(ink, format!("{label:column$}")).and(Ink::Plain, line)
        })
        .collect()
}

/// A text behind one of the labels.
pub(super) fn labelled(label: &str, text: &str, width: usize) -> Vec<Line> {
    hanging(Ink::Heading, label, LABEL, text, width)
}

/// A text in one colour, in as many lines as it needs: all but the first one are indented.
#[must_use]
pub fn paragraph(ink: impl Into<Ink>, text: &str, width: usize) -> Vec<Line> {
    const INDENT: usize = 4;
    let ink = ink.into();
    let lines = wrapped(text, width.saturating_sub(INDENT)).into_iter();
    lines
        .enumerate()
        .map(|(place, line)| {
            let indent = if place == 0 { 0 } else { INDENT };
            Line::new(ink, format!("{:indent$}{line}", ""))
        })
        .collect()
}
