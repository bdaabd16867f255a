//! What xtask does, and that it still does it: nobody should wonder about a silent terminal.

use std::io::{self, IsTerminal as _};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::sh;

/// Between two lines about the same step.
const INTERVAL: Duration = Duration::from_secs(15);

/// The steps of a task, counted.
pub(crate) struct Steps {
    begun: usize,
    all: usize,
}

impl Steps {
    pub(crate) const fn new(all: usize) -> Self {
        Self { begun: 0, all }
    }

    /// Names the next step.
    pub(crate) fn begin(&mut self, what: &str) {
        self.begun += 1;
        eprintln!("xtask: step {} of {}: {what}", self.begun, self.all);
    }
}

/// Prints a line every 15 s, until it is dropped.
pub(crate) struct Heartbeat {
    /// Dropped, it ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// `what` goes on. For programs that show no progress.
    pub(crate) fn start(what: &str) -> Self {
        let (stop, stopped) = mpsc::channel();
        let what = what.to_owned();
        let begin = Instant::now();
        let thread = thread::spawn(move || {
            beat(&stopped, INTERVAL, || {
                eprintln!("xtask: still {what}, {} s", begin.elapsed().as_secs());
            });
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The same for programs that show their progress on a terminal: there, nothing is printed.
    pub(crate) fn off_terminal(what: &str) -> Option<Self> {
        (!io::stderr().is_terminal()).then(|| Self::start(what))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It panics only if stderr is closed.
            let _ = thread.join();
        }
    }
}

/// Runs a program that shows no progress.
///
/// # Errors
/// As [`sh::run`].
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    let _heartbeat = Heartbeat::start(what);
    sh::run(command)
}

/// Calls `say` after each interval until the sender is gone.
fn beat(stopped: &Receiver<()>, interval: Duration, mut say: impl FnMut()) {
    while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        say();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_goes_on_until_it_is_stopped() {
        let (stop, stopped) = mpsc::channel();
        let mut stop = Some(stop);
        let mut lines = 0;
        beat(&stopped, Duration::from_millis(1), || {
            lines += 1;
            if lines == 3 {
                stop = None;
            }
        });
        assert_eq!(lines, 3);
    }
}
