//! `/metrics`, in the Prometheus text format: all that [`Status`] says, and how long probes take.
//!
//! Names and units follow Prometheus' conventions: base units, `_total` for what only grows, one
//! meaning a name. What packets did is counted in the kernel, and goes on over restarts of the
//! agent; the rest begins anew with it, as counters of processes do.

use std::time::Duration;

use prometheus::core::Collector as _;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{HistogramOpts, HistogramVec, TextEncoder};

use super::status::{Bfd, Node, Status};
use vip_node::Fault;
use vip_node::alarm::Kind;

/// Content type of the text (version 0.0.4 of the format).
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// How long probes take, by node and port.
#[derive(Clone, Debug)]
pub struct ProbeTimes(HistogramVec);

/// Upper bounds in seconds. A server nearby answers `/readyz` in a few milliseconds; the default
/// time-out is a second.
const PROBE_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

impl Default for ProbeTimes {
    fn default() -> Self {
        let options = HistogramOpts::new(
            "vip_probe_duration_seconds",
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
    let mut families = families(status);
    families.extend(probes.0.collect());
    // The encoder takes a family without members for an error.
    families.retain(|family| !family.get_metric().is_empty());
    let text = TextEncoder::new().encode_to_string(&families);
    text.expect("names are valid and no family is empty")
}

/// A member of a family: its labels and its value.
type Member<'a> = (Vec<(&'static str, &'a str)>, f64);

fn families(status: &Status) -> Vec<MetricFamily> {
    let xdp = &status.xdp;
    let members = |value: f64| vec![(vec![], value)];
    let per_node = |value: fn(&Node) -> Option<f64>| -> Vec<Member<'_>> {
        let nodes = status.nodes.iter();
        nodes
            .filter_map(|node| Some((vec![("node", node.name.as_str())], value(node)?)))
            .collect()
    };
    let per_session = |value: fn(&Bfd) -> Option<f64>| -> Vec<Member<'_>> {
        let nodes = status.nodes.iter();
        nodes
            .filter_map(|node| {
                let value = value(node.bfd.as_ref()?)?;
                Some((vec![("node", node.name.as_str())], value))
            })
            .collect()
    };
    let services = status.services.iter().flat_map(|service| {
        status.nodes.iter().map(|node| {
            let labels = vec![
                ("service", service.endpoint.as_str()),
                ("node", node.name.as_str()),
            ];
            (labels, truth(service.usable.contains(&node.name)))
        })
    });
    let states = ["initialize", "backup", "active"];
    let faults = Fault::ALL.iter().map(|fault| {
        let present = status.faults.iter().any(|there| there == fault.text());
        (vec![("fault", fault.name())], truth(present))
    });
    let alarms = Kind::ALL.map(|kind| {
        let alarms = status.alarms.iter();
        let up = alarms.filter(|alarm| alarm.alarm == kind.name()).count();
        (vec![("alarm", kind.name())], up as f64)
    });
    let seconds = |millis: f64| millis / 1000.0;
    vec![
        gauge(
            "vip_build_info",
            "Version of the agent; always 1.",
            vec![(vec![("version", status.version.as_str())], 1.0)],
        ),
        gauge(
            "vip_owner",
            "Whether this node owns the VIP.",
            members(truth(status.state == "active")),
        ),
        gauge(
            "vip_owner_info",
            "Which node owns the VIP, as this one hears; always 1.",
            status
                .owner
                .iter()
                .map(|owner| (vec![("node", owner.name.as_str())], 1.0))
                .collect(),
        ),
        gauge(
            "vip_state",
            "Whether VRRP is in this state (RFC 9568, section 6.4).",
            states
                .iter()
                .map(|state| (vec![("state", *state)], truth(status.state == *state)))
                .collect(),
        ),
        gauge(
            "vip_priority",
            "VRRP priority of this node.",
            members(f64::from(status.priority)),
        ),
        gauge(
            "vip_answer_lease_remaining_seconds",
            "For how much longer this node answers for the VIP if its agent hangs now.",
            members(seconds(status.answer_lease_remaining_ms as f64)),
        ),
        counter(
            "vip_transitions_total",
            "Changes of this node's part.",
            [("active", "became_owner"), ("backup", "became_backup")]
                .map(|(to, event)| {
                    let count = status.events.get(event).copied().unwrap_or(0);
                    (vec![("to", to)], count as f64)
                })
                .into(),
        ),
        gauge(
            "vip_failover_duration_seconds",
            "From the last sign of life of the owner before to the moment at which this node last \
             took over.",
            status
                .last_failover_ms
                .map(|millis| (vec![], seconds(millis)))
                .into_iter()
                .collect(),
        ),
        gauge(
            "vip_fault",
            "Whether this keeps the node from owning the VIP.",
            faults.collect(),
        ),
        counter(
            "vip_conflicts_total",
            "Claims of the VIP by somebody who is no agent of the cluster.",
            members(status.conflicts as f64),
        ),
        gauge(
            "vip_conflict",
            "Whether somebody who is no agent of the cluster claims the VIP.",
            members(truth(status.claimant.is_some())),
        ),
        gauge(
            "vip_alarms",
            "How many nodes or hosts there is something wrong with on the segment.",
            alarms.into(),
        ),
        gauge(
            "vip_hears_nobody",
            "Whether no agent of another node is heard, though servers there answer.",
            members(truth(status.hears_nobody.is_some())),
        ),
        counter(
            "vip_received_packets_total",
            "Packets that the agent has read from its sockets; what the kernel's filters drop is \
             not among them.",
            labelled(&status.received, "protocol"),
        ),
        counter(
            "vip_repairs_total",
            "What was found in the kernel not to be as it should, and put right.",
            labelled(&status.repairs, "what"),
        ),
        counter(
            "vip_events_total",
            "Events, as `vip events` shows them.",
            labelled(&status.events, "event"),
        ),
        gauge(
            "vip_backend_ready",
            "Whether the API server on a node says that it is ready.",
            per_node(|node| Some(truth(node.ready))),
        ),
        gauge(
            "vip_backend_unknown",
            "Whether the API server on a node serves, and it is not known whether it is ready.",
            per_node(|node| Some(truth(node.unknown))),
        ),
        gauge(
            "vip_backend_usable",
            "Whether new connections to the API are brought to a node.",
            per_node(|node| Some(truth(node.usable))),
        ),
        gauge(
            "vip_backend_echo",
            "Whether a node answers ICMP echo; there is none while that is not known.",
            per_node(|node| node.echo.map(truth)),
        ),
        gauge(
            "vip_backend_alive",
            "Whether a node answers, and keeps its connections.",
            per_node(|node| Some(truth(node.alive))),
        ),
        gauge(
            "vip_backend_draining",
            "Whether a node was drained by its operator.",
            per_node(|node| Some(truth(node.draining))),
        ),
        counter(
            "vip_backend_packets_total",
            "Frames that this node sent to a node, or kept if it is this node.",
            per_node(|node| Some(node.packets as f64)),
        ),
        counter(
            "vip_backend_bytes_total",
            "Bytes of these frames.",
            per_node(|node| Some(node.bytes as f64)),
        ),
        counter(
            "vip_backend_connections_total",
            "New connections among them (SYN).",
            per_node(|node| Some(node.connections as f64)),
        ),
        gauge(
            "vip_service_ready",
            "Whether new connections to a service are brought to a node.",
            services.collect(),
        ),
        counter(
            "vip_frames_total",
            "What became of frames for the VIPs.",
            labelled(&status.counters, "verdict"),
        ),
        counter(
            "vip_source_mac_changes_total",
            "Changes of the Ethernet addresses that frames of other nodes come from.",
            members(status.source_mac_changes as f64),
        ),
        gauge(
            "vip_bfd_up",
            "Whether the BFD session with a node is up.",
            per_session(|bfd| Some(truth(bfd.state == "up"))),
        ),
        gauge(
            "vip_bfd_detection_seconds",
            "How long a node may be silent until it is taken for dead.",
            per_session(|bfd| Some(bfd.detection_ms / 1000.0)),
        ),
        gauge(
            "vip_bfd_round_trip_seconds",
            "From a BFD packet with Poll to the answer with Final, when last measured.",
            per_session(|bfd| Some(bfd.round_trip_ms? / 1000.0)),
        ),
        gauge(
            "vip_xdp_info",
            "How the programs are attached; always 1.",
            vec![(
                vec![
                    ("interface", xdp.interface.as_str()),
                    ("mode", xdp.mode.as_str()),
                    ("egress", xdp.egress.as_str()),
                ],
                1.0,
            )],
        ),
        gauge(
            "vip_xdp_proven",
            "Whether the program on the way in was seen to run.",
            members(truth(xdp.proven)),
        ),
        gauge(
            "vip_hook_running",
            "Whether the program at this hook was seen to run, and not seen not to.",
            status
                .hooks
                .iter()
                .map(|hook| {
                    (
                        vec![("hook", hook.name.as_str())],
                        truth(hook.runs == "yes"),
                    )
                })
                .collect(),
        ),
    ]
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// A member for each entry, with its name as the label.
fn labelled<'a>(
    counts: &'a std::collections::BTreeMap<String, u64>,
    label: &'static str,
) -> Vec<Member<'a>> {
    counts
        .iter()
        .map(|(name, count)| (vec![(label, name.as_str())], *count as f64))
        .collect()
}

fn gauge(name: &str, help: &str, members: Vec<Member<'_>>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, members, |metric, value| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    })
}

fn counter(name: &str, help: &str, members: Vec<Member<'_>>) -> MetricFamily {
    family(name, help, MetricType::COUNTER, members, |metric, value| {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    })
}

fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    members: Vec<Member<'_>>,
    set: fn(&mut Metric, f64),
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    let metrics = members.into_iter().map(|(labels, value)| {
        let pairs = labels.into_iter().map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        set(&mut metric, value);
        metric
    });
    family.set_metric(metrics.collect());
    family
}
