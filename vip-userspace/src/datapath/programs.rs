//! The programs of the eBPF object, by their names.
//!
//! The verifier takes most of the time of a start. So a program is loaded when it is wanted, and is
//! pinned for the next agent of the same build, which need not load it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;

use aya::Ebpf;
use aya::maps::Map;
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;
use vip_common::abi::maps::STATE;

use super::error::{DatapathError, program_error};
use super::object::{INGRESS, INGRESS_SINGLE_BUFFER, OBJECT};
use super::pins::{Pins, unpin};

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

/// The programs of a loaded object, whose maps it holds: each program needs their descriptors when
/// it is loaded.
pub(super) struct Programs {
    pub(super) ebpf: Ebpf,
    /// Where they are pinned for the next agent, if they are.
    pub(super) kept: Option<Pins>,
}

impl Programs {
    /// A program, which is loaded unless it was before.
    fn loaded(&mut self, name: &'static str) -> Result<&mut Program, DatapathError> {
        let state = id(self.ebpf.map(STATE));
        let program = self.ebpf.program_mut(name);
        let program = program.ok_or(DatapathError::Missing(name))?;
        if program.fd().is_ok() {
            return Ok(program);
        }
        let kept = self.kept.as_ref().filter(|_| is_kept(program));
        let pin = kept.map(|pins| pins.program(&BUILD, name));
        if let Some(pin) = &pin
            && let Some(kept) = from_pin(program, name, pin, state)
        {
            *program = kept;
            return Ok(program);
        }
        let began = Instant::now();
        load(program).map_err(program_error(name))?;
        tracing::debug!(program = name, took = ?began.elapsed(), "verified");
        if let Some(pin) = &pin {
            unpin(pin)?;
            let pinned = program.pin(pin).map_err(io::Error::other);
            pinned.map_err(DatapathError::io(format!("cannot pin {}", pin.display())))?;
        }
        Ok(program)
    }

    /// The program on the way in, and its name: the one for frames in several buffers, or where the
    /// kernel does not know such programs, the one for frames in a single buffer.
    pub(super) fn ingress(&mut self) -> Result<(&'static str, &mut Xdp), DatapathError> {
        let single: &mut Xdp = program(&mut self.ebpf, INGRESS_SINGLE_BUFFER)?;
        let name = if single.fd().is_ok() {
            INGRESS_SINGLE_BUFFER
        } else {
            match self.loaded(INGRESS) {
                Err(DatapathError::Program { error, .. }) if is_unknown_flag(&error) => {
                    INGRESS_SINGLE_BUFFER
                }
                outcome => outcome.map(|_| INGRESS)?,
            }
        };
        let ingress = self.loaded(name)?.try_into();
        Ok((name, ingress.map_err(|_| DatapathError::Missing(name))?))
    }

    /// A program for socket buffers.
    pub(super) fn classifier(
        &mut self,
        name: &'static str,
    ) -> Result<&mut SchedClassifier, DatapathError> {
        let classifier = self.loaded(name)?.try_into();
        classifier.map_err(|_| DatapathError::Missing(name))
    }

    /// A program for local sockets.
    pub(super) fn local(&mut self, name: &'static str) -> Result<&mut Program, DatapathError> {
        self.loaded(name)
    }
}

/// Tells the objects of builds apart.
pub(super) static BUILD: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    OBJECT.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
});

/// Whether it pays to keep a program. Those for local sockets are verified in a few milliseconds.
fn is_kept(program: &Program) -> bool {
    matches!(program, Program::Xdp(_) | Program::SchedClassifier(_))
}

/// The kernel's number of a map.
fn id(map: Option<&Map>) -> Option<u32> {
    match map? {
        Map::Array(data) => Some(data.info().ok()?.id()),
        _ => None,
    }
}

/// The program of this name that an earlier agent pinned. `None` if there is nothing, or something
/// else: another program, or the same one with another agent's maps. `state` is the number of the
/// map that every program reads.
fn from_pin(program: &Program, name: &str, pin: &Path, state: Option<u32>) -> Option<Program> {
    let kept = match program {
        Program::Xdp(_) => Program::Xdp(Xdp::from_pin(pin, XdpAttachType::Interface).ok()?),
        Program::SchedClassifier(_) => {
            Program::SchedClassifier(SchedClassifier::from_pin(pin).ok()?)
        }
        _ => return None,
    };
    let info = kept.info().ok()?;
    // The kernel keeps fifteen bytes of a name.
    let is_it = info.program_type() == program.prog_type().into()
        && info.name_as_str() == name.get(..name.len().min(15))
        && info.map_ids().ok()??.contains(&state?);
    is_it.then_some(kept)
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
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
