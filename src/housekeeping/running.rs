//! Requests that begin, run and are over: whoever listens is told of them, and of each is noted
//! how busy the machine was meanwhile.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use super::{Event, Housekeeping, RECENT, line, lock};
use crate::{
    generate::{Caller, Load, Operation, Outcome, Reading},
    metrics::Family,
    otlp::{self, Outbox},
};

/// What is known of a request when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The id that the caller gets in `x-lovable-request-id`.
    pub request_id: String,
    /// When it arrived, milliseconds since 1970.
    pub at_ms: u64,
    /// Who asks.
    pub caller: Caller,
    /// The language of the caller.
    pub dialect: &'static str,
    /// What is wanted.
    pub operation: Operation,
    /// The model as the caller wrote it.
    pub asked: String,
    /// Whether the caller wants a stream.
    pub stream: bool,
}

impl Housekeeping {
    /// Requests that run, the oldest first.
    pub fn running(&self) -> Vec<Arc<Started>> {
        self.running.all()
    }

    /// A request begins, and runs until what comes back is dropped.
    pub fn begun(&self, started: Started) -> Run {
        let started = Arc::new(started);
        let run = self.running.begin(started.clone(), self.hardware.last().map(|it| it.reading()));
        self.hardware.call.notify_one();
        self.tell(|| Event::Begun(started));
        run
    }

    /// What was counted since the start, for whoever watches from outside.
    pub fn counted(&self) -> Vec<Family> {
        lock(&self.figures).counted.families()
    }

    /// From now on what is over is left there, for a collector.
    pub fn leave_at(&self, outbox: Option<Outbox>) {
        self.outbox.store(outbox.map(Arc::new));
    }

    /// How it goes with the collector, if there is one.
    pub fn told(&self) -> Option<otlp::Figures> {
        self.outbox.load().as_ref().map(|it| it.figures())
    }

    /// Writes down that a request is over, which belongs to a span of its caller.
    pub fn finished(&self, outcome: Outcome, parent: Option<otlp::Parent>) {
        line::write(&outcome);
        let number = self.count(&outcome);
        let outcome = Arc::new(outcome);
        if let Some(outbox) = &*self.outbox.load() {
            outbox.leave(outcome.clone(), parent);
        }
        self.tell(|| Event::Request(outcome.clone()));
        let mut recent = lock(&self.recent);
        if recent.len() == RECENT {
            recent.pop_front();
        }
        // Nearly always the last: two may have been counted in the other order.
        let at = recent.partition_point(|(it, _)| *it < number);
        recent.insert(at, (number, outcome));
    }
}

/// All of them.
#[derive(Clone, Default)]
pub(super) struct Running(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    next: u64,
    all: BTreeMap<u64, One>,
}

struct One {
    started: Arc<Started>,
    load: Load,
}

impl Running {
    /// A request begins. `now` is how busy the machine is, where that is known.
    pub(super) fn begin(&self, started: Arc<Started>, now: Option<Reading>) -> Run {
        let mut load = Load::default();
        if let Some(now) = now {
            load.see(now);
        }
        let mut books = lock(&self.0);
        let number = books.next;
        books.next += 1;
        books.all.insert(number, One { started, load });
        Run { running: self.clone(), number }
    }

    /// The machine is this busy now.
    pub(super) fn see(&self, now: Reading) {
        lock(&self.0).all.values_mut().for_each(|it| it.load.see(now));
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).all.is_empty()
    }

    /// Those that run, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Started>> {
        lock(&self.0).all.values().map(|it| it.started.clone()).collect()
    }
}

/// A request that runs, until it is dropped.
#[must_use = "who drops it runs no longer"]
pub struct Run {
    running: Running,
    number: u64,
}

impl Run {
    /// It runs no longer. Says how busy the machine was meanwhile, if that was seen.
    ///
    /// To be called before anybody is told that it is over: whoever begins to listen after that
    /// must not find it among those that run.
    pub fn end(&self) -> Option<Load> {
        lock(&self.running.0).all.remove(&self.number).and_then(|it| it.load.known())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        lock(&self.running.0).all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(id: &str) -> Arc<Started> {
        Arc::new(Started {
            request_id: id.to_owned(),
            at_ms: 0,
            caller: Caller::default(),
            dialect: "openai",
            operation: Operation::Chat,
            asked: "m".to_owned(),
            stream: false,
        })
    }

    #[test]
    fn a_request_knows_what_was_seen_while_it_ran_and_nothing_else() {
        let running = Running::default();
        let busy = |it| Reading { processor: Some(it), ..Reading::default() };
        running.see(busy(999));
        let first = running.begin(started("a"), Some(busy(300)));
        running.see(busy(700));
        let second = running.begin(started("b"), None);
        assert_eq!(running.begin(started("c"), None).end(), None);
        running.see(busy(100));
        let ids: Vec<_> = running.all().iter().map(|it| it.request_id.clone()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(first.end(), Some(Load { start: busy(300), peak: busy(700) }));
        assert_eq!(second.end(), Some(Load { start: busy(100), peak: busy(100) }));
        drop((first, second));
        assert!(running.is_empty());
    }
}
