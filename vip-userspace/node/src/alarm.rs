//! Problems of the segment that only an operator can solve. An alarm is up as long as its problem
//! lasts.

use std::collections::BTreeMap;
use std::time::Duration;

use vip_common::wire::time::BootNanos;

/// The kind of a problem.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A host that is no member sends VRRP or BFD packets to this cluster.
    Stranger,
    /// VRRP or BFD packets between another node's agent and this one do not arrive.
    Unheard,
    /// Another node runs no agent.
    NoAgent,
    /// Another node is not a neighbour on the VIP's NIC.
    OffLink,
    /// Another node owns the VIP as well as this one.
    TwoOwners,
    /// Another host has this node's own address.
    Duplicate,
    /// The source MACs of another node's frames keep changing, or are also a third node's.
    SourceMacs,
    /// What must be the same on all nodes is not.
    Differs,
    /// Hellos of a member are sealed otherwise than this node's.
    Refused,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Stranger,
        Self::Unheard,
        Self::NoAgent,
        Self::OffLink,
        Self::TwoOwners,
        Self::Duplicate,
        Self::SourceMacs,
        Self::Differs,
        Self::Refused,
    ];

    /// Name in JSON and metrics.
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
            Self::Differs => "differs",
            Self::Refused => "refused",
        }
    }
}

impl Kind {
    /// The problem in a few words, behind the name of the node or host.
    #[must_use]
    pub const fn brief(self) -> &'static str {
        match self {
            Self::Stranger => "an agent that is no member",
            Self::Unheard => "its packets do not arrive",
            Self::NoAgent => "no agent runs there",
            Self::OffLink => "not a neighbour on the VIP's NIC",
            Self::TwoOwners => "owns the VIP, too",
            Self::Duplicate => "has this node's address",
            Self::SourceMacs => "its frames come from changing addresses",
            Self::Differs => "has another configuration",
            Self::Refused => "has another key",
        }
    }
}

/// An alarm that is up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// The problem, as a text for operators.
    pub text: String,
    /// When it ends unless it is raised again; `None`: it lasts until it is lowered.
    until: Option<BootNanos>,
}

/// An alarm was raised, got another text, or ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The kind of the problem.
    pub kind: Kind,
    /// Name of the node that it is about, or an address.
    pub about: String,
    /// The problem, as a text for operators; `None`: it is over.
    pub text: Option<String>,
}

/// All alarms of a node, by kind and by the node or address that they are about.
#[derive(Clone, Debug, Default)]
pub struct Alarms(BTreeMap<(Kind, String), Alarm>);

impl Alarms {
    /// Raises an alarm that ends at `until`, or when it is lowered. Returns a change if it was not
    /// up with this text.
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

    /// Lowers all alarms about a node that is no member any more.
    pub fn end(&mut self, about: &str) -> Vec<Change> {
        let kinds = Kind::ALL.into_iter();
        kinds.filter_map(|kind| self.lower(kind, about)).collect()
    }

    /// Ends alarms whose time is over.
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

    /// The alarms that are up: kind, the node or address that it is about, and the alarm.
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

/// How long an alarm about packets of a host lasts after the last packet: three surveys of a
/// segment with problems.
pub const HEARD: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarm_is_reported_once_and_expires_or_is_lowered() {
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

        for (kind, about) in [
            (Kind::Differs, "cp2"),
            (Kind::Unheard, "cp2"),
            (Kind::Differs, "cp3"),
        ] {
            alarms.raise(kind, about, "some".to_owned(), None);
        }
        assert_eq!(alarms.end("cp2").len(), 2);
        assert!(alarms.is_up(Kind::Differs, "cp3"));
    }
}
