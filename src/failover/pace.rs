//! How soon servers begin to answer, from what they did lately.
//!
//! Most kinds do not say what they do, and their silence has to be judged by itself. A server
//! that took a second for a prompt like this one does not take ten for it; one of which nobody
//! knows anything may be slow. What is kept is little and coarse on purpose: the few last
//! prompts with their lengths and times, taken as if time grew with length. A prompt that the
//! server had read before is begun sooner than that, so these numbers are used with room.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::server::{ModelName, ServerId};

/// So many prompts are kept of each model at each server.
const KEPT: usize = 16;
/// So many are needed before anything follows from them.
const ENOUGH: usize = 3;
/// So many models at servers are known at once; with one more all are learned anew.
const MOST: usize = 512;

/// A server that was quick is taken to hang when it is silent for so many times as long as
/// it ever took, and not earlier than that.
const TIMES: u32 = 8;
const AT_LEAST: Duration = Duration::from_secs(5);
/// One of which nobody knows: a prompt of a few words is read in that time by any machine that
/// people have patience with, and a longer one at 100 bytes, some 25 tokens, a second.
const UNKNOWN: Duration = Duration::from_secs(10);
const SLOWEST: u64 = 100;

/// How long a prompt is read at the least and at the most after its caller left, and at how
/// many bytes a second where nothing is known: some 100 tokens.
const GHOST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
const USUAL: u64 = 400;

/// What is known of all servers.
#[derive(Clone, Debug, Default)]
pub struct Paces(BTreeMap<(ServerId, ModelName), Pace>);

impl Paces {
    /// A server took so long to begin with the answer to a prompt of so many bytes.
    pub fn learn(&mut self, server: &ServerId, model: &ModelName, bytes: u64, took: Duration) {
        let key = (server.clone(), model.clone());
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            self.0.clear();
        }
        let pace = self.0.entry(key).or_default();
        if pace.0.len() == KEPT {
            pace.0.pop_front();
        }
        pace.0.push_back((bytes.max(1), took));
    }

    /// After how much silence a server is taken to hang over a prompt of so many bytes.
    pub fn hangs_after(&self, server: &ServerId, model: &ModelName, bytes: u64) -> Duration {
        match self.longest(server, model, bytes) {
            Some(longest) => longest.saturating_mul(TIMES).max(AT_LEAST),
            None => UNKNOWN + Duration::from_secs(bytes / SLOWEST),
        }
    }

    /// How long a server goes on reading a prompt of so many bytes whose caller left after
    /// `read`, if it cannot be stopped. Never longer than half a minute: nobody sees when it
    /// is done, and a place that is kept too long is lost.
    pub fn ghost(&self, server: &ServerId, model: &ModelName, bytes: u64, read: Duration) -> Duration {
        let whole = self.longest(server, model, bytes).unwrap_or(Duration::from_secs(bytes / USUAL));
        whole.saturating_sub(read).clamp(GHOST.0, GHOST.1)
    }

    /// The longest that it took lately, for a prompt of that length.
    fn longest(&self, server: &ServerId, model: &ModelName, bytes: u64) -> Option<Duration> {
        let pace = self.0.get(&(server.clone(), model.clone())).filter(|it| it.0.len() >= ENOUGH)?;
        let scaled = |(known, took): &(u64, Duration)| {
            took.saturating_mul(u32::try_from(bytes.div_ceil(*known).max(1)).unwrap_or(u32::MAX))
        };
        pace.0.iter().map(scaled).max()
    }
}

/// Prompts and how long it took to begin with their answers.
#[derive(Clone, Debug, Default)]
struct Pace(VecDeque<(u64, Duration)>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn paces(took: &[(u64, u64)]) -> Paces {
        let mut paces = Paces::default();
        for (bytes, ms) in took {
            paces.learn(&"a".into(), &"m".into(), *bytes, *ms as u32 * MS);
        }
        paces
    }

    /// After how many milliseconds it is taken to hang over a prompt of so many bytes.
    #[track_caller]
    fn check(took: &[(u64, u64)], bytes: u64, expected: u64) {
        let hangs = paces(took).hangs_after(&"a".into(), &"m".into(), bytes);
        assert_eq!(hangs.as_millis() as u64, expected, "{took:?}");
    }

    #[test]
    fn who_was_quick_is_left_soon_and_who_was_slow_is_not() {
        check(&[], 250, 12_000);
        check(&[], 100_000, 1_010_000);
        check(&[(250, 100), (250, 100)], 250, 12_000);
        check(&[(250, 100), (250, 100), (250, 100)], 250, 5_000);
        check(&[(250, 100), (250, 1_500), (250, 100)], 250, 12_000);
        check(&[(250, 100), (250, 100), (250, 100)], 25_000, 80_000);
        check(&[(25_000, 100), (25_000, 100), (25_000, 100)], 250, 5_000);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut took = vec![(250, 60_000)];
        took.extend([(250, 100); KEPT]);
        check(&took, 250, 5_000);
    }

    #[test]
    fn a_prompt_is_read_on_for_what_is_left_of_it() {
        let ghost = |took: &[(u64, u64)], bytes, read: u64| {
            paces(took).ghost(&"a".into(), &"m".into(), bytes, read as u32 * MS).as_millis() as u64
        };
        assert_eq!(ghost(&[], 4_000, 2_000), 8_000);
        assert_eq!(ghost(&[], 4_000_000, 0), 30_000);
        assert_eq!(ghost(&[(250, 100); 3], 250, 5_000), 1_000);
        assert_eq!(ghost(&[(250, 100); 3], 25_000, 2_000), 8_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever it did, it has its least time, and a longer prompt never has less.
        #[test]
        fn a_longer_prompt_never_has_less_time(
            took in prop::collection::vec((0..1_000_000_u64, 0..600_000_u64), 0..40),
            bytes in 0..10_000_000_u64,
            more in 0..10_000_000_u64,
        ) {
            let paces = paces(&took);
            let hangs = |bytes| paces.hangs_after(&"a".into(), &"m".into(), bytes);
            prop_assert!(hangs(bytes) >= AT_LEAST && hangs(bytes) <= hangs(bytes + more));
            let ghost = paces.ghost(&"a".into(), &"m".into(), bytes, Duration::ZERO);
            prop_assert!(ghost >= GHOST.0 && ghost <= GHOST.1);
        }

        #[test]
        fn memory_is_bounded(names in prop::collection::vec(0..2_000_u32, 0..3_000)) {
            let mut paces = Paces::default();
            for name in names {
                paces.learn(&"a".into(), &name.to_string().as_str().into(), 1, MS);
                prop_assert!(paces.0.len() <= MOST);
            }
        }
    }
}
