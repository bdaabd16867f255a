//! The kernel side as the agent sees it: load, attach, pin, adopt, read and write, remove.
//!
//! Maps and links are pinned, so that they outlive the agent: it may crash, restart or be
//! upgraded while the kernel goes on steering. An agent that starts adopts the maps it finds
//! when they were made for the same cluster, and replaces the programs on the links it finds
//! in one step, so that there is no moment without a program.

mod allow_map;
mod attach;
mod bfd_port;
mod chain;
mod desired;
mod detach;
mod error;
mod features;
mod leftovers;
mod loader;
mod mapping;
mod maps;
mod object;
mod others;
mod pins;
mod programs;
mod rank_map;
mod roster;
mod value;
mod way;

pub use self::bfd_port::{BfdPort, attached as socket_lookup_programs};
pub use self::chain::{Filter, Look, Seen};
pub use self::desired::{DesiredState, Halves, NodeAddresses};
pub use self::error::DatapathError;
pub use self::features::Features;
pub use self::leftovers::{Leftover, leftovers, remove};
pub use self::loader::Loader;
pub use self::maps::{StateMap, members, raise};
pub use self::object::{EGRESS, INGRESS, LOCAL, OBJECT, TC_INGRESS};
pub use self::others::{Claim, Taken, Turn, refuse_taken};
pub use self::pins::{Held, Pins, pin_directory};
pub use self::roster::Roster;
pub use self::way::{Attachment, Egress, Mode, Way};

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use aya::programs::{SchedClassifier, Xdp};
use bytemuck::Zeroable as _;
use vip_common::abi::{
    BackendCounters, BackendIndex, BackendMask, CheckIndex, Counter, MAX_BACKENDS, RankRow, State,
};
use vip_common::wire::addr::Mac;
use vip_common::wire::time::BootNanos;
use vip_node::allow::AllowLists;

use self::error::program_error;
use self::maps::Maps;
use self::programs::{BUILD, Programs};
use self::rank_map::{Ranks, other_half};
use crate::config::XdpMode;
use crate::kernel::{bpf, btf};

/// The global that holds the [`State`].
const STATE: &str = "VIP_STATE";

/// The global that holds the rank table.
const RANKS: &str = "VIP_RANKS";

/// The constant that holds the offset of the next sequence number in a TIME-WAIT socket.
const TW_RCV_NXT: &str = "VIP_TW_RCV_NXT";

/// The constant that holds the offset of the SYN-ACK's sequence number in a request.
const SNT_ISN: &str = "VIP_SNT_ISN";

/// The loaded programs and their maps, the [`StateMap`] excepted.
pub struct Datapath {
    programs: Programs,
    maps: Maps,
    pins: Option<Pins>,
    halves: Halves,
    own_index: Option<BackendIndex>,
    adopted: bool,
    /// Why the kernel does not take the programs for local sockets. A node can do without.
    no_redirection: Option<DatapathError>,
    /// See [`Self::stand_by`].
    standby: Option<u32>,
}

impl Datapath {
    /// Loads the programs and makes the maps say what the desired state says. With `pins`, maps lie
    /// pinned there and are adopted if they were made for the same cluster as the desired state; else
    /// new ones take their place. Nothing is attached yet.
    ///
    /// # Errors
    /// If the kernel refuses programs or maps, or the pins cannot be read or written.
    pub fn load(
        pins: Option<Pins>,
        desired: &DesiredState,
    ) -> Result<(Self, StateMap), DatapathError> {
        Self::load_by(Loader::default(), pins, desired)
    }

    /// The same by a loader that was made before.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_by(
        Loader(mut loader): Loader,
        pins: Option<Pins>,
        desired: &DesiredState,
    ) -> Result<(Self, StateMap), DatapathError> {
        let found = pins
            .as_ref()
            .and_then(Maps::pinned)
            .filter(|(maps, state)| maps.fits(state.get(), desired));
        if let Some(pins) = &pins {
            match found {
                Some(_) => pins.forget_programs(Some(&BUILD))?,
                None => pins.forget_maps()?,
            }
        }
        let adopted = found.is_some();
        // aya writes globals when it loads, pinned ones too: let it write what is there.
        let (state, ranks) = match found {
            Some((maps, state)) => (*state.get(), maps.ranks.read()?),
            None => (State::zeroed(), Ranks::new(&desired.rows)),
        };
        let expected = Expected::of_this_kernel();
        // Where that is not allowed and not needed, nothing is lost; where it is needed, loading
        // fails and says so.
        if let Err(error) = bpf::lift_memory_limit() {
            tracing::debug!(%error, "the limit of locked memory stays");
        }
        loader
            .override_global(aya_log::LEVEL, &desired.log_level, true)
            .override_global(STATE, bytemuck::bytes_of(&state), true)
            .override_global(RANKS, ranks.bytes(), true)
            .override_global(TW_RCV_NXT, &expected.sequence, true)
            .override_global(SNT_ISN, &expected.syn_ack, true);
        if let Some(pins) = &pins {
            for name in pins::MAPS {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let ebpf = loader.load(OBJECT).map_err(DatapathError::Load)?;
        let (maps, mut state) = Maps::of(&ebpf)?;
        // One that logs does so to its agent only.
        let kept = pins.clone().filter(|_| desired.log_level == 0);
        let mut programs = Programs { ebpf, kept };
        programs.ingress()?;
        programs.classifier(EGRESS)?;
        let mut local = LOCAL.into_iter();
        let no_redirection = local.find_map(|name| programs.local(name).err());
        let mut datapath = Self {
            maps,
            programs,
            pins,
            halves: Halves::of(state.get()),
            own_index: desired.own_index,
            adopted,
            no_redirection,
            standby: None,
        };
        if adopted {
            let before = state.get().backends;
            let known = |slot: &BackendIndex| before[slot.get()].is_used();
            for slot in desired.backends.mask().iter().filter(|slot| !known(slot)) {
                datapath.restart_backend(slot)?;
            }
        }
        if !ranks.hold(datapath.halves.rank_base, &desired.rows) {
            // The half not in use is written whole before the one word that names it.
            let base = &mut datapath.halves.rank_base;
            *base = other_half(*base);
            datapath.maps.ranks.write(*base, &desired.rows)?;
        }
        datapath.change_lists(&desired.allowed);
        state.update(|state| desired.write(state, datapath.halves))?;
        Ok((datapath, state))
    }

    /// Whether the maps were those of an earlier agent.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// The halves of the tables in use.
    #[must_use]
    pub fn halves(&self) -> Halves {
        self.halves
    }

    /// Writes allow lists into the half that is not in use, unless the other one has them. The state
    /// is to name the half then: a service's root is one word.
    pub fn change_lists(&mut self, lists: &AllowLists) {
        let allowed = &mut self.halves.allowed;
        if !self.maps.allowed.holds(*allowed, lists) {
            *allowed = 1 - *allowed;
            self.maps.allowed.write(*allowed, lists);
        }
    }

    /// Writes a rank table into the half that is not in use. The state is to name the
    /// half then.
    ///
    /// # Errors
    /// If the rank table cannot be read or written.
    pub fn change_ranks(&mut self, rows: &[RankRow]) -> Result<(), DatapathError> {
        let other = other_half(self.halves.rank_base);
        self.maps.ranks.write(other, rows)?;
        self.halves.rank_base = other;
        Ok(())
    }

    /// Makes rank table and allow lists say what the desired state says, and reports whether that was
    /// needed.
    ///
    /// # Errors
    /// If the rank table cannot be read or written.
    pub fn repair(&mut self, desired: &DesiredState) -> Result<bool, DatapathError> {
        let Halves { rank_base, allowed } = self.halves;
        let ranks = self.maps.ranks.read()?.hold(rank_base, &desired.rows);
        if !ranks {
            self.maps.ranks.write(rank_base, &desired.rows)?;
        }
        let lists = self.maps.allowed.holds(allowed, &desired.allowed);
        if !lists {
            self.maps.allowed.write(allowed, &desired.allowed);
        }
        Ok(!(ranks && lists))
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
        mode: XdpMode,
        egress: Option<Egress>,
    ) -> Result<Attachment, DatapathError> {
        attach::attach(
            &mut self.programs,
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
        attach::attach_classifier(
            &mut self.programs,
            Way::Elsewhere,
            pins,
            interface,
            index,
            kind,
        )
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
            let (name, ingress) = self.programs.ingress()?;
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
        attach::attach_classifier(&mut self.programs, way, pins, interface, index, kind)
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
            attach::redirect(
                &mut self.programs,
                name,
                self.pins.as_ref(),
                cgroup.as_ref(),
            )?;
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
        self.attach(interface, index, XdpMode::Generic, None)
    }

    /// The last host that claimed a VIP and is no living node of the cluster;
    /// [`Mac::UNKNOWN`] if none did.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn claimant(&self) -> Result<Mac, DatapathError> {
        self.maps.claimant()
    }

    /// A probe by a check found a listener on this node. `asked` is when
    /// it began: if a listener closes after that, pods of the node use other nodes until the next.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn note_listener(
        &mut self,
        check: CheckIndex,
        asked: BootNanos,
    ) -> Result<(), DatapathError> {
        self.maps.note_listener(check, asked)
    }

    /// A counter, summed over the CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counter(&self, counter: Counter) -> Result<u64, DatapathError> {
        match counter {
            // The programs count these by backend only. What those had that were in the slots before
            // lies in the counter itself.
            Counter::ForwardedSyn => Ok(self.maps.counter(counter)? + self.forwarded()?.syns),
            Counter::ForwardedSegment => {
                Ok(self.maps.counter(counter)? + self.forwarded()?.segments)
            }
            Counter::LocalSyn => Ok(self.kept()?.syns),
            Counter::LocalSegment => Ok(self.kept()?.segments),
            _ => self.maps.counter(counter),
        }
    }

    /// What this node's own stack got.
    fn kept(&self) -> Result<BackendCounters, DatapathError> {
        let own = self.own_index.map(|own| self.backend_counters(own));
        own.unwrap_or_else(|| Ok(BackendCounters::default()))
    }

    /// What went to other nodes, since they got their slots. Of slots that are free by now, too.
    fn forwarded(&self) -> Result<BackendCounters, DatapathError> {
        BackendMask::first(MAX_BACKENDS)
            .iter()
            .filter(|index| Some(*index) != self.own_index)
            .try_fold(BackendCounters::default(), |sum, index| {
                Ok(sum + self.backend_counters(index)?)
            })
    }

    /// A slot has another node from now on: what is counted for it begins at 0. The rank table in use
    /// must not name the slot.
    ///
    /// # Errors
    /// If the maps cannot be read or written.
    pub fn restart_backend(&mut self, backend: BackendIndex) -> Result<(), DatapathError> {
        self.maps.restart_backend(backend.get() as u32)
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
        aya_log::EbpfLogger::init(&mut self.programs.ebpf).ok()
    }

    /// The program on the way in, for `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    /// If the object lacks it.
    pub fn ingress(&mut self) -> Result<&mut Xdp, DatapathError> {
        self.programs.ingress().map(|(_, program)| program)
    }

    /// A program for socket buffers, [`TC_INGRESS`] or [`EGRESS`], for `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    /// If the object lacks it.
    pub fn classifier(
        &mut self,
        name: &'static str,
    ) -> Result<&mut SchedClassifier, DatapathError> {
        self.programs.classifier(name)
    }
}

/// Offsets of the numbers that sockets expect of a client's next segment, in bytes; 0 if this kernel
/// does not describe them.
struct Expected {
    /// The sequence number, in a TIME-WAIT socket. Without it, only new connections are told apart
    /// from the closed one.
    sequence: u32,
    /// The sequence number of the SYN-ACK, in a request. Without it, a request keeps what belongs
    /// to a connection on another node.
    syn_ack: u32,
}

impl Expected {
    fn of_this_kernel() -> Self {
        let fields = [
            ("sock_common", "skc_tw_rcv_nxt"),
            ("tcp_request_sock", "snt_isn"),
        ];
        let [sequence, syn_ack] = btf::offsets(fields).unwrap_or_else(|error| {
            tracing::warn!(%error, "the kernel does not describe its types (BTF)");
            [None; 2]
        });
        if sequence.is_none() {
            tracing::warn!(
                "the kernel does not describe its TIME-WAIT sockets (BTF): a client that still \
                 sends on a connection which this node has closed gets a reset"
            );
        }
        if syn_ack.is_none() {
            tracing::warn!(
                "the kernel does not describe its connection requests (BTF): a client whose SYN \
                 was answered by two nodes may get a reset"
            );
        }
        Self {
            sequence: sequence.unwrap_or(0),
            syn_ack: syn_ack.unwrap_or(0),
        }
    }
}
