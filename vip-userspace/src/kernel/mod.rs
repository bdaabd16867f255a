//! What the kernel is asked about itself and its programs: BTF, `bpf(2)`, control groups.

pub mod bpf;
pub mod btf;
pub mod cgroup;
pub mod pressure;
