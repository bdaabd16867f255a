//! What the benchmarks' reports share.

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
