//! How long processes of this machine have waited for a processor: pressure stall information
//! (Documentation/accounting/psi.rst).

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// Linux 4.20; some distributions want `psi=1` on the kernel's command line. It is of the whole
/// machine in a container, too.
const PATH: &str = "/proc/pressure/cpu";

/// Two lines, of some 70 bytes each.
const LENGTH: usize = 256;

/// Reads the total, which the kernel brings up to date for it.
#[derive(Debug)]
pub struct Pressure(Option<File>);

impl Pressure {
    /// Opens it. A kernel that does not count always says zero.
    #[must_use]
    pub fn open() -> Self {
        Self(File::open(PATH).ok())
    }

    /// For how long some process has waited for a processor while the machine runs. Of several
    /// processors it is the mean of those that are busy.
    #[must_use]
    pub fn stalled(&self) -> Duration {
        let read = |file: &File| {
            let mut bytes = [0; LENGTH];
            let length = file.read_at(&mut bytes, 0).ok()?;
            total(str::from_utf8(bytes.get(..length)?).ok()?)
        };
        self.0.as_ref().and_then(read).unwrap_or_default()
    }
}

/// The total of the line `some`, in microseconds there.
fn total(text: &str) -> Option<Duration> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let total = some
        .split(' ')
        .find_map(|word| word.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn total_of_the_first_line_is_read() {
        let text = "some avg10=53.16 avg60=28.60 avg300=8.40 total=29108614\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(total(text), Some(Duration::from_micros(29_108_614)));
        assert_eq!(total("full avg10=0.00 total=7\n"), None);
        assert_eq!(total("some avg10=0.00 total=-1\n"), None);
    }

    #[test]
    fn a_process_that_waits_is_counted() {
        let pressure = Pressure::open();
        if pressure.0.is_none() {
            let name = "kernel::pressure::a_process_that_waits_is_counted";
            writeln!(std::io::stderr(), "SKIPPED {name}: no {PATH}").expect("write to stderr");
            return;
        }
        let before = pressure.stalled();
        let busy = || {
            let until = std::time::Instant::now() + Duration::from_millis(200);
            while std::time::Instant::now() < until {}
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..2 * cores {
                scope.spawn(busy);
            }
        });
        assert!(pressure.stalled() > before);
    }
}
