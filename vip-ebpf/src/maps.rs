//! The maps, and the [`Tables`] that the decisions read from them.
//!
//! Only arrays: the JIT turns their lookups into a bounds check and an addition.
//!
//! The agent writes while programs read. Values are made so that a mixture of old and new does
//! no harm: health is one word each, and a new rank table is written to the half not in use
//! before the one word that names the half changes.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use vip_common::layout::{
    Backend, BackendCounters, BootNanos, COUNTERS, Config, Counter, DEFAULT_BUCKETS, MAX_BACKENDS,
    MAX_VIPS, Masks, RankRow, Vip,
};
use vip_common::node::Tables;

#[map]
static VIP_CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
static VIP_VIPS: Array<Vip> = Array::with_max_entries(MAX_VIPS as u32, 0);
#[map]
static VIP_FENCES: Array<BootNanos> = Array::with_max_entries(MAX_VIPS as u32, 0);
#[map]
static VIP_BACKENDS: Array<Backend> = Array::with_max_entries(MAX_BACKENDS as u32, 0);
#[map]
static VIP_MASKS: Array<Masks> = Array::with_max_entries(1, 0);
/// Two halves. The agent resizes the map to twice the configured number of buckets.
#[map]
static VIP_RANKS: Array<RankRow> = Array::with_max_entries(2 * DEFAULT_BUCKETS, BPF_F_MMAPABLE);
#[map]
static VIP_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);
#[map]
static VIP_BACKEND_CTR: PerCpuArray<BackendCounters> =
    PerCpuArray::with_max_entries(MAX_BACKENDS as u32, 0);

/// The tables of this node.
pub(crate) struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        VIP_CONFIG.get(0)
    }

    #[inline(always)]
    fn vip(&self, index: u32) -> Option<&Vip> {
        VIP_VIPS.get(index)
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        VIP_BACKENDS.get(index)
    }

    #[inline(always)]
    fn masks(&self) -> Masks {
        VIP_MASKS.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn row(&self, index: u32) -> Option<&RankRow> {
        VIP_RANKS.get(index)
    }

    #[inline(always)]
    fn fence_holds(&self, vip: u32) -> bool {
        // SAFETY: a helper without arguments.
        let now = BootNanos(unsafe { bpf_ktime_get_boot_ns() });
        VIP_FENCES.get(vip).is_some_and(|until| now < *until)
    }
}

/// Counts a verdict.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = VIP_COUNTERS.get_ptr_mut(counter.index()) {
        // SAFETY: this CPU's own slot of the map, and nothing preempts a program by another
        // one of the same hook on the same CPU.
        unsafe { *value += 1 };
    }
}

/// Counts a frame for a backend.
#[inline(always)]
pub(crate) fn count_backend(index: u32, bytes: usize, syn: bool) {
    if let Some(counters) = VIP_BACKEND_CTR.get_ptr_mut(index) {
        // SAFETY: as in `count`.
        unsafe {
            (*counters).packets += 1;
            (*counters).bytes += bytes as u64;
            (*counters).syns += u64::from(syn);
        }
    }
}
