//! What is known of a request while it runs. Dropping it writes the outcome
//! down, so that no way of ending can be forgotten: a caller who leaves drops it too.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{Errand, Relay, conduit::Mouth, live::Live};
use crate::{
    fault::{Blame, Fault},
    generate::{Attempt, Candidate, Ending, Head, Outcome, Reason, Substitution, Usage},
    housekeeping::wall_ms,
    server::Zone,
};

/// What is known of a request while it runs; dropping it writes the outcome down.
pub(super) struct Record {
    pub(super) relay: Arc<Relay>,
    pub(super) request_id: String,
    /// The caller's language.
    dialect: &'static str,
    pub(super) head: Head,
    pub(super) started: Instant,
    pub(super) at_ms: u64,
    pub(super) attempts: Vec<Attempt>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) live: Option<Live>,
    pub(super) first_token: Option<Duration>,
    pub(super) over: Option<(Ending, u16, Option<&'static str>, bool)>,
    pub(super) status: u16,
    pub(super) zone: Option<Zone>,
    pub(super) substituted: Substitution,
    pub(super) usage: Usage,
    pub(super) usage_estimated: bool,
    pub(super) reason: Option<Reason>,
    pub(super) held: usize,
    pub(super) mouth: Mouth,
}

impl Record {
    /// A request has arrived.
    pub(super) fn begin(relay: Arc<Relay>, errand: &Errand, now: Instant, mouth: Mouth) -> Self {
        relay.running.fetch_add(1, Ordering::Relaxed);
        Self {
            relay,
            request_id: errand.request_id.clone(),
            dialect: errand.request.door.dialect().id(),
            head: errand.request.head.clone(),
            started: now,
            at_ms: wall_ms(),
            attempts: Vec::new(),
            candidates: Vec::new(),
            live: None,
            first_token: None,
            over: None,
            status: 0,
            zone: None,
            substituted: Substitution::No,
            usage: Usage::default(),
            usage_estimated: false,
            reason: None,
            held: 0,
            mouth,
        }
    }

    /// Closes the current attempt, if there is one, with what went wrong.
    pub(super) fn close(&mut self, fault: Option<Fault>) -> Option<Live> {
        let live = self.live.take()?;
        let (usage, _) = live.tally();
        let cost = live.settle(fault);
        self.attempts.push(Attempt {
            server: live.choice.server.id.clone(),
            kind: live.choice.server.kind.clone(),
            model: live.choice.model.clone(),
            after: live.started - self.started,
            first_token: live.first_token,
            total: live.started.elapsed(),
            requests: live.requests,
            fault,
            usage,
            cost,
        });
        Some(live)
    }

    /// Closes the current attempt because nobody waits for it any more.
    pub(super) fn leave(&mut self) {
        if let Some(live) = self.close(None) {
            self.give_back(live);
        }
    }

    /// Gives the place at the server back, at once or when the server is done.
    fn give_back(&self, live: Live) {
        if live.is_read_on() {
            let (server, model, read) = (&live.choice.server.id, &live.choice.model, live.started.elapsed());
            let time = self.relay.house.with_paces(|it| it.ghost(server, model, live.bytes, read));
            live.in_flight.leaves_a_ghost(time);
        }
    }

    /// Closes the current attempt as failed and tells housekeeping.
    pub(super) fn fail(&mut self, fault: Fault) {
        if let Some(live) = self.close(Some(fault)) {
            // Whoever sells its answers counts them by the minute, not those at once.
            if matches!(fault.blame(), Blame::Busy { .. }) && live.choice.server.zone != Zone::Cloud {
                live.in_flight.turned_away();
            }
            let id = &live.choice.server.id;
            tracing::debug!(request = self.request_id, server = %id, %fault, stage = ?fault.stage, "attempt failed");
            self.relay.house.attempt_failed(id, &fault);
            let work = (self.head.operation, self.head.needs);
            self.relay.house.lacked(id, &live.choice.model, work, &fault);
            self.give_back(live);
        }
    }

    /// Counts what is held against the daemon's bound; says whether it fits.
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        let grown = bytes.saturating_sub(self.held);
        if grown == 0 {
            return true;
        }
        let before = self.relay.held.fetch_add(grown, Ordering::Relaxed);
        self.held += grown;
        before + grown <= self.relay.settings.load().held
    }

    pub(super) fn let_go(&mut self) {
        self.relay.held.fetch_sub(std::mem::take(&mut self.held), Ordering::Relaxed);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.relay.running.fetch_sub(1, Ordering::Relaxed);
        self.let_go();
        // Delivered means that the caller has taken all of it.
        let untaken = self.mouth.waiting() > 0;
        let (ending, status, failure, callers_fault) = match self.over.take() {
            Some(over) if !(over.0.is_success() && untaken) => over,
            Some((_, status, ..)) => (Ending::CallerGone, status, None, false),
            None => (Ending::CallerGone, self.status, None, false),
        };
        self.leave();
        self.relay.house.finished(Outcome {
            request_id: std::mem::take(&mut self.request_id),
            at_ms: self.at_ms,
            dialect: self.dialect.to_owned(),
            operation: self.head.operation,
            asked: std::mem::take(&mut self.head.model),
            stream: self.head.stream,
            ending,
            status,
            failure: failure.map(str::to_owned),
            callers_fault,
            attempts: std::mem::take(&mut self.attempts),
            candidates: std::mem::take(&mut self.candidates),
            zone: self.zone,
            substituted: self.substituted,
            first_token: self.first_token,
            total: self.started.elapsed(),
            usage: self.usage,
            usage_estimated: self.usage_estimated,
            reason: self.reason,
        });
    }
}
