//! What a person does with servers, and what is done for want of one.

use super::{
    Change, Known, Now, Registry, Standing,
    place::{Ask, Place},
};
use crate::server::{ServerId, Source};

impl Registry {
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
                place.word = None;
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
        for (_, place) in self.places.iter_mut().filter(|(_, place)| place.ask != Ask::Never) {
            place.postpone(now.at);
        }
    }

    /// The models of servers of this kind have changed on the disk of this machine: those here
    /// are asked for their lists now.
    pub fn on_models(&mut self, kind: &str, now: Now) {
        let here = self.servers.values().filter(|it| it.now.kind == kind && it.now.endpoint.is_local());
        for server in here {
            if let Some(place) = self.places.get_mut(&server.now.endpoint) {
                place.look_again(now.at);
            }
        }
    }

    /// The machine has slept: every address is due, and nothing that was waited for is waited
    /// for any longer.
    pub fn on_wake(&mut self, now: Now) -> Vec<Change> {
        for (_, place) in self.places.iter_mut() {
            place.rouse(now.at);
        }
        let ids: Vec<ServerId> = self.servers.keys().cloned().collect();
        let mut changes = Vec::new();
        for id in ids {
            if let Some(server) = self.servers.get_mut(&id) {
                server.rouse(now);
            }
            self.refresh(&id, now, &mut changes);
        }
        self.told(changes)
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
            let is_kept = |it: &Place| it.is_named() || it.word.is_some();
            if addresses.iter().any(|it| self.places.get(it).is_some_and(is_kept)) {
                continue;
            }
            self.remove(&id, &mut changes);
            addresses.iter().for_each(|it| self.sweep(it));
        }
        self.told(changes)
    }

    fn set_draining(&mut self, id: &str, draining: bool, now: Now) -> Option<Vec<Change>> {
        let id = self.server(id)?.id.clone();
        self.servers.get_mut(&id)?.draining = draining;
        let mut changes = Vec::new();
        self.refresh(&id, now, &mut changes);
        Some(self.told(changes))
    }
}
