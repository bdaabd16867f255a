//! What is refused, with its place and a way out.

use proptest::prelude::*;

use super::*;

#[test]
fn unknown_keys_are_refused_with_their_place() {
    assert_eq!(
        refused_with("zzz = 2"),
        "vip.toml:3:1: unknown key `zzz` at the top of the file, expected one of `vip`, `nodes`, `seeds`, `target_port`, `allow`, `syn_rate`, `services`, `interface`, `run_dir`, `state_dir`, `key_file`, `members`, `vrrp`, `bfd`, `health`, `local`, `datapath`, `http`"
    );
    assert_eq!(
        refused_with("[vrrp]\n  virtual_router = 1"),
        "vip.toml:4:3: unknown key `virtual_router` in [vrrp], expected one of `router_id`, `interval`, `priority`, `preempt`, `preempt_delay`, `mode`, `interop`, `probe_address`"
    );
    assert_eq!(
        refused_with("[[services]]\nport = 9345\nkind = 2"),
        "vip.toml:5:1: unknown key `kind` in an entry of `services`, expected one of `port`, `target_port`, `path`, `probe_port`, `allow`, `syn_rate`"
    );
}

#[test]
fn unknown_keys_are_told_what_was_meant() {
    for (lines, error) in [
        (
            "[vrrp]\npriorty = 1",
            "4:1: unknown key `priorty` in [vrrp]; did you mean `priority`?",
        ),
        (
            "[[services]]\nprot = 9345",
            "4:1: unknown key `prot` in an entry of `services`; did you mean `port`?",
        ),
        ("[vrpp]", "3:2: unknown table [vrpp]; did you mean `vrrp`?"),
        (
            "priority = 1",
            "3:1: unknown key `priority` at the top of the file; it belongs to [vrrp]",
        ),
        (
            "[bfd]\ninterface = \"eth0\"",
            "4:1: unknown key `interface` in [bfd]; it belongs to the top of the file, above all tables",
        ),
        (
            "interval = \"1s\"",
            "3:1: unknown key `interval` at the top of the file; it belongs to [vrrp] and [bfd] and [health]",
        ),
    ] {
        assert_eq!(refused_with(lines), format!("vip.toml:{error}"), "{lines}");
    }
    // A key that is misspelt is not missing, too.
    assert_eq!(
        refused("vpi = \"10.0.0.10\""),
        "vip.toml:1:1: unknown key `vpi` at the top of the file; did you mean `vip`?"
    );
}

#[test]
fn all_faults_are_told_at_once_by_their_lines() {
    let text = "\
vip = [\"10.0.0.10\", \"10.0.0.10\"]
nodes = [\"10.0.0.11\", \"10.0.0.300\", { address = \"10.0.0.12\", wieght = 2 }]
allow = [\"10.0.0.1/8\", \"10.0.0.0/024\"]
[vrrp]
router_id = 0
interval = \"15ms\"
[health]
check = \"tcp\"
path = \"/livez\"
[http]
listen = \"node\"
[bfd]
enabled = 1
";
    let faults = refused(text);
    let places: Vec<&str> = faults
        .lines()
        .map(|line| line.split(": ").next().expect("a place"))
        .collect();
    let wanted = [
        "1:21", "2:23", "2:62", "3:10", "3:24", "5:13", "6:12", "9:8", "11:10", "13:11",
    ];
    let wanted = wanted.map(|place| format!("vip.toml:{place}"));
    assert_eq!(places, wanted, "{faults}");
    // Where keys can be read, they are also compared with each other.
    let text = "vip = [\"10.0.0.10\", \"10.0.0.20:443\"]\nnodes = [\"10.0.0.10\", \"10.0.0.20\"]\n\
                [[services]]\nport = 6443\n[vrrp]\nrouter_id = 0";
    let places: Vec<String> = refused(text)
        .lines()
        .map(|line| line.split(": ").next().expect("a place").to_owned())
        .collect();
    let wanted = ["1:21", "2:10", "2:23", "3:1", "6:13"];
    let wanted = wanted.map(|place| format!("vip.toml:{place}"));
    assert_eq!(places, wanted);
}

#[test]
fn faults_of_all_flags_are_told_at_once() {
    let flags = flags(&["--vip", "10.0.0.256", "--vrid", "-1", "--http", "0"]);
    let faults = flags.into_config().expect_err("wrong").to_string();
    let begins = [
        "--vip: `10.0.0.256`",
        "--vrid: -1 is out of range",
        "--http: `0`",
    ];
    assert_eq!(faults.lines().count(), begins.len(), "{faults}");
    for (line, begin) in faults.lines().zip(begins) {
        assert!(line.starts_with(begin), "{faults}");
    }
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
            "4:12: `100` is not a duration; write it like 100ms, 1.5s, 2m or 1h",
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
fn services_that_cannot_work_are_refused() {
    for (lines, error) in [
        (
            "allow = \"10.0.0.0/8\"",
            "3:9: this is a value of type string, expected a list of networks",
        ),
        (
            "allow = [\"10.0.0.0/024\"]",
            "3:10: `10.0.0.0/024` has a prefix length that begins with 0; write 10.0.0.0/24",
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
            "2:9: 0 nodes: list every control-plane node once, or leave `nodes` out, so that the agents find each other",
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
        refused("nodes = [\"10.0.0.11\"]"),
        "vip.toml:1:1: `vip` is missing; add `vip = \"10.0.0.10:6443\"` or give --vip"
    );
}

proptest! {
    #[test]
    fn any_text_is_refused_in_one_line_or_taken(text in "(.|\n)*") {
        if let Err(error) = Config::parse(&text, "vip.toml") {
            let error = error.to_string();
            prop_assert!(!error.is_empty());
            prop_assert!(error.lines().all(|line| line.starts_with("vip.toml:")), "{}", error);
        }
    }

    #[test]
    fn any_damage_to_the_full_examples_is_refused_in_one_line_or_taken(
        example in 2..4_usize, at: prop::sample::Index, with in "[ -~\n]{0,3}",
    ) {
        let text = blocks("toml")[example];
        let at = at.index(text.len());
        let damaged = format!("{}{with}{}", &text[..at], &text[at + 1..]);
        if let Err(error) = Config::parse(&damaged, "vip.toml") {
            let error = error.to_string();
            prop_assert!(!error.is_empty());
            prop_assert!(error.lines().all(|line| line.starts_with("vip.toml:")), "{}", error);
        }
    }
}
