//! `cargo xtask bench docs`: runs the benchmarks of the packet path and writes what they found
//! to `docs/benchmarks.md`, with a plot.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::connections::{self, Unit, Way};
use crate::{live, steer};

/// How long each benchmark runs.
pub(super) struct Effort {
    pub(super) rounds: usize,
    pub(super) packets: u32,
    pub(super) connections: u32,
}

pub(super) fn run(effort: &Effort) -> Result<()> {
    let rounds = effort.rounds;
    let steered = steer::measure(rounds, effort.packets)?;
    let live = live::measure(rounds, effort.packets)?;
    let connections = connections::measure(rounds, effort.connections, Way::USUAL)?;
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
    let plot = plot(&steered, &connections);
    for (name, text) in [
        ("benchmarks.md", page(&steered, &live, &connections)?),
        ("benchmarks.svg", plot),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

fn family(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

fn page(
    steer: &steer::Table,
    live: &live::Table,
    connections: &connections::Table,
) -> Result<String> {
    let mut page = format!(
        "# Benchmarks of the packet path\n\n\
         Made by `cargo xtask bench docs` on {}, Linux {}, at commit {}. Each number is the \
         median over {} rounds in which everything takes its turn. Machines are noisy: look at \
         the ratios.\n\n![What a packet and what a connection costs](benchmarks.svg)\n\n",
        steer.machine, steer.kernel, steer.commit, steer.rounds
    );
    page += "## What a packet costs the programs\n\n\
             Thread CPU time by `BPF_PROG_TEST_RUN` (`cargo xtask bench steer`). The ratio is to a \
             program that parses, swaps addresses and sends the packet back.\n\n\
             | program | hook | | flows | ns | ratio | goal |\n|---|---|---|---:|---:|---:|---|\n";
    for row in &steer.rows {
        let hook = match row.hook {
            steer::Hook::Xdp => "XDP",
            steer::Hook::Tc => "tc",
        };
        writeln!(
            page,
            "| {} | {hook} | {} | {} | {:.1} | {:.2} | {} |",
            row.name,
            family(row.ipv6),
            row.flows,
            row.median_ns,
            row.ratio,
            row.goal.in_markdown()
        )?;
    }
    page += "\n## Real frames\n\n\
             Frames a second of one core's time, from one end of a veth to the other, which drops \
             them on the same core (`cargo xtask bench live`).\n\n\
             | program | | million/s | ratio | goal |\n|---|---|---:|---:|---|\n";
    for row in &live.rows {
        writeln!(
            page,
            "| {} | {} | {:.2} | {:.2} | {} |",
            row.name,
            family(row.ipv6),
            row.per_second / 1e6,
            row.ratio,
            row.goal.in_markdown()
        )?;
    }
    page += "\n## Connections\n\n\
             CPU time of the whole machine, with client and servers, and what of it is more than \
             when the client goes to the servers itself (`cargo xtask bench connections`).\n\n\
             | | way | µs | added | of HAProxy's | goal |\n|---|---|---:|---:|---:|---|\n";
    for row in &connections.rows {
        let unit = match row.unit {
            Unit::Connection => "connection with one request",
            Unit::Request => "request on a kept connection",
        };
        writeln!(
            page,
            "| {unit} | {} | {:.1} | {:.1} | {:.2} | {} |",
            row.way.name(),
            row.total_us,
            row.added_us,
            row.ratio,
            row.goal.in_markdown()
        )?;
    }
    Ok(page)
}

/// A group of bars.
struct Chart {
    title: &'static str,
    unit: &'static str,
    bars: Vec<(String, f64)>,
}

/// What most people want to know, as bars.
fn plot(steer: &steer::Table, connections: &connections::Table) -> String {
    let packets = steer.rows.iter().filter(|row| row.flows == steer::MANY);
    let packets = packets.filter(|row| row.hook == steer::Hook::Xdp);
    let costs = Chart {
        title: "CPU time a packet, 1,000,000 flows, XDP",
        unit: "ns",
        bars: packets
            .map(|row| (format!("{}, {}", row.name, family(row.ipv6)), row.median_ns))
            .collect(),
    };
    let added = connections.rows.iter().filter(|row| row.way != Way::Direct);
    let added = Chart {
        title: "CPU time added by what lies between client and server",
        unit: "µs",
        bars: added
            .map(|row| {
                let unit = match row.unit {
                    Unit::Connection => "connection",
                    Unit::Request => "kept-alive request",
                };
                (format!("{unit}, {}", row.way.name()), row.added_us)
            })
            .collect(),
    };
    svg(&[costs, added])
}

/// Horizontal bars, chart below chart.
fn svg(charts: &[Chart]) -> String {
    const WIDTH: f64 = 760.0;
    const LABELS: f64 = 300.0;
    const LINE: f64 = 22.0;
    let mut body = String::new();
    let mut y = 0.0;
    for chart in charts {
        y += 1.5 * LINE;
        body += &format!(
            "<text x=\"0\" y=\"{y}\" font-weight=\"bold\">{}</text>\n",
            chart.title
        );
        let most = chart.bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
        for (label, value) in &chart.bars {
            y += LINE;
            // Room for the number behind the longest bar.
            let length = (WIDTH - LABELS - 80.0) * (value / most).max(0.0);
            body += &format!(
                "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{label}</text>\
                 <rect x=\"{LABELS}\" y=\"{}\" width=\"{length:.1}\" height=\"14\" \
                 fill=\"#3b6ea5\"/>\
                 <text x=\"{:.1}\" y=\"{y}\">{value:.1} {}</text>\n",
                LABELS - 8.0,
                y - 12.0,
                LABELS + length + 6.0,
                chart.unit
            );
        }
    }
    let height = y + LINE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-10 0 {} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect x=\"-10\" width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n",
        WIDTH + 20.0
    )
}
