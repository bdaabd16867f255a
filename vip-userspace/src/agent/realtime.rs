//! Real-time priority for the node thread, which renews the answer lease.

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
    // SAFETY: plain numbers, for which 0 is a value; some C libraries have more of them.
    let mut parameter: libc::sched_param = unsafe { std::mem::zeroed() };
    parameter.sched_priority = PRIORITY;
    // Not `sched_setscheduler`, which musl refuses: it means processes.
    // SAFETY: reads the parameter, and concerns the calling thread only.
    let error = unsafe {
        libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_RR, &raw const parameter)
    };
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}
