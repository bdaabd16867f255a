//! What the agent measures while it runs, and no status keeps: durations, and counts by reason.

use std::time::Duration;

use prometheus::core::Collector as _;
use prometheus::proto::{Metric, MetricFamily};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts};

use crate::probe::{Failure, Found};
use vip_node::election::State;
use vip_node::{Departure, Loss, Takeover};

pub(super) const NAMES: [&str; 5] = [PROBES, FAILURES, FAILOVERS, HANDOVERS, TRANSITIONS];

const PROBES: &str = "vip_probe_duration_seconds";
const FAILURES: &str = "vip_probe_failures_total";
const FAILOVERS: &str = "vip_failover_duration_seconds";
const HANDOVERS: &str = "vip_handover_duration_seconds";
const TRANSITIONS: &str = "vip_transitions_total";

/// Upper bounds in seconds. A server nearby answers `/readyz` in a few milliseconds; the default
/// time-out is a second.
const PROBE_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// With BFD, another node takes the VIP within 0.1 to 0.2 s, by VRRP alone within 3 to 4 s.
const FAILOVER_BUCKETS: [f64; 11] = [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The former owner resigns, and its successor begins with the next packet.
const HANDOVER_BUCKETS: [f64; 7] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0];

/// The instruments. Clones share their values.
#[derive(Clone, Debug)]
pub struct Instruments {
    probes: HistogramVec,
    failures: IntCounterVec,
    failovers: Histogram,
    handovers: Histogram,
    transitions: IntCounterVec,
}

impl Default for Instruments {
    fn default() -> Self {
        const VALID: &str = "name and labels are valid";
        let histogram =
            |name, help, buckets: &[f64]| HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let probes = histogram(
            PROBES,
            "Time from connecting to a server to its answer to a health probe.",
            &PROBE_BUCKETS,
        );
        let failures = Opts::new(FAILURES, "Health probes that failed, by reason.");
        let failovers = histogram(
            FAILOVERS,
            "From the last packet of an owner that went silent to the moment at which this node took \
             over.",
            &FAILOVER_BUCKETS,
        );
        let handovers = histogram(
            HANDOVERS,
            "From the resignation of an owner to the moment at which this node took over; 0 if the \
             former owner answered for the VIP until then.",
            &HANDOVER_BUCKETS,
        );
        let transitions = Opts::new(
            TRANSITIONS,
            "Changes of this node's state in the election, by the new state and the cause.",
        );
        let instruments = Self {
            probes: HistogramVec::new(probes, &["node", "port"]).expect(VALID),
            failures: IntCounterVec::new(failures, &["node", "port", "reason"]).expect(VALID),
            failovers: Histogram::with_opts(failovers).expect(VALID),
            handovers: Histogram::with_opts(handovers).expect(VALID),
            transitions: IntCounterVec::new(transitions, &["to", "cause"]).expect(VALID),
        };
        // A series that begins with 1 shows no increase.
        for cause in Takeover::CAUSES {
            instruments.count_transition(State::Active, cause, 0);
        }
        for cause in Loss::CAUSES {
            instruments.count_transition(State::Backup, cause, 0);
        }
        instruments
    }
}

impl Instruments {
    /// A probe of a node's server at this port has ended.
    pub fn note_probe(&self, node: &str, port: u16, found: &Found) {
        let port = port.to_string();
        if let Some(rtt) = found.rtt {
            let duration = self.probes.with_label_values(&[node, &port]);
            duration.observe(rtt.as_secs_f64());
        }
        for reason in Failure::ALL {
            let failures = self
                .failures
                .with_label_values(&[node, &port, reason.name()]);
            failures.inc_by(u64::from(found.failure == Some(reason)));
        }
    }

    /// This node became the owner.
    pub fn note_takeover(&self, takeover: Takeover) {
        self.count_transition(State::Active, takeover.cause(), 1);
        let duration = |after: Duration| after.as_secs_f64();
        match takeover {
            Takeover::From {
                why: Departure::Silent,
                after,
                ..
            } => self.failovers.observe(duration(after)),
            Takeover::From {
                why: Departure::Resigned,
                after,
                ..
            } => self.handovers.observe(duration(after)),
            // Nobody went without an owner.
            Takeover::From {
                why: Departure::Outranked,
                ..
            }
            | Takeover::Resumed
            | Takeover::Nobody => {}
        }
    }

    /// This node became a backup.
    pub fn note_loss(&self, loss: Loss) {
        self.count_transition(State::Backup, loss.cause(), 1);
    }

    fn count_transition(&self, to: State, cause: &str, times: u64) {
        let transitions = self.transitions.with_label_values(&[to.name(), cause]);
        transitions.inc_by(times);
    }

    /// All of them, as the encoder takes them, in the same order each time.
    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        let Self {
            probes,
            failures,
            failovers,
            handovers,
            transitions,
        } = self;
        let mut families = [
            transitions.collect(),
            failovers.collect(),
            handovers.collect(),
            probes.collect(),
            failures.collect(),
        ]
        .concat();
        for family in &mut families {
            let values = |metric: &Metric| {
                let labels = metric.get_label().iter();
                labels
                    .map(|label| label.value().to_owned())
                    .collect::<Vec<_>>()
            };
            family.mut_metric().sort_by_cached_key(values);
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vip_common::abi::BackendIndex;
    use vip_node::Fault;

    fn sample(instruments: &Instruments, name: &str) -> MetricFamily {
        let families = instruments.collect();
        let found = families.into_iter().find(|family| family.name() == name);
        found.expect("a family of this name")
    }

    #[test]
    fn every_cause_has_its_series_from_the_start() {
        let node = BackendIndex::new(1).expect("small");
        let instruments = Instruments::default();
        let count = |instruments: &Instruments| {
            let family = sample(instruments, TRANSITIONS);
            let counts = family
                .get_metric()
                .iter()
                .map(|one| one.get_counter().get_value());
            counts.fold((0, 0.0), |(series, sum), value| (series + 1, sum + value))
        };
        assert_eq!(count(&instruments), (11, 0.0));
        for why in [Departure::Resigned, Departure::Silent, Departure::Outranked] {
            let after = Duration::from_millis(120);
            instruments.note_takeover(Takeover::From { node, why, after });
        }
        instruments.note_takeover(Takeover::Resumed);
        instruments.note_takeover(Takeover::Nobody);
        for loss in [
            Loss::Started,
            Loss::Outranked(node),
            Loss::HandedOver(node),
            Loss::Overslept,
            Loss::Fault(Fault::Carrier),
            Loss::Shutdown,
        ] {
            instruments.note_loss(loss);
        }
        // No name is new: all were there with 0.
        assert_eq!(count(&instruments), (11, 11.0));
    }

    #[test]
    fn only_silence_counts_as_a_failover() {
        let instruments = Instruments::default();
        let node = BackendIndex::new(1).expect("small");
        let observed = |name| {
            let family = sample(&instruments, name);
            let histogram = family.get_metric()[0].get_histogram();
            (histogram.get_sample_count(), histogram.get_sample_sum())
        };
        let take = |why, millis| {
            let after = Duration::from_millis(millis);
            instruments.note_takeover(Takeover::From { node, why, after });
        };
        take(Departure::Silent, 125);
        take(Departure::Resigned, 0);
        take(Departure::Outranked, 0);
        assert_eq!(observed(FAILOVERS), (1, 0.125));
        assert_eq!(observed(HANDOVERS), (1, 0.0));
    }
}
