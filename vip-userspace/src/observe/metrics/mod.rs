//! `/metrics`, in the Prometheus text format: all that [`Status`] says, what the [`Instruments`] have
//! measured, and the process itself.
//!
//! Names and units follow Prometheus' conventions: base units, `_total` for what only grows, one
//! meaning a name. What packets did is counted in the kernel, and goes on over restarts of the
//! agent; the rest begins anew with it, as counters of processes do.
//!
//! Each series bears the label `vip`, the endpoint of the API: it names the cluster, so that alerts
//! can tell clusters apart.

mod families;
mod family;
mod instruments;
mod process;

pub use instruments::Instruments;

use prometheus::TextEncoder;
use prometheus::proto::{LabelPair, MetricFamily};

use super::status::Status;
use families::FAMILIES;

/// Content type of the text (version 0.0.4 of the format).
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The label that names the cluster.
const CLUSTER: &str = "vip";

/// All metrics as text.
#[must_use]
pub fn render(status: &Status, instruments: &Instruments) -> String {
    text(
        status,
        of_cluster(status, instruments).chain(process::collect()),
    )
}

/// All but those of the process, which differ from one moment to the next.
fn of_cluster(status: &Status, instruments: &Instruments) -> impl Iterator<Item = MetricFamily> {
    let families = FAMILIES.iter().map(|family| family.of(status));
    families.chain(instruments.collect())
}

fn text(status: &Status, families: impl Iterator<Item = MetricFamily>) -> String {
    let vip = status.vip.to_string();
    let mut families: Vec<_> = families.collect();
    // The encoder takes a family without members for an error.
    families.retain(|family| !family.get_metric().is_empty());
    for family in &mut families {
        for metric in family.mut_metric() {
            let mut pair = LabelPair::default();
            pair.set_name(CLUSTER.to_owned());
            pair.set_value(vip.clone());
            let mut labels = metric.take_label();
            labels.insert(0, pair);
            metric.set_label(labels);
        }
    }
    let text = TextEncoder::new().encode_to_string(&families);
    text.expect("names are valid and no family is empty")
}

/// The names of all metrics.
pub fn names() -> impl Iterator<Item = &'static str> {
    let of_status = FAMILIES.iter().map(|family| family.name);
    of_status.chain(instruments::NAMES).chain(process::NAMES)
}

#[cfg(test)]
pub(crate) mod tests {
    use prometheus::proto::MetricType;

    use super::*;

    /// [`render`] without the figures of this process.
    pub(crate) fn render_steady(status: &Status, instruments: &Instruments) -> String {
        text(status, of_cluster(status, instruments))
    }

    #[test]
    fn every_metric_has_one_row_with_a_name_of_ours_and_a_sentence() {
        let mut all: Vec<_> = names().collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|two| two[0] != two[1]));
        for family in FAMILIES {
            assert!(family.name.starts_with("vip_"), "{}", family.name);
            assert!(family.help.ends_with('.'), "{}", family.name);
            let counts = family.kind == MetricType::COUNTER;
            assert_eq!(family.name.ends_with("_total"), counts, "{}", family.name);
        }
    }
}
