//! The moments at which what can wait is done, all of it together.
//!
//! A machine that has nothing else to do pays for each time that it is woken, and on a virtual
//! one that is most of what an idle daemon costs. So whoever looks at something again and again
//! looks at the same ticks. For a timer more than 64 ms ahead tokio (1.54) wakes twice, first to
//! put it into a finer wheel, but not if it is due at a multiple of 64 ms since the runtime
//! began; ticks are such multiples.

use std::{sync::LazyLock, time::Duration};

use tokio::time::Instant;

/// From one tick to the next. A new server should be usable within a second: half of it is for
/// noticing, the other half for the conversation.
pub(super) const TICK: Duration = Duration::from_millis(512);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Ticks are counted from here: to be called right before the runtime begins, else each of
/// them wakes twice.
pub fn begin() {
    LazyLock::force(&START);
}

/// The first tick after now.
pub(super) fn next() -> Instant {
    not_before(Instant::now() + Duration::from_nanos(1))
}

/// The first tick that is not before.
pub(super) fn not_before(at: Instant) -> Instant {
    let since = at.saturating_duration_since(*START).as_nanos();
    let ticks = since.div_ceil(TICK.as_nanos());
    *START + TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_wait_waits_for_a_tick_and_no_longer() {
        begin();
        for ms in [0, 1, 511, 512, 513, 1_024, 86_400_000] {
            let at = *START + Duration::from_millis(ms);
            let tick = not_before(at);
            assert!(tick >= at && tick < at + TICK, "{ms}");
            assert_eq!((tick - *START).as_millis() % 64, 0, "{ms}");
        }
        assert_eq!(not_before(*START + TICK), *START + TICK, "a tick is its own");
        assert!(next() > Instant::now() - TICK);
    }
}
