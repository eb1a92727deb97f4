//! From a registry to changes and back: the store, the feed, and what readers hold.

use std::{collections::BTreeSet, sync::Arc};

use super::{Admission, Change, Health, Known, Now, Registry, Server, Snapshot};
use crate::server::{ModelName, Source, Zone};

/// Names of former models that are kept; the oldest habit of a caller is not worth more.
const FORMERLY: usize = 1000;

impl Registry {
    /// The changes that rebuild this registry: what a store keeps, and what opens a feed.
    pub fn replicate(&self) -> Vec<Change> {
        let retired = self.retired.iter().map(|(id, (endpoint, kind))| Change::Forgotten {
            id: id.clone(),
            endpoint: endpoint.clone(),
            kind: kind.clone(),
        });
        let servers = self.servers.values().map(|it| Change::Server { server: Arc::clone(&it.shown) });
        retired.chain(servers).collect()
    }

    /// Takes over what was stored. Nothing is believed before it is seen: the
    /// server comes back as suspect, usable and due at once; one that was down
    /// is down. What only the configuration or the environment can say (trust
    /// of addresses outside this machine, limits, switches) waits for their hints.
    pub fn apply(&mut self, change: Change, now: Now) {
        match change {
            Change::Forgotten { id, endpoint, kind } => {
                self.remove(&id, &mut Vec::new());
                self.retire(id, &endpoint, &kind);
            }
            Change::Server { server } => self.restore(&server, now),
        }
        self.rebuild();
    }

    fn restore(&mut self, stored: &Server, now: Now) {
        let id = stored.id.clone();
        self.retired.remove(&id);
        self.detach(&id);
        self.servers.remove(&id);
        if self.settings.cloud.bars_stored(stored) {
            // It was used while that was allowed; its id stays its own.
            self.retired.insert(id, (stored.endpoint.clone(), stored.kind.clone()));
            return;
        }
        if Self::was_listed_only(stored) {
            self.retire(id, &stored.endpoint, &stored.kind);
            return;
        }
        for endpoint in std::iter::once(&stored.endpoint).chain(&stored.also_at) {
            if self.settings.cloud.bars(endpoint) {
                continue;
            }
            let place = self.places.get_or_insert(endpoint, now.at);
            place.rule(self.settings.covers(endpoint, &place.listed));
            if place.server.is_some() {
                // Found by itself meanwhile; the store is older than that.
                continue;
            }
            place.server = Some(id.clone());
            // What the store says of trust it says of the address that is asked, and of
            // one that is switched off it says nothing.
            let trusted = matches!(stored.admission, Admission::Open | Admission::Draining);
            place.remember_trust(trusted && endpoint.is_local() && *endpoint == stored.endpoint);
            // What a person said they said of the server, under whatever address.
            place.word.clone_from(&stored.word);
            place.names = stored.announced_as.clone();
            if stored.found_by.contains(&Source::Added) {
                let trusted = endpoint.is_local() && place.is_vouched();
                place.hints.entry(Source::Added).or_insert(trusted);
            }
            place.wake(now.at);
        }
        if self.server_at(&stored.endpoint).as_ref() != Some(&id) {
            self.detach(&id);
            self.retired.insert(id, (stored.endpoint.clone(), stored.kind.clone()));
            return;
        }
        let health = Health::restored(stored.standing, now.at);
        let mut server = stored.clone();
        server.also_at.retain(|it| self.server_at(it).as_ref() == Some(&id));
        server.busy_until = None;
        self.created += 1;
        let mut known = Known::new(server, health, self.created);
        known.draining = stored.admission == Admission::Draining;
        // What passed requests on is not believed to be near before it is seen again.
        known.forwards = stored.zone == Zone::Cloud;
        self.servers.insert(id.clone(), known);
        self.refresh(&id, now, &mut Vec::new());
    }

    /// Makes the picture that readers take.
    pub(super) fn rebuild(&mut self) {
        let servers: Vec<Arc<Server>> = self.servers.values().map(|it| Arc::clone(&it.shown)).collect();
        let mut lost = left_behind(&self.snapshot.servers, &servers);
        lost.retain(|it| !self.formerly.contains(it));
        if !lost.is_empty() {
            let models = servers.iter().flat_map(|it| &it.models);
            let there: BTreeSet<&str> = models
                .flat_map(|it| std::iter::once(&it.name).chain(&it.aliases))
                .map(ModelName::as_str)
                .collect();
            lost.retain(|it| !there.contains(it.as_str()));
        }
        if !lost.is_empty() {
            let room = FORMERLY.saturating_sub(self.formerly.len());
            Arc::make_mut(&mut self.formerly).extend(lost.into_iter().take(room));
        }
        self.snapshot = Arc::new(Snapshot { servers, formerly: Arc::clone(&self.formerly) });
    }
}

/// Names of models that some server had and has no more, be they elsewhere or not. Both lists are
/// in the order of ids; nearly all servers are the very same in both.
fn left_behind(before: &[Arc<Server>], now: &[Arc<Server>]) -> BTreeSet<ModelName> {
    let mut now = now.iter().peekable();
    let mut left = BTreeSet::new();
    for old in before {
        while now.next_if(|it| it.id < old.id).is_some() {}
        let new = now.peek().filter(|it| it.id == old.id);
        if new.is_some_and(|it| Arc::ptr_eq(it, old)) {
            continue;
        }
        let names = old.models.iter().map(|it| &it.name);
        left.extend(names.filter(|it| !new.is_some_and(|new| new.has(it.as_str()))).cloned());
    }
    left
}
