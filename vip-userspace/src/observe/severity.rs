//! How grave an event, a problem or a word is.

use serde::{Deserialize, Serialize};

/// How much somebody should care.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Info,
    /// Something does not work, and is dealt with.
    Warning,
    /// Something does not work, and somebody must deal with it.
    Error,
}

impl Severity {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}
