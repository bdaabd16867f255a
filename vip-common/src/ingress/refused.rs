//! Allow lists and limits of new connections.

use crate::abi::{Counter, Service, flag};
use crate::env::Tables;
use crate::wire::addr::Be128;

/// Why a service with an allow list or a limit refuses a SYN from this source; `None` if it does
/// not. It refuses no other segment: without a SYN there is no connection, and the stack resets the
/// segment. `counted`: another node has counted the SYN already.
#[inline(always)]
pub(super) fn refused<T: Tables>(
    service: &Service,
    source: Be128,
    counted: bool,
    tables: &T,
) -> Option<Counter> {
    if service.flags & flag::ALLOW_LIST != 0 && !tables.allows(service, source) {
        return Some(Counter::NotAllowed);
    }
    if service.flags & flag::SYN_LIMIT != 0 && !counted && !tables.admits(service, source) {
        return Some(Counter::SynLimited);
    }
    None
}
