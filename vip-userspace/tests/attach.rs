//! Programs on a NIC: attached, adopted by the next agent, refused where somebody else's are,
//! and taken away again without a trace. On real veth pairs, each test in its own namespaces.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use aya::programs::{SchedClassifier, TcAttachType};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use vip_common::layout::Masks;
use vip_common::testing::{World, backend, node_mac};
use vip_userspace::config::XdpMode;
use vip_userspace::datapath::{
    Datapath, DatapathError, Egress, Leftover, Mode, Pins, Plan, Seen, leftovers, remove,
};
use vip_userspace::net::netlink::Netlink;

/// Where a test works.
struct Place {
    directory: tempfile::TempDir,
    index: u32,
}

impl Place {
    fn bpffs(&self) -> PathBuf {
        self.directory.path().join("bpf")
    }

    fn pins(&self) -> Pins {
        Pins::open(&self.bpffs(), self.directory.path()).expect("a bpffs can be mounted")
    }

    fn leftovers(&self) -> Vec<Leftover> {
        leftovers(&self.bpffs(), self.directory.path())
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
        let index = nix::net::if_::if_nametoindex("eth0").expect("just made");
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

fn plan(nodes: usize) -> Plan {
    let world = World::new(nodes, 0);
    Plan::of(&world.state, world.rows)
}

fn xdp() -> String {
    run("ip", &["-details", "link", "show", "dev", "eth0"])
}

#[test]
fn programs_outlive_their_agent_and_the_next_one_adopts_them() {
    in_namespace(|place| {
        let (mut first, mut state) =
            Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
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
            ready: Default::default(),
            ..state.get().masks
        };
        state.set_masks(masks).expect("writes");
        drop(first);
        let before = xdp();
        assert!(before.contains("prog/xdp"), "the program stays: {before}");

        let (mut second, state) = Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
        assert!(second.adopted());
        assert_eq!(
            second
                .attach("eth0", place.index, XdpMode::Auto, None)
                .expect("replaces"),
            attached
        );
        assert_eq!(state.mac(backend(1)), node_mac(1), "what it knew");
        assert_eq!(state.get().masks, masks, "what it knew");
        let id = |text: &str| {
            text.split_once("prog/xdp id ")
                .map(|(_, rest)| rest.to_owned())
        };
        assert_ne!(id(&xdp()), id(&before), "it is the new agent's program");
        drop(second);

        // Another list of nodes is another cluster: nothing of the old ranks may be used.
        let (mut third, state) = Datapath::load(Some(place.pins()), &plan(5), 0).expect("loads");
        assert!(!third.adopted());
        third
            .attach("eth0", place.index, XdpMode::Auto, None)
            .expect("replaces");
        assert!(state.mac(backend(1)).is_unknown());
        drop(third);
        place.clean_up();
        assert!(!xdp().contains("prog/xdp"), "{}", xdp());
    });
}

/// What rtnetlink shows of clsact filters on eth0.
fn seen() -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let index = nix::net::if_::if_nametoindex("eth0").expect("it is there");
    let filters = runtime.block_on(async {
        let netlink = Netlink::connect().expect("a socket");
        netlink.filters(index).await.expect("the kernel tells")
    });
    Seen { xdp: None, filters }
}

#[test]
fn generic_mode_takes_the_place_of_native() {
    in_namespace(|place| {
        let (mut datapath, _) = Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
        datapath
            .attach("eth0", place.index, XdpMode::Native, None)
            .expect("attaches");
        let fallen = datapath
            .fall_back_to_generic("eth0", place.index)
            .expect("attaches");
        assert_eq!(fallen.mode, Mode::Generic);
        assert!(xdp().contains("xdpgeneric"), "{}", xdp());
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
            let (mut datapath, _) = Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
            let attached = datapath
                .attach("eth0", place.index, XdpMode::Auto, Some(Egress::Clsact))
                .expect("attaches");
            assert_eq!(attached.egress, Egress::Clsact);
            let mut guards = || datapath.guards("eth0", Egress::Clsact, &seen());
            assert!(guards().expect("the kernel tells"));
            run("tc", &["filter", "delete", "dev", "eth0", "egress"]);
            assert!(!guards().expect("the kernel tells"), "it was removed");
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
                    Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
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
            let link = place.bpffs().join("vip").join("vip_connect4");
            link.exists()
        };
        for _restart in 0..2 {
            let (mut datapath, _) = Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
            datapath.redirect(Some(&group)).expect("attaches");
            assert!(attached());
        }
        let (mut datapath, _) = Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
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
        let (mut other, _) = Datapath::load(None, &plan(3), 0).expect("loads");
        other
            .attach("eth0", place.index, XdpMode::Native, None)
            .expect("attaches");
        let before = xdp();
        let (mut ours, _) = Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
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
        assert!(
            ours.steers("eth0", attached, &seen())
                .expect("the kernel tells")
        );
        assert_eq!(xdp(), before);
        drop(ours);
        place.clean_up();
    });
}

#[test]
fn a_link_of_a_nic_that_is_gone_is_not_adopted() {
    in_namespace(|place| {
        let (mut datapath, _) = Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
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
        let (mut datapath, _) = Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
        datapath
            .attach("eth0", place.index, XdpMode::Auto, None)
            .expect("attaches anew");
        assert!(xdp().contains("prog/xdp"), "{}", xdp());
        drop(datapath);
        place.clean_up();
    });
}

#[test]
fn the_program_on_the_way_out_is_on_other_nics_for_as_long_as_that_is_wanted() {
    in_namespace(|place| {
        let other = nix::net::if_::if_nametoindex("peer0").expect("just made");
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
                    Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
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
            let (datapath, _) = Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
            datapath.detach_elsewhere(&[].into()).expect("removes it");
            assert_eq!(attached(egress), 0, "{egress}");
            let (mut datapath, _) = Datapath::load(Some(place.pins()), &plan(3), 0).expect("loads");
            datapath
                .attach_elsewhere("peer0", other, egress)
                .expect("attaches again");
            drop(datapath);
            place.clean_up();
            assert_eq!(attached(egress), 0, "{egress}");
        }
    });
}
