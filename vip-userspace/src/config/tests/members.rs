//! Clusters without a list of nodes: their agents find each other.

use std::time::Duration;

use super::*;

/// What is wrong with lines put behind a VIP, in the first line, and nothing else.
fn refused_without_nodes(lines: &str) -> String {
    refused(&format!("vip = \"10.0.0.10\"\n{lines}"))
}

fn open(text: &str) -> Config {
    Config::parse(text, "vip.toml").unwrap()
}

#[test]
fn the_vip_alone_is_a_configuration() {
    let config = open("vip = \"10.0.0.10:6443\"");
    assert!(config.is_open());
    assert_eq!((config.addresses(), config.peers(ip(11))), (vec![], vec![]));
    assert_eq!(config.name(ip(11)), "10.0.0.11");
    let by_flag = flags(&["--vip", "10.0.0.10:6443"]).into_config().unwrap();
    assert_eq!(by_flag, config);
    // It is the same cluster with a list, and its rank tables are the same.
    let listed = open("vip = \"10.0.0.10:6443\"\nnodes = [\"10.0.0.11\"]");
    assert!(!listed.is_open());
    assert_eq!(listed.hash_key(), config.hash_key());
    assert_eq!(listed.router_id(), config.router_id());
}

#[test]
fn the_first_vip_as_written_names_the_cluster_and_its_family_is_the_nodes() {
    let config = open("vip = [\"10.0.0.10\", \"fd00::10\"]");
    assert_eq!(config.vip().address, ip(10));
    assert!(config.is_of_nodes_family(ip(11)));
    // An IPv4 VIP is added to an IPv6 cluster: the nodes stay where they are.
    let alone = open("vip = \"fd00::10\"");
    let config = open("vip = [\"fd00::10\", \"10.0.0.10\"]");
    assert_eq!(config.vip(), alone.vip());
    assert_eq!(config.vips_by_rank(), [alone.vip().address, ip(10)]);
    assert_eq!(config.vips[0].address, ip(10), "the maps have IPv4 first");
    assert!(!config.is_of_nodes_family(ip(11)));
    assert_eq!(config.hash_key(), alone.hash_key());
    assert_eq!(config.router_id(), alone.router_id());
    let by_flag = flags(&["--vip", "[fd00::10]:6443,10.0.0.10:6443"]);
    assert_eq!(by_flag.into_config().unwrap().first_vip, alone.first_vip);
    let config = open("vip = \"fd00::10\"");
    assert_eq!(config.vip().endpoint().to_string(), "[fd00::10]:6443");
    assert!(!config.is_of_nodes_family(ip(11)));
}

#[test]
fn keys_about_a_member_are_refused_beside_a_list_of_all() {
    for (lines, error) in [
        (
            "seeds = [\"10.0.0.12\"]",
            "3:9: `seeds` has no meaning with `nodes`, which lists all nodes; remove one",
        ),
        (
            "[members]\nname = \"cp1\"",
            "4:8: `name` in [members] has no meaning with `nodes`, which lists all nodes; remove one",
        ),
        (
            "[members]\nother_address = \"fd00::11\"",
            "4:17: `other_address` in [members] has no meaning with `nodes`, which lists all nodes; remove one",
        ),
        (
            "[members]\nweight = 2",
            "4:10: `weight` in [members] has no meaning with `nodes`, which lists all nodes; remove one",
        ),
    ] {
        assert_eq!(refused_with(lines), format!("vip.toml:{error}"), "{lines}");
    }
    let beside = [
        "--vip",
        "10.0.0.10",
        "--nodes",
        "10.0.0.11",
        "--seeds",
        "10.0.0.12",
    ];
    assert_eq!(
        flags(&beside).into_config().unwrap_err().to_string(),
        "--seeds: `seeds` has no meaning with `nodes`, which lists all nodes; remove one"
    );
    // What must be the same on all nodes may be said before the list is left out.
    let common = "api_name = \"api.example.com\"\nforget_after = \"1h\"\nport = 9644";
    open(&format!("{SMALLEST}\n[members]\n{common}"));
}

#[test]
fn seeds_that_cannot_be_members_are_refused() {
    for (lines, error) in [
        (
            "seeds = [\"10.0.0.11\", \"10.0.0.10\"]",
            "2:9: seed 10.0.0.10 is the VIP, or of another family than the first VIP; give the nodes' own addresses of that family",
        ),
        (
            "seeds = [\"fd00::11\"]",
            "2:9: seed fd00::11 is the VIP, or of another family than the first VIP; give the nodes' own addresses of that family",
        ),
        (
            "seeds = [\"10.0.0.11\", \"fd00::11\"]",
            "2:9: 2 seeds: must be 1 to 16 addresses of one family; leave `seeds` out if there are none",
        ),
        (
            "seeds = []",
            "2:9: 0 seeds: must be 1 to 16 addresses of one family; leave `seeds` out if there are none",
        ),
        (
            "seeds = \"10.0.0.11\"",
            "2:9: this is a value of type string, expected a list of addresses",
        ),
        (
            "seeds = [\"10.0.0.11:9643\"]",
            "2:10: `10.0.0.11:9643` has a port, which a node's address needs not; write 10.0.0.11",
        ),
    ] {
        assert_eq!(
            refused_without_nodes(lines),
            format!("vip.toml:{error}"),
            "{lines}"
        );
    }
    let many: Vec<String> = (1..=17).map(|n| format!("\"10.0.1.{n}\"")).collect();
    let error = refused_without_nodes(&format!("seeds = [{}]", many.join(", ")));
    assert!(error.contains("17 seeds: must be 1 to 16"), "{error}");
    let by_flag = flags(&[
        "--vip",
        "10.0.0.10",
        "--seeds",
        "10.0.0.12,10.0.0.11,10.0.0.12",
    ]);
    assert_eq!(
        by_flag.into_config().unwrap_err().to_string(),
        "--seeds: seed 10.0.0.12 is listed twice; remove one"
    );
    let by_flag = flags(&["--vip", "10.0.0.10", "--seeds", "10.0.0.12,10.0.0.11"]);
    assert_eq!(by_flag.into_config().unwrap().seeds, [ip(11), ip(12)]);
    let by_ipv6 = open("vip = \"fd00::10\"\nseeds = [\"fd00::11\"]");
    assert_eq!(by_ipv6.seeds.len(), 1);
}

#[test]
fn what_a_node_says_of_itself_is_checked() {
    for (line, error) in [
        (
            "name = \"a b\"",
            "3:8: `a b` cannot be a node's name; take 1 to 63 letters, digits, `-`, `_` and `.`",
        ),
        (
            "other_address = \"10.0.1.11\"",
            "3:17: 10.0.1.11 is of the same family as the cluster's first VIP; give `other_address` one of the other family",
        ),
        ("weight = 0", "3:10: 0 is out of range, must be 1 to 65535"),
        (
            "address = \"10.0.0.11\"",
            "3:1: unknown key `address` in [members], expected one of `name`, `other_address`, `weight`, `api_name`, `forget_after`, `port`",
        ),
        ("port = 0", "3:8: 0 is out of range, must be 1 to 65535"),
        (
            "port = 3784",
            "3:8: the agent receives BFD packets at UDP port 3784; take another port for hellos, the same on all nodes",
        ),
        (
            "port = 63784",
            "3:8: the agent sends BFD packets from UDP port 63784; take another port for hellos, the same on all nodes",
        ),
        (
            "forget_after = \"59s\"",
            "3:16: `59s` is out of range, must be 60s to 720h",
        ),
        (
            "forget_after = \"721h\"",
            "3:16: `721h` is out of range, must be 60s to 720h",
        ),
        (
            "forget_after = \"1d\"",
            "3:16: `1d` is not a duration; write it like 100ms, 1.5s, 2m or 1h",
        ),
    ] {
        let lines = format!("[members]\n{line}");
        assert_eq!(
            refused_without_nodes(&lines),
            format!("vip.toml:{error}"),
            "{line}"
        );
    }
    let relative = flags(&["--vip", "10.0.0.10", "--key-file", "rel"]);
    assert_eq!(
        relative.into_config().unwrap_err().to_string(),
        "--key-file: `rel` is not an absolute path; begin it with /"
    );
    let config = open("vip = \"fd00::10\"\n[members]\nother_address = \"10.0.0.11\"");
    assert_eq!(config.own.other_address, Some(ip(11)));
    let config = open("vip = \"10.0.0.10\"\n[members]\nforget_after = \"1.5h\"");
    assert_eq!(config.members.forget_after, Duration::from_secs(5400));
}

#[test]
fn the_name_in_certificates_is_one_of_dns() {
    let named = |name: &str| format!("vip = \"10.0.0.10\"\n[members]\napi_name = \"{name}\"");
    for name in ["api.example.com", "api", "k8s-1.example"] {
        let config = open(&named(name));
        assert_eq!(config.members.api_name.as_deref(), Some(name));
    }
    for name in [
        "",
        "10.0.0.10",
        "fd00::10",
        "api example",
        "https://api",
        "api.example.com:6443",
    ] {
        assert_eq!(
            refused(&named(name)),
            format!("vip.toml:3:12: `{name}` is not a DNS name; write it like api.example.com")
        );
    }
}
