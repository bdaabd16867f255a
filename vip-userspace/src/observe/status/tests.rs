use super::*;
use crate::observe::metrics::{self, ProbeTimes};

/// A status in which everything is there, as it was written before it had types.
const GOLDEN: &str = include_str!("golden.json");

/// The same for people.
const TEXT: &str = include_str!("golden.txt");

/// The same as metrics.
const METRICS: &str = include_str!("golden.metrics");

/// The first of these, read.
pub(crate) fn golden() -> Status {
    let mut status: Status = serde_json::from_str(GOLDEN).expect("every code has its type");
    status.fault_codes = Fault::ALL.into();
    status
}

#[test]
fn json_is_what_it_was_before_it_had_types() {
    let status = golden();
    let texts: Vec<&str> = Fault::ALL.iter().map(|fault| fault.text()).collect();
    assert_eq!(status.faults, texts);
    let mut json = serde_json::to_value(&status).expect("is written");
    // The only field that came with the types.
    let codes = json
        .as_object_mut()
        .and_then(|json| json.remove("fault_codes"));
    let names: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
    assert_eq!(codes.expect("is there"), serde_json::json!(names));
    let status = Status {
        fault_codes: vec![],
        ..status
    };
    let text = serde_json::to_string_pretty(&status).expect("is written");
    assert_eq!(
        text.replacen("  \"fault_codes\": [],\n", "", 1),
        GOLDEN.trim_end()
    );
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
fn metrics_are_what_they_were_before_they_were_a_table() {
    let text = metrics::render(&golden(), &ProbeTimes::default());
    assert_eq!(text, METRICS);
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).expect("a name");
        assert!(metrics::NAMES.contains(&name), "{name}");
    }
}

#[test]
fn status_is_told_in_lines_and_a_table() {
    assert_eq!(golden().to_string(), TEXT);
}
