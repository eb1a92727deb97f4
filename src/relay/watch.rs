//! What a server is doing that says nothing, and what follows.
//!
//! Silence alone says little: a model may be loading, what was asked may wait for its turn, or
//! a long prompt be read; a process that is stopped is silent to everybody, one that shuts down
//! refuses new connections long before it closes the old ones, and in one whose engine hangs a
//! request just gets lost. So a silent server is asked on the side, with questions that cost it
//! nothing. What the answers mean its kind knows; here is only what follows: one that loads,
//! works or has others before us is waited for, within the time that the request has; one that
//! is not there or lost what it was asked is left, as soon as somebody else could take over.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Relay, live::State, work::Work};
use crate::{
    failover::Patience,
    fault::{Cause, Fault, Stage},
    kind::{self, Answers, Pulse},
    registry::{Server, Standing},
    route::Decision,
    server::{Doing, ModelName, ServerId, Zone},
    upstream::Limits,
};

/// How long a server may be silent before it is asked. Together with the time it has to
/// answer, that is how long a caller waits for a frozen one: less than three seconds.
const SILENCE: Duration = Duration::from_millis(1000);
/// How long it has to answer: a healthy one takes milliseconds, on a machine that is busy with
/// models tens of them.
const TIME: Duration = Duration::from_millis(1000);
/// One that answers and stays silent is asked again after that.
const AGAIN: Duration = Duration::from_secs(3);
/// So seldom where nobody else could take over: the answer decides only how long the server
/// is waited for.
const ALONE: Duration = Duration::from_secs(10);
/// Its answer is not read beyond that: gauges and long lists of models.
const BYTES: usize = 1 << 20;

/// Watches over the silence of one attempt.
pub(super) struct Watch {
    /// How much of the patience for a first token may go by before it is asked: less than all,
    /// however short that is.
    most: Duration,
    /// Since when nothing explains the silence.
    since: Option<Instant>,
    /// When the silence began, or it was asked last.
    asked: Option<Instant>,
    /// When it is to be asked, or at least thought of that.
    due: Option<Instant>,
    /// Who else there was when it was asked last, and what it was doing.
    other: Other,
    seen: Option<Doing>,
    answers: Answers,
    asking: Option<Asking>,
}

/// Ends with what the server does, and what it answered.
type Asking = Pin<Box<dyn Future<Output = (Doing, Answers)> + Send>>;

/// What was seen of servers a moment ago: a hundred requests that wait for one do not each ask
/// it the same.
#[derive(Default)]
pub(super) struct Looks(Mutex<BTreeMap<(ServerId, ModelName), (Instant, Doing)>>);

impl Looks {
    /// What explains the silence of a server, if that was seen within the last moment. What
    /// does not explain it each request finds out by itself.
    fn recent(&self, server: &ServerId, model: &ModelName) -> Option<Doing> {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, doing) = looks.get(&(server.clone(), model.clone()))?;
        let explains = matches!(doing, Doing::Loading | Doing::Queued | Doing::Working);
        (explains && at.elapsed() < SILENCE / 2).then_some(*doing)
    }

    fn keep(&self, server: &ServerId, model: &ModelName, doing: Doing) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.retain(|_, (at, _)| at.elapsed() < SILENCE);
        looks.insert((server.clone(), model.clone()), (Instant::now(), doing));
    }
}

/// Who else could take over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Other {
    #[default]
    Nobody,
    /// Somebody, who may be busy, down or have to load the model first.
    Somebody,
    /// Somebody who is well and has the model in memory.
    Ready,
}

impl Watch {
    pub(super) fn of(patience: &Patience) -> Self {
        Self::with(patience.first_token / 2)
    }

    fn with(most: Duration) -> Self {
        Self {
            most,
            since: None,
            asked: None,
            due: None,
            other: Other::Nobody,
            seen: None,
            answers: Answers::default(),
            asking: None,
        }
    }

    /// Something came, or was asked.
    pub(super) fn heard(&mut self, now: Instant) {
        self.rest();
        (self.since, self.asked) = (Some(now), Some(now));
        self.due = Some(now + SILENCE.min(self.most));
    }

    /// Nothing was read from the server for so long: that was not its silence.
    pub(super) fn held_back(&mut self, waited: Duration) {
        for at in [&mut self.since, &mut self.asked, &mut self.due].into_iter().flatten() {
            *at += waited;
        }
    }

    /// Nobody is asked.
    pub(super) fn rest(&mut self) {
        *self = Self::with(self.most);
    }

    /// When it is to be asked, unless it is being asked.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.asking.is_none())
    }

    /// What it is doing, once that is known.
    pub(super) async fn verdict(&mut self) -> Doing {
        let Some(asking) = &mut self.asking else { return std::future::pending().await };
        let (doing, answers) = asking.as_mut().await;
        (self.asking, self.answers) = (None, answers);
        doing
    }

    fn ask_after(&mut self, pause: Duration) {
        self.due = Some(Instant::now() + pause.min(self.most));
    }
}

impl Work {
    /// Has the silent server asked what it is doing, if that is due and may change anything.
    pub(super) fn look_after(&mut self) {
        if self.watch.due().is_none_or(|it| it > Instant::now()) {
            return;
        }
        let Some(live) = &self.record.live else { return };
        // Whoever sells answers is asked for nothing on the side.
        if live.choice.zone == Zone::Cloud {
            return self.watch.ask_after(AGAIN);
        }
        let (relay, server, model) =
            (self.record.relay.clone(), live.choice.server.clone(), live.choice.model.clone());
        let (begun, bound) = (live.first_token.is_some(), self.committed && !live.keeps());
        let other = if bound { Other::Nobody } else { self.who_else() };
        self.watch.other = other;
        let alone = other == Other::Nobody;
        let early = self.watch.asked.is_some_and(|it| it.elapsed() < ALONE.min(self.watch.most));
        if alone && (begun || early) {
            // Somebody may be back any moment.
            return self.watch.ask_after(SILENCE);
        }
        self.watch.asked = Some(Instant::now());
        if let Some(doing) = relay.looks.recent(&server.id, &model) {
            return self.on_look(doing);
        }
        let earlier = std::mem::take(&mut self.watch.answers);
        self.watch.asking = Some(Box::pin(async move {
            let mut answers = Answers::default();
            let doing = look(&relay, &server, &model, &mut answers, &earlier, alone).await;
            relay.looks.keep(&server.id, &model, doing);
            (doing, answers)
        }));
    }

    fn who_else(&self) -> Other {
        let relay = &self.record.relay;
        let said =
            |server: &Server| self.telling.to(server.kind.as_str(), &self.errand.request, &self.errand.body);
        match self.decide(relay, &relay.house.snapshot(), &said, &[]).0 {
            Decision::Server(it) if !it.loading && it.server.standing <= Standing::Suspect => Other::Ready,
            Decision::Server(_) | Decision::Full(_) => Other::Somebody,
            Decision::Later(_)
            | Decision::UnknownModel { .. }
            | Decision::Lacking(_)
            | Decision::TooLong { .. }
            | Decision::Nobody(_) => Other::Nobody,
        }
    }

    /// The silent server was asked, and is doing this.
    pub(super) fn on_look(&mut self, doing: Doing) {
        let now = self.now();
        let Some(live) = &mut self.record.live else { return };
        let (house, choice) = (&self.record.relay.house, &live.choice);
        let (no, begun, kind) = (live.no, live.first_token.is_some(), choice.server.kind.as_str());
        let hangs_after = house.with_paces(|it| it.hangs_after(&choice.server.id, &choice.model, live.bytes));
        let overtaken = live.in_flight.is_overtaken();
        let doing = match doing {
            Doing::Unknown if !overtaken && house.traffic().is_occupied(&choice.server.id) => Doing::Queued,
            // It works on others, and one that came later had its turn.
            Doing::Working | Doing::Queued if overtaken => Doing::Unknown,
            doing => doing,
        };
        let seen = self.watch.seen.replace(doing);
        let silent = self.watch.since.map(|it| it.elapsed()).unwrap_or_default();
        let other = self.watch.other;
        tracing::debug!(request = self.record.request_id, server = %choice.server.id, ?doing, ?silent, ?other, "silent");
        let is_hopeless = match doing {
            Doing::Dead | Doing::Gone => true,
            Doing::Idle => {
                let known = silent >= kind::shows_after(kind).min(hangs_after);
                known && seen == Some(Doing::Idle) && other > Other::Nobody
            }
            Doing::Unknown => silent >= hangs_after && other == Other::Ready && !begun,
            Doing::Loading | Doing::Queued | Doing::Working => false,
        };
        if is_hopeless {
            return self.on_silent(doing);
        }
        if doing == Doing::Loading && other == Other::Ready && !begun && !choice.loading {
            // It had the model when it was chosen, and somebody else still has it.
            live.loads = true;
            return self.fail(no, Fault::new(Stage::Head, Cause::Loading), now);
        }
        live.loads = doing == Doing::Loading;
        self.machine.on_doing(no, doing, now);
        // At the first look a slot that hangs looks as one that works.
        let explains = match doing {
            Doing::Loading | Doing::Queued => true,
            Doing::Working => seen.is_some(),
            Doing::Unknown | Doing::Idle | Doing::Dead | Doing::Gone => false,
        };
        if explains {
            self.watch.since = Some(Instant::now());
        }
        // The second look tells whether anything has moved since the first.
        let soon = doing == Doing::Idle || (seen.is_none() && doing == Doing::Working);
        let hangs_in = hangs_after.saturating_sub(silent).max(SILENCE);
        self.watch.ask_after(if soon { SILENCE } else { AGAIN.min(hangs_in) });
    }

    /// Nothing is to be expected of the silent server any more.
    fn on_silent(&mut self, doing: Doing) {
        let Some(live) = &self.record.live else { return };
        let (no, begun) = (live.no, live.first_token.is_some());
        let (stage, cause) = match (begun, &live.state) {
            (true, _) => (Stage::Content, Cause::Stalled),
            (false, State::Calling(_)) => (Stage::Head, Cause::FirstTokenTimeout),
            (false, _) => (Stage::FirstToken, Cause::FirstTokenTimeout),
        };
        let cause = if doing == Doing::Gone { Cause::Unresponsive } else { cause };
        self.fail(no, Fault::new(stage, cause), self.now());
    }
}

/// Asks until it is known what the server is doing. Silence to the first question is that of a
/// process that is stopped; where nobody else could take over it may go on all the same.
async fn look(
    relay: &Relay,
    server: &Server,
    model: &ModelName,
    answers: &mut Answers,
    earlier: &Answers,
    alone: bool,
) -> Doing {
    let until = Instant::now() + TIME;
    loop {
        let question = match kind::pulse(server.kind.as_str(), model.as_str(), answers, earlier) {
            // What says that it is ill may be wrong about that, and there is nobody else.
            Pulse::Is(Doing::Dead) if alone => return Doing::Unknown,
            Pulse::Is(doing) => return doing,
            Pulse::Ask(question) => question,
        };
        let time = until.saturating_duration_since(Instant::now());
        let limits = Limits { time, connect: time, bounds: server.bounds, bytes: BYTES };
        let key = relay.house.key(&server.endpoint);
        match relay.upstream.ask(&server.endpoint, &question, key.as_ref(), limits).await {
            Ok(answer) => answers.push(question, answer),
            Err(fault) if matches!(fault.cause, Cause::Refused | Cause::Unreachable) => return Doing::Gone,
            Err(_) if answers.is_empty() && !alone => return Doing::Gone,
            Err(_) => return Doing::Unknown,
        }
    }
}
