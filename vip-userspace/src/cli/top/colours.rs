//! Colours of a terminal.

use ratatui::style::{Color, Modifier, Style};

use crate::observe::event::Severity;

/// The colour of a severity.
pub(super) fn style(severity: Severity) -> Style {
    match severity {
        Severity::Info => Style::new(),
        Severity::Warning => Style::new().fg(Color::Yellow),
        Severity::Error => Style::new().fg(Color::Red),
    }
}

/// Of what is as it should be.
pub(super) fn good() -> Style {
    Style::new().fg(Color::Green)
}

/// Of headings and labels.
pub(super) fn heading() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Of what is of less interest.
pub(super) fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}
