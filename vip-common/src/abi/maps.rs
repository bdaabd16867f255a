//! Names of the maps, as the object file and `bpftool` show them.

/// [`State`](super::State), a global of the programs. Its section gives the map its name.
pub const STATE: &str = ".data.VIP_STATE";
/// `Array<RankRow>`, mmapable, two halves of `bucket_mask + 1` rows each.
pub const RANKS: &str = "VIP_RANKS";
/// `Array<Mac>`, one entry: who claimed a VIP last and is no living node of the cluster. Written by
/// the programs.
pub const CLAIMANT: &str = "VIP_CLAIMANT";
/// `LpmTrie<AllowKey, u32>`: who may use the services with [`flag::ALLOW_LIST`](super::flag).
pub const ALLOWED: &str = "VIP_ALLOWED";
/// `LruHash<Source, Bucket>`: new connections of each source, for services with a limit.
pub const SOURCES: &str = "VIP_SOURCES";
/// `LruHash<u64, Redirected>`: by its cookie, which VIP a local socket was connected to.
pub const REDIRECTED: &str = "VIP_REDIRECTED";
/// `Array<BootNanos>`, [`LISTENERS`](super::LISTENERS) entries: see
/// [`listener`](super::listener). The first is written by the programs.
pub const LISTENERS: &str = "VIP_LISTENERS";
/// `PerCpuArray<u64>`, one entry a [`Counter`](super::Counter).
pub const COUNTERS: &str = "VIP_COUNTERS";
/// `PerCpuArray<BackendCounters>`, one entry a backend.
pub const BACKEND_COUNTERS: &str = "VIP_BACKEND_CTR";
