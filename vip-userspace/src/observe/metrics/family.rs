//! A row of the table of metrics, and how it becomes what the encoder takes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use crate::observe::status::{Bfd, Node, Rosters, Status, Told};

/// A member of a family: its labels, which are pairs of name and value, and its value.
pub(super) struct Member<'a> {
    labels: Vec<(&'static str, Cow<'a, str>)>,
    value: f64,
}

impl<'a> Member<'a> {
    pub(super) fn new<const N: usize>(
        labels: [(&'static str, impl Into<Cow<'a, str>>); N],
        value: impl Value,
    ) -> Self {
        let labels = labels.map(|(name, value)| (name, value.into()));
        Self {
            labels: labels.into(),
            value: value.number(),
        }
    }
}

/// A figure that Prometheus, which knows 64-bit floats only, can have.
pub(super) trait Value {
    fn number(self) -> f64;
}

impl Value for f64 {
    fn number(self) -> f64 {
        self
    }
}

impl Value for u64 {
    fn number(self) -> f64 {
        self as f64
    }
}

impl Value for bool {
    fn number(self) -> f64 {
        f64::from(u8::from(self))
    }
}

/// The only member of a family without labels.
pub(super) fn one<'a>(value: impl Value) -> Vec<Member<'a>> {
    vec![Member {
        labels: vec![],
        value: value.number(),
    }]
}

/// A member for each node of which there is something to tell.
pub(super) fn per_node<V: Value>(
    status: &Status,
    value: impl Fn(&Node) -> Option<V>,
) -> Vec<Member<'_>> {
    let nodes = status.nodes.iter();
    nodes
        .filter_map(|node| Some(Member::new([("node", &node.name)], value(node)?)))
        .collect()
}

/// The same for each agent that has told something.
pub(super) fn per_agent<V: Value>(
    status: &Status,
    value: fn(&Told) -> Option<V>,
) -> Vec<Member<'_>> {
    per_node(status, |node| value(node.told.as_ref()?))
}

/// The same for each BFD session.
pub(super) fn per_session<V: Value>(
    status: &Status,
    value: fn(&Bfd) -> Option<V>,
) -> Vec<Member<'_>> {
    per_node(status, |node| value(node.bfd.as_ref()?))
}

/// The only member of a family about rosters.
pub(super) fn per_roster<V: Value>(status: &Status, value: fn(&Rosters) -> V) -> Vec<Member<'_>> {
    let rosters = status.rosters.iter();
    rosters.flat_map(|rosters| one(value(rosters))).collect()
}

/// A member for each entry, with its name as the label.
pub(super) fn per_name<'a>(
    label: &'static str,
    counts: &'a BTreeMap<String, u64>,
) -> Vec<Member<'a>> {
    let counts = counts.iter();
    counts
        .map(|(name, count)| Member::new([(label, name)], *count))
        .collect()
}

pub(super) fn seconds(millis: f64) -> f64 {
    millis / 1000.0
}

/// A family of metrics.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    members: fn(&Status) -> Vec<Member<'_>>,
}

pub(super) const fn gauge(
    name: &'static str,
    help: &'static str,
    members: fn(&Status) -> Vec<Member<'_>>,
) -> Family {
    Family {
        name,
        help,
        kind: MetricType::GAUGE,
        members,
    }
}

pub(super) const fn counter(
    name: &'static str,
    help: &'static str,
    members: fn(&Status) -> Vec<Member<'_>>,
) -> Family {
    Family {
        kind: MetricType::COUNTER,
        ..gauge(name, help, members)
    }
}

impl Family {
    pub(super) fn of(&self, status: &Status) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        let members = (self.members)(status).into_iter();
        family.set_metric(members.map(|member| self.metric(member)).collect());
        family
    }

    fn metric(&self, member: Member<'_>) -> Metric {
        let pairs = member.labels.into_iter().map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.into_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(member.value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(member.value);
            metric.set_gauge(gauge);
        }
        metric
    }
}
