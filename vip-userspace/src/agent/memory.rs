//! Keeps the agent's memory where it is: a thread that waits for a page of its own program to be
//! read from a disk, on a machine that is short of memory, renews no lease.

use std::io;

use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::kernel::bpf;

/// Locks all memory there is (the program itself, stacks, the rank table), and all that will be
/// once it is used.
///
/// To lock more than `RLIMIT_MEMLOCK` takes `CAP_IPC_LOCK`, and so does each allocation from then
/// on. So the capability is kept, unless there is no limit, or it can be lifted.
///
/// # Errors
/// Neither capability nor limit allow it. Then nothing is locked.
pub(super) fn lock() -> io::Result<()> {
    // With CAP_SYS_RESOURCE, or where the service manager has set none.
    let _not_allowed = bpf::lift_memory_limit();
    lock_all().map_err(|errno| {
        // Otherwise the next allocation fails that is beyond the limit.
        let _none = nix::sys::mman::munlockall();
        errno.into()
    })
}

fn lock_all() -> nix::Result<()> {
    mlockall(MlockAllFlags::MCL_CURRENT)?;
    // What comes later is read in when it is used, and stays: a stack of 2 MiB is hardly ever
    // used up.
    mlockall(MlockAllFlags::MCL_FUTURE | MCL_ONFAULT)
}

/// `MCL_ONFAULT` (Linux 4.4; include/uapi/asm-generic/mman.h).
const MCL_ONFAULT: MlockAllFlags = MlockAllFlags::from_bits_retain(4);

/// Whether memory can be locked, and go on being used, without `CAP_IPC_LOCK`.
pub(super) fn is_unlimited() -> bool {
    getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY)
}

/// Why memory could not be locked, and what to do.
pub(super) fn explain(error: &io::Error) -> String {
    let denied = matches!(error.raw_os_error(), Some(code)
        if [Errno::EPERM as i32, Errno::ENOMEM as i32, Errno::EAGAIN as i32].contains(&code));
    if denied {
        format!(
            "{error}: give the container CAP_IPC_LOCK, as `vip manifest` does, or raise RLIMIT_MEMLOCK"
        )
    } else {
        error.to_string()
    }
}
