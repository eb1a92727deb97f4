//! One server as the registry keeps it: what is shown of it, and what is not.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    fault::{Cause, Fault},
    registry::{Change, LastFault, Now, Server, Standing, beat::Beat, health::Health},
    server::{Model, Problem, Sighting},
};

/// `last_seen` alone is worth a change this often: often enough for people, seldom
/// enough that an idle daemon writes nothing to speak of.
const LAST_SEEN_EVERY_MS: u64 = 60_000;

/// Equal faults are shown again at most this often, so that a server that fails
/// a thousand times in a second fills neither the feed nor the store.
const SAME_FAULT_EVERY_MS: u64 = 1_000;

/// For so long a live 401 outweighs probes that need no key.
const KEY_REFUSED_FOR: Duration = Duration::from_secs(60);

/// The longest that a server may ask to be left alone; beyond it is a mistake of its.
const LONGEST_BUSY: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
pub(super) struct Known {
    /// As it is now.
    pub(super) now: Server,
    /// As it was last told to the world.
    pub(super) shown: Arc<Server>,
    pub(super) health: Health,
    /// A person said that it gets nothing new.
    pub(super) draining: bool,
    /// When it is reached for next, and how often it was missed.
    pub(super) beat: Beat,
    /// When the agenda says that it is reached for.
    pub(super) beat_noted: Option<Instant>,
    /// How many requests it says that it works on at once.
    pub(super) slots: Option<u32>,
    pub(super) engine_ports: Vec<u16>,
    pub(super) engine_of: Option<String>,
    /// It passes requests on to who knows whom.
    pub(super) forwards: bool,
    /// Servers found earlier have a smaller one.
    pub(super) order: u64,
    /// When it last answered a request.
    pub(super) answered_at: Option<Instant>,
    /// How often it was busy in a row.
    busy: u32,
    key_refused_at: Option<Instant>,
}

impl Known {
    pub(super) fn new(server: Server, health: Health, order: u64) -> Self {
        Self {
            shown: Arc::new(server.clone()),
            now: server,
            health,
            draining: false,
            beat: Beat::default(),
            beat_noted: None,
            slots: None,
            engine_ports: Vec::new(),
            engine_of: None,
            forwards: false,
            order,
            answered_at: None,
            busy: 0,
            key_refused_at: None,
        }
    }

    /// Whether nothing is to be mended.
    pub(super) fn is_well(&self) -> bool {
        self.health.standing == Standing::Up && self.now.problem.is_none()
    }

    /// Takes over what a probe saw.
    pub(super) fn see(&mut self, sighting: Sighting, now: Now) {
        self.now.version = sighting.version.or(self.now.version.take());
        self.now.simulated = sighting.simulated;
        // A server that cannot serve just now often cannot list either; what it had, it still has.
        if sighting.problem.is_none() || !sighting.models.is_empty() {
            self.now.models = keep_equal(&self.now.models, sighting.models);
        }
        let key_refused = self.key_refused_at.is_some_and(|at| now.at < at + KEY_REFUSED_FOR);
        self.now.problem = sighting.problem.or(key_refused.then_some(Problem::NeedsKey));
        self.now.instance = sighting.instance;
        self.slots = sighting.slots;
        self.engine_ports = sighting.engine_ports;
        self.engine_of = sighting.engine_of;
        // Where it turns us away it shows too little of itself to say that it is none any more.
        self.forwards = sighting.forwards || (self.forwards && sighting.problem.is_some());
        self.now.last_seen_ms = Some(now.wall_ms);
        self.health.seen(now.at);
        self.beat.well(now.at);
    }

    /// It is at another address: what was wrong at the old one is over.
    pub(super) fn moved(&mut self) {
        self.health = Health::new(Standing::Up);
        self.key_refused_at = None;
    }

    /// An answered request. Returns whether anything but the time changed.
    pub(super) fn answered(&mut self, now: Now) -> bool {
        self.answered_at = Some(now.at);
        self.now.last_seen_ms = Some(now.wall_ms);
        if self.health.is_spotless() && self.now.busy_until.is_none() && self.now.problem.is_none() {
            return false;
        }
        if self.health.answered() {
            self.busy = 0;
            self.now.busy_until = None;
            self.now.problem = None;
            self.key_refused_at = None;
        }
        true
    }

    pub(super) fn blame(&mut self, fault: &Fault, now: Now) {
        let fresh = self.now.last_fault.is_none_or(|last| {
            last.fault != *fault || last.at_ms.saturating_add(SAME_FAULT_EVERY_MS) <= now.wall_ms
        });
        if fresh {
            self.now.last_fault = Some(LastFault { fault: *fault, at_ms: now.wall_ms });
        }
    }

    /// It wants to be left alone: for as long as it asked, else 1, 2, 4 … s.
    pub(super) fn rest(&mut self, asked: Option<Duration>, now: Now) {
        // Requests that were under way together are one sign of being busy.
        if self.now.busy_until.is_none_or(|until| until <= now.at) {
            self.busy = self.busy.saturating_add(1);
        }
        let wait = asked.unwrap_or_else(|| super::health::pause(self.busy)).min(LONGEST_BUSY);
        self.now.busy_until = self.now.busy_until.max(Some(now.at + wait));
    }

    /// The machine has slept: all that was to be waited for is over.
    pub(super) fn rouse(&mut self, now: Now) {
        self.health.rouse(now.at);
        self.now.busy_until = None;
        self.busy = 0;
    }

    pub(super) fn refuse_key(&mut self, now: Now) {
        self.key_refused_at = Some(now.at);
        self.now.problem = Some(Problem::NeedsKey);
    }

    /// The change to tell, if there is one.
    pub(super) fn publish(&mut self, now: Now) -> Option<Change> {
        self.now.standing = self.health.standing;
        self.now.trial_at = self.health.trial_at;
        if self.now.standing != self.shown.standing {
            self.now.since_ms = now.wall_ms;
        }
        let seen = self.now.last_seen_ms;
        let told = self.shown.last_seen_ms;
        let stale = seen.unwrap_or(0).saturating_sub(told.unwrap_or(0)) >= LAST_SEEN_EVERY_MS;
        self.now.last_seen_ms = told;
        let same = self.now == *self.shown;
        self.now.last_seen_ms = seen;
        if same && !stale {
            return None;
        }
        self.shown = Arc::new(self.now.clone());
        Some(Change::Server { server: Arc::clone(&self.shown) })
    }
}

/// A refusal that says that nobody is there at all.
pub(super) fn is_gone(fault: &Fault) -> bool {
    matches!(fault.cause, Cause::Refused | Cause::Unreachable)
}

/// The new list, with the old allocation of each model that did not change.
fn keep_equal(old: &[Arc<Model>], new: Vec<Model>) -> Vec<Arc<Model>> {
    let mut models: Vec<Arc<Model>> = new
        .into_iter()
        .map(|model| {
            let at = old.binary_search_by(|it| it.name.cmp(&model.name)).ok();
            match at.and_then(|it| old.get(it)).filter(|it| ***it == model) {
                Some(kept) => Arc::clone(kept),
                None => Arc::new(model),
            }
        })
        .collect();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    models.dedup_by(|a, b| a.name == b.name);
    models
}
