//! All that is known, for people: nothing is shortened, whatever the terminal's width.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use vip_node::settings::some;

use super::lines::{joined, labelled};
use super::{Node, Status, Xdp, age};
use crate::observe::paint::{Ink, paint};
use crate::words::counted;

/// Wider than any terminal.
const UNLIMITED: usize = 10_000;

/// What is not known.
const UNKNOWN: &str = "-";

/// A column of the table of nodes: its head, and its word for a node.
type Column = (&'static str, fn(&Status, &Node) -> String);

/// What this node sees of the others, then what their agents tell of themselves.
const COLUMNS: [Column; 21] = [
    ("STATE", |_, node| node.state().text().to_owned()),
    ("FOR", |_, node| node.since.brief()),
    ("ADDRESS", |_, node| node.address.to_string()),
    ("MAC", |_, node| known(node.mac.as_deref())),
    ("LIVENESS", |_, node| {
        known(node.liveness.map(|liveness| liveness.name()))
    }),
    ("BFD", |_, node| {
        known(node.bfd.as_ref().map(|bfd| bfd.state.name()))
    }),
    ("ROUND TRIP", |_, node| {
        millis(node.bfd.as_ref().and_then(|bfd| bfd.round_trip_ms))
    }),
    ("PROBE", |_, node| millis(node.rtt_ms)),
    ("NEW", |_, node| yes_or_no(node.usable)),
    ("PACKET/S", |_, node| {
        format!("{:.0}", node.packets_per_second)
    }),
    ("CONN/S", |_, node| {
        format!("{:.1}", node.connections_per_second)
    }),
    ("OPEN", |_, node| node.open_connections()),
    ("ROLE", |_, node| {
        let state = node.told.as_ref().and_then(|told| told.state);
        known(state.map(|state| state.name()))
    }),
    ("OWNER", |status, node| {
        let owner = node.told.as_ref().and_then(|told| told.owner);
        owner.map_or_else(|| UNKNOWN.to_owned(), |owner| status.name_of(owner))
    }),
    ("VERSION", |_, node| {
        known(node.told.as_ref().and_then(|told| told.version.as_deref()))
    }),
    ("XDP", |_, node| {
        let mode = node.told.as_ref().and_then(|told| told.mode);
        known(mode.map(|mode| mode.name()))
    }),
    ("CONFIG", |_, node| {
        let told = node.told.as_ref();
        known(told.and_then(|told| told.configuration.as_deref()))
    }),
    ("DRAINS", |_, node| {
        let draining = node.told.as_ref().and_then(|told| told.draining);
        draining.map_or_else(|| UNKNOWN.to_owned(), yes_or_no)
    }),
    ("FAULTS", |_, node| {
        let faults = node.told.iter().flat_map(|told| told.faults.iter());
        let faults: Vec<&str> = faults.map(|fault| fault.name()).collect();
        known((!faults.is_empty()).then(|| faults.join(", ")).as_deref())
    }),
    ("LAST PROBE", |_, node| node.probe.clone()),
    ("REASON", |status, node| {
        known(Some(status.reason(node).as_str()).filter(|reason| !reason.is_empty()))
    }),
];

fn known(word: Option<&str>) -> String {
    word.unwrap_or(UNKNOWN).to_owned()
}

fn millis(time: Option<f64>) -> String {
    time.map_or_else(|| UNKNOWN.to_owned(), |time| format!("{time:.2} ms"))
}

fn yes_or_no(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

impl Status {
    /// All that is known, for people, in lines as long as they get.
    #[must_use]
    pub fn wide(&self, now: Timestamp) -> String {
        let mut out = joined(&self.head(UNLIMITED));
        self.write_kernel(&mut out);
        self.write_services(&mut out);
        self.write_nodes(&mut out);
        self.write_history(&mut out, now);
        self.write_counters(&mut out);
        out
    }

    /// For how long this node would go on answering for the VIP.
    #[must_use]
    pub fn answer_lease(&self) -> String {
        match self.answer_lease_remaining_ms {
            0 => "none: this node does not answer for the VIP".to_owned(),
            left => format!("{left} ms left"),
        }
    }

    /// This node, its programs, sockets and settings.
    fn write_kernel(&self, out: &mut String) {
        let mut add = |label, text: &str| *out += &joined(&labelled(label, text, UNLIMITED));
        let takeovers = counted(self.takeovers, "takeover", "takeovers");
        let last = self.last_failover_ms;
        let last = last.map_or_else(String::new, |last| {
            format!(", the last failover in {last:.0} ms")
        });
        add(
            "Node",
            &format!(
                "{}, {} for {}, priority {}, {takeovers}{last}, vip {}",
                self.node,
                self.state.name(),
                age(self.state_for_ms),
                self.priority,
                self.version
            ),
        );
        add("Lease", &self.answer_lease());
        let Xdp {
            interface,
            mode,
            egress,
            proven,
            ..
        } = &self.xdp;
        let proof = if *proven {
            ""
        } else {
            " (not yet seen to run)"
        };
        let xdp = format!("{mode} on {interface}{proof}, egress program by {egress}");
        add("XDP", &xdp);
        if let Some(membership) = &self.membership {
            let sealed = match &membership.key {
                Some(key) => format!("sealed with key {key}"),
                None => "not sealed".to_owned(),
            };
            let text = format!(
                "{}; hellos by UDP port {}, {sealed}",
                membership.admission.text(),
                membership.port
            );
            add("Members", &text);
        }
        if let Some(rosters) = &self.rosters {
            add("Clients", &rosters.text(&self.nodes));
        }
        if let Some(port) = self.bfd_port {
            add("BFD", &format!("UDP port 3784, {}", port.text()));
        }
        for hook in &self.hooks {
            let name = hook.name.name();
            match &hook.cause {
                Some(cause) => add("Hook", &format!("{name}: {cause}")),
                None if hook.ahead.is_empty() => {}
                None => {
                    let text = format!("{name}: runs, behind {}", hook.ahead.join(", "));
                    add("Hook", &text);
                }
            }
        }
        let mut interfaces: BTreeMap<(&str, u32), Vec<String>> = BTreeMap::new();
        for setting in &self.settings {
            let key = (setting.name.name(), setting.value);
            let names = interfaces.entry(key).or_default();
            names.push(setting.interface.clone());
        }
        for ((name, value), interfaces) in interfaces {
            add(
                "Kernel",
                &format!("{name}={value} on {}", some(&interfaces)),
            );
        }
        match &self.local {
            Some(cgroup) => add("Local", &format!("redirected, for processes in {cgroup}")),
            None => add("Local", "not redirected"),
        }
    }

    fn write_services(&self, out: &mut String) {
        for service in &self.services {
            let allow = if service.allow.is_empty() {
                "everybody".to_owned()
            } else {
                service.allow.join(", ")
            };
            let text = format!(
                "{} to port {} of the nodes, for {allow}",
                service.endpoint, service.target_port
            );
            *out += &joined(&labelled("Port", &text, UNLIMITED));
        }
    }

    /// A table of all members: the node that was asked sees some of it, the members tell the rest.
    fn write_nodes(&self, out: &mut String) {
        let rows: Vec<Vec<String>> = self
            .nodes
            .iter()
            .map(|node| COLUMNS.iter().map(|(_, word)| word(self, node)).collect())
            .collect();
        let mut widths: Vec<usize> = COLUMNS.iter().map(|(head, _)| head.len()).collect();
        for row in &rows {
            for (width, word) in widths.iter_mut().zip(row) {
                *width = (*width).max(word.chars().count());
            }
        }
        let longest = self
            .nodes
            .iter()
            .map(|node| node.name.chars().count())
            .max();
        let longest = longest.unwrap_or(0).max(4);
        let _infallible = write!(out, "\n  {:longest$}", paint(Ink::Heading, "NODE"));
        for ((head, _), width) in COLUMNS.iter().zip(&widths) {
            let _infallible = write!(out, "  {:width$}", paint(Ink::Heading, *head));
        }
        trim(out);
        for (node, row) in self.nodes.iter().zip(&rows) {
            let mark = if self.owns(node) { "*" } else { " " };
            let _infallible = write!(out, "{mark} {:longest$}", node.name);
            for (place, (word, width)) in row.iter().zip(&widths).enumerate() {
                let ink = if place == 0 {
                    node.state().ink()
                } else {
                    Ink::Plain
                };
                let _infallible = write!(out, "  {:width$}", paint(ink, word));
            }
            trim(out);
        }
    }

    fn write_history(&self, out: &mut String, now: Timestamp) {
        for (title, lines) in [
            ("OWNERS", self.history.owner_lines(now, UNLIMITED)),
            ("TROUBLES", self.history.trouble_lines(now, UNLIMITED)),
        ] {
            if !lines.is_empty() {
                let title = paint(Ink::Heading, title);
                let _infallible = write!(out, "\n{title}\n{}", joined(&lines));
            }
        }
    }

    fn write_counters(&self, out: &mut String) {
        let mut counted = self
            .counters
            .iter()
            .filter(|(_, count)| **count > 0)
            .peekable();
        if counted.peek().is_some() {
            let _infallible = writeln!(out, "\n{}", paint(Ink::Heading, "FRAMES FOR THE VIP"));
        }
        for (name, count) in counted {
            let _infallible = writeln!(out, "{name:18} {count:>12}");
        }
    }
}

/// Ends a line, without spaces at its end.
fn trim(out: &mut String) {
    out.truncate(out.trim_end().len());
    out.push('\n');
}
