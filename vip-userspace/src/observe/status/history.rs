//! What has happened of late: who owned the VIP, and which troubles came and went. It is read off the
//! journal, so it goes back over restarts of the agent.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lines::{Line, hanging};
use super::since::{Since, age};
use crate::observe::event::{Record, Severity};
use crate::observe::paint::Ink;

/// Entries of each kind.
const KEPT: usize = 10;

/// What has happened of late, the newest first.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Changes of the owner.
    pub owners: Vec<OwnerChange>,
    /// Faults, alarms, conflicts, and nodes and servers that failed.
    pub troubles: Vec<Trouble>,
}

/// A change of the owner, as one node has seen it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OwnerChange {
    /// When, by that node's clock.
    pub time: Timestamp,
    /// The owner before; `None` if that is not known.
    pub from: Option<String>,
    /// The owner from then on; `None` if none was heard.
    pub to: Option<String>,
    /// Why, for people.
    pub cause: Option<String>,
    /// For how long the VIP may have gone without an answer, if that is known.
    pub duration_ms: Option<f64>,
}

/// Something that was wrong, or still is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Trouble {
    /// What, for programs: the event's name.
    pub event: String,
    /// How much somebody should care while it lasts.
    pub severity: Severity,
    /// The node that it is about, if not the one that was asked.
    pub node: Option<String>,
    /// What, for people.
    pub text: String,
    /// When it began, or was found.
    pub began: Timestamp,
    /// When it was over; `None` if it is not. An agent that starts looks at everything anew.
    pub ended: Option<Timestamp>,
}

impl OwnerChange {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let name = |node: &Option<String>| node.clone().unwrap_or_else(|| "nobody".to_owned());
        let mut text = match (&self.from, &self.to) {
            (Some(from), _) => format!("{from} -> {}", name(&self.to)),
            (None, Some(to)) => to.clone(),
            (None, None) => "nobody".to_owned(),
        };
        if let Some(cause) = &self.cause {
            text += &format!(": {cause}");
        }
        if let Some(took) = self.duration_ms {
            text += &format!(" ({took:.0} ms)");
        }
        text
    }
}

impl Trouble {
    /// For people: the node, what, and for how long it lasted.
    #[must_use]
    pub fn full_text(&self) -> String {
        let node = self.node.as_ref();
        let node = node.map_or_else(String::new, |node| format!("{node}: "));
        let lasted = match self.ended {
            Some(ended) => {
                format!(" (over after {})", age(millis(self.began, ended)))
            }
            None => " (not over)".to_owned(),
        };
        format!("{node}{}{lasted}", self.text)
    }
}

impl History {
    /// Since when a node owns the VIP, as an agent knows that has run for some time.
    #[must_use]
    pub fn owner_since(&self, owner: &str, now: Timestamp, uptime: Duration) -> Since {
        let uptime_ms = uptime.as_millis() as u64;
        let last = self.owners.first();
        let last = last.filter(|change| change.to.as_deref() == Some(owner));
        let for_ms = last.map(|change| millis(change.time, now));
        // Before it started, others may have owned it in between.
        match for_ms.filter(|for_ms| *for_ms <= uptime_ms) {
            Some(for_ms) => Since {
                for_ms,
                agent_start: false,
            },
            None => Since {
                for_ms: uptime_ms,
                agent_start: true,
            },
        }
    }

    /// The owners of late, the newest first: when, and why.
    #[must_use]
    pub fn owner_lines(&self, now: Timestamp, width: usize) -> Vec<Line> {
        let owners = self.owners.iter();
        let lines = owners.flat_map(|change| dated(now, change.time, &change.text(), width));
        lines.collect()
    }

    /// The troubles of late, the newest first: when they began, and what.
    #[must_use]
    pub fn trouble_lines(&self, now: Timestamp, width: usize) -> Vec<Line> {
        let troubles = self.troubles.iter();
        let lines = troubles.flat_map(|trouble| {
            let severity = match trouble.ended {
                None => trouble.severity,
                Some(_) => Severity::Info,
            };
            let lines = dated(now, trouble.began, &trouble.full_text(), width);
            lines.into_iter().map(move |line| line.painted(severity))
        });
        lines.collect()
    }

    /// The last entries of a journal that `own` has written.
    #[must_use]
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>, own: &str) -> Self {
        let mut owners: Vec<OwnerChange> = Vec::new();
        let mut troubles: Vec<(Option<String>, Trouble)> = Vec::new();
        for record in records {
            let event = &record.event;
            match &*event.name {
                "became_owner" => change(&mut owners, record, Some(own)),
                "owner" => change(&mut owners, record, event.node.as_deref()),
                "started" => {
                    for (_, trouble) in &mut troubles {
                        trouble.ended.get_or_insert(record.time);
                    }
                }
                _ => {}
            }
            let Some(key) = &event.trouble else { continue };
            let is_it = |(other, trouble): &&mut (Option<String>, Trouble)| {
                other.as_ref() == Some(key) && trouble.ended.is_none()
            };
            let open = troubles.iter_mut().find(is_it);
            match (open, event.severity) {
                (Some((_, open)), Severity::Info) => open.ended = Some(record.time),
                (Some((_, open)), _) => open.text = text(record),
                (None, Severity::Info) => {}
                (None, severity) => troubles.push((
                    Some(key.clone()),
                    Trouble {
                        event: event.name.to_string(),
                        severity,
                        node: event.node.clone(),
                        text: text(record),
                        began: record.time,
                        ended: None,
                    },
                )),
            }
        }
        let troubles = troubles.into_iter().map(|(_, trouble)| trouble);
        Self {
            owners: owners.into_iter().rev().take(KEPT).collect(),
            troubles: troubles.rev().take(KEPT).collect(),
        }
    }
}

/// Milliseconds from one time to another; none if the clock was set back in between.
fn millis(from: Timestamp, to: Timestamp) -> u64 {
    (to.as_millisecond() - from.as_millisecond()).max(0) as u64
}

/// A text behind its age.
fn dated(now: Timestamp, time: Timestamp, text: &str, width: usize) -> Vec<Line> {
    let ago = format!("{:>7} ago", age(millis(time, now)));
    hanging(Ink::Plain, &ago, ago.len() + 2, text, width)
}

fn text(record: &Record) -> String {
    let event = &record.event;
    let mut text = event.message.to_string();
    if let Some(cause) = &event.cause {
        text += &format!(": {cause}");
    }
    text
}

/// Takes in who owns the VIP from a record on. A moment without an owner is part of the change to the
/// next one.
fn change(owners: &mut Vec<OwnerChange>, record: &Record, to: Option<&str>) {
    let event = &record.event;
    let now = OwnerChange {
        time: record.time,
        from: None,
        to: to.map(str::to_owned),
        cause: event.cause.clone(),
        duration_ms: event.duration_ms,
    };
    match owners.last_mut() {
        Some(last) if last.to == now.to => {}
        Some(last) if last.to.is_none() && last.from == now.to => drop(owners.pop()),
        Some(last) if last.to.is_none() => {
            let cause = now.cause.or_else(|| last.cause.take());
            *last = OwnerChange {
                from: last.from.take(),
                cause,
                ..now
            };
        }
        before => {
            let from = before.and_then(|last| last.to.clone());
            owners.push(OwnerChange { from, ..now });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::event::Event;

    fn records(events: Vec<Event>) -> Vec<Record> {
        let numbered = events.into_iter().zip(0..);
        let record = |(event, second): (Event, i64)| Record {
            sequence: second as u64,
            time: Timestamp::from_second(second).expect("a time"),
            event,
        };
        numbered.map(record).collect()
    }

    fn owner(node: Option<&str>) -> Event {
        let cause = node.is_some().then(|| "cp2 is no longer heard".to_owned());
        Event::owner(node.map(str::to_owned), cause)
    }

    #[test]
    fn a_moment_without_an_owner_belongs_to_the_change() {
        let took = Some(Duration::from_millis(150));
        let records = records(vec![
            owner(Some("cp2")),
            owner(None),
            owner(Some("cp3")),
            owner(Some("cp3")),
            Event::became_owner("cp3 gave the VIP up".to_owned(), took),
            owner(None),
        ]);
        let owners = History::of(&records, "cp1").owners;
        let ends = |change: &OwnerChange| (change.from.clone(), change.to.clone());
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(
            owners.iter().map(ends).collect::<Vec<_>>(),
            [
                (name("cp1"), None),
                (name("cp3"), name("cp1")),
                (name("cp2"), name("cp3")),
                (None, name("cp2")),
            ]
        );
        assert_eq!(owners[1].duration_ms, Some(150.0));
        let history = History {
            owners: owners[1..].to_vec(),
            troubles: vec![],
        };
        let since = |owner, uptime| {
            let now = Timestamp::from_second(10).expect("a time");
            let since = history.owner_since(owner, now, Duration::from_secs(uptime));
            (since.for_ms, since.agent_start)
        };
        assert_eq!(since("cp1", 60), (6000, false));
        assert_eq!(
            since("cp1", 3),
            (3000, true),
            "it was so when this agent started"
        );
        assert_eq!(since("cp9", 60), (60_000, true), "no event tells of it");
        assert_eq!(owners[1].time.as_second(), 4);
    }

    #[test]
    fn a_trouble_ends_with_its_own_end_or_with_the_agent() {
        let not_ready =
            |node: &str| Event::server_not_ready(node.to_owned(), 6443, "no".to_owned());
        let records = records(vec![
            not_ready("cp2"),
            Event::fault("no carrier", false),
            Event::server_ready("cp3".to_owned(), 6443),
            Event::server_ready("cp2".to_owned(), 6443),
            Event::started("0.1.0", "eth0", false),
            not_ready("cp3"),
        ]);
        let troubles = History::of(&records, "cp1").troubles;
        let times = |trouble: &Trouble| {
            let ended = trouble.ended.map(Timestamp::as_second);
            (trouble.event.clone(), trouble.began.as_second(), ended)
        };
        assert_eq!(
            troubles.iter().map(times).collect::<Vec<_>>(),
            [
                ("server_not_ready".to_owned(), 5, None),
                ("fault".to_owned(), 1, Some(4)),
                ("server_not_ready".to_owned(), 0, Some(3)),
            ]
        );
    }

    #[test]
    fn only_the_last_entries_are_kept() {
        let names = (0..40).map(|number| format!("cp{}", number % 3));
        let records = records(names.map(|name| owner(Some(&name))).collect());
        let owners = History::of(&records, "cp9").owners;
        assert_eq!(owners.len(), KEPT);
        assert_eq!(owners[0].time.as_second(), 39);
    }
}
