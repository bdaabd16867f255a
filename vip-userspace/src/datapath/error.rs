//! What can go wrong between the agent and the kernel.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

/// What can go wrong between the agent and the kernel. Its text says the cause too: that is what
/// events and the log print.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The object could not be loaded.
    #[error(
        "cannot load the eBPF object (Linux 5.10 or newer, CAP_BPF and CAP_NET_ADMIN are needed; \
         before Linux 5.11 also an RLIMIT_MEMLOCK of 64 MiB, or CAP_SYS_RESOURCE to raise it): {}",
        in_full(.0)
    )]
    Load(EbpfError),
    /// A program was refused or could not be attached.
    #[error("eBPF program {name}: {}", in_full(.error))]
    Program {
        /// Its name in the object.
        name: &'static str,
        /// What the kernel said.
        error: ProgramError,
    },
    /// A map could not be read or written.
    #[error("eBPF map {name}: {}", in_full(.error))]
    Map {
        /// Its name in the object.
        name: &'static str,
        /// What the kernel said.
        error: MapError,
    },
    /// The object lacks a program or map: it was built from other sources than the agent.
    #[error("the embedded eBPF object has no {0}: build it again with `cargo xtask build-ebpf`")]
    Missing(&'static str),
    /// Something in the file system or a plain system call.
    #[error("{what}: {}", in_full(.error))]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        error: io::Error,
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
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

/// An error of aya with its causes. Some of aya's errors print their cause themselves.
fn in_full(error: &(dyn Error + 'static)) -> String {
    if let Some(ProgramError::LoadError { .. }) = error.downcast_ref() {
        return error.to_string();
    }
    match (error.downcast_ref(), error.source()) {
        (
            Some(
                EbpfError::ParseError(_)
                | EbpfError::BtfError(_)
                | EbpfError::MapError(_)
                | EbpfError::ProgramError(_),
            ),
            Some(cause),
        ) => in_full(cause),
        (_, Some(cause)) => format!("{error}: {}", in_full(cause)),
        (_, None) => error.to_string(),
    }
}

pub(super) fn program_error(name: &'static str) -> impl FnOnce(ProgramError) -> DatapathError {
    move |error| DatapathError::Program { name, error }
}

pub(super) fn map_error(name: &'static str) -> impl FnOnce(MapError) -> DatapathError {
    move |error| DatapathError::Map { name, error }
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    #[test]
    fn an_error_says_its_cause_and_says_it_once() {
        let denied = || io::Error::from_raw_os_error(1);
        let program = DatapathError::Program {
            name: "vip_egress",
            error: ProgramError::SyscallError(SyscallError {
                call: "bpf_link_create",
                io_error: denied(),
            }),
        };
        let map = DatapathError::Load(EbpfError::MapError(MapError::CreateError {
            name: "VIP_RANKS".to_owned(),
            io_error: denied(),
        }));
        for (error, end) in [
            (program, "eBPF program vip_egress: `bpf_link_create` failed"),
            (map, "to raise it): failed to create map `VIP_RANKS`"),
        ] {
            assert!(error.source().is_none());
            let text = error.to_string();
            let whole = format!("{end}: Operation not permitted (os error 1)");
            assert!(text.ends_with(&whole), "{text}");
        }
    }
}
