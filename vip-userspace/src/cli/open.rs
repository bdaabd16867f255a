//! Connections of a node's clients that are open: a wait for their end, and their end.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::output::tell;
use crate::observe::socket::{Request, Target};
use crate::words::counted;

/// Between looks.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// Waits until no client is connected to the node, or for so long. Returns how many connections are
/// left, of those that [`cut`] would reset.
///
/// # Errors
/// The agent does not answer, or the node does not drain any more.
pub(super) fn wait(node: Target<'_>, timeout: Duration) -> anyhow::Result<usize> {
    let until = Instant::now() + timeout;
    let mut told = None;
    loop {
        let open: usize = node.ask(Request::Clients)?;
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
pub(super) fn cut(node: Target<'_>) -> anyhow::Result<()> {
    let cut: usize = node.ask(Request::Cut)?;
    let cut = counted(cut, "connection", "connections");
    tell(format_args!(
        "reset {cut} of other hosts and of pods; clients of a VIP connect to other nodes, and those of \
         the node's own address to it again"
    ));
    Ok(())
}
