//! The hooks of an interface, and the ways to run a program there.

use std::fmt;
use std::str::FromStr;

use aya::programs::TcAttachType;

use super::object::{EGRESS, TC_INGRESS};
use crate::kernel::bpf;

/// How the program on the way in is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
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

impl Mode {
    /// For status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// A link (Linux 6.6).
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

impl Egress {
    /// For status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

    /// Where the kernel has it, by number.
    pub(super) const fn tcx(self) -> u32 {
        match self {
            Self::In => bpf::TCX_INGRESS,
            Self::Out | Self::Elsewhere => bpf::TCX_EGRESS,
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
