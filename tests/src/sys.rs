//! What no safe library offers: entering namespaces between `fork` and `exec`, some `bpf(2)`
//! commands, packet sockets, checksum offload, what TCP knows of a socket. All the `unsafe` of this
//! crate is here.

use std::ffi::c_int;
use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Pid, getppid};
use vip_userspace::kernel::bpf::{self, Instruction, Kind};

use crate::isolation::{CGROUPS, make_mounts_private, mount_fresh};

/// A network and a mount namespace that belong together.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// `/proc/PID/ns/net`.
    pub(crate) net: OwnedFd,
    /// `/proc/PID/ns/mnt`.
    pub(crate) mount: OwnedFd,
}

/// Makes the child die with the harness, by whatever end that comes to.
fn die_with(parent: Pid) -> io::Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the line above.
    if getppid() != parent {
        return Err(io::ErrorKind::NotConnected.into());
    }
    Ok(())
}

/// The command will run in the namespaces, and die with the harness.
pub(crate) fn run_inside(command: &mut Command, namespaces: &Arc<Namespaces>) {
    let namespaces = Arc::clone(namespaces);
    let parent = nix::unistd::getpid();
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            die_with(parent)?;
            setns(&namespaces.mount, CloneFlags::CLONE_NEWNS)?;
            setns(&namespaces.net, CloneFlags::CLONE_NEWNET)?;
            join_cgroup(OWN_CGROUP)
        });
    }
}

/// The control group that a host sees as the root of all.
const OWN_CGROUP: &str = "/sys/fs/cgroup/cgroup.procs";

/// Moves the calling process into the control group with this `cgroup.procs`.
fn join_cgroup(procs: &str) -> io::Result<()> {
    std::fs::write(procs, "0")
}

/// The command will run in new namespaces, with an own `/sys`, an own, empty `/run` and
/// `/var/lib`, and the given control group as the root of all it sees, and die with the harness.
pub(crate) fn run_in_new_namespaces(command: &mut Command, cgroup: &Path) {
    let parent = nix::unistd::getpid();
    let procs = cgroup.join("cgroup.procs").display().to_string();
    // SAFETY: system calls only, as above; an error path may allocate its message, in a child
    // that was forked while the harness ran no other thread that allocates for long.
    unsafe {
        command.pre_exec(move || {
            die_with(parent)?;
            join_cgroup(&procs)?;
            let own = CloneFlags::CLONE_NEWCGROUP;
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | own)?;
            make_mounts_private().map_err(io::Error::other)?;
            mount_fresh("sysfs", Path::new("/sys")).map_err(io::Error::other)?;
            mount_fresh("cgroup2", Path::new(CGROUPS)).map_err(io::Error::other)?;
            for path in ["/run", "/var/lib"] {
                mount_fresh("tmpfs", Path::new(path)).map_err(io::Error::other)?;
            }
            Ok(())
        });
    }
}

/// Runs `work` on a thread of its own inside the network namespace.
pub(crate) fn in_network<T: Send>(
    namespaces: &Namespaces,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(&namespaces.net, CloneFlags::CLONE_NEWNET)?;
                work()
            })
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a helper thread panicked")))
    })
}

/// The lowest signal that nobody has given a meaning (`SIGRTMIN`).
pub(crate) fn first_realtime_signal() -> i32 {
    libc::SIGRTMIN()
}

/// A set of signals that the calling thread, and those it starts, no longer receive.
pub(crate) struct BlockedSignals(libc::sigset_t);

/// Blocks the signals with these numbers.
pub(crate) fn block_signals(numbers: impl Iterator<Item = i32>) -> io::Result<BlockedSignals> {
    // SAFETY: `sigset_t` is plain old data, for which zeros are a valid value; the calls get
    // pointers to it, and change it and the thread's mask only.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for number in numbers {
            if libc::sigaddset(&raw mut set, number) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
            0 => Ok(BlockedSignals(set)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Waits for one of the blocked signals, and returns its number.
pub(crate) fn wait_for_signal(signals: &BlockedSignals) -> io::Result<i32> {
    let mut number = 0;
    // SAFETY: both pointers are to values that live on.
    match unsafe { libc::sigwait(&raw const signals.0, &raw mut number) } {
        0 => Ok(number),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Sends a signal that has a number only. A process that has ended gets none.
pub(crate) fn send_signal(pid: Pid, number: i32) {
    // SAFETY: there is no memory in it.
    unsafe { libc::kill(pid.as_raw(), number) };
}

/// `enum bpf_cmd`.
const BPF_OBJ_GET_INFO_BY_FD: c_int = 15;
const BPF_LINK_UPDATE: c_int = 29;
const BPF_XDP: u32 = 37;
/// `XDP_FLAGS_DRV_MODE`: in the driver, or not at all.
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Where programs of the tcx hooks hang.
pub(crate) const TCX_HOOKS: [(&str, u32); 2] = [
    ("tcx ingress", bpf::TCX_INGRESS),
    ("tcx egress", bpf::TCX_EGRESS),
];

/// An XDP program that drops ARP and lets everything else pass.
pub(crate) fn without_arp() -> Vec<Instruction> {
    let [drop, pass] = [1, 2].map(bpf::returning);
    let begin: [Instruction; 6] = [
        // r2 = the frame, r3 = its end (`struct xdp_md`)
        [0x61, 0x12, 0, 0, 0, 0, 0, 0],
        [0x61, 0x13, 4, 0, 0, 0, 0, 0],
        // r4 = r2 + 14; if r4 > r3: let it pass
        [0xbf, 0x24, 0, 0, 0, 0, 0, 0],
        [0x07, 0x04, 0, 0, 14, 0, 0, 0],
        [0x2d, 0x34, 4, 0, 0, 0, 0, 0],
        // r5 = the EtherType; if it is another one: let it pass
        [0x69, 0x25, 12, 0, 0, 0, 0, 0],
    ];
    let is_arp: Instruction = [0x55, 0x05, 2, 0, 0x08, 0x06, 0, 0];
    [&begin[..], &[is_arp], &drop, &pass].concat()
}

/// Whether the kernel has XDP programs for frames in several buffers.
///
/// # Errors
/// It takes no XDP programs at all.
pub(crate) fn has_xdp_frags() -> io::Result<bool> {
    match bpf::load_with(Kind::Xdp, "pass", &bpf::returning(2), bpf::HAS_FRAGS) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Loads the XDP program `return XDP_PASS`, for frames in several buffers if the kernel can.
pub(crate) fn load_xdp_pass() -> io::Result<OwnedFd> {
    bpf::load(Kind::Xdp, "pass", &bpf::returning(2))
}

/// What an XDP program on the port of a switch does to the frames that come in there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mangle {
    /// Nothing.
    Nothing,
    /// Their Ethernet source becomes this one, as by the MAC NAT of a hypervisor.
    Source([u8; 6]),
    /// Their Ethernet source begins with these bytes and ends with two at random, which is worse
    /// than any bond of mode 5 or 6.
    AnySource([u8; 4]),
    /// They get the tag of VLAN 0 with priority 3 (IEEE 802.1Q, clause 9.6), in band.
    PriorityTag,
    /// So many percent of them are lost, at random. (Not every kernel has `netem`.)
    Lose(u8),
}

/// Loads the XDP program that mangles frames, and lets all pass.
pub(crate) fn load_mangler(how: Mangle) -> io::Result<OwnedFd> {
    let instruction = |code: u8, registers: u8, offset: i16, value: i32| -> Instruction {
        let ([a, b], [c, d, e, f]) = (offset.to_le_bytes(), value.to_le_bytes());
        [code, registers, a, b, c, d, e, f]
    };
    // Registers: the target in the lower half of the byte, the source in the upper one.
    let load = |size: u8, to: u8, from: u8, at| instruction(0x61 | size, from << 4 | to, at, 0);
    let store = |size: u8, to: u8, at, from: u8| instruction(0x63 | size, from << 4 | to, at, 0);
    let store_value = |size: u8, to: u8, at, value| instruction(0x62 | size, to, at, value);
    let copy = |to: u8, from: u8| instruction(0xbf, from << 4 | to, 0, 0);
    let call = |helper| instruction(0x85, 0, 0, helper);
    let (word, half, double) = (0x00, 0x08, 0x18);
    // r2 = data, and if there are not so many bytes from there on, skip what comes.
    let bounds = |bytes: i32, skip: i16| {
        [
            load(word, 2, 6, 0),
            load(word, 3, 6, 4),
            copy(4, 2),
            instruction(0x07, 4, 0, bytes),
            instruction(0x2d, 3 << 4 | 4, skip, 0),
        ]
    };
    let leave_with = |action| [instruction(0xb7, 0, 0, action), instruction(0x95, 0, 0, 0)];
    let mut program = vec![copy(6, 1)];
    match how {
        Mangle::Nothing => {}
        Mangle::Source([a, b, c, d, e, f]) => {
            program.extend(bounds(14, 2));
            program.push(store_value(word, 2, 6, i32::from_le_bytes([a, b, c, d])));
            let last = i32::from(u16::from_le_bytes([e, f]));
            program.push(store_value(half, 2, 10, last));
        }
        Mangle::AnySource(first) => {
            // bpf_get_prandom_u32
            program.push(call(7));
            program.extend(bounds(14, 2));
            program.push(store_value(word, 2, 6, i32::from_le_bytes(first)));
            program.push(store(half, 2, 10, 0));
        }
        Mangle::PriorityTag => {
            // bpf_xdp_adjust_head(context, -4); if it fails, skip all.
            program.extend([copy(1, 6), instruction(0xb7, 2, 0, -4), call(44)]);
            program.push(instruction(0x55, 0, 10, 0));
            program.extend(bounds(18, 5));
            program.extend([
                load(double, 0, 2, 4),
                store(double, 2, 0, 0),
                load(word, 0, 2, 12),
                store(word, 2, 8, 0),
                store_value(word, 2, 12, i32::from_le_bytes([0x81, 0x00, 0x60, 0x00])),
            ]);
        }
        Mangle::Lose(percent) => {
            // bpf_get_prandom_u32; from this number on, skip XDP_DROP.
            let lost = u32::MAX / 100 * u32::from(percent.min(100));
            program.extend([call(7), instruction(0x36, 0, 2, lost.cast_signed())]);
            program.extend(leave_with(1));
        }
    }
    program.extend(leave_with(2));
    bpf::load(Kind::Xdp, "mangle", &program)
}

/// Puts another program in the place of the one that hangs by a link.
pub(crate) fn replace_program(link: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attributes = Attributes {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_prog_fd: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the command's fields, no address.
    unsafe { bpf::call(BPF_LINK_UPDATE, &mut attributes) }.map(drop)
}

/// Attaches an XDP program to an interface of the calling thread's network namespace, in the
/// driver. It hangs there until the descriptor is closed.
pub(crate) fn attach_xdp(program: &OwnedFd, interface: &str) -> io::Result<OwnedFd> {
    bpf::link(
        program.as_fd(),
        if_nametoindex(interface)?,
        BPF_XDP,
        XDP_FLAGS_DRV_MODE,
    )
}

/// Attaches a program to a tcx hook, before or after all others that hang there.
pub(crate) fn attach_tcx(
    program: &OwnedFd,
    interface: &str,
    hook: u32,
    first: bool,
) -> io::Result<OwnedFd> {
    let flags = if first { bpf::FIRST } else { 0 };
    bpf::link(program.as_fd(), if_nametoindex(interface)?, hook, flags)
}

/// The kernel's number of a program.
pub(crate) fn program_id(program: &OwnedFd) -> io::Result<u32> {
    /// The first fields of `struct bpf_prog_info`.
    #[repr(C)]
    struct Info {
        kind: u32,
        id: u32,
    }
    #[repr(C)]
    struct Attributes {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = Info { kind: 0, id: 0 };
    let mut attributes = Attributes {
        bpf_fd: program.as_raw_fd().cast_unsigned(),
        info_len: size_of::<Info>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the command's fields; the kernel writes no more than it is told that there is.
    unsafe { bpf::call(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info.id)
}

/// Loads the socket lookup program that lets every lookup go on, `return SK_PASS`.
pub(crate) fn load_lookup_pass() -> io::Result<OwnedFd> {
    bpf::load(Kind::SocketLookup, "pass", &bpf::returning(1))
}

/// Attaches a socket lookup program to the calling thread's network namespace. It hangs there
/// until the descriptor is closed.
pub(crate) fn attach_lookup(program: &OwnedFd) -> io::Result<OwnedFd> {
    let netns = std::fs::File::open("/proc/thread-self/ns/net")?;
    let netns = netns.as_raw_fd().cast_unsigned();
    bpf::link(program.as_fd(), netns, bpf::SK_LOOKUP, 0)
}

/// Numbers of the programs at a tcx hook of an interface of the calling thread's namespace, in
/// the order in which they run.
pub(crate) fn attached_programs(interface: &str, hook: u32) -> io::Result<Vec<u32>> {
    match bpf::attached(if_nametoindex(interface)?, hook) {
        // Linux before 6.6 has no tcx, so nothing can hang there.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        programs => programs,
    }
}

/// `ethtool -K INTERFACE tx off` in the calling thread's network namespace.
pub(crate) fn checksum_offload_off(interface: &str) -> io::Result<()> {
    /// `linux/ethtool.h`.
    const ETHTOOL_STXCSUM: u32 = 0x17;
    ethtool(interface, ETHTOOL_STXCSUM, 0).map(drop)
}

/// `ethtool -K INTERFACE txvlan off`: tags leave in the frame, not beside it.
pub(crate) fn tags_in_band(interface: &str) -> io::Result<()> {
    /// `linux/ethtool.h`.
    const ETHTOOL_GFLAGS: u32 = 0x25;
    const ETHTOOL_SFLAGS: u32 = 0x26;
    const ETH_FLAG_TXVLAN: u32 = 1 << 7;
    let flags = ethtool(interface, ETHTOOL_GFLAGS, 0)?;
    ethtool(interface, ETHTOOL_SFLAGS, flags & !ETH_FLAG_TXVLAN).map(drop)
}

/// How long ago a TCP socket received a segment with data, or the SYN-ACK if none has come yet
/// (`tcpi_last_data_recv` of `struct tcp_info`; milliseconds, in steps of the kernel's timer).
///
/// # Errors
/// It is no TCP socket.
pub(crate) fn last_received(socket: BorrowedFd<'_>) -> io::Result<Duration> {
    // SAFETY: `tcp_info` is plain old data, for which zeros are a valid value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to `info`, which has as many and lives on.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            std::ptr::from_mut(&mut info).cast(),
            &raw mut size,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::from_millis(info.tcpi_last_data_recv.into()))
}

/// A command of ethtool that takes or gives a number. Returns the number afterwards.
fn ethtool(interface: &str, command: u32, data: u32) -> io::Result<u32> {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    let mut value = Value { command, data };
    // SAFETY: `ifreq` is plain old data, for which zeros are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    // SAFETY: the request names `value`, which is as large as the commands expect and lives on.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.data)
}

/// A raw packet socket bound to one interface. It sends whole Ethernet frames and receives
/// those of one EtherType.
///
/// # Errors
/// No such interface, or no permission.
pub(crate) fn packet_socket(interface: &str, ethertype: u16) -> io::Result<OwnedFd> {
    let protocol = ethertype.to_be();
    let socket = socket2::Socket::new(
        socket2::Domain::PACKET,
        socket2::Type::RAW,
        Some(i32::from(protocol).into()),
    )?;
    // SAFETY: `sockaddr_ll` is plain old data, for which zeros are a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = if_nametoindex(interface)?.cast_signed();
    // SAFETY: the address is a `sockaddr_ll` and its size is given.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn an_open_connection_is_as_old_as_its_syn_ack() -> io::Result<()> {
        const AGE: Duration = Duration::from_millis(200);
        // One step of the kernel's timer, where that is longest.
        const TICK: Duration = Duration::from_millis(10);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        std::thread::sleep(AGE);
        let age = last_received(client.as_fd())?;
        assert!(age + TICK >= AGE, "{age:?}");
        Ok(())
    }
}
