//! The work on one request: a loop that hands what happened to the machine and
//! does what the machine says.
//!
//! Everything that must be given back, counted or written down hangs on values
//! that clean up when dropped: a caller can leave at any `.await`, and then no
//! later line runs.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::header::CONTENT_LENGTH;
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    Errand, Relay, Settings,
    answer::{Answerer, answering},
    conduit::Mouth,
    live::{Heard, Mode, Told},
    record::Record,
    resuming::Half,
    telling::Telling,
    turn::{self, Turn},
    watch::Watch,
};
use crate::{
    failover::{AttemptNo, Failover, Paces, Policy, Step},
    fault::{Cause, Failure, Fault, Stage, Words},
    generate::Substitution,
    housekeeping::Bought,
    resume::Care,
    route::Choice,
    server::ModelName,
};

/// Between keep-alives of an opened stream. Proxies and clients give up on silence after 15 s at the earliest.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
/// The most bytes of one answer that are held; above it a plain one is passed on as it comes.
pub(super) const HELD: usize = 32 << 20;
/// Pieces of a stream that come closer together than that are sent on together.
const DENSE: Duration = Duration::from_micros(200);
/// At most so many bytes of a dense stream are gathered for one write.
const GATHERED: usize = 16 << 10;
/// Carries out one request to its end.
pub(super) async fn work(relay: Arc<Relay>, errand: Errand, mouth: Mouth, seed: u64) {
    let now = Instant::now();
    let settings = relay.settings.load_full();
    let machine = Failover::new(policy(&settings, &errand), now.into_std(), seed);
    tracing::debug!(request = errand.request_id, seed, model = errand.request.head.model, "request");
    let record = Record::begin(relay.clone(), &errand, now, mouth.clone());
    relay.budget.lock().unwrap_or_else(PoisonError::into_inner).on_request();
    let conversation = turn::conversation(&relay, &errand);
    let mut work = Work {
        news: relay.house.news(),
        machine,
        record,
        errand,
        mouth,
        seed,
        chosen: None,
        bought: None,
        turn: Turn::default(),
        conversation,
        nobody: None,
        words: None,
        half: None,
        begun_by: None,
        resumed: false,
        care: Care::WholeWords,
        watch: Watch::of(&settings.patience),
        settings,
        telling: Telling::default(),
        waiting: Vec::new(),
        frames: 0,
        opened: false,
        committed: false,
        next_keep_alive: None,
        heard_at: now.into_std(),
        dense: false,
    };
    let sleep = sleep_until(now + Duration::from_secs(3600));
    tokio::pin!(sleep);
    while !work.step().await {
        work.wait(sleep.as_mut()).await;
    }
}

fn policy(settings: &Settings, errand: &Errand) -> Policy {
    let mut patience = settings.patience;
    if let Some(open_after) = errand.wishes.open_after {
        patience.open_after = open_after;
    }
    Policy {
        patience,
        stream: errand.request.head.stream,
        caller: errand.wishes.timeout,
        ..Policy::default()
    }
}

pub(super) struct Work {
    pub(super) machine: Failover,
    /// Tells that servers have changed since the last choice.
    pub(super) news: watch::Receiver<()>,
    pub(super) record: Record,
    pub(super) errand: Errand,
    pub(super) mouth: Mouth,
    /// Those with which it began.
    pub(super) settings: Arc<Settings>,
    pub(super) seed: u64,
    pub(super) chosen: Option<Choice>,
    /// What is booked for it there, where that costs money.
    pub(super) bought: Option<Arc<Bought>>,
    /// Its place at that server, or in the queue.
    pub(super) turn: Turn,
    /// Which conversation it goes on with, where that may matter.
    pub(super) conversation: Option<u64>,
    /// Why nobody could be chosen.
    pub(super) nobody: Option<Failure>,
    /// What the last server that refused said.
    pub(super) words: Option<Words>,
    /// The half of the answer that there is, while nobody goes on with it.
    pub(super) half: Option<Half>,
    /// Who began the answer that another server goes on with: its model, and how far that is
    /// from what was asked.
    pub(super) begun_by: Option<(ModelName, Substitution)>,
    /// Whether the answer is one of several servers.
    pub(super) resumed: bool,
    pub(super) care: Care,
    /// Looks after a server that is silent.
    pub(super) watch: Watch,
    /// How the request is said to servers.
    pub(super) telling: Telling,
    /// Frames that wait for the commit.
    pub(super) waiting: Vec<Bytes>,
    /// How many frames the caller has had, those that wait included.
    pub(super) frames: u64,
    pub(super) opened: bool,
    pub(super) committed: bool,
    pub(super) next_keep_alive: Option<Instant>,
    /// When something was heard last, and whether it followed on the heels of what came before.
    pub(super) heard_at: std::time::Instant,
    pub(super) dense: bool,
}

impl Work {
    pub(super) fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    /// Does all that the machine wants done now. True when the request is over.
    async fn step(&mut self) -> bool {
        loop {
            while let Some(step) = self.machine.poll(self.now()) {
                if self.obey(step).await {
                    return true;
                }
            }
            if self.mouth.waiting() == 0 {
                return false;
            }
            if !self.heard_more().await {
                break;
            }
        }
        // Backpressure: no more is read from the server than the caller takes. While the
        // caller is slow the server is not, so that time is not counted as its silence. More
        // is not given for it: comments without end are taken by a caller as well.
        let begun = Instant::now();
        self.mouth.taken().await;
        if let Some(live) = &self.record.live {
            self.machine.on_held_back(live.no, begun.elapsed());
            self.watch.held_back(begun.elapsed());
            self.record.held_back(begun.elapsed());
        }
        false
    }

    /// Carries out one step. True when the request is over.
    async fn obey(&mut self, step: Step) -> bool {
        match step {
            Step::Choose => self.choose().await,
            Step::Send(no) => self.send(no),
            Step::Abort { fault, .. } => self.drop_attempt(fault),
            Step::Open => self.open(),
            Step::Commit => {
                // Once the caller has an answer of a known length nobody waits for us any
                // more, and the server's connection could not be used again.
                if let Some(live) = &mut self.record.live
                    && live.mode == Mode::Fold
                {
                    live.read_to_end().await;
                }
                self.commit();
            }
            Step::Finish(ending) => {
                self.finish(ending).await;
                return true;
            }
        }
        false
    }

    /// In a dense stream, hears what has come meanwhile, so that it goes in the same write:
    /// a write for each event would cost more than the event. False when nothing has.
    async fn heard_more(&mut self) -> bool {
        if !self.committed || !self.dense || self.mouth.waiting() >= GATHERED {
            return false;
        }
        self.mouth.gather().await;
        let Some(live) = &mut self.record.live else { return false };
        let Some(told) = live.next().now_or_never() else { return false };
        self.on_told(told);
        true
    }

    /// Waits for the server, the machine's next deadline or the next keep-alive.
    async fn wait(&mut self, mut sleep: std::pin::Pin<&mut Sleep>) {
        let deadline = self.machine.poll_timeout().map(Instant::from_std);
        let wake = [deadline, self.next_keep_alive, self.watch.due()].into_iter().flatten().min();
        // The timer is only ever moved when it must fire earlier, or has fired: moving it for
        // each token would cost more than the token.
        if let Some(wake) = wake
            && (wake < sleep.deadline() || sleep.is_elapsed())
        {
            sleep.as_mut().reset(wake);
        }
        let told = match &mut self.record.live {
            Some(live) => tokio::select! {
                biased;
                told = live.next() => Some(told),
                doing = self.watch.verdict() => return self.on_look(doing),
                () = sleep.as_mut() => None,
            },
            // Everybody rests or is full: a server that comes meanwhile is asked at once.
            None => tokio::select! {
                () = self.turn.called() => {
                    self.record.queues(false);
                    self.machine.on_news();
                    None
                }
                Ok(()) = self.news.changed() => {
                    self.machine.on_news();
                    None
                }
                () = sleep.as_mut() => None,
            },
        };
        match told {
            Some(told) => self.on_told(told),
            None => {
                if let Some(due) = self.next_keep_alive
                    && due <= Instant::now()
                {
                    self.keep_alive();
                }
                self.look_after();
                // A timer that fired early (its deadline has moved since) is set anew on the next turn.
            }
        }
    }

    fn on_told(&mut self, told: Told) {
        let Some(no) = self.record.live.as_ref().map(|it| it.no) else { return };
        let now = self.now();
        match told {
            Told::Head => self.machine.on_head(no),
            Told::Fault(fault, words) => {
                if words.is_some() {
                    self.words = words;
                }
                self.fail(no, fault, now);
            }
            Told::Heard(heard) => self.on_heard(no, heard, now),
        }
    }

    /// The attempt did not work.
    pub(super) fn fail(&mut self, no: AttemptNo, fault: Fault, now: std::time::Instant) {
        let fault = self.as_resumption(fault);
        if let Some(care) = self.more_care(fault) {
            return self.say_it_again(no, care);
        }
        // The next server may well go on where this one did not.
        self.care = Care::WholeWords;
        self.drop_attempt(Some(fault));
        self.machine.on_fault(no, &fault, now);
    }

    /// Ends the attempt, and with it what is held of its answer: nothing of it may
    /// stand before the answer of another server.
    fn drop_attempt(&mut self, fault: Option<Fault>) {
        match fault {
            Some(fault) => {
                self.keep_half();
                self.record.fail(fault);
            }
            None => self.record.leave(),
        }
        self.watch.rest();
        if !self.committed {
            self.waiting.clear();
            self.frames = 0;
            self.record.unsaid();
        } else if self.errand.request.head.stream {
            // The caller waits again.
            self.next_keep_alive.get_or_insert(Instant::now() + KEEP_ALIVE_EVERY);
        }
        self.record.let_go();
    }

    fn on_heard(&mut self, no: AttemptNo, heard: Heard, now: std::time::Instant) {
        // What comes plain is cut by the network, not by the model.
        if heard.content && self.record.live.as_ref().is_some_and(|it| it.mode != Mode::Plain) {
            self.record.spoke(Instant::from_std(now));
        }
        let Some(live) = &mut self.record.live else { return };
        self.dense = now.saturating_duration_since(self.heard_at) < DENSE;
        self.heard_at = now;
        if heard.content {
            self.watch.heard(Instant::from_std(now));
            if live.first_token.is_none() {
                let took = live.started.elapsed();
                live.first_token = Some(took);
                live.in_flight.speaks();
                if !live.loads {
                    let choice = &live.choice;
                    let learn = |it: &mut Paces| it.learn(&choice.server.id, &choice.model, live.bytes, took);
                    self.record.relay.house.with_paces(learn);
                }
                self.machine.on_first_token(no, now);
            } else {
                self.machine.on_token(no, now);
            }
        }
        let (held, too_long) = (live.held(), live.is_too_long());
        match live.mode {
            Mode::Pass if self.committed => {
                // While a translation holds back what comes (a call that is told whole), the
                // caller hears nothing, and may think that nobody is there.
                if heard.pass.is_empty() && self.next_keep_alive.is_none() {
                    self.next_keep_alive = Some(Instant::now() + KEEP_ALIVE_EVERY);
                } else if !heard.pass.is_empty() {
                    self.next_keep_alive = None;
                }
                for piece in heard.pass {
                    self.mouth.push(piece);
                }
            }
            Mode::Pass => self.waiting.extend(heard.pass),
            Mode::Plain if self.committed => {
                self.mouth.push(live.take_whole().map(|(bytes, _)| bytes).unwrap_or_default());
                return self.on_whole(no, heard.whole);
            }
            Mode::Fold | Mode::Plain => {}
        }
        self.frames += heard.frames;
        // A stream that passes as it comes holds nothing.
        let fits = held == 0 || self.record.hold(held);
        if held > HELD || too_long || !fits {
            return self.on_too_much(no, fits, now);
        }
        self.bound_half(held);
        self.on_whole(no, heard.whole);
    }

    fn on_whole(&mut self, no: AttemptNo, whole: bool) {
        if whole {
            self.machine.on_end(no);
        }
    }

    /// An answer that is more than may be held: what came plain is passed on as it comes
    /// from here on; one that was to be folded or translated cannot be, and is an answer
    /// without end, unless only the bound of all requests together is reached.
    fn on_too_much(&mut self, no: AttemptNo, fits: bool, now: std::time::Instant) {
        if self.record.live.as_ref().is_some_and(|it| it.is_raw) {
            return self.machine.on_bound_reached(no, now);
        }
        let cause = if fits { Cause::Unreadable } else { Cause::Internal };
        if !fits {
            tracing::warn!(
                request = self.record.request_id,
                "too many answers are held at once ([limits] held)"
            );
            self.nobody = Some(Failure::Busy { retry_after: Duration::from_secs(1) });
        }
        self.fail(no, Fault::new(Stage::Content, cause), now);
    }

    pub(super) fn attempts(&self) -> usize {
        self.record.attempts.len() + usize::from(self.record.live.is_some())
    }

    /// The head and keep-alives of a stream whose caller has waited long.
    fn open(&mut self) {
        self.opened = true;
        self.record.status = 200;
        let head = answering(None, self.content_type(), &self.record.request_id, self.attempts());
        self.mouth.head(head);
        self.keep_alive();
    }

    fn content_type(&self) -> &'static str {
        let request = &self.errand.request;
        if request.head.stream { request.door.dialect().framing().content_type() } else { "application/json" }
    }

    fn keep_alive(&mut self) {
        let request = &self.errand.request;
        self.mouth.push(request.door.dialect().keep_alive(request.door, &request.head.model));
        self.next_keep_alive = Some(Instant::now() + KEEP_ALIVE_EVERY);
    }

    /// Lets the answer out.
    fn commit(&mut self) {
        self.committed = true;
        self.next_keep_alive = None;
        self.record.committed();
        let (attempts, content_type) = (self.attempts(), self.content_type());
        // What was said elsewhere is not needed any more; nor is the request where nobody can
        // go on with the answer.
        self.telling = Telling::default();
        let Some(live) = &mut self.record.live else { return };
        if !live.keeps() {
            self.errand.body = Bytes::new();
        }
        self.record.zone = Some(live.choice.zone);
        if let Some(conversation) = self.conversation {
            self.record.relay.house.settle(conversation, &live.choice.server.id);
        }
        self.record.substituted = live.choice.substituted;
        let whole = live.take_whole();
        if !self.opened {
            let answerer = Answerer { choice: &live.choice, request_id: live.request_id.as_ref() };
            let mut head = answering(Some(answerer), content_type, &self.record.request_id, attempts);
            if let Some((bytes, true)) = &whole {
                head.headers.insert(CONTENT_LENGTH, bytes.len().into());
            }
            self.mouth.head(head);
        }
        self.record.status = 200;
        if let Some((bytes, _)) = whole {
            self.mouth.push(bytes);
        }
        live.passing = true;
        for piece in self.waiting.drain(..) {
            self.mouth.push(piece);
        }
        self.record.let_go();
    }
}
