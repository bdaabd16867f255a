//! `bpf(2)`, for the commands that aya has no call for.

use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

/// Runs a command (`enum bpf_cmd`, include/uapi/linux/bpf.h) with the first fields of
/// `union bpf_attr`, into which the kernel may write. What lies beyond them counts as zero.
///
/// # Errors
/// What the kernel says.
///
/// # Safety
/// `T` is `repr(C)`, and has the fields that the command wants, and those that it writes: some
/// write theirs even where the length ends before them (`BPF_PROG_QUERY`). Addresses among them are those
/// of memory that is as long as the command expects, and outlives the call.
pub unsafe fn call<T>(command: c_int, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: the attributes are as long as said; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// As [`call`], for a command that hands out a descriptor.
///
/// # Errors
/// What the kernel says.
///
/// # Safety
/// As [`call`]; and the command does hand one out.
pub unsafe fn open<T>(command: c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { call(command, attributes) }?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just handed out this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lifts the limit of locked memory, against which Linux before 5.11 counts maps and programs.
///
/// # Errors
/// `CAP_SYS_RESOURCE` is missing.
pub fn lift_memory_limit() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
}
