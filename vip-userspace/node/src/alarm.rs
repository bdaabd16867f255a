//! What is wrong on the segment, for as long as it is: somebody must deal with it, and no agent can.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vip_common::wire::time::BootNanos;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A host speaks VRRP or BFD to this cluster and is not in its list of nodes.
    Stranger,
    /// What the agents of another node and of this one say to each other does not arrive.
    Unheard,
    /// Another node runs no agent.
    NoAgent,
    /// Another node is not a neighbour on the VIP's NIC.
    OffLink,
    /// Another node owns the VIP as well as this one.
    TwoOwners,
    /// Another host has this node's own address.
    Duplicate,
    /// The Ethernet addresses that another node's frames come from do not settle, or are a third
    /// node's, too.
    SourceMacs,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::Stranger,
        Self::Unheard,
        Self::NoAgent,
        Self::OffLink,
        Self::TwoOwners,
        Self::Duplicate,
        Self::SourceMacs,
    ];

    /// For programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Unheard => "unheard",
            Self::NoAgent => "no_agent",
            Self::OffLink => "off_link",
            Self::TwoOwners => "two_owners",
            Self::Duplicate => "duplicate",
            Self::SourceMacs => "source_macs",
        }
    }
}

/// An alarm that is up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// What it is, for people.
    pub text: String,
    /// It is over if it is not raised again until then; `None`: it is lowered.
    until: Option<BootNanos>,
}

/// What changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Of which kind.
    pub kind: Kind,
    /// A node's name, or an address.
    pub about: String,
    /// What is wrong; `None`: it is over.
    pub text: Option<String>,
}

/// All alarms of a node, by kind and by whom they are about.
#[derive(Clone, Debug, Default)]
pub struct Alarms(BTreeMap<(Kind, String), Alarm>);

impl Alarms {
    /// Raises an alarm, until it is lowered, or for so long after `now`. Tells whether it is news.
    pub fn raise(
        &mut self,
        kind: Kind,
        about: &str,
        text: String,
        until: Option<BootNanos>,
    ) -> Option<Change> {
        let alarm = Alarm { text, until };
        let text = alarm.text.clone();
        let before = self.0.insert((kind, about.to_owned()), alarm);
        before
            .is_none_or(|before| before.text != text)
            .then(|| Change {
                kind,
                about: about.to_owned(),
                text: Some(text),
            })
    }

    /// Lowers an alarm, if it is up.
    pub fn lower(&mut self, kind: Kind, about: &str) -> Option<Change> {
        let (kind, about) = self.0.remove_entry(&(kind, about.to_owned()))?.0;
        let text = None;
        Some(Change { kind, about, text })
    }

    /// Lowers those that were not raised again in time.
    pub fn expire(&mut self, now: BootNanos) -> Vec<Change> {
        let over = |alarm: &Alarm| alarm.until.is_some_and(|until| until <= now);
        let gone = self.0.extract_if(.., |_, alarm| over(alarm));
        let change = |((kind, about), _)| Change {
            kind,
            about,
            text: None,
        };
        gone.map(change).collect()
    }

    /// Whether an alarm is up.
    #[must_use]
    pub fn is_up(&self, kind: Kind, about: &str) -> bool {
        self.0.contains_key(&(kind, about.to_owned()))
    }

    /// Those that are up: kind, whom it is about, and the alarm.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &str, &Alarm)> {
        let alarms = self.0.iter();
        alarms.map(|((kind, about), alarm)| (*kind, about.as_str(), alarm))
    }

    /// Whether none is up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How long a host that was heard counts as one that speaks: three looks at a segment on which
/// something is wrong.
pub const HEARD: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarm_is_news_once_and_ends_by_itself_or_by_word() {
        let mut alarms = Alarms::default();
        let at = |seconds| BootNanos(1).after(Duration::from_secs(seconds));
        let hear = |alarms: &mut Alarms, second| {
            let until = Some(at(second).after(HEARD));
            alarms.raise(Kind::Stranger, "10.0.0.23", "speaks".to_owned(), until)
        };
        let text = Some("speaks".to_owned());
        let news = hear(&mut alarms, 0).expect("it is news");
        assert_eq!((news.kind, news.text), (Kind::Stranger, text));
        assert_eq!(hear(&mut alarms, 10), None);
        assert_eq!(alarms.expire(at(16)), []);
        let gone = alarms.expire(at(25));
        assert_eq!(gone.len(), 1);
        assert_eq!(
            (gone[0].about.as_str(), &gone[0].text),
            ("10.0.0.23", &None)
        );
        assert!(alarms.is_empty());

        let up = alarms.raise(Kind::TwoOwners, "cp2", "owns it too".to_owned(), None);
        assert!(up.is_some() && alarms.expire(at(1000)).is_empty());
        assert!(alarms.lower(Kind::TwoOwners, "cp2").is_some());
        assert_eq!(alarms.lower(Kind::TwoOwners, "cp2"), None);
    }
}
