//! Bonds that a NIC is, or is made of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where the kernel describes the interfaces of this network namespace.
pub const NICS: &str = "/sys/class/net";

/// A bond.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bond {
    /// Its name.
    pub name: String,
    /// Its mode by name (Documentation/networking/bonding.rst): `active-backup`.
    pub mode: String,
}

/// The bonds among an interface and all those below it, as ports or as what a VLAN lies on.
/// `nics` is [`NICS`]. What cannot be read is no bond.
#[must_use]
pub fn below(nics: &Path, interface: &str) -> Vec<Bond> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut left = vec![interface.to_owned()];
    while let Some(name) = left.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let folder = nics.join(&name);
        // Its name and number: `balance-tlb 5`.
        let mode = fs::read_to_string(folder.join("bonding/mode")).ok();
        if let Some(mode) = mode
            .as_deref()
            .and_then(|mode| mode.split_whitespace().next())
        {
            found.push(Bond {
                name,
                mode: mode.to_owned(),
            });
        }
        // Links to the interfaces below, by name.
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        left.extend(entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix("lower_").map(str::to_owned)
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bonds_are_found_through_bridges_and_vlans() {
        let nics = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: Option<&str>, lower: &[&str]| {
            let folder = nics.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            if let Some(mode) = mode {
                fs::create_dir(folder.join("bonding")).unwrap();
                fs::write(folder.join("bonding/mode"), mode).unwrap();
            }
            for name in lower {
                fs::write(folder.join(format!("lower_{name}")), "").unwrap();
            }
        };
        make("br0", None, &["bond0.5", "tap0"]);
        make("bond0.5", None, &["bond0"]);
        make("bond0", Some("balance-tlb 5\n"), &["eth0", "eth1"]);
        make("eth0", None, &[]);
        make("eth1", None, &["eth1"]);
        let bond = Bond {
            name: "bond0".to_owned(),
            mode: "balance-tlb".to_owned(),
        };
        for top in ["br0", "bond0.5", "bond0"] {
            assert_eq!(
                below(nics.path(), top),
                std::slice::from_ref(&bond),
                "{top}"
            );
        }
        for other in ["eth0", "eth1", "tap0"] {
            assert_eq!(below(nics.path(), other), []);
        }
    }
}
