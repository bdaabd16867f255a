//! Programs on the NIC: native or generic XDP on the way in, tcx or clsact on the way out.

use std::fmt;
use std::mem;
use std::path::Path;
use std::str::FromStr;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{self, NlOptions, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, util::KernelVersion};
use nix::libc;

use super::pins::unpin_link;
use super::{DatapathError, EGRESS, INGRESS, Pins, egress, ingress, program_error};
use crate::config;

/// How the program on the way in is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By the driver, before the kernel makes a socket buffer.
    Native,
    /// By the network stack, for any driver. Costs several times as much a packet.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "native" => Ok(Self::Native),
            "generic" => Ok(Self::Generic),
            _ => Err(()),
        }
    }
}

/// How the program on the way out is run.
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
    /// How the program on the way out is run.
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
    attach_egress(egress(ebpf)?, pins, interface, index, kind)?;
    let mode = attach_ingress(ingress(ebpf)?, pins, interface, index, wanted)?;
    Ok(Attachment { mode, egress: kind })
}

fn attach_ingress(
    program: &mut Xdp,
    pins: Option<&Pins>,
    interface: &str,
    index: u32,
    wanted: config::XdpMode,
) -> Result<Mode, DatapathError> {
    for pin in pins.map(Pins::ingress_links).unwrap_or_default() {
        let welcome = match wanted {
            config::XdpMode::Auto => true,
            config::XdpMode::Native => pin.mode == Mode::Native,
            config::XdpMode::Generic => pin.mode == Mode::Generic,
        };
        if pin.interface == index && welcome && replace_ingress(program, &pin.path)? {
            return Ok(pin.mode);
        }
        // Another NIC, another mode, or a NIC that has gone.
        unpin_link(&pin.path)?;
    }
    let modes: &[Mode] = match wanted {
        config::XdpMode::Auto => &[Mode::Native, Mode::Generic],
        config::XdpMode::Native => &[Mode::Native],
        config::XdpMode::Generic => &[Mode::Generic],
    };
    let mut refusal = None;
    for &mode in modes {
        let flags = match mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
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
                return Ok(mode);
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

fn attach_egress(
    program: &mut SchedClassifier,
    pins: Option<&Pins>,
    interface: &str,
    index: u32,
    kind: Egress,
) -> Result<(), DatapathError> {
    for (pinned, path) in pins.map(Pins::egress_links).unwrap_or_default() {
        if pinned == index && kind == Egress::Tcx && replace_egress(program, &path)? {
            return Ok(());
        }
        unpin_link(&path)?;
    }
    let order = match kind {
        Egress::Tcx => TcAttachOptions::TcxOrder(LinkOrder::default()),
        Egress::Clsact => {
            // Fails if the qdisc is there already, which is as good; if it cannot be made,
            // attaching says so.
            let _exists = tc::qdisc_add_clsact(interface);
            // A filter has no link to update, so there is a moment without.
            if let Some(pins) = pins {
                pins.remove_filter(index, interface)?;
            }
            TcAttachOptions::Netlink(NlOptions::default())
        }
    };
    let id = program
        .attach_with_options(interface, TcAttachType::Egress, order)
        .map_err(program_error(EGRESS))?;
    let Some(pins) = pins else { return Ok(()) };
    let link = program.take_link(id).map_err(program_error(EGRESS))?;
    match kind {
        Egress::Tcx => pin(FdLink::try_from(link), &pins.egress(index), EGRESS),
        Egress::Clsact => {
            // A filter stays by itself, unless its handle is dropped. The pin of the program
            // is the note that it is there.
            mem::forget(link);
            program
                .pin(pins.filter(index))
                .map_err(|error| DatapathError::Io {
                    what: format!("cannot pin {EGRESS}"),
                    source: std::io::Error::other(error),
                })
        }
    }
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

fn replace_ingress(program: &mut Xdp, path: &Path) -> Result<bool, DatapathError> {
    replace(path, INGRESS, |link| {
        let link = link
            .try_into()
            .map_err(|_| ProgramError::UnexpectedProgramType)?;
        let id = program.attach_to_link(link)?;
        // The pin holds the link. What is taken out and dropped here is one more handle.
        program.take_link(id).map(drop)
    })
}

fn replace_egress(program: &mut SchedClassifier, path: &Path) -> Result<bool, DatapathError> {
    replace(path, EGRESS, |link| {
        let link = link
            .try_into()
            .map_err(|_| ProgramError::UnexpectedProgramType)?;
        let id = program.attach_to_link(link)?;
        program.take_link(id).map(drop)
    })
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
