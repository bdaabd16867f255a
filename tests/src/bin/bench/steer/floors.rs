//! The floors, the programs that make packets anew, and one run of either.

use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{Array, Map, ProgramArray};
use aya::programs::{
    Program, ProgramError, ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, Xdp,
};
use aya::{Ebpf, EbpfLoader};
use nix::time::{ClockId, clock_gettime};
use vip_common::abi::bench::Feed;
use vip_common::wire::addr::Be16;
use vip_userspace::datapath::TC_INGRESS;

use super::cases::{Case, Hook, Target};
use super::products::Products;

/// A value of a map, for aya.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct FeedValue(Feed);

// SAFETY: `repr(transparent)` over a type that bytemuck knows to be plain old data.
unsafe impl aya::Pod for FeedValue {}

/// The program that a run begins with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    /// Makes the packet anew and calls the program under test.
    Feed,
    /// Does nothing.
    Pass,
}

impl Entry {
    const fn program(self, hook: Hook) -> &'static str {
        match (hook, self) {
            (Hook::Xdp, Self::Feed) => "bench_feed",
            (Hook::Xdp, Self::Pass) => "bench_pass",
            (Hook::Tc, Self::Feed) => "bench_tc_feed",
            (Hook::Tc, Self::Pass) => "bench_tc_pass",
        }
    }
}

/// The floors, and the programs that make packets anew.
pub(crate) struct Floors(Ebpf);

impl Floors {
    pub(crate) fn load() -> Result<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/bench.o");
        let ebpf = EbpfLoader::new()
            .load_file(path)
            .with_context(|| format!("load {path} (`cargo xtask build-ebpf` makes it)"))?;
        let mut floors = Self(ebpf);
        for name in ["bench_feed", "bench_pass", "bench_tx", "bench_drop"] {
            let program = floors.xdp(name)?;
            program.load().with_context(|| format!("load {name}"))?;
        }
        for name in ["bench_tc_feed", "bench_tc_pass", "bench_tc_redirect"] {
            let program = floors.classifier(name)?;
            program.load().with_context(|| format!("load {name}"))?;
        }
        Ok(floors)
    }

    fn program<'f, P>(&'f mut self, name: &str) -> Result<&'f mut P>
    where
        &'f mut P: TryFrom<&'f mut Program, Error = ProgramError>,
    {
        let program = self.0.program_mut(name);
        let program = program.with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    pub(crate) fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        self.program(name)
    }

    pub(crate) fn map(&self, name: &str) -> Result<&Map> {
        self.0.map(name).with_context(|| format!("no map {name}"))
    }

    fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        self.program(name)
    }

    fn fd(&mut self, hook: Hook, name: &str) -> Result<ProgramFd> {
        Ok(match hook {
            Hook::Xdp => self.xdp(name)?.fd()?.try_clone()?,
            Hook::Tc => self.classifier(name)?.fd()?.try_clone()?,
        })
    }

    /// From now on, each packet is one of this case, and goes to its program.
    pub(crate) fn aim(&mut self, case: &Case, products: &mut Products) -> Result<()> {
        let hook = case.traffic.hook;
        let fd = match (case.target, hook) {
            (Target::Product(setup), Hook::Xdp) => {
                products.get(setup)?.ingress()?.fd()?.try_clone()?
            }
            (Target::Product(setup), Hook::Tc) => {
                let product = products.get(setup)?;
                product.classifier(TC_INGRESS)?.fd()?.try_clone()?
            }
            (Target::Pass, hook) => self.fd(hook, Entry::Pass.program(hook))?,
            (Target::Send, Hook::Xdp) => self.fd(Hook::Xdp, "bench_tx")?,
            (Target::Send, Hook::Tc) => self.fd(Hook::Tc, "bench_tc_redirect")?,
        };
        let map = match hook {
            Hook::Xdp => "BENCH_TARGET",
            Hook::Tc => "BENCH_TC_TARGET",
        };
        let map = self.0.map_mut(map).context("no map of programs")?;
        ProgramArray::try_from(map)?.set(0, &fd, 0)?;
        self.feed(case)
    }

    fn feed(&mut self, case: &Case) -> Result<()> {
        let map = self.0.map_mut("BENCH_FEED").context("no BENCH_FEED")?;
        let segment = &case.segment;
        let clients = segment.source.ipv4().context("no IPv4 client")?;
        let feed = Feed {
            next: 0,
            flows: case.traffic.flows.count(),
            destination: segment.to,
            source: segment.from,
            clients: u32::from_be_bytes(clients.to_wire()),
            port: Be16::new(segment.port),
            ttl: segment.ttl,
            ipv6: u8::from(case.traffic.ipv6),
        };
        Array::try_from(map)?.set(0, FeedValue(feed), 0)?;
        Ok(())
    }

    /// Thread CPU time a packet, in nanoseconds, and the last action.
    pub(super) fn run(
        &mut self,
        hook: Hook,
        entry: Entry,
        frame: &[u8],
        packets: u32,
    ) -> Result<(f64, u32)> {
        let name = entry.program(hook);
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: packets,
            ..TestRunOptions::new()
        };
        let before = thread_time()?;
        let result = match hook {
            Hook::Xdp => self.xdp(name)?.test_run(options)?,
            Hook::Tc => self.classifier(name)?.test_run(options)?,
        };
        let spent = thread_time()? - before;
        Ok((
            spent.as_nanos() as f64 / f64::from(packets),
            result.return_value,
        ))
    }
}

pub(crate) fn thread_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(Duration::new(time.tv_sec() as u64, time.tv_nsec() as u32))
}
