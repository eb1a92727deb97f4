//! How many may be asked, and reached for, in a second.
//!
//! A thousand servers that are asked at once every ten seconds are a burst on the network and a
//! busy processor in each of these seconds, and between them nothing. So what is due is handed
//! out at a bounded rate, and where there are many each one's turn comes more rarely: what that
//! costs while nothing happens does not grow with their number.

use std::time::{Duration, Instant};

/// Hands out turns: some at once, then one in each interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    interval: Duration,
    at_once: u32,
    left: u32,
    /// Since when `left` is what there is; `None` before the first turn.
    since: Option<Instant>,
}

impl Pace {
    pub(super) const fn new(interval: Duration, at_once: u32) -> Self {
        Self { interval, at_once, left: at_once, since: None }
    }

    /// Takes a turn, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let gained = now.saturating_duration_since(since).as_nanos() / self.interval.as_nanos().max(1);
        let missing = self.at_once - self.left;
        match u32::try_from(gained).ok().filter(|it| *it < missing) {
            Some(gained) => {
                self.left += gained;
                self.since = Some(since + self.interval * gained);
            }
            None => {
                self.left = self.at_once;
                self.since = Some(now);
            }
        }
        let has_turn = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has_turn
    }

    /// When there is a turn for what is due at `at`.
    pub(super) fn not_before(&self, at: Instant) -> Instant {
        match self.since {
            Some(since) if self.left == 0 => at.max(since + self.interval),
            Some(_) | None => at,
        }
    }

    /// How often each of so many gets a turn at the most, when all are to have one in turn.
    pub(super) fn round(interval: Duration, many: usize) -> Duration {
        interval.saturating_mul(u32::try_from(many).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(10);

    #[test]
    fn some_get_a_turn_at_once_and_then_one_in_each_interval() {
        let now = Instant::now();
        let mut pace = Pace::new(INTERVAL, 3);
        let turns =
            |pace: &mut Pace, at| std::iter::repeat_with(|| pace.take(at)).take_while(|it| *it).count();
        assert_eq!(turns(&mut pace, now), 3);
        assert_eq!(pace.not_before(now), now + INTERVAL);
        assert_eq!(turns(&mut pace, now + INTERVAL / 2), 0);
        assert_eq!(turns(&mut pace, now + INTERVAL), 1);
        assert_eq!(turns(&mut pace, now + INTERVAL * 3), 2);
        assert_eq!(turns(&mut pace, now + INTERVAL * 1000), 3);
        let later = now + INTERVAL * 2000;
        assert_eq!(Pace::new(INTERVAL, 3).not_before(later), later);
    }

    proptest! {
        #[test]
        fn never_more_turns_than_time_allows(waits in prop::collection::vec(0u64..50, 1..300)) {
            let begun = Instant::now();
            let (mut now, mut turns) = (begun, 0u128);
            let mut pace = Pace::new(INTERVAL, 5);
            for ms in waits {
                now += Duration::from_millis(ms);
                let is_told = pace.not_before(now) <= now;
                let has_turn = pace.take(now);
                turns += u128::from(has_turn);
                prop_assert!(has_turn || !is_told || pace.not_before(now) > now);
                prop_assert!(turns <= 5 + now.duration_since(begun).as_nanos() / INTERVAL.as_nanos());
            }
        }
    }
}
