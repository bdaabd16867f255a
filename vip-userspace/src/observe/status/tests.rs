use std::time::Duration;

use super::*;
use crate::observe::metrics::tests::render_steady;
use crate::observe::metrics::{self, Instruments};
use crate::probe::Found;
use vip_node::health::Probe;

/// A status in which everything is there. All but `fault_codes` was written by the last version
/// without types.
const GOLDEN: &str = include_str!("golden.json");

/// The same for people.
const TEXT: &str = include_str!("golden.txt");

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

#[test]
fn text_has_a_line_for_each_fact_and_a_table_of_nodes() {
    compare("golden.txt", &golden().to_string(), TEXT);
}
