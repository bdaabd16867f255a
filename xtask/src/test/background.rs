//! Work that needs processors and no particular time: it gets what the tests leave.

use std::io::{self, Read as _};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use super::output::skipped_test;
use crate::sh;

/// One command.
pub(super) struct Step {
    name: String,
    command: Command,
}

/// How a step ended.
pub(super) struct Ended {
    pub(super) name: String,
    pub(super) passed: bool,
    /// Tests that it skipped, and why.
    pub(super) skipped: Vec<String>,
}

/// Steps that run one after the other, beside everything else.
pub(super) struct Lane(JoinHandle<Vec<Ended>>);

impl Step {
    pub(super) fn new(name: &str, command: Command) -> Self {
        Self {
            name: name.to_owned(),
            command,
        }
    }
}

/// The command as one that runs only while a processor has nothing else to do (SCHED_IDLE), and
/// that ends with xtask.
pub(super) fn idle(command: &Command) -> Command {
    let mut idle = sh::command("setpriv");
    idle.args(["--pdeathsig", "KILL", "chrt", "--idle", "0"]);
    idle.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => idle.env(name, value),
            None => idle.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        idle.current_dir(folder);
    }
    idle
}

impl Lane {
    pub(super) fn start(steps: Vec<Step>) -> Self {
        Self(thread::spawn(|| steps.into_iter().map(carry_out).collect()))
    }

    /// Waits for all of it.
    pub(super) fn wait(self) -> Result<Vec<Ended>> {
        let ended = self.0.join();
        ended.map_err(|_| anyhow!("a thread that waits for background work panicked"))
    }
}

/// Runs a step, and shows all that it printed in one block.
fn carry_out(step: Step) -> Ended {
    let begin = Instant::now();
    let (passed, text) = match run(step.command) {
        Ok(done) => done,
        Err(error) => (false, format!("{error:#}\n")),
    };
    let verdict = if passed { "passed" } else { "FAILED" };
    let name = step.name;
    println!(
        "\n     Running {name} (in the background)\n{text}xtask: {name} {verdict} after {} s",
        begin.elapsed().as_secs()
    );
    Ended {
        name,
        passed,
        skipped: text.lines().filter_map(skipped_test).collect(),
    }
}

/// Runs a command. Returns whether it passed and what it printed.
fn run(mut command: Command) -> Result<(bool, String)> {
    let (mut reader, writer) = io::pipe().context("make a pipe")?;
    command.stdout(writer.try_clone().context("share a pipe")?);
    command.stderr(writer);
    let mut child = command.spawn().with_context(|| sh::starting(&command))?;
    // It holds the pipe open too.
    drop(command);
    let mut text = Vec::new();
    reader.read_to_end(&mut text).context("read a pipe")?;
    let status = child.wait().context("wait for a command")?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok((status.success(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_prints_and_whether_it_failed_is_kept() {
        let step = |script| Step::new("x", idle(sh::command("sh").args(["-c", script])));
        let lane = Lane::start(vec![
            step("chrt --pid $$ | grep -q SCHED_IDLE && echo SKIPPED it: a reason >&2"),
            step("exit 3"),
        ]);
        let ended = lane.wait().expect("no panic");
        assert!(ended[0].passed);
        assert_eq!(ended[0].skipped, ["it: a reason"]);
        assert!(!ended[1].passed);
        let step = Step::new("no", sh::command("/does/not/exist"));
        assert!(!Lane::start(vec![step]).wait().expect("no panic")[0].passed);
    }

    #[test]
    fn an_idle_command_keeps_its_environment_and_its_folder() {
        let mut command = sh::command("sh");
        command.args(["-c", "test $PWD = / && test $A = b"]);
        command.env("A", "b").current_dir("/");
        assert!(idle(&command).status().expect("starts").success());
    }
}
