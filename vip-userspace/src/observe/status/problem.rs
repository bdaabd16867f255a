//! The verdict in a word, and what a problem is.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::observe::event::Severity;

/// The verdict in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// Nothing is wrong.
    Healthy,
    /// Something is wrong, and clients are served.
    Degraded,
    /// Nobody owns the VIP, or no API server takes connections.
    Down,
}

impl Health {
    /// For people: `HEALTHY`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Down => "DOWN",
        }
    }

    /// How much somebody should care.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Healthy => Severity::Info,
            Self::Degraded => Severity::Warning,
            Self::Down => Severity::Error,
        }
    }
}

/// Something that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// What, for programs.
    pub code: Cow<'static, str>,
    /// How much somebody should care.
    pub severity: Severity,
    /// The node that it is about, if it is about one.
    pub node: Option<String>,
    /// What, and the reason, for people.
    pub text: String,
    /// What to do, for people; empty if the text says it.
    pub remedy: String,
}

impl Problem {
    pub(super) fn error(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            code: Cow::Borrowed(code),
            severity: Severity::Error,
            node: None,
            text: text.into(),
            remedy: String::new(),
        }
    }

    pub(super) fn warning(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, text)
        }
    }

    /// The problem of a node.
    pub(super) fn at(self, node: &str) -> Self {
        let node = Some(node.to_owned());
        Self { node, ..self }
    }

    /// With what to do.
    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        let remedy = remedy.into();
        Self { remedy, ..self }
    }
}
