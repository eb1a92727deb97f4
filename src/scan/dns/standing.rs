//! How one lookup stands: what holds of its answers, and when it is made again.
//!
//! Pure. What was listed last holds until there is another answer that counts. A resolver that
//! fails, or whose answer cannot be true, changes nothing but for how long: unless something
//! confirms it, the last good answer is over after a while. That a name has nothing at all is
//! also what resolvers say that have just been started, or have lost their own; so that is
//! believed only when it has been said several times over some time.

use std::time::{Duration, Instant};

use super::answer::{Answer, Trouble};
use crate::registry::Listings;

/// So often and for so long in a row a resolver has to say that there is nothing.
const NOTHING: (u32, Duration) = (3, Duration::from_secs(30));

/// How often it is looked, and how long an answer holds that nothing confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) least: Duration,
    pub(super) most: Duration,
    pub(super) keep: Duration,
}

/// One lookup.
#[derive(Debug)]
pub(super) struct Standing {
    bounds: Bounds,
    held: Listings,
    confirmed_at: Option<Instant>,
    /// How often in a row there was nothing, and since when.
    nothing: Option<(u32, Instant)>,
    /// How often in a row there was no answer that counts.
    failed: u32,
    trouble: Option<Trouble>,
    left_out: usize,
    next: Option<Instant>,
}

impl Standing {
    /// To be made at once.
    pub(super) fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            bounds,
            held: Listings::new(),
            confirmed_at: None,
            nothing: None,
            failed: 0,
            trouble: None,
            left_out: 0,
            next: Some(now),
        }
    }

    /// The person says something else of it: it is made at once, as if it had never failed.
    pub(super) fn configure(&mut self, bounds: Bounds, now: Instant) {
        self.bounds = bounds;
        self.failed = 0;
        self.next = self.next.map(|_| now);
    }

    /// When it is to be made; `None` while it is being made.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// It is being made from now on.
    pub(super) fn begin(&mut self) {
        self.next = None;
    }

    /// It was made. Returns whether something else holds from now on.
    pub(super) fn on_answer(&mut self, answer: Result<Answer, Trouble>, now: Instant) -> bool {
        let before = std::mem::take(&mut self.held);
        match answer {
            Ok(answer) => {
                self.held = answer.listings;
                self.left_out = answer.left_out;
                (self.confirmed_at, self.nothing, self.failed, self.trouble) = (Some(now), None, 0, None);
                self.next = Some(now + self.within(answer.ttl));
            }
            Err(trouble) => {
                self.held.clone_from(&before);
                self.failed = self.failed.saturating_add(1);
                self.nothing = match (&trouble, self.nothing) {
                    (Trouble::Nothing, Some((times, since))) => Some((times.saturating_add(1), since)),
                    (Trouble::Nothing, None) => Some((1, now)),
                    _ => None,
                };
                let is_empty =
                    self.nothing.is_some_and(|(times, since)| times >= NOTHING.0 && since + NOTHING.1 <= now);
                let is_over = self.confirmed_at.is_none_or(|at| at + self.bounds.keep <= now);
                if is_empty || is_over {
                    self.held = Listings::new();
                }
                self.trouble = Some(trouble);
                let doublings = (self.failed - 1).min(16);
                self.next = Some(now + self.within(self.bounds.least.saturating_mul(1 << doublings)));
            }
        }
        self.held != before
    }

    /// What it lists.
    pub(super) fn held(&self) -> &Listings {
        &self.held
    }

    /// What a person should know of it, in words that stay the same while it does.
    pub(super) fn trouble(&self) -> Option<String> {
        let Some(trouble) = &self.trouble else {
            let left_out = self.left_out;
            return (left_out > 0).then(|| {
                format!(
                    "{left_out} of the addresses in the answer are not asked: they are public, of this \
                     machine, nobody's, or at a port of other programs"
                )
            });
        };
        Some(match (self.confirmed_at, self.held.len()) {
            (None, _) => trouble.to_string(),
            (Some(_), 0) => format!("{trouble}; what it listed is in use no more"),
            (Some(_), held) => format!("{trouble}; the {held} that it listed last stay in use for now"),
        })
    }

    fn within(&self, wished: Duration) -> Duration {
        // Where both cannot be, the lower bound holds: it is there for the resolver's sake.
        wished.min(self.bounds.most).max(self.bounds.least)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{registry::Listing, server::Endpoint};

    const SECOND: Duration = Duration::from_secs(1);

    fn bounds() -> Bounds {
        Bounds { least: SECOND * 5, most: SECOND * 60, keep: SECOND * 600 }
    }

    fn answer(hosts: &[u8], ttl: u64) -> Result<Answer, Trouble> {
        let at = |it: &u8| (Endpoint::tcp([10, 0, 0, *it].into(), 8000), Listing::default());
        Ok(Answer { listings: hosts.iter().map(at).collect(), ttl: SECOND * ttl as u32, left_out: 0 })
    }

    /// Makes it again whenever it is due, until something else holds.
    fn until_changed(standing: &mut Standing, trouble: &Trouble) -> (u32, Duration) {
        let begun = standing.next().unwrap();
        for times in 1..1000 {
            let now = standing.next().unwrap();
            if standing.on_answer(Err(trouble.clone()), now) {
                return (times, now - begun);
            }
        }
        panic!("what holds never changes");
    }

    #[test]
    fn it_is_made_again_when_its_records_are_over_within_bounds() {
        let now = Instant::now();
        let mut standing = Standing::new(bounds(), now);
        assert_eq!(standing.next(), Some(now));
        for (ttl, next) in [(0, 5), (1, 5), (30, 30), (3600, 60)] {
            assert!(standing.on_answer(answer(&[7], ttl), now) == (ttl == 0));
            assert_eq!(standing.next(), Some(now + SECOND * next), "{ttl}");
        }
        assert!(standing.on_answer(answer(&[8], 9), now) && standing.held().len() == 1);
        assert_eq!(standing.trouble(), None);
    }

    #[test]
    fn a_resolver_that_fails_leaves_the_last_good_answer_for_its_time() {
        for trouble in [Trouble::Silent, Trouble::Astray, Trouble::TooMany(9999), Trouble::NoneUsable(3)] {
            let now = Instant::now();
            let mut standing = Standing::new(bounds(), now);
            standing.on_answer(answer(&[7, 8], 5), now);
            assert!(!standing.on_answer(Err(trouble.clone()), now));
            assert!(standing.trouble().unwrap().ends_with("; the 2 that it listed last stay in use for now"));
            let (_, after) = until_changed(&mut standing, &trouble);
            assert!((SECOND * 540..SECOND * 661).contains(&after), "{after:?}");
            assert!(standing.held().is_empty());
            assert!(standing.trouble().unwrap().ends_with("in use no more"));
            assert!(standing.on_answer(answer(&[7, 8], 5), now) && standing.trouble().is_none());
        }
    }

    #[test]
    fn that_there_is_nothing_is_believed_when_it_is_said_again_and_again() {
        let now = Instant::now();
        let mut standing = Standing::new(bounds(), now);
        standing.on_answer(answer(&[7], 5), now);
        let (times, after) = until_changed(&mut standing, &Trouble::Nothing);
        assert!(times >= 3 && (SECOND * 30..SECOND * 90).contains(&after), "{times} times, {after:?}");
        // For a moment only, it changes nothing.
        standing.on_answer(answer(&[7], 5), now);
        for round in 1..10 {
            assert!(!standing.on_answer(Err(Trouble::Nothing), now + SECOND * 40 * round));
            assert!(!standing.on_answer(answer(&[7], 5), now + SECOND * 40 * round));
        }
    }

    #[test]
    fn a_lookup_that_is_being_made_is_not_made_twice() {
        let now = Instant::now();
        let mut standing = Standing::new(bounds(), now);
        standing.begin();
        standing.configure(Bounds { least: SECOND, ..bounds() }, now);
        assert_eq!(standing.next(), None);
        standing.on_answer(answer(&[7], 1), now);
        assert_eq!(standing.next(), Some(now + SECOND));
    }

    proptest! {
        #[test]
        fn what_holds_is_the_last_good_answer_or_nothing(events in prop::collection::vec((0u8..6, 0u64..2000, 0u64..5000), 1..80)) {
            let mut now = Instant::now();
            let mut standing = Standing::new(bounds(), now);
            let mut last = Listings::new();
            for (what, wait, ttl) in events {
                now += SECOND * wait as u32;
                let result = match what {
                    0 => Err(Trouble::Nothing),
                    1 => Err(Trouble::Silent),
                    2 => Err(Trouble::TooMany(5000)),
                    host => answer(&[host], ttl),
                };
                if let Ok(answer) = &result {
                    last.clone_from(&answer.listings);
                }
                let was_good = result.is_ok();
                let before = standing.held().clone();
                let is_news = standing.on_answer(result, now);
                prop_assert_eq!(is_news, before != *standing.held());
                prop_assert!(*standing.held() == last || (!was_good && standing.held().is_empty()));
                prop_assert_eq!(standing.trouble().is_none(), was_good);
                let next = standing.next().expect("it is made again") - now;
                prop_assert!(bounds().least <= next && next <= bounds().most);
            }
        }
    }
}
