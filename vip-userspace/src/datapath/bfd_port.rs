//! BFD's port, shared with FRR or BIRD on the same node: the socket lookup program of
//! [`vip_common::bfd_port`], and its link to the network namespace.
//!
//! The link is pinned. While no agent runs, the program has no socket to hand datagrams to, and
//! drops what other agents send here: FRR and BIRD would take their packets for ones of sessions
//! of their own with the same hosts, and end those.

use std::ffi::{CString, c_int};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, SockMap};
use aya::programs::{ProgramInfo, SkLookup};
use vip_common::bfd_port::{self, BfdPort as State};

use super::error::{DatapathError, map_error, program_error};
use super::loader::Loader;
use super::pins::{Pins, unpin_link};
use super::programs::program;
use super::value::Value;
use crate::kernel::bpf::{self, SK_LOOKUP};
use crate::net::bfd::BfdSocket;

/// The object, as `cargo xtask build-ebpf` made it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bfd_port.o"));

/// The program, and the file that its link is pinned as.
const PROGRAM: &str = "vip_bfd_port";

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const OBJ_PIN: c_int = 6;

/// The loaded program, and its maps.
pub struct BfdPort {
    ebpf: Ebpf,
    state: Array<MapData, Value<State>>,
    wanted: State,
    sockets: SockMap<MapData>,
    /// The agent's socket.
    socket: OwnedFd,
}

impl BfdPort {
    /// Loads the program, which is to hand this socket what the peers of a node send. It is not
    /// attached yet.
    ///
    /// # Errors
    /// The kernel refuses the program: it has none of this kind (before Linux 5.9), or the agent
    /// lacks `CAP_BPF` or `CAP_NET_ADMIN`.
    pub fn load(
        loader: &mut Loader,
        own: IpAddr,
        peers: &[IpAddr],
        socket: &BfdSocket,
    ) -> Result<Self, DatapathError> {
        let socket = socket.as_fd().try_clone_to_owned();
        let socket = socket.map_err(DatapathError::io("cannot keep the socket for BFD"))?;
        // If it is not allowed and needed, the load says so.
        let _not_allowed = bpf::lift_memory_limit();
        let mut ebpf = loader.0.load(OBJECT).map_err(DatapathError::Load)?;
        let lookup: &mut SkLookup = program(&mut ebpf, PROGRAM)?;
        lookup.load().map_err(program_error(PROGRAM))?;
        let mut take = |name| ebpf.take_map(name).ok_or(DatapathError::Missing(name));
        let state: Map = take(bfd_port::MAP)?;
        let sockets: Map = take(bfd_port::SOCKET)?;
        let mut port = Self {
            state: Array::try_from(state).map_err(map_error(bfd_port::MAP))?,
            wanted: State::new(own.into(), peers.iter().map(|peer| (*peer).into()), true),
            sockets: SockMap::try_from(sockets).map_err(map_error(bfd_port::SOCKET))?,
            ebpf,
            socket,
        };
        port.sockets
            .set(0, &port.socket, 0)
            .map_err(map_error(bfd_port::SOCKET))?;
        port.write()?;
        Ok(port)
    }

    fn write(&mut self) -> Result<(), DatapathError> {
        self.state
            .set(0, Value(self.wanted), 0)
            .map_err(map_error(bfd_port::MAP))
    }

    /// Attaches the program to the network namespace of the calling thread, where it stays when
    /// this agent has ended. What an earlier one left there is removed afterwards: for a moment
    /// there are both, and the one with a socket counts.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach(&mut self, pins: &Pins) -> Result<(), DatapathError> {
        let netns = netns().map_err(DatapathError::io("cannot open the network namespace"))?;
        let lookup: &mut SkLookup = program(&mut self.ebpf, PROGRAM)?;
        let program = lookup.fd().map_err(program_error(PROGRAM))?.as_fd();
        let netns = netns.as_raw_fd().cast_unsigned();
        let link = bpf::link(program, netns, SK_LOOKUP, 0).map_err(DatapathError::io(
            "cannot attach the program for BFD's port to the network namespace",
        ))?;
        let path = pins.local(PROGRAM);
        unpin_link(&path)?;
        pin(&link, &path).map_err(DatapathError::io(format!(
            "cannot pin the program for BFD's port at {}",
            path.display()
        )))
    }

    /// Removes what an earlier agent left attached: without a socket it would keep the peers'
    /// packets from whoever is bound to the port.
    ///
    /// # Errors
    /// The pin cannot be removed.
    pub fn remove(pins: &Pins) -> Result<(), DatapathError> {
        unpin_link(&pins.local(PROGRAM))
    }

    /// What the kernel tells of the program.
    ///
    /// # Errors
    /// It does not.
    pub fn info(&mut self) -> Result<ProgramInfo, DatapathError> {
        let lookup: &mut SkLookup = program(&mut self.ebpf, PROGRAM)?;
        lookup.info().map_err(program_error(PROGRAM))
    }

    /// Whether the program is attached to the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn is_attached(&mut self) -> Result<bool, DatapathError> {
        let own = self.info()?.id();
        let attached = attached().map_err(DatapathError::io(
            "cannot ask for the socket lookup programs of the network namespace",
        ))?;
        Ok(attached.contains(&own))
    }

    /// Hands the socket what these peers send from now on.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_peers(&mut self, own: IpAddr, peers: &[IpAddr]) -> Result<(), DatapathError> {
        let peers = peers.iter().map(|peer| (*peer).into());
        self.wanted = State::new(own.into(), peers, self.is_shared());
        self.write()
    }

    /// Whether another program is bound to BFD's port on this node, as far as the agent has said.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.wanted.shared != 0
    }

    /// Another program is bound to BFD's port on this node (`true`), or none is any more. Returns
    /// whether that is news.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_shared(&mut self, shared: bool) -> Result<bool, DatapathError> {
        let word = u32::from(shared);
        if self.wanted.shared == word {
            return Ok(false);
        }
        self.wanted.shared = word;
        self.write().map(|()| true)
    }
}

/// The fields of `union bpf_attr` for `BPF_OBJ_PIN`.
#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

fn netns() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// The pin holds the link from then on.
fn pin(link: &OwnedFd, path: &Path) -> io::Result<()> {
    let pathname = CString::new(path.as_os_str().as_bytes())?;
    let mut pin = ObjPin {
        pathname: pathname.as_ptr() as u64,
        bpf_fd: link.as_raw_fd().cast_unsigned(),
        file_flags: 0,
    };
    // SAFETY: the command's fields; the path ends in zero and lives on.
    unsafe { bpf::call(OBJ_PIN, &mut pin) }.map(drop)
}

/// The kernel's numbers of the socket lookup programs of the calling thread's network namespace.
///
/// # Errors
/// The kernel has no such programs (before Linux 5.9), or does not tell.
pub fn attached() -> io::Result<Vec<u32>> {
    let netns = netns()?;
    bpf::attached(netns.as_raw_fd().cast_unsigned(), SK_LOOKUP)
}
