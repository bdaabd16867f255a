//! `docs/benchmarks.svg`: the product beside what it replaces, drawn from the tables of
//! `docs/benchmarks.md` and `docs/benchmarks-packet-path.md`. A test compares; with
//! `VIP_WRITE_DOCS=1` it writes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::text::count;

/// Narrow enough for a telephone, where it is shown at some three quarters of this.
const WIDTH: f64 = 456.0;
/// Where bars begin, and how long the longest one is.
const BARS: f64 = 180.0;
const LONGEST: f64 = 190.0;
const LINE: f64 = 22.0;

const STYLE: &str = "\
    .paper { fill: #ffffff }\n\
    text { fill: #1f2328 }\n\
    .dim { fill: #59636e; font-size: 12px }\n\
    .head { font-weight: 600 }\n\
    .ours { fill: #0969da }\n\
    .other { fill: #afb8c1 }\n\
    .goal { stroke: #bc4c00; stroke-width: 2 }\n\
    @media (prefers-color-scheme: dark) {\n\
    .paper { fill: #0d1117 }\n\
    text { fill: #f0f6fc }\n\
    .dim { fill: #9198a1 }\n\
    .ours { fill: #4493f8 }\n\
    .other { fill: #656c76 }\n\
    .goal { stroke: #f0883e }\n\
    }\n";

/// A question, and the answer of each product.
struct Group {
    title: &'static str,
    unit: &'static str,
    bars: Vec<Bar>,
    /// What the product should not exceed.
    goal: Option<f64>,
}

struct Bar {
    label: &'static str,
    value: f64,
}

/// Draws it, and writes it into the folder of documents. Returns its path.
///
/// # Errors
/// A page cannot be read, a figure is not in its table, or the picture cannot be written.
pub fn write(docs: &Path) -> Result<PathBuf> {
    let path = docs.join("benchmarks.svg");
    std::fs::write(&path, draw(docs)?).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn draw(docs: &Path) -> Result<String> {
    let read = |name: &str| {
        let path = docs.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let (failures, packets) = (read("benchmarks.md")?, read("benchmarks-packet-path.md")?);
    let groups = groups(&failures, &packets)?;
    let from = |what: &str, page: &str, command: &str| -> Result<String> {
        let origin = origin(page, command)?.replace(", at commit ", ", ");
        Ok(format!("{what}: {origin}"))
    };
    let notes = [
        "keepalived + HAProxy as in kubeadm's guide to high availability.".to_owned(),
        "400 requests a second, each failed after 50 ms; medians.".to_owned(),
        "Shorter is better. The orange line is the goal for vip.".to_owned(),
        from("vip", &failures, "`cargo xtask bench failover --runs")?,
        from(
            "keepalived + HAProxy",
            &failures,
            "`cargo xtask bench failover --profile",
        )?,
        from("CPU time", &packets, "`cargo xtask bench docs`")?,
        from("instructions", &failures, "`cargo xtask bench vm -- ")?,
    ];
    Ok(svg(&groups, &notes))
}

fn groups(failures: &str, packets: &str) -> Result<Vec<Group>> {
    let clients = Table::of(failures, "## What clients notice")?;
    let event = |title, unit, event: &str, column: usize| -> Result<Group> {
        let value = |profile: &str| clients.figure(&[event, profile], column);
        Ok(Group {
            title,
            unit,
            bars: vec![
                Bar::new("vip", value("default")?),
                Bar::new("keepalived + HAProxy", value("guide")?),
            ],
            goal: Some(value("goal")?),
        })
    };
    let connections = Table::of(packets, "## Connections")?;
    let added = |balancer: &str| connections.figure(&["connection with one request", balancer], 3);
    let ratio = connections.figure(&["connection with one request", "vip"], 5)?;
    let counted = Table::of(failures, "## Beside IPVS")?;
    let instructions = |balancer: &str| counted.figure(&[balancer], 1);
    Ok(vec![
        event(
            "The owner loses power: time without an answer",
            "ms",
            POWER_CUT,
            2,
        )?,
        event(
            "The owner loses power: requests that fail",
            "",
            POWER_CUT,
            3,
        )?,
        event(
            "The owner loses power: watches cut, servers alive",
            "%",
            POWER_CUT,
            4,
        )?,
        event(
            "An API server crashes: requests that fail",
            "",
            "The owner's API server crashes",
            3,
        )?,
        Group {
            title: "CPU time added to a connection with one request",
            unit: "µs",
            bars: vec![
                Bar::new("vip", added("vip")?),
                Bar::new("nftables (DNAT)", added("nftables")?),
                Bar::new("HAProxy", added("haproxy")?),
            ],
            goal: Some(ratio * added("haproxy")?),
        },
        Group {
            title: "Thousand instructions added to it, emulated",
            unit: "",
            bars: vec![
                Bar::new("vip", instructions("vip")?),
                Bar::new("IPVS (direct return)", instructions("IPVS")?),
            ],
            goal: None,
        },
    ])
}

const POWER_CUT: &str = "The owner's power cut";

impl Bar {
    fn new(label: &'static str, value: f64) -> Self {
        Self { label, value }
    }
}

/// A table of a page. An empty first cell is that of the row above.
struct Table(Vec<Vec<String>>);

impl Table {
    /// The first one below a heading.
    fn of(page: &str, heading: &str) -> Result<Self> {
        let (_, below) = page
            .split_once(&format!("{heading}\n"))
            .with_context(|| format!("no heading {heading:?}"))?;
        let lines = below
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'));
        let mut rows: Vec<Vec<String>> = Vec::new();
        for line in lines {
            let cells = line.trim_matches('|').split('|');
            let mut cells: Vec<String> = cells.map(|cell| cell.trim().to_owned()).collect();
            if let (Some(above), Some(first)) = (rows.last(), cells.first_mut())
                && first.is_empty()
            {
                first.clone_from(&above[0]);
            }
            rows.push(cells);
        }
        Ok(Self(rows))
    }

    /// The number that a cell begins with; of `1,331 of 1,331` it is the percentage.
    fn figure(&self, labels: &[&str], column: usize) -> Result<f64> {
        let mut rows = self.0.iter();
        let row = rows.find(|row| row.iter().zip(labels).all(|(cell, label)| cell == label));
        let row = row.with_context(|| format!("no row {labels:?}"))?;
        ensure!(row.len() > column, "{labels:?} has {} cells", row.len());
        let cell = &row[column];
        number(cell).with_context(|| format!("{labels:?}: {cell:?} is no figure"))
    }
}

fn number(cell: &str) -> Option<f64> {
    let parse = |text: &str| -> Option<f64> {
        let digits: String = text
            .trim()
            .chars()
            .filter(|c| *c != ',')
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        digits.parse().ok()
    };
    match cell.split_once(" of ") {
        Some((part, whole)) => Some(100.0 * parse(part)? / parse(whole)?),
        None => {
            // `0.25, met` is a goal and a verdict.
            let text = cell.split_once(", ").map_or(cell, |(goal, _)| goal);
            parse(text)
        }
    }
}

/// Where and when a command of a page ran: what follows it, up to the end of the sentence.
fn origin<'page>(page: &'page str, command: &str) -> Result<&'page str> {
    let found = page
        .split_once(command)
        .and_then(|(_, rest)| rest.split_once(" on "))
        .and_then(|(_, rest)| rest.split_once(". "));
    let (origin, _) =
        found.with_context(|| format!("the page does not say where {command} ran"))?;
    Ok(origin)
}

fn svg(groups: &[Group], notes: &[String]) -> String {
    let mut body = String::new();
    let mut y = 6.0;
    for group in groups {
        y += LINE;
        let title = group.title;
        let _ = writeln!(
            body,
            "<text class=\"head\" x=\"12\" y=\"{y}\">{title}</text>"
        );
        let values = group.bars.iter().map(|bar| bar.value);
        let most = values.chain(group.goal).fold(0.0, f64::max);
        let length = |value: f64| {
            if most > 0.0 {
                LONGEST * value / most
            } else {
                0.0
            }
        };
        let top = y + 6.0;
        for (index, bar) in group.bars.iter().enumerate() {
            y += LINE;
            let class = if index == 0 { "ours" } else { "other" };
            // One that is 0 is seen all the same.
            let width = length(bar.value).max(2.0);
            let mut value = amount(bar.value, group.unit);
            let mut end = width;
            if let (0, Some(goal)) = (index, group.goal) {
                let _ = write!(value, " (goal: {})", amount(goal, group.unit));
                end = end.max(length(goal) + 2.0);
            }
            let _ = writeln!(
                body,
                "<text x=\"{:.0}\" y=\"{y}\" text-anchor=\"end\">{}</text>\
                 <rect class=\"{class}\" x=\"{BARS:.0}\" y=\"{:.0}\" width=\"{width:.1}\" \
                 height=\"14\"/><text x=\"{:.1}\" y=\"{y}\">{value}</text>",
                BARS - 8.0,
                bar.label,
                y - 12.0,
                BARS + end + 6.0,
            );
        }
        if let Some(goal) = group.goal {
            let x = BARS + length(goal);
            let _ = writeln!(
                body,
                "<line class=\"goal\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.0}\" y2=\"{:.0}\"/>",
                top + 18.0
            );
        }
        y += 8.0;
    }
    y += 6.0;
    for note in notes {
        y += 17.0;
        let _ = writeln!(body, "<text class=\"dim\" x=\"12\" y=\"{y}\">{note}</text>");
    }
    let height = y + 14.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\" \
         font-family=\"-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\" \
         font-size=\"14\">\n<style>\n{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n{body}</svg>\n",
        description(groups)
    )
}

/// The figures in words, for those who cannot see the picture.
fn description(groups: &[Group]) -> String {
    let sentences = groups.iter().map(|group| {
        let bars = group.bars.iter();
        let bars = bars.map(|bar| format!("{} {}", bar.label, amount(bar.value, group.unit)));
        format!("{}: {}.", group.title, bars.collect::<Vec<_>>().join(", "))
    });
    sentences.collect::<Vec<_>>().join(" ")
}

fn amount(value: f64, unit: &str) -> String {
    let (value, unit) = match unit {
        "ms" if value >= 1000.0 => (format!("{:.1}", value / 1000.0), "s"),
        _ => (count(value.round() as usize), unit),
    };
    format!("{value} {unit}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_read_as_the_tables_write_it() {
        assert_eq!(number("95 (109)"), Some(95.0));
        assert_eq!(number("3,612 (3,700)"), Some(3612.0));
        assert_eq!(number("33.4"), Some(33.4));
        assert_eq!(number("0.25, met"), Some(0.25));
        assert_eq!(number("1,331 of 1,331"), Some(100.0));
        assert_eq!(number("-"), None);
    }

    #[test]
    fn an_empty_cell_is_that_of_the_row_above() {
        let page = "## One\n\nText\n\n| event | | gap |\n|---|---|---:|\n| cut | default | 95 |\n\
                    | | guide | 3,612 |\n\n## Two\n";
        let table = Table::of(page, "## One").expect("a table");
        assert_eq!(table.figure(&["cut", "guide"], 2).expect("there"), 3612.0);
        assert!(table.figure(&["cut", "fast"], 2).is_err());
        assert!(Table::of(page, "## Three").is_err());
    }

    #[test]
    fn the_picture_shows_the_figures_of_the_tables() {
        let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
        if std::env::var_os("VIP_WRITE_DOCS").is_some() {
            write(docs).expect("the picture is drawn");
        }
        let there = std::fs::read_to_string(docs.join("benchmarks.svg")).expect("the picture");
        let drawn = draw(docs).expect("all figures are there");
        assert!(
            there == drawn,
            "docs/benchmarks.svg is old; VIP_WRITE_DOCS=1 cargo test -p vip-tests --lib picture \
             draws it anew"
        );
    }
}
