//! This node's connections, read by the programs of [`vip_common::roster`].

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use aya::Btf;
use aya::maps::{Array, MapData, RingBuf};
use aya::programs::tp_btf::BtfTracePointLink;
use aya::programs::{BtfTracePoint, Iter};
use vip_common::roster::{
    CHANGES, Connection as Found, LAYOUT, LOST, Layout, PORTS, WANTED, Wanted,
};
use vip_node::roster::{Change, Connection};

use super::error::{DatapathError, map_error, program_error};
use super::loader::Loader;
use super::programs::program;
use super::value::Value;
use crate::kernel::{bpf, btf};

/// The object, as `cargo xtask build-ebpf` made it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/roster.o"));

/// The programs.
const ALL: &str = "vip_roster";
const ONE: &str = "vip_roster_changes";

/// Where the second one runs.
const TRACEPOINT: &str = "inet_sock_set_state";

/// `AF_INET` (include/linux/socket.h).
const IPV4: u16 = 2;

/// Bytes that are read at once: the kernel hands out no more than it has buffered.
const CHUNK: usize = 1 << 16;

/// The loaded programs.
pub struct Roster {
    link: OwnedFd,
    wanted: Array<MapData, Value<Wanted>>,
    changes: RingBuf<MapData>,
    /// Changes that had no room, and how many there were when they were last read.
    lost: Array<MapData, u64>,
    seen_lost: u64,
    /// Detaches the second program when it is dropped.
    _tracepoint: BtfTracePointLink,
}

impl Roster {
    /// Loads the programs, and begins to take changes.
    ///
    /// # Errors
    /// The kernel has no such iterators (before Linux 5.9), does not describe its types, or the agent
    /// lacks `CAP_BPF` or `CAP_PERFMON`.
    pub fn load(loader: &mut Loader) -> Result<Self, DatapathError> {
        static FOUND: OnceLock<Layout> = OnceLock::new();
        let layout = layout().map_err(DatapathError::io("cannot read the kernel's BTF"))?;
        let layout = FOUND.get_or_init(|| layout);
        // If it is not allowed and needed, the load says so.
        let _not_allowed = bpf::lift_memory_limit();
        loader
            .0
            .override_global(LAYOUT, bytemuck::bytes_of(layout), true);
        let mut ebpf = loader.0.load(OBJECT).map_err(DatapathError::Load)?;
        let types = Btf::from_sys_fs().map_err(io::Error::other);
        let types = types.map_err(DatapathError::io("cannot read the kernel's BTF"))?;
        let iter: &mut Iter = program(&mut ebpf, ALL)?;
        iter.load("tcp", &types).map_err(program_error(ALL))?;
        let fd = iter.fd().map_err(program_error(ALL))?.as_fd();
        let link = bpf::link(fd, 0, bpf::TRACE_ITER, 0);
        let link = link.map_err(DatapathError::io(
            "cannot attach the program for connections",
        ))?;
        let changes: &mut BtfTracePoint = program(&mut ebpf, ONE)?;
        changes
            .load(TRACEPOINT, &types)
            .map_err(program_error(ONE))?;
        let attached = changes.attach().map_err(program_error(ONE))?;
        let tracepoint = changes.take_link(attached).map_err(program_error(ONE))?;
        let mut map = |name| ebpf.take_map(name).ok_or(DatapathError::Missing(name));
        Ok(Self {
            link,
            wanted: Array::try_from(map(WANTED)?).map_err(map_error(WANTED))?,
            changes: RingBuf::try_from(map(CHANGES)?).map_err(map_error(CHANGES))?,
            lost: Array::try_from(map(LOST)?).map_err(map_error(LOST))?,
            seen_lost: 0,
            _tracepoint: tracepoint,
        })
    }

    /// Connections that have come or gone since this was asked last, in their order, and whether these
    /// are all: of those for which there was no room, only a scan tells.
    pub fn changes(&mut self) -> (Vec<Change>, bool) {
        let mut changes = Vec::new();
        while let Some(bytes) = self.changes.next() {
            // The program writes nothing else.
            let Ok(found) = bytemuck::try_pod_read_unaligned::<Found>(&bytes) else {
                continue;
            };
            let connection = connection(&found);
            changes.push(match found.ended {
                0 => Change::Come(connection),
                _ => Change::Gone(connection.key()),
            });
        }
        let lost = self.lost.get(&0, 0).unwrap_or_default();
        let before = std::mem::replace(&mut self.seen_lost, lost);
        (changes, lost == before)
    }

    /// The servers of the calling thread's network namespace listen at these ports; of more than
    /// [`PORTS`], the lowest count.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_ports(&mut self, ports: &BTreeSet<u16>) -> Result<(), DatapathError> {
        let netns = netns().map_err(DatapathError::io("cannot tell the network namespace"))?;
        let mut wanted = Wanted {
            ports: [0; PORTS],
            netns,
        };
        for (place, port) in wanted.ports.iter_mut().zip(ports) {
            *place = *port;
        }
        let set = self.wanted.set(0, Value(wanted), 0);
        set.map_err(map_error(WANTED))
    }

    /// The connections that the servers of the calling thread's network namespace have open.
    ///
    /// # Errors
    /// The kernel's.
    pub fn scan(&self) -> io::Result<Vec<Connection>> {
        let mut file = File::from(bpf::iterator(&self.link)?);
        let mut bytes = vec![0; CHUNK];
        let mut kept = 0;
        let mut connections = Vec::new();
        loop {
            let read = file.read(&mut bytes[kept..])?;
            if read == 0 {
                return Ok(connections);
            }
            let length = kept + read;
            let whole = length - length % size_of::<Found>();
            let found = bytes[..whole].chunks_exact(size_of::<Found>());
            connections.extend(found.map(|one| connection(&bytemuck::pod_read_unaligned(one))));
            bytes.copy_within(whole..length, 0);
            kept = length - whole;
        }
    }
}

fn connection(found: &Found) -> Connection {
    let address = |v4: u32, v6: [u32; 4]| {
        if found.family == IPV4 {
            IpAddr::from(v4.to_ne_bytes())
        } else {
            Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>(v6)).to_canonical()
        }
    };
    let client = address(found.client_v4, found.client);
    let server = address(found.server_v4, found.server);
    Connection {
        client: SocketAddr::new(client, u16::from_be(found.client_port)),
        server: SocketAddr::new(server, found.port),
        unacknowledged: found.unacknowledged,
        expected: found.expected,
    }
}

/// The kernel's number of this thread's network namespace.
fn netns() -> io::Result<u32> {
    let number = fs::metadata("/proc/thread-self/ns/net")?.ino();
    u32::try_from(number).map_err(io::Error::other)
}

fn layout() -> io::Result<Layout> {
    let common = |field| ("sock_common", field);
    let fields = [
        common("skc_family"),
        common("skc_state"),
        common("skc_num"),
        common("skc_dport"),
        common("skc_daddr"),
        common("skc_rcv_saddr"),
        common("skc_v6_daddr"),
        common("skc_v6_rcv_saddr"),
        ("tcp_sock", "snd_una"),
        ("tcp_sock", "rcv_nxt"),
        common("skc_net"),
        ("net", "ns"),
        ("ns_common", "inum"),
    ];
    let found = btf::offsets(fields)?;
    let mut offsets = [0; 13];
    for ((offset, found), (_, field)) in offsets.iter_mut().zip(found).zip(fields) {
        *offset = found.ok_or_else(|| io::Error::other(format!("it has no field {field}")))?;
    }
    // The number is in a structure in another one.
    let [fields @ .., namespace, number] = offsets;
    let mut layout = [0; 12];
    layout[..11].copy_from_slice(&fields);
    layout[11] = namespace + number;
    Ok(bytemuck::cast(layout))
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use aya::programs::loaded_programs;
    use aya::sys::{Stats, enable_stats};

    use super::*;

    #[test]
    fn connections_are_told_when_they_come_and_go() {
        let mut roster = Roster::load(&mut Loader::default()).expect("it loads");
        let listener = TcpListener::bind("[::]:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        roster.set_ports(&[port].into()).expect("a map");
        for host in ["127.0.0.1", "::1"] {
            let at = SocketAddr::new(host.parse().expect("an address"), port);
            let client = TcpStream::connect(at).expect("it listens");
            let server = listener.accept().expect("one").0;
            let ends = (client.local_addr().expect("an end"), at);
            let come = roster.changes();
            let ([Change::Come(one)], true) = (&come.0[..], come.1) else {
                panic!("{come:?}");
            };
            let key = one.key();
            assert_eq!((one.client, one.server), ends);
            let scan = roster.scan().expect("a scan");
            assert!(scan.iter().any(|found| found.key() == key));
            // Closed would not be enough: a process that another test starts just now has them, too.
            for end in [&server, &client] {
                end.shutdown(Shutdown::Both).expect("a connection");
            }
            assert_eq!(roster.changes(), (vec![Change::Gone(key)], true));
        }
    }

    #[test]
    fn more_changes_than_there_is_room_for_are_noticed() {
        let mut roster = Roster::load(&mut Loader::default()).expect("it loads");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("bound");
        roster.set_ports(&[at.port()].into()).expect("a map");
        for _ in 0..3000 {
            drop(TcpStream::connect(at).expect("it listens"));
            drop(listener.accept().expect("one"));
        }
        let (kept, are_all) = roster.changes();
        assert!(!are_all && kept.len() > 4000, "{}", kept.len());
        assert_eq!(roster.changes(), (vec![], true));
    }

    #[test]
    #[ignore = "by hand: it measures"]
    #[expect(clippy::print_stderr, reason = "figures are for whoever runs it")]
    fn scans_cost() {
        let mut roster = Roster::load(&mut Loader::default()).expect("it loads");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("bound");
        roster.set_ports(&[at.port()].into()).expect("a map");
        let mut held = Vec::new();
        for more in [0, 10, 1000, 8000] {
            for _ in 0..more {
                held.push(TcpStream::connect(at).expect("it listens"));
                held.push(listener.accept().expect("one").0);
            }
            let times: Vec<_> = (0..9)
                .map(|_| {
                    let begun = Instant::now();
                    let found = roster.scan().expect("a scan").len();
                    (begun.elapsed(), found)
                })
                .collect();
            eprintln!("{times:?}");
        }
    }

    #[test]
    #[ignore = "by hand: it measures"]
    #[expect(clippy::print_stderr, reason = "figures are for whoever runs it")]
    fn changes_cost() {
        const CONNECTIONS: u32 = 10_000;
        let _counted = enable_stats(Stats::RunTime).expect("root");
        let mut roster = Roster::load(&mut Loader::default()).expect("it loads");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("bound");
        for port in [at.port(), 1] {
            roster.set_ports(&[port].into()).expect("a map");
            let before = program_time();
            for _ in 0..CONNECTIONS {
                let client = TcpStream::connect(at).expect("it listens");
                let server = listener.accept().expect("one");
                drop(client);
                drop(server);
                roster.changes();
            }
            let after = program_time();
            let (time, runs) = (after.0 - before.0, after.1 - before.1);
            let each = time / CONNECTIONS;
            eprintln!(
                "port {port}: {each:?} a connection, {} runs",
                runs / u64::from(CONNECTIONS)
            );
        }
    }

    /// For how long the programs at the tracepoint have run on this machine, and how often.
    fn program_time() -> (Duration, u64) {
        let programs = loaded_programs().map(|program| program.expect("root"));
        let ours = programs.filter(|program| {
            let name = program.name_as_str();
            name.is_some_and(|name| ONE.starts_with(name) && name.len() > ALL.len())
        });
        ours.fold((Duration::ZERO, 0), |(time, runs), program| {
            (time + program.run_time(), runs + program.run_count())
        })
    }
}
