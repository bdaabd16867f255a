//! The kernel side as the agent sees it: load, attach, pin, adopt, read and write, remove.
//!
//! Maps and links are pinned, so that they outlive the agent: it may crash, restart or be
//! upgraded while the kernel goes on steering. An agent that starts adopts the maps it finds
//! when they were made for the same cluster, and replaces the programs on the links it finds
//! in one step, so that there is no moment without a program.

mod attach;
mod bfd_port;
mod chain;
mod detach;
mod maps;
mod others;
mod pins;
mod rank_map;

use std::collections::BTreeSet;
use std::fs::File;
use std::iter::zip;
use std::path::{Path, PathBuf};

use aya::maps::MapError;
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use bytemuck::Zeroable as _;
use vip_common::abi::{
    Backend, BackendCounters, BackendIndex, BackendMask, Config, Counter, LAYOUT_VERSION,
    MAX_BOND_PORTS, Masks, NOT_A_BACKEND, RankRow, State, Vip, maps as names,
};
use vip_common::wire::addr::{Be32, Be128, Mac};
use vip_common::wire::time::BootNanos;

use crate::kernel::{bpf, btf};

pub use self::attach::{Attachment, Egress, Mode, Way};
pub use self::bfd_port::{BfdPort, attached as socket_lookup_programs};
pub use self::chain::{Filter, Look, Seen};
use self::maps::Maps;
pub use self::maps::{Allowed, StateMap, raise};
pub use self::others::{Claim, Taken, Turn, refuse_taken};
pub use self::pins::{Held, Leftover, Pins, leftovers, pin_directory, remove};

/// The eBPF object, as `cargo xtask build-ebpf` made it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vip.o"));

/// Program on the NIC's way in.
pub const INGRESS: &str = "vip_ingress";
/// The same for kernels that have no XDP programs for frames in several buffers (before Linux
/// 5.18): a driver takes it only for an MTU whose frames fit one.
const INGRESS_SINGLE_BUFFER: &str = "vip_ingress_sb";
/// The same for socket buffers.
pub const TC_INGRESS: &str = "vip_tc_ingress";
/// Program on the NIC's way out.
pub const EGRESS: &str = "vip_egress";
/// Programs for local sockets.
pub const LOCAL: [&str; 5] = [
    "vip_connect4",
    "vip_connect6",
    "vip_peername4",
    "vip_peername6",
    "vip_release",
];

/// The global that holds the [`State`].
const STATE: &str = "VIP_STATE";

/// The constant that says where the kernel keeps what the remains of a connection expect.
const TW_RCV_NXT: &str = "VIP_TW_RCV_NXT";

/// What can go wrong between the agent and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The object could not be loaded.
    #[error(
        "cannot load the eBPF object (Linux 5.10 or newer, CAP_BPF and CAP_NET_ADMIN are needed; \
         before Linux 5.11 also an RLIMIT_MEMLOCK of 64 MiB, or CAP_SYS_RESOURCE to raise it): {0}"
    )]
    Load(#[from] EbpfError),
    /// A program was refused or could not be attached.
    #[error("eBPF program {name}: {source}")]
    Program {
        /// Its name in the object.
        name: &'static str,
        /// What the kernel said.
        source: ProgramError,
    },
    /// A map could not be read or written.
    #[error("eBPF map {name}: {source}")]
    Map {
        /// Its name in the object.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// The object lacks a program or map: it was built from other sources than the agent.
    #[error("the embedded eBPF object has no {0}: build it again with `cargo xtask build-ebpf`")]
    Missing(&'static str),
    /// Something in the file system or a plain system call.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Something that no agent made lies where the agent pins.
    #[error("{path} is {what}, and lies where the agent pins: remove it, and start again")]
    InTheWay {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// An agent that runs pins where this one would.
    #[error(
        "another agent, whose run directory is not this one's, runs and pins in {path}: end it, \
         or give this one another `run_dir`"
    )]
    Held {
        /// The directory.
        path: PathBuf,
    },
    /// Another XDP program sits on the NIC, and the configuration wants XDP.
    #[error(
        "another XDP program is attached to {interface}: detach it \
         (`ip link set dev {interface} xdp off`), set `mode = \"tc\"`, or leave `mode` out"
    )]
    Busy {
        /// The NIC.
        interface: String,
    },
}

impl DatapathError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// What should lie in the maps and does not depend on anybody's health.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredState {
    /// This node's place among the backends.
    pub own_index: Option<BackendIndex>,
    /// Ethernet address of the NIC.
    pub own_mac: Mac,
    /// Those of its ports, where they are others.
    pub port_macs: [Mac; MAX_BOND_PORTS],
    /// This node's IPv4 address on the NIC; 0.0.0.0 if it has none.
    pub own_address: Be32,
    /// Addresses and ports that are served, those of IPv4 first.
    pub vips: Vec<Vip>,
    /// Who may use services with an allow list.
    pub allowed: Vec<Allowed>,
    /// Whether connections of this node and its pods are redirected.
    pub redirects: bool,
    /// Number of the agent's network namespace; 0 if the kernel does not tell.
    pub netns: u64,
    /// The nodes' addresses, in the order of the configuration.
    pub backends: Vec<NodeAddresses>,
    /// Key of the flow hash.
    pub hash_key: [u64; 2],
    /// The rank table, one row a bucket. Its length is a power of two.
    pub rows: Vec<RankRow>,
}

/// A node's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeAddresses {
    /// As [`Backend::address`].
    pub address: Be128,
    /// As [`Backend::other_address`].
    pub other: Be128,
}

impl DesiredState {
    /// Whether the programs may run twice on a frame, on a port and on its bridge: they decide the
    /// same again, unless a port was written or a source's share was used up.
    #[must_use]
    pub fn may_run_twice(&self) -> bool {
        use vip_common::abi::{Service, flag};
        let mut services = self.vips.iter().flat_map(Vip::services);
        !services.any(|service| Service::maps_port(service) || service.flags & flag::SYN_LIMIT != 0)
    }

    /// Writes what it says into the state. Leases stay as they are, and so do health and the
    /// nodes' Ethernet addresses where the nodes do. In a state that nobody has written yet,
    /// every node is alive and ready until somebody knows better; but nothing is sent there, nothing
    /// is reset, and no local connection is turned, as long as nobody does.
    ///
    /// `rank_base` is where in the map the rows of the desired lie.
    pub fn write(&self, state: &mut State, rank_base: u32) {
        if state.config.layout_version != LAYOUT_VERSION {
            state.masks = Masks {
                no_forward: BackendMask::ALL,
                connect: Masks::default().connect,
                ..Masks::all(self.backends.len())
            };
        }
        for (found, vip) in zip(&mut state.vips, &self.vips) {
            let answer_until = if found.address == vip.address {
                found.answer_until
            } else {
                BootNanos::ZERO
            };
            *found = Vip {
                answer_until,
                ..*vip
            };
        }
        for (found, node) in zip(&mut state.backends, &self.backends) {
            let (mac, source) = if found.address == node.address {
                (found.mac, found.source)
            } else {
                (Mac::UNKNOWN, Mac::UNKNOWN)
            };
            *found = Backend {
                mac,
                source,
                address: node.address,
                other_address: node.other,
            };
        }
        state.config = Config {
            layout_version: LAYOUT_VERSION,
            own_index: self
                .own_index
                .map_or(NOT_A_BACKEND, |index| index.get() as u32),
            vip_count: self.vips.len() as u32,
            ipv4_count: self
                .vips
                .iter()
                .filter(|vip| vip.address.ipv4().is_some())
                .count() as u32,
            backend_count: self.backends.len() as u32,
            bucket_mask: self.rows.len() as u32 - 1,
            rank_base,
            hash_key: self.hash_key,
            own_mac: self.own_mac,
            port_macs: self.port_macs,
            own_address: self.own_address,
            redirects: u32::from(self.redirects),
            maps_ports: u32::from(
                self.vips
                    .iter()
                    .flat_map(Vip::services)
                    .any(vip_common::abi::Service::maps_port),
            ),
            netns: self.netns,
            ..Config::zeroed()
        };
        state.config.peers = state.peers();
        let nodes = &state.backends[..self.backends.len()];
        state.config.set_families(nodes);
    }

    /// Whether an Ethernet address is the NIC's own, as the programs see it too.
    #[must_use]
    pub fn is_own(&self, mac: Mac) -> bool {
        mac == self.own_mac || !mac.is_unknown() && self.port_macs.contains(&mac)
    }

    /// The desired that a state was made by, with these rows.
    #[must_use]
    pub fn of(state: &State, rows: Vec<RankRow>) -> Self {
        let config = &state.config;
        Self {
            own_index: BackendIndex::new(config.own_index as usize),
            own_mac: config.own_mac,
            port_macs: config.port_macs,
            own_address: config.own_address,
            vips: state.vips().to_vec(),
            allowed: vec![],
            redirects: config.redirects != 0,
            netns: config.netns,
            backends: state
                .backends()
                .iter()
                .map(|node| NodeAddresses {
                    address: node.address,
                    other: node.other_address,
                })
                .collect(),
            hash_key: config.hash_key,
            rows,
        }
    }
}

/// What a kernel offers beyond what the programs cannot do without. Found by trying, since
/// distributions bring features to kernels with older numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// XDP programs for frames in several buffers (Linux 5.18). Without them a driver runs XDP
    /// only for an MTU whose frames fit one buffer.
    pub frags: bool,
    /// tcx (Linux 6.6); else filters of the clsact qdisc.
    pub tcx: bool,
    /// Programs for local sockets.
    pub redirection: bool,
}

impl Features {
    /// Loads the programs, attaches none and leaves nothing behind.
    ///
    /// # Errors
    /// What [`Datapath::load`] says of a kernel that does not take them.
    pub fn probe() -> Result<Self, DatapathError> {
        let nothing = DesiredState::of(&State::zeroed(), vec![RankRow::default()]);
        let (mut datapath, _state) = Datapath::load(None, &nothing, 0)?;
        let (name, _) = ingress(&mut datapath.ebpf)?;
        Ok(Self {
            frags: name == INGRESS,
            tcx: attach::has_tcx("lo"),
            redirection: datapath.no_redirection.is_none(),
        })
    }
}

/// The loaded programs and their maps, the [`StateMap`] excepted.
pub struct Datapath {
    ebpf: Ebpf,
    maps: Maps,
    pins: Option<Pins>,
    rank_base: u32,
    own_index: Option<BackendIndex>,
    backends: usize,
    adopted: bool,
    /// Why the kernel does not take the programs for local sockets. A node can do without.
    no_redirection: Option<DatapathError>,
    /// See [`Self::stand_by`].
    standby: Option<u32>,
}

impl Datapath {
    /// Loads the programs and makes the maps say what the desired says. With `pins`, maps lie
    /// pinned there and are adopted if they were made for the same cluster as the desired; else
    /// new ones take their place. Nothing is attached yet.
    ///
    /// `log_level` is that of the programs' own log (see [`Self::log`]); 0 is none.
    ///
    /// # Errors
    /// If the kernel refuses programs or maps, or the pins cannot be read or written.
    pub fn load(
        pins: Option<Pins>,
        desired: &DesiredState,
        log_level: u8,
    ) -> Result<(Self, StateMap), DatapathError> {
        let found = pins
            .as_ref()
            .and_then(Maps::pinned)
            .filter(|(maps, state)| maps.fits(state.get(), desired))
            .map(|(_, state)| *state.get());
        if let (Some(pins), None) = (&pins, &found) {
            pins.forget_maps()?;
        }
        let adopted = found.is_some();
        // aya writes globals when it loads, pinned ones too: let it write what is there.
        let state = found.unwrap_or_else(State::zeroed);
        let expects = tw_rcv_nxt();
        // Where that is not allowed and not needed, nothing is lost; where it is needed, loading
        // fails and says so.
        if let Err(error) = bpf::lift_memory_limit() {
            tracing::debug!(%error, "the limit of locked memory stays");
        }
        let mut loader = EbpfLoader::new();
        loader
            .override_global(aya_log::LEVEL, &log_level, true)
            .override_global(STATE, bytemuck::bytes_of(&state), true)
            .override_global(TW_RCV_NXT, &expects, true)
            .map_max_entries(names::RANKS, 2 * desired.rows.len() as u32);
        if let Some(pins) = &pins {
            for name in maps::NAMES {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let mut ebpf = loader.load(OBJECT)?;
        load_ingress(&mut ebpf)?;
        for name in [EGRESS, TC_INGRESS] {
            let classifier: &mut SchedClassifier = program(&mut ebpf, name)?;
            classifier.load().map_err(program_error(name))?;
        }
        let load_local = |name| {
            let local = ebpf.program_mut(name);
            let local = local.ok_or(DatapathError::Missing(name))?;
            attach::load_local(local).map_err(program_error(name))
        };
        let no_redirection = LOCAL.into_iter().map(load_local).find_map(Result::err);
        // From here on no program can be loaded: it would need the maps' descriptors.
        let (mut maps, mut state) = Maps::take(&mut ebpf)?;
        maps.allow(&desired.allowed)?;
        let mut datapath = Self {
            maps,
            ebpf,
            pins,
            rank_base: state.get().config.rank_base,
            own_index: desired.own_index,
            backends: desired.backends.len(),
            adopted,
            no_redirection,
            standby: None,
        };
        if state.get().config.layout_version != LAYOUT_VERSION {
            datapath.maps.ranks.write(0, &desired.rows);
        } else if !datapath.holds(desired) {
            // The half not in use is written whole before the one word that names it.
            let rows = desired.rows.len() as u32;
            datapath.rank_base = if datapath.rank_base == 0 { rows } else { 0 };
            datapath.maps.ranks.write(datapath.rank_base, &desired.rows);
        }
        state.update(|state| desired.write(state, datapath.rank_base))?;
        Ok((datapath, state))
    }

    /// Whether the maps were those of an earlier agent.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Where in the map the rank table in use begins.
    #[must_use]
    pub fn rank_base(&self) -> u32 {
        self.rank_base
    }

    fn holds(&self, desired: &DesiredState) -> bool {
        self.maps.ranks.holds(self.rank_base, &desired.rows)
    }

    /// Makes rank table and allow lists say what the desired says, and reports whether that was
    /// needed.
    ///
    /// # Errors
    /// If the allow lists cannot be read or written.
    pub fn repair(&mut self, desired: &DesiredState) -> Result<bool, DatapathError> {
        let damaged = !self.holds(desired);
        if damaged {
            self.maps.ranks.write(self.rank_base, &desired.rows);
        }
        Ok(self.maps.allow(&desired.allowed)? || damaged)
    }

    /// Attaches both programs to the NIC, or replaces the programs on the links that an
    /// earlier agent left there.
    ///
    /// # Errors
    /// If the kernel refuses in every mode that `mode` allows.
    pub fn attach(
        &mut self,
        interface: &str,
        index: u32,
        mode: crate::config::XdpMode,
        egress: Option<Egress>,
    ) -> Result<Attachment, DatapathError> {
        attach::attach(
            &mut self.ebpf,
            self.pins.as_ref(),
            interface,
            index,
            mode,
            egress,
            self.standby,
        )
    }

    /// Attaches the program on the way out to another NIC, too: answers may leave by it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach_elsewhere(
        &mut self,
        interface: &str,
        index: u32,
        kind: Egress,
    ) -> Result<(), DatapathError> {
        let pins = self.pins.as_ref();
        attach::attach_classifier(&mut self.ebpf, Way::Elsewhere, pins, interface, index, kind)
    }

    /// Takes it off all other NICs than these.
    ///
    /// # Errors
    /// If a link or filter cannot be removed.
    pub fn detach_elsewhere(&self, kept: &BTreeSet<u32>) -> Result<(), DatapathError> {
        self.pins
            .as_ref()
            .map_or(Ok(()), |pins| pins.leave_elsewhere(kept))
    }

    /// From now on, [`attach`](Self::attach) leaves the programs on this interface where they are:
    /// on a port of the NIC, so that nothing comes in or goes out unseen when the NIC goes away and
    /// the port takes its place.
    pub fn stand_by(&mut self, port: Option<u32>) {
        self.standby = port;
    }

    /// Whether the program on the way in or out is attached to an interface, and what stands
    /// before it.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn look(
        &mut self,
        way: Way,
        interface: &str,
        attachment: Attachment,
        seen: &Seen,
    ) -> Result<Look, DatapathError> {
        if way == Way::In && attachment.mode != Mode::Tc {
            let (name, ingress) = ingress(&mut self.ebpf)?;
            let own = ingress.info().map_err(program_error(name))?.id();
            return Ok(Look {
                attached: seen.xdp == Some(own),
                ahead: Vec::new(),
            });
        }
        let own = self.classifier(way.program())?.info();
        let own = own.map_err(program_error(way.program()))?.id();
        chain::look(way, interface, attachment.egress, own, seen)
    }

    /// Puts a program for socket buffers before all others that are attached to an interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn put_first(
        &mut self,
        way: Way,
        interface: &str,
        index: u32,
        kind: Egress,
    ) -> Result<(), DatapathError> {
        let pins = self.pins.as_ref();
        attach::attach_classifier(&mut self.ebpf, way, pins, interface, index, kind)
    }

    /// Attaches the programs for local sockets to a cgroup, in the place of those that an
    /// earlier agent left anywhere; or only removes those.
    ///
    /// # Errors
    /// If the cgroup cannot be opened, or the kernel refuses; that it refused to load them is
    /// told here too.
    pub fn redirect(&mut self, cgroup: Option<&Path>) -> Result<(), DatapathError> {
        if let (Some(_), Some(error)) = (cgroup, self.no_redirection.take()) {
            return Err(error);
        }
        let cgroup = cgroup
            .map(|path| {
                let what = format!("cannot open the cgroup {}", path.display());
                File::open(path).map_err(DatapathError::io(what))
            })
            .transpose()?;
        for name in LOCAL {
            attach::redirect(&mut self.ebpf, name, self.pins.as_ref(), cgroup.as_ref())?;
        }
        Ok(())
    }

    /// Takes the program off the NIC and attaches it in generic mode.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn fall_back_to_generic(
        &mut self,
        interface: &str,
        index: u32,
    ) -> Result<Attachment, DatapathError> {
        self.attach(interface, index, crate::config::XdpMode::Generic, None)
    }

    /// Who claimed a VIP last and is no living node of the cluster; [`Mac::UNKNOWN`] if
    /// nobody did.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn claimant(&self) -> Result<Mac, DatapathError> {
        self.maps.claimant()
    }

    /// A probe by a check, less than `MAX_CHECKS`, found a listener on this node. `asked` is when
    /// it began: if a listener closes after that, pods of the node use other nodes until the next.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn note_listener(&mut self, check: u8, asked: BootNanos) -> Result<(), DatapathError> {
        self.maps.note_listener(check, asked)
    }

    /// A counter, summed over the CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counter(&self, counter: Counter) -> Result<u64, DatapathError> {
        match counter {
            // The programs count these by backend only.
            Counter::ForwardedSyn => Ok(self.forwarded()?.syns),
            Counter::ForwardedSegment => {
                let all = self.forwarded()?;
                Ok(all.packets - all.syns)
            }
            _ => self.maps.counter(counter),
        }
    }

    /// What went to other nodes.
    fn forwarded(&self) -> Result<BackendCounters, DatapathError> {
        (0..self.backends)
            .filter(|index| Some(*index) != self.own_index.map(BackendIndex::get))
            .try_fold(BackendCounters::default(), |sum, index| {
                Ok(sum + self.maps.backend_counters(index as u32)?)
            })
    }

    /// A backend's counters, summed over the CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn backend_counters(
        &self,
        backend: BackendIndex,
    ) -> Result<BackendCounters, DatapathError> {
        self.maps.backend_counters(backend.get() as u32)
    }

    /// The programs' own log, to be read by the caller. `None` if an earlier agent's programs
    /// have none.
    pub fn log(&mut self) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
        aya_log::EbpfLogger::init(&mut self.ebpf).ok()
    }

    /// The program on the way in, for `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    /// If the object lacks it.
    pub fn ingress(&mut self) -> Result<&mut Xdp, DatapathError> {
        ingress(&mut self.ebpf).map(|(_, program)| program)
    }

    /// A program for socket buffers, [`TC_INGRESS`] or [`EGRESS`], for `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    /// If the object lacks it.
    pub fn classifier(
        &mut self,
        name: &'static str,
    ) -> Result<&mut SchedClassifier, DatapathError> {
        program(&mut self.ebpf, name)
    }
}

fn program_error(name: &'static str) -> impl FnOnce(ProgramError) -> DatapathError {
    move |source| DatapathError::Program { name, source }
}

fn map_error(name: &'static str) -> impl FnOnce(MapError) -> DatapathError {
    move |source| DatapathError::Map { name, source }
}

/// A program of the object, of the kind that it must be.
fn program<'e, P>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut P, DatapathError>
where
    &'e mut P: TryFrom<&'e mut Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(DatapathError::Missing(name))
}

/// Loads the program on the way in: the one for frames in several buffers, or where the kernel
/// does not know such programs, the one for frames in a single buffer.
fn load_ingress(ebpf: &mut Ebpf) -> Result<(), DatapathError> {
    let load = |ebpf: &mut Ebpf, name| {
        let ingress: &mut Xdp = program(ebpf, name)?;
        ingress.load().map_err(program_error(name))
    };
    match load(ebpf, INGRESS) {
        Err(DatapathError::Program { source, .. }) if is_unknown_flag(&source) => {
            load(ebpf, INGRESS_SINGLE_BUFFER)
        }
        outcome => outcome,
    }
}

/// Whether a program was refused before the verifier looked at it: it has a flag that the kernel
/// does not know (`bpf_prog_load`, kernel/bpf/syscall.c).
fn is_unknown_flag(error: &ProgramError) -> bool {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            io_error.raw_os_error() == Some(nix::libc::EINVAL)
                && verifier_log.to_string().trim().is_empty()
        }
        _ => false,
    }
}

/// The program on the way in that was loaded, and its name.
fn ingress(ebpf: &mut Ebpf) -> Result<(&'static str, &mut Xdp), DatapathError> {
    let single: &mut Xdp = program(ebpf, INGRESS_SINGLE_BUFFER)?;
    let name = if single.fd().is_ok() {
        INGRESS_SINGLE_BUFFER
    } else {
        INGRESS
    };
    Ok((name, program(ebpf, name)?))
}

/// Where this kernel keeps what the remains of a connection expect next; 0 if it does not say.
/// Then nothing but a new connection is kept by them.
fn tw_rcv_nxt() -> u32 {
    match btf::offset_of("sock_common", "skc_tw_rcv_nxt") {
        Ok(Some(offset)) => offset,
        Ok(None) => {
            tracing::warn!(
                "this kernel's closed connections are not understood: late clients get a reset"
            );
            0
        }
        Err(error) => {
            tracing::warn!(%error, "the kernel does not describe its types: clients of closed connections that are late get a reset");
            0
        }
    }
}
