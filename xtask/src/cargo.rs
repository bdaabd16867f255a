//! What cargo has built.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::progress::Heartbeat;
use crate::sh;

/// Flags of rustc after which no path of this machine is in what is built: two folders give the
/// same bytes.
pub(crate) fn remapped() -> Vec<String> {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let folder = |variable: &str, default: &str| {
        env::var_os(variable).map_or_else(|| home.join(default), PathBuf::from)
    };
    // The last one that fits is taken: the workspace may lie in the home directory.
    [
        (folder("RUSTUP_HOME", ".rustup"), "/rustup"),
        (folder("CARGO_HOME", ".cargo"), "/cargo"),
        (sh::workspace().to_owned(), "/vip"),
    ]
    .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
    .to_vec()
}

/// What is built for tests: all but xtask, whose tests run where it runs, and the eBPF program.
pub(crate) const TESTED: &[&str] = &["--workspace", "--exclude=vip-ebpf", "--exclude=xtask"];

/// A program that cargo has built.
pub(crate) struct Program {
    /// The target's name.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The package's folder, where cargo would run it.
    pub(crate) folder: PathBuf,
    has_tests: bool,
}

/// Builds test programs, and returns them.
///
/// # Errors
/// Cargo fails, or writes what is not known here.
pub(crate) fn test_programs(cargo: &mut Command) -> Result<Vec<Program>> {
    let mut programs = programs(cargo.arg("--no-run"))?;
    programs.retain(|program| program.has_tests);
    Ok(programs)
}

/// Builds programs, and returns them. Cargo's progress and the compiler's messages are shown.
///
/// # Errors
/// Cargo fails, or writes what is not known here.
pub(crate) fn programs(cargo: &mut Command) -> Result<Vec<Program>> {
    let _heartbeat = Heartbeat::off_terminal("compiling");
    // Paths come on stdout; all that people read is on stderr.
    cargo.arg("--message-format=json-render-diagnostics");
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| sh::starting(cargo))?;
    let messages = child.stdout.take().context("cargo has no stdout")?;
    let mut programs = Vec::new();
    for line in BufReader::new(messages).lines() {
        programs.extend(program(&line.context("read what cargo writes")?)?);
    }
    sh::check(cargo, child.wait().context("wait for cargo")?)?;
    Ok(programs)
}

/// The program that a message tells of, if it does.
fn program(line: &str) -> Result<Option<Program>> {
    let message: Value = serde_json::from_str(line).context("cargo writes JSON of another form")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let Some(path) = text(&message["executable"]) else {
        return Ok(None);
    };
    let manifest = text(&message["manifest_path"]).map(PathBuf::from);
    Ok(Some(Program {
        name: text(&message["target"]["name"]).context("a target has a name")?,
        path: PathBuf::from(path),
        folder: manifest
            .and_then(|path| path.parent().map(Into::into))
            .context("a manifest lies in a folder")?,
        has_tests: message["profile"]["test"] == true,
    }))
}

/// Where cargo writes what it builds.
pub(crate) fn target_folder() -> PathBuf {
    let named = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    sh::workspace().join(named.unwrap_or_else(|| PathBuf::from("target")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn cargo_names_the_programs_it_has_built_also_if_nothing_was_to_be_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text);
        fs::create_dir(folder.path().join("src")).expect("a folder");
        write(
            "Cargo.toml",
            "[package]\nname = \"tiny\"\nedition = \"2024\"\n",
        )
        .expect("written");
        write("src/main.rs", "fn main() {}\n").expect("written");
        let cargo = |verb: &str| {
            let mut cargo = sh::command("cargo");
            cargo.args([verb, "--offline", "--quiet"]);
            cargo.current_dir(folder.path());
            cargo.env("CARGO_TARGET_DIR", folder.path().join("target"));
            cargo
        };
        for _ in 0..2 {
            let built = programs(&mut cargo("build")).expect("it compiles");
            let names: Vec<&str> = built.iter().map(|program| program.name.as_str()).collect();
            assert_eq!(names, ["tiny"]);
            assert!(built[0].path.is_file());
            assert_eq!(built[0].folder, folder.path());
        }
        let tests = test_programs(&mut cargo("test")).expect("it compiles");
        assert_eq!(tests.len(), 1);
        assert!(tests[0].has_tests);
        write("src/main.rs", "fn main() { no }\n").expect("written");
        assert!(programs(&mut cargo("build")).is_err());
    }
}
