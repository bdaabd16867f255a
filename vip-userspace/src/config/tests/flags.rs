//! Flags, and files with flags put over them.

use std::fs;
use std::time::Duration;

use super::*;
use crate::probe::Trust;

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
fn flags_of_the_page_say_what_its_smallest_files_say() {
    for (line, file) in blocks("sh").into_iter().zip(blocks("toml")).take(2) {
        let line = line.trim().strip_prefix("vip run ").unwrap();
        let by_flags = flags(&line.split(' ').collect::<Vec<_>>()).into_config();
        assert_eq!(by_flags.unwrap(), Config::parse(file, "vip.toml").unwrap());
    }
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
fn errors_in_flags_name_the_flag() {
    let refused = |arguments: &[&str]| flags(arguments).into_config().unwrap_err().to_string();
    assert_eq!(
        refused(&[]),
        "nothing configured; give --vip ADDRESS[:PORT], or a file (--config FILE; `vip manifest`: \
             --from FILE)"
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
