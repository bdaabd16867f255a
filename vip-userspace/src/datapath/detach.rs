//! Detaching a pinned link at once.
//!
//! The last reference to a link that goes only asks a worker of the kernel to detach its program
//! (`bpf_link_put` in kernel/bpf/syscall.c), and until that has run the place is taken.
//! `BPF_LINK_DETACH` (Linux 5.9) does it before it returns.

use std::ffi::{CString, c_int};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::{fs, io};

use crate::kernel::bpf;

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const OBJ_GET: c_int = 7;
const LINK_DETACH: c_int = 34;

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

/// Opens what is pinned, whatever it is.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let pathname = CString::new(path.as_os_str().as_bytes())?;
    let mut get = ObjGet {
        pathname: pathname.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the command's fields; the path ends in zero and lives on. It hands out a descriptor.
    unsafe { bpf::open(OBJ_GET, &mut get) }
}

/// Whether what is pinned is a link. The kernel tells maps, programs and links apart by the names
/// of their files alone.
pub(super) fn is_link(path: &Path) -> bool {
    let name =
        open(path).and_then(|pin| fs::read_link(format!("/proc/self/fd/{}", pin.as_raw_fd())));
    name.is_ok_and(|name| name.to_string_lossy().contains("link"))
}

/// Detaches the program of a pinned link. The pin stays.
///
/// # Errors
/// There is no such pin, or it is none of a link that can be detached.
pub(super) fn detach(path: &Path) -> io::Result<()> {
    let link = open(path)?;
    let mut detach = LinkDetach {
        link_fd: link.as_raw_fd().cast_unsigned(),
    };
    // SAFETY: the command's only field, no address.
    unsafe { bpf::call(LINK_DETACH, &mut detach) }.map(drop)
}
