//! Several tests at a time where that saves time: most of a scenario is waiting, and an emulated
//! machine has one processor. After them, those that want the host for themselves.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Runs `together`, so many at a time, each on a thread that lives until all are done, and then
/// `alone` one by one on this thread. Children die with the thread that started them, which is why
/// neither may be a short one. Fails if a test does.
pub(crate) fn run(
    mut arguments: Arguments,
    at_once: usize,
    together: Vec<Trial>,
    alone: Vec<Trial>,
) -> ExitCode {
    let mut failed = false;
    for (threads, trials) in [(at_once, together), (1, alone)] {
        arguments.test_threads = Some(threads);
        failed |= libtest_mimic::run(&arguments, trials).has_failed();
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
