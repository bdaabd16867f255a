//! An empty network namespace: nothing that runs in it can reach the machine's own NIC.

use std::ffi::{OsStr, OsString};
use std::process::Command;

use crate::sh;

/// A command in a new network namespace with nothing but `lo`, up. Runs as root, with
/// `environment` (`NAME=value`) added to its own.
///
/// It has a process namespace too, and ends with xtask: so does all that it has started, however
/// either ends, daemons and containers that nobody waits for among it.
pub(crate) fn command(program: impl AsRef<OsStr>, environment: &[OsString]) -> Command {
    let processes = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    inside(&processes, program.as_ref(), environment)
}

/// The same for a program that tells people how to get in: its processes have the ids by which
/// others know them. What it has started and does not end may outlive it.
pub(crate) fn open_command(program: impl AsRef<OsStr>, environment: &[OsString]) -> Command {
    inside(&[], program.as_ref(), environment)
}

fn inside(processes: &[&str], program: &OsStr, environment: &[OsString]) -> Command {
    let mut command = sh::as_root("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net"]);
    command.args(processes);
    // The shell stays, as the first process: that one gets no signal it has no handler for, and
    // Ctrl-C is for the program.
    command.args(["--", "sh", "-c"]);
    command.args(["ip link set lo up && env \"$@\"; exit $?", "sh"]);
    command.args(environment).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::{fs, thread};

    use super::*;

    /// Whether a process has this argument.
    fn runs(argument: &str) -> bool {
        let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let mut lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        lines.any(|line| {
            line.split(|byte| *byte == 0)
                .any(|word| word == argument.as_bytes())
        })
    }

    #[test]
    fn daemons_end_with_the_command() {
        let time = format!("86400.{}", std::process::id());
        let mut daemon = command("sh", &[]);
        // Its own session, as a container's has, and its start is waited for.
        daemon.args([
            "-c",
            "setsid sleep \"$1\" & sleep 0.2; test -d /proc/$!",
            "sh",
            &time,
        ]);
        sh::run(&mut daemon).expect("root may have namespaces");
        assert!(!runs(&time), "it has outlived the command");
        // The same can be seen.
        let mut sleep = sh::command("sleep").arg(&time).spawn().expect("starts");
        // It has its arguments a moment after it was started.
        let seen = (0..1000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            runs(&time)
        });
        sleep.kill().expect("it can be killed");
        sleep.wait().expect("it has ended");
        assert!(seen, "a process is not found by its argument");
    }
}
