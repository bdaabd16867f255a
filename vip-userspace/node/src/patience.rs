//! How long a server's answer is waited for: by what it usually takes.

use std::collections::VecDeque;
use std::time::Duration;

/// Answers that are remembered.
const ANSWERS: usize = 16;

/// Times the median of them.
const FACTOR: u32 = 8;

/// A server that answers within a millisecond may have to wait for a core longer than 8 ms.
const LEAST: Duration = Duration::from_millis(200);

/// The last answers of one server.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    /// Their times, the oldest first.
    answers: VecDeque<Duration>,
    /// Probes in a row without one.
    missed: u32,
}

impl Patience {
    /// An answer came in time.
    pub fn on_answer(&mut self, time: Duration) {
        self.missed = 0;
        if self.answers.len() == ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back(time);
    }

    /// None came in time.
    pub const fn on_time_out(&mut self) {
        self.missed = self.missed.saturating_add(1);
    }

    /// How long to wait for the next answer: `limit` at most. It doubles after each probe without
    /// an answer, so that a server that has become slow is heard, and its times count.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> Duration {
        let mut sorted: Vec<_> = self.answers.iter().copied().collect();
        sorted.sort_unstable();
        let Some(median) = sorted.get(sorted.len() / 2) else {
            return limit;
        };
        let usual = median.saturating_mul(FACTOR).max(LEAST);
        let doubled = 2_u32.saturating_pow(self.missed);
        usual.saturating_mul(doubled).min(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn after(answers: impl IntoIterator<Item = u64>) -> Patience {
        let mut patience = Patience::default();
        for answer in answers {
            patience.on_answer(ms(answer));
        }
        patience
    }

    #[test]
    fn it_is_eight_medians_between_200_ms_and_the_limit() {
        assert_eq!(after([]).wait(LIMIT), LIMIT);
        assert_eq!(after([1]).wait(LIMIT), ms(200));
        assert_eq!(after([50, 60, 900]).wait(LIMIT), ms(480));
        assert_eq!(after([300]).wait(LIMIT), LIMIT);
        assert_eq!(after([1]).wait(ms(100)), ms(100));
    }

    #[test]
    fn a_server_that_has_become_slow_is_heard_and_its_old_times_are_forgotten() {
        let mut patience = after([1; 40]);
        for expected in [200, 400, 800, 1000, 1000] {
            assert_eq!(patience.wait(LIMIT), ms(expected));
            patience.on_time_out();
        }
        for _ in 0..ANSWERS / 2 {
            patience.on_answer(ms(500));
        }
        assert_eq!(patience.wait(LIMIT), LIMIT);
    }
}
