//! The page docs/configuration.md: its generated parts, and its examples.

use std::net::SocketAddr;
use std::time::Duration;
use std::{env, fs};

use vip_common::abi::CheckIndex;

use super::super::keys;
use super::*;
use crate::probe::{Ask, Credentials, Trust};

/// Where that page is.
const PAGE_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

#[test]
fn smallest_file_has_sensible_defaults() {
    let node = |last| Node::at(ip(last));
    assert_eq!(
        Config::parse(SMALLEST, "vip.toml").unwrap(),
        Config {
            vips: vec![plain(ip(10), 6443)],
            first_vip: ip(10),
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
    let [_, smallest, full, _] = examples();
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
            first_vip: ip(10),
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
                api_name: None,
                forget_after: Duration::from_secs(24 * 3600),
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
fn every_key_for_agents_that_find_each_other_reaches_its_place() {
    let [smallest, _, _, open] = examples();
    let alone = Config::parse(smallest, "page").unwrap();
    assert_eq!(alone, Config::parse("vip = \"10.0.0.10\"", "a").unwrap());
    let fd00 = |last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
    assert_eq!(
        Config::parse(open, "page").unwrap(),
        Config {
            vips: vec![plain(ip(10), 6443), plain(fd00(0x10), 6443)],
            seeds: vec![ip(11), ip(12)],
            own: OwnNode {
                name: Some("cp1".into()),
                other_address: Some(fd00(0x11)),
                weight: 2,
            },
            members: Members {
                api_name: Some("api.example.com".into()),
                forget_after: Duration::from_secs(3600),
                port: 9644,
            },
            key_file: Some("/etc/vip/key".into()),
            ..alone
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
    // The two kinds of credentials exclude each other, and keys about a node's own entry stand in
    // `nodes`, in one example, or in [members], in the other.
    let left_out = |name| matches!(name, "services" | "token_file");
    let [_, _, listed, open] = examples();
    let has = |text: &str, name: &str| {
        let mut lines = text.lines();
        let inside = |before| text.contains(&format!("{before} {name} = "));
        lines.any(|line| line.starts_with(&format!("{name} = "))) || inside("{") || inside(",")
    };
    for section in keys::sections() {
        for entry in section.entries {
            let name = entry.name;
            assert!(
                has(listed, name) || has(open, name) || left_out(name),
                "{name}"
            );
            assert!(entry.documentation.trim().ends_with('.'), "{name}");
            assert!(!entry.documentation.contains('|'), "{name} ends a cell");
        }
    }
}

/// The page's files: the smallest one, the smallest one with a list of nodes, one with all keys
/// beside such a list, and one with those for agents that find each other.
fn examples() -> [&'static str; 4] {
    let blocks = blocks("toml");
    blocks.try_into().expect("the page has four examples")
}
