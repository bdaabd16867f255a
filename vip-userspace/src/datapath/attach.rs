//! Programs on the NIC: native or generic XDP on the way in, tcx or clsact on the way out.

use std::fmt;
use std::fs::File;
use std::mem;
use std::path::Path;
use std::str::FromStr;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{self, NlOptions, TcAttachOptions};
use aya::programs::{
    CgroupAttachMode, CgroupSockAddr, LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp,
    XdpMode,
};
use aya::{Ebpf, util::KernelVersion};
use nix::libc;

use super::pins::{unpin, unpin_link};
use super::{DatapathError, EGRESS, INGRESS, Pins, TC_INGRESS, program, program_error};
use crate::config;

/// How the program on the way in is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By the driver, before the kernel makes a socket buffer.
    Native,
    /// By the network stack, for any driver. Costs several times as much a packet.
    Generic,
    /// By the network stack, as a tcx program or clsact filter: beside whatever XDP program
    /// somebody else has there.
    Tc,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
        })
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "native" => Ok(Self::Native),
            "generic" => Ok(Self::Generic),
            "tc" => Ok(Self::Tc),
            _ => Err(()),
        }
    }
}

/// How programs for socket buffers are run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// A link (Linux 6.6).
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// What came of attaching.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// How the program on the way in is run.
    pub mode: Mode,
    /// How the program on the way out is run, and that on the way in with [`Mode::Tc`].
    pub egress: Egress,
}

/// Attaches both programs; `egress_kind` is chosen by the kernel's version if not given.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: Option<&Pins>,
    interface: &str,
    index: u32,
    wanted: config::XdpMode,
    egress_kind: Option<Egress>,
) -> Result<Attachment, DatapathError> {
    let tcx = || KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 6, 0));
    let kind = egress_kind.unwrap_or_else(|| if tcx() { Egress::Tcx } else { Egress::Clsact });
    // The guard first: from the moment that this node takes packets for the VIP, its kernel
    // may want to speak for it.
    attach_classifier(ebpf, Way::Out, pins, interface, index, kind)?;
    let found = match wanted {
        config::XdpMode::Tc => None,
        _ => attach_xdp(program(ebpf, INGRESS)?, pins, interface, index, wanted)?,
    };
    let mode = match found {
        Some(mode) => mode,
        None => {
            attach_classifier(ebpf, Way::In, pins, interface, index, kind)?;
            Mode::Tc
        }
    };
    // What an earlier agent attached in another way.
    for pin in pins.map(Pins::ingress_links).unwrap_or_default() {
        if pin.interface != index || pin.mode != mode {
            unpin_link(&pin.path)?;
        }
    }
    if let Some(pins) = pins
        && mode != Mode::Tc
    {
        pins.remove_filter(Way::In, index, interface)?;
    }
    Ok(Attachment { mode, egress: kind })
}

/// `None` if somebody else's program is there and the configuration does not insist on XDP.
fn attach_xdp(
    program: &mut Xdp,
    pins: Option<&Pins>,
    interface: &str,
    index: u32,
    wanted: config::XdpMode,
) -> Result<Option<Mode>, DatapathError> {
    for pin in pins.map(Pins::ingress_links).unwrap_or_default() {
        if pin.mode == Mode::Tc {
            continue;
        }
        let welcome = match wanted {
            config::XdpMode::Auto => true,
            config::XdpMode::Native => pin.mode == Mode::Native,
            config::XdpMode::Generic => pin.mode == Mode::Generic,
            config::XdpMode::Tc => false,
        };
        if pin.interface == index && welcome && replace_xdp(program, &pin.path)? {
            return Ok(Some(pin.mode));
        }
        // Another NIC, another mode, or a NIC that has gone.
        unpin_link(&pin.path)?;
    }
    let modes: &[Mode] = match wanted {
        config::XdpMode::Auto => &[Mode::Native, Mode::Generic],
        config::XdpMode::Native => &[Mode::Native],
        config::XdpMode::Generic => &[Mode::Generic],
        config::XdpMode::Tc => &[],
    };
    let mut refusal = None;
    for &mode in modes {
        let flags = match mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic | Mode::Tc => XdpMode::Skb,
        };
        match program.attach_to_if_index(index, flags) {
            Ok(id) => {
                if let Some(pins) = pins {
                    let link = program.take_link(id).map_err(program_error(INGRESS))?;
                    pin(FdLink::try_from(link), &pins.ingress(index, mode), INGRESS)?;
                }
                if mode == Mode::Generic {
                    tracing::warn!(
                        interface,
                        refused = refusal.map(tracing::field::display),
                        "generic XDP: several times the CPU per packet of native XDP"
                    );
                }
                return Ok(Some(mode));
            }
            Err(error) if is_busy(&error) && wanted == config::XdpMode::Auto => {
                tracing::warn!(
                    interface,
                    "another XDP program is attached, and left alone: tc is used instead"
                );
                return Ok(None);
            }
            Err(error) if is_busy(&error) => {
                return Err(DatapathError::Busy {
                    interface: interface.to_owned(),
                });
            }
            Err(error) => refusal = Some(error),
        }
    }
    Err(DatapathError::Program {
        name: INGRESS,
        // The list of modes is not empty.
        source: refusal.unwrap_or(ProgramError::NotLoaded),
    })
}

/// Which way frames go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// In by the NIC.
    In,
    /// Out of it.
    Out,
    /// Out of another NIC.
    Elsewhere,
}

impl Way {
    /// The program.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::In => TC_INGRESS,
            Self::Out | Self::Elsewhere => EGRESS,
        }
    }

    /// Where the kernel has it.
    pub(super) const fn hook(self) -> TcAttachType {
        match self {
            Self::In => TcAttachType::Ingress,
            Self::Out | Self::Elsewhere => TcAttachType::Egress,
        }
    }
}

pub(super) fn attach_classifier(
    ebpf: &mut Ebpf,
    way: Way,
    pins: Option<&Pins>,
    interface: &str,
    index: u32,
    kind: Egress,
) -> Result<(), DatapathError> {
    let name = way.program();
    let program: &mut SchedClassifier = program(ebpf, name)?;
    for (pinned, path) in pins.map(|pins| pins.tcx_links(way)).unwrap_or_default() {
        if pinned == index && kind == Egress::Tcx && replace_classifier(program, name, &path)? {
            return Ok(());
        }
        // One NIC is served, and answers leave by any.
        if pinned == index || way != Way::Elsewhere {
            unpin_link(&path)?;
        }
    }
    let order = match kind {
        Egress::Tcx => TcAttachOptions::TcxOrder(LinkOrder::default()),
        Egress::Clsact => {
            // Fails if the qdisc is there already, which is as good; if it cannot be made,
            // attaching says so.
            let made = tc::qdisc_add_clsact(interface).is_ok();
            if let Some(pins) = pins.filter(|_| made) {
                note(program, name, &pins.qdisc(index))?;
            }
            // A filter has no link to update, so there is a moment without.
            if let Some(pins) = pins {
                pins.remove_filter(way, index, interface)?;
            }
            TcAttachOptions::Netlink(NlOptions::default())
        }
    };
    let id = program
        .attach_with_options(interface, way.hook(), order)
        .map_err(program_error(name))?;
    let Some(pins) = pins else { return Ok(()) };
    let link = program.take_link(id).map_err(program_error(name))?;
    match kind {
        Egress::Tcx => pin(FdLink::try_from(link), &pins.tcx(way, index), name),
        Egress::Clsact => {
            // A filter stays by itself, unless its handle is dropped. The pin of the program
            // is the note that it is there.
            mem::forget(link);
            note(program, name, &pins.filter(way, index))
        }
    }
}

/// Pins a program as a note, in the place of an older one.
fn note(
    program: &mut SchedClassifier,
    name: &'static str,
    path: &Path,
) -> Result<(), DatapathError> {
    unpin(path)?;
    program.pin(path).map_err(|error| DatapathError::Io {
        what: format!("cannot pin {name}"),
        source: std::io::Error::other(error),
    })
}

/// Puts a program on a pinned link, in one step. False if the link or its NIC is gone.
fn replace(
    path: &Path,
    name: &'static str,
    put: impl FnOnce(FdLink) -> Result<(), ProgramError>,
) -> Result<bool, DatapathError> {
    let Some(link) = pinned(path, name)? else {
        return Ok(false);
    };
    match put(link) {
        Ok(()) => Ok(true),
        Err(error) if is_stale(&error) => Ok(false),
        Err(error) => Err(program_error(name)(error)),
    }
}

fn replace_xdp(program: &mut Xdp, path: &Path) -> Result<bool, DatapathError> {
    replace(path, INGRESS, |link| {
        let link = link
            .try_into()
            .map_err(|_| ProgramError::UnexpectedProgramType)?;
        let id = program.attach_to_link(link)?;
        // The pin holds the link. What is taken out and dropped here is one more handle.
        program.take_link(id).map(drop)
    })
}

fn replace_classifier(
    program: &mut SchedClassifier,
    name: &'static str,
    path: &Path,
) -> Result<bool, DatapathError> {
    replace(path, name, |link| {
        let link = link
            .try_into()
            .map_err(|_| ProgramError::UnexpectedProgramType)?;
        let id = program.attach_to_link(link)?;
        program.take_link(id).map(drop)
    })
}

/// Attaches a program for local sockets to a cgroup, if there is one, and then removes what an
/// earlier agent attached: for a moment there are both, and the second finds nothing to do.
pub(super) fn redirect(
    program: &mut CgroupSockAddr,
    name: &'static str,
    pins: Option<&Pins>,
    cgroup: Option<&File>,
) -> Result<(), DatapathError> {
    let link = cgroup
        .map(|cgroup| {
            // By a link, other programs may always be there too.
            let id = program.attach(cgroup, CgroupAttachMode::Single)?;
            program.take_link(id)
        })
        .transpose()
        .map_err(program_error(name))?;
    let Some(pins) = pins else {
        // Nothing holds it but this process.
        if let Some(link) = link {
            mem::forget(link);
        }
        return Ok(());
    };
    let path = pins.local(name);
    unpin_link(&path)?;
    match link {
        Some(link) => pin(FdLink::try_from(link), &path, name),
        None => Ok(()),
    }
}

fn pinned(path: &Path, name: &'static str) -> Result<Option<FdLink>, DatapathError> {
    match PinnedLink::from_pin(path) {
        Ok(link) => Ok(Some(link.into())),
        Err(LinkError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(DatapathError::Io {
            what: format!(
                "cannot open the link of {name} pinned at {}",
                path.display()
            ),
            source: std::io::Error::other(error),
        }),
    }
}

/// Pins a link. The pin holds it from then on.
fn pin(
    link: Result<FdLink, LinkError>,
    path: &Path,
    name: &'static str,
) -> Result<(), DatapathError> {
    link.map_err(|error| error.to_string())
        .and_then(|link| link.pin(path).map_err(|error| error.to_string()))
        .map(drop)
        .map_err(|error| DatapathError::Io {
            what: format!("cannot pin the link of {name} at {}", path.display()),
            source: std::io::Error::other(error),
        })
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

/// `EBUSY`: the NIC has an XDP program, and it is not ours to replace. `EEXIST` is the same for
/// one in the other mode.
fn is_busy(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::EBUSY | libc::EEXIST))
}

/// `ENOLINK`: the NIC of the link is gone (`bpf_xdp_link_update`, net/core/dev.c).
fn is_stale(error: &ProgramError) -> bool {
    errno(error) == Some(libc::ENOLINK)
}
