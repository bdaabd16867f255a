//! `/metrics`, in the Prometheus text format: all that [`Status`] says, and how long probes take.
//!
//! Names and units follow Prometheus' conventions: base units, `_total` for what only grows, one
//! meaning a name. What packets did is counted in the kernel, and goes on over restarts of the
//! agent; the rest begins anew with it, as counters of processes do.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::core::Collector as _;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{HistogramOpts, HistogramVec, TextEncoder};

use vip_node::Fault;
use vip_node::alarm::Kind;
use vip_node::bfd;
use vip_node::election::State;
use vip_node::hooks::Running;

use super::status::{Bfd, Node, Rosters, Status, Told};

/// Content type of the text (version 0.0.4 of the format).
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// How long probes take, by node and port.
#[derive(Clone, Debug)]
pub struct ProbeTimes(HistogramVec);

/// The histogram's name.
const PROBE_TIMES: &str = "vip_probe_duration_seconds";

/// Upper bounds in seconds. A server nearby answers `/readyz` in a few milliseconds; the default
/// time-out is a second.
const PROBE_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

impl Default for ProbeTimes {
    fn default() -> Self {
        let options = HistogramOpts::new(
            PROBE_TIMES,
            "Time from connecting to a server to its answer to a health probe.",
        );
        let options = options.buckets(PROBE_BUCKETS.to_vec());
        Self(HistogramVec::new(options, &["node", "port"]).expect("name and labels are valid"))
    }
}

impl ProbeTimes {
    /// A probe was answered.
    pub fn note(&self, node: &str, port: u16, time: Duration) {
        let labels = [node, &port.to_string()];
        self.0
            .with_label_values(&labels)
            .observe(time.as_secs_f64());
    }
}

/// All metrics as text.
#[must_use]
pub fn render(status: &Status, probes: &ProbeTimes) -> String {
    let mut families: Vec<_> = FAMILIES.iter().map(|family| family.of(status)).collect();
    families.extend(probes.0.collect());
    // The encoder takes a family without members for an error.
    families.retain(|family| !family.get_metric().is_empty());
    let text = TextEncoder::new().encode_to_string(&families);
    text.expect("names are valid and no family is empty")
}

/// A member of a family: its labels, which are pairs of name and value, and its value.
struct Member<'a> {
    labels: Vec<(&'static str, Cow<'a, str>)>,
    value: f64,
}

impl<'a> Member<'a> {
    fn new<const N: usize>(
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
trait Value {
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
fn one<'a>(value: impl Value) -> Vec<Member<'a>> {
    vec![Member {
        labels: vec![],
        value: value.number(),
    }]
}

/// A member for each node of which there is something to tell.
fn per_node<V: Value>(status: &Status, value: fn(&Node) -> Option<V>) -> Vec<Member<'_>> {
    let nodes = status.nodes.iter();
    nodes
        .filter_map(|node| Some(Member::new([("node", &node.name)], value(node)?)))
        .collect()
}

/// The same for each agent that has told something.
fn per_agent<V: Value>(status: &Status, value: fn(&Told) -> Option<V>) -> Vec<Member<'_>> {
    let nodes = status.nodes.iter();
    nodes
        .filter_map(|node| {
            let value = value(node.told.as_ref()?)?;
            Some(Member::new([("node", &node.name)], value))
        })
        .collect()
}

/// The same for each BFD session.
fn per_session<V: Value>(status: &Status, value: fn(&Bfd) -> Option<V>) -> Vec<Member<'_>> {
    let nodes = status.nodes.iter();
    nodes
        .filter_map(|node| {
            let value = value(node.bfd.as_ref()?)?;
            Some(Member::new([("node", &node.name)], value))
        })
        .collect()
}

/// The only member of a family about rosters.
fn per_roster<V: Value>(status: &Status, value: fn(&Rosters) -> V) -> Vec<Member<'_>> {
    let rosters = status.rosters.iter();
    rosters.flat_map(|rosters| one(value(rosters))).collect()
}

/// A member for each entry, with its name as the label.
fn per_name<'a>(label: &'static str, counts: &'a BTreeMap<String, u64>) -> Vec<Member<'a>> {
    let counts = counts.iter();
    counts
        .map(|(name, count)| Member::new([(label, name)], *count))
        .collect()
}

fn seconds(millis: f64) -> f64 {
    millis / 1000.0
}

/// A family of metrics.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    members: fn(&Status) -> Vec<Member<'_>>,
}

const fn gauge(
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

const fn counter(
    name: &'static str,
    help: &'static str,
    members: fn(&Status) -> Vec<Member<'_>>,
) -> Family {
    Family {
        kind: MetricType::COUNTER,
        ..gauge(name, help, members)
    }
}

/// The names of all metrics.
pub const NAMES: [&str; FAMILIES.len() + 1] = {
    let mut names = [PROBE_TIMES; FAMILIES.len() + 1];
    let mut row = 0;
    while row < FAMILIES.len() {
        names[row] = FAMILIES[row].name;
        row += 1;
    }
    names
};

/// The table: all metrics but the histogram of probes.
const FAMILIES: &[Family] = &[
    gauge(
        "vip_build_info",
        "Version of the agent; always 1.",
        |status| vec![Member::new([("version", &status.version)], 1.0)],
    ),
    gauge("vip_owner", "Whether this node owns the VIP.", |status| {
        one(status.state == State::Active)
    }),
    gauge(
        "vip_owner_info",
        "Which node owns the VIP, as this one hears; always 1.",
        |status| {
            let owner = status.owner.iter();
            owner
                .map(|owner| Member::new([("node", &owner.name)], 1.0))
                .collect()
        },
    ),
    gauge(
        "vip_state",
        "Whether VRRP is in this state (RFC 9568, section 6.4).",
        |status| {
            let is_in = |state: State| {
                let labels = [("state", state.name())];
                Member::new(labels, status.state == state)
            };
            State::ALL.map(is_in).into()
        },
    ),
    gauge("vip_priority", "VRRP priority of this node.", |status| {
        one(u64::from(status.priority))
    }),
    gauge(
        "vip_answer_lease_remaining_seconds",
        "For how much longer this node answers for the VIP if its agent hangs now.",
        |status| one(seconds(status.answer_lease_remaining_ms as f64)),
    ),
    counter(
        "vip_transitions_total",
        "Changes of this node's part.",
        |status| {
            let changes = |(state, event): (State, &str)| {
                let count = status.events.get(event).copied().unwrap_or(0);
                Member::new([("to", state.name())], count)
            };
            TRANSITIONS.map(changes).into()
        },
    ),
    gauge(
        "vip_failover_duration_seconds",
        "From the last sign of life of the owner before to the moment at which this node last took \
         over.",
        |status| {
            let last = status.last_failover_ms.into_iter();
            last.flat_map(|millis| one(seconds(millis))).collect()
        },
    ),
    gauge(
        "vip_fault",
        "Whether this keeps the node from owning the VIP.",
        |status| {
            let is_there = |fault: Fault| {
                let labels = [("fault", fault.name())];
                Member::new(labels, status.fault_codes.contains(&fault))
            };
            Fault::ALL.map(is_there).into()
        },
    ),
    counter(
        "vip_conflicts_total",
        "Claims of the VIP by somebody who is no agent of the cluster.",
        |status| one(status.conflicts),
    ),
    gauge(
        "vip_conflict",
        "Whether somebody who is no agent of the cluster claims the VIP.",
        |status| one(status.claimant.is_some()),
    ),
    gauge(
        "vip_alarms",
        "How many nodes or hosts there is something wrong with on the segment.",
        |status| {
            let up = |kind: Kind| {
                let alarms = status.alarms.iter();
                let up = alarms.filter(|alarm| alarm.alarm == kind).count();
                Member::new([("alarm", kind.name())], up as u64)
            };
            Kind::ALL.map(up).into()
        },
    ),
    gauge(
        "vip_hears_nobody",
        "Whether no agent of another node is heard, though servers there answer.",
        |status| one(status.hears_nobody.is_some()),
    ),
    counter(
        "vip_received_packets_total",
        "Packets that the agent has read from its sockets; what the kernel's filters drop is not \
         among them.",
        |status| per_name("protocol", &status.received),
    ),
    gauge(
        "vip_healthy",
        "Whether nothing is wrong with the cluster, as far as this node knows: the verdict of `vip \
         status`.",
        |status| one(status.problems().is_empty()),
    ),
    gauge(
        "vip_member_confirmed",
        "Whether all living members know the node, so that it may get new connections.",
        |status| per_node(status, |node| Some(node.confirmed)),
    ),
    gauge(
        "vip_member_gone",
        "Whether nobody has heard the node for `reset_after`.",
        |status| per_node(status, |node| Some(node.gone)),
    ),
    gauge(
        "vip_member_info",
        "What the node's agent tells of itself: its version, and a digest of its configuration; always \
         1.",
        |status| {
            let told = status
                .nodes
                .iter()
                .filter_map(|node| Some((node, node.told.as_ref()?)));
            told.map(|(node, told)| {
                let labels = [
                    ("node", node.name.as_str()),
                    ("version", told.version.as_deref().unwrap_or_default()),
                    (
                        "configuration",
                        told.configuration.as_deref().unwrap_or_default(),
                    ),
                ];
                Member::new(labels, 1.0)
            })
            .collect()
        },
    ),
    gauge(
        "vip_member_owner",
        "Whether the node's agent tells that it owns the VIP.",
        |status| per_agent(status, |told| Some(told.state? == State::Active)),
    ),
    gauge(
        "vip_member_draining",
        "Whether the node's agent tells that its operator has drained it.",
        |status| per_agent(status, |told| told.draining),
    ),
    gauge(
        "vip_member_open_connections",
        "Connections to the VIPs that the node's servers have open, as its agent tells.",
        |status| per_agent(status, |told| told.open_connections.map(u64::from)),
    ),
    counter(
        "vip_hellos_total",
        "Datagrams with a hello between agents.",
        |status| {
            let them = status.membership.iter();
            them.flat_map(|them| {
                [("sent", them.sent), ("received", them.received)]
                    .map(|(way, count)| Member::new([("way", way)], count))
            })
            .collect()
        },
    ),
    counter(
        "vip_hellos_refused_total",
        "Hellos that were not taken, by reason. Each hello comes in two ways, so those that are \
         repeated are no fault.",
        |status| {
            let them = status.membership.iter();
            them.flat_map(|them| per_name("reason", &them.refused))
                .collect()
        },
    ),
    gauge(
        "vip_roster_connections",
        "Connections of a node that this one knows of, to tell their clients if the node is gone.",
        |status| per_node(status, |node| Some(node.roster)),
    ),
    gauge(
        "vip_roster_untold_connections",
        "Connections of this node that are too many to be told to the others.",
        |status| per_roster(status, |rosters| rosters.untold),
    ),
    counter(
        "vip_roster_scans_total",
        "Scans of this node's connections.",
        |status| per_roster(status, |rosters| rosters.scans),
    ),
    counter(
        "vip_roster_scan_seconds_total",
        "Time that these scans have taken.",
        |status| per_roster(status, |rosters| rosters.scan_seconds),
    ),
    counter(
        "vip_roster_messages_sent_total",
        "Messages about connections to other agents.",
        |status| per_roster(status, |rosters| rosters.sent),
    ),
    counter(
        "vip_roster_messages_received_total",
        "Messages about connections of other agents, by what became of them.",
        |status| {
            let rosters = status.rosters.iter();
            rosters
                .flat_map(|rosters| per_name("what", &rosters.received))
                .collect()
        },
    ),
    counter(
        "vip_clients_asked_total",
        "Segments to clients of nodes that are gone, which make them answer.",
        |status| per_roster(status, |rosters| rosters.asked),
    ),
    counter(
        "vip_clients_told_total",
        "Clients of nodes that are gone which have answered, and were reset.",
        |status| per_roster(status, |rosters| rosters.answered),
    ),
    counter(
        "vip_refused_packets_total",
        "Packets of members' addresses that were not believed, by protocol and reason.",
        |status| {
            let refused = status.refused.iter();
            refused
                .map(|one| {
                    let labels = [("protocol", &*one.protocol), ("reason", &*one.reason)];
                    Member::new(labels, one.packets)
                })
                .collect()
        },
    ),
    counter(
        "vip_repairs_total",
        "What was found in the kernel not to be as it should, and put right.",
        |status| {
            let repairs = status.repairs.iter();
            repairs
                .map(|(part, count)| Member::new([("what", part.name())], *count))
                .collect()
        },
    ),
    counter(
        "vip_events_total",
        "Events, as `vip events` shows them.",
        |status| per_name("event", &status.events),
    ),
    gauge(
        "vip_backend_ready",
        "Whether the API server on a node says that it is ready.",
        |status| per_node(status, |node| Some(node.ready)),
    ),
    gauge(
        "vip_backend_unknown",
        "Whether the API server on a node serves, and it is not known whether it is ready.",
        |status| per_node(status, |node| Some(node.unknown)),
    ),
    gauge(
        "vip_backend_usable",
        "Whether new connections to the API are brought to a node.",
        |status| per_node(status, |node| Some(node.usable)),
    ),
    gauge(
        "vip_waiting_connections",
        "Connections in the longest accept queue of this node's servers.",
        |status| one(f64::from(status.waiting_connections)),
    ),
    gauge(
        "vip_backend_echo",
        "Whether a node answers ICMP echo; there is none while that is not known.",
        |status| per_node(status, |node| node.echo),
    ),
    gauge(
        "vip_backend_alive",
        "Whether a node answers, and keeps its connections.",
        |status| per_node(status, |node| Some(node.alive)),
    ),
    gauge(
        "vip_backend_draining",
        "Whether a node was drained by its operator.",
        |status| per_node(status, |node| Some(node.draining)),
    ),
    counter(
        "vip_backend_packets_total",
        "Frames that this node sent to a node, or kept if it is this node.",
        |status| per_node(status, |node| Some(node.packets)),
    ),
    counter(
        "vip_backend_bytes_total",
        "Bytes of these frames.",
        |status| per_node(status, |node| Some(node.bytes)),
    ),
    counter(
        "vip_backend_connections_total",
        "New connections among them (SYN).",
        |status| per_node(status, |node| Some(node.connections)),
    ),
    gauge(
        "vip_service_ready",
        "Whether new connections to a service are brought to a node.",
        services,
    ),
    counter(
        "vip_frames_total",
        "What became of frames for the VIPs.",
        |status| per_name("verdict", &status.counters),
    ),
    counter(
        "vip_source_mac_changes_total",
        "Changes of the Ethernet addresses that frames of other nodes come from.",
        |status| one(status.source_mac_changes),
    ),
    gauge(
        "vip_bfd_up",
        "Whether the BFD session with a node is up.",
        |status| per_session(status, |session| Some(session.state == bfd::State::Up)),
    ),
    gauge(
        "vip_bfd_detection_seconds",
        "How long a node may be silent until it is taken for dead.",
        |status| per_session(status, |session| Some(seconds(session.detection_ms))),
    ),
    gauge(
        "vip_bfd_round_trip_seconds",
        "From a BFD packet with Poll to the answer with Final, when last measured.",
        |status| per_session(status, |session| session.round_trip_ms.map(seconds)),
    ),
    gauge(
        "vip_xdp_info",
        "How the programs are attached; always 1.",
        xdp,
    ),
    gauge(
        "vip_xdp_proven",
        "Whether the program on the way in was seen to run.",
        |status| one(status.xdp.proven),
    ),
    gauge(
        "vip_hook_running",
        "Whether the program at this hook was seen to run, and not seen not to.",
        |status| {
            let hooks = status.hooks.iter();
            hooks
                .map(|hook| {
                    let labels = [("hook", hook.name.name())];
                    Member::new(labels, hook.runs == Running::Yes)
                })
                .collect()
        },
    ),
];

/// The states that a node comes to with these events.
const TRANSITIONS: [(State, &str); 2] = [
    (State::Active, "became_owner"),
    (State::Backup, "became_backup"),
];

/// A member for each service and node.
fn services(status: &Status) -> Vec<Member<'_>> {
    let mut members = Vec::new();
    for service in &status.services {
        for node in &status.nodes {
            let labels = [
                ("service", Cow::from(service.endpoint.to_string())),
                ("node", Cow::from(&node.name)),
            ];
            members.push(Member::new(labels, service.usable.contains(&node.name)));
        }
    }
    members
}

fn xdp(status: &Status) -> Vec<Member<'_>> {
    let (mode, egress) = (status.xdp.mode.name(), status.xdp.egress.name());
    let labels = [
        ("interface", status.xdp.interface.as_str()),
        ("mode", mode),
        ("egress", egress),
    ];
    vec![Member::new(labels, 1.0)]
}

impl Family {
    fn of(&self, status: &Status) -> MetricFamily {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::event;

    #[test]
    fn every_metric_has_one_row_with_a_name_of_ours_and_a_sentence() {
        let mut names = NAMES;
        names.sort_unstable();
        assert!(names.windows(2).all(|two| two[0] != two[1]));
        for family in FAMILIES {
            assert!(family.name.starts_with("vip_"), "{}", family.name);
            assert!(family.help.ends_with('.'), "{}", family.name);
            let counts = family.kind == MetricType::COUNTER;
            assert_eq!(family.name.ends_with("_total"), counts, "{}", family.name);
        }
        for (_, event) in TRANSITIONS {
            assert!(event::NAMES.contains(&event), "{event}");
        }
    }
}
