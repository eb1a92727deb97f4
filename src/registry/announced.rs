//! Servers that are announced in the network: where they have moved, and how many there may be.
//!
//! A name in the network proves nothing, so all that follows from it is that a server which is
//! gone from its address, and whose name is now announced at another, keeps its id when the same
//! kind answers there. What was trusted is the address: at the other it has to be trusted anew.

use super::{Change, Hint, Known, Now, Registry, SECONDARY, Standing, Word, place::Place};
use crate::server::{Endpoint, ServerId, Sighting, Source};

/// Names of one address: each type of service has one.
const MOST_NAMES: usize = 16;

/// Servers that nobody trusts and nothing but an announcement tells of. Behind each there was
/// something that answers like a server, which is easily made up.
const MOST_STRANGERS: usize = 64;

/// How often a new address is put off, a second each time, while it is found out whether the
/// server of that name is gone from where it was.
const PUT_OFF: u32 = 6;

/// Where what was recognised at a new address comes from.
pub(super) enum Whence {
    /// It was somewhere else before.
    Moved(ServerId),
    /// It was nowhere.
    New,
    /// That will turn out.
    Unclear,
}

impl Registry {
    /// A service of that name is announced at an address of the network.
    pub fn on_announced(&mut self, hint: Hint, name: &str, now: Now) -> Vec<Change> {
        let endpoint = hint.endpoint.clone();
        let mut changes = self.on_hint(hint, now);
        let Some(place) = self.places.get_mut(&endpoint) else { return changes };
        if place.names.len() < MOST_NAMES && place.names.insert(name.to_owned()) {
            if let Some(id) = place.server.clone() {
                self.refresh(&id, now, &mut changes);
            }
            return self.told(changes);
        }
        changes
    }

    /// Whether what answers at a new address was at another one before.
    pub(super) fn whence(&mut self, endpoint: &Endpoint, sighting: &Sighting, now: Now) -> Whence {
        let Some(place) = self.places.get(endpoint) else { return Whence::New };
        let same = |it: &Known| {
            it.now.kind == sighting.kind
                && it.now.announced_as.iter().any(|name| place.names.contains(name))
                && self.is_left(&it.now.endpoint)
        };
        let Some(id) = self.servers.values().find(|it| same(it)).map(|it| it.now.id.clone()) else {
            return Whence::New;
        };
        if self.is_doubted(&id) {
            return Whence::Moved(id);
        }
        let Some(place) = self.places.get_mut(endpoint).filter(|it| it.put_off < PUT_OFF) else {
            // It still answers where it was, so this is another one that took its name.
            return Whence::New;
        };
        if place.put_off == 0
            && let Some(old) = self.servers.get(&id).map(|it| it.now.endpoint.clone())
            && let Some(old) = self.places.get_mut(&old)
        {
            old.postpone(now.at);
        }
        if let Some(place) = self.places.get_mut(endpoint) {
            place.put_off += 1;
            place.postpone(now.at + super::WHILE_LOADING);
        }
        Whence::Unclear
    }

    /// Whether nobody tells of an address any more but through a server that was there.
    fn is_left(&self, endpoint: &Endpoint) -> bool {
        let told = |place: &Place| {
            place.is_named() || [Source::Mdns, Source::Dns].iter().any(|it| place.hints.contains_key(it))
        };
        !endpoint.is_local() && !self.places.get(endpoint).is_some_and(told)
    }

    /// A server is at this address from now on.
    pub(super) fn move_here(&mut self, id: ServerId, endpoint: &Endpoint) -> ServerId {
        let old = self.addresses(&id);
        // What a person said against a server they said of it wherever it goes.
        let refused = old.iter().filter_map(|it| self.places.get(it));
        let refused = refused.into_iter().any(|it| it.word == Some(Word::Distrusted));
        self.detach(&id);
        old.iter().for_each(|it| self.sweep(it));
        if let Some(server) = self.servers.get_mut(&id) {
            server.now.endpoint = endpoint.clone();
            server.now.also_at.clear();
            server.moved();
        }
        if let Some(place) = self.places.get_mut(endpoint) {
            place.server = Some(id.clone());
            place.put_off = 0;
            if refused {
                place.word = Some(Word::Distrusted);
            }
        }
        id
    }

    /// Whether a server at this address may be added. When there are too many that nobody
    /// trusts, one that is down makes room; who is announced while all of them are up waits.
    pub(super) fn has_room(&mut self, endpoint: &Endpoint, changes: &mut Vec<Change>) -> bool {
        let is_strange = |it: &Place| {
            !it.is_trusted() && it.word.is_none() && it.hints.keys().all(|it| *it == Source::Mdns)
        };
        if !self.places.get(endpoint).is_some_and(|it| is_strange(it) && !it.hints.is_empty()) {
            return true;
        }
        let strangers = self.servers.values().filter(|it| {
            let only_announced = it.now.found_by.iter().all(|it| *it == Source::Mdns);
            only_announced && self.places.get(&it.now.endpoint).is_some_and(is_strange)
        });
        let strangers: Vec<(bool, u64, ServerId)> =
            strangers.map(|it| (it.health.standing != Standing::Down, it.order, it.now.id.clone())).collect();
        if strangers.len() < MOST_STRANGERS {
            return true;
        }
        match strangers.into_iter().min() {
            Some((false, _, id)) => {
                let old = self.addresses(&id);
                self.remove(&id, changes);
                old.iter().for_each(|it| self.sweep(it));
                true
            }
            _ => {
                self.put_off_long(endpoint);
                false
            }
        }
    }

    fn put_off_long(&mut self, endpoint: &Endpoint) {
        if let Some(place) = self.places.get_mut(endpoint)
            && let super::Ask::At(at) = place.ask
        {
            place.postpone(at + SECONDARY);
        }
    }
}
