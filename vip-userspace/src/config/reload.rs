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
use super::keys::Config;
use super::types::{Check, Vip};

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
    /// # Errors
    /// Something in it is wrong: the old one stays.
    pub fn again(&self, old: &Config) -> Result<Reread, ConfigError> {
        let (mut new, mut said) = self.flags.read()?;
        let mut changes = Changes::default();
        let first = old.vip().address;
        if merge(new.clone(), old).vip().address != first {
            let flags = self.flags.clone().with_vips(&old.vips);
            new = flags.read()?.0;
            for (new, old) in zip(&mut said, &self.said) {
                if (new.section, new.name) == ("top", "vip") {
                    new.clone_from(old);
                }
            }
            changes.kept.push(format!(
                "the first VIP, {first}, cannot change while the agent runs; the old value of \
                 `vip` stays; restart the agent to change it"
            ));
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
}

/// The new configuration, without what counts from the next start on: the values of all keys that are
/// `Restart`.
fn merge(new: Config, old: &Config) -> Config {
    Config {
        vips: new.vips,
        checks: new.checks,
        health: new.health,
        http: new.http,
        ..old.clone()
    }
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
        source.again(&config)
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
               interval = \"250ms\"\n[vrrp]\npreempt = true\n[http]\nlisten = \"9700\"\n";
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
            "`path` in [health]: unset (`\"/readyz\"`) -> \"/livez\"",
            "`interval` in [health]: 500ms -> \"250ms\"",
            "`listen` in [http]: 127.0.0.1:9643 -> \"9700\"",
        ]));
        let kept = ["`run_dir`", "`preempt` in [vrrp]"].map(|key| {
            format!(
                "{key} cannot change while the agent runs; the old value stays; restart the agent \
                 to change it"
            )
        });
        assert_eq!(changes.kept, kept);
        assert!(!config.vrrp.preempt && config.run_dir.path() == std::path::Path::new("/run/vip"));
        assert_eq!(config.health.interval.as_millis(), 250);
        assert_eq!(origins, [Origin::Like(CheckIndex::API)]);
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
    fn new_vip_is_no_node_that_stays() {
        let new = "vip = [\"10.0.0.10\", \"10.0.0.12\"]\nnodes = [\"10.0.0.11\"]\n";
        let error = again(OLD, new).unwrap_err().to_string();
        assert!(error.contains("10.0.0.12 is still a node"), "{error}");
        again(OLD, "vip = 5").unwrap_err();
    }
}
