//! What must be the same on all nodes: a number for each key, which the agents compare.

use vip_node::hello::digest;

use super::Config;
use super::types::{Vip, VrrpMode};

/// A key that must have the same value on all nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// As messages name it.
    pub key: &'static str,
    /// If it differs, nodes bring the segments of one connection to different servers.
    pub misroutes: bool,
}

/// All of them, in the order of [`digests`]. New ones come last: an older agent knows fewer.
pub const AGREED: [Agreed; 10] = [
    agreed("`hash_key` in [datapath]", true),
    agreed("`target_port` or `services`", false),
    agreed("`vip`", false),
    agreed("`allow`", false),
    agreed("`syn_rate`", false),
    agreed("`router_id` in [vrrp]", false),
    agreed("`interval` in [vrrp]", false),
    agreed("`mode` or `preempt` in [vrrp]", false),
    agreed("[bfd]", false),
    agreed("`reset_after` in [datapath]", false),
];

const fn agreed(key: &'static str, misroutes: bool) -> Agreed {
    Agreed { key, misroutes }
}

/// A digest of each value.
#[must_use]
pub fn digests(config: &Config) -> [u16; AGREED.len()] {
    // Some VIPs may be on some nodes only while they are added. All VIPs have the same services, so
    // those of the one that names the cluster count. A reload keeps places, a restart does not: the
    // order in which services and further VIPs were added means nothing.
    let first = config.vip();
    let mut others: Vec<&Vip> = config.vips.iter().collect();
    others.retain(|vip| vip.address != first.address);
    others.sort_by_key(|vip| vip.address);
    let vips = [first].into_iter().chain(others);
    let vips = vips.map(|vip| vip.endpoint().to_string());
    let mut services: Vec<_> = first.services.iter().collect();
    if let Some((_, others)) = services.split_first_mut() {
        others.sort_by_key(|service| service.port);
    }
    let ports = services.iter();
    let ports = ports.map(|service| format!("{}:{}", service.port, service.target));
    let allow = services.iter().map(|service| {
        let networks = service.allow.iter().map(ToString::to_string);
        networks.collect::<Vec<_>>().join(",")
    });
    let rates = services
        .iter()
        .map(|service| service.syn_rate.unwrap_or(0).to_string());
    let mode = match config.vrrp.mode {
        VrrpMode::Unicast => "unicast",
        VrrpMode::Multicast => "multicast",
    };
    let bfd = config.bfd.map_or_else(
        || "off".to_owned(),
        |bfd| format!("{} {}", bfd.interval.as_micros(), bfd.multiplier),
    );
    let [first, second] = config.hash_key();
    let texts = [
        format!("{first:x} {second:x}"),
        joined(ports),
        joined(vips),
        joined(allow),
        joined(rates),
        config.router_id().to_string(),
        config.vrrp.interval.as_micros().to_string(),
        format!("{mode} {}", config.vrrp.preempt),
        bfd,
        config.datapath.reset_after.as_micros().to_string(),
    ];
    texts.map(|text| digest(text.as_bytes()))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_of_the_other_family_changes_the_vips_alone() {
        let config = |vips: &str| {
            let services = "[[services]]\nport = 9345\n";
            let text = format!("vip = {vips}\nallow = [\"fd00::/8\"]\nsyn_rate = 5\n{services}");
            digests(&Config::parse(&text, "vip.toml").expect("makes sense"))
        };
        let usual = config("\"fd00::10\"");
        let both = config("[\"fd00::10\", \"10.0.0.10:443\"]\ntarget_port = 6443");
        let differ = (0..usual.len()).filter(|at| usual[*at] != both[*at]);
        assert_eq!(differ.collect::<Vec<_>>(), [2]);
        let (some, same) = (
            config("[\"fd00::10\", \"fd00::30\", \"10.0.0.10\"]"),
            config("[\"fd00::10\", \"10.0.0.10\", \"fd00::30\"]"),
        );
        assert_eq!(some, same, "the order of further VIPs means nothing");
    }

    #[test]
    fn a_key_that_differs_has_another_digest_and_no_other_one_has() {
        let config = |more: &str| {
            let text = format!("vip = \"10.0.0.10\"\n{more}");
            digests(&Config::parse(&text, "vip.toml").expect("makes sense"))
        };
        let usual = config("");
        assert_eq!(
            usual,
            config("[members]\nname = \"cp1\"\n[vrrp]\npriority = 7")
        );
        for (more, place) in [
            (
                "[datapath]\nhash_key = \"000102030405060708090a0b0c0d0e0f\"",
                0,
            ),
            ("target_port = 6444", 1),
            ("allow = [\"10.0.0.0/8\"]", 3),
            ("syn_rate = 5", 4),
            ("[vrrp]\nrouter_id = 7", 5),
            ("[vrrp]\ninterval = \"1s\"", 6),
            ("[vrrp]\npreempt = true", 7),
            ("[bfd]\nenabled = false", 8),
            ("[datapath]\nreset_after = \"3s\"", 9),
        ] {
            let other = config(more);
            let differ = (0..usual.len()).filter(|at| usual[*at] != other[*at]);
            assert_eq!(differ.collect::<Vec<_>>(), [place], "{more}");
        }
    }
}
