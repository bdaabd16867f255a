//! The names there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vip_userspace::observe::event;

/// Sections of the configuration. The empty one is the top, and `nodes` are entries of that list.
const SECTIONS: [(&str, &str); 10] = [
    ("", "?"),
    ("nodes", "nodes = [{ ? }]"),
    ("services", "[[services]]\n?"),
    ("members", "[members]\n?"),
    ("vrrp", "[vrrp]\n?"),
    ("bfd", "[bfd]\n?"),
    ("health", "[health]\n?"),
    ("local", "[local]\n?"),
    ("datapath", "[datapath]\n?"),
    ("http", "[http]\n?"),
];

/// Where the sources of what is shipped are.
const PRODUCT: [&str; 4] = [
    "vip-common/src",
    "vip-ebpf/src",
    "vip-userspace/src",
    "vip-userspace/node/src",
];

/// Where other sources are.
const OTHERS: [&str; 5] = [
    "vip-userspace/tests",
    "vip-userspace/node/tests",
    "tests",
    "xtask/src",
    "fuzz/fuzz_targets",
];

/// All names that documents may use.
pub(crate) struct Known {
    pub(crate) root: PathBuf,
    /// Flags of each subcommand of `vip`.
    pub(crate) commands: BTreeMap<String, BTreeSet<String>>,
    /// Subcommands of `cargo xtask`.
    pub(crate) tasks: BTreeSet<String>,
    /// Keys of each section of the configuration.
    pub(crate) keys: BTreeMap<&'static str, BTreeSet<String>>,
    /// String literals of what is shipped.
    pub(crate) literals: BTreeSet<String>,
    pub(crate) events: BTreeSet<String>,
    /// Those among the literals that name counters and alarms.
    pub(crate) counters: BTreeSet<String>,
    pub(crate) alarms: BTreeSet<String>,
    /// Alerts for Prometheus.
    pub(crate) alerts: BTreeSet<String>,
    /// String literals of tests and tools.
    pub(crate) other_literals: BTreeSet<String>,
    /// Every word of code, comments left out.
    pub(crate) words: BTreeSet<String>,
    /// Functions, types, constants and modules; variables of the Ansible role.
    pub(crate) items: BTreeSet<String>,
}

impl Known {
    pub(crate) fn of(root: &Path) -> Self {
        let mut known = Self {
            root: root.to_owned(),
            commands: commands(),
            tasks: tasks(&root.join("xtask/src/main.rs")),
            keys: SECTIONS.map(|(name, text)| (name, keys(text))).into(),
            literals: BTreeSet::new(),
            counters: BTreeSet::new(),
            events: event::NAMES.iter().map(|name| (*name).to_owned()).collect(),
            alarms: BTreeSet::new(),
            alerts: alerts(&root.join("deploy/prometheus/alerts.yaml")),
            other_literals: BTreeSet::new(),
            words: BTreeSet::new(),
            items: variables(&root.join("deploy/ansible/roles/vip/defaults/main.yml")),
        };
        for folder in PRODUCT {
            for path in sources(&root.join(folder)) {
                let source = Source::read(&path);
                let is = |name: &str| path.to_string_lossy().contains(name);
                if is("abi/counters") {
                    known.counters.extend(source.literals.iter().cloned());
                } else if is("src/alarm") {
                    known.alarms.extend(source.literals.iter().cloned());
                }
                known.literals.extend(source.literals.iter().cloned());
                known.learn(&source);
            }
        }
        for folder in OTHERS {
            for path in sources(&root.join(folder)) {
                let source = Source::read(&path);
                known.other_literals.extend(source.literals.iter().cloned());
                known.learn(&source);
            }
        }
        known
    }

    fn learn(&mut self, source: &Source) {
        let words: Vec<&str> = source
            .code
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| !word.is_empty())
            .collect();
        const ITEMS: [&str; 8] = [
            "fn", "struct", "enum", "trait", "const", "static", "mod", "type",
        ];
        for pair in words.windows(2) {
            if ITEMS.contains(&pair[0]) {
                self.items.insert(pair[1].to_owned());
            }
        }
        self.words.extend(words.into_iter().map(str::to_owned));
    }

    /// Whether this is a metric. Histograms have three names more.
    pub(crate) fn is_metric(&self, name: &str) -> bool {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let is = |name: &str| name.starts_with("vip_") && self.literals.contains(name);
        is(name) || base.is_some_and(is)
    }
}

fn vip(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vip"));
    let output = command.args(arguments).output().expect("it was built");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).expect("text")
}

/// The subcommands of `vip`, each with its flags.
fn commands() -> BTreeMap<String, BTreeSet<String>> {
    let help = vip(&["--help"]);
    let list = help.split("Commands:\n").nth(1).expect("subcommands");
    let list = list.split("\n\n").next().expect("subcommands");
    // Longer descriptions go on further to the right.
    let names = list.lines().filter_map(|line| line.strip_prefix("  "));
    let names = names.filter_map(|line| line.split(' ').next().filter(|name| !name.is_empty()));
    let found: BTreeMap<_, _> = names
        .map(|name| {
            let help = vip(&[name, "--help"]);
            let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
            let flags = words.filter(|word| word.starts_with("--") && word.len() > 2);
            (name.to_owned(), flags.map(str::to_owned).collect())
        })
        .collect();
    assert!(found.len() > 5, "{help}");
    found
}

/// The subcommands of `cargo xtask`: the variants of `Task`, as clap names them.
fn tasks(source: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(source).expect("xtask's sources");
    let (_, list) = text.split_once("enum Task {").expect("tasks");
    let lines = list.lines().map(str::trim).take_while(|line| *line != "}");
    let variants = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let names = variants.map(|line| line.split(['(', ',', ' ']).next().unwrap_or(line));
    let kebab_case = |name: &str| {
        let mut kebab = String::new();
        for c in name.chars() {
            if c.is_ascii_uppercase() && !kebab.is_empty() {
                kebab.push('-');
            }
            kebab.push(c.to_ascii_lowercase());
        }
        kebab
    };
    names.map(kebab_case).collect()
}

fn alerts(rules: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(rules).expect("the rules");
    let names = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// The keys of a section: the program names them when it meets one that is none.
fn keys(section: &str) -> BTreeSet<String> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(&file, section.replace('?', "no_such_key = 1")).expect("writable");
    let name = file.path().to_str().expect("a plain name");
    let error = vip(&["check", "--config", name]);
    let (_, list) = error.split_once("expected one of ").expect(&error);
    // A fault is a line.
    let list = list.lines().next().unwrap_or_default();
    let names = list.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

/// The Rust sources in a folder, but for the documents' own test.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).unwrap_or_else(|_| panic!("{}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.ends_with("documents") {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// A Rust source: its code without comments, and its string literals.
#[derive(Default)]
struct Source {
    code: String,
    literals: Vec<String>,
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a source");
        let is_test = path.to_string_lossy().contains("/tests");
        let end = text.find("#[cfg(test)]\nmod").filter(|_| !is_test);
        Self::parse(&text[..end.unwrap_or(text.len())])
    }

    fn parse(text: &str) -> Self {
        let mut source = Self::default();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
                rest[1..].find('\'').map_or(1, |end| end + 2)
            } else if rest.starts_with("r#\"") || rest.starts_with("r\"") {
                let hashes = usize::from(rest.starts_with("r#"));
                let begin = 2 + hashes;
                let fence = if hashes == 1 { "\"#" } else { "\"" };
                let length = rest[begin..].find(fence).unwrap_or(0);
                source.literals.push(rest[begin..begin + length].to_owned());
                begin + length + fence.len()
            } else if first == '"' {
                let length = closing_quote(&rest[1..]);
                source.literals.push(rest[1..=length].to_owned());
                length + 2
            } else {
                source.code.push(first);
                first.len_utf8()
            };
            rest = &rest[length.min(rest.len())..];
        }
        source
    }
}

/// Where a literal ends.
fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (place, c) in text.char_indices() {
        match c {
            '"' if !escaped => return place,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The variables of the Ansible role, which has a default for each.
fn variables(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).expect("the role is there");
    let names = text.lines().filter_map(|line| line.split_once(':'));
    let names = names.filter(|(name, _)| name.starts_with("vip_"));
    names.map(|(name, _)| name.to_owned()).collect()
}
