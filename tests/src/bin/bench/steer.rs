//! `cargo xtask bench steer`: what the programs cost a packet, in thread CPU time.
//!
//! `BPF_PROG_TEST_RUN` runs the product's own programs many times in the kernel. Before each run
//! a small program makes the packet anew, with the next flow, and calls them (see
//! `vip-ebpf/src/bench.rs`). What making it anew costs is measured too, as the difference that
//! it makes to a program that does nothing, and taken off. All programs take turns, so that
//! noise of the machine meets all of them alike.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, ProgramArray};
use aya::programs::{
    Program, ProgramError, ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, Xdp,
};
use aya::{Ebpf, EbpfLoader};
use nix::time::{ClockId, clock_gettime};
use vip_common::abi::bench::Feed;
use vip_common::abi::{AllowKey, Counter, RankRow, flag};
use vip_common::testing::{
    CLIENT, CLIENT_MAC, PORT, Segment, VIP, VIP6, World, backend, node_address, node_mac,
};
use vip_common::wire::addr::{Be16, Be32, Mac};
use vip_common::wire::tcp;
use vip_node::rank::{self, Identity};
use vip_userspace::datapath::{Datapath, DesiredState, TC_INGRESS};

use crate::plot::Chart;
use crate::report::{Better, Column, Figure, Goal, Label, Report, Row, family, median};

/// A value of a map, for aya.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct FeedValue(Feed);

// SAFETY: `repr(transparent)` over a type that bytemuck knows to be plain old data.
unsafe impl aya::Pod for FeedValue {}

/// Where programs hang.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hook {
    Xdp,
    Tc,
}

impl Hook {
    const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "XDP",
            Self::Tc => "tc",
        }
    }

    /// The program that makes packets anew, and the one that does nothing.
    fn programs(self) -> (&'static str, &'static str) {
        match self {
            Self::Xdp => ("bench_feed", "bench_pass"),
            Self::Tc => ("bench_tc_feed", "bench_tc_pass"),
        }
    }

    /// What a program returns for a packet that goes up the stack, and for one that is sent on:
    /// `XDP_PASS` and `XDP_TX`; `TC_ACT_UNSPEC` and `TC_ACT_REDIRECT`.
    fn actions(self) -> (u32, u32) {
        match self {
            Self::Xdp => (2, 3),
            Self::Tc => (u32::MAX, 7),
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

    /// What is called with each packet: one of the floors, or a product.
    pub(crate) fn aim(&mut self, case: &Case, products: &mut [Product]) -> Result<()> {
        let fd = match (case.target, case.hook) {
            (Target::Product(kind), hook) => {
                let product = find(products, kind)?;
                match hook {
                    Hook::Xdp => product.ingress()?.fd()?.try_clone()?,
                    Hook::Tc => product.classifier(TC_INGRESS)?.fd()?.try_clone()?,
                }
            }
            (Target::Pass, hook) => self.fd(hook, hook.programs().1)?,
            (Target::Send, Hook::Xdp) => self.fd(Hook::Xdp, "bench_tx")?,
            (Target::Send, Hook::Tc) => self.fd(Hook::Tc, "bench_tc_redirect")?,
        };
        let map = match case.hook {
            Hook::Xdp => "BENCH_TARGET",
            Hook::Tc => "BENCH_TC_TARGET",
        };
        let map = self.0.map_mut(map).context("no map of programs")?;
        ProgramArray::try_from(map)?.set(0, &fd, 0)?;
        Ok(())
    }

    pub(crate) fn feed(&mut self, case: &Case) -> Result<()> {
        let map = self.0.map_mut("BENCH_FEED").context("no BENCH_FEED")?;
        let feed = Feed {
            next: 0,
            flows: case.flows,
            destination: node_mac(0),
            source: CLIENT_MAC,
            ipv6: u32::from(case.ipv6),
            port: case.port,
            reserved: 0,
        };
        Array::try_from(map)?.set(0, FeedValue(feed), 0)?;
        Ok(())
    }

    /// Thread CPU time a packet, in nanoseconds, and the last action.
    fn run(&mut self, hook: Hook, name: &str, frame: &[u8], packets: u32) -> Result<(f64, u32)> {
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

pub(super) fn thread_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(Duration::new(time.tv_sec() as u64, time.tv_nsec() as u32))
}

/// What is configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A port of each VIP. This node is never first: its own flows are another path (a look
    /// into the socket table).
    Steer,
    /// The same with an allow list of [`NETWORKS`].
    Allow,
    /// This node is always first, and listens.
    Keep,
    /// The same, and the port of the VIPs is another than the node's.
    Map,
}

/// Networks of the allow list.
const NETWORKS: u32 = 1000;

/// The programs with their maps, as configured.
pub(crate) type Product = (Kind, Datapath);

fn find(products: &mut [Product], kind: Kind) -> Result<&mut Datapath> {
    let mut products = products.iter_mut();
    let found = products.find(|(found, _)| *found == kind);
    Ok(&mut found.context("not loaded")?.1)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Pass,
    /// Parse, swap addresses, send back.
    Send,
    Product(Kind),
}

/// One line of the table.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    hook: Hook,
    pub(crate) target: Target,
    pub(crate) frame: Vec<u8>,
    pub(crate) ipv6: bool,
    port: Be16,
    flows: u32,
    action: u32,
    /// What the product must have counted for each packet.
    counter: Option<Counter>,
    /// The most it may cost, in floors.
    goal: Option<f64>,
}

impl Case {
    /// Whether another one is of the same hook, family and number of flows.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (self.hook, self.ipv6, self.flows) == (other.hook, other.ipv6, other.flows)
    }
}

pub(crate) const MANY: u32 = 1_000_000;

/// Port of the VIPs in [`Kind::Map`].
const FRONT: u16 = 443;

/// A segment's frame, by one of the families. A full-sized one would cost no more: only headers
/// are touched.
fn frame(segment: Segment, ipv6: bool) -> Vec<u8> {
    let mut frame = if ipv6 { segment.ipv6() } else { segment }.build();
    frame.resize(78, 0);
    frame
}

/// An established flow's packet that a program sends on.
pub(crate) fn steered(name: &'static str, target: Target, ipv6: bool) -> Case {
    Case {
        name,
        hook: Hook::Xdp,
        target,
        frame: frame(Segment::new(0, 1024, tcp::ACK), ipv6),
        ipv6,
        port: Be16::new(PORT),
        flows: MANY,
        action: Hook::Xdp.actions().1,
        counter: None,
        goal: None,
    }
}

fn cases() -> Vec<Case> {
    let kinds = [
        (Hook::Xdp, false, 1),
        (Hook::Xdp, false, MANY),
        (Hook::Xdp, true, 1),
        (Hook::Xdp, true, MANY),
        (Hook::Tc, false, MANY),
        (Hook::Tc, true, MANY),
    ];
    let cases = kinds
        .into_iter()
        .flat_map(|(hook, ipv6, flows)| cases_of(hook, ipv6, flows));
    cases.collect()
}

/// At a hook, by a family, of so many flows.
fn cases_of(hook: Hook, ipv6: bool, flows: u32) -> Vec<Case> {
    let mut cases = Vec::new();
    let to_vip = |flags, port| {
        let segment = Segment::new(0, 1024, flags);
        frame(Segment { port, ..segment }, ipv6)
    };
    let to_client = Segment {
        destination: CLIENT.into(),
        ..Segment::new(0, 1024, tcp::ACK)
    };
    let (pass, send) = hook.actions();
    let mut case = |name, target, frame: Vec<u8>, action, counter, goal| {
        cases.push(Case {
            name,
            hook,
            target,
            frame,
            ipv6,
            port: Be16::new(if target == Target::Product(Kind::Map) {
                FRONT
            } else {
                PORT
            }),
            flows,
            action,
            counter,
            goal,
        });
    };
    let (syn, ack) = (to_vip(tcp::SYN, PORT), to_vip(tcp::ACK, PORT));
    let product = Target::Product;
    let segment = Some(Counter::ForwardedSegment);
    let opening = Some(Counter::ForwardedSyn);
    let kept = Some(Counter::LocalSyn);
    let (other_goal, goal) = match (hook, ipv6) {
        (Hook::Xdp, false) => (Some(1.15), Some(1.5)),
        (Hook::Xdp, true) => (None, Some(2.0)),
        (Hook::Tc, _) => (None, None),
    };
    case("floor: pass", Target::Pass, ack.clone(), pass, None, None);
    case(
        "floor: parse, swap, send",
        Target::Send,
        ack.clone(),
        send,
        None,
        None,
    );
    case(
        "not for a VIP",
        product(Kind::Steer),
        frame(to_client, ipv6),
        pass,
        None,
        other_goal,
    );
    case(
        "established, to another node",
        product(Kind::Steer),
        ack.clone(),
        send,
        segment,
        goal,
    );
    case(
        "SYN, to another node",
        product(Kind::Steer),
        syn.clone(),
        send,
        opening,
        goal,
    );
    if hook == Hook::Xdp {
        case(
            "the same, 1,000 networks allowed",
            product(Kind::Allow),
            syn.clone(),
            send,
            opening,
            None,
        );
        case("SYN, kept", product(Kind::Keep), syn, pass, kept, None);
        case(
            "SYN, kept, port mapped",
            product(Kind::Map),
            to_vip(tcp::SYN, FRONT),
            pass,
            kept,
            None,
        );
    }
    cases
}

pub(super) fn run(json: Option<PathBuf>, rounds: usize, packets: u32) -> Result<()> {
    let report = measure(rounds, packets)?;
    report.print();
    report.write_json(json)
}

pub(super) fn measure(rounds: usize, packets: u32) -> Result<Report> {
    ensure!(
        rounds > 0 && packets > 0,
        "--rounds and --packets must be at least 1"
    );
    // The socket that a node asked for one of its own flows would find.
    ip(&["link", "set", "lo", "up"])?;
    for vip in [VIP.into(), VIP6] {
        let address = std::net::IpAddr::from(vip).to_string();
        ip(&["address", "add", &address, "dev", "lo"])?;
    }
    let _listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
    let mut products = Vec::new();
    for kind in [Kind::Steer, Kind::Allow, Kind::Keep, Kind::Map] {
        products.push((kind, product(kind)?));
    }
    let mut floors = Floors::load()?;
    let cases = cases();
    // Per case: the net times of the rounds.
    let mut times = vec![Vec::new(); cases.len()];
    for round in 0..=rounds {
        // The cost of making the packet anew. The case that measures it comes first among its like.
        let mut feed = 0.0;
        for (case, times) in cases.iter().zip(&mut times) {
            let (feeder, nothing) = case.hook.programs();
            floors.aim(case, &mut products)?;
            floors.feed(case)?;
            let counted = |products: &mut [Product]| match (case.target, case.counter) {
                (Target::Product(kind), Some(counter)) => {
                    Ok(find(products, kind)?.counter(counter)?)
                }
                _ => anyhow::Ok(0),
            };
            let before = counted(&mut products)?;
            let (time, action) = floors.run(case.hook, feeder, &case.frame, packets)?;
            ensure!(action == case.action, "{}: action {action}", case.name);
            let seen = counted(&mut products)? - before;
            ensure!(
                case.counter.is_none() || seen == u64::from(packets),
                "{}: {seen} counted",
                case.name
            );
            if case.target == Target::Pass {
                let (direct, _) = floors.run(case.hook, nothing, &case.frame, packets)?;
                feed = time - direct;
            }
            // The first round warms caches and the clock of the CPU.
            if round > 0 {
                times.push(time - feed);
            }
        }
    }
    report(&cases, &times, rounds, packets)
}

/// The product's programs with the tables of three nodes.
pub(crate) fn product(kind: Kind) -> Result<Datapath> {
    let mut world = World::new(3, 0);
    if kind == Kind::Map {
        world = world.mapping(FRONT, PORT);
    }
    if kind == Kind::Allow {
        world = world.refusing(flag::ALLOW_LIST);
    }
    let identities: Vec<_> = (0..3)
        .map(|node| Identity {
            address: Ipv4Addr::from(node_address(node)).into(),
            weight: 1,
        })
        .collect();
    let mut rows = rank::table(world.state.config.hash_key, &identities)?;
    let keeps = matches!(kind, Kind::Keep | Kind::Map);
    for row in &mut rows {
        let mut order: Vec<_> = row.order(identities.len()).collect();
        let own = order.iter().position(|node| *node == backend(0));
        match own {
            Some(0) if !keeps => order.swap(0, 1),
            Some(rank) if keeps => order.swap(0, rank),
            _ => continue,
        }
        *row = RankRow::new(order);
    }
    let mut plan = DesiredState::of(&world.state, rows);
    plan.allowed = if kind == Kind::Allow {
        networks()
    } else {
        vec![]
    };
    let (product, mut state) = Datapath::load(None, &plan)?;
    for node in 0..3 {
        state.set_mac(backend(node), Mac::from_wire(node_mac(node).to_wire()))?;
    }
    state.set_masks(world.state.masks)?;
    Ok(product)
}

/// The networks of the clients, and others up to [`NETWORKS`].
fn networks() -> Vec<vip_userspace::datapath::Allowed> {
    let network = |address: std::net::IpAddr, bits: u32| {
        let key = AllowKey::new(0, address.into());
        (AllowKey::SERVICE_BITS + bits, bytemuck::cast(key))
    };
    let clients = Ipv4Addr::from(Be32::new(0x0a01_0000));
    let clients6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x0a01, 0);
    let mut networks = vec![
        network(clients.into(), 96 + 16),
        network(clients6.into(), 112),
    ];
    networks.extend((2..NETWORKS).map(|number| {
        let other = Ipv4Addr::from(Be32::new(0xac10_0000 + (number << 8)));
        network(other.into(), 96 + 24)
    }));
    networks
}

const LABELS: &[Label] = &[
    Label::new("program", 34),
    Label::new("hook", 4),
    Label::new("IP", 4),
    Label::new("flows", 8),
];

const TIME: Column = Column {
    name: "",
    unit: "ns",
    better: Better::Lower,
    ratio: Some("ratio"),
    decimals: 1,
};

fn report(cases: &[Case], times: &[Vec<f64>], rounds: usize, packets: u32) -> Result<Report> {
    let title = format!(
        "thread CPU time a packet, median of {rounds} rounds of {packets} packets; making the \
         packet anew is taken off"
    );
    let mut report = Report::new(title, LABELS, vec![TIME]);
    for (case, own) in cases.iter().zip(times) {
        let floor = cases
            .iter()
            .position(|floor| floor.target == Target::Send && floor.is_like(case))
            .context("no floor")?;
        let ratios = own.iter().zip(&times[floor]);
        let ratios: Vec<f64> = ratios.map(|(own, floor)| own / floor).collect();
        let ratio = median(&ratios);
        let goal = case.goal.map(|goal| Goal::ratio(goal, ratio, TIME.better));
        report.add(Row {
            labels: vec![
                case.name.to_owned(),
                case.hook.name().to_owned(),
                family(case.ipv6),
                case.flows.to_string(),
            ],
            figures: vec![Figure::median(own).ratio(ratio)],
            goals: goal.into_iter().collect(),
        });
    }
    Ok(report)
}

/// The cost of a packet of many flows in the driver.
pub(super) fn chart(report: &Report) -> Chart {
    let many = MANY.to_string();
    let title = "CPU time a packet, 1,000,000 flows, XDP";
    report.chart(title, 0, |labels| match labels {
        [name, hook, family, flows] if hook == Hook::Xdp.name() && *flows == many => {
            Some(format!("{name}, {family}"))
        }
        _ => None,
    })
}

pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip")
        .args(arguments)
        .status()
        .context("run ip (iproute2)")?;
    ensure!(status.success(), "ip {arguments:?}: {status}");
    Ok(())
}
