//! `bpf(2)`, for the commands that aya has no call for.

use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

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

/// The fields of a command about one element of a map.
#[repr(C)]
struct Element {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    /// That of a global: the only one of its array.
    fn of_global(map: BorrowedFd<'_>, key: &u32, value: u64) -> Self {
        Self {
            map_fd: map.as_raw_fd().cast_unsigned(),
            reserved: 0,
            key: std::ptr::from_ref(key) as u64,
            value,
            flags: 0,
        }
    }
}

/// Reads a global. (aya moves a value over the stack, which is too small for a large one.)
///
/// # Errors
/// What the kernel says; before Linux 5.15 also that it has no memory in one piece.
///
/// # Safety
/// The map is an array, whose values are as long as `value`.
pub unsafe fn read_global(map: BorrowedFd<'_>, value: &mut [u64]) -> io::Result<()> {
    /// `enum bpf_cmd`.
    const MAP_LOOKUP_ELEM: c_int = 1;
    let mut attributes = Element::of_global(map, &0, value.as_mut_ptr() as u64);
    // SAFETY: the command's fields; the value is as long as the kernel writes, and lives on.
    unsafe { call(MAP_LOOKUP_ELEM, &mut attributes) }.map(drop)
}

/// Writes a global.
///
/// # Errors
/// As [`read_global`].
///
/// # Safety
/// As [`read_global`].
pub unsafe fn write_global(map: BorrowedFd<'_>, value: &[u64]) -> io::Result<()> {
    /// `enum bpf_cmd`.
    const MAP_UPDATE_ELEM: c_int = 2;
    let mut attributes = Element::of_global(map, &0, value.as_ptr() as u64);
    // SAFETY: the command's fields; the value is as long as the kernel reads, and lives on.
    unsafe { call(MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// An instruction (`struct bpf_insn`).
pub type Instruction = [u8; 8];

/// The program `r0 = value; exit`.
#[must_use]
pub fn returning(value: i32) -> [Instruction; 2] {
    let [a, b, c, d] = value.to_le_bytes();
    [[0xb7, 0, 0, 0, a, b, c, d], [0x95, 0, 0, 0, 0, 0, 0, 0]]
}

/// Kinds of programs (`enum bpf_prog_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `BPF_PROG_TYPE_SCHED_CLS`.
    Classifier = 3,
    /// `BPF_PROG_TYPE_XDP`.
    Xdp = 6,
    /// `BPF_PROG_TYPE_SK_LOOKUP` (Linux 5.9).
    SocketLookup = 30,
}

/// `BPF_F_XDP_HAS_FRAGS`: frames in several buffers are no obstacle (Linux 5.18).
pub const HAS_FRAGS: u32 = 1 << 5;

/// Loads a program of a few instructions, under a name of 15 bytes at most; one for XDP for frames
/// in several buffers, if the kernel can.
///
/// # Errors
/// The kernel refuses it.
pub fn load(kind: Kind, name: &str, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let flags = if kind == Kind::Xdp { HAS_FRAGS } else { 0 };
    match load_with(kind, name, instructions, flags) {
        Err(error) if flags != 0 && error.raw_os_error() == Some(libc::EINVAL) => {
            load_with(kind, name, instructions, 0)
        }
        loaded => loaded,
    }
}

/// The same with these flags.
///
/// # Errors
/// The kernel refuses it.
pub fn load_with(
    kind: Kind,
    name: &str,
    instructions: &[Instruction],
    prog_flags: u32,
) -> io::Result<OwnedFd> {
    /// `enum bpf_cmd`.
    const PROG_LOAD: c_int = 5;
    #[repr(C)]
    struct Attributes {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    let mut attributes = Attributes {
        prog_type: kind as u32,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags,
        prog_name: [0; 16],
        prog_ifindex: 0,
        // The other kinds have no choice.
        expected_attach_type: if kind == Kind::SocketLookup {
            SK_LOOKUP
        } else {
            0
        },
    };
    for (to, from) in attributes.prog_name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the command's fields; instructions and licence are as long as said, and live on. It
    // hands out a descriptor.
    unsafe { open(PROG_LOAD, &mut attributes) }
}

/// `BPF_F_BEFORE`: before all others of a list of programs. Without it, behind them.
pub const FIRST: u32 = 1 << 3;

/// Attaches a program by a link: it hangs there until the descriptor is closed and no pin holds it.
/// `attach_type` is one of `enum bpf_attach_type`, and says what the target is: the index of an
/// interface, or the descriptor of a network namespace.
///
/// # Errors
/// There is no such target, or the kernel refuses.
pub fn link(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    /// `enum bpf_cmd`.
    const LINK_CREATE: c_int = 28;
    #[repr(C)]
    struct Attributes {
        prog_fd: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attributes = Attributes {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target,
        attach_type,
        flags,
    };
    // SAFETY: the command's fields, no address. It hands out a descriptor.
    unsafe { open(LINK_CREATE, &mut attributes) }
}

/// Begins to read what the program of an iterator's link writes.
///
/// # Errors
/// The kernel's.
pub fn iterator(link: &OwnedFd) -> io::Result<OwnedFd> {
    /// `enum bpf_cmd`.
    const ITER_CREATE: c_int = 33;
    #[repr(C)]
    struct Attributes {
        link_fd: u32,
        flags: u32,
    }
    let mut attributes = Attributes {
        link_fd: link.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    // SAFETY: the command's fields, no address. It hands out a descriptor.
    unsafe { open(ITER_CREATE, &mut attributes) }
}

/// `BPF_TRACE_ITER` (`enum bpf_attach_type`).
pub const TRACE_ITER: u32 = 28;

/// `BPF_SK_LOOKUP` (`enum bpf_attach_type`).
pub const SK_LOOKUP: u32 = 36;
/// `BPF_TCX_INGRESS`.
pub const TCX_INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS`.
pub const TCX_EGRESS: u32 = 47;

/// Numbers of the programs that are attached to a target, as [`link`] has it, in the order in which
/// they run. Both kinds of targets have 64 at most (`bpf_mprog_total`, `netns_bpf_max_progs`). Takes
/// `CAP_NET_ADMIN` alone: anything more about a program that is somebody else's takes
/// `CAP_SYS_ADMIN`, which no agent has once it runs.
///
/// # Errors
/// There is no such target; `EINVAL`, if the kernel has no such hook.
pub fn attached(target: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    /// `enum bpf_cmd`.
    const PROG_QUERY: c_int = 16;
    // All of it: the kernel writes the revision whatever size it is told (`bpf_mprog_query`,
    // kernel/bpf/mprog.c).
    #[repr(C)]
    struct Attributes {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        reserved: u32,
        prog_attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    let mut programs = vec![0_u32; 64];
    let mut attributes = Attributes {
        target,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: programs.as_mut_ptr() as u64,
        prog_cnt: programs.len() as u32,
        reserved: 0,
        prog_attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: the command's fields; the list is as long as said, and lives on.
    unsafe { call(PROG_QUERY, &mut attributes) }?;
    programs.truncate(attributes.prog_cnt as usize);
    Ok(programs)
}
