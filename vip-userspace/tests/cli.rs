//! The binary as operators meet it: what it prints and how it exits when something is wrong.

use std::process::{Command, Output};

fn vip(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vip"))
        .args(arguments)
        .output()
        .expect("it was built")
}

/// Exit code and standard error.
fn refusal(arguments: &[&str]) -> (Option<i32>, String) {
    let output = vip(arguments);
    assert!(output.stdout.is_empty(), "{output:?}");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn bad_input_gets_one_line_and_exit_code_2() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("vip.toml");
    let name = file.to_str().expect("a plain name");
    std::fs::write(&file, "vpi = \"10.0.0.10\"\nnodes = [\"10.0.0.11\"]\n").expect("writable");
    for arguments in [
        &["run", "--config", name][..],
        &["check", "--config", name],
        &["cleanup", "--config", name],
        &["run", "--vip", "10.0.0.10:0", "--nodes", "10.0.0.11"],
        &["run", "--vip", "10.0.0.10"],
        &["run", "--config", "/nonexistent/vip.toml"],
        &["run"],
        &[
            "run",
            "--vip",
            "10.0.0.10",
            "--nodes",
            "10.0.0.11",
            "--log",
            "vip=loud",
        ],
        &[
            "manifest",
            "--vip",
            "10.0.0.10",
            "--nodes",
            "10.0.0.11",
            "--ca",
            "ca.crt",
        ],
    ] {
        let (code, text) = refusal(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{arguments:?}: {text}");
    }
    let (_, text) = refusal(&["run", "--config", name]);
    assert!(
        text.contains(&format!("{name}:1:1: ")) && text.contains("vpi"),
        "{text}"
    );
}

#[test]
fn status_without_an_agent_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let name = directory.path().to_str().expect("a plain name");
    let (code, text) = refusal(&["status", "--run-dir", name]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("no agent") && text.contains("vip run"),
        "{text}"
    );
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = vip(&["completions", shell]);
        assert!(output.status.success(), "{shell}");
        let script = String::from_utf8_lossy(&output.stdout);
        assert!(
            script.contains("cleanup") && script.contains("status"),
            "{shell}"
        );
    }
}
