//! All servers, their standing, and when to look again: events in, changes out.
//!
//! A hint only makes an address due; only a recognised reply makes a server.
//! The edge asks what `due` hands out and reports with `on_seen`, `on_silent`
//! or `on_foreign`; live requests report with `on_success` and `on_fault`. How
//! anything was seen or is stored is not known here, and time is an argument.
//!
//! Three things are not each other. *Standing* is health (`health`), *admission*
//! is what the person allows, *problem* is why a healthy server cannot serve.
//! Everyone else reads a `Snapshot`; the fold of all changes is that snapshot.

mod health;
mod id;
mod known;
mod place;
mod same;
#[cfg(test)]
mod tests;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

pub use view::{Admission, Change, LastFault, Now, Server, Snapshot, Standing};

use self::{
    health::{Health, Witness},
    known::{Known, is_gone},
    place::{Ask, Place},
};
use crate::{
    fault::{Blame, Cause, Fault},
    server::{Endpoint, KindId, ModelName, Problem, ServerId, Sighting, Source, Zone},
};

/// A server that is loading is asked so often: the first request waits for it.
const WHILE_LOADING: Duration = Duration::from_secs(1);

/// A server with another problem is asked so often: a person is probably mending it.
const WHILE_TROUBLED: Duration = Duration::from_secs(5);

/// Further addresses of a known server and private engines are asked so often:
/// nothing depends on them while what they belong to is there.
const SECONDARY: Duration = Duration::from_secs(60);

/// Names of former models that are kept; the oldest habit of a caller is not worth more.
const FORMERLY: usize = 1000;

/// How the registry works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often a server that is well is asked for its models.
    pub every: Duration,
    /// A server that was down for so long, and that no person named, is forgotten.
    pub forget_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // A model pulled now is in the list when the person has typed its name.
            every: Duration::from_secs(10),
            // Somebody back from a holiday finds the servers they left.
            forget_after: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// What a person says about a server at some address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Its name.
    pub name: Option<String>,
    /// Its kind, believed where recognition comes to nothing better than "OpenAI-compatible".
    pub kind: Option<KindId>,
    /// Lower is asked first.
    pub priority: i32,
    /// How many requests it may have at once.
    pub limit: Option<u32>,
    /// Where requests to it end up.
    pub zone: Option<Zone>,
    /// Whether it is used at all.
    pub enabled: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { name: None, kind: None, priority: 0, limit: None, zone: None, enabled: true }
    }
}

/// Somebody told of an address.
#[derive(Clone, Debug)]
pub struct Hint {
    /// The address.
    pub endpoint: Endpoint,
    /// Who told.
    pub source: Source,
    /// Whether that vouches for it: `false` for a listener of another ordinary
    /// user, and for an address outside this machine that was only added.
    pub trusted: bool,
    /// What a person says about the server there.
    pub settings: Option<ServerSettings>,
}

/// The owner of everything known about servers.
#[derive(Debug)]
pub struct Registry {
    settings: Settings,
    places: BTreeMap<Endpoint, Place>,
    servers: BTreeMap<ServerId, Known>,
    /// Ids of forgotten servers, with the only ones who may have them again.
    retired: BTreeMap<ServerId, (Endpoint, KindId)>,
    formerly: Arc<BTreeSet<ModelName>>,
    snapshot: Arc<Snapshot>,
    /// Whether a table of listening sockets tells of new listeners.
    watched: bool,
    created: u64,
}

impl Registry {
    /// Begins without any server.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            places: BTreeMap::new(),
            servers: BTreeMap::new(),
            retired: BTreeMap::new(),
            formerly: Arc::default(),
            snapshot: Arc::default(),
            watched: false,
            created: 0,
        }
    }

    /// Somebody told of an address; it becomes due. A hint alone never makes a server.
    ///
    /// Each hint of the socket table or of a person is taken for a new listener;
    /// other sources only repeat what they said.
    pub fn on_hint(&mut self, hint: Hint, now: Now) -> Vec<Change> {
        let Hint { endpoint, source, trusted, settings } = hint;
        self.watched |= source == Source::SocketTable;
        let known = self.places.contains_key(&endpoint);
        let place = self.places.entry(endpoint.clone()).or_insert_with(|| Place::new(now.at));
        let first = place.hints.insert(source, trusted).is_none();
        place.weigh_trust(&endpoint, self.watched);
        if settings.is_some() {
            place.settings = settings;
        }
        let news = match source {
            Source::SocketTable | Source::Added => true,
            Source::Config | Source::Environment => first,
            Source::Port => false,
        };
        if known && news {
            place.wake(now.at);
        }
        let mut changes = Vec::new();
        if let Some(id) = place.server.clone() {
            if source == Source::SocketTable
                && let Some(server) = self.servers.get_mut(&id)
            {
                server.health.renew();
            }
            self.refresh(&id, now, &mut changes);
        }
        self.told(changes)
    }

    /// A source takes its hint back. From the socket table that means that the
    /// listener is gone: the server there goes down at once.
    pub fn on_hint_gone(&mut self, endpoint: &Endpoint, source: Source, now: Now) -> Vec<Change> {
        let Some(place) = self.places.get_mut(endpoint) else { return Vec::new() };
        if place.hints.remove(&source).is_none() {
            return Vec::new();
        }
        place.weigh_trust(endpoint, self.watched);
        if !place.hints.contains_key(&Source::Config) && !place.hints.contains_key(&Source::Environment) {
            place.settings = None;
        }
        let mut changes = Vec::new();
        if source == Source::SocketTable {
            place.wake(now.at);
            place.engine = false;
            if !self.leave(endpoint, now, &mut changes)
                && let Some(id) = self.server_at(endpoint)
                && let Some(server) = self.servers.get_mut(&id)
            {
                server.health.vanish(now.at);
            }
        }
        if let Some(id) = self.server_at(endpoint) {
            self.refresh(&id, now, &mut changes);
        }
        self.sweep(endpoint);
        self.told(changes)
    }

    /// The addresses to ask now. Each counts as being asked until it is reported on.
    pub fn due(&mut self, now: Now) -> Vec<Endpoint> {
        let is_due = |place: &Place| matches!(place.ask, Ask::At(at) if at <= now.at);
        let due = self.places.iter_mut().filter(|(_, place)| is_due(place));
        due.map(|(endpoint, place)| {
            place.begin(now.at);
            endpoint.clone()
        })
        .collect()
    }

    /// When something becomes due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let times = self.places.values().filter_map(|place| match place.ask {
            Ask::At(at) => Some(at),
            Ask::Asking | Ask::Never => None,
        });
        times.min()
    }

    /// An address was recognised. Of an address that nobody hints at any more
    /// this changes nothing.
    pub fn on_seen(&mut self, endpoint: &Endpoint, mut sighting: Sighting, now: Now) -> Vec<Change> {
        if sighting.kind == "lovable" {
            // A daemon is no server to route to, least of all this one.
            return self.on_foreign(endpoint, now);
        }
        let Some(place) = self.places.get_mut(endpoint) else { return Vec::new() };
        let again = match sighting.problem {
            None => self.settings.every,
            Some(Problem::Loading) => WHILE_LOADING,
            Some(Problem::NeedsKey | Problem::WrongHost | Problem::Unhealthy) => WHILE_TROUBLED,
        };
        place.end(Ask::At(now.at + again), now.at);
        if place.is_dismissed() || (place.hints.is_empty() && place.server.is_none()) {
            self.sweep(endpoint);
            return Vec::new();
        }
        if let Some(kind) = self.person_says(endpoint).and_then(|it| it.kind.clone())
            && sighting.kind == "openai-compatible"
        {
            sighting.kind = kind;
        }
        let mut changes = Vec::new();
        self.recognise(endpoint, sighting, now, &mut changes);
        self.told(changes)
    }

    /// An address did not answer, or cannot be told yet: again after 1, 2, 4 … 60 s.
    pub fn on_silent(&mut self, endpoint: &Endpoint, fault: Fault, now: Now) -> Vec<Change> {
        let Some(place) = self.places.get_mut(endpoint) else { return Vec::new() };
        place.end_silent(is_gone(&fault), self.watched, now.at);
        place.engine = false;
        let mut changes = Vec::new();
        let moved = is_gone(&fault) && self.leave(endpoint, now, &mut changes);
        if !moved && let Some(id) = self.main_at(endpoint) {
            self.strike_by_probe(&id, &fault, now);
            self.refresh(&id, now, &mut changes);
        }
        self.sweep(endpoint);
        self.told(changes)
    }

    /// An address is conclusively something else: not asked again until its listener changes.
    pub fn on_foreign(&mut self, endpoint: &Endpoint, now: Now) -> Vec<Change> {
        let Some(place) = self.places.get_mut(endpoint) else { return Vec::new() };
        place.end(Ask::Never, now.at);
        place.engine = false;
        let mut changes = Vec::new();
        if !self.leave(endpoint, now, &mut changes)
            && let Some(id) = self.server_at(endpoint)
            && let Some(server) = self.servers.get_mut(&id)
        {
            server.health.displace();
            self.refresh(&id, now, &mut changes);
        }
        self.sweep(endpoint);
        self.told(changes)
    }

    /// A live request was answered to its end.
    pub fn on_success(&mut self, id: &ServerId, now: Now) -> Vec<Change> {
        let Some(server) = self.servers.get_mut(id) else { return Vec::new() };
        if !server.answered(now) {
            return Vec::new();
        }
        if server.health.gone {
            let endpoint = server.now.endpoint.clone();
            self.hurry(&endpoint, now);
        }
        let mut changes = Vec::new();
        self.refresh(id, now, &mut changes);
        self.told(changes)
    }

    /// A live request failed. What follows depends on whose fault it was.
    pub fn on_fault(&mut self, id: &ServerId, fault: &Fault, now: Now, jitter: f64) -> Vec<Change> {
        let Some(server) = self.servers.get_mut(id) else { return Vec::new() };
        match fault.blame() {
            Blame::Server => {
                server.blame(fault, now);
                server.health.strike(fault, Witness::Request, now.at, jitter);
            }
            Blame::Busy { retry_after } => {
                server.blame(fault, now);
                server.rest(retry_after, now);
            }
            Blame::Loading => server.now.problem = Some(Problem::Loading),
            Blame::Misfit if fault.cause == Cause::NeedsKey => {
                server.blame(fault, now);
                server.refuse_key(now);
            }
            Blame::Misfit => {}
            Blame::Caller | Blame::Daemon => return Vec::new(),
        }
        // Whatever it was, the list or the health may be another than we think.
        if !matches!(fault.blame(), Blame::Busy { .. }) {
            let endpoint = server.now.endpoint.clone();
            self.hurry(&endpoint, now);
        }
        let mut changes = Vec::new();
        self.refresh(id, now, &mut changes);
        self.told(changes)
    }

    /// A request ended because two or more servers, and every one tried, gave
    /// the same server error: perhaps its prompt breaks them all. To be called
    /// after `on_fault` of each, with all of them. A server that this strike
    /// took out stays in use on suspicion: the strike is taken back when it
    /// next answers, and stands if it fails instead.
    pub fn take_back_strikes(&mut self, servers: &[ServerId], now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        for id in servers {
            if let Some(server) = self.servers.get_mut(id) {
                server.health.take_back();
                self.refresh(id, now, &mut changes);
            }
        }
        self.told(changes)
    }

    /// Lets a server finish what it has and gives it nothing new. `None`: no such server.
    pub fn drain(&mut self, id: &str, now: Now) -> Option<Vec<Change>> {
        self.set_draining(id, true, now)
    }

    /// Ends draining. `None`: no such server.
    pub fn resume(&mut self, id: &str, now: Now) -> Option<Vec<Change>> {
        self.set_draining(id, false, now)
    }

    /// Forgets a server until it is found again by a new listener, or named
    /// again by a person. `None`: no such server.
    pub fn forget(&mut self, id: &str, now: Now) -> Option<Vec<Change>> {
        let id = self.server(id)?.id.clone();
        let mut changes = Vec::new();
        for endpoint in self.addresses(&id) {
            if let Some(place) = self.places.get_mut(&endpoint) {
                place.hints.remove(&Source::Added);
                place.dismiss();
            }
        }
        self.remove(&id, &mut changes);
        self.reconsider_engines(now);
        Some(self.told(changes))
    }

    /// Asks a server again at once. `None`: no such server.
    pub fn probe(&mut self, id: &str, now: Now) -> Option<Vec<Change>> {
        let id = self.server(id)?.id.clone();
        for endpoint in self.addresses(&id) {
            if let Some(place) = self.places.get_mut(&endpoint) {
                place.postpone(now.at);
            }
        }
        Some(Vec::new())
    }

    /// Asks every address again at once, but for those that are something else.
    pub fn probe_all(&mut self, now: Now) {
        for place in self.places.values_mut().filter(|place| place.ask != Ask::Never) {
            place.postpone(now.at);
        }
    }

    /// Forgets servers that were down for so long that nobody will miss them.
    pub fn tidy(&mut self, now: Now) -> Vec<Change> {
        let limit = u64::try_from(self.settings.forget_after.as_millis()).unwrap_or(u64::MAX);
        let old = |it: &Known| {
            it.health.standing == Standing::Down
                && it.now.last_seen_ms.unwrap_or(0).max(it.now.since_ms).saturating_add(limit) < now.wall_ms
        };
        let ids: Vec<ServerId> =
            self.servers.values().filter(|it| old(it)).map(|it| it.now.id.clone()).collect();
        let mut changes = Vec::new();
        for id in ids {
            let addresses = self.addresses(&id);
            if addresses.iter().any(|it| self.places.get(it).is_some_and(Place::is_named)) {
                continue;
            }
            self.remove(&id, &mut changes);
            addresses.iter().for_each(|it| self.sweep(it));
        }
        self.told(changes)
    }

    /// All servers as they are now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// The server of that id, or else of that name.
    pub fn server(&self, id: &str) -> Option<&Arc<Server>> {
        let by_name = || self.servers.values().find(|it| it.now.name.as_deref() == Some(id));
        self.servers.get(id).or_else(by_name).map(|it| &it.shown)
    }

    /// Whether some server has, or had since we started, a model of that name.
    pub fn knows(&self, model: &str) -> bool {
        self.formerly.contains(model) || self.snapshot.servers.iter().any(|it| it.has(model))
    }

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
                self.retired.insert(id, (endpoint, kind));
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
        for endpoint in std::iter::once(&stored.endpoint).chain(&stored.also_at) {
            let place = self.places.entry(endpoint.clone()).or_insert_with(|| Place::new(now.at));
            if place.server.is_some() {
                // Found by itself meanwhile; the store is older than that.
                continue;
            }
            place.server = Some(id.clone());
            place.remember_trust(endpoint.is_local() && stored.admission != Admission::Untrusted);
            if stored.found_by.contains(&Source::Added) {
                let trusted = endpoint.is_local() && place.is_trusted();
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
        self.servers.insert(id.clone(), known);
        self.refresh(&id, now, &mut Vec::new());
    }

    fn set_draining(&mut self, id: &str, draining: bool, now: Now) -> Option<Vec<Change>> {
        let id = self.server(id)?.id.clone();
        self.servers.get_mut(&id)?.draining = draining;
        let mut changes = Vec::new();
        self.refresh(&id, now, &mut changes);
        Some(self.told(changes))
    }

    fn strike_by_probe(&mut self, id: &ServerId, fault: &Fault, now: Now) {
        let every = self.settings.every;
        let Some(server) = self.servers.get_mut(id) else { return };
        // A server that answers requests is well, however slow it is with probes beside them.
        let answers = server.answered_at.is_some_and(|at| now.at < at + every);
        match fault.blame() {
            Blame::Server if answers && !is_gone(fault) => {}
            Blame::Server => {
                server.blame(fault, now);
                server.health.strike(fault, Witness::Probe, now.at, 0.0);
            }
            Blame::Loading => server.now.problem = Some(Problem::Loading),
            Blame::Busy { .. } | Blame::Misfit | Blame::Caller | Blame::Daemon => {}
        }
    }

    /// Works out again what hints and settings say about a server, and tells what changed.
    fn refresh(&mut self, id: &ServerId, now: Now, changes: &mut Vec<Change>) {
        let Some(server) = self.servers.get(id) else { return };
        let endpoint = server.now.endpoint.clone();
        let mut found_by = BTreeSet::new();
        for place in self.addresses(id).iter().filter_map(|it| self.places.get(it)) {
            found_by.extend(place.hints.keys().copied());
        }
        let settings = self.person_says_of(id).cloned();
        let trusted = self.places.get(&endpoint).is_some_and(Place::is_trusted);
        let Some(server) = self.servers.get_mut(id) else { return };
        if !found_by.is_empty() {
            server.now.found_by = found_by;
        }
        server.now.admission = match &settings {
            Some(it) if !it.enabled => Admission::Off,
            _ if !trusted => Admission::Untrusted,
            _ if server.draining => Admission::Draining,
            _ => Admission::Open,
        };
        let settings = settings.unwrap_or_default();
        server.now.name = settings.name;
        server.now.priority = settings.priority;
        server.now.zone = settings.zone.unwrap_or_else(|| id::zone(&endpoint));
        server.now.limit = settings.limit.or(server.slots);
        let was = server.shown.standing;
        changes.extend(server.publish(now));
        if server.shown.standing == Standing::Down && was != Standing::Down {
            self.reconsider_engines(now);
        }
    }

    /// Ends an event: readers get a new snapshot if anything changed.
    fn told(&mut self, changes: Vec<Change>) -> Vec<Change> {
        if !changes.is_empty() {
            self.rebuild();
        }
        changes
    }

    fn rebuild(&mut self) {
        let servers: Vec<Arc<Server>> = self.servers.values().map(|it| Arc::clone(&it.shown)).collect();
        let lost = |it: &&ModelName| {
            !self.formerly.contains(*it) && !servers.iter().any(|server| server.has(it.as_str()))
        };
        let before = self.snapshot.servers.iter().flat_map(|it| &it.models).map(|it| &it.name);
        let lost: Vec<ModelName> = before.filter(lost).cloned().collect();
        if !lost.is_empty() {
            let room = FORMERLY.saturating_sub(self.formerly.len());
            Arc::make_mut(&mut self.formerly).extend(lost.into_iter().take(room));
        }
        self.snapshot = Arc::new(Snapshot { servers, formerly: Arc::clone(&self.formerly) });
    }

    fn hurry(&mut self, endpoint: &Endpoint, now: Now) {
        if let Some(place) = self.places.get_mut(endpoint) {
            place.hurry(now.at);
        }
    }

    /// Drops an address that nobody knows of any more.
    fn sweep(&mut self, endpoint: &Endpoint) {
        if self.places.get(endpoint).is_some_and(Place::is_idle) {
            self.places.remove(endpoint);
        }
    }
}
