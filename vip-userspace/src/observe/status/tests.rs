use super::*;
use crate::observe::metrics::{self, ProbeTimes};

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
    let text = metrics::render(&golden(), &ProbeTimes::default());
    compare("golden.metrics", &text, METRICS);
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).expect("a name");
        assert!(metrics::NAMES.contains(&name), "{name}");
    }
}

#[test]
fn text_has_a_line_for_each_fact_and_a_table_of_nodes() {
    compare("golden.txt", &golden().to_string(), TEXT);
}
