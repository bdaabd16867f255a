//! The maps, and their implementation of [`Tables`].
//!
//! Every packet reads only globals and counters. A global's address is known when the program is
//! loaded, so that it is read without a lookup. Allow lists and hash tables are read only for
//! services that are configured to need them.
//!
//! The agent writes while programs read. A mixture of old and new words does no harm: each mask of
//! health is one word. A new rank table is written to the half that is not in use; then one word
//! changes, which selects the half. New allow lists are written in the same way.

use core::cell::UnsafeCell;

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap, PerCpuArray};
use vip_common::abi::{
    AllowNode, AllowTable, BUCKETS, BackendCounters, COUNTERS, Counter, FirstRanks, LISTENERS,
    LaterRanks, MAX_BACKENDS, MAX_REDIRECTED, MAX_SOURCES, RankTable, Redirected, Service, Source,
    State, listener,
};
use vip_common::env::Tables;
use vip_common::rate_limit::Bucket;
use vip_common::verdict::Verdict;
use vip_common::wire::addr::{Be128, Mac};
use vip_common::wire::time::BootNanos;

/// A global that the agent writes.
#[repr(transparent)]
struct Global<T>(UnsafeCell<T>);

// SAFETY: programs only read it, by shared references. They see the agent's writes word by word, as
// with any map.
unsafe impl<T> Sync for Global<T> {}

/// Exported, so that the linker does not treat it as a constant: no program writes it.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.VIP_STATE")]
static VIP_STATE: Global<State> = {
    // SAFETY: plain old data, for which all zeros are valid. (`Zeroable::zeroed` is not `const`.)
    Global(UnsafeCell::new(unsafe { core::mem::zeroed() }))
};

/// Exported, as above. It begins with zeros, which take no room in the object file.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.VIP_RANKS")]
static VIP_RANKS: Global<RankTable> = {
    // SAFETY: plain old data, as above.
    Global(UnsafeCell::new(unsafe { core::mem::zeroed() }))
};

#[map]
static VIP_ALLOWED: Array<AllowTable> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static VIP_SOURCES: LruHashMap<Source, Bucket> = LruHashMap::with_max_entries(MAX_SOURCES, 0);
#[map]
static VIP_REDIRECTED: LruHashMap<u64, Redirected> =
    LruHashMap::with_max_entries(MAX_REDIRECTED, 0);
#[map]
static VIP_LISTENERS: Array<BootNanos> = Array::with_max_entries(LISTENERS, 0);
#[map]
static VIP_CLAIMANT: Array<Mac> = Array::with_max_entries(1, 0);
#[map]
static VIP_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);
#[map]
static VIP_BACKEND_CTR: PerCpuArray<BackendCounters> =
    PerCpuArray::with_max_entries(MAX_BACKENDS as u32, 0);

/// Rows of both halves of the rank table.
const ROWS: usize = 2 * BUCKETS;

/// The tables of this node.
pub(crate) struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn state(&self) -> &State {
        // SAFETY: see `Global`.
        unsafe { &*VIP_STATE.0.get() }
    }

    #[inline(always)]
    fn first_ranks(&self, row: u32) -> FirstRanks {
        // SAFETY: see `Global`.
        unsafe { (*VIP_RANKS.0.get()).first[row as usize % ROWS] }
    }

    #[inline(always)]
    fn later_ranks(&self, row: u32) -> LaterRanks {
        // SAFETY: see `Global`.
        unsafe { (*VIP_RANKS.0.get()).later[row as usize % ROWS] }
    }

    #[inline(always)]
    fn now(&self) -> BootNanos {
        // SAFETY: a helper without arguments.
        BootNanos(unsafe { bpf_ktime_get_boot_ns() })
    }

    #[inline(always)]
    fn allows(&self, service: &Service, source: Be128) -> bool {
        let [high, low] = source.words();
        vip_is_allowed(bytemuck::cast(service.allowed), high, low) != 0
    }

    #[inline(always)]
    fn admits(&self, service: &Service, source: Be128) -> bool {
        let key = Source::new(service.id, source);
        let [high, low] = key.network;
        is_admitted(key.service, high, low, service.syn_rate)
    }
}

/// Whether the allow list with this root has the source, of which these are the words.
///
/// This function and the next are called, not inlined: few segments need them, and the others would
/// lack the registers. This one is exported, with words as its arguments, so that the verifier
/// follows its loop once, not once for each call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vip_is_allowed(root: u32, high: u64, low: u64) -> u32 {
    let root: AllowNode = bytemuck::cast(root);
    let source = Be128::from_words([high, low]);
    let table = VIP_ALLOWED.get(0);
    table.is_some_and(|table| table.allows(root, source)).into()
}

/// Whether the source with this key may open one more connection, of `rate` a second.
#[inline(never)]
fn is_admitted(service: u64, high: u64, low: u64, rate: u32) -> bool {
    let key = Source {
        network: [high, low],
        service,
    };
    let now = Maps.now();
    if let Some(bucket) = VIP_SOURCES.get_ptr_mut(key) {
        // SAFETY: a pointer to an entry. Another CPU may change it at the same time: see
        // `Bucket`.
        return unsafe { (*bucket).admit(rate, now) };
    }
    let mut bucket = Bucket::default();
    let admitted = bucket.admit(rate, now);
    // If the table takes no entry, the source is not limited.
    let _full = VIP_SOURCES.insert(key, bucket, 0);
    admitted
}

/// Stores the redirection of the local socket with this cookie.
#[inline(always)]
pub(crate) fn note_redirected(cookie: u64, redirected: &Redirected) {
    // If the table takes no entry, `getpeername` returns the node's address instead of the VIP.
    let _full = VIP_REDIRECTED.insert(cookie, redirected, 0);
}

/// The redirection of the local socket with this cookie.
#[inline(always)]
pub(crate) fn redirected(cookie: u64) -> Option<Redirected> {
    // SAFETY: an entry that is written whole, once for each `connect`.
    unsafe { VIP_REDIRECTED.get(cookie) }.copied()
}

/// Whether this node's server for a check listens: its last health probe was successful, and no
/// listening socket has been closed since that probe began.
#[inline(always)]
pub(crate) fn listens(check: u8) -> bool {
    let at = |entry| VIP_LISTENERS.get(entry).copied().unwrap_or_default();
    at(listener::CLOSED) < at(listener::asked(check))
}

/// Stores the current time as that of the last closed listener.
#[inline(always)]
pub(crate) fn note_closed() {
    if let Some(closed) = VIP_LISTENERS.get_ptr_mut(listener::CLOSED) {
        let now = Maps.now();
        // SAFETY: one aligned word, which others read and write whole.
        unsafe { closed.write_volatile(now) };
    }
}

/// Stores the Ethernet address of a claimant.
#[inline(always)]
pub(crate) fn note_claimant(mac: Mac) {
    if let Some(claimant) = VIP_CLAIMANT.get_ptr_mut(0) {
        // SAFETY: one aligned word, which others read and write whole.
        unsafe { claimant.write_volatile(mac) };
    }
}

/// Adds 1 to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = VIP_COUNTERS.get_ptr_mut(counter.index()) {
        // SAFETY: this CPU's own entry, and no program of the same hook preempts another one on the
        // same CPU.
        unsafe { *value += 1 };
    }
}

/// Counts a frame for the backend that its verdict names.
#[inline(always)]
pub(crate) fn count_backend(verdict: &Verdict) {
    if let Some(counters) = VIP_BACKEND_CTR.get_ptr_mut(verdict.backend()) {
        // SAFETY: as in `count`.
        let counters = unsafe { &mut *counters };
        match verdict.counter() {
            Counter::LocalCookie | Counter::LocalError => counters.others += 1,
            _ => {
                counters.syns += u64::from(verdict.opens());
                counters.segments += u64::from(!verdict.opens());
            }
        }
        counters.bytes += u64::from(verdict.bytes());
    }
}
