//! The programs at a hook in the order in which they run: whether ours is among them, and whose
//! stand before it.

use aya::programs::loaded_programs;

use super::attach::tcx_programs;
use super::error::DatapathError;
use super::way::{Egress, Way};
use vip_node::hooks::{By, Program};

/// A clsact filter, as rtnetlink tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// `bpf`, `matchall`, `flower` and so on.
    pub kind: String,
    /// The kernel's number of the program, if it is one of BPF.
    pub program: Option<u32>,
}

/// What rtnetlink tells of programs on an interface.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Number of the XDP program, in whichever mode.
    pub xdp: Option<u32>,
    /// Filters on the way in, in the order in which they run. Not told where tcx is used.
    pub ingress: Vec<Filter>,
    /// The same on the way out.
    pub egress: Vec<Filter>,
}

/// What was found at a hook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    /// Our program is there.
    pub attached: bool,
    /// Others' programs that get frames before it, the first one first.
    pub ahead: Vec<Program>,
}

/// Looks for the program with the number `own` at a hook for socket buffers.
pub(super) fn look(
    way: Way,
    interface: &str,
    kind: Egress,
    own: u32,
    seen: &Seen,
) -> Result<Look, DatapathError> {
    let mut all = Vec::new();
    // On the way in, XDP runs before all of them.
    if let (Way::In, Some(id)) = (way, seen.xdp) {
        all.push(named(By::Xdp, id));
    }
    match kind {
        Egress::Tcx => all.extend(tcx(way, interface)?),
        Egress::Clsact => {
            let filters = match way {
                Way::In => &seen.ingress,
                Way::Out | Way::Elsewhere => &seen.egress,
            };
            all.extend(filters.iter().map(|filter| match filter.program {
                Some(id) if id == own => Program {
                    by: By::Clsact,
                    id: Some(id),
                    name: way.program().to_owned(),
                },
                Some(id) => named(By::Clsact, id),
                None => Program {
                    by: By::Clsact,
                    id: None,
                    name: filter.kind.clone(),
                },
            }));
        }
    }
    let place = all.iter().position(|program| program.id == Some(own));
    all.truncate(place.unwrap_or(all.len()));
    Ok(Look {
        attached: place.is_some(),
        ahead: all,
    })
}

/// The tcx programs of an interface.
pub(super) fn tcx(way: Way, interface: &str) -> Result<Vec<Program>, DatapathError> {
    let what = format!("cannot ask for the tcx programs of {interface}");
    let programs = tcx_programs(way, interface).map_err(DatapathError::io(what))?;
    Ok(programs.into_iter().map(|id| named(By::Tcx, id)).collect())
}

/// A program by its number. The kernel tells its name to `CAP_SYS_ADMIN` only, which an agent may
/// have while it starts; to others it is a number.
pub(super) fn named(by: By, id: u32) -> Program {
    let known = loaded_programs()
        .flatten()
        .find(|program| program.id() == id);
    Program {
        by,
        id: Some(id),
        name: known
            .and_then(|program| program.name_as_str().map(str::to_owned))
            .unwrap_or_default(),
    }
}
