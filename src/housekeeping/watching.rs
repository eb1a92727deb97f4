//! What scanning sees, put into the registry.

use std::time::Instant;

use super::{Housekeeping, lock, now};
use crate::{
    fault::{Cause, Fault, Stage},
    registry::{Hint, Listings, Lookup},
    scan::{Stands, Watch},
    server::{Bounds, Endpoint, KindId, Sighting, Source},
    upstream::Key,
};

impl Watch for Housekeeping {
    fn hint(&self, hint: Hint) {
        // A hint may be of a new listener; if that is another user's it is not trusted any more.
        let owner = self.is_bound_to_owner(&hint.endpoint).then(|| (self.owner_of)(&hint.endpoint)).flatten();
        self.change(|registry, now| {
            let mut changes = Vec::new();
            if let Some(owner) = owner {
                changes = registry.on_listener(&hint.endpoint, owner, now);
            }
            changes.extend(registry.on_hint(hint, now));
            changes
        });
    }

    fn hint_gone(&self, endpoint: &Endpoint, source: Source) {
        self.change(|registry, now| registry.on_hint_gone(endpoint, source, now));
    }

    fn other_program(&self, endpoint: &Endpoint) {
        self.change(|registry, now| registry.on_other_program(endpoint, now));
    }

    fn announced(&self, endpoint: Endpoint, name: &str) {
        // A name in the network vouches for nothing; what the person trusts is an address.
        let hint = Hint { trusted: false, endpoint, source: Source::Mdns, settings: None };
        self.change(|registry, now| registry.on_announced(hint, name, now));
    }

    fn listed(&self, lookup: &Lookup, all: &Listings) {
        self.change(|registry, now| registry.on_listed(lookup, all, now));
    }

    fn lookup_stands(&self, lookup: &Lookup, stands: Option<Stands>) {
        let mut all = lock(&self.lookups);
        match stands {
            Some(stands) => drop(all.insert(lookup.clone(), stands)),
            None => drop(all.remove(lookup)),
        }
    }

    fn is_server(&self, endpoint: &Endpoint) -> bool {
        let snapshot = self.snapshot();
        snapshot.servers.iter().any(|it| it.endpoint == *endpoint || it.also_at.contains(endpoint))
    }

    fn on_look(&self) {
        self.look_at_clocks();
    }

    async fn woken(&self) {
        self.woken.notified().await;
    }

    fn due(&self) -> Vec<Endpoint> {
        lock(&self.registry).due(now())
    }

    fn beats(&self) -> Vec<Endpoint> {
        lock(&self.registry).beats(now())
    }

    fn reached(&self, endpoint: &Endpoint, result: Result<(), Fault>) {
        self.change(|registry, now| registry.on_beat(endpoint, result, now));
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
        let key = Self::key(self, endpoint)?;
        lock(&self.registry).trusts(endpoint).then_some(key)
    }

    fn seen(&self, endpoint: &Endpoint, sighting: Sighting) {
        // With an Ollama its engines are switched off, which look like servers of their own.
        let is_off = |kind: &str| self.settings.load().kinds_off.contains(kind);
        if (sighting.engine_of.is_some() && is_off("ollama")) || is_off(sighting.kind.as_str()) {
            return self.foreign(endpoint);
        }
        let owner = match self.is_bound_to_owner(endpoint).then(|| (self.owner_of)(endpoint)) {
            // It answered, and nobody can say whose it is: perhaps it has ended since.
            Some(None) => return self.silent(endpoint, Fault::new(Stage::Connect, Cause::Refused)),
            owner => owner.flatten(),
        };
        let wants_owner = lock(&self.registry).wants_owner(endpoint);
        let trusted = wants_owner && (self.ours)(endpoint);
        self.change(|registry, now| {
            let mut changes = Vec::new();
            if let Some(owner) = owner {
                changes.extend(registry.on_listener(endpoint, owner, now));
            }
            if wants_owner {
                changes.extend(registry.on_owner(endpoint, trusted, now));
            }
            changes.extend(registry.on_seen(endpoint, sighting, now));
            changes
        });
    }

    fn bounds(&self, endpoint: &Endpoint) -> Bounds {
        lock(&self.registry).bounds(endpoint)
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

impl Housekeeping {
    /// Whether it matters whose the listener at an address is.
    fn is_bound_to_owner(&self, endpoint: &Endpoint) -> bool {
        lock(&self.registry).is_bound_to_owner(endpoint)
    }
}
