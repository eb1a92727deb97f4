//! Tells a collector of OpenTelemetry what happens: traces of requests and metrics, as OTLP in
//! protobuf over HTTP. It does so only where the configuration names one.
//!
//! A request never waits for it: its outcome is put into a queue with an end, and where that is
//! full it is dropped and counted. From there it goes in batches; while the collector is away
//! they are held back and tried again. What it refuses is dropped and counted too. Metrics are
//! sums from the start on, so that of those nothing is lost while it is away.

mod collector;
mod message;
mod sums;
mod trace;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reqwest::Client;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use self::collector::{Trouble, client, send};
pub use self::{collector::Collector, trace::Parent};
use crate::{generate::Outcome, metrics::Family};

/// So many requests may wait: some MiB, and what a busy daemon does in a minute.
const WAITING: usize = 2048;
/// So many requests go in one message.
const AT_ONCE: usize = 512;
/// How long the first of a message waits for others.
const GATHER: Duration = Duration::from_secs(2);
/// Between two reports of metrics.
const METRICS_EVERY: Duration = Duration::from_secs(60);
/// Between two tries, at first and at the most.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How long what still waits may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// A request that is over, with the caller's span that it belongs to.
type Told = (Arc<Outcome>, Option<Parent>);

/// Where outcomes are left for the collector.
#[derive(Clone, Debug)]
pub struct Outbox {
    queue: mpsc::Sender<Told>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    dropped: AtomicU64,
    away: AtomicBool,
}

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Whether the collector took what it got last.
    pub ok: bool,
    /// How many requests wait for it.
    pub waiting: u64,
    /// How many it will never hear of.
    pub dropped: u64,
}

impl Outbox {
    /// Leaves an outcome there, if there is room.
    pub fn leave(&self, outcome: Arc<Outcome>, parent: Option<Parent>) {
        if parent.is_some_and(|it| !it.is_sampled()) {
            return;
        }
        if self.queue.try_send((outcome, parent)).is_err() {
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How it goes.
    pub fn figures(&self) -> Figures {
        Figures {
            ok: !self.state.away.load(Ordering::Relaxed),
            waiting: (self.queue.max_capacity() - self.queue.capacity()) as u64,
            dropped: self.state.dropped.load(Ordering::Relaxed),
        }
    }
}

/// What is told of, and by whom.
pub struct Source {
    /// What this daemon calls itself.
    pub instance: String,
    /// All metrics as they are now.
    pub metrics: Box<dyn Fn() -> Vec<Family> + Send + Sync>,
    /// Takes the outbox that outcomes are left in from now on, or none.
    pub outbox: Box<dyn Fn(Option<Outbox>) + Send + Sync>,
}

/// Tells whichever collector is named, until nobody can name another any more; then what waits
/// is sent, but for not longer than a moment. The outbox is there when this returns, so that no
/// request is over before.
pub fn run(mut named: watch::Receiver<Option<Collector>>, source: Source) -> impl Future<Output = ()> {
    let mut next = open(&mut named, &source);
    async move {
        let started = wall_nanos();
        loop {
            let Some((collector, told, state)) = next else {
                if named.changed().await.is_err() {
                    return;
                }
                next = open(&mut named, &source);
                continue;
            };
            let client = match client() {
                Ok(client) => client,
                Err(error) => {
                    tracing::error!(%error, "cannot prepare connections to {collector}");
                    return;
                }
            };
            let line = Line { client, collector, instance: &source.instance, state };
            let mut telling = std::pin::pin!(line.tell(told, &source, started));
            let is_last = tokio::select! {
                changed = named.changed() => changed.is_err(),
                // It ends with the outbox, which is still there.
                () = &mut telling => return,
            };
            // Whoever is told next misses nothing while this one is said farewell to.
            next = if is_last {
                (source.outbox)(None);
                None
            } else {
                open(&mut named, &source)
            };
            if timeout(FAREWELL, telling).await.is_err() {
                tracing::warn!("{} has not taken everything", line.collector);
            }
        }
    }
}

type Opened = (Collector, mpsc::Receiver<Told>, Arc<State>);

/// Has outcomes left for the collector that is named now, if one is, and for no other any more.
fn open(named: &mut watch::Receiver<Option<Collector>>, source: &Source) -> Option<Opened> {
    let opened = named.borrow_and_update().clone().map(|collector| {
        let (queue, told) = mpsc::channel(WAITING);
        let state = Arc::<State>::default();
        (Outbox { queue, state: state.clone() }, (collector, told, state))
    });
    let (outbox, opened) = opened.unzip();
    (source.outbox)(outbox);
    opened
}

/// The way to one collector.
struct Line<'a> {
    client: Client,
    collector: Collector,
    instance: &'a str,
    state: Arc<State>,
}

impl Line<'_> {
    /// Tells it everything for as long as the outbox is there, and what is in it then.
    async fn tell(&self, told: mpsc::Receiver<Told>, source: &Source, started: u64) {
        let metrics = async {
            loop {
                sleep(METRICS_EVERY).await;
                self.metrics(source, started).await;
            }
        };
        tokio::select! {
            () = self.traces(told) => {}
            () = metrics => {}
        }
        self.metrics(source, started).await;
    }

    async fn metrics(&self, source: &Source, started: u64) {
        let span = sums::Span { from: started, to: wall_nanos() };
        let message = sums::request((source.metrics)(), self.instance, span);
        let sent = send(&self.client, self.collector.at("/v1/metrics"), &message).await;
        // The next ones say all that these have said.
        self.note(sent.as_ref().err());
    }

    async fn traces(&self, mut told: mpsc::Receiver<Told>) {
        let mut batch = Vec::new();
        while told.recv_many(&mut batch, AT_ONCE).await > 0 {
            let until = Instant::now() + GATHER;
            while batch.len() < AT_ONCE && !told.is_closed() {
                let room = AT_ONCE - batch.len();
                let more = told.recv_many(&mut batch, room);
                if !matches!(timeout_at(until, more).await, Ok(1..)) {
                    break;
                }
            }
            self.deliver(&batch).await;
            batch.clear();
        }
    }

    /// Sends a batch, as often as it takes.
    async fn deliver(&self, batch: &[Told]) {
        let outcomes = batch.iter().map(|(outcome, parent)| (&**outcome, *parent));
        let message = trace::request(outcomes, self.instance, || fastrand::u64(..));
        let [mut pause, longest] = PAUSES;
        loop {
            let sent = send(&self.client, self.collector.at("/v1/traces"), &message).await;
            self.note(sent.as_ref().err());
            let lost = match sent {
                // It tells spans, of which a request has some.
                Ok(spans) => spans.min(batch.len() as u64),
                Err(Trouble::Refused(_)) => batch.len() as u64,
                Err(Trouble::Away(_, wanted)) => {
                    sleep(wanted.unwrap_or(pause).min(longest)).await;
                    pause = (pause * 2).min(longest);
                    continue;
                }
            };
            self.state.dropped.fetch_add(lost, Ordering::Relaxed);
            return;
        }
    }

    /// Says once that the collector is away, and once that it is back.
    fn note(&self, trouble: Option<&Trouble>) {
        let was_away = self.state.away.swap(trouble.is_some(), Ordering::Relaxed);
        let collector = &self.collector;
        match (trouble, was_away) {
            (Some(Trouble::Away(why, _)), false) => {
                tracing::warn!("{collector} takes no traces: {why}; they are held back");
            }
            (Some(Trouble::Refused(status)), false) => {
                tracing::warn!("{collector} refuses what it is told, with status {status}");
            }
            (None, true) => tracing::info!("{collector} takes traces again"),
            (Some(_), true) | (None, false) => {}
        }
    }
}

fn wall_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::ledger::tests::plain;

    #[test]
    fn what_is_over_before_a_connection_is_prepared_is_left_as_well() {
        let place = Arc::new(Mutex::new(None));
        let placed = place.clone();
        let source = Source {
            instance: "one".to_owned(),
            metrics: Box::new(Vec::new),
            outbox: Box::new(move |it| *placed.lock().unwrap() = it),
        };
        let named = watch::channel(Some(Collector::parse("http://127.0.0.1:4318").unwrap())).1;
        let telling = run(named, source);
        place.lock().unwrap().as_ref().unwrap().leave(Arc::new(plain()), None);
        assert_eq!(place.lock().unwrap().as_ref().unwrap().figures().waiting, 1);
        drop(telling);
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_what_a_caller_throws_away_is_neither() {
        let (queue, told) = mpsc::channel(2);
        let outbox = Outbox { queue, state: Arc::default() };
        let outcome = Arc::new(plain());
        (0..5).for_each(|_| outbox.leave(outcome.clone(), None));
        assert_eq!(outbox.figures(), Figures { ok: true, waiting: 2, dropped: 3 });
        let thrown_away = Parent::read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
        assert!(thrown_away.is_some());
        outbox.leave(outcome.clone(), thrown_away);
        drop(told);
        outbox.leave(outcome, None);
        assert_eq!(outbox.figures().dropped, 4);
    }
}
