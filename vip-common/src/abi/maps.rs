//! Names of the maps, as the object file and `bpftool` show them.

/// [`State`](super::State), a global of the programs. Its section gives the map its name.
pub const STATE: &str = ".data.VIP_STATE";
/// [`RankTable`](super::RankTable), a global of the programs, too. It begins with zeros, which take
/// no room in the object file (`.bss`).
pub const RANKS: &str = ".bss.VIP_RANKS";
/// `Array<Mac>`, one entry: the Ethernet address of the last claimant. The programs write it.
pub const CLAIMANT: &str = "VIP_CLAIMANT";
/// `Array<AllowTable>`, mmapable, one entry: the sources that may use services with
/// [`flag::ALLOW_LIST`](super::flag).
pub const ALLOWED: &str = "VIP_ALLOWED";
/// `LruHash<Source, Bucket>`: new connections of each source, for services with a limit.
pub const SOURCES: &str = "VIP_SOURCES";
/// `LruHash<u64, Redirected>`: for the cookie of a local socket, the VIP that it was connected to.
pub const REDIRECTED: &str = "VIP_REDIRECTED";
/// `Array<BootNanos>`, [`LISTENERS`](super::LISTENERS) entries: see
/// [`listener`](super::listener). The programs write the first entry.
pub const LISTENERS: &str = "VIP_LISTENERS";
/// `PerCpuArray<u64>`, one entry for each [`Counter`](super::Counter).
pub const COUNTERS: &str = "VIP_COUNTERS";
/// `PerCpuArray<BackendCounters>`, one entry for each backend.
pub const BACKEND_COUNTERS: &str = "VIP_BACKEND_CTR";
