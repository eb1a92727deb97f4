//! Keeps a trouble that repeats itself from filling the log: of each warning
//! and each error a few are written in a minute, and how many were left out
//! stands before the next one.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Subscriber, callsite::Identifier};
use tracing_subscriber::layer::{Context, Layer};

/// Enough to see what differs between them, and few enough to be read.
const AT_ONCE: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// The layer that leaves them out.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<Seen>);

/// The lines of each place in the source, since the window of that place began.
#[derive(Debug, Default)]
struct Seen(HashMap<Identifier, Place>);

#[derive(Debug)]
struct Place {
    since: Instant,
    written: u32,
    left_out: u32,
}

impl Seen {
    /// Whether a line is written, and if so, how many like it were left out before it.
    fn admit(&mut self, place: Identifier, now: Instant) -> Option<u32> {
        let it = self.0.entry(place).or_insert(Place { since: now, written: 0, left_out: 0 });
        if now.saturating_duration_since(it.since) >= WINDOW {
            let left_out = it.left_out;
            *it = Place { since: now, written: 1, left_out: 0 };
            return Some(left_out);
        }
        if it.written < AT_ONCE {
            it.written += 1;
            return Some(0);
        }
        it.left_out += 1;
        None
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let about = event.metadata();
        // Whatever else is written is one line for one thing that somebody did.
        if *about.level() > Level::WARN || about.target() == NOTE {
            return true;
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = seen.admit(about.callsite(), Instant::now());
        drop(seen);
        if let Some(left_out) = admitted.filter(|it| *it > 0) {
            tracing::warn!(target: NOTE, "{left_out} lines like the next one were left out");
        }
        admitted.is_some()
    }
}

/// Where the lines about lines left out come from.
const NOTE: &str = "lovable::repeat";

#[cfg(test)]
mod tests {
    use super::*;

    fn place(event: &'static tracing::Metadata<'static>) -> Identifier {
        event.callsite()
    }

    fn two() -> [Identifier; 2] {
        struct Catch(Mutex<Vec<Identifier>>);
        impl<S: Subscriber> Layer<S> for &'static Catch {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                self.0.lock().unwrap().push(place(event.metadata()));
            }
        }
        use tracing_subscriber::layer::SubscriberExt;
        let catch: &'static Catch = Box::leak(Box::new(Catch(Mutex::default())));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(catch), || {
            tracing::warn!("one");
            tracing::warn!("two");
        });
        let caught = catch.0.lock().unwrap();
        [caught[0].clone(), caught[1].clone()]
    }

    #[test]
    fn of_lines_that_repeat_a_few_are_written_in_a_minute_and_the_rest_is_counted() {
        let [one, two] = two();
        let (mut seen, start) = (Seen::default(), Instant::now());
        for _ in 0..AT_ONCE {
            assert_eq!(seen.admit(one.clone(), start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(seen.admit(one.clone(), start + WINDOW / 2), None);
        }
        assert_eq!(seen.admit(two, start + WINDOW / 2), Some(0), "another place is another matter");
        assert_eq!(seen.admit(one.clone(), start + WINDOW), Some(7));
        assert_eq!(seen.admit(one, start + WINDOW), Some(0));
    }
}
