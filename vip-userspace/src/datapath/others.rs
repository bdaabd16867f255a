//! Other agents on this machine: what they hold, and that nobody else may take it.
//!
//! Agents with other run directories pin in other directories of the same bpffs, and what lies
//! there tells what they hold: links name the NIC, the state has the VIPs. An agent that lives
//! holds a lock on its directory.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::programs::loaded_programs;
use nix::fcntl::{Flock, FlockArg};

use super::chain;
use super::maps::Maps;
use super::object::{EGRESS, INGRESS, TC_INGRESS};
use super::pins::{self, Pins};
use super::way::{Mode, Way};
use vip_node::hooks::Program;

/// The NIC and the VIPs that an agent must have for itself.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Its run directory.
    pub run_directory: &'a Path,
    /// Name of the NIC.
    pub interface: &'a str,
    /// Its index.
    pub index: u32,
    /// The XDP program on it.
    pub xdp: Option<u32>,
    /// The VIPs.
    pub vips: &'a [IpAddr],
    /// Number of its network namespace; 0 if the kernel does not tell.
    pub netns: u64,
}

/// Another agent has the NIC or a VIP of this one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Taken {
    /// It runs.
    #[error(
        "{what} belongs to the agent that runs with run_dir = \"{run_directory}\": one agent \
         serves up to 16 VIPs, so add yours to its configuration, or take another NIC and other VIPs"
    )]
    Alive {
        /// The NIC or VIP.
        what: String,
        /// That agent's run directory.
        run_directory: PathBuf,
    },
    /// It has ended and left its programs.
    #[error(
        "{what} still belongs to an agent that has ended (run_dir = \"{run_directory}\"): start \
         that one, or remove what it left with `vip cleanup --run-dir {run_directory}`"
    )]
    Left {
        /// The NIC or VIP.
        what: String,
        /// That agent's run directory.
        run_directory: PathBuf,
    },
    /// Its pins are somewhere else.
    #[error(
        "{interface} has the program {program} of another agent, which pins in another directory (`bpffs` \
         in [datapath]): end it, and remove its programs with `vip cleanup --config FILE`, its file"
    )]
    Elsewhere {
        /// The NIC.
        interface: String,
        /// The program there.
        program: String,
    },
}

/// Looks whether another agent has the NIC or one of the VIPs. Changes nothing.
///
/// # Errors
/// One has.
pub fn refuse_taken(bpffs: &Path, claim: &Claim<'_>) -> Result<(), Taken> {
    let own = pins::pin_directory(bpffs, claim.run_directory);
    for name in pins::files(bpffs) {
        let directory = bpffs.join(&name);
        let Some(run_directory) = pins::run_directory(&name).filter(|_| directory != own) else {
            continue;
        };
        let pins = Pins::at(&directory);
        let state = Maps::pinned(&pins).map(|(_, state)| *state.get());
        let netns = state.map_or(0, |state| state.config.netns);
        // Numbers of interfaces and addresses are those of a network namespace.
        if netns != 0 && claim.netns != 0 && netns != claim.netns {
            continue;
        }
        let vips = state.map_or(vec![], |state| {
            let vips = state.vips().iter();
            vips.map(|vip| IpAddr::from(vip.address)).collect()
        });
        let what = if pins.interfaces().contains(&claim.index) {
            claim.interface.to_owned()
        } else if let Some(vip) = claim.vips.iter().find(|vip| vips.contains(vip)) {
            format!("VIP {vip}")
        } else {
            continue;
        };
        return Err(if pins.is_held() {
            Taken::Alive {
                what,
                run_directory,
            }
        } else {
            Taken::Left {
                what,
                run_directory,
            }
        });
    }
    refuse_unknown(&Pins::at(&own), claim)
}

/// Looks for an agent's programs on the NIC that this one has not pinned, as far as the kernel tells
/// their names (see [`chain::named`]).
fn refuse_unknown(own: &Pins, claim: &Claim<'_>) -> Result<(), Taken> {
    let found = |program: &str| {
        Err(Taken::Elsewhere {
            interface: claim.interface.to_owned(),
            program: program.to_owned(),
        })
    };
    let ours = |way: Way| {
        let mut links = own.tcx_links(way).into_iter();
        links.any(|pin| pin.interface == claim.index)
    };
    let has_xdp = |pin: &pins::IngressPin| pin.interface == claim.index && pin.mode != Mode::Tc;
    if let Some(id) = claim.xdp
        && !own.ingress_links().iter().any(has_xdp)
        && loaded_programs()
            .flatten()
            // Also the one for frames in a single buffer, whose name begins so.
            .any(|program| {
                let name = program.name_as_str();
                program.id() == id && name.is_some_and(|name| name.starts_with(INGRESS))
            })
    {
        return found(INGRESS);
    }
    for (way, name) in [(Way::In, TC_INGRESS), (Way::Out, EGRESS)] {
        // A kernel without tcx has none.
        let programs = chain::tcx(way, claim.interface).unwrap_or_default();
        let named = |program: &&Program| program.name == name;
        if programs.iter().filter(named).count() > usize::from(ours(way)) {
            return found(name);
        }
    }
    Ok(())
}

/// A turn to start: agents that start at the same time look for each other one by one. Ends when
/// dropped.
#[derive(Debug)]
pub struct Turn {
    _file: Option<Flock<File>>,
}

impl Turn {
    /// Longest wait for the others' turns.
    const PATIENCE: u32 = 100;

    /// Waits for it. Where there is no bpffs yet, nobody has pinned anything.
    pub async fn take(bpffs: &Path) -> Self {
        for _ in 0..Self::PATIENCE {
            let Ok(directory) = File::open(bpffs) else {
                break;
            };
            if let Ok(file) = Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                return Self { _file: Some(file) };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { _file: None }
    }
}
