use std::time::Duration;

use super::*;
use crate::observe::metrics::tests::render_steady;
use crate::observe::metrics::{self, Instruments};
use crate::probe::Found;
use vip_node::health::Probe;

/// A status in which everything is there. All but `fault_codes` was written by the last version
/// without types.
const GOLDEN: &str = include_str!("golden.json");

/// The same for people, in a terminal of 80 columns.
const TEXT: &str = include_str!("golden.txt");

/// All of it for people.
const WIDE: &str = include_str!("golden.wide.txt");

/// The same as metrics.
const METRICS: &str = include_str!("golden.metrics");

/// The first of these, read.
pub(crate) fn golden() -> Status {
    serde_json::from_str(GOLDEN).expect("every code has its type")
}

/// Compares with a golden file, or writes it with `VIP_WRITE_DOCS=1`.
fn compare(file: &str, text: &str, golden: &str) {
    if std::env::var_os("VIP_WRITE_DOCS").is_some() {
        let path = format!("{}/src/observe/status/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, text).expect("writes");
    } else {
        assert_eq!(text, golden);
    }
}

#[test]
fn json_keeps_its_form() {
    let status = golden();
    let json = serde_json::to_string_pretty(&status).expect("is written");
    compare("golden.json", &format!("{json}\n"), GOLDEN);
    assert_eq!(status.fault_codes, Fault::ALL);
    let texts = Fault::ALL.map(|fault| fault.text().to_owned());
    assert_eq!(status.faults, texts);
}

#[test]
fn codes_are_named_alike_in_json_and_metrics() {
    fn same(code: impl Serialize, name: &str) {
        assert_eq!(serde_json::to_value(code).expect("a name"), name);
    }
    for fault in Fault::ALL {
        same(fault, fault.name());
    }
    for kind in Kind::ALL {
        same(kind, kind.name());
    }
    for state in State::ALL {
        same(state, state.name());
    }
    for resort in Resort::ALL {
        same(resort, resort.name());
    }
    for key in Key::ALL {
        same(key, key.name());
    }
    for runs in [Running::Unproven, Running::Yes, Running::No] {
        same(runs, runs.name());
    }
    for hook in [
        hooks::Hook::Ingress,
        hooks::Hook::Egress,
        hooks::Hook::Connect,
    ] {
        same(hook, hook.name());
    }
    for port in [
        BfdPort::Sole,
        BfdPort::Shared,
        BfdPort::Bound,
        BfdPort::Lost,
    ] {
        same(port, port.name());
    }
    for mode in [Mode::Native, Mode::Generic, Mode::Tc] {
        same(mode, mode.name());
    }
    for egress in [Egress::Tcx, Egress::Clsact] {
        same(egress, egress.name());
    }
}

#[test]
fn metrics_keep_their_form() {
    let instruments = Instruments::default();
    let found = Found {
        probe: Probe::Ready,
        rtt: Some(Duration::from_millis(3)),
        failure: None,
        certificate_not_after: None,
    };
    instruments.note_probe("cp1", 6443, &found);
    let text = render_steady(&golden(), &instruments);
    compare("golden.metrics", &text, METRICS);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut written: Vec<_> = types.filter_map(|line| line.split(' ').next()).collect();
    let process = |name: &str| name.starts_with("process_");
    let mut known: Vec<_> = metrics::names().filter(|name| !process(name)).collect();
    written.sort_unstable();
    known.sort_unstable();
    assert_eq!(written, known, "the golden status has all metrics");
    let series = text.lines().filter(|line| !line.starts_with('#'));
    for line in series {
        assert!(line.contains("{vip=\"10.0.0.10:6443\""), "{line}");
    }
}

/// A cluster of three nodes, with nothing wrong.
pub(crate) fn healthy() -> Status {
    let golden = golden();
    let mut nodes = golden.nodes.clone();
    nodes.truncate(3);
    for node in &mut nodes {
        let told = node.told.as_mut().expect("it tells");
        told.faults.clear();
        told.draining = Some(false);
        node.liveness = (!node.own).then_some(PeerState::Up);
        (node.alive, node.ready, node.usable, node.confirmed) = (true, true, true, true);
        (node.unknown, node.draining, node.silent, node.hung) = (false, false, false, false);
        node.echo = None;
        node.probe = "ready".to_owned();
    }
    let mut services = golden.services.clone();
    services.truncate(1);
    Status {
        services,
        nodes,
        faults: Vec::new(),
        fault_codes: Vec::new(),
        alarms: Vec::new(),
        claim: None,
        time: None,
        claimant_unheard: false,
        claimant: None,
        conflicts: 0,
        last_claim: None,
        hears_nobody: None,
        credentials_trouble: None,
        ..golden
    }
}

/// Without colours.
pub(crate) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn text_says_what_is_wrong_and_fits_a_terminal() {
    let text = plain(&golden().text(80));
    compare("golden.txt", &text, TEXT);
}

#[test]
fn wide_text_has_all_that_is_known() {
    let now = "2026-11-28T03:00:00Z".parse().expect("a time");
    let text = plain(&golden().wide(now));
    compare("golden.wide.txt", &text, WIDE);
    let status = healthy();
    let wide = plain(&status.wide(now));
    for service in &status.services {
        assert!(wide.contains("for 10.0.0.0/8"), "{service:?}: {wide}");
    }
}

/// Names as they are in large clusters.
pub(crate) fn long_names() -> Status {
    let mut status = healthy();
    for (number, node) in status.nodes.iter_mut().enumerate() {
        node.name = format!("prod-control-plane-rack-{number}-0001.dc1.example.net");
    }
    status.nodes[1].hung = true;
    status.nodes[1].probe = "answered nothing for 1.5 s on an open connection, and 17 connections \
        wait in its accept queue"
        .to_owned();
    status.nodes[2].liveness = Some(PeerState::Gone);
    status
}

#[test]
fn no_line_is_longer_than_the_terminal_and_no_word_is_missing() {
    let status = long_names();
    for width in [60, 80, 120, 160] {
        let text = plain(&status.text(width));
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line:?}");
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = words.join(" ");
        assert!(words.contains(&status.nodes[1].probe), "{width}: {words}");
        for state in ["ready", "hung", "gone"] {
            let rows = text.lines().filter(|line| line.contains(state));
            assert!(rows.count() > 0, "{state} at {width}:\n{text}");
        }
    }
}

#[test]
fn states_have_one_name_and_a_short_word() {
    for state in NodeState::ALL {
        let json = serde_json::to_value(state).expect("a name");
        assert_eq!(json, state.name());
        assert!(state.text().len() <= 9);
        assert_eq!(state.meaning().is_empty(), state == NodeState::Ready);
    }
}

#[test]
fn a_dead_node_or_agent_is_no_ready_one() {
    let mut node = healthy().nodes.remove(1);
    for (liveness, silent, state) in [
        (PeerState::Up, false, NodeState::Ready),
        (PeerState::Watched, false, NodeState::NoAgent),
        (PeerState::Suspect, false, NodeState::Suspect),
        (PeerState::Away, false, NodeState::NoAgent),
        (PeerState::Away, true, NodeState::Down),
        (PeerState::Gone, true, NodeState::Gone),
    ] {
        (node.liveness, node.silent) = (Some(liveness), silent);
        assert_eq!(node.state(), state, "{liveness:?}");
    }
    node.liveness = Some(PeerState::Up);
    node.hung = true;
    assert_eq!(node.state(), NodeState::Hung);
    node.draining = true;
    assert_eq!(node.state(), NodeState::Drained);
    assert!(node.reason().contains("drain"), "{}", node.reason());
}
