//! What a benchmark found: one form for all of them, shown on the terminal, in Markdown and
//! as JSON.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Report {
    /// What was measured, and how.
    title: String,
    machine: String,
    kernel: String,
    /// Of the measurement, in UTC.
    date: String,
    commit: String,
    labels: &'static [Label],
    columns: Vec<Column>,
    rows: Vec<Row>,
}

/// A column with words: of what a row tells.
#[derive(Serialize)]
pub(super) struct Label {
    name: &'static str,
    /// On the terminal, in characters.
    #[serde(skip)]
    width: usize,
}

/// A column with figures.
#[derive(Serialize)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    /// How the figure's ratio to the baseline is called, if there is a baseline.
    pub(super) ratio: Option<&'static str>,
    #[serde(skip)]
    pub(super) decimals: usize,
}

impl Column {
    /// One without a baseline.
    pub(super) const fn new(
        name: &'static str,
        unit: &'static str,
        better: Better,
        decimals: usize,
    ) -> Self {
        Self {
            name,
            unit,
            better,
            ratio: None,
            decimals,
        }
    }
}

/// Which figures are better.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Better {
    Lower,
    Higher,
    /// It is said for the sake of the others.
    Neither,
}

/// A line: a word for each label, a figure for each column.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) labels: Vec<String>,
    pub(super) figures: Vec<Figure>,
    pub(super) goals: Vec<Goal>,
}

/// A figure, mostly the median over the rounds. Not a number where the row has none.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Figure {
    pub(super) value: f64,
    /// The middle half of the rounds.
    quartiles: Option<[f64; 2]>,
    /// The median of the ratios to the baseline in the same round.
    ratio: Option<f64>,
}

/// What a figure should be, and whether it is.
#[derive(Serialize)]
pub(super) struct Goal {
    text: String,
    met: bool,
}

impl Label {
    pub(super) const fn new(name: &'static str, width: usize) -> Self {
        Self { name, width }
    }
}

impl Figure {
    pub(super) fn new(value: f64) -> Self {
        Self {
            value,
            quartiles: None,
            ratio: None,
        }
    }

    pub(super) fn count(count: usize) -> Self {
        Self::new(count as f64)
    }

    pub(super) fn median(values: &[f64]) -> Self {
        Self {
            quartiles: Some([0.25, 0.75].map(|part| quantile(values, part))),
            ..Self::new(median(values))
        }
    }

    /// A dash where there is no figure: not a number.
    fn text(&self, decimals: usize) -> String {
        if self.value.is_nan() {
            "-".to_owned()
        } else {
            format!("{:.decimals$}", self.value)
        }
    }

    pub(super) fn ratio(self, ratio: f64) -> Self {
        Self {
            ratio: Some(ratio),
            ..self
        }
    }
}

impl Goal {
    pub(super) fn new(text: String, met: bool) -> Self {
        Self { text, met }
    }

    /// A ratio should not be worse than this.
    pub(super) fn ratio(goal: f64, ratio: f64, better: Better) -> Self {
        let met = match better {
            Better::Lower => ratio <= goal,
            Better::Higher => ratio >= goal,
            Better::Neither => true,
        };
        Self::new(goal.to_string(), met)
    }
}

impl Report {
    pub(super) fn new(title: String, labels: &'static [Label], columns: Vec<Column>) -> Self {
        let kernel = nix::sys::utsname::uname();
        let kernel = kernel.map(|name| name.release().to_string_lossy().into_owned());
        Self {
            title,
            machine: machine(),
            kernel: kernel.unwrap_or_else(|_| "unknown".to_owned()),
            date: ask("date", &["--utc", "+%F"]),
            commit: ask("git", &["describe", "--always", "--dirty"]),
            labels,
            columns,
            rows: Vec::new(),
        }
    }

    /// Where it was measured, and what.
    pub(super) fn origin(&self) -> String {
        format!(
            "{}, Linux {}, on {} at commit {}",
            self.machine, self.kernel, self.date, self.commit
        )
    }

    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Prints all of it.
    pub(super) fn print(&self) {
        self.print_head();
        for row in &self.rows {
            self.print_row(row);
        }
    }

    /// Prints what comes before the first row.
    pub(super) fn print_head(&self) {
        println!("{}\n{}", self.origin(), self.title);
        let mut line = String::new();
        for label in self.labels {
            let _ = write!(line, "{:width$} ", label.name, width = label.width);
        }
        for column in &self.columns {
            let _ = write!(line, "{:>width$}", column.head(), width = column.width());
            if let Some(ratio) = column.ratio {
                let _ = write!(line, "{:>21}{ratio:>9}", "quartiles");
            }
        }
        println!("{line}");
    }

    /// Prints a row: those of a benchmark that takes hours are shown as they come.
    pub(super) fn print_row(&self, row: &Row) {
        let mut line = String::new();
        for (text, label) in row.labels.iter().zip(self.labels) {
            let _ = write!(line, "{text:width$} ", width = label.width);
        }
        for (figure, column) in row.figures.iter().zip(&self.columns) {
            let (width, decimals) = (column.width(), column.decimals);
            let _ = write!(line, "{:>width$}", figure.text(decimals));
            if let Some([low, high]) = figure.quartiles {
                let _ = write!(line, "{low:>11.decimals$} {high:>9.decimals$}");
            }
            if let Some(ratio) = figure.ratio {
                let _ = write!(line, "{ratio:>9.2}");
            }
        }
        for goal in &row.goals {
            let _ = write!(
                line,
                "  {}{}",
                goal.text,
                if goal.met { " met" } else { " MISSED" }
            );
        }
        println!("{line}");
    }

    /// Writes all of it to a file, if one is named.
    pub(super) fn write_json(&self, path: Option<PathBuf>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        std::fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// The table in Markdown.
    pub(super) fn markdown(&self) -> Result<String, fmt::Error> {
        let mut head: Vec<String> = Vec::new();
        let mut rule = String::new();
        for label in self.labels {
            head.push(label.name.to_owned());
            rule += "---|";
        }
        for column in &self.columns {
            head.push(column.head());
            rule += "---:|";
            if let Some(ratio) = column.ratio {
                head.push(ratio.to_owned());
                rule += "---:|";
            }
        }
        let mut text = format!("| {} | goal |\n|{rule}---|\n", head.join(" | "));
        for row in &self.rows {
            for label in &row.labels {
                write!(text, "| {label} ")?;
            }
            for (figure, column) in row.figures.iter().zip(&self.columns) {
                write!(text, "| {} ", figure.text(column.decimals))?;
                if let Some(ratio) = figure.ratio {
                    write!(text, "| {ratio:.2} ")?;
                }
            }
            let goals: Vec<String> = row.goals.iter().map(Goal::in_markdown).collect();
            writeln!(text, "| {} |", goals.join("; "))?;
        }
        Ok(text)
    }
}

impl Column {
    fn head(&self) -> String {
        match (self.name, self.unit) {
            (name, "") => name.to_owned(),
            ("", unit) => unit.to_owned(),
            (name, unit) => format!("{name}, {unit}"),
        }
    }

    fn width(&self) -> usize {
        (self.head().chars().count() + 2).max(10)
    }
}

impl Goal {
    fn in_markdown(&self) -> String {
        let verdict = if self.met { "met" } else { "**missed**" };
        format!("{}, {verdict}", self.text)
    }
}

/// Writes reports to a file, if one is named.
pub(super) fn write_all(reports: &[Report], path: Option<PathBuf>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(&path, serde_json::to_string_pretty(reports)?)
        .with_context(|| format!("write {}", path.display()))
}

/// For a label.
pub(super) fn family(ipv6: bool) -> String {
    if ipv6 { "IPv6" } else { "IPv4" }.to_owned()
}

pub(super) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Nearest rank. The values are not empty: there is at least one round.
pub(super) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

fn machine() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("unknown CPU", |(_, name)| name).to_owned()
}

/// What a program prints, or `unknown`.
fn ask(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
