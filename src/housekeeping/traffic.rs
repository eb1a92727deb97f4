//! How many requests each server works on for us.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::server::ServerId;

type Counters = BTreeMap<ServerId, Arc<AtomicU32>>;

/// Counters by server.
#[derive(Default)]
pub struct Traffic(Mutex<Counters>);

impl Traffic {
    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more request, until the guard is dropped.
    pub fn enter(&self, server: &ServerId) -> InFlight {
        let mut counters = self.counters();
        let counter = match counters.get(server) {
            Some(counter) => counter.clone(),
            None => counters.entry(server.clone()).or_default().clone(),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        InFlight(counter)
    }

    /// Looks at all counters at once.
    pub fn look(&self) -> Look<'_> {
        Look(self.counters())
    }
}

/// The counters, held still.
pub struct Look<'a>(MutexGuard<'a, Counters>);

impl Look<'_> {
    /// How many requests a server has.
    pub fn of(&self, server: &ServerId) -> u32 {
        self.0.get(server).map_or(0, |it| it.load(Ordering::Relaxed))
    }
}

/// One request at one server; dropping it gives its place back.
#[must_use = "the request counts for as long as this lives"]
pub struct InFlight(Arc<AtomicU32>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_until_its_guard_is_dropped() {
        let traffic = Traffic::default();
        let id = ServerId::from("a");
        let first = traffic.enter(&id);
        let second = traffic.enter(&id);
        assert_eq!(traffic.look().of(&id), 2);
        drop(first);
        assert_eq!(traffic.look().of(&id), 1);
        drop(second);
        assert_eq!(traffic.look().of(&id), 0);
    }
}
