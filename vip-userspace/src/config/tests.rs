use std::net::SocketAddr;
use std::time::Duration;
use std::{env, fs};

use clap::{Args as _, FromArgMatches as _};
use proptest::prelude::*;
use vip_common::abi::CheckIndex;

use super::addresses::listen;
use super::kind::milliseconds;
use super::*;
use crate::probe::{Ask, Credentials, Trust};

const SMALLEST: &str = r#"
    vip = "10.0.0.10:6443"
    nodes = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
"#;

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// Where that page is.
const PAGE_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// A VIP with one service that everybody may use, by the first check.
fn plain(address: IpAddr, port: u16) -> Vip {
    Vip {
        address,
        services: vec![Service {
            port,
            target: port,
            check: CheckIndex::API,
            allow: vec![],
            syn_rate: None,
        }],
    }
}

/// What is wrong with a file, on one line.
fn refused(text: &str) -> String {
    Config::parse(text, "vip.toml").unwrap_err().to_string()
}

/// What is wrong with lines put behind a good beginning of two lines.
fn refused_with(lines: &str) -> String {
    refused(&format!(
        "vip = \"10.0.0.10\"\nnodes = [\"10.0.0.11\"]\n{lines}"
    ))
}

fn flags(arguments: &[&str]) -> Flags {
    let command = Flags::augment_args(clap::Command::new("run").no_binary_name(true));
    Flags::from_arg_matches(&command.try_get_matches_from(arguments).unwrap()).unwrap()
}

/// The blocks of a language in the page. Behind the language a fence may say more.
fn blocks(language: &str) -> Vec<&'static str> {
    let inside = PAGE.split("```").skip(1).step_by(2);
    let blocks = inside.filter_map(|block| block.split_once('\n'));
    blocks
        .filter(|(fence, _)| fence.split(' ').next() == Some(language))
        .map(|(_, text)| text)
        .collect()
}

#[test]
fn smallest_file_has_sensible_defaults() {
    let node = |last| Node::at(ip(last));
    assert_eq!(
        Config::parse(SMALLEST, "vip.toml").unwrap(),
        Config {
            vips: vec![plain(ip(10), 6443)],
            checks: vec![Check {
                port: 6443,
                ask: Ask::Http("/readyz".into()),
            }],
            nodes: vec![node(11), node(12), node(13)],
            seeds: vec![],
            own: OwnNode::default(),
            members: Members {
                api_name: None,
                forget_after: Duration::from_secs(24 * 3600),
                port: 9643,
            },
            interface: None,
            vrrp: Vrrp {
                router_id: None,
                interval: Duration::from_millis(100),
                priority: None,
                preempt: false,
                preempt_delay: Duration::ZERO,
                mode: VrrpMode::Unicast,
                interop: false,
                probe_address: true,
            },
            bfd: Some(Bfd {
                interval: Duration::from_millis(35),
                multiplier: 3,
            }),
            health: Health {
                interval: Duration::from_millis(500),
                timeout: Duration::from_secs(1),
                rise: 2,
                fall: 2,
                reset_on_hang: false,
                tls: Trust::WellKnownCa,
                credentials: None,
            },
            local: Some(Local { cgroup: None }),
            datapath: Datapath {
                reset_after: Duration::from_secs(2),
                mode: XdpMode::Auto,
                hash_key: None,
                bpffs: "/sys/fs/bpf".into(),
            },
            http: Some(Listen::At(SocketAddr::from(([127, 0, 0, 1], 9643)))),
            run_dir: "/run/vip".into(),
            state_dir: "/var/lib/vip".into(),
            key_file: None,
        }
    );
}

#[test]
fn every_key_in_the_page_reaches_its_place() {
    let [smallest, full] = blocks("toml")[..] else {
        panic!("the page has two examples")
    };
    assert_eq!(
        Config::parse(smallest, "a").unwrap(),
        Config::parse(SMALLEST, "b").unwrap()
    );
    let network = |address: IpAddr, prefix_len| Network {
        address,
        prefix_len,
    };
    let fd00 = |last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
    let services = vec![
        Service {
            port: 443,
            target: 6443,
            check: CheckIndex::API,
            allow: vec![network(IpAddr::from([10, 0, 0, 0]), 8), network(fd00(0), 8)],
            syn_rate: Some(500),
        },
        Service {
            port: 9345,
            target: 9346,
            check: CheckIndex::new(1).unwrap(),
            allow: vec![network(ip(11), 32)],
            syn_rate: Some(50),
        },
    ];
    assert_eq!(
        Config::parse(full, "page").unwrap(),
        Config {
            vips: vec![
                Vip {
                    address: ip(10),
                    services: services.clone(),
                },
                Vip {
                    address: fd00(0x10),
                    services,
                },
            ],
            checks: vec![
                Check {
                    port: 6444,
                    ask: Ask::Http("/livez".into()),
                },
                Check {
                    port: 9347,
                    ask: Ask::Http("/healthz".into()),
                },
            ],
            nodes: vec![
                Node {
                    address: ip(11),
                    other_address: Some(fd00(0x11)),
                    name: "cp1".into(),
                    weight: 2
                },
                Node {
                    address: ip(12),
                    other_address: None,
                    name: "cp2".into(),
                    weight: 1
                },
                Node::at(ip(13)),
            ],
            seeds: vec![],
            own: OwnNode::default(),
            members: Members {
                api_name: Some("api.example.com".into()),
                forget_after: Duration::from_secs(3600),
                port: 9643,
            },
            interface: Some("bond0".into()),
            vrrp: Vrrp {
                router_id: Some(51),
                interval: Duration::from_secs(1),
                priority: Some(200),
                preempt: true,
                preempt_delay: Duration::from_secs(30),
                mode: VrrpMode::Multicast,
                interop: false,
                probe_address: false,
            },
            bfd: Some(Bfd {
                interval: Duration::from_millis(20),
                multiplier: 5,
            }),
            health: Health {
                interval: Duration::from_millis(250),
                timeout: Duration::from_secs(2),
                rise: 3,
                fall: 4,
                reset_on_hang: true,
                tls: Trust::Ca("/etc/ssl/cluster-ca.pem".into()),
                credentials: Some(Credentials::Certificate {
                    certificate: "/etc/vip/health.crt".into(),
                    key: "/etc/vip/health.key".into(),
                }),
            },
            local: Some(Local {
                cgroup: Some("/sys/fs/cgroup/unified".into()),
            }),
            datapath: Datapath {
                reset_after: Duration::from_millis(500),
                mode: XdpMode::Native,
                hash_key: Some([0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f]),
                bpffs: "/run/bpf".into(),
            },
            http: Some(Listen::Node(9643)),
            run_dir: "/run/vip-test".into(),
            state_dir: "/var/lib/vip-test".into(),
            key_file: Some("/etc/vip/key".into()),
        }
    );
}

#[test]
fn page_is_up_to_date() {
    let page = reference::page(PAGE);
    if env::var_os("VIP_WRITE_DOCS").is_some() {
        fs::write(PAGE_PATH, page).unwrap();
        return;
    }
    let only_in = |sign: &str, text: &str, other: &str| -> String {
        let lines = text.lines().filter(|line| !other.contains(line));
        lines.map(|line| format!("{sign} {line}\n")).collect()
    };
    assert!(
        page == PAGE,
        "docs/configuration.md differs from the declared keys; \
         VIP_WRITE_DOCS=1 cargo test -p vip-userspace page_is_up_to_date writes it\n{}{}",
        only_in("-", PAGE, &page),
        only_in("+", &page, PAGE)
    );
}

#[test]
fn every_key_has_an_example_in_the_page_and_a_line_of_documentation() {
    // The two kinds of credentials exclude each other.
    let left_out = |name| matches!(name, "services" | "token_file");
    let full = blocks("toml")[1];
    for section in keys::sections() {
        for entry in section.entries {
            let name = entry.name;
            assert!(
                full.contains(&format!("{name} = ")) || left_out(name),
                "{name}"
            );
            assert!(entry.documentation.trim().ends_with('.'), "{name}");
            assert!(!entry.documentation.contains('|'), "{name} ends a cell");
        }
    }
}

#[test]
fn help_of_flags_says_range_and_default() {
    let mut command = Flags::augment_args(clap::Command::new("run").term_width(0));
    let help = command.render_long_help().to_string();
    for line in [
        "--vrid <ID>",
        "VRRP's virtual router; 1 to 255 [default: last byte of the first VIP of the nodes' family, 1 if that is 0]",
        "--interval <DURATION>",
        "Time between the owner's advertisements; 10ms to 40.95s, a multiple of 10 ms [default: 100ms]",
        "--insecure\n",
        "Whether to trust any server that answers the probes\n",
    ] {
        assert!(help.contains(line), "{line}\n{help}");
    }
}

#[test]
fn flags_of_the_page_say_what_its_smallest_file_says() {
    let line = blocks("sh")[0].trim().strip_prefix("vip run ").unwrap();
    let by_flags = flags(&line.split(' ').collect::<Vec<_>>()).into_config();
    assert_eq!(
        by_flags.unwrap(),
        Config::parse(SMALLEST, "vip.toml").unwrap()
    );
}

#[test]
fn flags_win_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vip.toml");
    fs::write(&path, format!("{SMALLEST}\ninterface = \"eth0\"")).unwrap();
    let file = path.to_str().unwrap();
    assert_eq!(
        Config::load(&path).unwrap().interface.as_deref(),
        Some("eth0")
    );
    let config = flags(&[
        "--config",
        file,
        "--vip",
        "10.0.0.20",
        "--interface",
        "eth7",
        "--vrid",
        "7",
        "--interval",
        "10ms",
        "--ca",
        "/ca.pem",
        "--nodes",
        "10.0.0.11",
    ]);
    let config = config.into_config().unwrap();
    assert_eq!(config.vip().endpoint().to_string(), "10.0.0.20:6443");
    assert_eq!(config.nodes, [Node::at(ip(11))]);
    assert_eq!(config.interface.as_deref(), Some("eth7"));
    assert_eq!(config.router_id(), 7);
    assert_eq!(config.vrrp.interval, Duration::from_millis(10));
    assert_eq!(config.health.tls, Trust::Ca("/ca.pem".into()));
    let config = flags(&["--config", file, "--insecure"]).into_config();
    assert_eq!(config.unwrap().health.tls, Trust::Insecure);
    // The place of an error is the flag's, not the file's.
    let error = flags(&["--config", file, "--vip", "10.0.0.12"]).into_config();
    assert_eq!(
        error.unwrap_err().to_string().split(": node").next(),
        Some(format!("{file}:3:27").as_str())
    );
}

#[test]
fn a_flag_wins_over_the_key_that_the_file_has_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vip.toml");
    let config = |lines: &str, more: &[&str]| {
        fs::write(&path, format!("{SMALLEST}\n{lines}")).unwrap();
        let file = ["--config", path.to_str().unwrap()];
        flags(&[&file, more].concat()).into_config()
    };
    let insecure = config("[health]\nca = \"/ca.pem\"", &["--insecure"]).unwrap();
    assert_eq!(insecure.health.tls, Trust::Insecure);
    let by_ca = config("[health]\ninsecure = true", &["--ca", "ca.pem"]).unwrap();
    assert_eq!(by_ca.health.tls, Trust::Ca("ca.pem".into()));
    let both = config("", &["--insecure", "--ca", "ca.pem"]).unwrap_err();
    assert_eq!(
        both.to_string(),
        "--ca: `ca` has no meaning with `insecure = true`; remove one"
    );
    let http = config("[http]\nenabled = false", &["--http", "9700"]).unwrap();
    assert_eq!(http.http.map(Listen::port), Some(9700));
    // A file is refused for a value of its own even if a flag wins over it.
    let wrong = config("[vrrp]\nrouter_id = 0", &["--vrid", "7"]).unwrap_err();
    assert!(
        wrong
            .to_string()
            .ends_with("0 is out of range, must be 1 to 255"),
        "{wrong}"
    );
}

#[test]
fn http_is_served_at_an_address_a_port_or_the_nodes_own_address() {
    let own = IpAddr::from([10, 0, 0, 12]);
    for (written, wanted) in [
        ("9643", &["127.0.0.1:9643"][..]),
        (":9643", &["127.0.0.1:9643"]),
        ("0.0.0.0:9643", &["0.0.0.0:9643"]),
        ("[::1]:9643", &["[::1]:9643"]),
        ("10.0.0.11:1", &["10.0.0.11:1"]),
        ("node:9643", &["127.0.0.1:9643", "10.0.0.12:9643"]),
    ] {
        let addresses = listen(written).expect(written).on(own);
        let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        assert_eq!(addresses, wanted, "{written}");
    }
    for wrong in [
        "",
        ":",
        "0",
        "node",
        "node:",
        "node:0",
        "cp1:9643",
        "10.0.0.11",
        "70000",
    ] {
        let message = listen(wrong).expect_err(wrong);
        assert!(message.contains("node:9643"), "{message}");
    }
}

#[test]
fn errors_in_flags_name_the_flag() {
    let refused = |arguments: &[&str]| flags(arguments).into_config().unwrap_err().to_string();
    assert_eq!(
        refused(&[]),
        "nothing configured; give --config FILE, or --vip ADDRESS[:PORT] and --nodes ADDRESS,ADDRESS,..."
    );
    assert_eq!(
        refused(&["--vip", "10.0.0.10"]),
        "--nodes: missing; give it, or --config FILE with `nodes` in it"
    );
    assert_eq!(
        refused(&["--nodes", "10.0.0.11"]),
        "--vip: missing; give it, or --config FILE with `vip` in it"
    );
    assert_eq!(
        refused(&["--vip", "10.0.0.10", "--nodes", "10.0.0.11,10.0.0.10"]),
        "--nodes: node 10.0.0.10 is the VIP; list the nodes' own addresses, or choose a VIP that no node has"
    );
    assert_eq!(
        refused(&["--vip", "10.0.0.10", "--vrid", "256"]),
        "--vrid: 256 is out of range, must be 1 to 255"
    );
    assert_eq!(
        refused(&["--config", "/nowhere/vip.toml"]),
        "cannot read /nowhere/vip.toml: No such file or directory (os error 2); give the path of a configuration file"
    );
}

#[test]
fn unknown_keys_are_refused_with_their_place() {
    assert_eq!(
        refused("nodes = []\n\nvpi = 1\nzzz = 2"),
        "vip.toml:3:1: unknown key `vpi`, expected one of `vip`, `nodes`, `target_port`, `allow`, `syn_rate`, `services`, `interface`, `run_dir`, `state_dir`, `key_file`, `vrrp`, `bfd`, `health`, `local`, `datapath`, `http`"
    );
    assert_eq!(
        refused_with("[vrrp]\n  virtual_router = 1"),
        "vip.toml:4:3: unknown key `virtual_router`, expected one of `router_id`, `interval`, `priority`, `preempt`, `preempt_delay`, `mode`, `probe_address`"
    );
    assert_eq!(
        refused("nodes = [\"10.0.0.11\", { address = \"10.0.0.12\", wieght = 2 }]"),
        "vip.toml:1:48: unknown key `wieght`, expected one of `address`, `other_address`, `name`, `weight`"
    );
}

#[test]
fn wrong_values_are_refused_with_their_place_and_a_way_out() {
    for (lines, error) in [
        ("vrrp = 3", "3:8: 3 is an integer, expected a table"),
        (
            "interface = 3",
            "3:13: 3 is an integer, expected a string in quotes",
        ),
        (
            "interface = \"a/b\"",
            "3:13: `a/b` cannot be the name of an interface; see `ip link` for those there are",
        ),
        (
            "run_dir = \"/\"",
            "3:11: `/` cannot be an agent's own directory; write one like /run/vip, without `..`",
        ),
        (
            "state_dir = \"/var/lib/vip/..\"",
            "3:13: `/var/lib/vip/..` cannot be an agent's own directory; write one like /run/vip, without `..`",
        ),
        (
            "[http]\nlisten = \"node:6443\"",
            "4:10: the API servers need port 6443 themselves; listen at another one, 9643 say",
        ),
        (
            "run_dir = \"run\"",
            "3:11: `run` is not an absolute path; begin it with /",
        ),
        (
            "[vrrp]\nrouter_id = 0",
            "4:13: 0 is out of range, must be 1 to 255",
        ),
        (
            "[vrrp]\nrouter_id = \"1\"",
            "4:13: this is a value of type string, expected an integer",
        ),
        (
            "[vrrp]\npriority = 256",
            "4:12: 256 is out of range, must be 1 to 255",
        ),
        (
            "[vrrp]\npreempt = 1",
            "4:11: 1 is an integer, expected true or false",
        ),
        (
            "[vrrp]\ninterval = true",
            "4:12: `true` is a boolean, expected a string in quotes",
        ),
        (
            "[vrrp]\ninterval = \"9ms\"",
            "4:12: `9ms` is out of range, must be 10ms to 40.95s",
        ),
        (
            "[vrrp]\ninterval = \"41s\"",
            "4:12: `41s` is out of range, must be 10ms to 40.95s",
        ),
        (
            "[vrrp]\ninterval = \"15ms\"",
            "4:12: `15ms` is not a multiple of 10ms; round it",
        ),
        (
            "[vrrp]\ninterval = \"100\"",
            "4:12: `100` is not a duration; write it like 100ms, 1.5s or 2m",
        ),
        (
            "[health]\ntimeout = \"0.0001s\"",
            "4:11: `0.0001s` is not a whole number of milliseconds; round it",
        ),
        (
            "[health]\npath = \"readyz\"",
            "4:8: `readyz` is not a path of a URL; write it like /readyz",
        ),
        (
            "[health]\nrise = 0",
            "4:8: 0 is out of range, must be 1 to 100",
        ),
        (
            "[health]\nport = 65536",
            "4:8: 65536 is out of range, must be 1 to 65535",
        ),
        (
            "[health]\nca = \"/a\"\ninsecure = true",
            "4:6: `ca` has no meaning with `insecure = true`; remove one",
        ),
        (
            "[health]\ncheck = \"udp\"",
            "4:9: unknown value `udp`, expected one of `readyz`, `tls`, `tcp`",
        ),
        (
            "[health]\ncheck = \"tls\"\npath = \"/livez\"",
            "5:8: `path` has no meaning with this `check`; remove one",
        ),
        (
            "[health]\ncheck = \"tcp\"\ntoken_file = \"/a\"",
            "5:14: credentials have no meaning with this `check`; remove one",
        ),
        (
            "[health]\ninsecure = true\ntoken_file = \"/a\"",
            "5:14: with `insecure = true` any server that answers would get these credentials; remove one",
        ),
        (
            "[health]\nclient_key = \"/a\"",
            "4:14: a key is of no use without its certificate; give `client_certificate`",
        ),
        (
            "[health]\nclient_certificate = \"/a\"",
            "4:22: a client certificate is of no use without its key; give `client_key`",
        ),
        (
            "[health]\ntoken_file = \"/a\"\nclient_certificate = \"/a\"\nclient_key = \"/a\"",
            "4:14: a token and a client certificate; give one of them",
        ),
        (
            "[datapath]\nmode = \"fast\"",
            "4:8: unknown value `fast`, expected one of `auto`, `native`, `generic`, `tc`",
        ),
        (
            "[datapath]\nhash_key = \"12\"",
            "4:12: not a key: must be 32 hexadecimal digits; `openssl rand -hex 16` makes one",
        ),
        (
            "[datapath]\nhash_key = \"+0010203040506070809 0a0b0c0d0e0\"",
            "4:12: not a key: must be 32 hexadecimal digits; `openssl rand -hex 16` makes one",
        ),
    ] {
        assert_eq!(refused_with(lines), format!("vip.toml:{error}"), "{lines}");
    }
}

#[test]
fn several_vips_and_ports_share_what_they_can() {
    let config = Config::parse(
        "vip = [\"[fd00::10]:443\", \"10.0.0.10:443\", \"10.0.0.20\"]\n\
         nodes = [\"10.0.0.11\"]\n\
         target_port = 6443\n\
         [[services]]\n\
         port = 9345\n",
        "vip.toml",
    )
    .unwrap();
    let endpoints: Vec<String> = config
        .vips
        .iter()
        .map(|vip| vip.endpoint().to_string())
        .collect();
    // Those of IPv4 first, and that one names the cluster.
    assert_eq!(
        endpoints,
        ["10.0.0.10:443", "10.0.0.20:6443", "[fd00::10]:443"]
    );
    assert_eq!(config.vip().address, ip(10));
    assert_eq!(config.router_id(), 10);
    assert!(config.vips.iter().all(|vip| vip.services.len() == 2));
    assert_eq!(
        config.checks,
        [
            Check {
                port: 6443,
                ask: Ask::Http("/readyz".into()),
            },
            Check {
                port: 9345,
                ask: Ask::Tcp,
            },
        ]
    );
    let by_ipv6 = Config::parse(
        "vip = [\"10.0.0.10\", \"fd00::10\"]\nnodes = [\"fd00::11\"]",
        "vip.toml",
    )
    .unwrap();
    assert_eq!(by_ipv6.vip().endpoint().to_string(), "[fd00::10]:6443");
    assert_eq!(by_ipv6.router_id(), 0x10);
}

#[test]
fn services_that_cannot_work_are_refused() {
    for (lines, error) in [
        (
            "allow = \"10.0.0.0/8\"",
            "3:9: this is a value of type string, expected a list of networks",
        ),
        (
            "allow = [\"10.0.0.0/33\"]",
            "3:10: `10.0.0.0/33` is not a network; write it like 10.0.0.0/8, fd00::/8 or 10.1.2.3",
        ),
        (
            "allow = []",
            "3:9: an empty list would allow nobody; leave `allow` out if everybody may connect",
        ),
        (
            "allow = [\"::ffff:10.0.0.0/104\"]",
            "3:10: `::ffff:10.0.0.0/104` is an IPv4 network in the form of IPv6, which no source has; write 10.0.0.0/8",
        ),
        (
            "allow = [\"10.0.0.1/8\"]",
            "3:10: `10.0.0.1/8` has bits behind its prefix; did you mean 10.0.0.0/8?",
        ),
        (
            "syn_rate = 0",
            "3:12: 0 is out of range, must be 1 to 1000000",
        ),
        (
            "target_port = 0",
            "3:15: 0 is out of range, must be 1 to 65535",
        ),
        (
            "[[services]]\nsyn_rate = 1",
            "3:1: `port` is missing; add `port = 9345`",
        ),
        (
            "services = [1]",
            "3:13: 1 is an integer, expected tables under `[[services]]`",
        ),
        (
            "[[services]]\nport = 6443",
            "3:1: port 6443 is declared twice for 10.0.0.10; remove one",
        ),
        (
            "[[services]]\nport = 443\ntarget_port = 6443",
            "3:1: ports 6443 and 443 of 10.0.0.10 have the same port 6443 on the nodes, which cannot tell their answers apart; leave one out",
        ),
        (
            "[local]\ncgroup = \"x\"",
            "4:10: `x` is not an absolute path; begin it with /",
        ),
    ] {
        assert_eq!(refused_with(lines), format!("vip.toml:{error}"), "{lines}");
    }
    let vips = |list: &str| refused(&format!("vip = {list}\nnodes = [\"10.0.0.11\"]"));
    assert_eq!(
        vips("[]"),
        "vip.toml:1:7: no VIP; give one, or a list of them"
    );
    assert_eq!(
        vips("[\"10.0.0.10\", \"10.0.0.10:443\"]"),
        "vip.toml:1:21: VIP 10.0.0.10 is listed twice; remove one, and add ports under `[[services]]`"
    );
    let nodes = |list: &str| refused(&format!("vip = \"10.0.0.10\"\nnodes = {list}"));
    assert_eq!(
        nodes("[\"10.0.0.11\", \"fd00::12\"]"),
        "vip.toml:2:23: node fd00::12 is not of the same family as node 10.0.0.11; list all by one family, and the other as `other_address`"
    );
    assert_eq!(
        nodes("[{ address = \"10.0.0.11\", other_address = \"10.0.1.11\" }]"),
        "vip.toml:2:22: 10.0.1.11 is of the same family as 10.0.0.11; give `other_address` one of the other family"
    );
}

#[test]
fn addresses_that_cannot_work_are_refused() {
    let vip = |text: &str| refused(&format!("vip = \"{text}\"\nnodes = [\"10.0.0.11\"]"));
    for (text, error) in [
        ("10.0.0.10:0", "`0` is not a port, must be 1 to 65535"),
        ("10.0.0.10:http", "`http` is not a port, must be 1 to 65535"),
        (
            "10.0.0.256",
            "`10.0.0.256` is not an IP address; write it like 10.0.0.10 or fd00::10",
        ),
        (
            "127.0.0.1",
            "127.0.0.1 is a loopback address; give one of the nodes' subnet",
        ),
        (
            "224.0.0.18",
            "224.0.0.18 is a multicast address; give one of the nodes' subnet",
        ),
        (
            "0.0.0.0",
            "0.0.0.0 is an unspecified address; give one of the nodes' subnet",
        ),
        (
            "255.255.255.255",
            "255.255.255.255 is a reserved address; give one of the nodes' subnet",
        ),
        (
            "fe80::10",
            "fe80::10 is a link-local address; give one of the nodes' subnet",
        ),
        (
            "::ffff:10.0.0.10",
            "::ffff:10.0.0.10 is a reserved address; give one of the nodes' subnet",
        ),
        (
            "[fd00::10]6443",
            "`[fd00::10]6443` is not an address; write it like [fd00::10]:6443",
        ),
        (
            "fd00::10:6443",
            "`fd00::10:6443` is one address, though its end looks like a port; write [fd00::10]:6443, or [fd00::10:6443] if that is the address",
        ),
        (
            "fd00::443:443",
            "`fd00::443:443` is one address, though its end looks like a port; write [fd00::443]:443, or [fd00::443:443] if that is the address",
        ),
        (
            "fd00:0:0:0:0:0:0:10:7443",
            "`fd00:0:0:0:0:0:0:10:7443` is not an address; write it like [fd00:0:0:0:0:0:0:10]:7443",
        ),
        (
            "10.0.0.10:443",
            "clients come to port 443, and that API servers listen on it, too, is not taken for granted; give `target_port = 6443`, or `target_port = 443` if they do",
        ),
        (
            "fd00::10",
            "the nodes' addresses are of IPv4, and no VIP is; add one, or list the nodes by their addresses of IPv6",
        ),
    ] {
        assert_eq!(vip(text), format!("vip.toml:1:7: {error}"));
    }
    for (nodes, error) in [
        (
            "[]",
            "2:9: 0 nodes: must be 1 to 16; list every control-plane node once",
        ),
        (
            "\"10.0.0.11\"",
            "2:9: this is a value of type string, expected a list of addresses",
        ),
        (
            "[11]",
            "2:10: 11 is an integer, expected an address in quotes, or a table with one",
        ),
        (
            "[\"::1\"]",
            "2:10: ::1 is a loopback address; give one of the nodes' subnet",
        ),
        (
            "[\"10.0.0.11\", \"10.0.0.11\"]",
            "2:23: node 10.0.0.11 is listed twice; remove one",
        ),
        (
            "[\"10.0.0.11:6443\"]",
            "2:10: `10.0.0.11:6443` has a port, which a node's address needs not; write 10.0.0.11",
        ),
        (
            "[\"[fd00::11]:6443\"]",
            "2:10: `[fd00::11]:6443` has a port, which a node's address needs not; write fd00::11",
        ),
        (
            "[{ address = \"fd00::11:6443\" }]",
            "2:22: `fd00::11:6443` is one address, though its end looks like a port; write fd00::11, which needs none, or [fd00::11:6443] if that is the address",
        ),
        (
            "[{ address = \"10.0.0.11\", name = \"a\" }, { address = \"10.0.0.12\", name = \"a\" }]",
            "2:61: two nodes are named `a`; rename one",
        ),
        (
            "[\"10.0.0.10\"]",
            "2:10: node 10.0.0.10 is the VIP; list the nodes' own addresses, or choose a VIP that no node has",
        ),
        (
            "[{ name = \"a\" }]",
            "2:10: `address` is missing; add `address = \"10.0.0.11\"`",
        ),
        (
            "[{ address = \"10.0.0.11\", name = \"a b\" }]",
            "2:42: `a b` cannot be a node's name; take 1 to 63 letters, digits, `-`, `_` and `.`",
        ),
        (
            "[{ address = \"10.0.0.11\", weight = 0 }]",
            "2:44: 0 is out of range, must be 1 to 65535",
        ),
    ] {
        let text = format!("vip = \"10.0.0.10\"\nnodes = {nodes}");
        assert_eq!(refused(&text), format!("vip.toml:{error}"));
    }
    let many: Vec<String> = (1..=17).map(|n| format!("\"10.0.1.{n}\"")).collect();
    assert_eq!(
        refused(&format!(
            "vip = \"10.0.0.10\"\nnodes = [{}]",
            many.join(", ")
        )),
        "vip.toml:2:9: 17 nodes: must be 1 to 16; list every control-plane node once"
    );
    assert_eq!(
        refused("vip = \"10.0.0.10\""),
        "vip.toml:1:1: `nodes` is missing; add `nodes = [\"10.0.0.11\"]` or give --nodes"
    );
}

#[test]
fn addresses_that_are_meant_as_they_stand_are_taken() {
    let config = |vip: &str, node: &str| {
        Config::parse(
            &format!("vip = \"{vip}\"\nnodes = [\"{node}\"]"),
            "vip.toml",
        )
        .unwrap()
    };
    for (vip, endpoint) in [
        ("[fd00::10:6443]", "[fd00::10:6443]:6443"),
        ("[fd00::10:6443]:8443", "[fd00::10:6443]:8443"),
        ("fd00::443", "[fd00::443]:6443"),
        ("fd00:0:0:0:0:0:10:443", "[fd00::10:443]:6443"),
        ("fd00::10:644", "[fd00::10:644]:6443"),
    ] {
        let config = config(vip, "[fd00::11:6443]");
        assert_eq!(config.vip().endpoint().to_string(), endpoint);
        assert_eq!(config.nodes[0].address.to_string(), "fd00::11:6443");
    }
}

#[test]
fn the_same_port_443_on_the_nodes_must_be_said() {
    let flags = |target: Option<&'static str>| {
        let cluster = ["--vip", "10.0.0.10:443", "--nodes", "10.0.0.11"];
        let target = target.into_iter().flat_map(|port| ["--target-port", port]);
        flags(&cluster.into_iter().chain(target).collect::<Vec<_>>())
    };
    let target = |port| flags(Some(port)).into_config().unwrap().vips[0].services[0].target;
    assert_eq!((target("6443"), target("443")), (6443, 443));
    for (port, error) in [
        (
            None,
            "--vip: clients come to port 443, and that API servers listen on it, too, is not taken for granted; give --target-port 6443, or --target-port 443 if they do",
        ),
        (
            Some("0"),
            "--target-port: 0 is out of range, must be 1 to 65535",
        ),
        (Some("api"), "--target-port: `api` is not a whole number"),
    ] {
        let refused = flags(port).into_config().unwrap_err();
        assert_eq!(refused.to_string(), error);
    }
    let words = flags(Some("6443")).overrides.words();
    assert!(words.contains(&"--target-port".to_owned()));
}

#[test]
fn numbers_and_durations_may_be_written_as_toml_and_people_do() {
    let config = Config::parse(
        &format!("{SMALLEST}\n[vrrp]\ninterval = \"1.5s\"\nrouter_id = 0x1_0"),
        "vip.toml",
    );
    let config = config.unwrap();
    assert_eq!(config.vrrp.interval, Duration::from_millis(1500));
    assert_eq!(config.vrrp.router_id, Some(16));
    assert_eq!(milliseconds("2m"), Ok(Duration::from_secs(120)));
}

#[test]
fn router_id_is_never_zero_and_the_hash_key_is_the_clusters() {
    let config = |vip| {
        let text = format!("vip = \"{vip}\"\nnodes = [\"10.0.0.11\"]");
        Config::parse(&text, "vip.toml").unwrap()
    };
    assert_eq!(config("10.0.4.0").router_id(), 1);
    assert_eq!(
        config("10.0.4.0").hash_key(),
        config("10.0.4.0:8443").hash_key()
    );
    assert_ne!(config("10.0.4.0").hash_key(), config("10.0.4.1").hash_key());
}

proptest! {
    #[test]
    fn any_text_is_refused_in_one_line_or_taken(text in "(.|\n)*") {
        if let Err(error) = Config::parse(&text, "vip.toml") {
            let error = error.to_string();
            prop_assert!(error.starts_with("vip.toml:"), "{}", error);
            prop_assert!(!error.contains('\n'), "{}", error);
        }
    }

    #[test]
    fn any_damage_to_the_full_example_is_refused_in_one_line_or_taken(
        at: prop::sample::Index, with in "[ -~\n]{0,3}",
    ) {
        let text = blocks("toml")[1];
        let at = at.index(text.len());
        let damaged = format!("{}{with}{}", &text[..at], &text[at + 1..]);
        if let Err(error) = Config::parse(&damaged, "vip.toml") {
            let error = error.to_string();
            prop_assert!(error.starts_with("vip.toml:"), "{}", error);
            prop_assert!(!error.contains('\n'), "{}", error);
        }
    }

    #[test]
    fn durations_are_read_as_written(count in 0_u64..100_000_000) {
        let wanted = Ok(Duration::from_millis(count));
        prop_assert_eq!(milliseconds(&format!("{count}ms")), wanted.clone());
        let seconds = format!("{}.{:03}s", count / 1000, count % 1000);
        prop_assert_eq!(milliseconds(&seconds), wanted);
    }
}
