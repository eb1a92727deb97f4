//! Notices that the machine has slept.
//!
//! While it sleeps the wall clock goes on and the clock that waits are measured with stands
//! still. After it connections are dead, servers that were down may be up, and nothing that
//! anybody asked for by a number of seconds means anything any more.

use super::{Housekeeping, lock, now};
use crate::registry::Now;

/// What is no sleep but a clock that is set right a little, or a machine that is slow.
const JITTER_MS: u64 = 2_000;

/// Both clocks as they were at the last look.
pub(super) struct Clocks(Now);

impl Clocks {
    pub(super) fn as_of(now: Now) -> Self {
        Self(now)
    }

    /// Whether the wall clock has run ahead since the last look.
    fn have_jumped(&mut self, now: Now) -> bool {
        let waited = now.at.saturating_duration_since(self.0.at).as_millis();
        let passed = now.wall_ms.saturating_sub(self.0.wall_ms);
        self.0 = now;
        u128::from(passed) > waited + u128::from(JITTER_MS)
    }
}

impl Housekeeping {
    /// Has all servers looked at anew if the machine has slept since this was called last. They
    /// are to be usable within two seconds, so this is called more often.
    pub(super) fn look_at_clocks(&self) {
        if lock(&self.clocks).have_jumped(now()) {
            tracing::info!("the machine has slept; all servers are looked at anew");
            self.change(|registry, now| registry.on_wake(now));
            self.woken.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_sleep_is_told_from_a_slow_machine_and_a_clock_that_is_set() {
        let start = Now { at: Instant::now(), wall_ms: 1_700_000_000_000 };
        let check = |waited_ms: u64, passed_ms: i64, expected: bool| {
            let at = start.at + Duration::from_millis(waited_ms);
            let now = Now { at, wall_ms: start.wall_ms.saturating_add_signed(passed_ms) };
            assert_eq!(Clocks(start).have_jumped(now), expected, "{waited_ms} {passed_ms}");
        };
        check(1_000, 1_000, false);
        check(60_000, 60_000, false);
        check(1_000, 2_500, false);
        check(1_000, -3_600_000, false);
        check(1_000, 3_600_000, true);
        check(1_001, 4_000, true);
        let mut clocks = Clocks(start);
        let later = Now { at: start.at, wall_ms: start.wall_ms + 10_000 };
        assert!(clocks.have_jumped(later) && !clocks.have_jumped(later), "once");
    }
}
