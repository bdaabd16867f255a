//! Settings of the kernel, of one interface each, that keep it from speaking for the VIPs and let
//! clients' packets in: which to set, and which to set back.
//!
//! A VIP lies on `lo`, and the whole host has it. Unless told otherwise, the kernel answers ARP
//! for it on every NIC (`arp_ignore` 0), and names it as the sender of requests of its own
//! (`arp_announce` 0). Only addresses of the NIC itself are to be answered for (`arp_ignore` 1):
//! 3 hides addresses of scope host, but not while `route_localnet` is set, as kube-proxy sets it,
//! and it lets other NICs answer for the node's own address, so that peers steer to the wrong one.
//!
//! What an agent sets it notes before, with the value that was there. A noted value that has
//! another value now is somebody else's, and is left alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A setting (Documentation/networking/ip-sysctl.rst). Of all three the kernel takes the larger
/// value of the interface's own and `conf.all`'s.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// Which addresses ARP requests are answered for.
    ArpIgnore,
    /// Which addresses ARP requests name as their sender.
    ArpAnnounce,
    /// Whether packets are dropped whose source is not reached by the interface that they came
    /// in by.
    RpFilter,
}

impl Key {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::ArpIgnore, Self::ArpAnnounce, Self::RpFilter];

    /// As the kernel calls it, below `net.ipv4.conf`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ArpIgnore => "arp_ignore",
            Self::ArpAnnounce => "arp_announce",
            Self::RpFilter => "rp_filter",
        }
    }

    /// What an effective value makes the kernel do that it must not do.
    const fn is_wrong(self, effective: u32, route_localnet: bool) -> bool {
        match self {
            // 4 to 7 and all above 8 act as 0 (`arp_ignore` in net/ipv4/arp.c).
            Self::ArpIgnore => {
                !matches!(effective, 1 | 2 | 8) && (effective != 3 || route_localnet)
            }
            // 1 names the VIP where the NIC has an address in its subnet; above 2 acts as 0
            // (`arp_solicit` in net/ipv4/arp.c).
            Self::ArpAnnounce => effective != 2,
            // Above 1 is loose (`__fib_validate_source` in net/ipv4/fib_frontend.c).
            Self::RpFilter => effective == 1,
        }
    }

    /// What to set.
    const fn right(self) -> u32 {
        match self {
            Self::ArpIgnore => 1,
            Self::ArpAnnounce | Self::RpFilter => 2,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The values of one interface, or of `conf.all`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Values {
    /// That of [`Key::ArpIgnore`].
    pub arp_ignore: u32,
    /// That of [`Key::ArpAnnounce`].
    pub arp_announce: u32,
    /// That of [`Key::RpFilter`].
    pub rp_filter: u32,
}

impl Values {
    /// One of them.
    #[must_use]
    pub const fn get(&self, key: Key) -> u32 {
        match key {
            Key::ArpIgnore => self.arp_ignore,
            Key::ArpAnnounce => self.arp_announce,
            Key::RpFilter => self.rp_filter,
        }
    }

    /// The place of one of them.
    pub const fn get_mut(&mut self, key: Key) -> &mut u32 {
        match key {
            Key::ArpIgnore => &mut self.arp_ignore,
            Key::ArpAnnounce => &mut self.arp_announce,
            Key::RpFilter => &mut self.rp_filter,
        }
    }
}

/// An interface of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether the kernel answers ARP on it: Ethernet, and no port of a bridge or a bond.
    pub arp: bool,
    /// Its values.
    pub values: Values,
}

/// What the kernel has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// `conf.all`.
    pub all: Values,
    /// Whether addresses of scope host count as others do: `route_localnet` of `conf.all` or `lo`.
    pub route_localnet: bool,
    /// All interfaces but `lo`.
    pub interfaces: Vec<Interface>,
}

/// What this node needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// The kernel does not speak for addresses of IPv4 that lie on `lo`.
    pub silent: bool,
    /// Packets may come in by this interface whose answers leave by another one.
    pub loose: Option<u32>,
}

/// What was set, and what was there before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// Index of the interface.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The setting.
    pub key: Key,
    /// The value that was there.
    pub before: u32,
    /// The value that was set.
    pub set: u32,
}

impl fmt::Display for Note {
    /// One line of the file in the run directory. The name comes last: it may be anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            index,
            name,
            key,
            before,
            set,
        } = self;
        write!(f, "{index} {key} {before} {set} {name}")
    }
}

impl FromStr for Note {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let mut words = line.splitn(5, ' ');
        let mut word = || words.next().ok_or(());
        let index = word()?.parse().map_err(drop)?;
        let key = word()?;
        Ok(Self {
            index,
            key: Key::ALL
                .into_iter()
                .find(|known| known.name() == key)
                .ok_or(())?,
            before: word()?.parse().map_err(drop)?,
            set: word()?.parse().map_err(drop)?,
            name: word()?.to_owned(),
        })
    }
}

/// A value to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Index of the interface.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The setting.
    pub key: Key,
    /// The value that is there.
    pub from: u32,
    /// The value to write.
    pub to: u32,
}

/// `conf.all` has a value with which no value of an interface's own helps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hindrance {
    /// The setting.
    pub key: Key,
    /// The value of `conf.all`.
    pub all: u32,
    /// The interfaces that speak because of it.
    pub names: Vec<String>,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Decision {
    /// What is noted once all is done.
    pub notes: Vec<Note>,
    /// What to write, in any order, once the old and the new notes are written.
    pub changes: Vec<Change>,
    /// What cannot be helped.
    pub hindrances: Vec<Hindrance>,
}

/// Decides what to write, given what agents on this host have noted.
#[must_use]
pub fn decide(seen: &Seen, noted: &[Note], wanted: Wanted) -> Decision {
    let mut decision = Decision::default();
    for key in Key::ALL {
        let all = seen.all.get(key);
        let mut speaks = Vec::new();
        for interface in &seen.interfaces {
            let current = interface.values.get(key);
            // Whatever else is there now was set by somebody else, and is theirs.
            let note = noted
                .iter()
                .find(|note| note.index == interface.index && note.key == key)
                .filter(|note| note.set == current);
            let before = note.map_or(current, |note| note.before);
            let cared_for = match key {
                Key::ArpIgnore | Key::ArpAnnounce => wanted.silent && interface.arp,
                Key::RpFilter => wanted.loose == Some(interface.index),
            };
            let wrong = |own: u32| key.is_wrong(all.max(own), seen.route_localnet);
            let needed = cared_for && wrong(before);
            let helps = !wrong(key.right());
            if needed && !helps {
                speaks.push(interface.name.clone());
            }
            let to = if needed && helps {
                decision.notes.push(Note {
                    index: interface.index,
                    name: interface.name.clone(),
                    key,
                    before,
                    set: key.right(),
                });
                key.right()
            } else {
                before
            };
            if to != current {
                decision.changes.push(Change {
                    index: interface.index,
                    name: interface.name.clone(),
                    key,
                    from: current,
                    to,
                });
            }
        }
        if !speaks.is_empty() {
            decision.hindrances.push(Hindrance {
                key,
                all,
                names: speaks,
            });
        }
    }
    decision
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, all, .. } = self;
        let names = some(&self.names);
        let right = key.right();
        write!(
            f,
            "net.ipv4.conf.all.{key} = {all} lets the kernel speak for the VIPs on {names}: \
             set it to {right} (`sysctl -w net.ipv4.conf.all.{key}={right}`)"
        )
    }
}

/// The first few names, and how many there are beside them.
#[must_use]
pub fn some(names: &[String]) -> String {
    /// As many as a line of a terminal has room for.
    const SHOWN: usize = 6;
    let shown = names.len().min(SHOWN);
    let text = names[..shown].join(", ");
    match names.len() - shown {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SILENT: Wanted = Wanted {
        silent: true,
        loose: None,
    };

    fn interface(index: u32, values: [u32; 3]) -> Interface {
        let [arp_ignore, arp_announce, rp_filter] = values;
        Interface {
            index,
            name: format!("eth{index}"),
            arp: true,
            values: Values {
                arp_ignore,
                arp_announce,
                rp_filter,
            },
        }
    }

    fn host(all: [u32; 3], own: [u32; 3], route_localnet: bool) -> Seen {
        Seen {
            all: interface(0, all).values,
            route_localnet,
            interfaces: vec![interface(1, own)],
        }
    }

    fn carry_out(seen: &mut Seen, decision: &Decision) {
        for change in &decision.changes {
            let place = seen
                .interfaces
                .iter_mut()
                .find(|interface| interface.index == change.index)
                .unwrap();
            *place.values.get_mut(change.key) = change.to;
        }
    }

    /// What is written to an interface's own value of `arp_ignore`, if anything is.
    fn ignore(all: u32, own: u32, route_localnet: bool) -> Option<u32> {
        let seen = host([all, 2, 0], [own, 2, 0], route_localnet);
        let decision = decide(&seen, &[], SILENT);
        decision.changes.first().map(|change| change.to)
    }

    #[test]
    fn arp_ignore_is_set_where_the_kernel_would_answer_and_nowhere_else() {
        for own in [0, 4, 5, 6, 7, 9] {
            assert_eq!(ignore(0, own, false), Some(1), "{own}");
        }
        for strict in [1, 2, 8] {
            assert_eq!(ignore(0, strict, true), None, "{strict}");
            assert_eq!(ignore(strict, 0, true), None, "{strict}");
        }
        // As kube-proxy leaves it: 3 hides nothing.
        assert_eq!((ignore(0, 3, false), ignore(0, 3, true)), (None, Some(1)));
        assert_eq!((ignore(3, 0, false), ignore(3, 0, true)), (None, None));
    }

    #[test]
    fn what_conf_all_prevents_is_said() {
        for (all, route_localnet) in [(4, false), (3, true), (9, false)] {
            let seen = host([all, 2, 0], [0, 2, 0], route_localnet);
            let decision = decide(&seen, &[], SILENT);
            assert_eq!(decision.changes, []);
            let [hindrance] = &decision.hindrances[..] else {
                panic!("{decision:?}");
            };
            let text = hindrance.to_string();
            assert!(
                text.contains("eth1") && text.contains("all.arp_ignore=1"),
                "{text}"
            );
        }
    }

    #[test]
    fn arp_announce_one_is_not_enough() {
        let seen = host([1, 1, 0], [0, 1, 0], false);
        let [change] = &decide(&seen, &[], SILENT).changes[..] else {
            panic!("one change");
        };
        assert_eq!(
            (change.key, change.from, change.to),
            (Key::ArpAnnounce, 1, 2)
        );
    }

    #[test]
    fn a_strict_filter_becomes_loose_on_the_one_interface_where_that_is_wanted() {
        let mut seen = host([1, 2, 1], [1, 2, 0], false);
        seen.interfaces.push(interface(2, [1, 2, 0]));
        let wanted = Wanted {
            silent: true,
            loose: Some(2),
        };
        let decision = decide(&seen, &[], wanted);
        let [change] = &decision.changes[..] else {
            panic!("one change: {decision:?}");
        };
        assert_eq!((change.index, change.key, change.to), (2, Key::RpFilter, 2));
        for kind in [0, 2] {
            let seen = host([1, 2, kind], [1, 2, kind], false);
            let wanted = Wanted {
                loose: Some(1),
                ..SILENT
            };
            assert_eq!(decide(&seen, &[], wanted), Decision::default());
        }
    }

    #[test]
    fn what_others_have_set_meanwhile_is_theirs() {
        let mut seen = host([0; 3], [0; 3], false);
        let first = decide(&seen, &[], SILENT);
        carry_out(&mut seen, &first);
        // As strict: left alone, also when nothing is wanted any more.
        seen.interfaces[0].values.arp_ignore = 2;
        let second = decide(&seen, &first.notes, SILENT);
        assert_eq!(second.changes, []);
        assert!(second.notes.iter().all(|note| note.key != Key::ArpIgnore));
        // Too loose: set again, and that is what is set back.
        seen.interfaces[0].values.arp_ignore = 5;
        let third = decide(&seen, &first.notes, SILENT);
        assert_eq!(third.notes[0].before, 5);
        assert_eq!(third.changes[0].to, 1);
    }

    #[test]
    fn what_is_needed_no_longer_is_set_back() {
        let mut seen = host([0; 3], [0; 3], false);
        let first = decide(&seen, &[], SILENT);
        carry_out(&mut seen, &first);
        // The operator has made it so for all: ours is not needed.
        seen.all.arp_ignore = 1;
        let second = decide(&seen, &first.notes, SILENT);
        let [change] = &second.changes[..] else {
            panic!("one change: {second:?}");
        };
        assert_eq!((change.key, change.to), (Key::ArpIgnore, 0));
        // A port of a bridge answers no ARP.
        seen.all.arp_ignore = 0;
        seen.interfaces[0].arp = false;
        let third = decide(&seen, &first.notes, SILENT);
        assert_eq!(third.changes.len(), 2);
    }

    #[test]
    fn notes_are_read_as_they_are_written() {
        let note = Note {
            index: 3,
            name: "a b".to_owned(),
            key: Key::RpFilter,
            before: 1,
            set: 2,
        };
        assert_eq!(note.to_string().parse(), Ok(note));
        for line in [
            "",
            "x",
            "3 arp_ignore 0",
            "3 other 0 1 eth0",
            "3 rp_filter 1 2",
        ] {
            assert_eq!(line.parse::<Note>(), Err(()), "{line}");
        }
    }

    proptest! {
        #[test]
        fn all_is_done_at_once_and_can_be_undone(
            all in prop::array::uniform3(0..10_u32),
            own in prop::array::uniform3(0..10_u32),
            route_localnet: bool,
        ) {
            let before = host(all, own, route_localnet);
            let mut seen = before.clone();
            let wanted = Wanted { silent: true, loose: Some(1) };
            let first = decide(&seen, &[], wanted);
            carry_out(&mut seen, &first);
            let hindered = |key| first.hindrances.iter().any(|found| found.key == key);
            for key in Key::ALL {
                let effective = seen.all.get(key).max(seen.interfaces[0].values.get(key));
                prop_assert_eq!(key.is_wrong(effective, route_localnet), hindered(key));
            }
            let again = decide(&seen, &first.notes, wanted);
            prop_assert_eq!(&again.changes, &vec![]);
            prop_assert_eq!(&again.notes, &first.notes);
            let undone = decide(&seen, &first.notes, Wanted::default());
            carry_out(&mut seen, &undone);
            prop_assert_eq!(undone.notes, vec![]);
            prop_assert_eq!(seen, before);
        }
    }
}
