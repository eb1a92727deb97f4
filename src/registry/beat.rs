//! Whether servers of the network are still there.
//!
//! Nobody tells when a cable is pulled or a laptop shut: what was sent there is waited for in
//! vain. So whoever may be sent requests is reached for again and again, with a connection on
//! which nothing is said: that costs both sides microseconds, and no server writes it into its
//! log. Who is missed three times in a row is gone, after two seconds at the most.

use std::time::{Duration, Instant};

use super::{Admission, Change, Now, Registry, Standing, known::Known, known::is_gone};
use crate::{
    fault::Fault,
    server::{Endpoint, ServerId, Zone},
};

/// How long after it took a connection a server is reached for again. With three misses of
/// 0.3 s each that makes 1.95 s at the most until it counts as gone.
const EVERY: Duration = Duration::from_secs(1);

/// So many misses in a row make it gone: one is a packet lost, two a laptop's radio asleep.
const MISSES: u32 = 3;

/// Longer than reaching for a server takes.
const OVERDUE: Duration = Duration::from_secs(5);

/// When a server is reached for next, and how often it was missed in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beat {
    next: Option<Instant>,
    missed: u32,
}

impl Beat {
    /// It has just answered.
    pub(super) fn after(at: Instant) -> Self {
        Self { next: Some(at + EVERY), missed: 0 }
    }
}

impl Registry {
    /// The servers to be reached for now, by address.
    pub fn beats(&mut self, now: Now) -> Vec<Endpoint> {
        let due = |it: &&mut Known| beats(it) && it.beat.next.is_some_and(|at| at <= now.at);
        let due = self.servers.values_mut().filter(due);
        due.map(|it| {
            // The report sets it right; one that never comes must not be waited for.
            it.beat.next = Some(now.at + OVERDUE);
            it.now.endpoint.clone()
        })
        .collect()
    }

    /// A server took a connection, or did not.
    pub fn on_beat(&mut self, endpoint: &Endpoint, result: Result<(), Fault>, now: Now) -> Vec<Change> {
        let Some(id) = self.main_at(endpoint) else { return Vec::new() };
        let Some(server) = self.servers.get_mut(&id).filter(|it| beats(it)) else { return Vec::new() };
        let mut changes = Vec::new();
        match result {
            Ok(()) => {
                server.beat = Beat::after(now.at);
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

    pub(super) fn next_beat(&self) -> Option<Instant> {
        self.servers.values().filter(|it| beats(it)).filter_map(|it| it.beat.next).min()
    }

    /// Whether it turned out since that a server does not answer where it was.
    pub(super) fn is_doubted(&self, id: &ServerId) -> bool {
        self.servers.get(id).is_some_and(|it| it.health.standing != Standing::Up)
    }
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
