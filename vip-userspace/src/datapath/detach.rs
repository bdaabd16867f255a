//! Detaching a pinned link at once.
//!
//! The last reference to a link that goes only asks a worker of the kernel to detach its program
//! (`bpf_link_put` in kernel/bpf/syscall.c), and until that has run the place is taken.
//! `BPF_LINK_DETACH` (Linux 5.9) does it before it returns. aya has no call for it, so it is made
//! here, and the `unsafe` of it stays in this file.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const OBJ_GET: libc::c_int = 7;
const LINK_DETACH: libc::c_int = 34;

/// The fields of `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Those for `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Detaches the program of a pinned link. The pin stays.
///
/// # Errors
/// There is no such pin, or it is none of a link that can be detached.
pub(super) fn detach(path: &Path) -> io::Result<()> {
    let pathname = CString::new(path.as_os_str().as_bytes())?;
    let fd = bpf(
        OBJ_GET,
        &mut ObjGet {
            pathname: pathname.as_ptr() as u64,
            bpf_fd: 0,
            file_flags: 0,
        },
    )?;
    // SAFETY: the kernel has just handed out this descriptor and nobody else knows it.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    let link_fd = link.as_raw_fd() as u32;
    bpf(LINK_DETACH, &mut LinkDetach { link_fd }).map(drop)
}

/// Calls `bpf(2)` with the first fields of `union bpf_attr`.
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads within the size given, and treats what lies beyond it as zero.
    // The path that one of the callers points to outlives the call.
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
    RawFd::try_from(result).map_err(io::Error::other)
}
