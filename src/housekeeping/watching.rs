//! What scanning sees, put into the registry.

use std::time::Instant;

use super::{Housekeeping, lock, now};
use crate::{
    fault::Fault,
    registry::Hint,
    scan::Watch,
    server::{Endpoint, Sighting, Source},
    upstream::Key,
};

impl Watch for Housekeeping {
    fn hint(&self, mut hint: Hint) {
        hint.trusted |= (self.trusts)(&hint.endpoint);
        self.change(|registry, now| registry.on_hint(hint, now));
    }

    fn hint_gone(&self, endpoint: &Endpoint, source: Source) {
        self.change(|registry, now| registry.on_hint_gone(endpoint, source, now));
    }

    fn due(&self) -> Vec<Endpoint> {
        lock(&self.registry).due(now())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        lock(&self.registry).poll_timeout()
    }

    async fn changed(&self) {
        self.due.notified().await;
    }

    fn key(&self, endpoint: &Endpoint) -> Option<Key> {
        self.keys.get(endpoint).cloned()
    }

    fn seen(&self, endpoint: &Endpoint, sighting: Sighting) {
        if self.kinds_off.contains(&sighting.kind) {
            return self.foreign(endpoint);
        }
        self.change(|registry, now| registry.on_seen(endpoint, sighting, now));
    }

    fn silent(&self, endpoint: &Endpoint, fault: Fault) {
        self.change(|registry, now| registry.on_silent(endpoint, fault, now));
    }

    fn foreign(&self, endpoint: &Endpoint) {
        self.change(|registry, now| registry.on_foreign(endpoint, now));
    }
}
