//! The programs that demo and benchmarks run: the agent, and the binaries of `tests`.

use std::ffi::OsString;
use std::path::{Path, absolute};
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::Steps;
use crate::{build_ebpf, cargo, install, netns, sh};

/// A binary of `tests`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// The demo. In the profile of tests, which takes less time to build.
    Testbed,
    /// The benchmarks, optimised.
    Bench,
}

impl Program {
    /// Builds what is needed, once. Returns the command that runs the program, which does `what`, in an
    /// empty network namespace.
    ///
    /// # Errors
    /// Something cannot be installed or built.
    pub(crate) fn prepare(self, what: &str, environment: &[OsString]) -> Result<Command> {
        let (name, profile, folder, minutes) = match self {
            Self::Testbed => ("testbed", "dev", "debug", 4),
            Self::Bench => ("bench", "release", "release", 6),
        };
        let mut steps = Steps::new(3);
        install::programs(install::BUILD)?;
        install::programs(install::TOPOLOGY)?;
        let time = expected("bpf/vip.o", "half a minute");
        steps.begin(&format!("compile the eBPF programs, {time}"));
        build_ebpf::object()?;
        let first = format!("{minutes} minutes on two cores");
        let time = expected(&format!("{folder}/{name}"), &first);
        steps.begin(&format!("compile the agent and the test harness, {time}"));
        let mut build = sh::command("cargo");
        build.args(["build", "--profile", profile]);
        // All in one call: of other packages, features differ, and crates would be built once more.
        build.args(["--package", "vip-userspace", "--package", "vip-tests"]);
        build.args(["--bin", "vip", "--bin", "testbed"]);
        if name != "testbed" {
            build.args(["--bin", name]);
        }
        let programs = cargo::programs(&mut build)?;
        let found = programs.into_iter().find(|program| program.name == name);
        let program = found.with_context(|| format!("cargo has built no program {name}"))?;
        steps.begin(what);
        Ok(netns::command(program.path, environment))
    }
}

/// How long it takes to build a file below cargo's target folder.
fn expected(file: &str, first: &str) -> String {
    if cargo::target_folder().join(file).exists() {
        "only what has changed".to_owned()
    } else {
        format!("about {first}, only this time")
    }
}

/// Hands on what the user gave. A file is named as seen from here, not from the workspace.
pub(crate) fn pass(command: &mut Command, json: Option<&Path>, args: &[OsString]) -> Result<()> {
    if let Some(file) = json {
        let file = absolute(file).with_context(|| format!("find {}", file.display()))?;
        command.arg("--json").arg(file);
    }
    command.args(args);
    Ok(())
}
