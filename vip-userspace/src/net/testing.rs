//! Two network namespaces, joined by a veth pair, for tests.

use std::fs::File;
use std::future::Future;
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

/// Address of `a0`, in namespace A.
pub(crate) const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Address of `b0`, in namespace B.
pub(crate) const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// The same for IPv6.
pub(crate) const A6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);
/// The same for IPv6.
pub(crate) const B6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2);
/// Nobody's address, in the same subnet.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 10);

/// The same for IPv6.
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0x10);

/// One of the two namespaces.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub(crate) fn mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 0xa + self as u8]
    }
}

/// Handles of the two namespaces.
pub(crate) struct Pair([File; 2]);

impl Pair {
    /// Moves this thread. Sockets stay in the namespace that they were opened in.
    pub(crate) fn enter(&self, side: Side) {
        setns(&self.0[side as usize], CloneFlags::CLONE_NEWNET).expect("enter a namespace");
    }
}

/// Runs a test on a thread of its own, between two new namespaces. Without root it says that
/// the test is skipped.
pub(crate) fn in_two_namespaces(test: impl AsyncFnOnce(&Pair) + Send + 'static) {
    let thread = std::thread::current();
    if !nix::unistd::geteuid().is_root() {
        let name = thread.name().unwrap_or("a network test").to_owned();
        // Past the test runner's capture: `cargo xtask test` lists these lines.
        writeln!(std::io::stderr(), "SKIPPED {name}: needs root").expect("write to stderr");
        return;
    }
    let runs = std::thread::spawn(move || {
        let pair = set_up();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("build a runtime")
            .block_on(test(&pair));
    });
    if let Err(panic) = runs.join() {
        std::panic::resume_unwind(panic);
    }
}

fn set_up() -> Pair {
    let namespace = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace");
        File::open("/proc/thread-self/ns/net").expect("open the network namespace")
    };
    let pair = Pair([namespace(), namespace()]);
    let other = format!("/proc/{}/fd/{}", std::process::id(), pair.0[0].as_raw_fd());
    ip(&format!("link add b0 type veth peer name a0 netns {other}"));
    for (side, name, address, v6) in [(Side::A, "a0", A, A6), (Side::B, "b0", B, B6)] {
        pair.enter(side);
        let [.., last] = side.mac();
        ip(&format!(
            "link set {name} address 02:00:00:00:00:{last:02x}"
        ));
        ip(&format!("address add {address}/24 dev {name}"));
        ip(&format!("address add {v6}/64 dev {name} nodad"));
        ip("link set lo up");
        ip(&format!("link set {name} up"));
    }
    for (side, name) in [(Side::A, "a0"), (Side::B, "b0")] {
        pair.enter(side);
        // The kernel sees the carrier a moment later, and drops what is sent before.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ip(&format!("link show {name}")).contains("state UP") {
            assert!(Instant::now() < deadline, "{name} does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    pair
}

/// Runs `ip` in the namespace that this thread is in. Returns what it prints.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("start ip (package iproute2)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Connects to port 6443 of an address that `lo` of one of the namespaces has just got. The kernel adds
/// the route to one of IPv6 a little later (`addrconf_dad_begin` in net/ipv6/addrconf.c runs in a work
/// queue).
pub(crate) fn connect_soon(vip: IpAddr) -> TcpStream {
    let end = Instant::now() + Duration::from_secs(60);
    let is_early = |kind| {
        matches!(
            kind,
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable
        )
    };
    loop {
        match TcpStream::connect((vip, 6443)) {
            Err(error) if is_early(error.kind()) && Instant::now() < end => {}
            connected => return connected.expect("connect to the VIP"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until there is something to read.
pub(crate) async fn arrives(socket: &impl AsFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::from(30_000_u16);
    let ready = poll(&mut fds, timeout).expect("poll works");
    assert_eq!(ready, 1, "it comes within 30 s");
}

/// Waits for what must come, and not for ever.
pub(crate) async fn within_reach<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what)
        .await
        .expect("it comes within 30 s")
}
