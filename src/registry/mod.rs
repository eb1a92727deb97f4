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

mod announced;
mod beat;
mod fold;
mod health;
mod hint;
mod id;
mod known;
mod lack;
mod listed;
mod pace;
mod person;
mod place;
mod places;
mod said;
mod same;
#[cfg(test)]
mod tests;
mod trust;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

pub use hint::{Cloud, Hint, ServerSettings, Settings};
pub use lack::{Lack, Work};
pub use listed::{Listing, Listings, Lookup, says_where};
pub use said::{Said, Trust};
pub use trust::{Bond, Identity, Word};
pub use view::{Admission, Change, LastFault, Now, Server, Snapshot, Standing};

use self::{
    health::{Health, Witness},
    known::{Known, is_gone},
    pace::Pace,
    place::{Ask, Place},
    places::Places,
};
use crate::{
    fault::{Blame, Cause, Fault},
    server::{Endpoint, KindId, ModelName, Problem, ServerId, Sighting, Source, Zone},
};

/// A server that is loading is asked so often: the first request waits for it.
const WHILE_LOADING: Duration = Duration::from_secs(1);

/// A server with another problem is asked so often: a person is probably mending it.
const WHILE_TROUBLED: Duration = Duration::from_secs(5);

/// Who sells answers is asked for its list so often: it has new models some times in a year.
const IN_THE_CLOUD: Duration = Duration::from_secs(3600);

/// And so often after a key was refused, or a request was: nobody mends that in seconds.
const CLOUD_TROUBLED: Duration = Duration::from_secs(600);

/// Further addresses of a known server and private engines are asked so often:
/// nothing depends on them while what they belong to is there.
const SECONDARY: Duration = Duration::from_secs(60);

/// One turn of being asked, and how many there are at once: all that a desktop has. A thousand
/// servers that are new are known within ten seconds.
const LOOK: Duration = Duration::from_millis(10);
const LOOKS_AT_ONCE: u32 = 100;

/// Servers that are well are asked again one after the other, so far apart at least. Beyond a
/// hundred of them each is asked more rarely than `every`.
const EACH_LOOK: Duration = Duration::from_millis(100);

/// For so long after somebody wanted anything servers are asked again as often as that; after it
/// a third as often. Whoever wants something next has all of them asked at once.
const WANTED_FOR: Duration = Duration::from_secs(60);
const UNWANTED: u32 = 3;

/// The owner of everything known about servers.
#[derive(Debug)]
pub struct Registry {
    settings: Settings,
    places: Places,
    servers: BTreeMap<ServerId, Known>,
    /// When servers of the network are reached for.
    beats: BTreeSet<(Instant, ServerId)>,
    /// Turns of being asked, and of being reached for.
    looks: Pace,
    reaches: Pace,
    /// Ids of forgotten servers, with the only ones who may have them again.
    retired: BTreeMap<ServerId, (Endpoint, KindId)>,
    formerly: Arc<BTreeSet<ModelName>>,
    snapshot: Arc<Snapshot>,
    /// When somebody last wanted something.
    wanted_at: Option<Instant>,
    /// Whether a table of listening sockets tells of new listeners.
    watched: bool,
    created: u64,
}

impl Registry {
    /// Begins without any server.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            places: Places::default(),
            servers: BTreeMap::new(),
            beats: BTreeSet::new(),
            looks: Pace::new(LOOK, LOOKS_AT_ONCE),
            reaches: Pace::new(beat::REACH, beat::REACHES_AT_ONCE),
            retired: BTreeMap::new(),
            formerly: Arc::default(),
            snapshot: Arc::default(),
            watched: false,
            wanted_at: None,
            created: 0,
        }
    }

    /// Somebody told of an address; it becomes due. A hint alone never makes a server.
    ///
    /// Each hint of the socket table, of a usual port or of a person is taken for
    /// a new listener; other sources only repeat what they said. Who is announced
    /// once more in the network may be back.
    pub fn on_hint(&mut self, hint: Hint, now: Now) -> Vec<Change> {
        let Hint { endpoint, source, trusted, settings } = hint;
        if self.settings.cloud.bars(&endpoint) {
            return Vec::new();
        }
        self.watched |= source == Source::SocketTable;
        let known = self.places.contains_key(&endpoint);
        let place = self.places.get_or_insert(&endpoint, now.at);
        let first = place.hints.insert(source, trusted).is_none();
        place.rule(self.settings.covers(&endpoint, &place.listed));
        place.weigh_trust(&endpoint, self.watched);
        if settings.is_some() {
            place.settings = settings;
        }
        let news = match source {
            Source::SocketTable | Source::Added => true,
            Source::Config | Source::Environment => first,
            Source::Mdns | Source::Dns => first || place.is_silent(),
            // Beside the table of sockets it says the same once more.
            Source::Port => !place.hints.contains_key(&Source::SocketTable),
        };
        if known && news {
            place.wake(now.at);
        }
        let mut changes = Vec::new();
        if let Some(id) = place.server.clone() {
            if is_of_socket(source)
                && let Some(server) = self.servers.get_mut(&id)
            {
                server.health.renew();
            }
            self.refresh(&id, now, &mut changes);
        }
        self.told(changes)
    }

    /// A source takes its hint back. From the socket table, or of a usual port,
    /// that means that the listener is gone: the server there goes down at once.
    /// One that is announced no more is only looked at: anybody can say that.
    pub fn on_hint_gone(&mut self, endpoint: &Endpoint, source: Source, now: Now) -> Vec<Change> {
        // Who says that a listener at a usual port is gone will say when there is a new one.
        let watched = (self.watched || source == Source::Port) && is_listed(endpoint);
        let Some(place) = self.places.get_mut(endpoint) else { return Vec::new() };
        if place.hints.remove(&source).is_none() {
            return Vec::new();
        }
        place.weigh_trust(endpoint, self.watched);
        if !place.hints.contains_key(&Source::Config) && !place.hints.contains_key(&Source::Environment) {
            place.settings = None;
        }
        let mut changes = Vec::new();
        if is_of_socket(source) {
            place.wake(now.at);
            place.engine = false;
            if !self.leave(endpoint, now, &mut changes)
                && let Some(id) = self.server_at(endpoint)
                && let Some(server) = self.servers.get_mut(&id)
            {
                server.health.vanish(now.at);
            }
        }
        if let Some(place) = self.places.get_mut(endpoint).filter(|_| source == Source::Mdns) {
            place.hurry(now.at);
        }
        if let Some(id) = self.server_at(endpoint) {
            self.refresh(&id, now, &mut changes);
        }
        if let Some(place) = self.places.get_mut(endpoint).filter(|it| it.hints.is_empty() && watched) {
            place.abandon();
        }
        self.sweep(endpoint);
        self.told(changes)
    }

    /// Whether nobody but a person told of this address of this machine, so that
    /// it is not known whose listener that is.
    pub fn wants_owner(&self, endpoint: &Endpoint) -> bool {
        let told = |place: &Place| {
            place.hints.contains_key(&Source::Added) && !place.hints.keys().any(|it| is_of_socket(*it))
        };
        endpoint.is_local() && self.places.get(endpoint).is_some_and(told)
    }

    /// It was found out whether the owner of what listens at an added address is trusted.
    pub fn on_owner(&mut self, endpoint: &Endpoint, trusted: bool, now: Now) -> Vec<Change> {
        let Some(place) = self.places.get_mut(endpoint) else { return Vec::new() };
        place.trust_owner(trusted);
        let mut changes = Vec::new();
        if let Some(id) = self.server_at(endpoint) {
            self.refresh(&id, now, &mut changes);
        }
        self.told(changes)
    }

    /// The addresses to ask now, as many as there are turns for. Each counts as being asked
    /// until it is reported on.
    pub fn due(&mut self, now: Now) -> Vec<Endpoint> {
        let mut due = Vec::new();
        while self.places.next().is_some_and(|at| at <= now.at) && self.looks.take(now.at) {
            due.extend(self.places.begin_next(now.at));
        }
        due
    }

    /// When something becomes due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.places.next().map(|at| self.looks.not_before(at))
    }

    /// Somebody asks for an answer, or looks at what is known.
    pub fn on_wanted(&mut self, now: Now) -> Vec<Change> {
        let was_wanted = self.is_wanted(now);
        self.wanted_at = Some(now.at);
        if !was_wanted {
            let every = self.every();
            let is_near = |it: &&Known| it.now.zone != Zone::Cloud && it.now.problem.is_none();
            for server in self.servers.values().filter(is_near) {
                if let Some(place) = self.places.get_mut(&server.now.endpoint) {
                    place.hurry_after(every, now.at);
                }
            }
        }
        Vec::new()
    }

    fn is_wanted(&self, now: Now) -> bool {
        self.wanted_at.is_some_and(|at| now.at < at + WANTED_FOR)
    }

    /// How often a server that is well is asked while that is of use.
    fn every(&self) -> Duration {
        self.settings.every.max(Pace::round(EACH_LOOK, self.servers.len()))
    }

    /// An address was recognised. Of an address that nobody hints at any more
    /// this changes nothing.
    pub fn on_seen(&mut self, endpoint: &Endpoint, mut sighting: Sighting, now: Now) -> Vec<Change> {
        let far = self.zone(endpoint) == Zone::Cloud;
        let well = if self.is_wanted(now) { self.every() } else { self.every() * UNWANTED };
        let Some(place) = self.places.get_mut(endpoint) else { return Vec::new() };
        if sighting.kind == "lovable" && endpoint.is_local() && !place.is_named() {
            // Another daemon of this machine sees the servers that we see.
            return self.on_foreign(endpoint, now);
        }
        let again = match sighting.problem {
            None if far => IN_THE_CLOUD,
            Some(_) if far => CLOUD_TROUBLED,
            None => well,
            Some(Problem::Loading) => WHILE_LOADING,
            Some(_) => WHILE_TROUBLED,
        };
        place.end(Ask::At(now.at + again), now.at);
        if place.is_dismissed() || (place.hints.is_empty() && place.server.is_none()) {
            self.sweep(endpoint);
            return Vec::new();
        }
        let listed = self.places.get(endpoint).and_then(|it| it.listing()?.kind.clone());
        if let Some(kind) = self.person_says(endpoint).and_then(|it| it.kind.clone()).or(listed)
            && sighting.kind == "openai-compatible"
        {
            sighting.kind = kind;
        }
        if let Some(place) = self.places.get_mut(endpoint) {
            place.seen_in = sighting.at.map(Zone::of).or(place.seen_in);
            place.compare_kind(&sighting);
        }
        let mut changes = Vec::new();
        self.recognise(endpoint, sighting, now, &mut changes);
        self.told(changes)
    }

    /// An address did not answer, or cannot be told yet: again after 1, 2, 4 … 60 s.
    pub fn on_silent(&mut self, endpoint: &Endpoint, fault: Fault, now: Now) -> Vec<Change> {
        let Some(place) = self.places.get_mut(endpoint) else { return Vec::new() };
        place.compare_key(&fault);
        place.end_silent(is_gone(&fault), endpoint.is_local(), self.watched && is_listed(endpoint), now.at);
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

    /// The program that listens there is known to be something else, and must
    /// not be asked. Where a person named the address they know better.
    pub fn on_other_program(&mut self, endpoint: &Endpoint, now: Now) -> Vec<Change> {
        if self.places.get(endpoint).is_none_or(Place::is_named) {
            return Vec::new();
        }
        self.on_foreign(endpoint, now)
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
        if let Some(place) = self.places.get_mut(&server.now.endpoint) {
            place.compare_key(fault);
        }
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

    /// All servers as they are now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// The server of that id, or else of that name.
    pub fn server(&self, id: &str) -> Option<&Arc<Server>> {
        let by_name = || self.servers.values().find(|it| it.now.name.as_deref() == Some(id));
        self.servers.get(id).or_else(by_name).map(|it| &it.shown)
    }

    /// Whether what answers there may be used, and shown its key.
    pub fn trusts(&self, endpoint: &Endpoint) -> bool {
        self.places.get(endpoint).is_some_and(Place::is_trusted)
    }

    /// The kind that the configuration says a server in the cloud is of, which nobody is asked.
    pub fn claimed(&self, endpoint: &Endpoint) -> Option<KindId> {
        let kind = self.person_says(endpoint)?.kind.clone()?;
        (self.settings.cloud.zone(endpoint) == Zone::Cloud).then_some(kind)
    }

    /// Whether nobody may connect there, because it is in the cloud and that is not enabled.
    pub fn bars(&self, endpoint: &Endpoint) -> bool {
        self.settings.cloud.bars(endpoint)
    }

    /// Whether some server has, or had since we started, a model of that name.
    pub fn knows(&self, model: &str) -> bool {
        self.formerly.contains(model) || self.snapshot.servers.iter().any(|it| it.has(model))
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
        let mut announced_as = BTreeSet::new();
        for place in self.addresses(id).iter().filter_map(|it| self.places.get(it)) {
            found_by.extend(place.hints.keys().copied());
            announced_as.extend(place.names.iter().cloned());
        }
        let settings = self.person_says_of(id).cloned();
        let place = self.places.get(&endpoint);
        let trusted = place.is_some_and(Place::is_trusted);
        let word = place.and_then(|it| it.word.clone());
        let listing = place.and_then(Place::listing).cloned();
        let is_it = word.as_ref().is_none_or(|it| it.is_about(&server.now.kind));
        let trusted = trusted && is_it;
        let (zone, bounds) = (self.zone(&endpoint), self.bounds_of_requests(&endpoint));
        let Some(server) = self.servers.get_mut(id) else { return };
        if !found_by.is_empty() {
            server.now.found_by = found_by;
        }
        server.now.announced_as = announced_as;
        server.now.admission = match &settings {
            Some(it) if !it.enabled => Admission::Off,
            _ if !trusted => Admission::Untrusted,
            _ if server.draining => Admission::Draining,
            _ => Admission::Open,
        };
        // Whoever names a server says where it stands.
        let tier = listing.as_ref().map_or(0, |it| i32::from(it.tier));
        server.now.priority = settings.as_ref().map_or(tier, |it| it.priority);
        server.now.weight = listing.and_then(|it| it.weight);
        let settings = settings.unwrap_or_default();
        server.now.name = settings.name;
        // Who passes requests on to who knows whom is as far away as anybody can be.
        let zone = if server.forwards { Zone::Cloud } else { zone };
        server.now.zone = settings.zone.unwrap_or(zone);
        server.now.bounds = bounds;
        let problem = server.now.problem.filter(|it| !it.is_change());
        server.now.problem = word.as_ref().and_then(Word::problem).or(problem);
        server.now.word = word;
        server.now.limit = settings.limit.or(server.slots).map(|it| it.max(1));
        let was = server.shown.standing;
        changes.extend(server.publish(now));
        let (noted, next) = (server.beat_noted, beat::next(server));
        server.beat_noted = next;
        let (is_down, was_down) = (server.shown.standing == Standing::Down, was == Standing::Down);
        self.note_beat(id, noted, next);
        if is_down && !was_down {
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

    fn hurry(&mut self, endpoint: &Endpoint, now: Now) {
        let far = self.zone(endpoint) == Zone::Cloud;
        if let Some(place) = self.places.get_mut(endpoint) {
            if far { place.hurry_a_little(now.at) } else { place.hurry(now.at) }
        }
    }

    /// Drops an address that nobody knows of any more.
    fn sweep(&mut self, endpoint: &Endpoint) {
        if self.places.get(endpoint).is_some_and(Place::is_idle) {
            self.places.remove(endpoint);
        }
    }
}

/// Whether this source tells of a listening socket when it appears and when it is gone.
fn is_of_socket(source: Source) -> bool {
    matches!(source, Source::SocketTable | Source::Port)
}

/// Whether the table of listening sockets would show who listens there.
fn is_listed(endpoint: &Endpoint) -> bool {
    endpoint.is_local() && endpoint.port().is_some()
}
