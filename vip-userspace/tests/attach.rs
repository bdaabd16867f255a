//! Programs on a NIC: attached, adopted by the next agent, refused where somebody else's are,
//! and taken away again without a trace. On real veth pairs, each test in its own namespaces.

use std::any::Any;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use nix::mount::{MsFlags, mount};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use socket2::{Domain, Protocol, Socket, Type};
use vip_common::abi::{AllowNode, Counter, LONGEST_LEASE, Masks};
use vip_common::testing::{
    PORT, Seen as State, Segment, VIP, World, backend, node_address, node_address6, node_mac,
};
use vip_common::wire::{bfd, tcp};
use vip_node::allow::Prefix;
use vip_userspace::clock;
use vip_userspace::config::XdpMode;
use vip_userspace::datapath::{
    self, Attachment, BfdPort, Claim, Datapath, DatapathError, DesiredState, Egress, Leftover,
    Loader, Look, Mode, Pins, Seen, Taken, Way, leftovers, pin_directory, refuse_taken, remove,
    socket_lookup_programs,
};
use vip_userspace::kernel::bpf::{self, Kind};
use vip_userspace::net::Neighbours;
use vip_userspace::net::bfd::{BfdSocket, is_port_taken};
use vip_userspace::net::netlink::Netlink;
use vip_userspace::run_dir::RunDir;

/// Where a test works.
struct Place {
    directory: tempfile::TempDir,
    index: u32,
}

impl Place {
    fn bpffs(&self) -> PathBuf {
        self.directory.path().join("bpf")
    }

    fn run_dir(&self) -> RunDir {
        self.directory.path().into()
    }

    fn pins(&self) -> Pins {
        Pins::open(&self.bpffs(), &self.run_dir()).expect("a bpffs can be mounted")
    }

    fn leftovers(&self) -> Vec<Leftover> {
        leftovers(&self.bpffs(), &self.run_dir())
    }

    fn clean_up(&self) {
        for leftover in self.leftovers() {
            remove(&leftover).expect("it can be removed");
        }
        assert_eq!(self.leftovers(), []);
        let names: Vec<_> = fs::read_dir(self.directory.path())
            .expect("there")
            .collect();
        assert_eq!(names.len(), 1, "only the mount point is left: {names:?}");
    }
}

/// Runs `test` with a veth pair, in network and mount namespaces of its own.
fn in_namespace(test: fn(&Place)) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "run as root (`cargo xtask test`)"
    );
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root may unshare");
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .expect("mounts become this thread's own");
        run(
            "ip",
            &[
                "link", "add", "eth0", "type", "veth", "peer", "name", "peer0",
            ],
        );
        run("ip", &["link", "set", "eth0", "up"]);
        run("ip", &["link", "set", "peer0", "up"]);
        let index = if_nametoindex("eth0").expect("just made");
        test(&Place {
            directory: tempfile::tempdir().expect("a directory"),
            index,
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// What a command prints.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What this kernel has on the way out, the best first: tcx came with Linux 6.6.
fn egresses() -> &'static [Egress] {
    let uname = nix::sys::utsname::uname().expect("the kernel says its version");
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let mut number = || numbers.next().and_then(Result::ok).expect("a number");
    if (number(), number()) < (6, 6) {
        &[Egress::Clsact]
    } else {
        &[Egress::Tcx, Egress::Clsact]
    }
}

fn desired(nodes: usize) -> DesiredState {
    let world = World::new(nodes, 0);
    DesiredState::of(&world.state, world.rows)
}

fn xdp() -> String {
    run("ip", &["-details", "link", "show", "dev", "eth0"])
}

#[test]
fn programs_outlive_their_agent_and_the_next_one_adopts_them() {
    in_namespace(|place| {
        let (mut first, mut state) =
            Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
        assert!(!first.adopted());
        let attached = first
            .attach("eth0", place.index, XdpMode::Auto, None)
            .expect("attaches");
        assert_eq!(
            (attached.mode, attached.egress),
            (Mode::Native, egresses()[0])
        );
        state.set_mac(backend(1), node_mac(1)).expect("writes");
        let masks = Masks {
            new_connections: Default::default(),
            ..state.get().masks
        };
        state.set_masks(masks).expect("writes");
        drop(first);
        let before = xdp();
        assert!(before.contains("prog/xdp"), "the program stays: {before}");

        let (mut second, state) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
        assert!(second.adopted());
        assert_eq!(
            second
                .attach("eth0", place.index, XdpMode::Auto, None)
                .expect("replaces"),
            attached
        );
        assert_eq!(state.mac(backend(1)), node_mac(1), "what it knew");
        assert_eq!(state.get().masks, masks, "what it knew");
        assert_eq!(xdp_id(&xdp()), xdp_id(&before), "it is the same program");
        drop(second);

        // A member that comes changes nothing for those that are there.
        let (third, state) = Datapath::load(Some(place.pins()), &desired(5)).expect("loads");
        assert!(third.adopted());
        assert_ne!(
            third.halves().rank_base,
            0,
            "new ranks lie beside the old ones"
        );
        assert_eq!(state.mac(backend(1)), node_mac(1), "what it knew");
        drop(third);
        let slots = datapath::members(&place.pins());
        assert!(slots.iter().map(|(slot, _)| slot.get()).eq(0..5));

        // Another node in a slot: nothing of the old ranks may be used with its address.
        let mut other = desired(5);
        let node = other.backends[backend(4)];
        other.backends.remove(backend(4));
        other.backends.insert(backend(1), node);
        let (mut fourth, state) = Datapath::load(Some(place.pins()), &other).expect("loads");
        assert!(!fourth.adopted());
        fourth
            .attach("eth0", place.index, XdpMode::Auto, None)
            .expect("replaces");
        assert!(state.mac(backend(1)).is_unknown());
        drop(fourth);
        place.clean_up();
        assert!(!xdp().contains("prog/xdp"), "{}", xdp());
    });
}

/// The desired state of three nodes whose API only these networks may use.
fn desired_with(networks: &[Prefix]) -> DesiredState {
    let mut desired = desired(3);
    let root = desired.allowed.add(networks);
    desired.vips[0].services[0].allowed = root;
    desired
}

#[test]
fn a_changed_allow_list_takes_the_place_of_the_old_one_in_the_other_half() {
    in_namespace(|place| {
        let networks: Vec<_> = (0..1000).map(|host| Prefix::new(host << 7, 127)).collect();
        let lists = [
            (0..1000, 1),
            (0..1000, 1),
            (500..700, 0),
            (0..2, 1),
            (1..999, 0),
        ];
        for (list, half) in lists {
            let desired = desired_with(&networks[list.clone()]);
            let (mut datapath, state) =
                Datapath::load(Some(place.pins()), &desired).expect("loads");
            let root = desired.vips[0].services[0].allowed;
            let found = state.get().vips[0].services[0].allowed;
            assert_eq!(found, root.in_half(half), "{list:?}");
            let open = state.get().vips[1].services[0].allowed;
            assert_eq!(open, AllowNode::EVERYTHING);
            let mut repair = |desired| datapath.repair(desired).expect("it can be written");
            assert!(!repair(&desired), "{list:?}: as they should be");
            let others = desired_with(&networks[400..600]);
            assert!(repair(&others), "written by another one");
            assert!(repair(&desired));
            assert!(!repair(&desired));
        }
        place.clean_up();
    });
}

/// The kernel's number of the program, as `ip` shows it.
fn xdp_id(link: &str) -> Option<String> {
    let (_, id) = link.split_once("prog/xdp id ")?;
    Some(id.split_whitespace().next()?.to_owned())
}

#[test]
fn agents_of_the_same_build_keep_programs_that_do_not_log() {
    in_namespace(|place| {
        let pins = pin_directory(&place.bpffs(), place.directory.path());
        let start = |log_level| {
            let desired = DesiredState {
                log_level,
                ..desired(3)
            };
            let (mut datapath, _) = Datapath::load(Some(place.pins()), &desired).expect("loads");
            let attached = datapath.attach("eth0", place.index, XdpMode::Auto, None);
            let attached = attached.expect("attaches");
            for way in [Way::In, Way::Out] {
                assert!(look(&mut datapath, way, attached).attached, "{way:?}");
            }
            xdp_id(&xdp()).expect("a program")
        };
        let kept = || -> Vec<PathBuf> {
            let all = fs::read_dir(&pins).expect("there");
            let all = all.map(|entry| entry.expect("a pin").path());
            let is_program = |path: &PathBuf| path.to_string_lossy().contains("/program-");
            let mut kept: Vec<_> = all.filter(is_program).collect();
            kept.sort();
            kept
        };
        let first = start(0);
        assert_eq!(start(0), first);
        // The one for tc was not needed.
        let names = kept();
        let [egress, ingress] = &names[..] else {
            panic!("{names:?}");
        };

        fs::rename(ingress, pins.join("program-of-another-build")).expect("bpffs can rename");
        let second = start(0);
        assert_ne!(second, first);
        assert_eq!(kept(), names, "the other build's is gone");

        fs::remove_file(ingress).expect("a pin");
        fs::rename(egress, ingress).expect("bpffs can rename");
        let third = start(0);
        assert_ne!(third, second, "a program of another kind was there");

        fs::remove_file(ingress).expect("a pin");
        let (mut other, _) = Datapath::load(None, &desired(3)).expect("loads");
        let others = other.ingress().expect("a program");
        others.pin(ingress).expect("pins");
        let others = others.info().expect("it is loaded").id().to_string();
        let fourth = start(0);
        assert_ne!(fourth, others, "it reads the maps of another agent");
        assert_eq!(start(0), fourth);
        let third = fourth;

        let logs = start(aya_log::Level::Debug as u8);
        assert_ne!(logs, third, "its log is read by its agent only");
        assert_eq!(start(0), third);
        place.clean_up();
    });
}

/// Runs something on a runtime of its own.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

/// What rtnetlink shows of programs on eth0.
fn seen() -> Seen {
    let index = if_nametoindex("eth0").expect("it is there");
    block_on(async {
        let netlink = Netlink::connect().expect("a socket");
        let [ingress, egress] = netlink.filters(index).await.expect("the kernel tells");
        let link = netlink.link(index).await.expect("the kernel tells");
        Seen {
            xdp: link.and_then(|link| link.xdp),
            ingress,
            egress,
        }
    })
}

/// What is found at a hook of eth0.
fn look(datapath: &mut Datapath, way: Way, attachment: Attachment) -> Look {
    datapath
        .look(way, "eth0", attachment, &seen())
        .expect("the kernel tells")
}

/// Whether the egress program counts the agent's test frame.
fn guard_runs(datapath: &Datapath) -> bool {
    guard_runs_on(datapath, [10, 9, 0, 10].into(), [10, 9, 0, 1].into())
}

/// The same with these addresses of the VIP and of eth0.
fn guard_runs_on(datapath: &Datapath, vip: IpAddr, node: IpAddr) -> bool {
    let counted = || datapath.counter(Counter::GuardTested).expect("can be read");
    let before = counted();
    block_on(async {
        let netlink = Netlink::connect().expect("a socket");
        let nic = netlink.find_nic(vip, &[node], None).await.expect("eth0");
        let neighbours = Neighbours::open(&nic, &[node]).expect("a socket");
        neighbours.test_egress().expect("eth0 is up");
    });
    counted() > before
}

#[test]
fn generic_mode_takes_the_place_of_native() {
    in_namespace(|place| {
        let (mut datapath, _) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
        datapath
            .attach("eth0", place.index, XdpMode::Native, None)
            .expect("attaches");
        let fallen = datapath
            .fall_back_to_generic("eth0", place.index)
            .expect("attaches");
        assert_eq!(fallen.mode, Mode::Generic);
        assert!(xdp().contains("xdpgeneric"), "{}", xdp());
        // A program that was not needed until then.
        let tc = datapath.attach("eth0", place.index, XdpMode::Tc, None);
        assert_eq!(tc.expect("loads and attaches").mode, Mode::Tc);
        let generic = datapath.fall_back_to_generic("eth0", place.index);
        assert_eq!(generic.expect("attaches"), fallen);
        drop(datapath);
        place.clean_up();
        assert!(!xdp().contains("xdpgeneric"), "{}", xdp());
    });
}

#[test]
fn a_kernel_without_tcx_gets_one_clsact_filter() {
    in_namespace(|place| {
        let filters = || run("tc", &["filter", "show", "dev", "eth0", "egress"]);
        for _restart in 0..2 {
            let (mut datapath, _) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
            let attached = datapath
                .attach("eth0", place.index, XdpMode::Auto, Some(Egress::Clsact))
                .expect("attaches");
            assert_eq!(attached.egress, Egress::Clsact);
            assert!(look(&mut datapath, Way::Out, attached).attached);
            run("tc", &["filter", "delete", "dev", "eth0", "egress"]);
            let gone = look(&mut datapath, Way::Out, attached);
            assert!(!gone.attached, "it was removed");
            datapath
                .attach("eth0", place.index, XdpMode::Auto, Some(Egress::Clsact))
                .expect("attaches again");
            drop(datapath);
            assert_eq!(
                filters().matches(" name vip_egress").count(),
                1,
                "{}",
                filters()
            );
        }
        place.clean_up();
        assert_eq!(
            filters().matches(" name vip_egress").count(),
            0,
            "{}",
            filters()
        );
    });
}

#[test]
fn tc_takes_the_place_of_xdp_and_back() {
    in_namespace(|place| {
        for &egress in egresses() {
            for mode in [XdpMode::Native, XdpMode::Tc, XdpMode::Tc, XdpMode::Auto] {
                let (mut datapath, _) =
                    Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
                let attached = datapath
                    .attach("eth0", place.index, mode, Some(egress))
                    .expect("attaches");
                let tc = mode == XdpMode::Tc;
                assert_eq!(attached.mode == Mode::Tc, tc, "{mode:?}");
                assert_eq!(xdp().contains("prog/xdp"), !tc, "{mode:?}: {}", xdp());
                let filters = run("tc", &["filter", "show", "dev", "eth0", "ingress"]);
                let filters = filters.matches(" name vip_tc_ingress").count();
                let wanted = usize::from(tc && egress == Egress::Clsact);
                assert_eq!(filters, wanted, "{mode:?}, {egress}");
                if egresses().contains(&Egress::Tcx) {
                    let (_, programs) = SchedClassifier::query_tcx("eth0", TcAttachType::Ingress)
                        .expect("the kernel tells");
                    let wanted = usize::from(tc && egress == Egress::Tcx);
                    assert_eq!(programs.len(), wanted, "{mode:?}, {egress}");
                }
            }
            place.clean_up();
        }
    });
}

#[test]
fn local_sockets_are_redirected_until_cleanup() {
    in_namespace(|place| {
        // A control group of this test's own, where nobody is.
        let root = place.directory.path().join("cgroup");
        fs::create_dir(&root).expect("a directory");
        mount(
            None::<&str>,
            &root,
            Some("cgroup2"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("cgroup2 can be mounted");
        let group = root.join(format!("vip-attach-{}", std::process::id()));
        fs::create_dir(&group).expect("root may");
        let attached = || {
            let pins = pin_directory(&place.bpffs(), place.directory.path());
            pins.join("vip_connect4").exists()
        };
        for _restart in 0..2 {
            let (mut datapath, _) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
            datapath.redirect(Some(&group)).expect("attaches");
            assert!(attached());
        }
        let (mut datapath, _) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
        datapath.redirect(None).expect("removes");
        assert!(!attached(), "it is off in the configuration now");
        datapath.redirect(Some(&group)).expect("attaches");
        drop(datapath);
        fs::remove_dir(&group).expect("nobody is in it");
        nix::mount::umount(&root).expect("it was mounted");
        fs::remove_dir(&root).expect("it is empty");
        place.clean_up();
    });
}

#[test]
fn somebody_elses_program_is_left_alone() {
    in_namespace(|place| {
        // Another product's agent, as far as the kernel can tell: links that are not pinned here.
        let (mut other, _) = Datapath::load(None, &desired(3)).expect("loads");
        other
            .attach("eth0", place.index, XdpMode::Native, None)
            .expect("attaches");
        let before = xdp();
        let (mut ours, _) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
        let error = ours
            .attach("eth0", place.index, XdpMode::Native, None)
            .expect_err("is busy");
        assert!(matches!(error, DatapathError::Busy { .. }), "{error}");
        assert!(error.to_string().contains("eth0"), "{error}");
        // Where the configuration leaves the choice, there is another way in.
        let attached = ours
            .attach("eth0", place.index, XdpMode::Auto, None)
            .expect("attaches beside it");
        assert_eq!(attached.mode, Mode::Tc);
        let found = look(&mut ours, Way::In, attached);
        assert!(found.attached);
        let ahead: Vec<String> = found.ahead.iter().map(ToString::to_string).collect();
        assert!(
            // Linux before 5.18 runs the variant for frames in one buffer, `vip_ingress_sb`.
            ahead[0].starts_with("XDP program vip_ingress"),
            "{ahead:?}"
        );
        assert_eq!(xdp(), before);
        drop(ours);
        place.clean_up();
    });
}

#[test]
fn a_link_of_a_nic_that_is_gone_is_not_adopted() {
    in_namespace(|place| {
        let (mut datapath, _) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
        datapath
            .attach("eth0", place.index, XdpMode::Auto, None)
            .expect("attaches");
        drop(datapath);
        // The new NIC gets the old one's index, which names the pins.
        run("ip", &["link", "delete", "eth0"]);
        let index = place.index.to_string();
        run(
            "ip",
            &[
                "link", "add", "eth0", "index", &index, "type", "veth", "peer", "name", "peer0",
            ],
        );
        run("ip", &["link", "set", "eth0", "up"]);
        let (mut datapath, _) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
        datapath
            .attach("eth0", place.index, XdpMode::Auto, None)
            .expect("attaches anew");
        assert!(xdp().contains("prog/xdp"), "{}", xdp());
        drop(datapath);
        place.clean_up();
    });
}

/// A socket that sends to BFD's port, and waits for what comes.
fn datagrams(address: IpAddr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((address, port)).expect("the port is free");
    if address.is_ipv4() {
        socket.set_ttl(u32::from(bfd::TTL)).expect("it can be set");
    } else {
        socket2::SockRef::from(&socket)
            .set_unicast_hops_v6(u32::from(bfd::TTL))
            .expect("it can be set");
    }
    let time = Some(Duration::from_millis(300));
    socket.set_read_timeout(time).expect("it can be set");
    socket
}

#[test]
fn bfd_port_is_shared_with_a_program_that_is_bound_to_it() {
    in_namespace(|place| {
        run("ip", &["link", "set", "lo", "up"]);
        for address in ["fd00::1/128", "fd00::2/128", "fd00::3/128"] {
            run("ip", &["address", "add", address, "dev", "lo", "nodad"]);
        }
        for (own, peer, stranger, any) in [
            ("127.0.0.1", "127.0.0.2", "127.0.0.3", "0.0.0.0"),
            ("fd00::1", "fd00::2", "fd00::3", "::"),
        ] {
            let address = |text: &str| text.parse::<IpAddr>().expect("an address");
            let (own, peer, any) = (address(own), address(peer), address(any));
            let stranger = address(stranger);
            let agent = || {
                let socket = BfdSocket::open_shared("lo", own, &[peer]).expect("opens");
                let mut port =
                    BfdPort::load(&mut Loader::default(), own, &[peer], &socket).expect("loads");
                port.attach(&place.pins()).expect("attaches");
                assert!(port.is_attached().expect("the kernel tells"));
                // It once took the verifier nine seconds to give up at a million.
                let info = port.info().expect("the kernel tells");
                let verified = info.verified_instruction_count().unwrap_or(0);
                assert!(verified < 20_000, "{verified} instructions verified");
                (socket, port)
            };
            let [ours, theirs] = [bfd::AGENT_PORT, 50_000].map(|port| datagrams(peer, port));
            let gets = |socket: &BfdSocket| {
                let mut buffer = [0; 64];
                let received = socket.receive(&mut buffer).expect("it can be asked");
                received.map(|received| received.payload.to_vec())
            };
            let send = |from: &UdpSocket, text: &str| {
                let to = SocketAddr::new(own, bfd::PORT);
                from.send_to(text.as_bytes(), to).expect("it can be sent");
            };

            // Alone on the port, the agent gets all that its peers send.
            let (socket, mut port) = agent();
            assert!(!is_port_taken(own).expect("there is a table"));
            port.set_shared(false).expect("it can be said");
            for from in [&ours, &theirs] {
                send(from, "alone");
                assert_eq!(gets(&socket).as_deref(), Some(&b"alone"[..]));
            }

            // A stranger's are dropped, but not as where nobody listens.
            let stranger = datagrams(stranger, bfd::AGENT_PORT);
            let to = SocketAddr::new(own, bfd::PORT);
            stranger.connect(to).expect("there is a route");
            stranger.send(b"stranger").expect("it can be sent");
            let refused = stranger.recv(&mut [0; 64]).expect_err("nobody answers");
            assert_eq!(refused.kind(), ErrorKind::WouldBlock);
            assert_eq!(gets(&socket), None);

            // Another program comes, as FRR does, and gets what is not of an agent.
            let other = datagrams(any, bfd::PORT);
            assert!(is_port_taken(own).expect("there is a table"));
            port.set_shared(true).expect("it can be said");
            let mut buffer = [0; 64];
            let mut others = || {
                let length = other.recv(&mut buffer).ok()?;
                Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
            };
            send(&theirs, "from FRR");
            assert_eq!(others().as_deref(), Some("from FRR"));
            send(&ours, "from an agent");
            assert_eq!(gets(&socket).as_deref(), Some(&b"from an agent"[..]));
            assert_eq!(gets(&socket), None);

            // The agent ends: what is for it goes to nobody.
            drop((socket, port));
            for (from, text, wanted) in [
                (&theirs, "from FRR", Some("from FRR")),
                (&ours, "from an agent", None),
            ] {
                send(from, text);
                assert_eq!(others().as_deref(), wanted);
            }

            // The next one takes over, and is the only one.
            let (socket, _port) = agent();
            send(&ours, "from an agent");
            assert_eq!(gets(&socket).as_deref(), Some(&b"from an agent"[..]));
            assert_eq!(others(), None);
            assert_eq!(socket_lookup_programs().expect("the kernel tells").len(), 1);
            place.clean_up();
            let left = socket_lookup_programs().expect("the kernel tells");
            assert!(left.is_empty(), "{left:?}");
            send(&ours, "from an agent");
            assert_eq!(others().as_deref(), Some("from an agent"));
        }
    });
}
#[test]
fn ours_run_before_what_was_there_and_are_put_before_what_comes_later() {
    in_namespace(|place| {
        run("ip", &["address", "add", "10.9.0.1/24", "dev", "eth0"]);
        for &egress in egresses() {
            // Somebody else's program. That of tcx lets nothing run behind it.
            let foreign = || -> Box<dyn Any> {
                match egress {
                    Egress::Tcx => Box::new(somebody_elses()),
                    // Filters of another agent, as far as the kernel can tell.
                    Egress::Clsact => {
                        let (mut other, _) = Datapath::load(None, &desired(3)).expect("loads");
                        other
                            .attach("eth0", place.index, XdpMode::Tc, Some(egress))
                            .expect("attaches");
                        Box::new(other)
                    }
                }
            };
            let _first = foreign();
            let (mut datapath, _) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
            let attached = datapath
                .attach("eth0", place.index, XdpMode::Auto, Some(egress))
                .expect("attaches");
            assert_eq!(
                look(&mut datapath, Way::Out, attached).ahead,
                [],
                "{egress}"
            );
            assert!(guard_runs(&datapath), "{egress}");
            if egress == Egress::Tcx {
                let _second = foreign();
                let found = look(&mut datapath, Way::Out, attached);
                assert!(found.attached);
                assert_eq!(found.ahead.len(), 1);
                assert!(!guard_runs(&datapath), "nothing runs behind the other");
                datapath
                    .put_first(Way::Out, "eth0", place.index, egress)
                    .expect("attaches anew");
                assert_eq!(look(&mut datapath, Way::Out, attached).ahead, []);
                assert!(guard_runs(&datapath));
                // The next agent does so too, where this one's programs stand behind others.
                let _third = foreign();
                drop(datapath);
                let (mut next, _) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
                next.attach("eth0", place.index, XdpMode::Auto, Some(egress))
                    .expect("attaches");
                assert_eq!(look(&mut next, Way::Out, attached).ahead, []);
                assert!(guard_runs(&next));
            }
            place.clean_up();
        }
    });
}

/// A tcx program of somebody else on the way out of eth0, before all others. None runs behind it
/// (`TC_ACT_OK`).
fn somebody_elses() -> OwnedFd {
    let program = bpf::load(Kind::Classifier, "foreign", &bpf::returning(0)).expect("loads");
    let index = if_nametoindex("eth0").expect("it is there");
    bpf::link(program.as_fd(), index, bpf::TCX_EGRESS, bpf::FIRST).expect("attaches")
}

#[test]
fn two_agents_share_nothing_and_the_second_is_refused_what_the_first_has() {
    in_namespace(|place| {
        let (one, two) = (
            place.directory.path().join("one"),
            place.directory.path().join("two"),
        );
        let open = |run: &Path| {
            fs::create_dir_all(run).expect("writable");
            Pins::open(&place.bpffs(), &run.into()).expect("a bpffs can be mounted")
        };
        let first = open(&one);
        let held = first.hold().expect("nobody has it");
        assert!(open(&one).hold().is_err(), "it is the first one's");
        let (mut datapath, state) = Datapath::load(Some(first), &desired(3)).expect("loads");
        datapath
            .attach("eth0", place.index, XdpMode::Auto, None)
            .expect("attaches");
        let before = xdp();

        let vips: Vec<IpAddr> = state
            .get()
            .vips()
            .iter()
            .map(|vip| vip.address.into())
            .collect();
        let other = [IpAddr::from([10, 9, 0, 99])];
        let other_nic = if_nametoindex("peer0").expect("it is there");
        let wants = |interface, index, vips| Claim {
            run_directory: &two,
            interface,
            index,
            xdp: None,
            vips,
            netns: 0,
        };
        let refused = |claim: &Claim<'_>| refuse_taken(&place.bpffs(), claim);
        let error = refused(&wants("eth0", place.index, &other)).expect_err("the NIC is taken");
        assert!(matches!(&error, Taken::Alive { run_directory, .. } if *run_directory == one));
        assert!(error.to_string().starts_with("eth0 belongs to"), "{error}");
        let error = refused(&wants("peer0", other_nic, &vips)).expect_err("the VIP is taken");
        assert!(
            error.to_string().starts_with(&format!("VIP {}", vips[0])),
            "{error}"
        );
        assert_eq!(refused(&wants("peer0", other_nic, &other)), Ok(()));
        // It is no other agent to itself.
        let own = Claim {
            run_directory: &one,
            ..wants("eth0", place.index, &vips)
        };
        assert_eq!(refused(&own), Ok(()));

        // A second one on another NIC takes nothing of the first's away, nor does its cleanup.
        run(
            "ip",
            &[
                "link", "add", "eth1", "type", "veth", "peer", "name", "peer1",
            ],
        );
        run("ip", &["link", "set", "eth1", "up"]);
        let index = if_nametoindex("eth1").expect("just made");
        let (mut second, _) = Datapath::load(Some(open(&two)), &desired(5)).expect("loads");
        assert!(!second.adopted());
        second
            .attach("eth1", index, XdpMode::Auto, None)
            .expect("attaches");
        drop(second);
        for leftover in leftovers(&place.bpffs(), &two.as_path().into()) {
            remove(&leftover).expect("it can be removed");
        }
        assert_eq!(xdp(), before);

        // The first one ends: what it left is still its own.
        drop((datapath, held));
        let error = refused(&wants("eth0", place.index, &other)).expect_err("the NIC is taken");
        assert!(matches!(error, Taken::Left { .. }), "{error}");
        assert!(
            error.to_string().contains("vip cleanup --run-dir"),
            "{error}"
        );
        for leftover in leftovers(&place.bpffs(), &one.as_path().into()) {
            remove(&leftover).expect("it can be removed");
        }
        assert_eq!(refused(&wants("eth0", place.index, &vips)), Ok(()));
    });
}

#[test]
fn what_lies_in_the_way_is_named_and_nothing_is_changed() {
    in_namespace(|place| {
        drop(place.pins());
        let pins = pin_directory(&place.bpffs(), place.directory.path());
        let refused = |path: &Path| {
            let error = Pins::open(&place.bpffs(), &place.run_dir()).expect_err("in the way");
            assert!(matches!(error, DatapathError::InTheWay { .. }), "{error}");
            assert!(
                error.to_string().contains(path.to_str().expect("text")),
                "{error}"
            );
        };
        for name in ["VIP_STATE", "egress-2", "whatever"] {
            let path = pins.join(name);
            fs::create_dir(&path).expect("bpffs has directories");
            refused(&path);
            let all = place.leftovers();
            let directory = all
                .iter()
                .find(|leftover| **leftover == Leftover::Pin(path.clone()));
            let error = remove(directory.expect("it is listed")).expect_err("no agent made it");
            assert!(error.to_string().contains(name), "{error}");
            fs::remove_dir(&path).expect("empty");
        }
        // A map where a link should be.
        let (datapath, _) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
        drop(datapath);
        let link = pins.join("egress-2");
        fs::rename(pins.join("VIP_CLAIMANT"), &link).expect("bpffs can rename");
        refused(&link);
        fs::remove_file(&link).expect("a pin");
        place.clean_up();
    });
}
#[test]
fn the_program_on_the_way_out_is_on_other_nics_for_as_long_as_that_is_wanted() {
    in_namespace(|place| {
        let other = if_nametoindex("peer0").expect("just made");
        let attached = |egress| {
            if egress == Egress::Tcx {
                let (_, programs) = SchedClassifier::query_tcx("peer0", TcAttachType::Egress)
                    .expect("the kernel tells");
                return programs.len();
            }
            let filters = run("tc", &["filter", "show", "dev", "peer0", "egress"]);
            filters.matches(" name vip_egress").count()
        };
        for &egress in egresses() {
            for _restart in 0..2 {
                let (mut datapath, _) =
                    Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
                datapath
                    .attach("eth0", place.index, XdpMode::Auto, Some(egress))
                    .expect("attaches");
                datapath
                    .attach_elsewhere("peer0", other, egress)
                    .expect("attaches there too");
                datapath
                    .detach_elsewhere(&[other].into())
                    .expect("keeps it");
                assert_eq!(attached(egress), 1, "{egress}");
                // The next agent attaches to the VIP's NIC before it looks at the others.
                drop(datapath);
                assert_eq!(attached(egress), 1, "{egress}");
            }
            let (datapath, _) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
            datapath.detach_elsewhere(&[].into()).expect("removes it");
            assert_eq!(attached(egress), 0, "{egress}");
            let (mut datapath, _) = Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
            datapath
                .attach_elsewhere("peer0", other, egress)
                .expect("attaches again");
            drop(datapath);
            place.clean_up();
            assert_eq!(attached(egress), 0, "{egress}");
        }
    });
}

/// Gives an interface the addresses of a node of a [`World`], and enables it.
fn become_node(interface: &str, node: usize) {
    let mac = node_mac(node).to_string();
    run("ip", &["link", "set", interface, "address", &mac, "up"]);
    let ipv4 = format!("{}/24", IpAddr::from(node_address(node).to_wire()));
    run("ip", &["address", "add", &ipv4, "dev", interface]);
    let ipv6 = format!("{}/64", IpAddr::from(node_address6(node)));
    run("ip", &["address", "add", &ipv6, "dev", interface, "nodad"]);
}

/// Node 1 of a [`World`], behind peer0, whose server accepts connections and answers nothing. It
/// ends with the sender that this returns.
fn server_on_node_1() -> Sender<()> {
    let ((id, thread), (moved, may_begin), (ready, begun), (end, ended)) =
        (channel(), channel(), channel(), channel::<()>());
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may unshare");
        id.send(gettid().to_string()).expect("it waits");
        may_begin.recv().expect("peer0 comes");
        become_node("peer0", 1);
        let _listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("a free port");
        ready.send(()).expect("it waits");
        ended.recv().expect_err("the test is over");
    });
    let thread = thread.recv().expect("it began");
    run("ip", &["link", "set", "peer0", "netns", &thread]);
    moved.send(()).expect("it waits");
    begun.recv().expect("it listens");
    end
}

/// A packet socket that sends frames of an EtherType by eth0.
fn frames_by_eth0(ether_type: u16) -> Socket {
    let protocol = Protocol::from(i32::from(ether_type.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).expect("root may");
    let mut all = nix::ifaddrs::getifaddrs().expect("the kernel tells");
    let eth0 = all.find_map(|found| {
        let address = found.address.filter(|_| found.interface_name == "eth0")?;
        address.as_link_addr().copied()
    });
    let eth0 = eth0.expect("it is there");
    nix::sys::socket::bind(socket.as_raw_fd(), &eth0).expect("it can be bound");
    socket
}

#[test]
fn connections_to_a_member_that_is_gone_end_when_they_send_or_are_asked_in_its_name() {
    in_namespace(|place| {
        let _server = server_on_node_1();
        become_node("eth0", 0);
        for &egress in egresses() {
            let (mut datapath, mut state) =
                Datapath::load(Some(place.pins()), &desired(3)).expect("loads");
            datapath
                .attach("eth0", place.index, XdpMode::Auto, Some(egress))
                .expect("attaches");
            let mut see = |seen| {
                let masks = World::new(3, 0).seeing(1, seen).state.masks;
                state.set_masks(masks).expect("writes");
                let until = clock::now().after(LONGEST_LEASE);
                state.set_resets_until(until).expect("writes");
            };
            let counted = || datapath.counter(Counter::GoneReset).expect("can be read");
            for by_ipv6 in [false, true] {
                let (ether_type, server) = if by_ipv6 {
                    (0x86dd, IpAddr::from(node_address6(1)))
                } else {
                    (0x0800, IpAddr::from(node_address(1).to_wire()))
                };
                let connect = || {
                    let client = TcpStream::connect((server, PORT)).expect("it listens");
                    let time = Some(Duration::from_secs(3));
                    client.set_read_timeout(time).expect("it can be set");
                    client
                };
                // A request, and as much as one buffer of the kernel holds (GSO).
                for length in [1, 100_000] {
                    see(State::Away);
                    let mut client = connect();
                    client.write_all(b"lives").expect("it can be sent");
                    let before = counted();
                    see(State::Gone);
                    let mut ends = || {
                        client.write_all(&vec![0x17; length])?;
                        client.read(&mut [0; 1])
                    };
                    let error = ends().expect_err("nobody answers");
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{egress}");
                    assert!(counted() > before, "{egress}");
                }

                // One that sends nothing is asked for an acknowledgement of data long gone.
                see(State::Away);
                let mut client = connect();
                let ask = || {
                    let segment = Segment {
                        to: node_mac(0),
                        from: node_mac(0),
                        source: node_address(1).into(),
                        destination: node_address(0).into(),
                        source_port: PORT,
                        port: client.local_addr().expect("it has one").port(),
                        ..Segment::new(0, 0, tcp::ACK)
                    };
                    let segment = if by_ipv6 { segment.ipv6() } else { segment };
                    let frames = frames_by_eth0(ether_type);
                    frames.send(&segment.build()).expect("it can be sent");
                };
                let before = counted();
                ask();
                std::thread::sleep(Duration::from_millis(50));
                assert_eq!(counted(), before, "{egress}: it may have the socket");
                see(State::Gone);
                ask();
                let error = client.read(&mut [0; 1]).expect_err("nobody answers");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{egress}");
                assert_eq!(counted(), before + 1, "{egress}");

                // A probe finds a member that is back. Its SYN leaves; the acknowledgement that
                // follows is answered by a reset, which is as good an answer.
                let time = Duration::from_secs(3);
                if let Err(error) = TcpStream::connect_timeout(&(server, PORT).into(), time) {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{egress}");
                }
            }
            let [vip, own] = [VIP, node_address(0)].map(|address| address.to_wire().into());
            assert!(guard_runs_on(&datapath, vip, own), "{egress}");
            drop(datapath);
            place.clean_up();
        }
    });
}
