//! What the benchmarks' reports share.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

pub(super) fn write_json<T: Serialize>(path: Option<PathBuf>, value: &T) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(&path, serde_json::to_string_pretty(value)?)
        .with_context(|| format!("write {}", path.display()))
}

pub(super) fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// Nearest rank. The values are not empty: there is at least one round.
pub(super) fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

/// The middle half of the values.
pub(super) fn quartiles(values: &[f64]) -> [f64; 2] {
    [0.25, 0.75].map(|part| quantile(values.to_vec(), part))
}

/// What was hoped for a ratio, if anything, and what became of it.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Goal {
    goal: Option<f64>,
    met: Option<bool>,
}

impl Goal {
    /// The ratio should be `goal` at most.
    pub(super) fn at_most(goal: Option<f64>, ratio: f64) -> Self {
        let met = goal.map(|goal| ratio <= goal);
        Self { goal, met }
    }

    /// The ratio should be `goal` at least.
    pub(super) fn at_least(goal: Option<f64>, ratio: f64) -> Self {
        let met = goal.map(|goal| ratio >= goal);
        Self { goal, met }
    }

    /// For a table of Markdown.
    pub(super) fn in_markdown(self) -> String {
        match (self.goal, self.met) {
            (Some(goal), Some(true)) => format!("{goal}, met"),
            (Some(goal), _) => format!("{goal}, **missed**"),
            _ => String::new(),
        }
    }
}

/// For the end of a line on the terminal.
impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.goal, self.met) {
            (Some(goal), Some(true)) => write!(f, "{goal:>6} met"),
            (Some(goal), _) => write!(f, "{goal:>6} MISSED"),
            _ => Ok(()),
        }
    }
}

pub(super) fn machine() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("unknown CPU", |(_, name)| name).to_owned()
}

pub(super) fn commit() -> String {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
