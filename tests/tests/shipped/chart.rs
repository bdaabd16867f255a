//! The Helm chart, rendered by Helm's own engine. The scenario `kubernetes` shows a real API server
//! what came of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{given, outcome, repository, run, vip};

/// What the API server of the scenario `kubernetes` is shown.
const SHOWN: &str = "tests/src/scenarios/chart.yaml";

/// Rewrites that file, as other tests do with theirs.
const WRITE: &str = "VIP_WRITE_DOCS";

/// Renders the chart. `Err` is Helm's message.
fn render(python: &Path, values: &Value) -> Result<BTreeMap<String, String>, String> {
    let mut script = Command::new("python3");
    script.env("PYTHONPATH", python);
    script.arg(repository().join("tests/tests/shipped/render.py"));
    script.arg(repository().join("deploy/helm/vip"));
    let (passed, text) = outcome(script.arg(values.to_string()));
    if !passed {
        return Err(text);
    }
    let mut done: Value = serde_json::from_str(&text).expect(&text);
    assert_eq!(done["findings"], json!([]), "helm lint");
    let files = serde_json::from_value(done["files"].take()).expect("files");
    Ok(files)
}

fn python(test: &str) -> Option<PathBuf> {
    given("VIP_TESTS_PYTHON", test)
}

/// The only object in a rendered file.
fn object(files: &BTreeMap<String, String>, name: &str) -> Value {
    let text = &files[&format!("vip/templates/{name}.yaml")];
    serde_yaml_ng::from_str(text).expect(text)
}

/// The pod of a DaemonSet, without what a static pod does not need.
fn pod_of_chart(python: &Path, values: &Value) -> Value {
    let files = render(python, values).expect("renders");
    let mut spec = object(&files, "daemonset")["spec"]["template"]["spec"].take();
    let selector = spec
        .as_object_mut()
        .expect("a table")
        .remove("nodeSelector");
    assert_eq!(
        selector,
        Some(json!({"node-role.kubernetes.io/control-plane": ""}))
    );
    let container = spec["containers"][0].as_object_mut().expect("a table");
    // For the PodMonitor, which looks for it by name.
    if let Some(ports) = container.remove("ports") {
        assert_eq!(
            ports,
            json!([{"name": "http", "containerPort": 9643, "protocol": "TCP"}])
        );
    }
    spec
}

/// What `vip manifest` prints.
fn printed_pod(flags: &str) -> Value {
    let mut vip = Command::new(vip());
    let text = run(vip.arg("manifest").args(flags.split_whitespace()));
    let mut pod: Value = serde_yaml_ng::from_str(&text).expect(&text);
    pod["spec"].take()
}

/// Takes the arguments out of a pod: their order is free.
fn take_arguments(pod: &mut Value) -> Vec<String> {
    let arguments = pod["containers"][0]["args"].take();
    let mut words: Vec<String> = serde_json::from_value(arguments).expect("words");
    assert_eq!(words.remove(0), "run");
    words.sort();
    words
}

#[test]
fn the_chart_runs_the_pod_that_the_binary_prints() {
    let Some(python) = python("the_chart_runs_the_pod_that_the_binary_prints") else {
        return;
    };
    let vip = "10.0.0.10:6443";
    for (values, flags) in [
        (json!({"vip": vip}), "--vip 10.0.0.10:6443"),
        (
            json!({"vip": vip, "nodes": ["10.0.0.11", "10.0.0.12", "10.0.0.13"],
                   "key": {"hostPath": "/etc/vip"}, "extraArgs": ["--interface", "eth1"]}),
            "--vip 10.0.0.10:6443 --nodes 10.0.0.11,10.0.0.12,10.0.0.13 --key-file /etc/vip/key --interface eth1",
        ),
        (
            json!({"vip": vip, "pki": "/var/lib/rancher/k3s/server/tls",
                   "image": {"repository": "registry.example/vip", "tag": "1"}}),
            "--vip 10.0.0.10:6443 --distribution k3s --image registry.example/vip:1",
        ),
        (
            json!({"vip": vip, "pki": "", "extraArgs": ["--insecure"]}),
            "--vip 10.0.0.10:6443 --insecure",
        ),
        (
            json!({"vip": vip, "podMonitor": {"enabled": true}}),
            "--vip 10.0.0.10:6443 --http node:9643",
        ),
    ] {
        let mut chart = pod_of_chart(&python, &values);
        let mut printed = printed_pod(flags);
        assert_eq!(
            take_arguments(&mut chart),
            take_arguments(&mut printed),
            "{flags}"
        );
        assert_eq!(chart, printed, "{flags}");
    }
}

#[test]
fn a_configuration_file_and_a_secret_are_where_the_pod_has_them_on_hosts() {
    let test = "a_configuration_file_and_a_secret_are_where_the_pod_has_them_on_hosts";
    let Some(python) = python(test) else {
        return;
    };
    let file = "vip = \"10.0.0.10:6443\"\nkey_file = \"/etc/vip/key\"\n";
    let values = json!({"config": file, "key": {"secretName": "vip-key"}});
    let chart = pod_of_chart(&python, &values);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vip.toml");
    fs::write(&path, file).expect("writes");
    let printed = printed_pod(&format!("--from {}", path.display()));
    assert_eq!(chart["containers"], printed["containers"]);

    let files = render(&python, &values).expect("renders");
    let map = object(&files, "configmap");
    assert_eq!(
        map["data"]["vip.toml"].as_str().map(str::trim_end),
        Some(file.trim_end())
    );
    let volumes = chart["volumes"].as_array().expect("a list");
    let volume = volumes.iter().find(|volume| volume["name"] == "config");
    let sources = &volume.expect("a volume")["projected"]["sources"];
    assert_eq!(sources[0]["configMap"]["name"], map["metadata"]["name"]);
    // The agent refuses a key that others can read.
    assert_eq!(
        sources[1]["secret"]["items"],
        json!([{"key": "key", "path": "key", "mode": 0o400}])
    );
}

#[test]
fn values_that_cannot_work_are_refused_in_a_sentence() {
    let Some(python) = python("values_that_cannot_work_are_refused_in_a_sentence") else {
        return;
    };
    let vip = "10.0.0.10:6443";
    for (values, says) in [
        (json!({}), "set vip"),
        (
            json!({"vip": vip, "config": "vip = \"10.0.0.10:6443\""}),
            "config replaces vip",
        ),
        (
            json!({"vip": vip, "key": {"hostPath": "/etc/vip", "secretName": "key"}}),
            "not both",
        ),
        (
            json!({"config": "vip = \"10.0.0.10:6443\"", "key": {"hostPath": "/etc/vip/"}}),
            "let key.hostPath be another directory",
        ),
        (json!({"vip": vip, "vips": []}), "vips"),
        (
            json!({"vip": vip, "image": {"digest": "sha256:1"}}),
            "digest",
        ),
    ] {
        let said = render(&python, &values).expect_err("refused");
        assert!(said.contains(says), "{values}: {said}");
    }
}

#[test]
fn the_api_server_is_shown_what_the_chart_renders() {
    let Some(python) = python("the_api_server_is_shown_what_the_chart_renders") else {
        return;
    };
    let mut shown = "# What the chart renders, for the scenario `kubernetes`.\n\
                     # VIP_WRITE_DOCS=1 lets the test `shipped` write it anew.\n"
        .to_owned();
    for values in [
        json!({"vip": "10.0.0.10:6443", "nodes": ["10.0.0.11"], "key": {"hostPath": "/etc/vip"},
               "image": {"digest": format!("sha256:{}", "0".repeat(64))}}),
        json!({"config": "vip = \"10.0.0.10:6443\"\nkey_file = \"/etc/vip/key\"\n",
               "key": {"secretName": "vip-key"}}),
    ] {
        for (name, text) in render(&python, &values).expect("renders") {
            if name.ends_with(".yaml") && !text.trim().is_empty() {
                shown += &format!("---\n# {name}\n{}\n", text.trim());
            }
        }
    }
    let path = repository().join(SHOWN);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &shown).expect("writes");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(there, shown, "{SHOWN}: write it anew with {WRITE}=1");
}

#[test]
fn chart_and_role_name_the_version_of_the_workspace() {
    let version = env!("CARGO_PKG_VERSION");
    let read = |path: &str| fs::read_to_string(repository().join(path)).expect(path);
    let chart: Value = serde_yaml_ng::from_str(&read("deploy/helm/vip/Chart.yaml")).expect("YAML");
    assert_eq!(chart["version"], version);
    assert_eq!(chart["appVersion"], version);
    let defaults = read("deploy/ansible/roles/vip/defaults/main.yml");
    let defaults: Value = serde_yaml_ng::from_str(&defaults).expect("YAML");
    assert_eq!(defaults["vip_image_tag"], version);
}
