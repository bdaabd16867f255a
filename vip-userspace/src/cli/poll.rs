//! Questions to the agent in the background: views go on while one that hangs does not answer.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::observe::socket::{Request, ask};
use crate::observe::status::Status;
use crate::run_dir::RunDir;

/// Asks the agent of this machine for its status, one question after the other.
pub(super) struct Poll {
    questions: SyncSender<()>,
    answers: Receiver<anyhow::Result<Status>>,
    /// When it was asked, while no answer has come.
    asked: Option<Instant>,
}

impl Poll {
    pub(super) fn new(run_directory: &RunDir) -> Self {
        let (questions, questioned) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let directory = run_directory.clone();
        thread::spawn(move || {
            while let Ok(()) = questioned.recv() {
                if answer.send(ask(&directory, &Request::Status)).is_err() {
                    return;
                }
            }
        });
        Self {
            questions,
            answers,
            asked: None,
        }
    }

    /// Asks, unless an answer is still to come.
    pub(super) fn ask(&mut self) {
        if self.asked.is_none() && self.questions.send(()).is_ok() {
            self.asked = Some(Instant::now());
        }
    }

    /// The answer, if it comes within this time.
    pub(super) fn answer(&mut self, patience: Duration) -> Option<anyhow::Result<Status>> {
        let answer = match self.answers.recv_timeout(patience) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(error @ RecvTimeoutError::Disconnected) => Err(error.into()),
        };
        self.asked = None;
        Some(answer)
    }

    /// What to say while no answer has come.
    pub(super) fn excuse(&self) -> String {
        let waits = self.asked.map_or(Duration::ZERO, |asked| asked.elapsed());
        format!(
            "the agent does not answer; it was asked {} s ago",
            waits.as_secs()
        )
    }
}
