//! Connections of this node's servers that are open: a wait for their end, and their end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::output::tell;
use crate::net::diag::SocketDiag;
use crate::observe::socket::{Request, ask};
use crate::observe::status::Status;
use crate::run_dir::RunDir;

/// Between looks.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// Waits until no client of the VIPs is connected to this node, or for so long. Returns how many are.
pub(super) fn wait(status: &Status, timeout: Duration) -> anyhow::Result<usize> {
    let services = status.services.iter();
    let served = services.map(|service| {
        let vip = service.endpoint.ip();
        SocketAddr::new(vip, service.target_port)
    });
    let served: BTreeSet<SocketAddr> = served.collect();
    let failed = "cannot ask the kernel for connections";
    let diag = SocketDiag::open().context(failed)?;
    let until = Instant::now() + timeout;
    let mut told = None;
    loop {
        let open = diag.connections_to(&served).context(failed)?.len();
        let left = until.saturating_duration_since(Instant::now());
        if open == 0 || left.is_zero() {
            return Ok(open);
        }
        if told != Some(open) {
            tell(format_args!("{open} connections are open"));
            told = Some(open);
        }
        sleep(LOOK.min(left));
    }
}

/// Lets the agent reset those that are left.
pub(super) fn cut(run_dir: &RunDir) -> anyhow::Result<()> {
    let cut: usize = ask(run_dir, &Request::Cut)?;
    tell(format_args!(
        "{cut} connections were reset; their clients connect to other nodes"
    ));
    Ok(())
}
