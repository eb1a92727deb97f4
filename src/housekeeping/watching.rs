//! What scanning sees, put into the registry.

use std::time::Instant;

use super::{Housekeeping, lock, now};
use crate::{
    fault::Fault,
    registry::Hint,
    scan::Watch,
    server::{Endpoint, KindId, Sighting, Source},
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

    fn other_program(&self, endpoint: &Endpoint) {
        self.change(|registry, now| registry.on_other_program(endpoint, now));
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

    fn claimed(&self, endpoint: &Endpoint) -> Option<KindId> {
        lock(&self.registry).claimed(endpoint)
    }

    fn key(&self, endpoint: &Endpoint) -> Option<Key> {
        // A key for the usual address of a kind is not for whoever took that port first.
        let key = self.keys.get(endpoint)?;
        lock(&self.registry).trusts(endpoint).then(|| key.clone())
    }

    fn seen(&self, endpoint: &Endpoint, sighting: Sighting) {
        // With an Ollama its engines are switched off, which look like servers of their own.
        let engine_of_off = sighting.engine_of.is_some() && self.kinds_off.contains("ollama");
        if engine_of_off || self.kinds_off.contains(&sighting.kind) {
            return self.foreign(endpoint);
        }
        let wants_owner = lock(&self.registry).wants_owner(endpoint);
        let trusted = wants_owner && ((self.trusts)(endpoint) || (self.ours)(endpoint));
        self.change(|registry, now| {
            let mut changes = Vec::new();
            if wants_owner {
                changes = registry.on_owner(endpoint, trusted, now);
            }
            changes.extend(registry.on_seen(endpoint, sighting, now));
            changes
        });
    }

    fn silent(&self, endpoint: &Endpoint, fault: Fault) {
        self.change(|registry, now| registry.on_silent(endpoint, fault, now));
    }

    fn foreign(&self, endpoint: &Endpoint) {
        self.change(|registry, now| registry.on_foreign(endpoint, now));
    }

    fn first_round_is_over(&self) {
        self.looked.send_replace(true);
    }
}
