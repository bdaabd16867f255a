//! `cargo xtask`: everything that is done around the code. Each subcommand installs what it
//! needs and does not find, and says so in one line.

mod apt;
mod bench;
mod build;
mod build_ebpf;
mod cargo;
mod demo;
mod deny;
mod dist;
mod harness;
mod image;
mod install;
mod kernels;
mod kubelet;
mod kubernetes;
mod netns;
mod package;
mod progress;
mod reproducible;
mod sh;
mod structure;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, tests and shows vip.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the eBPF object, target/bpf/vip.o
    BuildEbpf(build_ebpf::Options),
    /// Run clippy on the eBPF program, warnings denied
    ClippyEbpf,
    /// Build everything
    Build(build::Options),
    /// Run all tests, in an empty network namespace
    Test(test::Options),
    /// Three nodes, their API servers and the faults they survive, in network namespaces
    Demo(demo::Options),
    /// Build the container image, for x86_64 and aarch64, as an OCI archive
    Image(image::Options),
    /// Build vip.deb and vip.rpm for this machine, in target/dist
    Package(package::Options),
    /// Build a release: binaries, image, packages, bills of materials, checksums, in target/dist
    Dist,
    /// Build a kubelet, for the test that starts the static pod by it
    Kubelet,
    /// Check licences and sources of dependencies
    Deny(deny::Options),
    /// Find source files that import each other in a circle
    Structure,
    /// Run a benchmark, in an empty network namespace
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let outcome = match Options::parse().task {
        Task::BuildEbpf(options) => build_ebpf::run(&options),
        Task::ClippyEbpf => build_ebpf::clippy(),
        Task::Build(options) => build::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Image(options) if options.check_reproducible => reproducible::check(options.arch),
        Task::Image(options) => image::run(&options),
        Task::Package(options) => package::run(&options),
        Task::Dist => dist::run(),
        Task::Kubelet => kubelet::run(),
        Task::Deny(options) => deny::run(&options),
        Task::Structure => structure::run(),
        Task::Bench(options) => bench::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            error
                .downcast_ref::<sh::Failed>()
                .map_or(ExitCode::FAILURE, sh::Failed::exit_code)
        }
    }
}
