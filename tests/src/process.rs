//! A child process on some host: its log, its lines, its end.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use crate::clock::until;
use crate::sys;
use crate::vm::exec;

/// Lines a process has written to its standard output so far.
#[derive(Debug, Default)]
struct Lines(Mutex<Vec<String>>);

/// A running child. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Lines>,
    reader: Option<std::thread::JoinHandle<()>>,
    /// It stands for a process in a virtual machine, see [`exec`].
    stands_in: bool,
}

/// Longest wait for a process in a machine that may be paused.
const REMOTE_KILL: Duration = Duration::from_secs(10);

impl Process {
    /// Starts a daemon: both outputs go to the log file, appended.
    ///
    /// # Errors
    /// The log cannot be opened or the program cannot be started.
    pub fn daemon(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let log = open_log(log)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("duplicate a log descriptor")?)
            .stderr(log);
        Self::spawn(name, command)
    }

    /// Starts a program whose standard output is read line by line and whose standard input
    /// takes commands; errors go to the log file.
    ///
    /// # Errors
    /// As [`daemon`](Self::daemon).
    pub fn reporter(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(open_log(log)?);
        Self::spawn(name, command)
    }

    fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command.spawn().with_context(|| {
            format!("start {name} ({})", command.get_program().to_string_lossy())
        })?;
        let lines = Arc::new(Lines::default());
        let reader = child.stdout.take().map(|stdout| {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    lines
                        .0
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(line);
                }
            })
        });
        Ok(Self {
            name: name.to_owned(),
            stdin: child.stdin.take(),
            child,
            lines,
            reader,
            stands_in: command.get_envs().any(|(name, _)| name == exec::GUEST),
        })
    }

    /// What it is called in logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// True until it has ended. Reaps it if it has.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal; nothing happens if it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            // It may end between the two calls, but it is not reaped, so its id is still its own.
            if self.stands_in {
                sys::send_signal(self.pid(), exec::stand_in(signal));
            } else {
                let _ = kill(self.pid(), signal);
            }
        }
    }

    /// SIGKILL, and waits until the kernel has closed everything the process had open.
    pub fn kill_and_reap(&mut self) {
        self.signal(Signal::SIGKILL);
        if self.stands_in {
            let begin = Instant::now();
            while self.is_running() && begin.elapsed() < REMOTE_KILL {
                std::thread::sleep(Duration::from_millis(5));
            }
            // Its machine does not answer: the process is left to it.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It has not ended in two minutes.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for the end, and until all its lines are read.
    ///
    /// # Errors
    /// It has not ended in two minutes.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.wait_for(Duration::from_secs(120))
    }

    /// The same with another limit.
    ///
    /// # Errors
    /// It has not ended by then.
    pub fn wait_for(&mut self, limit: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        let status = until(&format!("{} ends", self.name), limit, || {
            child.try_wait().context("wait for a child process")
        })?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ok(status)
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// It has no standard input or has closed it.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let Some(stdin) = &mut self.stdin else {
            bail!("{} takes no commands", self.name);
        };
        writeln!(stdin, "{line}").with_context(|| format!("{} no longer listens", self.name))
    }

    /// The number of lines it has written so far.
    #[must_use]
    pub fn line_count(&self) -> usize {
        self.lines
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The lines from number `first` on, each one as JSON.
    ///
    /// # Errors
    /// A line is not what was expected.
    pub fn records<T: DeserializeOwned>(&self, first: usize) -> Result<Vec<T>> {
        let lines = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .skip(first)
            .map(|line| {
                serde_json::from_str(line)
                    .with_context(|| format!("{} wrote an unexpected line: {line}", self.name))
            })
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_and_reap();
    }
}

fn open_log(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open the log {}", path.display()))
}

/// Where a program is on the `PATH`.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Runs a short command to its end and returns what it wrote.
///
/// # Errors
/// It cannot be started or fails; the message holds what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!(
            "{program}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last lines of a log, for a failure's message.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
