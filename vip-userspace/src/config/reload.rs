//! What becomes of a configuration that has changed while the agent runs.

use std::fmt;
use std::iter::zip;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vip_common::abi::CheckIndex;
use vip_node::health::Origin;

use super::fault::ConfigError;
use super::flags::Flags;
use super::key::{Reload, Said};
use super::keys::{Config, Datapath, Members, Vrrp};
use super::types::{Check, Node, OwnNode, Vip};

/// A configuration's file and flags, and what they said when they were read last.
#[derive(Clone, Debug)]
pub struct Source {
    flags: Flags,
    said: Vec<Said>,
}

/// What a changed configuration means to an agent that runs.
#[derive(Debug)]
pub struct Reread {
    /// The configuration from now on. What it has in common with the one before is in the same
    /// places, so that the kernel's tables change where they must.
    pub config: Config,
    /// Its source.
    pub source: Source,
    /// Where each of its checks comes from.
    pub origins: Vec<Origin>,
    /// For people.
    pub changes: Changes,
}

/// What changed, for people.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Changes {
    /// What counts from now on.
    pub applied: Vec<Change>,
    /// What does not, and why: a line each.
    pub kept: Vec<String>,
}

/// A key with another value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// As messages name it: ``interval` in [health]`.
    pub key: String,
    /// As it was written.
    pub old: String,
    /// As it is written.
    pub new: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, old, new } = self;
        write!(f, "{key}: {old} -> {new}")
    }
}

impl Source {
    /// Reads a configuration for the first time.
    ///
    /// # Errors
    /// As [`Flags::into_config`].
    pub fn read(flags: Flags) -> Result<(Config, Self), ConfigError> {
        let (config, said) = flags.read()?;
        Ok((config, Self { flags, said }))
    }

    /// Reads it again, for an agent that runs with `old`.
    ///
    /// `may_remove` says why a node cannot be taken off the list now, if it cannot.
    ///
    /// # Errors
    /// Something in it is wrong: the old one stays.
    pub fn again(
        &self,
        old: &Config,
        may_remove: impl Fn(&Node) -> Result<(), String>,
    ) -> Result<Reread, ConfigError> {
        let (mut new, mut said) = self.flags.read()?;
        let mut changes = Changes::default();
        let first = old.vip().address;
        if merge(new.clone(), old).vip().address != first {
            // The one that was written first stays the first: its family may be the nodes'.
            let is_first = |vip: &&Vip| vip.address == old.first_vip;
            let first_vip = old.vips.iter().filter(is_first);
            let others = old.vips.iter().filter(|vip| !is_first(vip));
            let flags = self.flags.clone().with_vips(first_vip.chain(others));
            new = flags.read()?.0;
            self.keep("vip", &mut said);
            changes.kept.push(format!(
                "the first VIP, {first}, cannot change while the agent runs; the old value of \
                 `vip` stays; restart the agent to change it"
            ));
        }
        if let Err(why) = keep_weights(&mut new, old) {
            changes.kept.push(why);
        }
        if let Err(why) = refuse_list(&new, old, may_remove) {
            let Config {
                nodes, seeds, own, ..
            } = old.clone();
            (new.nodes, new.seeds, new.own) = (nodes, seeds, own);
            self.keep("nodes", &mut said);
            changes.kept.push(why);
        }
        let mut config = merge(new, old);
        refuse_nodes(&config)?;
        for (new, old) in zip(&mut said, &self.said) {
            if new.value == old.value {
                continue;
            }
            let key = if new.section == "top" {
                format!("`{}`", new.name)
            } else {
                format!("`{}` in [{}]", new.name, new.section)
            };
            match new.reload {
                Reload::Live => changes.applied.push(Change {
                    key,
                    old: old.text.clone(),
                    new: new.text.clone(),
                }),
                Reload::Restart => {
                    new.clone_from(old);
                    changes.kept.push(format!(
                        "{key} cannot change while the agent runs; the old value stays; restart \
                         the agent to change it"
                    ));
                }
            }
        }
        let origins = keep_places(&mut config, old);
        let source = Self {
            flags: self.flags.clone(),
            said,
        };
        Ok(Reread {
            config,
            source,
            origins,
            changes,
        })
    }

    /// A key at the top says what it said before.
    fn keep(&self, key: &str, said: &mut [Said]) {
        for (new, old) in zip(said, &self.said) {
            if (new.section, new.name) == ("top", key) {
                new.clone_from(old);
            }
        }
    }
}

/// The new configuration, without what counts from the next start on: the values of all keys that are
/// `Restart`.
fn merge(new: Config, old: &Config) -> Config {
    Config {
        vips: new.vips,
        first_vip: new.first_vip,
        checks: new.checks,
        health: new.health,
        http: new.http,
        nodes: new.nodes,
        seeds: new.seeds,
        own: OwnNode {
            weight: old.own.weight,
            ..new.own
        },
        members: Members {
            port: old.members.port,
            ..new.members
        },
        vrrp: Vrrp {
            router_id: old.vrrp.router_id,
            mode: old.vrrp.mode,
            ..new.vrrp
        },
        bfd: old.bfd.map(|old| new.bfd.unwrap_or(old)),
        datapath: Datapath {
            reset_after: new.datapath.reset_after,
            ..old.datapath.clone()
        },
        ..old.clone()
    }
}

/// A node that stays in the list keeps its weight, which decides its place in the rank table.
///
/// # Errors
/// It has another one.
fn keep_weights(new: &mut Config, old: &Config) -> Result<(), String> {
    let mut changed = vec![];
    for node in &mut new.nodes {
        let mut before = old.nodes.iter();
        let before = before.find(|before| before.address == node.address);
        if let Some(before) = before.filter(|before| before.weight != node.weight) {
            changed.push(node.name.clone());
            node.weight = before.weight;
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "`weight` of {} cannot change while it is in `nodes`; the old value stays; take the node off \
         the list, and add it with the new one",
        changed.join(", ")
    ))
}

/// Finds out whether the list of nodes may change.
///
/// # Errors
/// Why it cannot. The old one stays.
fn refuse_list(
    new: &Config,
    old: &Config,
    may_remove: impl Fn(&Node) -> Result<(), String>,
) -> Result<(), String> {
    if new.is_open() != old.is_open() {
        let (with, without) = ("a list of nodes", "agents that find each other");
        let (from, to) = match old.is_open() {
            true => (without, with),
            false => (with, without),
        };
        return Err(format!(
            "`nodes` cannot change from {from} to {to} while the agent runs; the old value stays; \
             restart the agent to change it"
        ));
    }
    let stays = |node: &&Node| new.nodes.iter().any(|new| new.address == node.address);
    let mut removed = old.nodes.iter().filter(|node| !stays(node));
    let refused = removed.try_for_each(may_remove);
    refused.map_err(|why| format!("`nodes` stays as it was: {why}"))
}

/// New VIPs were checked against the new nodes, and meet the old ones.
fn refuse_nodes(config: &Config) -> Result<(), ConfigError> {
    let of_nodes = config
        .nodes
        .iter()
        .flat_map(|node| [Some(node.address), node.other_address]);
    let mut of_nodes = of_nodes.flatten();
    let is_vip = |address: &IpAddr| config.vips.iter().any(|vip| vip.address == *address);
    of_nodes
        .find(is_vip)
        .map_or(Ok(()), |address| Err(ConfigError::StillANode { address }))
}

/// Puts VIPs, services and checks where they were before; new ones come behind them. Says where each
/// check comes from.
fn keep_places(config: &mut Config, old: &Config) -> Vec<Origin> {
    let place = |vip: &Vip| {
        let mut places = old.vips.iter();
        let place = places.position(|old| old.address == vip.address);
        (vip.address.is_ipv6(), place.unwrap_or(usize::MAX))
    };
    config.vips.sort_by_key(place);
    for vip in &mut config.vips {
        let before = old.vips.iter().find(|old| old.address == vip.address);
        let before = before.map_or(&[][..], |vip| &vip.services);
        // The first one is the API.
        if let Some((_, others)) = vip.services.split_first_mut() {
            others.sort_by_key(|service| {
                let place = before.iter().position(|old| old.port == service.port);
                place.unwrap_or(usize::MAX)
            });
        }
    }
    let places = places(&config.checks, &old.checks);
    for service in config.vips.iter_mut().flat_map(|vip| &mut vip.services) {
        if let Some(place) = places.get(service.check.get()) {
            service.check = CheckIndex::new(*place).unwrap_or(service.check);
        }
    }
    let mut sorted: Vec<_> = zip(places, config.checks.drain(..)).collect();
    sorted.sort_by_key(|(place, _)| *place);
    config.checks = sorted.into_iter().map(|(_, check)| check).collect();
    let proofs = |config: &Config| (config.health.tls.clone(), config.health.credentials.clone());
    let asked_alike = proofs(config) == proofs(old);
    let origin = |check: &Check| {
        let known = |same: &dyn Fn(&Check) -> bool| {
            let place = old.checks.iter().position(same)?;
            CheckIndex::new(place)
        };
        match (
            known(&|old| old == check),
            known(&|old| old.port == check.port),
        ) {
            (Some(place), _) if asked_alike => Origin::Same(place),
            (Some(place), _) | (None, Some(place)) => Origin::Like(place),
            (None, None) => Origin::New,
        }
    };
    config.checks.iter().map(origin).collect()
}

/// The place of each check: that of the API is the first, and others stay where they were if they
/// can.
fn places(new: &[Check], old: &[Check]) -> Vec<usize> {
    let mut places = vec![None; new.len()];
    let mut taken = vec![false; new.len()];
    for (index, check) in new.iter().enumerate() {
        let before = old.iter().position(|old| old == check);
        let wanted = if index == 0 { Some(0) } else { before };
        let free = wanted.filter(|place| taken.get(*place) == Some(&false));
        if let Some(place) = free {
            taken[place] = true;
            places[index] = Some(place);
        }
    }
    let mut free = (0..new.len()).filter(|place| !taken[*place]);
    let place = |place: Option<usize>| place.or_else(|| free.next()).unwrap_or_default();
    places.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VrrpMode;

    const OLD: &str =
        "vip = [\"10.0.0.10\", \"10.0.0.30\"]\nnodes = [\"10.0.0.11\", \"10.0.0.12\"]\n";

    /// What becomes of the text in the place of the old one.
    fn again(old: &str, new: &str) -> Result<Reread, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("vip.toml");
        std::fs::write(&file, old).unwrap();
        let flags = Flags {
            config: Some(file.clone()),
            ..Flags::default()
        };
        let (config, source) = Source::read(flags).unwrap();
        std::fs::write(&file, new).unwrap();
        source.again(&config, |node| match node.name.as_str() {
            "10.0.0.11" => Err("it is this node".to_owned()),
            _ => Ok(()),
        })
    }

    #[test]
    fn nothing_changes_by_another_spelling() {
        let same = "nodes = [ \"10.0.0.11\",\n \"10.0.0.12\" ]\n\
                    vip = [\"10.0.0.10:6443\", \"10.0.0.30\"]\n[health]\ninterval = \"0.5s\"\n";
        let reread = again(OLD, same).unwrap();
        assert_eq!(reread.changes, Changes::default());
        assert_eq!(reread.origins, [Origin::Same(CheckIndex::API)]);
    }

    #[test]
    fn live_keys_change_and_others_are_named() {
        let new = OLD.to_owned()
            + "allow = [\"10.0.0.0/8\"]\nrun_dir = \"/run/other\"\n[health]\npath = \"/livez\"\n\
               interval = \"250ms\"\n[vrrp]\nmode = \"multicast\"\ninterval = \"1s\"\n[bfd]\n\
               multiplier = 5\n[http]\nlisten = \"9700\"\n";
        let Reread {
            config,
            origins,
            changes,
            ..
        } = again(OLD, &new).unwrap();
        let texts = changes
            .applied
            .iter()
            .map(|change| format!("{}: {} -> {}", change.key, change.old, change.new));
        assert!(texts.eq([
            "`allow`: unset (everybody) -> [\"10.0.0.0/8\"]",
            "`interval` in [vrrp]: 100ms -> \"1s\"",
            "`multiplier` in [bfd]: 3 -> 5",
            "`path` in [health]: unset (`\"/readyz\"`) -> \"/livez\"",
            "`interval` in [health]: 500ms -> \"250ms\"",
            "`listen` in [http]: 127.0.0.1:9643 -> \"9700\"",
        ]));
        let kept = ["`run_dir`", "`mode` in [vrrp]"].map(|key| {
            format!(
                "{key} cannot change while the agent runs; the old value stays; restart the agent \
                 to change it"
            )
        });
        assert_eq!(changes.kept, kept);
        assert_eq!(config.vrrp.mode, VrrpMode::Unicast);
        assert_eq!(config.vrrp.interval.as_secs(), 1);
        assert_eq!(config.bfd.map(|bfd| bfd.multiplier), Some(5));
        assert!(config.run_dir.path() == std::path::Path::new("/run/vip"));
        assert_eq!(config.health.interval.as_millis(), 250);
        assert_eq!(origins, [Origin::Like(CheckIndex::API)]);
    }

    #[test]
    fn services_are_told_with_their_keys() {
        let one = "[[services]]\nport = 9345\nallow = [\"10.0.0.0/8\",\n  \"10.1.2.3\"]\n";
        let two = one.to_owned() + "[[services]]\n# Another one.\npath = \"/livez\"\nport = 80\n";
        let told = |old: &str, new: &str| {
            let reread = again(&(OLD.to_owned() + old), &(OLD.to_owned() + new)).unwrap();
            reread.changes.applied[0].to_string()
        };
        let first = "{ port = 9345, allow = [\"10.0.0.0/8\", \"10.1.2.3\"] }";
        assert_eq!(
            told("", one),
            format!("`services`: unset (none) -> [{first}]")
        );
        assert_eq!(
            told(one, &two),
            format!("`services`: [{first}] -> [{first}, {{ path = \"/livez\", port = 80 }}]")
        );
    }

    #[test]
    fn first_vip_stays_and_the_rest_is_applied() {
        let new = OLD.replace("10.0.0.10", "10.0.0.20") + "syn_rate = 9\n";
        let reread = again(OLD, &new).unwrap();
        assert_eq!(reread.config.vip().address.to_string(), "10.0.0.10");
        assert_eq!(reread.config.vips[1].services[0].syn_rate, Some(9));
        assert_eq!(reread.changes.applied.len(), 1);
        assert!(reread.changes.kept[0].starts_with("the first VIP, 10.0.0.10, cannot change"));
    }

    #[test]
    fn a_vip_of_the_other_family_is_added_behind_the_first_one() {
        let vips = |reread: &Reread| reread.config.vips_by_rank();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (old, new) = (ip("fd00::10"), ip("10.0.0.10"));
        let both = "vip = [\"fd00::10\", \"10.0.0.10\"]";
        let added = again("vip = \"fd00::10\"", both).unwrap();
        assert_eq!(added.changes.kept, [""; 0]);
        assert_eq!(vips(&added), [old, new]);
        assert!(added.config.is_of_nodes_family(ip("fd00::11")));
        assert_eq!(added.config.vips[0].address, new, "maps have IPv4 first");

        // Before the old one, it would move the nodes to the other family.
        let before = "syn_rate = 9\nvip = [\"10.0.0.10\", \"fd00::10\"]";
        for old_text in ["vip = \"fd00::10\"", both] {
            let refused = again(old_text, before).unwrap();
            assert!(
                refused.changes.kept[0].starts_with("the first VIP, fd00::10, cannot change"),
                "{:?}",
                refused.changes
            );
            assert_eq!(refused.config.first_vip, old);
            assert_eq!(refused.config.vip().address, old);
            assert_eq!(refused.config.vip().services[0].syn_rate, Some(9));
        }
    }

    #[test]
    fn what_stays_is_where_it_was() {
        let service = |port: u16| format!("[[services]]\nport = {port}\n");
        let old = OLD.to_owned() + &service(80) + &service(81) + &service(82);
        let new = OLD.replace("[\"10.0.0.10\"", "[\"10.0.0.10\", \"10.0.0.15\"")
            + &service(82)
            + &service(83)
            + &service(80);
        let Reread {
            config, origins, ..
        } = again(&old, &new).unwrap();
        let vips = config.vips.iter().map(|vip| vip.address.to_string());
        assert!(vips.eq(["10.0.0.10", "10.0.0.30", "10.0.0.15"]));
        let services = config.vips[0].services.iter();
        let services = services.map(|service| (service.port, service.check.get()));
        assert!(services.eq([(6443, 0), (80, 1), (82, 3), (83, 2)]));
        let ports = config.checks.iter().map(|check| check.port);
        assert!(ports.eq([6443, 80, 83, 82]));
        let same = |place| Origin::Same(CheckIndex::new(place).unwrap());
        assert_eq!(origins, [same(0), same(1), Origin::New, same(3)]);
    }

    #[test]
    fn nodes_come_and_go_but_for_those_that_must_stay() {
        let list = |nodes: &str| OLD.replace("[\"10.0.0.11\", \"10.0.0.12\"]", nodes);
        let reread = |nodes| again(OLD, &list(nodes)).unwrap();
        let addresses = |reread: &Reread| {
            let nodes = reread.config.nodes.iter();
            let addresses: Vec<_> = nodes.map(|node| node.address.to_string()).collect();
            addresses.join(" ")
        };
        let changed = reread("[\"10.0.0.11\", \"10.0.0.13\"]");
        assert_eq!(addresses(&changed), "10.0.0.11 10.0.0.13");
        assert_eq!(
            (changed.changes.applied.len(), changed.changes.kept.len()),
            (1, 0)
        );

        let refused = reread("[\"10.0.0.12\", \"10.0.0.13\"]");
        assert_eq!(addresses(&refused), "10.0.0.11 10.0.0.12");
        assert_eq!(
            refused.changes.kept,
            ["`nodes` stays as it was: it is this node"]
        );
        assert_eq!(refused.changes.applied, []);

        let heavier =
            reread("[\"10.0.0.11\", { address = \"10.0.0.12\", weight = 2, name = \"b\" }]");
        assert_eq!(
            (
                &heavier.config.nodes[1].name[..],
                heavier.config.nodes[1].weight
            ),
            ("b", 1)
        );
        assert!(heavier.changes.kept[0].starts_with("`weight` of b cannot change"));

        let open = again(OLD, "vip = [\"10.0.0.10\", \"10.0.0.30\"]\n").unwrap();
        assert_eq!(addresses(&open), "10.0.0.11 10.0.0.12");
        assert!(
            open.changes.kept[0].contains("from a list of nodes to agents that find each other")
        );
    }

    #[test]
    fn new_vip_is_no_node_that_stays() {
        let new = "vip = [\"10.0.0.10\", \"10.0.0.11\"]\nnodes = [\"10.0.0.12\"]\n";
        let error = again(OLD, new).unwrap_err().to_string();
        assert!(error.contains("10.0.0.11 is still a node"), "{error}");
        again(OLD, "vip = 5").unwrap_err();
    }
}
