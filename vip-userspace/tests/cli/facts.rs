//! What commands print of facts: the configuration, the version, events, the manual.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{names, refusal, vip};

#[test]
fn a_configuration_is_checked_alone_for_ci() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("vip.toml");
    let name = file.to_str().expect("a plain name");
    let check = |text: &str| {
        std::fs::write(&file, text).expect("writable");
        let output = vip(&["check", "--config-only", "--config", name, "-o", "json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), report)
    };
    let (code, report) = check("vip = \"10.0.0.10\"\nnodes = [\"10.0.0.11\", \"10.0.0.12\"]\n");
    assert_eq!((code, &report["verdict"]), (Some(0), &json!("hint")));
    let findings = report["findings"].as_array().expect("findings");
    let codes: Vec<&str> = findings
        .iter()
        .filter_map(|one| one["code"].as_str())
        .collect();
    assert_eq!(codes, ["config_ok", "etcd_even"]);
    let (code, report) = check("vip = \"10.0.0.10\"\n[vrrp]\npriorty = 1\nrouter_id = 0\n");
    assert_eq!((code, &report["verdict"]), (Some(2), &json!("failure")));
    let findings = report["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 2);
    assert_eq!(findings[1]["file"], json!(name));
    assert_eq!(
        (&findings[1]["line"], &findings[1]["column"]),
        (&json!(4), &json!(13))
    );
    let output = vip(&["check", "--config-only", "--vip", "10.0.0.10", "-o", "yaml"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.starts_with("verdict: ok\n"),
        "{text}"
    );
}

#[test]
fn help_and_manual_name_every_exit_status() {
    let directory = tempfile::tempdir().expect("a directory");
    let folder = directory.path().join("man1");
    let name = folder.to_str().expect("a plain name");
    let written = vip(&["man", "--output", name]);
    assert!(written.status.success(), "{written:?}");
    let pages = names(&folder);
    assert!(pages.contains(&"vip.1".to_owned()) && pages.contains(&"vip-status.1".to_owned()));
    for page in &pages {
        let text = std::fs::read_to_string(folder.join(page)).expect("a page");
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "EXIT STATUS",
            "FILES",
            "SEE ALSO",
        ] {
            let quoted = text.contains(&format!(".SH \"{section}\""));
            assert!(
                quoted || text.contains(&format!(".SH {section}\n")),
                "{page}: {section}"
            );
        }
        let command = page.trim_start_matches("vip").trim_end_matches(".1");
        let words = [command.trim_start_matches('-'), "--help"];
        let help = vip(if command.is_empty() {
            &words[1..]
        } else {
            &words
        });
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(help.contains("Exit status:\n  0  "), "{page}: {help}");
    }
}

#[test]
fn version_needs_no_agent_and_says_what_it_knows() {
    let output = vip(&["version", "-o", "json"]);
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["map_layout"].is_u64() && version["target"].is_string());
    let kernel = &version["kernel"];
    assert!(kernel["release"].is_string() && kernel["btf"].is_boolean());
    assert!(kernel["tcx"].is_boolean() || kernel["unknown_because"].is_string());
    let output = vip(&["--version"]);
    let begin = concat!("vip ", env!("CARGO_PKG_VERSION"));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(begin));
}

/// The journal of an agent that has ended.
fn journal(folder: &Path) {
    let events = [
        ("2026-01-01T00:00:00Z", "info", "started", None),
        ("2026-01-02T00:00:00Z", "warning", "bfd_down", Some("cp2")),
        ("2026-01-03T00:00:00Z", "info", "bfd_up", Some("cp2")),
    ];
    let lines = (0..)
        .zip(events)
        .map(|(sequence, (time, severity, event, node))| {
            let record = json!({
                "sequence": sequence, "time": time, "severity": severity, "event": event,
                "message": "it happened", "node": node,
            });
            format!("{record}\n")
        });
    let text: String = lines.collect();
    std::fs::write(folder.join("events.jsonl"), text).expect("writable");
}

#[test]
fn a_spoilt_journal_is_read_as_far_as_it_can_be() {
    let directory = tempfile::tempdir().expect("a directory");
    journal(directory.path());
    let run_dir = directory.path().to_str().expect("a plain name");
    let file = directory.path().join("events.jsonl");
    let mut bytes = std::fs::read(&file).expect("readable");
    let last = json!({
        "sequence": u64::MAX, "time": "2026-01-04T00:00:00Z", "severity": "info",
        "event": "started", "message": "it happened",
    });
    bytes.extend(
        [
            &b"{\"sequence\": \xff\x00\n"[..],
            format!("{last}\n").as_bytes(),
        ]
        .concat(),
    );
    std::fs::write(&file, bytes).expect("writable");
    let output = vip(&["events", "--run-dir", run_dir]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 4);
    let output = vip(&["events", "--run-dir", run_dir, "--node", "nosuch"]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no event matches"));
    std::fs::write(&file, "").expect("writable");
    let (code, text) = refusal(&["events", "--run-dir", run_dir]);
    assert!(
        code == Some(1) && text.contains("no event"),
        "{code:?} {text}"
    );
}

#[test]
fn events_are_chosen_and_have_the_time_that_is_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    journal(directory.path());
    let run_dir = directory.path().to_str().expect("a plain name");
    let events = |more: &[&str], zone: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vip"));
        command.args(["events", "--run-dir", run_dir]).args(more);
        let output = command.env("TZ", zone).output().expect("it was built");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let all = events(&["--utc"], "<+03>-3");
    assert_eq!(all.lines().count(), 3);
    assert!(
        all.starts_with("2026-01-01 00:00:00.000Z  info     it happened\n"),
        "{all}"
    );
    let local = events(&[], "<+03>-3");
    assert!(
        local.starts_with("2026-01-01 03:00:00.000+03:00  info"),
        "{local}"
    );
    for (more, sequences) in [
        (&["-n", "1"][..], &[2][..]),
        (&["--since", "2026-01-02T00:00:00Z"], &[1, 2]),
        (&["--since", "2026-01-02T00:00:00Z", "--lines", "1"], &[2]),
        (&["--since", "1m"], &[]),
        (&["--severity", "warning"], &[1]),
        (&["--event", "started", "--event", "bfd_up"], &[0, 2]),
        (&["--node", "cp2"], &[1, 2]),
        (&["--node", "cp2", "--severity", "error"], &[]),
    ] {
        let text = events(&[more, &["--json"]].concat(), "UTC");
        let seen: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
            .filter_map(|event| event["sequence"].as_u64())
            .collect();
        assert_eq!(seen, sequences, "{more:?}");
    }
    let yaml = events(&["-o", "yaml"], "UTC");
    assert_eq!(yaml.matches("---\n").count(), 3, "{yaml}");
    for wrong in [
        &["--since", "-1h"][..],
        &["--since", "soon"],
        &["--event", "bfd_upp"],
    ] {
        let (code, text) = refusal(&[&["events", "--run-dir", run_dir], wrong].concat());
        assert_eq!((code, text.lines().count()), (Some(2), 1), "{text}");
    }
}
