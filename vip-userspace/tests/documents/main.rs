//! Every name in a document must exist: commands, flags, keys, metrics, counters, events, alarms,
//! maps, pins, files, types.
//!
//! A document names them in code spans. Their form says of which kind they are, and sometimes the
//! word before them does. Where the program can tell its names itself, it is asked: commands and
//! flags by `--help`, keys by the error that a wrong key gets. Other names stand in the sources,
//! as string literals or as items.

mod known;
mod markdown;
mod names;

use std::fs;
use std::path::{Path, PathBuf};

use known::Known;
use markdown::{Block, Document};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All documents but the changelog, which may name what was removed.
fn documents() -> Vec<PathBuf> {
    let root = root();
    let mut found = Vec::new();
    for folder in [
        "",
        "docs",
        "docs/internals",
        "deploy/ansible",
        "deploy/helm/vip",
    ] {
        let entries = fs::read_dir(root.join(folder)).expect("a folder of the repository");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        found.extend(paths.filter(|path| {
            path.extension().is_some_and(|extension| extension == "md")
                && path.file_name().is_some_and(|name| name != "CHANGELOG.md")
        }));
    }
    found
}

/// What is wrong in a document, a line each.
fn faults(known: &Known, path: &Path, text: &str) -> Vec<String> {
    let document = Document::parse(text);
    let spans = document.spans.iter().filter_map(|span| {
        let fault = names::fault(known, &span.text, &span.before)?;
        Some((span.line, fault))
    });
    let links = document.links.iter().filter_map(|link| {
        let fault = markdown::broken(path, &link.text)?;
        Some((link.line, fault))
    });
    let blocks = document.blocks.iter().flat_map(|block: &Block| {
        let faults = match block.language.as_str() {
            "sh" => names::in_commands(known, &block.text),
            "toml" => names::in_configuration(known, &block.text),
            _ => vec![],
        };
        faults.into_iter().map(|fault| (block.line, fault))
    });
    let all = spans.chain(links).chain(blocks);
    all.map(|(line, fault)| format!("{}:{line}: {fault}", path.display()))
        .collect()
}

#[test]
fn every_name_in_a_document_exists() {
    let known = Known::of(&root());
    let mut wrong = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        wrong.extend(faults(&known, &path, &text));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let known = Known::of(&root());
    for file in ["deploy/prometheus/alerts.yaml", "deploy/grafana/vip.json"] {
        let text = fs::read_to_string(root().join(file)).expect("a file of the repository");
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named: Vec<&str> = words.filter(|word| word.starts_with("vip_")).collect();
        assert!(named.len() > 10, "{file} names metrics");
        for name in named {
            assert!(known.is_metric(name), "{file}: no metric {name}");
        }
    }
}

#[test]
fn a_name_that_does_not_exist_is_found_whatever_its_kind() {
    let known = Known::of(&root());
    let readme = root().join("README.md");
    for (right, wrong) in [
        ("`vip status`", "`vip stats`"),
        ("`vip drain --force`", "`vip drain --forced`"),
        ("`--state-dir DIR`", "`--state-folder DIR`"),
        ("`cargo xtask demo`", "`cargo xtask show`"),
        ("`cargo xtask bench live`", "`cargo xtask bench alive`"),
        ("`vip_bfd_up`", "`vip_bfd_upp`"),
        (
            "`vip_fault{fault=\"carrier\"}`",
            "`vip_fault{fault=\"cable\"}`",
        ),
        ("the counter `fragment`", "the counter `fragments`"),
        ("the counter `undeclared_port`", "the counter `other_port`"),
        ("`local_…`", "`locals_…`"),
        ("event `stranded`", "event `beached`"),
        ("alarm `unheard`", "alarm `unhear`"),
        ("`VipTwoOwners`", "`VipThreeOwners`"),
        ("`router_id`", "`routers_id`"),
        ("`[vrrp]`", "`[vrpp]`"),
        ("`[vrrp] interval = \"1s\"`", "`[vrrp] multiplier = 3`"),
        ("`preempt = true`", "`preemptive = true`"),
        ("`/run/vip/vip.sock`", "`/run/vip/vip.socket`"),
        ("`/var/lib/vip/drained`", "`/var/lib/vip/drained.json`"),
        ("`/sys/fs/bpf/vip/VIP_STATE`", "`/sys/fs/bpf/vip/VIP_RANK`"),
        ("`filter-in-<ifindex>`", "`filter-<ifindex>`"),
        ("`VIP_COUNTERS`", "`VIP_COUNTER`"),
        ("`docs/failures.md`", "`docs/failure.md`"),
        ("`vip-ebpf/src/maps.rs`", "`vip-ebpf/src/map.rs`"),
        ("`NodeThread`", "`ThreadNode`"),
        ("`Masks::local`", "`Masks::locals`"),
        ("`arp_ignore`", "`arp_ignored`"),
        ("[a](docs/failures.md)", "[a](docs/failure.md)"),
        ("[a](README.md#try-it)", "[a](README.md#try-that)"),
        ("```sh\nvip drain --force\n```", "```sh\nvip drane\n```"),
        (
            "```sh\nsudo vip drain --force\n```",
            "```sh\nvip undrain --force\n```",
        ),
        (
            "```toml\n[bfd]\nmultiplier = 5\n```",
            "```toml\n[bfd]\nfactor = 5\n```",
        ),
        (
            "```toml\nnodes = [{ weight = 2 }]\n```",
            "```toml\nnodes = [{ wait = 2 }]\n```",
        ),
    ] {
        let right = faults(&known, &readme, right);
        assert!(right.is_empty(), "{right:?}");
        assert_eq!(faults(&known, &readme, wrong).len(), 1, "{wrong}");
    }
}
