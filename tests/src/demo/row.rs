//! A line of the demo's tables.

use serde::Serialize;

use crate::outcome::Outcome;

/// A scenario that has run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// How long it took, preparation included.
    pub(super) seconds: f64,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}
