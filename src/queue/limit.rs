//! How many requests a server takes at once, learned from what it turned away.
//!
//! A server that says it is busy while it has so many of ours takes one fewer. Whether that
//! still holds is tried by one more after a while, and after twice that while each time that
//! it was in vain: so a server that has room again is used again, and one that has not turns
//! away a few requests an hour.

use std::time::{Duration, Instant};

/// One more is tried after that. The shortest answers of a model take about a second, so that
/// is a few of them.
const TRIED_AFTER: Duration = Duration::from_secs(10);
/// The longest while between two tries.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// What was learned of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    limit: u32,
    pause: Duration,
    /// Whether one more is being tried.
    tries: bool,
    /// When one more may be tried.
    try_at: Instant,
}

impl Learned {
    /// It was busy with so many at once, the one that it turned away included.
    pub fn from_busy(at_once: u32, now: Instant) -> Self {
        Self { limit: below(at_once), pause: TRIED_AFTER, tries: false, try_at: now + TRIED_AFTER }
    }

    /// The most that it may have at once.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// It turned one away of so many at once.
    pub fn on_busy(&mut self, at_once: u32, now: Instant) {
        // Of several that were under way together each may be turned away: that says nothing
        // about how soon to try.
        if std::mem::take(&mut self.tries) {
            self.pause = (self.pause * 2).min(LONGEST);
        }
        self.limit = self.limit.min(below(at_once));
        self.try_at = now + self.pause;
    }

    /// It answered one of so many at once.
    pub fn on_answered(&mut self, at_once: u32, now: Instant) {
        if at_once >= self.limit && now >= self.try_at {
            if std::mem::replace(&mut self.tries, true) {
                // The last try went well.
                self.pause = TRIED_AFTER;
            }
            self.limit = self.limit.saturating_add(1);
            self.try_at = now + self.pause;
        }
    }
}

/// Where it has nothing else of ours others use it, and it is asked again all the same.
fn below(at_once: u32) -> u32 {
    at_once.saturating_sub(1).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server that takes `takes`, kept full for so many seconds; says how many it turned
    /// away, and how many it may have in the end.
    fn run(takes: u32, first: u32, seconds: u64) -> (u32, u32) {
        let mut now = Instant::now();
        let mut learned = Learned::from_busy(first.max(takes + 1), now);
        let mut turned_away = 1;
        for _ in 0..seconds * 5 {
            now += Duration::from_millis(200);
            if learned.limit() > takes {
                learned.on_busy(takes + 1, now);
                turned_away += 1;
            } else {
                learned.on_answered(learned.limit(), now);
            }
        }
        (turned_away, learned.limit())
    }

    #[test]
    fn what_it_takes_is_found_and_it_turns_few_away() {
        assert_eq!(run(4, 100, 3600), (12, 4));
        assert_eq!(run(1, 2, 3600), (11, 1));
    }

    #[test]
    fn a_server_that_has_room_again_is_used_again() {
        let now = Instant::now();
        let mut learned = Learned::from_busy(3, now);
        assert_eq!(learned.limit(), 2);
        learned.on_answered(2, now + TRIED_AFTER / 2);
        learned.on_answered(1, now + TRIED_AFTER);
        assert_eq!(learned.limit(), 2, "too early, and not full");
        for times in 1..=6 {
            learned.on_answered(learned.limit(), now + TRIED_AFTER * times);
        }
        assert_eq!(learned.limit(), 8);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// It is never zero, never as many as were just too many (but for the one that is
        /// always allowed), and grows by one at a time and not more often than it may.
        #[test]
        fn never_none_and_never_more_than_was_too_many(
            story in prop::collection::vec((any::<bool>(), 1..20_u32, 0..30_u64), 1..200),
        ) {
            let mut now = Instant::now();
            let mut learned = Learned::from_busy(20, now);
            let mut grown_at = now;
            for (busy, at_once, seconds) in story {
                now += Duration::from_secs(seconds);
                let before = learned.limit();
                if busy {
                    learned.on_busy(at_once, now);
                    prop_assert!(learned.limit() < at_once.max(2) && learned.limit() <= before);
                } else {
                    learned.on_answered(at_once, now);
                    prop_assert!(learned.limit() == before || learned.limit() == before + 1);
                    if learned.limit() > before {
                        prop_assert!(now - grown_at >= TRIED_AFTER && at_once >= before);
                    }
                }
                if learned.limit() != before {
                    grown_at = now;
                }
                prop_assert!(learned.limit() >= 1);
            }
        }

        #[test]
        fn whatever_it_takes_is_found(takes in 1..32_u32, first in 1..64_u32) {
            let (turned_away, limit) = run(takes, first, 6 * 3600);
            prop_assert!(limit <= takes + 1);
            prop_assert!(takes > 16 || limit + 1 >= takes, "{limit} of {takes}");
            prop_assert!(turned_away < 60, "{turned_away}");
        }
    }
}
