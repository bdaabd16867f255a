//! The binary as operators meet it: what it prints and how it exits when something is wrong.

mod facts;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

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
        &["run", "--nodes", "10.0.0.11"],
        &[
            "run",
            "--vip",
            "10.0.0.10",
            "--nodes",
            "10.0.0.11",
            "--seeds",
            "10.0.0.12",
        ],
        &["run", "--config", "/nonexistent/vip.toml"],
        &["run"],
        &["key", "--fingerprint", name],
        &["key", "--add", "/nonexistent/key"],
        &["key", "--output", name],
        &[
            "run",
            "--vip",
            "10.0.0.10",
            "--nodes",
            "10.0.0.11",
            "--key-file",
            name,
        ],
        &[
            "check",
            "--vip",
            "10.0.0.10",
            "--nodes",
            "10.0.0.11",
            "--key-file",
            "/nonexistent/key",
        ],
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
fn all_faults_of_a_file_are_told_in_a_line_each() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("vip.toml");
    let name = file.to_str().expect("a plain name");
    let text = "vip = \"10.0.0.256\"\n[vrrp]\npriorty = 1\nrouter_id = 300\n";
    std::fs::write(&file, text).expect("writable");
    for command in [
        &["run", "--config"][..],
        &["check", "--config"],
        &["manifest", "--from"],
    ] {
        let (code, text) = refusal(&[command, &[name]].concat());
        assert_eq!(code, Some(2), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        for (line, place) in lines.iter().zip(["1:7", "3:1", "4:13"]) {
            assert!(
                line.starts_with(&format!("vip: {name}:{place}: ")),
                "{text}"
            );
        }
    }
    let (code, text) = refusal(&["manifest", "--vip", "10.0.0.256", "--vrid", "-1"]);
    assert_eq!((code, text.lines().count()), (Some(2), 2), "{text}");
    assert!(
        text.contains("--vrid: -1 is out of range, must be 1 to 255"),
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
fn an_agent_that_hangs_is_told_in_one_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let name = directory.path().to_str().expect("a plain name");
    let _silent = UnixListener::bind(directory.path().join("vip.sock")).expect("a socket");
    let (code, text) = refusal(&["undrain", "--run-dir", name]);
    assert_eq!(code, Some(1));
    assert_eq!(
        text,
        "vip: the agent does not answer within 5s: it hangs. Its programs go on; `vip events` has the \
         last events. Restart it\n"
    );
}

#[test]
fn events_of_an_unknown_run_directory_are_not_those_of_another_agent() {
    let (code, text) = refusal(&["events", "--run-dir", "/nonexistent"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        text,
        "vip: no agent has noted in /nonexistent where its events are: give its --state-dir\n"
    );
}

#[test]
fn what_is_no_duration_is_refused_in_its_own_words() {
    let cluster = ["--vip", "10.0.0.10", "--nodes", "10.0.0.11"];
    for (before, more) in [
        (&["drain", "--cut", "--after"][..], &[][..]),
        (&["leave", "--timeout"], &[]),
        (&["status", "--wait", "--timeout"], &[]),
        (&["check", "--interval"], &cluster),
    ] {
        for (text, why) in [
            ("-1", "is not a duration"),
            ("-1s", "is not a duration"),
            ("99999999999999999999h", "is too long"),
        ] {
            let (code, said) = refusal(&[before, &[text], more].concat());
            assert_eq!(code, Some(2), "{before:?} {text}: {said}");
            assert!(
                said.contains(&format!("`{text}` {why}")),
                "{before:?}: {said}"
            );
        }
    }
    let help = vip(&["drain", "--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("[default: 1s]"), "{help}");
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

const CLUSTER: [&str; 4] = [
    "--vip",
    "10.0.0.10",
    "--nodes",
    "10.0.0.11,10.0.0.12,10.0.0.13",
];

/// Names of what is in a directory.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_manifest_is_replaced_whole_or_not_at_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("vip.yaml");
    let name = file.to_str().expect("a plain name");
    let write =
        |more: &[&str]| vip(&[&["manifest", "--output", name], &CLUSTER[..], more].concat());
    assert!(write(&[]).status.success());
    let first = std::fs::read_to_string(&file).expect("written");
    assert!(
        first.contains("kind: Pod") && first.ends_with('\n'),
        "{first}"
    );
    let mode = std::fs::metadata(&file)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "as kubeadm's");

    // As the kubelet: it reads at any moment, and takes what does not begin with a dot.
    let done = AtomicBool::new(false);
    let (seen, others) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut seen, mut others) = (BTreeSet::new(), BTreeSet::new());
            while !done.load(Ordering::Relaxed) {
                seen.insert(std::fs::read_to_string(&file).expect("always there"));
                others.extend(names(directory.path()));
            }
            (seen, others)
        });
        for number in 0..40 {
            let image = format!("vip:{}", number % 2);
            assert!(write(&["--image", &image]).status.success());
        }
        done.store(true, Ordering::Relaxed);
        reader.join().expect("reads")
    });
    for text in &seen {
        assert!(
            text.contains("kind: Pod") && text.contains("type: DirectoryOrCreate"),
            "{text}"
        );
        assert_eq!(text.lines().count(), first.lines().count(), "{text}");
    }
    assert!(seen.len() >= 2, "the reader saw no change");
    let plain: Vec<_> = others
        .iter()
        .filter(|name| !name.starts_with('.'))
        .collect();
    assert_eq!(plain, ["vip.yaml"]);

    let before = std::fs::read_to_string(&file).expect("there");
    for (more, code) in [
        (&["--http", "10.0.0.11:9643"][..], 2),
        (&["--vrid", "0"], 2),
        (&["--image", "a b"], 2),
    ] {
        let refused = write(more);
        assert_eq!(refused.status.code(), Some(code), "{refused:?}");
        assert_eq!(std::fs::read_to_string(&file).expect("there"), before);
    }
    for (wrong, says) in [
        (directory.path().join("none/vip.yaml"), "make it first"),
        (directory.path().to_owned(), "no file"),
        // Which may be a log that others write to.
        ("/dev/stdout".into(), "name a file"),
    ] {
        let wrong = wrong.to_str().expect("a plain name");
        let (code, text) = refusal(&[&["manifest", "--output", wrong], &CLUSTER[..]].concat());
        assert_eq!((code, text.lines().count()), (Some(2), 1), "{text}");
        assert!(text.contains(wrong) && text.contains(says), "{text}");
    }
    assert_eq!(
        names(directory.path()),
        ["vip.yaml"],
        "something lies aside"
    );

    for (kind, begin, mode) in [
        ("--systemd", "[Unit]", 0o644),
        ("--config", "vip = ", 0o600),
    ] {
        assert!(write(&[kind]).status.success());
        let text = std::fs::read_to_string(&file).expect("there");
        assert!(text.lines().any(|line| line.starts_with(begin)), "{text}");
        let there = std::fs::metadata(&file)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(there & 0o777, mode, "{kind}");
    }
}

#[test]
fn a_manifest_does_not_replace_the_file_that_it_is_made_from() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("vip.toml");
    let link = directory.path().join("link.toml");
    std::fs::write(&file, "vip = \"10.0.0.10\"\n").expect("writable");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    let [name, other] = [&file, &link].map(|path| path.to_str().expect("a plain name"));
    for output in [name, other] {
        let (code, text) = refusal(&["manifest", "--from", name, "--output", output]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("would be lost; name another one"), "{text}");
    }
    let text = std::fs::read_to_string(&file).expect("there");
    assert_eq!(text, "vip = \"10.0.0.10\"\n");
}

#[test]
fn a_key_is_made_and_changed_in_three_steps() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("key");
    let name = file.to_str().expect("a plain name");
    let key = |arguments: &[&str]| {
        let output = vip(&[&["key"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let read = || std::fs::read_to_string(&file).expect("there");
    let mode = || {
        std::fs::metadata(&file)
            .expect("there")
            .permissions()
            .mode()
            & 0o777
    };
    // Each is another one, and is printed as it is written.
    let printed = [key(&[]), key(&["--output", "-"])];
    assert_ne!(printed[0], printed[1]);
    assert!(printed[0].lines().any(|line| line.starts_with("vip1:")));

    let told = key(&["--output", name]);
    assert_eq!(mode(), 0o600);
    let fingerprints = || {
        let text = key(&["--fingerprint", name]);
        let lines = text
            .lines()
            .map(|line| line.split_once("  ").expect("two columns"));
        let pairs = lines.map(|(key, does)| (key.to_owned(), does.to_owned()));
        pairs.collect::<Vec<_>>()
    };
    let seals = |key: &str| (key.to_owned(), "seals, accepted".to_owned());
    let accepted = |key: &str| (key.to_owned(), "accepted".to_owned());
    let old = fingerprints()[0].0.clone();
    assert_eq!(fingerprints(), [seals(&old)]);
    assert!(told.contains(&old) && !told.contains("vip1:"), "{told}");
    let first = read();
    let (code, text) = refusal(&["key", "--output", name]);
    assert_eq!((code, read()), (Some(2), first.clone()), "{text}");
    for step in ["--swap", "--retire"] {
        let (code, text) = refusal(&["key", step, name]);
        assert!(code == Some(2) && text.contains("one key only"), "{text}");
    }

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o400)).expect("ours");
    let told = key(&["--add", name]);
    let new = fingerprints()[1].0.clone();
    assert_eq!(fingerprints(), [seals(&old), accepted(&new)]);
    assert!(
        told.contains("vip key --swap") && !told.contains("vip1:"),
        "{told}"
    );
    let (code, text) = refusal(&["key", "--add", name]);
    assert!(
        code == Some(2) && text.contains("two keys already"),
        "{text}"
    );
    key(&["--swap", name]);
    assert_eq!(fingerprints(), [seals(&new), accepted(&old)]);
    // The comment of each goes with it.
    for fingerprint in [&old, &new] {
        assert_eq!(
            read()
                .matches(&format!("# fingerprint {fingerprint}"))
                .count(),
            1
        );
    }
    key(&["--retire", name]);
    assert_eq!(fingerprints(), [seals(&new)]);
    assert_eq!(
        (mode(), names(directory.path())),
        (0o400, vec!["key".to_owned()])
    );
    assert_eq!(read().lines().count(), first.lines().count());
}

#[test]
fn a_dry_run_of_cleanup_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (run, state) = (directory.path().join("run"), directory.path().join("state"));
    for folder in [&run, &state] {
        std::fs::create_dir(folder).expect("a directory");
        std::fs::write(folder.join("drained"), "").expect("writable");
    }
    let [run_dir, state_dir] = [&run, &state].map(|path| path.to_str().expect("a plain name"));
    let dirs = ["--run-dir", run_dir, "--state-dir", state_dir];
    let listed = vip(&[&["cleanup", "--dry-run"], &dirs[..]].concat());
    assert!(listed.status.success(), "{listed:?}");
    let text = String::from_utf8_lossy(&listed.stdout);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(
        text.lines().all(|line| line.starts_with("would remove ")),
        "{text}"
    );
    assert_eq!([names(&run), names(&state)], [["drained"], ["drained"]]);
}

/// What an agent answers that has read its configuration again.
fn reloaded() -> serde_json::Value {
    let change = json!({ "key": "`interval` in [health]", "old": "500ms", "new": "\"1s\"" });
    json!({ "done": { "applied": [change], "kept": ["`nodes` cannot change"] } })
}

#[test]
fn reload_prints_what_changed_and_what_did_not() {
    for (answer, code, said, complained) in [
        (
            reloaded(),
            0,
            "`interval` in [health]: 500ms -> \"1s\"\n",
            "vip: reload: `nodes` cannot change\n",
        ),
        (
            json!({ "done": { "applied": [], "kept": [] } }),
            0,
            "nothing has changed\n",
            "",
        ),
        (
            json!({ "refused": "vip.toml:1:7: bad" }),
            2,
            "",
            "vip: vip.toml:1:7: bad\n",
        ),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let run_dir = directory.path().to_str().expect("a plain name");
        let listener = UnixListener::bind(directory.path().join("vip.sock")).expect("a socket");
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("reads");
            let reply = json!({ "ok": answer }).to_string();
            stream.write_all(reply.as_bytes()).expect("writes");
            line
        });
        let done = vip(&["reload", "--run-dir", run_dir]);
        assert_eq!(agent.join().expect("answers"), "\"reload\"\n");
        assert_eq!(done.status.code(), Some(code));
        assert_eq!(String::from_utf8_lossy(&done.stdout), said);
        assert_eq!(String::from_utf8_lossy(&done.stderr), complained);
    }
}

/// Answers each request on a run directory's socket as an agent would, as long as the test runs.
fn stand_in(run_dir: &Path) {
    let listener = UnixListener::bind(run_dir.join("vip.sock")).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("reads");
            let answer = if line.contains("drain") {
                json!({ "node": "cp1", "instead": "the others are unready" })
            } else if line.contains("handover") || line.contains("forget") {
                json!("cp2")
            } else if line.contains("reload") {
                reloaded()
            } else {
                json!({
                    "version": "0", "vip": "10.0.0.10:6443", "services": [], "local": null,
                    "owner": null, "state": "backup", "priority": 100, "faults": [],
                    "answer_lease_remaining_ms": 0, "state_for_ms": 0, "takeovers": 0,
                    "last_failover_ms": null, "conflicts": 0, "claimant": null, "alarms": [],
                    "hears_nobody": null, "node": "cp1", "hooks": [], "nodes": [],
                    "xdp": { "interface": "eth0", "mode": "native", "egress": "tcx",
                             "proven": true, "adopted": false },
                    "counters": {}, "events": {}, "repairs": {},
                })
            };
            let reply = if line.contains("leave") {
                json!({ "error": "the members are those of `nodes`" })
            } else {
                json!({ "ok": answer })
            };
            let reply = reply.to_string();
            stream.write_all(reply.as_bytes()).expect("writes");
        }
    });
}

/// The writing end of a pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn no_command_minds_a_reader_that_has_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    let folder = directory.path();
    let run_dir = folder.to_str().expect("a plain name");
    stand_in(folder);
    let event = json!({
        "sequence": 0, "time": "2026-01-01T00:00:00Z", "event": "stopped", "severity": "info",
        "message": "the agent has ended",
    });
    std::fs::write(folder.join("events.jsonl"), format!("{event}\n")).expect("writable");
    let cluster = ["--vip", "192.0.2.10", "--nodes", "192.0.2.11,192.0.2.12"];
    let with = |first: &[&'static str], more: &[&'static str]| [first, more].concat();
    let here = ["--run-dir", Box::leak(run_dir.to_owned().into_boxed_str())];
    // What each exits with: a failure is one of the check, or is said of the input.
    let commands = [
        (with(&["--help"], &[]), 0),
        (with(&["--version"], &[]), 0),
        (with(&["run"], &["--log", "vip=loud"]), 2),
        (with(&["status"], &here), 0),
        (with(&["status", "--json"], &here), 0),
        (with(&["top"], &here), 1),
        (with(&["events"], &here), 0),
        (with(&["events", "--follow", "--json"], &here), 0),
        (with(&["handover"], &here), 0),
        (with(&["drain"], &here), 0),
        (with(&["undrain"], &here), 0),
        (with(&["leave"], &here), 1),
        (with(&["forget", "cp2"], &here), 0),
        (with(&["reload"], &here), 0),
        (with(&["check"], &cluster), 1),
        (with(&["check", "-o", "json"], &cluster), 1),
        (with(&["check", "--config-only"], &cluster), 0),
        (with(&["version"], &[]), 0),
        (
            with(
                &["man", "--output"],
                &[Box::leak(format!("{run_dir}/man").into_boxed_str())],
            ),
            0,
        ),
        (with(&["manifest"], &cluster), 0),
        (with(&["manifest"], &cluster[..2]), 0),
        (with(&["manifest", "--systemd"], &cluster), 0),
        (with(&["manifest", "--config"], &cluster), 0),
        (with(&["key"], &[]), 0),
        (with(&["cleanup", "--dry-run"], &here), 0),
        (with(&["completions", "bash"], &[]), 0),
        (with(&["help"], &[]), 0),
        (with(&["nonsense"], &[]), 2),
    ];
    for (arguments, code) in &commands {
        for closed in [false, true] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_vip"));
            command.args(arguments).stdout(unread());
            command.stderr(if closed { unread() } else { Stdio::piped() });
            let done = command.spawn().and_then(|child| child.wait_with_output());
            let done = done.expect("it was built");
            let text = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.code(), Some(*code), "{arguments:?}: {text}");
            assert!(!text.contains("panicked"), "{arguments:?}: {text}");
        }
    }
    let help = vip(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let names = list.lines().take_while(|line| !line.is_empty());
    for name in names.filter_map(|line| line.split_whitespace().next()) {
        let tried = commands.iter().any(|(words, _)| words[0] == name);
        assert!(tried || !help.contains(&format!("\n  {name} ")), "{name}");
    }
}
