//! Colours of what people read. Texts always bear them; whoever prints takes them away where they do not
//! belong: in a file, in a pipe, and with `NO_COLOR`.

use std::fmt::{self, Display};

use anstyle::{AnsiColor, Style};

use super::severity::Severity;

/// A text in the colour of its severity. Padding applies to the text alone, not to the codes.
#[derive(Clone, Copy, Debug)]
pub struct Painted<T> {
    text: T,
    style: Style,
}

/// Paints a text: yellow if somebody should look at it, red if somebody must, else as it is.
pub const fn paint<T: Display>(severity: Severity, text: T) -> Painted<T> {
    let style = match severity {
        Severity::Info => Style::new(),
        Severity::Warning => AnsiColor::Yellow.on_default(),
        Severity::Error => AnsiColor::Red.on_default().bold(),
    };
    Painted { text, style }
}

/// Paints what is as it should be green.
pub const fn good<T: Display>(text: T) -> Painted<T> {
    let style = AnsiColor::Green.on_default();
    Painted { text, style }
}

/// Paints headings and labels.
pub const fn heading<T: Display>(text: T) -> Painted<T> {
    let style = Style::new().bold();
    Painted { text, style }
}

/// Paints what is of less interest: times, addresses.
pub const fn faint<T: Display>(text: T) -> Painted<T> {
    let style = Style::new().dimmed();
    Painted { text, style }
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.style)?;
        self.text.fmt(f)?;
        write!(f, "{:#}", self.style)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_do_not_move_columns_and_can_be_taken_away() {
        let table = format!("{:6}|{:>4}|", paint(Severity::Error, "down"), good("1"));
        assert!(table.contains("\u{1b}["), "{table:?}");
        let plain = anstream::adapter::strip_str(&table).to_string();
        assert_eq!(plain, "down  |   1|");
        assert_eq!(paint(Severity::Info, "up").to_string(), "up");
    }
}
