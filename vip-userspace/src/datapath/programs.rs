//! The programs of the eBPF object, by their names.

use aya::Ebpf;
use aya::programs::{Program, ProgramError, Xdp};

use super::error::{DatapathError, program_error};

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

/// A program of the object, of the kind that it must be.
pub(super) fn program<'e, P>(
    ebpf: &'e mut Ebpf,
    name: &'static str,
) -> Result<&'e mut P, DatapathError>
where
    &'e mut P: TryFrom<&'e mut Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(DatapathError::Missing(name))
}

/// Loads the program on the way in: the one for frames in several buffers, or where the kernel
/// does not know such programs, the one for frames in a single buffer.
pub(super) fn load_ingress(ebpf: &mut Ebpf) -> Result<(), DatapathError> {
    let load = |ebpf: &mut Ebpf, name| {
        let ingress: &mut Xdp = program(ebpf, name)?;
        ingress.load().map_err(program_error(name))
    };
    match load(ebpf, INGRESS) {
        Err(DatapathError::Program { error, .. }) if is_unknown_flag(&error) => {
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
pub(super) fn ingress(ebpf: &mut Ebpf) -> Result<(&'static str, &mut Xdp), DatapathError> {
    let single: &mut Xdp = program(ebpf, INGRESS_SINGLE_BUFFER)?;
    let name = if single.fd().is_ok() {
        INGRESS_SINGLE_BUFFER
    } else {
        INGRESS
    };
    Ok((name, program(ebpf, name)?))
}
