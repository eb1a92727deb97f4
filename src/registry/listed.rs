//! Servers that ordinary DNS lists under a name which the person configured.
//!
//! A record vouches for nothing by itself: what it names off this machine waits until a rule of
//! the person covers its address, or the name that was looked up. That name is theirs; the names
//! inside an answer are whoever's who answers, and count for nothing.
//!
//! Each lookup is told as a whole, and what it does not list any more holds no longer: a server
//! that nobody else tells of is in no use from that event on. Requests that it works on go on.

use std::{collections::BTreeMap, fmt};

use super::{Change, Now, Registry, place::Place};
use crate::server::{Endpoint, KindId, ServerId, Source, Zone};

/// What is looked up in DNS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lookup {
    /// The name, in small letters and without the dot at its end.
    pub name: String,
    /// Where servers are at the addresses of that name; without one its records say it.
    pub port: Option<u16>,
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// What one lookup says of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Lower is asked first: 0 for the best that the lookup lists, 1 for the next, and so on.
    pub tier: u16,
    /// Its share among those of its tier; `None` where the records have none.
    pub weight: Option<u16>,
    /// Its kind, believed where recognition comes to nothing better than "OpenAI-compatible".
    pub kind: Option<KindId>,
}

/// All that one lookup lists.
pub type Listings = BTreeMap<Endpoint, Listing>;

impl Place {
    /// What holds of all that lookups say of this address: the best that any says.
    pub(super) fn listing(&self) -> Option<&Listing> {
        self.listed.values().min_by_key(|it| (it.tier, std::cmp::Reverse(it.weight)))
    }

    /// Whether lookups tell of it, and nobody else.
    fn is_listed_only(&self) -> bool {
        !self.listed.is_empty() && self.hints.keys().all(|it| *it == Source::Dns)
    }
}

impl Registry {
    /// A lookup lists these addresses, and no others.
    pub fn on_listed(&mut self, lookup: &Lookup, all: &Listings, now: Now) -> Vec<Change> {
        let was = self.places.iter().filter(|(_, place)| place.listed.contains_key(lookup));
        let gone: Vec<Endpoint> =
            was.map(|(endpoint, _)| endpoint).filter(|it| !all.contains_key(*it)).cloned().collect();
        let mut changes = Vec::new();
        for endpoint in &gone {
            self.unlist(endpoint, lookup, now, &mut changes);
        }
        for (endpoint, listing) in all {
            self.list(endpoint, lookup, listing, now, &mut changes);
        }
        self.told(changes)
    }

    fn list(
        &mut self,
        endpoint: &Endpoint,
        lookup: &Lookup,
        listing: &Listing,
        now: Now,
        changes: &mut Vec<Change>,
    ) {
        if self.settings.cloud.bars(endpoint) {
            return;
        }
        let place = self.places.get_or_insert(endpoint, now.at);
        if place.listed.get(lookup) == Some(listing) {
            return;
        }
        let is_back = place.listed.is_empty();
        place.listed.insert(lookup.clone(), listing.clone());
        place.hints.insert(Source::Dns, false);
        place.rule(self.settings.covers(endpoint, &place.listed));
        place.weigh_trust(endpoint, self.watched);
        if is_back {
            place.wake(now.at);
        }
        if let Some(id) = self.server_at(endpoint) {
            self.refresh(&id, now, changes);
        }
    }

    fn unlist(&mut self, endpoint: &Endpoint, lookup: &Lookup, now: Now, changes: &mut Vec<Change>) {
        let Some(place) = self.places.get_mut(endpoint) else { return };
        place.listed.remove(lookup);
        if place.listed.is_empty() {
            place.hints.remove(&Source::Dns);
        }
        let ruled = self.settings.covers(endpoint, &place.listed);
        place.rule(ruled);
        place.weigh_trust(endpoint, self.watched);
        let (is_left, is_kept) = (place.hints.is_empty(), place.word.is_some());
        if is_left {
            // Somebody else may be there from now on.
            place.abandon();
        }
        if let Some(id) = self.server_at(endpoint) {
            if !is_left {
                self.refresh(&id, now, changes);
            } else if is_kept && let Some(server) = self.servers.get_mut(&id) {
                server.health.displace();
                self.refresh(&id, now, changes);
            } else if !self.leave(endpoint, now, changes) {
                self.remove(&id, changes);
            }
        }
        self.sweep(endpoint);
    }

    /// Whether a stored server was known by lookups alone: these are made anew, and then it is
    /// found anew, or not.
    pub(super) fn was_listed_only(stored: &super::Server) -> bool {
        let only = stored.found_by.iter().all(|it| *it == Source::Dns);
        only && !stored.found_by.is_empty() && stored.word.is_none() && stored.zone != Zone::Machine
    }

    /// Whether an address is known by lookups alone.
    pub(super) fn is_listed_at(&self, endpoint: &Endpoint) -> bool {
        self.places.get(endpoint).is_some_and(Place::is_listed_only)
    }
}

/// Whether this id says by itself which address and kind it is for: then nobody has to remember
/// whose it was.
pub fn says_where(id: &ServerId, endpoint: &Endpoint, kind: &KindId) -> bool {
    super::id::of_address(kind.as_str(), endpoint).is_some_and(|it| *id == it.as_str())
}
