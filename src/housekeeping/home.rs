//! Where conversations are at home: the server that answered them last, which has kept what
//! it read. Bounded, and forgotten after a while: by then it has kept others.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::server::ServerId;

/// So many conversations are remembered: more than all servers here keep.
const MOST: usize = 4096;
/// So long after its last turn a conversation is remembered. Models are unloaded earlier.
const KEPT: Duration = Duration::from_secs(30 * 60);

/// Conversations and their servers.
#[derive(Debug, Default)]
pub(super) struct Homes(BTreeMap<u64, (ServerId, Instant)>);

impl Homes {
    /// Where a conversation was answered last.
    pub(super) fn of(&self, conversation: u64, now: Instant) -> Option<&ServerId> {
        self.0.get(&conversation).filter(|(_, at)| is_fresh(*at, now)).map(|(server, _)| server)
    }

    /// A conversation is answered by this server.
    pub(super) fn settle(&mut self, conversation: u64, server: &ServerId, now: Instant) {
        if self.0.len() >= MOST && !self.0.contains_key(&conversation) {
            self.make_room(now);
        }
        self.0.insert(conversation, (server.clone(), now));
    }

    /// Forgets what is stale, and of the rest the older half if that is not enough.
    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, (_, at)| is_fresh(*at, now));
        if self.0.len() >= MOST {
            let mut times: Vec<Instant> = self.0.values().map(|(_, at)| *at).collect();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            self.0.retain(|_, (_, at)| *at > middle);
        }
    }
}

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < KEPT
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_conversation_is_at_home_where_it_was_answered_last_and_not_for_ever() {
        let now = Instant::now();
        let mut homes = Homes::default();
        homes.settle(1, &"a".into(), now);
        homes.settle(1, &"b".into(), now);
        assert_eq!(homes.of(1, now), Some(&"b".into()));
        assert_eq!(homes.of(2, now), None);
        assert_eq!(homes.of(1, now + KEPT), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn memory_is_bounded_and_the_latest_is_always_known(pause_ms in 0..2_000_u64) {
            let (mut now, mut homes) = (Instant::now(), Homes::default());
            for conversation in 0..3 * MOST as u64 {
                homes.settle(conversation, &"a".into(), now);
                prop_assert!(homes.0.len() <= MOST && homes.of(conversation, now).is_some());
                now += Duration::from_millis(pause_ms);
            }
        }
    }
}
