//! How a request ends, and what its caller is told.

use std::time::Duration;

use super::{answer::refused, work::Work};
use crate::{
    fault::{Blame, Failure, Tried, Words},
    generate::Ending,
};

impl Work {
    /// Tells the caller how it ended.
    pub(super) async fn finish(&mut self, ending: Ending) {
        if ending.is_success() {
            return self.deliver(ending).await;
        }
        if self.machine.is_poison() {
            let servers: Vec<_> = self.record.attempts.iter().map(|it| it.server.clone()).collect();
            self.record.relay.house.poisoned(&servers);
        }
        let failure = self.failure(ending);
        let (code, callers) = (failure.code(), failure.is_callers());
        tracing::debug!(request = self.record.request_id, ?ending, code, "request failed");
        if self.committed || self.opened {
            if self.errand.request.head.stream {
                let shape = self.errand.shape;
                self.mouth.push(shape.break_off(&failure, &self.record.request_id, self.frames));
            } else {
                self.mouth.break_connection();
            }
        } else {
            let attempts = self.attempts();
            let (head, body) = refused(&failure, self.errand.shape, &self.record.request_id, attempts);
            self.record.status = head.status;
            self.mouth.head(head);
            self.mouth.push(body);
        }
        self.record.over = Some((ending, self.record.status, Some(code), callers));
    }

    async fn deliver(&mut self, ending: Ending) {
        // A plain answer is put together here, of which the machine knows nothing.
        let ending = if self.resumed { Ending::Resumed } else { ending };
        self.record.over = Some((ending, self.record.status, None, false));
        let Some(live) = &self.record.live else { return };
        (self.record.usage, self.record.reason) = live.tally();
        if let Some(sum) = live.sum {
            (self.record.usage, self.record.usage_estimated) = sum;
        }
        // The server has done its work, whatever becomes of the caller, who may leave
        // once it has the terminator: no line below needs to run.
        let live = self.record.close(None);
        if let Some(mut live) = live {
            live.in_flight.answered();
            self.record.relay.house.attempt_succeeded(&live.choice.server.id);
            // Not always the one that began it.
            if let Some(conversation) = self.conversation {
                self.record.relay.house.settle(conversation, &live.choice.server.id);
            }
            live.read_to_end().await;
        }
        self.mouth.taken().await;
    }

    /// What the caller is told, given how the request ended and what happened on the way.
    fn failure(&mut self, ending: Ending) -> Failure {
        let tried: Vec<Tried> = self
            .record
            .attempts
            .iter()
            .filter_map(|it| Some(Tried { server: it.server.to_string(), fault: it.fault? }))
            .collect();
        match ending {
            Ending::Delivered | Ending::Resumed | Ending::CallerGone => Failure::Internal,
            Ending::Refused => match tried.last().map(|it| it.fault.blame()) {
                None => self.nobody.take().unwrap_or(Failure::Internal),
                Some(Blame::Daemon) => self.nobody.take().unwrap_or(Failure::Internal),
                Some(_) => self.words.take().map_or(Failure::Exhausted(tried), |words| {
                    // Some servers say 500 to what is the caller's fault; SDKs would send that again.
                    let status = if (400..500).contains(&words.status) { words.status } else { 400 };
                    Failure::Relayed(Words { status, ..words })
                }),
            },
            Ending::OutOfTime => Failure::OutOfTime { waited: self.record.started.elapsed(), tried },
            Ending::CutShort => Failure::Exhausted(tried),
            Ending::Exhausted => match (self.machine.free_at(), self.nobody.take()) {
                (Some(at), _) => Failure::Busy {
                    retry_after: at.saturating_duration_since(self.now()).max(Duration::from_secs(1)),
                },
                (None, Some(nobody)) if tried.is_empty() => nobody,
                (None, _) => Failure::Exhausted(tried),
            },
        }
    }
}
