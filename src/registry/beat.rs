//! Whether servers of the network are still there.
//!
//! Nobody tells when a cable is pulled or a laptop shut: what was sent there is waited for in
//! vain. So whoever may be sent requests is reached for again and again, with a connection on
//! which nothing is said: that costs both sides microseconds, and no server writes it into its
//! log. Who is missed three times in a row is gone, after two seconds at the most.

use std::time::{Duration, Instant};

use super::{Admission, Change, Now, Registry, Standing, known::Known, known::is_gone, pace::Pace};
use crate::{
    fault::Fault,
    server::{Endpoint, ServerId, Zone},
};

/// How long after it took a connection a server is reached for again: at the second look after
/// it. With three misses of 0.3 s each that makes 1.9 s at the most until it counts as gone.
const EVERY: Duration = Duration::from_millis(900);

/// So many misses in a row make it gone: one is a packet lost, two a laptop's radio asleep.
const MISSES: u32 = 3;

/// One turn of reaching for a server, and how many there are at once. Beyond a hundred servers
/// each is reached for more rarely than `EVERY`, and a cable that is pulled is known later: by the
/// first request that runs into it, or when its turn comes.
pub(super) const REACH: Duration = Duration::from_millis(10);
pub(super) const REACHES_AT_ONCE: u32 = 100;

/// Longer than reaching for a server takes.
const OVERDUE: Duration = Duration::from_secs(5);

/// When a server is reached for next, and how often it was missed in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beat {
    next: Option<Instant>,
    missed: u32,
}

impl Beat {
    /// It has just answered; with so many servers the others have their turn before it.
    pub(super) fn after(at: Instant, servers: usize) -> Self {
        Self { next: Some(at + EVERY.max(Pace::round(REACH, servers))), missed: 0 }
    }

    /// It has just answered a question.
    pub(super) fn well(&mut self, at: Instant) {
        self.missed = 0;
        self.next = self.next.max(Some(at + EVERY));
    }
}

impl Registry {
    /// The servers to be reached for now, by address.
    pub fn beats(&mut self, now: Now) -> Vec<Endpoint> {
        let mut due = Vec::new();
        while self.beats.first().is_some_and(|(at, _)| *at <= now.at) && self.reaches.take(now.at) {
            let Some((_, id)) = self.beats.pop_first() else { break };
            let Some(server) = self.servers.get_mut(&id) else { continue };
            due.push(server.now.endpoint.clone());
            // The report sets it right; one that never comes must not be waited for.
            server.beat.next = Some(now.at + OVERDUE);
            server.beat_noted = next(server);
            let next = server.beat_noted;
            self.note_beat(&id, None, next);
        }
        due
    }

    /// A server took a connection, or did not.
    pub fn on_beat(&mut self, endpoint: &Endpoint, result: Result<(), Fault>, now: Now) -> Vec<Change> {
        let Some(id) = self.main_at(endpoint) else { return Vec::new() };
        let many = self.servers.len();
        let Some(server) = self.servers.get_mut(&id).filter(|it| beats(it)) else { return Vec::new() };
        let mut changes = Vec::new();
        match result {
            Ok(()) => {
                server.beat = Beat::after(now.at, many);
                server.health.reassure();
            }
            Err(fault) => {
                server.beat.missed += 1;
                server.beat.next = Some(now.at);
                if is_gone(&fault) || server.beat.missed >= MISSES {
                    server.beat = Beat::default();
                    server.blame(&fault, now);
                    server.health.vanish(now.at);
                    self.hurry(endpoint, now);
                } else {
                    server.health.doubt();
                }
            }
        }
        self.refresh(&id, now, &mut changes);
        self.told(changes)
    }

    /// Puts down when a server is reached for, in place of what was noted.
    pub(super) fn note_beat(&mut self, id: &ServerId, noted: Option<Instant>, next: Option<Instant>) {
        if let Some(at) = noted.filter(|it| Some(*it) != next) {
            self.beats.remove(&(at, id.clone()));
        }
        self.beats.extend(next.map(|at| (at, id.clone())));
    }

    /// Whether it turned out since that a server does not answer where it was.
    pub(super) fn is_doubted(&self, id: &ServerId) -> bool {
        self.servers.get(id).is_some_and(|it| it.health.standing != Standing::Up)
    }
}

/// When it is reached for.
pub(super) fn next(it: &Known) -> Option<Instant> {
    it.beat.next.filter(|_| beats(it))
}

/// Whether it is reached for: what may be used of this network, by its address. A name would
/// have to be looked up each time.
fn beats(it: &Known) -> bool {
    let server = &it.now;
    let usable = matches!(server.admission, Admission::Open | Admission::Draining)
        && matches!(server.standing, Standing::Up | Standing::Suspect | Standing::Trial);
    let at = &server.endpoint;
    usable && server.zone == Zone::Lan && !at.is_local() && at.ip().is_some() && at.port().is_some()
}
