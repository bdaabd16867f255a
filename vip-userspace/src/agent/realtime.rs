//! Real-time priority for the thread that keeps the fence.

use std::io;

use nix::libc;

/// Above all ordinary threads, and in the middle of the real-time ones: the kernel's own
/// watchdogs stay above.
const PRIORITY: libc::c_int = 40;

/// Lets the calling thread run before all others that are not real-time (`SCHED_RR`,
/// sched(7)). The kernel still leaves 5 % of each second to those.
///
/// # Errors
/// No `CAP_SYS_NICE`, or a control group without a real-time budget.
pub(super) fn raise_thread() -> io::Result<()> {
    let parameter = libc::sched_param {
        sched_priority: PRIORITY,
    };
    // SAFETY: reads the parameter, and concerns the calling thread only (pid 0).
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameter) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
