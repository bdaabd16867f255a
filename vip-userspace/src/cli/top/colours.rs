//! Lines of the status, for the terminal's library.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::observe::paint::Ink;
use crate::observe::status;

/// The style of a text.
pub(super) fn style(ink: Ink) -> Style {
    match ink {
        Ink::Plain => Style::new(),
        Ink::Heading => Style::new().add_modifier(Modifier::BOLD),
        Ink::Faint => Style::new().add_modifier(Modifier::DIM),
        Ink::Good => Style::new().fg(Color::Green),
        Ink::Warning => Style::new().fg(Color::Yellow),
        Ink::Error => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

/// A line.
pub(super) fn drawn(line: &status::Line) -> Line<'_> {
    let spans = line
        .texts()
        .map(|(ink, text)| Span::styled(text, style(ink)));
    Line::from_iter(spans)
}
