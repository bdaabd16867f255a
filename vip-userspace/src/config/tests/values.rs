//! What values mean.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::super::addresses::listen;
use super::super::kind::milliseconds;
use super::*;
use crate::probe::Ask;

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
fn numbers_and_durations_may_be_written_as_toml_and_people_do() {
    let config = Config::parse(
        &format!("{SMALLEST}\n[vrrp]\ninterval = \"1.5s\"\nrouter_id = 0x1_0"),
        "vip.toml",
    );
    let config = config.unwrap();
    assert_eq!(config.vrrp.interval, Duration::from_millis(1500));
    assert_eq!(config.vrrp.router_id, Some(16));
    assert_eq!(milliseconds("2m"), Ok(Duration::from_secs(120)));
    assert_eq!(milliseconds("1.5h"), Ok(Duration::from_secs(5400)));
    for (text, why) in [
        ("-1", "is not a duration"),
        ("-1s", "is not a duration"),
        (
            "99999999999999999999h",
            "is too long; write less than 1000000000h",
        ),
        (
            "1.00000000000000000001s",
            "is not a whole number of milliseconds",
        ),
    ] {
        let refused = milliseconds(text).expect_err(text);
        assert!(refused.contains(why), "{refused}");
    }
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
    fn durations_are_read_as_written(count in 0_u64..100_000_000) {
        let wanted = Ok(Duration::from_millis(count));
        prop_assert_eq!(milliseconds(&format!("{count}ms")), wanted.clone());
        let seconds = format!("{}.{:03}s", count / 1000, count % 1000);
        prop_assert_eq!(milliseconds(&seconds), wanted);
    }
}
