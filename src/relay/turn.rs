//! A request's place at a server, and its turn in the queue while there is none.

use std::time::Duration;

use tokio::time::Instant;

use super::{Errand, Relay, work::Work};
use crate::{
    dialect::beginning,
    failover::Chosen,
    fault::Failure,
    generate::Operation,
    housekeeping::{InFlight, Look, Ticket, Traffic},
    queue::Priority,
    registry::{Admission, Server},
    server::ServerId,
};

/// One that waits looks around that often: its server may have gone, and others have come.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Before its time is up, so that it is told that all are busy and not that time ran out.
const LAST_LOOK: Duration = Duration::from_millis(50);
/// When to come back to a queue that is full: about one short answer for each.
const COME_BACK: Duration = Duration::from_secs(2);

/// Where a request stands.
#[derive(Default)]
pub(super) struct Turn {
    /// A place at the server that is about to be asked.
    place: Option<InFlight>,
    /// It waits for one.
    ticket: Option<Ticket>,
}

impl Turn {
    /// How many others a server has.
    pub(super) fn in_flight(&self, look: &Look, server: &ServerId) -> u32 {
        look.taken(server) - u32::from(self.has_place_at(server))
    }

    /// Whether it would have to wait for this server.
    pub(super) fn is_full(&self, look: &Look, server: &Server) -> bool {
        !self.has_place_at(&server.id) && look.is_full(&server.id, server.limit)
    }

    fn has_place_at(&self, server: &ServerId) -> bool {
        self.place.as_ref().is_some_and(|it| it.server() == server)
    }

    /// Takes a place there, unless the last one went to somebody else meanwhile.
    pub(super) fn take(&mut self, traffic: &Traffic, server: &Server) -> bool {
        if !self.has_place_at(&server.id) {
            let Some(place) = traffic.enter(&server.id, server.limit) else { return false };
            self.place = Some(place);
        }
        self.ticket = None;
        true
    }

    /// The place that was taken.
    pub(super) fn place(&mut self) -> Option<InFlight> {
        self.place.take()
    }

    /// Whether it waits for a place.
    pub(super) fn waits(&self) -> bool {
        self.ticket.is_some()
    }

    /// Neither has a place nor waits for one.
    pub(super) fn leave(&mut self) {
        *self = Self::default();
    }

    /// Waits until it is called to a place, which is kept for the next choice.
    pub(super) async fn called(&mut self) {
        match &mut self.ticket {
            Some(ticket) => self.place = Some(ticket.called().await),
            None => std::future::pending().await,
        }
        self.ticket = None;
    }
}

/// The conversation that a request goes on with: the caller's own name for it, or what it
/// begins with. Where only one server could be meant anyway it is not looked for.
pub(super) fn conversation(relay: &Relay, errand: &Errand) -> Option<u64> {
    let head = &errand.request.head;
    let choice =
        relay.house.snapshot().servers.iter().filter(|it| it.admission == Admission::Open).nth(1).is_some();
    if !choice || head.operation == Operation::Embed {
        return None;
    }
    match &errand.wishes.session {
        Some(session) => Some(beginning::named(session)),
        None => beginning::beginning(&head.model, &errand.body),
    }
}

impl Work {
    /// Everyone who could answer has all that it may have: waits for the first free place.
    pub(super) fn queue_up(&mut self, relay: &Relay, servers: &[ServerId]) -> Chosen {
        let snapshot = relay.house.snapshot();
        let limit = |id: &ServerId| snapshot.server(id.as_str()).and_then(|it| it.limit);
        let servers = servers.iter().map(|id| (id.clone(), limit(id).unwrap_or(u32::MAX))).collect();
        self.turn.place();
        if let Some(ticket) = &self.turn.ticket {
            ticket.aim(servers);
        } else {
            // Who lost the server that had it has waited once already.
            let lost = !self.record.attempts.is_empty() && self.errand.wishes.priority < Priority::Batch;
            let priority = if self.committed || lost { Priority::Begun } else { self.errand.wishes.priority };
            match relay.house.traffic().wait(priority, servers) {
                Ok(ticket) => self.turn.ticket = Some(ticket),
                Err(full) => {
                    tracing::debug!(request = self.record.request_id, "{full}");
                    self.nobody = Some(Failure::Busy { retry_after: COME_BACK });
                    return Chosen::Nobody;
                }
            }
        }
        self.nobody = Some(Failure::Busy { retry_after: COME_BACK });
        // In the last moment before its time is up it looks around once more.
        let last = self.machine.deadline().checked_sub(LAST_LOOK);
        let next = (Instant::now() + LOOK_EVERY).into_std();
        Chosen::Later(last.map_or(next, |last| next.min(last)))
    }
}
