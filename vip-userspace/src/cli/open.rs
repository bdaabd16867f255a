//! Connections of this node's clients that are open: a wait for their end, and their end.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::output::tell;
use crate::observe::socket::{Request, ask};
use crate::run_dir::RunDir;
use crate::words::counted;

/// Between looks.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// Waits until no client is connected to this node, or for so long. Returns how many connections are
/// left, of those that [`cut`] would reset.
///
/// # Errors
/// The agent does not answer, or this node does not drain any more.
pub(super) fn wait(run_dir: &RunDir, timeout: Duration) -> anyhow::Result<usize> {
    let until = Instant::now() + timeout;
    let mut told = None;
    loop {
        let open: usize = ask(run_dir, &Request::Clients)?;
        let left = until.saturating_duration_since(Instant::now());
        if open == 0 || left.is_zero() {
            return Ok(open);
        }
        if told != Some(open) {
            tell(counted(open, "connection is open", "connections are open"));
            told = Some(open);
        }
        sleep(LOOK.min(left));
    }
}

/// Lets the agent reset those that are left.
///
/// # Errors
/// As [`wait`]; or the kernel cannot reset connections.
pub(super) fn cut(run_dir: &RunDir) -> anyhow::Result<()> {
    let cut: usize = ask(run_dir, &Request::Cut)?;
    let cut = counted(cut, "connection", "connections");
    tell(format_args!(
        "reset {cut} of other hosts and of pods; clients of a VIP connect to other nodes, and those of \
         this node's own address to it again"
    ));
    Ok(())
}
