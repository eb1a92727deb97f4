//! How many retries the daemon as a whole may make.
//!
//! When everything fails, every request would be sent several times, and servers
//! that are drowning would be pulled under. Each request earns a fifth of a
//! retry, time earns ten a second, and a hundred can be saved up. So a person
//! with one editor never meets the limit, and neither does the moment at which a
//! server with 64 running answers dies; a storm does.
//!
//! `relay` asks before every send but a request's first, and answers
//! `Chosen::Nobody` where the budget has nothing left.

use std::time::Instant;

/// The daemon's budget of retries: a bucket of thousandths of a retry.
#[derive(Debug)]
pub struct Budget {
    saved: u64,
    since: Instant,
}

impl Budget {
    /// A full one.
    pub fn new(now: Instant) -> Self {
        Self { saved: MOST, since: now }
    }

    /// A request has arrived.
    pub fn on_request(&mut self) {
        self.saved = (self.saved + PER_REQUEST).min(MOST);
    }

    /// Takes one retry, if there is one left.
    #[must_use]
    pub fn take(&mut self, now: Instant) -> bool {
        // Whole milliseconds only, and `since` moves by just those: asking more
        // often neither loses nor makes retries.
        let passed = now.saturating_duration_since(self.since);
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        self.since += std::time::Duration::from_millis(millis);
        self.saved = self.saved.saturating_add(millis.saturating_mul(PER_MILLI)).min(MOST);
        let left = self.saved.checked_sub(ONE);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}

const ONE: u64 = 1000;
const PER_REQUEST: u64 = ONE / 5;
const PER_MILLI: u64 = 10 * ONE / 1000;
const MOST: u64 = 100 * ONE;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_user_is_never_limited() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for tenth in 0..1000 {
            budget.on_request();
            assert!(budget.take(start + Duration::from_millis(100 * tenth)));
        }
    }

    #[test]
    fn the_death_of_a_busy_server_is_mended_at_once() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!((0..200).filter(|_| budget.take(start)).count(), 100);
    }

    #[test]
    fn in_a_storm_a_fifth_of_the_requests_is_sent_again() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut retries = 0;
        for _ in 0..100_000 {
            budget.on_request();
            retries += u32::from(budget.take(start));
        }
        assert!((20_000..=20_100).contains(&retries), "{retries}");
    }

    proptest! {
        #[test]
        fn retries_never_exceed_what_was_saved_and_earned(
            turns in proptest::collection::vec((0_u64..400_000, 0_u32..4, 0_u32..8), 1..200),
        ) {
            let start = Instant::now();
            let (mut now, mut requests, mut retries) = (start, 0_u64, 0_u64);
            let mut budget = Budget::new(start);
            for (micros, arrive, ask) in turns {
                now += Duration::from_micros(micros);
                for _ in 0..arrive {
                    requests += 1;
                    budget.on_request();
                }
                retries += (0..ask).filter(|_| budget.take(now)).count() as u64;
                let earned = 100.0 + requests as f64 / 5.0 + (now - start).as_secs_f64() * 10.0;
                prop_assert!(retries as f64 <= earned + 1e-6, "{retries} of {earned}");
            }
        }
    }
}
