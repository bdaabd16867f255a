//! Files of `deploy/` for Prometheus and Grafana: they must fit what agents serve, and each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_yaml_ng::Value;
use vip_common::abi::Counter;

/// What an agent serves, but for its process.
const METRICS: &str = include_str!("../src/observe/status/golden.metrics");
const RULES: &str = include_str!("../../deploy/prometheus/alerts.yaml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/vip.json");
const POD_MONITOR: &str = include_str!("../../deploy/prometheus/pod-monitor.yaml");
const PAGE: &str = include_str!("../../docs/monitoring.md");

/// Labels that Prometheus or the operator sets, and what they are made of.
const TARGET_LABELS: [&str; 4] = ["cluster", "job", "instance", "le"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus")
}

/// The files of the folder with such a name.
fn files(named: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("a folder of the repository");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = paths
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| named(&name.to_string_lossy()))
        })
        .collect();
    found.sort();
    found
}

fn rule_tests() -> Vec<PathBuf> {
    files(|name| name.starts_with("alerts_test_"))
}

/// Runs promtool in the folder.
fn promtool<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) {
    let done = Command::new("promtool")
        .current_dir(folder())
        .args(arguments)
        .output()
        .expect("start promtool (Debian's package prometheus)");
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

/// The rules that are alerts.
fn alerts() -> Vec<Value> {
    let file: Value = serde_yaml_ng::from_str(RULES).expect("YAML");
    let groups = file["groups"].as_sequence().expect("groups");
    let rules = groups.iter().flat_map(|group| {
        let rules = group["rules"].as_sequence().expect("rules");
        rules.iter().cloned()
    });
    rules.filter(|rule| rule.get("alert").is_some()).collect()
}

fn text<'v>(of: &'v Value, key: &str) -> &'v str {
    let value = of.get(key).and_then(Value::as_str);
    value.unwrap_or_else(|| panic!("no text `{key}` in {of:?}"))
}

/// The labels of each metric, and their values.
type Labels<'t> = BTreeMap<&'t str, BTreeMap<&'t str, BTreeSet<&'t str>>>;

/// What is between braces: label, operator and value of each matcher.
fn matchers(inner: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    inner.split("\",").filter_map(|one| {
        let end = one.find(['=', '!'])?;
        let (label, rest) = one.split_at(end);
        let (operator, value) = rest.split_once('"')?;
        Some((label.trim(), operator, value.trim_end_matches('"')))
    })
}

fn served() -> Labels<'static> {
    let mut served = Labels::new();
    for line in METRICS.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once('{').expect("all bear the label vip");
        let (inner, _value) = rest.split_once('}').expect("a value");
        let labels = served.entry(name).or_default();
        for (label, _, value) in matchers(inner) {
            labels.entry(label).or_default().insert(value);
        }
    }
    served
}

/// The metrics that an expression names, with what stands in their braces.
fn named(expression: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let starts = expression
        .char_indices()
        .filter(move |(at, _)| !expression[..*at].ends_with(is_part));
    starts.filter_map(move |(at, _)| {
        let rest = &expression[at..];
        let end = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let is_metric = name.starts_with("vip_") || name.starts_with("process_");
        let inner = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        is_metric.then_some((name, inner.map_or("", |(inner, _)| inner)))
    })
}

/// The expressions of alerts and dashboard.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_yaml_ng::from_str(DASHBOARD).expect("JSON is YAML");
    let panels = dashboard["panels"].as_sequence().expect("panels").clone();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_sequence().into_iter().flatten());
    let of_dashboard = targets.map(|target| text(target, "expr").to_owned());
    let rules: Value = serde_yaml_ng::from_str(RULES).expect("YAML");
    let rules = rules["groups"][0]["rules"].as_sequence().expect("rules");
    let of_rules = rules.iter().map(|rule| text(rule, "expr").to_owned());
    of_rules.chain(of_dashboard).collect()
}

#[test]
fn rules_are_well_formed_and_pass_their_tests() {
    promtool(&["check", "rules", "alerts.yaml"]);
    for file in rule_tests() {
        promtool(&["test".as_ref(), "rules".as_ref(), file.as_os_str()]);
    }
}

#[test]
fn each_alert_fires_in_a_test_and_has_a_section_for_the_operator() {
    let tests: String = rule_tests()
        .iter()
        .map(|file| std::fs::read_to_string(file).expect("a file of the repository"))
        .collect();
    let mut sections: BTreeSet<&str> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    for alert in alerts() {
        let name = text(&alert, "alert");
        assert!(
            tests.contains(&format!("alertname=\"{name}\"")),
            "no test in which {name} fires"
        );
        assert!(sections.remove(name), "docs/monitoring.md lacks {name}");
        let annotations = &alert["annotations"];
        let anchor = format!("docs/monitoring.md#{}", name.to_lowercase());
        assert_eq!(text(annotations, "runbook"), anchor);
        let severity = text(&alert["labels"], "severity");
        assert!(["critical", "warning"].contains(&severity), "{name}");
        for (key, longest) in [("summary", 100), ("description", 420)] {
            let length = text(annotations, key).len();
            assert!(length <= longest, "{key} of {name}: {length} characters");
        }
    }
    assert!(sections.is_empty(), "no alerts: {sections:?}");
}

#[test]
fn expressions_name_metrics_labels_and_values_that_are_served() {
    let served = served();
    let verdicts: Vec<&str> = Counter::ALL.iter().map(|counter| counter.name()).collect();
    let expressions = expressions();
    assert!(expressions.len() > 50, "{}", expressions.len());
    let mut seen = 0;
    for expression in &expressions {
        for (name, inner) in named(expression) {
            seen += 1;
            let own = if name.starts_with("process_") {
                assert!(
                    vip_userspace::observe::metrics::names().any(|known| known == name),
                    "no metric {name}"
                );
                None
            } else {
                Some(served.get(name).unwrap_or_else(|| panic!("no {name}")))
            };
            for (label, operator, value) in matchers(inner) {
                if TARGET_LABELS.contains(&label) || label == "vip" {
                    continue;
                }
                let values = own.and_then(|labels| labels.get(label));
                let values = values.unwrap_or_else(|| panic!("{name} has no label {label}"));
                if value.is_empty() || operator.starts_with('!') {
                    continue;
                }
                for value in value.split('|') {
                    assert!(
                        values.contains(value) || label == "verdict" && verdicts.contains(&value),
                        "{name} has no {label}=\"{value}\""
                    );
                }
            }
        }
    }
    assert!(seen > 60, "{seen}");
    let labels: BTreeSet<&str> = served.values().flat_map(BTreeMap::keys).copied().collect();
    for expression in &expressions {
        for keyword in ["by (", "on (", "group_left ("] {
            for rest in expression.split(keyword).skip(1) {
                let (list, _) = rest.split_once(')').expect("a closed list");
                for label in list.split(',').map(str::trim).filter(|one| !one.is_empty()) {
                    let known = labels.contains(label) || TARGET_LABELS.contains(&label);
                    assert!(
                        known || label == "alertname",
                        "no label {label}: {expression}"
                    );
                }
            }
        }
    }
}

#[test]
fn dashboard_is_promql_for_the_chosen_cluster_and_its_panels_fit() {
    let dashboard: Value = serde_yaml_ng::from_str(DASHBOARD).expect("JSON is YAML");
    let panels = dashboard["panels"].as_sequence().expect("panels");
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")));
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{}", text(panel, "title"));
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} overlaps", text(panel, "title"));
            }
        }
        for target in panel["targets"].as_sequence().into_iter().flatten() {
            let expression = text(target, "expr");
            for (name, inner) in named(expression) {
                let chosen = "cluster=~\"$cluster\",vip=~\"$vip\"";
                assert!(inner.starts_with(chosen), "{name} in {expression}");
            }
            let expression = expression.replace("$__rate_interval", "1m");
            let number = rules.lines().count();
            rules += &format!("  - record: vip:panel:{number}\n    expr: {expression:?}\n");
        }
    }
    let variables = dashboard["templating"]["list"].as_sequence();
    let variables: Vec<&str> = variables
        .expect("variables")
        .iter()
        .map(|variable| text(variable, "name"))
        .collect();
    assert_eq!(variables, ["datasource", "cluster", "vip"]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, rules).expect("writes");
    promtool(&["check".as_ref(), "rules".as_ref(), file.as_os_str()]);
}

#[test]
fn scrape_configuration_is_one_that_prometheus_takes() {
    promtool(&["check", "config", "scrape.yaml"]);
}

/// The fields of a PodMonitor (monitoring.coreos.com/v1) that ours may use, as the definition of the
/// operator's version 0.93 has them.
const SPEC: [&str; 3] = ["namespaceSelector", "podMetricsEndpoints", "selector"];
const ENDPOINT: [&str; 3] = ["interval", "path", "relabelings"];
const RELABELING: [&str; 4] = ["regex", "replacement", "sourceLabels", "targetLabel"];

fn keys(of: &Value) -> Vec<&str> {
    let table = of.as_mapping().expect("a table");
    table.keys().filter_map(Value::as_str).collect()
}

#[test]
fn pod_monitor_selects_the_pod_that_the_binary_prints() {
    let monitor: Value = serde_yaml_ng::from_str(POD_MONITOR).expect("YAML");
    assert_eq!(text(&monitor, "apiVersion"), "monitoring.coreos.com/v1");
    assert_eq!(text(&monitor, "kind"), "PodMonitor");
    let spec = &monitor["spec"];
    let known = |of: &Value, known: &[&str]| {
        let unknown: Vec<_> = keys(of)
            .into_iter()
            .filter(|key| !known.contains(key))
            .map(str::to_owned)
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    };
    known(spec, &SPEC);
    let [endpoint] = &spec["podMetricsEndpoints"].as_sequence().expect("a list")[..] else {
        panic!("one endpoint")
    };
    known(endpoint, &ENDPOINT);
    assert_eq!(text(endpoint, "path"), "/metrics");
    let relabelings = endpoint["relabelings"].as_sequence().expect("a list");
    let mut addresses = 0;
    for relabeling in relabelings {
        known(relabeling, &RELABELING);
        if text(relabeling, "targetLabel") == "__address__" {
            addresses += 1;
            let port = text(relabeling, "replacement").rsplit_once(':');
            assert_eq!(port.map(|(_, port)| port), Some("9643"));
        }
    }
    assert_eq!(addresses, 2, "one for IPv4, one for IPv6");

    let printed = Command::new(env!("CARGO_BIN_EXE_vip"))
        .args(["manifest", "--vip", "10.0.0.10", "--http", "node:9643"])
        .output()
        .expect("it was built");
    assert!(printed.status.success(), "{printed:?}");
    let printed = String::from_utf8(printed.stdout).expect("text");
    let pod: Value = serde_yaml_ng::from_str(&printed).expect("YAML");
    assert!(printed.contains("node:9643"));
    let wanted = spec["selector"]["matchLabels"]
        .as_mapping()
        .expect("labels");
    for (label, value) in wanted {
        assert_eq!(pod["metadata"]["labels"].get(label), Some(value));
    }
    let namespaces = spec["namespaceSelector"]["matchNames"].as_sequence();
    let namespace = &pod["metadata"]["namespace"];
    assert!(namespaces.is_some_and(|names| names.contains(namespace)));
    // The address is made from the pod's: its node's. A declared port would make a second target.
    assert_eq!(pod["spec"]["hostNetwork"], Value::Bool(true));
    let containers = pod["spec"]["containers"].as_sequence().expect("containers");
    assert_eq!(containers.len(), 1);
    assert!(containers[0].get("ports").is_none());
}
