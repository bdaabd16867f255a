//! Figures of the agent's own process, by the names that all programs use for them.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

/// A figure, or `None` if the kernel does not tell it.
type Read = fn() -> Option<f64>;

/// Name, help, type and figure.
const FAMILIES: [(&str, &str, MetricType, Read); 5] = [
    (
        "process_start_time_seconds",
        "When the process started, in seconds since 1970.",
        MetricType::GAUGE,
        start_time,
    ),
    (
        "process_cpu_seconds_total",
        "CPU time of the process, in user and system mode.",
        MetricType::COUNTER,
        cpu_time,
    ),
    (
        "process_resident_memory_bytes",
        "Resident memory of the process.",
        MetricType::GAUGE,
        resident_memory,
    ),
    (
        "process_open_fds",
        "File descriptors that the process has open.",
        MetricType::GAUGE,
        open_files,
    ),
    (
        "process_max_fds",
        "File descriptors that the process may have open.",
        MetricType::GAUGE,
        max_files,
    ),
];

pub(super) const NAMES: [&str; FAMILIES.len()] = {
    let mut names = [""; FAMILIES.len()];
    let mut row = 0;
    while row < FAMILIES.len() {
        names[row] = FAMILIES[row].0;
        row += 1;
    }
    names
};

/// All of them, as the encoder takes them.
pub(super) fn collect() -> impl Iterator<Item = MetricFamily> {
    FAMILIES.into_iter().map(|(name, help, kind, read)| {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        let metrics = read().map(|value| metric(kind, value));
        family.set_metric(metrics.into_iter().collect());
        family
    })
}

fn metric(kind: MetricType, value: f64) -> Metric {
    let mut metric = Metric::default();
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

/// Computed once: the clock may be set later, and the start must not move.
fn start_time() -> Option<f64> {
    static START: OnceLock<Option<f64>> = OnceLock::new();
    *START.get_or_init(|| {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // proc_pid_stat(5): field 22, in clock ticks since boot. Field 2, the name, ends with the
        // last parenthesis.
        let fields = stat.rsplit_once(')')?.1;
        let ticks: f64 = fields.split_whitespace().nth(22 - 3)?.parse().ok()?;
        let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok()?? as f64;
        let since_boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Some((now - since_boot).as_secs_f64() + ticks / ticks_per_second)
    })
}

fn cpu_time() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let times = [usage.user_time(), usage.system_time()];
    let seconds = times.map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
    Some(seconds.iter().sum())
}

fn resident_memory() -> Option<f64> {
    let sizes = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: f64 = sizes.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * sysconf(SysconfVar::PAGE_SIZE).ok()?? as f64)
}

fn open_files() -> Option<f64> {
    // One of them is for this look.
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64 - 1.0)
}

fn max_files() -> Option<f64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(soft as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_this_process() {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a date");
        let start = start_time().expect("proc is mounted");
        // `cargo test` has started it today.
        assert!(start <= now.as_secs_f64() + 1.0 && start > now.as_secs_f64() - 86_400.0);
        assert_eq!(start_time(), Some(start));
        assert!(cpu_time().is_some_and(|time| time > 0.0 && time < 86_400.0));
        let memory = resident_memory().expect("proc is mounted");
        assert!((1e6..1e11).contains(&memory), "{memory}");
        let max = max_files().expect("there is a limit");
        let open = open_files().expect("proc is mounted");
        assert!(open >= 3.0 && open < max, "{open} of {max}");
    }
}
