//! Which sightings are one server, and which are none of their own.
//!
//! Two addresses are one server when they are views of one loopback port (IPv4,
//! IPv6, `localhost`) and what answers there has the same kind, version,
//! instance and model names, and the same trust. Models change, so a view that
//! looks different is split off only when it does so several times in a row.
//!
//! A private engine is known by what both sides say: its port is in another
//! server's own list, or its model is a blob of an Ollama store while an Ollama
//! is there. It is hidden until that other server is gone.

use super::{
    Change, Health, Known, Now, Registry, SECONDARY, Server, ServerSettings, Standing, Word,
    announced::Whence,
    id,
    listed::says_where,
    place::{Ask, Place},
};
use crate::server::{Address, Bounds, Endpoint, KindId, ServerId, Sighting};

/// So many different looks in a row make a view a server of its own.
const ODD_LOOKS: u32 = 3;

impl Registry {
    /// Files a sighting: an engine, a server that is known, another view of one, or a new one.
    pub(super) fn recognise(
        &mut self,
        endpoint: &Endpoint,
        sighting: Sighting,
        now: Now,
        changes: &mut Vec<Change>,
    ) {
        if self.is_engine(endpoint, sighting.engine_of.as_deref()) {
            self.hide(endpoint, now, changes);
            return;
        }
        let Some(place) = self.places.get_mut(endpoint) else { return };
        place.engine = false;
        let id = match place.server.clone() {
            Some(id) if !self.is_main(&id, endpoint) => {
                if self.looks_like(&id, endpoint, &sighting) {
                    self.still_a_view(endpoint, now);
                    return;
                }
                if !self.is_view_no_more(&id, endpoint, now) {
                    return;
                }
                self.leave(endpoint, now, changes);
                self.create(endpoint, &sighting, now)
            }
            Some(id) if self.servers.get(&id).is_some_and(|it| it.now.kind == sighting.kind) => id,
            Some(id) => {
                // What was here is not here any more, whatever other views it had.
                if !self.leave(endpoint, now, changes) {
                    self.remove(&id, changes);
                }
                self.create(endpoint, &sighting, now)
            }
            None => match self.twin(endpoint, &sighting) {
                Some(id) => {
                    self.add_view(&id, endpoint, now, changes);
                    return;
                }
                None => match self.whence(endpoint, &sighting, now) {
                    Whence::Moved(id) => self.move_here(id, endpoint),
                    Whence::New if self.has_room(endpoint, changes) => self.create(endpoint, &sighting, now),
                    Whence::New | Whence::Unclear => return,
                },
            },
        };
        if let Some(server) = self.servers.get_mut(&id) {
            server.see(sighting.clone(), now);
        }
        // A server that began to look like an older one is that one.
        if let Some(older) = self.twin(endpoint, &sighting).filter(|it| *it != id) {
            self.remove(&id, changes);
            self.add_view(&older, endpoint, now, changes);
            return;
        }
        self.refresh(&id, now, changes);
        self.hide_engines(&id, now, changes);
    }

    fn create(&mut self, endpoint: &Endpoint, sighting: &Sighting, now: Now) -> ServerId {
        let back = self.retired.iter().find(|(_, (at, kind))| at == endpoint && *kind == sighting.kind);
        let id = match back {
            Some((id, _)) => id.clone(),
            None => {
                let name = self.person_says(endpoint).and_then(|it| it.name.as_deref());
                let taken = |id: &str| self.servers.contains_key(id) || self.retired.contains_key(id);
                let own = id::of_address(sighting.kind.as_str(), endpoint);
                let own = own.filter(|it| name.is_none() && self.is_listed_at(endpoint) && !taken(it));
                own.map_or_else(|| id::make(sighting.kind.as_str(), endpoint, name, taken), ServerId::from)
            }
        };
        self.retired.remove(&id);
        let server = Server {
            id: id.clone(),
            kind: sighting.kind.clone(),
            name: None,
            version: None,
            endpoint: endpoint.clone(),
            also_at: Vec::new(),
            zone: self.zone(endpoint),
            bounds: Bounds::default(),
            word: None,
            standing: Standing::Up,
            admission: super::Admission::Untrusted,
            problem: None,
            simulated: false,
            found_by: Default::default(),
            announced_as: Default::default(),
            instance: None,
            models: Vec::new(),
            limit: None,
            priority: 0,
            weight: None,
            last_seen_ms: None,
            since_ms: now.wall_ms,
            last_fault: None,
            lacks: Vec::new(),
            busy_until: None,
            trial_at: None,
        };
        self.created += 1;
        self.servers.insert(id.clone(), Known::new(server, Health::new(Standing::Up), self.created));
        // Who is not to get anything does not get it by listening under another name.
        let is_refused = |it: &Place| it.word == Some(Word::Distrusted);
        let refused = self.places.iter().any(|(at, it)| is_refused(it) && are_views(at, endpoint));
        if let Some(place) = self.places.get_mut(endpoint) {
            place.server = Some(id.clone());
            place.odd = 0;
            if refused {
                place.word = Some(Word::Distrusted);
            }
        }
        id
    }

    /// The server that this sighting is another view of: the oldest one.
    fn twin(&self, endpoint: &Endpoint, sighting: &Sighting) -> Option<ServerId> {
        // Only loopback has several names for one listener.
        if !endpoint.is_local() {
            return None;
        }
        let own = self.server_at(endpoint).and_then(|id| self.servers.get(&id)).map(|it| it.order);
        let older = |it: &&Known| own.is_none_or(|own| it.order < own);
        let alive = |it: &&Known| it.health.standing != Standing::Down;
        let candidates = self.servers.values().filter(older).filter(alive);
        let mut twins = candidates.filter(|it| self.looks_like(&it.now.id, endpoint, sighting));
        twins.next().map(|it| it.now.id.clone())
    }

    fn looks_like(&self, id: &ServerId, endpoint: &Endpoint, sighting: &Sighting) -> bool {
        let Some(server) = self.servers.get(id) else { return false };
        if !are_views(&server.now.endpoint, endpoint) {
            return false;
        }
        let trust = |at: &Endpoint| self.places.get(at).map(Place::is_trusted);
        let names = |model: &crate::server::Model| model.name.clone();
        let mut theirs: Vec<_> = sighting.models.iter().map(names).collect();
        theirs.sort();
        theirs.dedup();
        server.now.kind == sighting.kind
            && server.now.version == sighting.version
            && server.now.instance == sighting.instance
            && server.now.models.iter().map(|it| names(it)).eq(theirs)
            && (trust(endpoint) == trust(&server.now.endpoint) || self.is_distrusted(&server.now.endpoint))
    }

    fn is_distrusted(&self, endpoint: &Endpoint) -> bool {
        self.places.get(endpoint).is_some_and(|it| it.word == Some(Word::Distrusted))
    }

    fn add_view(&mut self, id: &ServerId, endpoint: &Endpoint, now: Now, changes: &mut Vec<Change>) {
        let main = self.servers.get(id).map(|it| &it.now.endpoint);
        let refused = main.is_some_and(|it| self.is_distrusted(it));
        if let Some(place) = self.places.get_mut(endpoint) {
            place.server = Some(id.clone());
            if refused {
                place.word = Some(Word::Distrusted);
            }
        }
        self.still_a_view(endpoint, now);
        if let Some(server) = self.servers.get_mut(id) {
            server.now.also_at.push(endpoint.clone());
            server.now.also_at.sort();
            server.now.also_at.dedup();
        }
        self.refresh(id, now, changes);
    }

    fn still_a_view(&mut self, endpoint: &Endpoint, now: Now) {
        if let Some(place) = self.places.get_mut(endpoint) {
            place.odd = 0;
            place.postpone(now.at + SECONDARY);
        }
    }

    /// Counts an odd look; both addresses are asked again, since it may be the
    /// main one whose news we do not have yet.
    fn is_view_no_more(&mut self, id: &ServerId, endpoint: &Endpoint, now: Now) -> bool {
        if let Some(main) = self.servers.get(id).map(|it| it.now.endpoint.clone()) {
            self.hurry(&main, now);
        }
        let Some(place) = self.places.get_mut(endpoint) else { return false };
        place.odd += 1;
        place.hurry(now.at);
        place.odd >= ODD_LOOKS
    }

    /// A view of a server is gone. Returns whether the server lives on
    /// elsewhere; if this was its only address nothing is changed.
    pub(super) fn leave(&mut self, endpoint: &Endpoint, now: Now, changes: &mut Vec<Change>) -> bool {
        let Some(id) = self.server_at(endpoint) else { return false };
        let Some(server) = self.servers.get_mut(&id) else { return false };
        if server.now.endpoint == *endpoint {
            if server.now.also_at.is_empty() {
                return false;
            }
            let next = server.now.also_at.remove(0);
            server.now.endpoint = next.clone();
            if let Some(place) = self.places.get_mut(&next) {
                place.odd = 0;
                place.postpone(now.at);
            }
        } else {
            server.now.also_at.retain(|it| it != endpoint);
        }
        if let Some(place) = self.places.get_mut(endpoint) {
            place.server = None;
        }
        self.refresh(&id, now, changes);
        true
    }

    /// Forgets a server for good; its id stays its own.
    pub(super) fn remove(&mut self, id: &ServerId, changes: &mut Vec<Change>) {
        let Some(server) = self.servers.remove(id) else { return };
        self.detach(id);
        self.note_beat(id, server.beat_noted, None);
        let (endpoint, kind) = (server.now.endpoint, server.now.kind);
        self.retire(id.clone(), &endpoint, &kind);
        changes.push(Change::Forgotten { id: id.clone(), endpoint, kind });
    }

    /// Keeps an id for who had it, unless it says by itself whose it is.
    pub(super) fn retire(&mut self, id: ServerId, endpoint: &Endpoint, kind: &KindId) {
        if !says_where(&id, endpoint, kind) {
            self.retired.insert(id, (endpoint.clone(), kind.clone()));
        }
    }

    pub(super) fn detach(&mut self, id: &ServerId) {
        let there = self.places.iter().filter(|(_, it)| it.server.as_ref() == Some(id));
        let there: Vec<Endpoint> = there.map(|(endpoint, _)| endpoint.clone()).collect();
        for endpoint in there {
            if let Some(place) = self.places.get_mut(&endpoint) {
                place.server = None;
                place.odd = 0;
            }
        }
    }

    /// Whether what answers there is run by another server for itself. Who is
    /// not trusted cannot hide anybody, and nobody hides what a person named.
    fn is_engine(&self, endpoint: &Endpoint, engine_of: Option<&str>) -> bool {
        let named = self.places.get(endpoint).is_some_and(|it| it.is_named() || it.word.is_some());
        if !endpoint.is_local() || named {
            return false;
        }
        let in_ollama = engine_of.is_some_and(|it| it.contains("/blobs/sha256-"));
        self.servers.values().any(|parent| {
            let trusted = self.places.get(&parent.now.endpoint).is_some_and(Place::is_trusted);
            let other = !are_views(&parent.now.endpoint, endpoint) && parent.now.endpoint != *endpoint;
            let runs_it = endpoint.port().is_some_and(|port| parent.engine_ports.contains(&port))
                || (in_ollama && parent.now.kind == "ollama");
            other && runs_it && trusted && parent.now.endpoint.is_local() && !parent.health.gone
        })
    }

    fn hide(&mut self, endpoint: &Endpoint, now: Now, changes: &mut Vec<Change>) {
        if let Some(id) = self.server_at(endpoint)
            && !self.leave(endpoint, now, changes)
        {
            self.remove(&id, changes);
        }
        if let Some(place) = self.places.get_mut(endpoint) {
            place.engine = true;
            place.postpone(now.at + SECONDARY);
        }
    }

    /// After news of a server: others may turn out to be its engines.
    fn hide_engines(&mut self, id: &ServerId, now: Now, changes: &mut Vec<Change>) {
        let has_any = |it: &Known| !it.engine_ports.is_empty() || it.now.kind == "ollama";
        if !self.servers.get(id).is_some_and(has_any) {
            return;
        }
        let mains = self.servers.values().map(|it| (it.now.endpoint.clone(), it.engine_of.clone()));
        let mains: Vec<_> = mains.collect();
        for (endpoint, engine_of) in mains {
            if self.is_engine(&endpoint, engine_of.as_deref()) {
                self.hide(&endpoint, now, changes);
            }
        }
    }

    /// Engines come into question as servers when the one who ran them is gone.
    pub(super) fn reconsider_engines(&mut self, now: Now) {
        let engines = self.places.iter().filter(|(_, it)| it.engine && it.ask != Ask::Never);
        let engines: Vec<Endpoint> = engines.map(|(endpoint, _)| endpoint.clone()).collect();
        for endpoint in engines {
            if let Some(place) = self.places.get_mut(&endpoint) {
                place.hurry(now.at);
            }
        }
    }

    pub(super) fn server_at(&self, endpoint: &Endpoint) -> Option<ServerId> {
        self.places.get(endpoint)?.server.clone()
    }

    pub(super) fn main_at(&self, endpoint: &Endpoint) -> Option<ServerId> {
        self.server_at(endpoint).filter(|id| self.is_main(id, endpoint))
    }

    fn is_main(&self, id: &ServerId, endpoint: &Endpoint) -> bool {
        self.servers.get(id).is_some_and(|it| it.now.endpoint == *endpoint)
    }

    pub(super) fn addresses(&self, id: &ServerId) -> Vec<Endpoint> {
        let Some(server) = self.servers.get(id) else { return Vec::new() };
        std::iter::once(&server.now.endpoint).chain(&server.now.also_at).cloned().collect()
    }

    /// What a person says about an address: `localhost` is also what its IPv4 address is.
    pub(super) fn person_says(&self, endpoint: &Endpoint) -> Option<&ServerSettings> {
        let own = self.places.get(endpoint).and_then(|it| it.settings.as_ref());
        if own.is_some() || !endpoint.is_local() {
            return own;
        }
        own.or_else(|| {
            let same = |it: &Endpoint| are_views(it, endpoint) && it.ip() == endpoint.ip();
            self.places.iter().find(|(it, place)| place.settings.is_some() && same(it))?.1.settings.as_ref()
        })
    }

    pub(super) fn person_says_of(&self, id: &ServerId) -> Option<&ServerSettings> {
        self.addresses(id).iter().find_map(|it| self.person_says(it))
    }
}

/// Whether both are the same port of this machine's loopback, by another name.
fn are_views(a: &Endpoint, b: &Endpoint) -> bool {
    let (Address::Tcp { port, tls, .. }, Address::Tcp { port: other, tls: too, .. }) =
        (a.address(), b.address())
    else {
        return false;
    };
    let path = |it: &Endpoint| it.url("").split('/').skip(3).collect::<Vec<_>>().join("/");
    port == other && tls == too && a != b && a.is_local() && b.is_local() && path(a) == path(b)
}
