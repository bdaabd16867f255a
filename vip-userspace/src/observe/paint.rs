//! Colours of what people read. Texts always bear them; whoever prints takes them away where they do not
//! belong: in a file, in a pipe, and with `NO_COLOR`.

use std::fmt::{self, Display};

use anstyle::{AnsiColor, Style};

use super::severity::Severity;

/// What a text is, for its colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ink {
    /// As it is.
    Plain,
    /// A heading or a label.
    Heading,
    /// Of less interest: a time, an address.
    Faint,
    /// As it should be: green.
    Good,
    /// Somebody should look at it: yellow.
    Warning,
    /// Somebody must look at it: red.
    Error,
}

impl Ink {
    const fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Heading => Style::new().bold(),
            Self::Faint => Style::new().dimmed(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Error => AnsiColor::Red.on_default().bold(),
        }
    }
}

impl From<Severity> for Ink {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Info => Self::Plain,
            Severity::Warning => Self::Warning,
            Severity::Error => Self::Error,
        }
    }
}

/// A text with its colour. Padding applies to the text alone, not to the codes.
#[derive(Clone, Copy, Debug)]
pub struct Painted<T> {
    text: T,
    ink: Ink,
}

/// Paints a text.
pub fn paint<T: Display>(ink: impl Into<Ink>, text: T) -> Painted<T> {
    let ink = ink.into();
    Painted { text, ink }
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = self.ink.style();
        write!(f, "{style}")?;
        self.text.fmt(f)?;
        write!(f, "{style:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_do_not_move_columns_and_can_be_taken_away() {
        let table = format!(
            "{:6}|{:>4}|",
            paint(Severity::Error, "down"),
            paint(Ink::Good, "1")
        );
        assert!(table.contains("\u{1b}["), "{table:?}");
        let plain = anstream::adapter::strip_str(&table).to_string();
        assert_eq!(plain, "down  |   1|");
        assert_eq!(paint(Severity::Info, "up").to_string(), "up");
    }
}
