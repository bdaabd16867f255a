//! Programs on the NIC: native or generic XDP on the way in, tcx or clsact on the way out.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{self, NlOptions, TcAttachOptions};
use aya::programs::{
    CgroupAttachMode, LinkOrder, Program, ProgramError, SchedClassifier, Xdp, XdpMode,
};
use nix::libc;
use nix::net::if_::if_nametoindex;

use super::error::{DatapathError, program_error};
use super::object::INGRESS;
use super::pins::{Pins, unpin, unpin_link};
use super::programs::Programs;
use super::way::{Attachment, Egress, Mode, Way};
use crate::config;
use crate::kernel::bpf;

/// Whether the kernel has tcx on this interface (Linux 6.6, if built with it): it is asked for
/// the programs there, and knows the question or not.
pub(super) fn has_tcx(interface: &str) -> bool {
    tcx_programs(Way::Out, interface).is_ok()
}

/// Numbers of an interface's tcx programs, in the order in which they run.
pub(super) fn tcx_programs(way: Way, interface: &str) -> io::Result<Vec<u32>> {
    bpf::attached(if_nametoindex(interface)?, way.tcx())
}

/// Attaches both programs; `egress_kind` is what the kernel has if not given.
pub(super) fn attach(
    programs: &mut Programs,
    pins: Option<&Pins>,
    interface: &str,
    index: u32,
    wanted: config::XdpMode,
    egress_kind: Option<Egress>,
    standby: Option<u32>,
) -> Result<Attachment, DatapathError> {
    let kind = egress_kind.unwrap_or_else(|| {
        if has_tcx(interface) {
            Egress::Tcx
        } else {
            Egress::Clsact
        }
    });
    // The program on the way out first: from the moment that this node takes packets for the VIP,
    // its kernel may answer for it.
    attach_classifier(programs, Way::Out, pins, interface, index, kind)?;
    let found = match wanted {
        config::XdpMode::Tc => None,
        _ => {
            let (_, program) = programs.ingress()?;
            attach_xdp(program, pins, interface, index, wanted)?
        }
    };
    let mode = match found {
        Some(mode) => mode,
        None => {
            attach_classifier(programs, Way::In, pins, interface, index, kind)?;
            Mode::Tc
        }
    };
    // What an earlier agent attached in another way, or this one to another NIC: now that the new
    // ones are there.
    let Some(pins) = pins else {
        return Ok(Attachment { mode, egress: kind });
    };
    let stays = |interface| Some(interface) == standby;
    for pin in pins.ingress_links() {
        if (pin.interface != index || pin.mode != mode) && !stays(pin.interface) {
            unpin_link(&pin.path)?;
        }
    }
    for pin in pins.tcx_links(Way::Out) {
        if (pin.interface != index || kind != Egress::Tcx) && !stays(pin.interface) {
            unpin_link(&pin.path)?;
        }
    }
    for filter in pins.filters() {
        // Other NICs are looked after by themselves (`leave_elsewhere`).
        if stays(filter.interface) || filter.way == Way::Elsewhere {
            continue;
        }
        let wanted = kind == Egress::Clsact && (filter.way == Way::Out || mode == Mode::Tc);
        if filter.interface != index || !wanted {
            pins.remove_filter(filter.way, filter.interface)?;
        }
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
        if pin.mode == Mode::Tc || pin.interface != index {
            continue;
        }
        let welcome = match wanted {
            config::XdpMode::Auto => true,
            config::XdpMode::Native => pin.mode == Mode::Native,
            config::XdpMode::Generic => pin.mode == Mode::Generic,
            config::XdpMode::Tc => false,
        };
        if welcome && replace_xdp(program, &pin.path)? {
            return Ok(Some(pin.mode));
        }
        // Another mode, or a NIC that had this number.
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
        error: refusal.unwrap_or(ProgramError::NotLoaded),
    })
}

/// Attaches a program for socket buffers before all others that are there: what stands before it
/// may let none run behind.
pub(super) fn attach_classifier(
    programs: &mut Programs,
    way: Way,
    pins: Option<&Pins>,
    interface: &str,
    index: u32,
    kind: Egress,
) -> Result<(), DatapathError> {
    let name = way.program();
    let program = programs.classifier(name)?;
    match kind {
        Egress::Tcx => attach_tcx(program, way, pins, interface, index),
        Egress::Clsact => attach_filter(program, way, pins, interface, index),
    }
}

fn attach_tcx(
    program: &mut SchedClassifier,
    way: Way,
    pins: Option<&Pins>,
    interface: &str,
    index: u32,
) -> Result<(), DatapathError> {
    let name = way.program();
    let path = pins.map(|pins| pins.tcx(way, index));
    if let Some(path) = &path
        && is_first(path, way, interface)
        && replace_classifier(program, name, path)?
    {
        return Ok(());
    }
    let mut attach = || {
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        program.attach_with_options(interface, way.hook(), order)
    };
    let id = match (attach(), &path) {
        // It is there itself, behind others. A program can be in the list once only, so there is
        // a moment without.
        (Err(error), Some(path)) if errno(&error) == Some(libc::EEXIST) => {
            let held = hold(interface, way);
            unpin_link(path)?;
            let attached = attach();
            drop(held);
            attached
        }
        (attached, _) => attached,
    };
    let id = id.map_err(program_error(name))?;
    let Some(path) = path else { return Ok(()) };
    let link = program.take_link(id).map_err(program_error(name))?;
    // That of an earlier agent, behind it.
    unpin_link(&path)?;
    pin(FdLink::try_from(link), &path, name)
}

/// Drops all frames until the descriptor is closed, so that none gets past a hook whose program is
/// being moved: what is dropped is sent again, and what the kernel's own stack gets for a socket of
/// another node, it resets. The descriptor falls with the process. `None` if the kernel refuses.
fn hold(interface: &str, way: Way) -> Option<OwnedFd> {
    /// `TC_ACT_SHOT` (include/uapi/linux/pkt_cls.h).
    const DROP: i32 = 2;
    let program = bpf::load(bpf::Kind::Classifier, "vip_hold", &bpf::returning(DROP));
    let link = program.and_then(|program| {
        let index = if_nametoindex(interface)?;
        bpf::link(program.as_fd(), index, way.tcx(), bpf::FIRST)
    });
    link.inspect_err(|error| tracing::debug!(interface, %error, "frames are not held"))
        .ok()
}

/// Whether the program of a pinned link is the first of its list. One that cannot be told stays
/// where it is.
fn is_first(path: &Path, way: Way, interface: &str) -> bool {
    let Ok(link) = PinnedLink::from_pin(path) else {
        return false;
    };
    let own = FdLink::from(link).info().map(|info| info.program_id());
    match (tcx_programs(way, interface), own) {
        (Ok(programs), Ok(own)) => programs.first() == Some(&own),
        _ => true,
    }
}

fn attach_filter(
    program: &mut SchedClassifier,
    way: Way,
    pins: Option<&Pins>,
    interface: &str,
    index: u32,
) -> Result<(), DatapathError> {
    let name = way.program();
    // Fails if the qdisc is there already, which is as good; if it cannot be made, attaching
    // says so.
    let made = tc::qdisc_add_clsact(interface).is_ok();
    if let Some(pins) = pins {
        if made {
            note(program, name, &pins.qdisc(index))?;
        }
        // A filter has no link to update, so there is a moment without.
        pins.remove_filter(way, index)?;
    }
    let mut attach = |priority| {
        let options = NlOptions {
            priority,
            ..NlOptions::default()
        };
        program.attach_with_options(interface, way.hook(), TcAttachOptions::Netlink(options))
    };
    // Where somebody's filter of another kind has the first priority, whichever the kernel gives.
    let id = attach(FIRST_PRIORITY).or_else(|_| attach(0));
    let id = id.map_err(program_error(name))?;
    let Some(pins) = pins else { return Ok(()) };
    // A filter stays by itself, unless its handle is dropped. The pin of the program is the note
    // that it is there.
    mem::forget(program.take_link(id).map_err(program_error(name))?);
    note(program, name, &pins.filter(way, index))
}

/// Filters of lower priority run first. 0 lets the kernel choose.
const FIRST_PRIORITY: u16 = 1;

/// Pins a program as a note, in the place of an older one.
fn note(
    program: &mut SchedClassifier,
    name: &'static str,
    path: &Path,
) -> Result<(), DatapathError> {
    unpin(path)?;
    program.pin(path).map_err(|error| DatapathError::Io {
        what: format!("cannot pin {name}"),
        error: io::Error::other(error),
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

/// Attaches one by a link, so that other programs may always be there too.
fn attach_local(
    program: &mut Program,
    cgroup: &File,
) -> Result<Result<FdLink, LinkError>, ProgramError> {
    let mode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, mode)?;
            program.take_link(id).map(FdLink::try_from)
        }
        Program::CgroupSock(program) => {
            let id = program.attach(cgroup, mode)?;
            program.take_link(id).map(FdLink::try_from)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Attaches a program for local sockets to a cgroup, if there is one, and then removes what an
/// earlier agent attached: for a moment there are both, and the second finds nothing to do.
pub(super) fn redirect(
    programs: &mut Programs,
    name: &'static str,
    pins: Option<&Pins>,
    cgroup: Option<&File>,
) -> Result<(), DatapathError> {
    let link = cgroup
        .map(|cgroup| attach_local(programs.local(name)?, cgroup).map_err(program_error(name)))
        .transpose()?;
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
        Some(link) => pin(link, &path, name),
        None => Ok(()),
    }
}

fn pinned(path: &Path, name: &'static str) -> Result<Option<FdLink>, DatapathError> {
    match PinnedLink::from_pin(path) {
        Ok(link) => Ok(Some(link.into())),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(DatapathError::Io {
            what: format!(
                "cannot open the link of {name} pinned at {}",
                path.display()
            ),
            error: io::Error::other(error),
        }),
    }
}

/// Pins a link. The pin holds it from then on.
fn pin(
    link: Result<FdLink, LinkError>,
    path: &Path,
    name: &'static str,
) -> Result<(), DatapathError> {
    let what = format!("cannot pin the link of {name} at {}", path.display());
    link.map_err(io::Error::other)
        .and_then(|link| link.pin(path).map_err(io::Error::other))
        .map(drop)
        .map_err(DatapathError::io(what))
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
