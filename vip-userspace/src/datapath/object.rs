//! The eBPF object, and the names of its programs.

/// The eBPF object, as `cargo xtask build-ebpf` made it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vip.o"));

/// Program on the NIC's way in.
pub const INGRESS: &str = "vip_ingress";
/// The same for kernels that have no XDP programs for frames in several buffers (before Linux
/// 5.18): a driver takes it only for an MTU whose frames fit one.
pub(super) const INGRESS_SINGLE_BUFFER: &str = "vip_ingress_sb";
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
