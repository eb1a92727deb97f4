//! All addresses, and when each of them is asked next.
//!
//! There may be thousands, of which a few are due at a time. So beside the addresses there is an
//! agenda in the order of time. It is brought up to date when it is looked into, from a note of
//! those that somebody may have changed since.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Instant,
};

use super::place::{Ask, Place};
use crate::server::Endpoint;

/// All addresses.
#[derive(Debug, Default)]
pub(super) struct Places {
    all: BTreeMap<Endpoint, Place>,
    agenda: BTreeSet<(Instant, Endpoint)>,
    changed: Vec<Endpoint>,
    /// Whether anything at all may have changed.
    all_changed: bool,
}

impl Places {
    pub(super) fn get(&self, endpoint: &Endpoint) -> Option<&Place> {
        self.all.get(endpoint)
    }

    pub(super) fn contains_key(&self, endpoint: &Endpoint) -> bool {
        self.all.contains_key(endpoint)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Endpoint, &Place)> {
        self.all.iter()
    }

    /// An address that is to be changed.
    pub(super) fn get_mut(&mut self, endpoint: &Endpoint) -> Option<&mut Place> {
        let place = self.all.get_mut(endpoint)?;
        note(&mut self.changed, endpoint);
        Some(place)
    }

    /// The same; one that is not there is made.
    pub(super) fn get_or_insert(&mut self, endpoint: &Endpoint, now: Instant) -> &mut Place {
        note(&mut self.changed, endpoint);
        match self.all.entry(endpoint.clone()) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(room) => room.insert(Place::new(now)),
        }
    }

    /// All addresses, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Endpoint, &mut Place)> {
        self.all_changed = true;
        self.all.iter_mut()
    }

    pub(super) fn remove(&mut self, endpoint: &Endpoint) {
        if let Some(Place { noted: Some(at), .. }) = self.all.remove(endpoint) {
            self.agenda.remove(&(at, endpoint.clone()));
        }
    }

    /// When the first of them is to be asked.
    pub(super) fn next(&mut self) -> Option<Instant> {
        self.bring_up_to_date();
        self.agenda.first().map(|(at, _)| *at)
    }

    /// The first of those that are to be asked by now; it counts as being asked from now on.
    pub(super) fn begin_next(&mut self, now: Instant) -> Option<Endpoint> {
        if self.next()? > now {
            return None;
        }
        let (_, endpoint) = self.agenda.pop_first()?;
        if let Some(place) = self.all.get_mut(&endpoint) {
            place.noted = None;
            place.begin(now);
        }
        Some(endpoint)
    }

    fn bring_up_to_date(&mut self) {
        if std::mem::take(&mut self.all_changed) {
            self.changed.clear();
            self.agenda.clear();
            for (endpoint, place) in &mut self.all {
                place.noted = None;
                put_down(&mut self.agenda, endpoint, place);
            }
        }
        for endpoint in self.changed.drain(..) {
            if let Some(place) = self.all.get_mut(&endpoint) {
                put_down(&mut self.agenda, &endpoint, place);
            }
        }
    }
}

fn note(changed: &mut Vec<Endpoint>, endpoint: &Endpoint) {
    if changed.last() != Some(endpoint) {
        changed.push(endpoint.clone());
    }
}

fn put_down(agenda: &mut BTreeSet<(Instant, Endpoint)>, endpoint: &Endpoint, place: &mut Place) {
    let at = match place.ask {
        Ask::At(at) => Some(at),
        Ask::Asking | Ask::Never => None,
    };
    if place.noted == at {
        return;
    }
    if let Some(before) = place.noted {
        agenda.remove(&(before, endpoint.clone()));
    }
    agenda.extend(at.map(|it| (it, endpoint.clone())));
    place.noted = at;
}
