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
    generate::{Attempt, Caller, Candidate, Ending, Gaps, Head, Outcome, Reason, Substitution, Usage},
    housekeeping::{Run, Started, wall_ms},
    otlp::Parent,
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
    caller: Caller,
    run: Run,
    /// The span of the caller that it belongs to.
    parent: Option<Parent>,
    /// How long it has waited for a place, up to when it began to wait once more.
    queued: Duration,
    queued_since: Option<Instant>,
    gaps: Gaps,
    /// When the last piece with content came.
    spoke_at: Option<Instant>,
    /// How many bytes had been said when the first content went out.
    committed_at: Option<u64>,
}

impl Record {
    /// A request has arrived.
    pub(super) fn begin(relay: Arc<Relay>, errand: &Errand, now: Instant, mouth: Mouth) -> Self {
        relay.running.fetch_add(1, Ordering::Relaxed);
        let (dialect, at_ms) = (errand.request.door.dialect().id(), wall_ms());
        let run = relay.house.begun(Started {
            request_id: errand.request_id.clone(),
            at_ms,
            caller: errand.caller.clone(),
            dialect,
            operation: errand.request.head.operation,
            asked: errand.request.head.model.clone(),
            stream: errand.request.head.stream,
        });
        Self {
            relay,
            request_id: errand.request_id.clone(),
            dialect,
            head: errand.request.head.clone(),
            started: now,
            at_ms,
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
            caller: errand.caller.clone(),
            run,
            parent: errand.pass.get("traceparent").and_then(|it| Parent::read(it.to_str().ok()?)),
            queued: Duration::ZERO,
            queued_since: None,
            gaps: Gaps::default(),
            spoke_at: None,
            committed_at: None,
        }
    }

    /// It waits for a place at a server, or does not any more.
    pub(super) fn queues(&mut self, waits: bool) {
        match (self.queued_since, waits) {
            (None, true) => self.queued_since = Some(Instant::now()),
            (Some(since), false) => {
                self.queued += since.elapsed();
                self.queued_since = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// A piece with content has come.
    pub(super) fn spoke(&mut self, at: Instant) {
        if let Some(before) = self.spoke_at.replace(at) {
            self.gaps.add_time(at.saturating_duration_since(before));
        }
    }

    /// The caller took no more for so long, which was no pause of the server's.
    pub(super) fn held_back(&mut self, time: Duration) {
        self.spoke_at = self.spoke_at.map(|it| it + time);
    }

    /// Nothing of what was said counts: nobody has heard it.
    pub(super) fn unsaid(&mut self) {
        (self.gaps, self.spoke_at) = (Gaps::default(), None);
    }

    /// The answer goes out from here on.
    pub(super) fn committed(&mut self) {
        self.first_token = Some(in_micros(self.started.elapsed()));
        self.committed_at = Some(self.mouth.said());
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
            candidates: std::mem::take(&mut self.candidates),
            after: in_micros(live.started - self.started),
            first_token: live.first_token.map(in_micros),
            total: in_micros(live.started.elapsed()),
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
        self.queues(false);
        // What the caller did not take it was not sent.
        let taken = self.mouth.said().saturating_sub(self.mouth.waiting() as u64);
        let outcome = Outcome {
            request_id: std::mem::take(&mut self.request_id),
            at_ms: self.at_ms,
            caller: std::mem::take(&mut self.caller),
            dialect: self.dialect.into(),
            operation: self.head.operation,
            asked: std::mem::take(&mut self.head.model),
            stream: self.head.stream,
            ending,
            status,
            failure: failure.map(Into::into),
            callers_fault,
            attempts: std::mem::take(&mut self.attempts),
            candidates: std::mem::take(&mut self.candidates),
            zone: self.zone,
            substituted: self.substituted,
            queued: in_micros(self.queued),
            first_token: self.first_token,
            gaps: std::mem::take(&mut self.gaps),
            total: in_micros(self.started.elapsed()),
            usage: self.usage,
            usage_estimated: self.usage_estimated,
            reason: self.reason,
            sent: self.committed_at.map_or(0, |before| taken.saturating_sub(before)),
            load: self.run.end(),
        };
        self.relay.house.finished(outcome, self.parent);
    }
}

/// As it is written down, so that what is read again gives the same sums.
fn in_micros(time: Duration) -> Duration {
    Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
