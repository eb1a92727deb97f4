//! What a person has said of a server, and whether it still is what they said it of.
//!
//! Trust that comes with a rule, with the configuration or with the owner of a socket is about
//! an address, and lasts as long as the hint that brings it. What a person says of one server
//! with `servers trust` is *bound*: to the address, to the kind of server, on this machine to
//! the user whose it is, and if they want so to its TLS key. As soon as one of these is another,
//! the server waits until the person says so anew; until then no rule and no owner speaks for it.
//!
//! `servers distrust` outweighs everything: rules, owners, also an entry in the configuration.
//! Whoever says it of a server that they configured means it, and only `servers trust`, or
//! forgetting the server, takes it back. Both words are kept across restarts, and a server that
//! one was said of is never forgotten by itself.

use serde::{Deserialize, Serialize};

use super::{Change, Now, Place, Registry};
use crate::{
    fault::{Cause, Fault},
    server::{Bounds, Check, Endpoint, KindId, Pin, Problem, Sighting, Zone},
};

/// What a person said of the server at an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// It is trusted, as long as it is this.
    Trusted(Bond),
    /// It was trusted, and is something else now.
    Changed {
        /// What was trusted.
        was: Bond,
        /// What is another now.
        what: Identity,
    },
    /// It gets nothing.
    Distrusted,
}

/// What trust is bound to, beside the address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    /// What sort of server it is; `None` while it was not known, because the server wants a key:
    /// the first that proves to be there is taken.
    pub kind: Option<KindId>,
    /// Its TLS key.
    pub tls_pin: Option<Pin>,
    /// The user whose listener it is, on this machine and where that could be read.
    pub owner: Option<u32>,
}

/// What makes a server the one that was trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// Its kind.
    Kind,
    /// Its TLS key.
    Key,
    /// The user whose it is.
    Owner,
}

impl Word {
    /// What was trusted, be it still there or not.
    pub fn bond(&self) -> Option<&Bond> {
        match self {
            Self::Trusted(bond) | Self::Changed { was: bond, .. } => Some(bond),
            Self::Distrusted => None,
        }
    }

    /// Whether it may be about a server of this kind.
    pub(super) fn is_about(&self, kind: &KindId) -> bool {
        self.bond().and_then(|it| it.kind.as_ref()).is_none_or(|it| it == kind)
    }

    /// What a person should know of it.
    pub(super) fn problem(&self) -> Option<Problem> {
        match self {
            Self::Changed { what: Identity::Kind, .. } => Some(Problem::ChangedKind),
            Self::Changed { what: Identity::Key, .. } => Some(Problem::ChangedKey),
            Self::Changed { what: Identity::Owner, .. } => Some(Problem::ChangedOwner),
            Self::Trusted(_) | Self::Distrusted => None,
        }
    }

    fn change(&mut self, what: Identity) {
        if let Self::Trusted(bond) = self {
            *self = Self::Changed { was: std::mem::take(bond), what };
        }
    }
}

impl Place {
    /// Something was recognised here: whether it is what is trusted.
    pub(super) fn compare_kind(&mut self, sighting: &Sighting) {
        let Some(word) = &mut self.word else { return };
        let Word::Trusted(bond) = word else { return };
        // Whoever turns us away shows too little of itself to be taken for another. While it
        // looks like one it gets nothing either.
        if matches!(sighting.problem, Some(Problem::NeedsKey | Problem::WrongHost)) {
            return;
        }
        match &bond.kind {
            None => bond.kind = Some(sighting.kind.clone()),
            Some(kind) if *kind == sighting.kind => {}
            Some(_) => word.change(Identity::Kind),
        }
    }

    /// A connection was refused by us because of the key that was shown.
    pub(super) fn compare_key(&mut self, fault: &Fault) {
        if fault.cause == Cause::WrongPin
            && let Some(word) = &mut self.word
            && word.bond().is_some_and(|it| it.tls_pin.is_some())
        {
            word.change(Identity::Key);
        }
    }

    fn compare_owner(&mut self, owner: u32) {
        if let Some(word) = &mut self.word
            && word.bond().and_then(|it| it.owner).is_some_and(|it| it != owner)
        {
            word.change(Identity::Owner);
        }
    }

    /// The TLS key that a person wants to see here.
    fn pin(&self) -> Option<Pin> {
        let bound = match &self.word {
            Some(Word::Trusted(bond)) => bond.tls_pin,
            _ => None,
        };
        bound.or(self.settings.as_ref().and_then(|it| it.pin))
    }
}

impl Registry {
    /// A person trusts the server of that id, as what it is now. `None`: no such server.
    ///
    /// Where it is trusted anyway by who its owner is, only what was said against it is taken back.
    pub fn trust(&mut self, id: &str, pin: Option<Pin>, owner: Option<u32>, now: Now) -> Option<Vec<Change>> {
        let server = self.server(id)?;
        let is_known = !matches!(server.problem, Some(Problem::NeedsKey | Problem::WrongHost));
        let bond = Bond { kind: is_known.then(|| server.kind.clone()), tls_pin: pin, owner };
        self.say(id, now, |endpoint, place| {
            let anyway = pin.is_none() && endpoint.is_local() && place.is_trusted_anyway();
            (!anyway).then(|| Word::Trusted(bond.clone()))
        })
    }

    /// A person wants the server of that id to get nothing. `None`: no such server.
    pub fn distrust(&mut self, id: &str, now: Now) -> Option<Vec<Change>> {
        self.say(id, now, |_, _| Some(Word::Distrusted))
    }

    fn say(
        &mut self,
        id: &str,
        now: Now,
        word: impl Fn(&Endpoint, &Place) -> Option<Word>,
    ) -> Option<Vec<Change>> {
        let id = self.server(id)?.id.clone();
        for endpoint in self.addresses(&id) {
            if let Some(place) = self.places.get_mut(&endpoint) {
                place.word = word(&endpoint, place);
                // With its key it may say more, or is found to be vouched for by nobody.
                place.hurry(now.at);
            }
        }
        let mut changes = Vec::new();
        self.refresh(&id, now, &mut changes);
        Some(self.told(changes))
    }

    /// Whether trust in what listens there depends on whose it is.
    pub fn is_bound_to_owner(&self, endpoint: &Endpoint) -> bool {
        let word = self.places.get(endpoint).and_then(|it| it.word.as_ref());
        matches!(word, Some(Word::Trusted(bond)) if bond.owner.is_some())
    }

    /// It was found out whose the listener there is now.
    pub fn on_listener(&mut self, endpoint: &Endpoint, owner: u32, now: Now) -> Vec<Change> {
        let Some(place) = self.places.get_mut(endpoint) else { return Vec::new() };
        place.compare_owner(owner);
        let mut changes = Vec::new();
        if let Some(id) = self.server_at(endpoint) {
            self.refresh(&id, now, &mut changes);
        }
        self.told(changes)
    }

    /// How far a question to this address may go, and who has to answer it.
    ///
    /// Who is not trusted is asked nothing that anybody may not see, and may be anybody. A name
    /// is followed into the cloud only where that may be used.
    pub fn bounds(&self, endpoint: &Endpoint) -> Bounds {
        let place = self.places.get(endpoint);
        let check = match place.and_then(Place::pin) {
            Some(pin) => Check::Pin(pin),
            None if place.is_some_and(Place::is_trusted) => Check::Authorities,
            None => Check::Nobody,
        };
        let is_said = self.settings.cloud.zones.contains_key(endpoint) || self.zone_said(endpoint).is_some();
        let reach = match endpoint.ip() {
            _ if is_said => Zone::Cloud,
            _ if endpoint.is_local() => Zone::Machine,
            _ if self.settings.cloud.enabled => Zone::Cloud,
            // Whoever gave an address itself wants that to be asked.
            Some(ip) => Zone::of(ip).max(Zone::Lan),
            None => Zone::Lan,
        };
        Bounds { reach, check }
    }

    /// The same for requests to the server there: they go no farther than it was seen to be.
    pub(super) fn bounds_of_requests(&self, endpoint: &Endpoint) -> Bounds {
        let is_said = self.settings.cloud.zones.contains_key(endpoint) || self.zone_said(endpoint).is_some();
        let reach = if is_said { Zone::Cloud } else { self.zone(endpoint) };
        let check = match self.places.get(endpoint).and_then(Place::pin) {
            Some(pin) => Check::Pin(pin),
            None => Check::Authorities,
        };
        Bounds { reach, check }
    }

    fn zone_said(&self, endpoint: &Endpoint) -> Option<Zone> {
        self.person_says(endpoint).and_then(|it| it.zone)
    }

    /// Where a connection to this address ends: where it ended when it was made last, else as
    /// the address says.
    pub(super) fn zone(&self, endpoint: &Endpoint) -> Zone {
        let seen = self.places.get(endpoint).and_then(|it| it.seen_in);
        let said = self.settings.cloud.zones.get(endpoint).copied();
        said.or(seen).unwrap_or_else(|| self.settings.cloud.zone(endpoint))
    }
}
