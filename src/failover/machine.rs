//! The machine itself: what is reported moves it on, and `poll` says what that means.

use std::time::{Duration, Instant};

use super::{AttemptNo, Chosen, Phase, Policy, Step};
use crate::{
    fault::{Blame, Cause, Fault, Stage},
    generate::Ending,
    server::{Doing, ServerId},
};

/// The machine of one request.
#[derive(Debug)]
pub struct Failover {
    policy: Policy,
    chance: u64,
    phase: Phase,
    state: State,
    /// When it is over unless content has come. Moved on by the time during
    /// which content came, so that its clock stands still then.
    deadline: Instant,
    open_at: Instant,
    /// Owed to the edge before anything else.
    abort: Option<Step>,
    /// The commit is due but not handed out, so it can still be taken back.
    commit: bool,
    attempts: u32,
    /// Sends that count against the budget.
    spent: u32,
    rests: u32,
    loadings: u32,
    /// Whether an answer that had begun was sent on to another server.
    resumed: bool,
    /// Servers that may not be chosen now.
    barred: Vec<ServerId>,
    /// What every server that was tried did last.
    history: Vec<Tried>,
    /// When `Chosen::Later` pointed to.
    later: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Choosing { asked: bool },
    Live(Live),
    Resting { until: Instant },
    Ended(Ending),
    Over,
}

#[derive(Debug)]
struct Live {
    sent: bool,
    stage: Stage,
    loading: bool,
    started: Instant,
    /// Since when the patience for its first token runs.
    patient_since: Instant,
    content_since: Instant,
    last_content: Instant,
}

#[derive(Debug)]
struct Tried {
    server: ServerId,
    /// `None` while it is being asked.
    fault: Option<Fault>,
    /// When it may be asked again, for those that may.
    back: Option<Instant>,
}

impl Failover {
    /// Begins at the arrival of a request.
    pub fn new(policy: Policy, now: Instant, seed: u64) -> Self {
        let patience = policy.patience.before_commit;
        Self {
            chance: seed,
            phase: Phase::Silent,
            state: State::Choosing { asked: false },
            deadline: after(now, policy.caller.map_or(patience, |it| it.min(patience))),
            open_at: after(now, policy.patience.open_after),
            policy,
            abort: None,
            commit: false,
            attempts: 0,
            spent: 0,
            rests: 0,
            loadings: 0,
            resumed: false,
            barred: Vec::new(),
            history: Vec::new(),
            later: None,
        }
    }

    /// The next step; to be called after every report and at `poll_timeout`, until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Step> {
        self.expire(now);
        if let Some(abort) = self.abort.take() {
            return Some(abort);
        }
        if self.commit {
            self.commit = false;
            self.phase = Phase::Committed;
            return Some(Step::Commit);
        }
        if let State::Ended(ending) = self.state {
            self.state = State::Over;
            return Some(Step::Finish(ending));
        }
        if self.opens_at().is_some_and(|at| at <= now) {
            self.phase = Phase::Opened;
            return Some(Step::Open);
        }
        match &mut self.state {
            State::Choosing { asked } if !*asked => {
                *asked = true;
                Some(Step::Choose)
            }
            State::Live(live) if !live.sent => {
                live.sent = true;
                (live.started, live.patient_since) = (now, now);
                self.resumed |= self.phase == Phase::Committed;
                Some(Step::Send(AttemptNo(self.attempts)))
            }
            State::Choosing { .. }
            | State::Live(_)
            | State::Resting { .. }
            | State::Ended(_)
            | State::Over => None,
        }
    }

    /// When to poll again at the latest, once `poll` has no more steps.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_state = match &self.state {
            State::Choosing { .. } => None,
            State::Live(live) => Some(self.patience_ends(live)),
            State::Resting { until } => Some(*until),
            State::Ended(_) | State::Over => return None,
        };
        [of_state, self.deadline_runs().then_some(self.deadline), self.opens_at()].into_iter().flatten().min()
    }

    /// The answer to `Step::Choose`. A server that is among `tried` counts as nobody.
    pub fn on_chosen(&mut self, chosen: Chosen, now: Instant) {
        if !matches!(self.state, State::Choosing { asked: true }) {
            return;
        }
        match chosen {
            Chosen::Server { server, loading } if !self.barred.contains(&server) => {
                self.later = None;
                self.begin(server, loading, now);
            }
            Chosen::Later(at) => {
                self.later = Some(at.max(now + LEAST_REST));
                self.rest_or_give_up(now);
            }
            Chosen::Server { .. } | Chosen::Nobody => self.rest_or_give_up(now),
            Chosen::Never => self.give_up(),
        }
    }

    /// The registry has changed: while everybody rests, somebody new may be there.
    pub fn on_news(&mut self) {
        if matches!(self.state, State::Resting { .. }) {
            self.state = State::Choosing { asked: false };
        }
    }

    /// There is a connection. An edge that cannot see that reports it at once
    /// after `Send` and leaves the patience for it to whoever connects.
    pub fn on_connected(&mut self, attempt: AttemptNo) {
        self.reach(attempt, Stage::Head);
    }

    /// The response head has come.
    pub fn on_head(&mut self, attempt: AttemptNo) {
        self.reach(attempt, Stage::FirstToken);
    }

    /// The silent server was seen to be doing this. One that loads has the patience for that;
    /// one that works, or has done with loading, has the patience for a first token from now on.
    pub fn on_doing(&mut self, attempt: AttemptNo, doing: Doing, now: Instant) {
        let Some(live) = self.live(attempt) else { return };
        match doing {
            Doing::Loading => live.loading = true,
            Doing::Unknown if !live.loading => {}
            Doing::Working | Doing::Queued | Doing::Unknown => {
                (live.loading, live.patient_since) = (false, now);
            }
            Doing::Idle | Doing::Dead | Doing::Gone => {}
        }
    }

    /// The first content has come, to be sent on, held or folded.
    pub fn on_first_token(&mut self, attempt: AttemptNo, now: Instant) {
        let Some(live) = self.live(attempt) else { return };
        if live.stage < Stage::Content {
            live.stage = Stage::Content;
            live.content_since = now;
            self.commit = self.policy.stream && self.phase != Phase::Committed;
        }
        self.on_token(attempt, now);
    }

    /// More content has come. Called for every piece.
    #[inline]
    pub fn on_token(&mut self, attempt: AttemptNo, now: Instant) {
        if let Some(live) = self.live(attempt) {
            live.last_content = now;
        }
    }

    /// Nothing was read from the server for so long, because the caller took
    /// nothing: that was not the server's silence.
    pub fn on_held_back(&mut self, attempt: AttemptNo, waited: Duration) {
        if let Some(live) = self.live(attempt) {
            live.last_content += waited;
        }
    }

    /// A plain answer has outgrown what may be held: it is committed and passed on as it comes.
    pub fn on_bound_reached(&mut self, attempt: AttemptNo, now: Instant) {
        self.on_first_token(attempt, now);
        if self.live(attempt).is_some() && self.phase != Phase::Committed {
            self.commit = true;
        }
    }

    /// The answer is whole and valid.
    pub fn on_end(&mut self, attempt: AttemptNo) {
        if self.live(attempt).is_some() {
            self.commit = self.phase != Phase::Committed;
            self.state = State::Ended(if self.resumed { Ending::Resumed } else { Ending::Delivered });
        }
    }

    /// The attempt did not work.
    pub fn on_fault(&mut self, attempt: AttemptNo, fault: &Fault, now: Instant) {
        if self.live(attempt).is_some() {
            self.fail(*fault, now);
        }
    }

    /// The caller has left. Until `Finish` is handed out that decides the ending:
    /// an answer that nobody took was not delivered.
    pub fn on_caller_gone(&mut self) {
        if !matches!(self.state, State::Over) {
            self.end(Ending::CallerGone, None);
        }
    }

    /// When it is over unless content has come by then.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Servers that may not be chosen now.
    pub fn tried(&self) -> &[ServerId] {
        &self.barred
    }

    /// How many attempts there were.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What has gone to the caller.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether `Finish` has been handed out.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// When somebody may be free, if being busy is all that kept every server
    /// from answering. For `Retry-After`.
    pub fn free_at(&self) -> Option<Instant> {
        let busy = |it: &Tried| it.fault.is_some_and(|it| matches!(it.blame(), Blame::Busy { .. }));
        if !self.history.iter().all(busy) {
            return None;
        }
        self.history.iter().filter_map(|it| it.back).chain(self.later).min()
    }

    /// Whether the prompt is suspected of breaking servers, once the request has
    /// ended in vain (rule 10).
    ///
    /// A server that could not be reached never had the prompt, so that says nothing.
    pub fn is_poison(&self) -> bool {
        let [first, others @ ..] = &self.history[..] else { return false };
        let Some(error) = first.fault else { return false };
        error.blame() == Blame::Server
            && !others.is_empty()
            && self.history.iter().all(|it| {
                it.fault.is_some_and(|it| {
                    it.cause == error.cause && it.status == error.status && it.stage > Stage::Connect
                })
            })
    }

    fn live(&mut self, attempt: AttemptNo) -> Option<&mut Live> {
        match &mut self.state {
            State::Live(live) if live.sent && attempt.0 == self.attempts => Some(live),
            _ => None,
        }
    }

    fn reach(&mut self, attempt: AttemptNo, stage: Stage) {
        if let Some(live) = self.live(attempt) {
            live.stage = live.stage.max(stage);
        }
    }

    fn begin(&mut self, server: ServerId, loading: bool, now: Instant) {
        self.attempts += 1;
        self.spent += 1;
        self.barred.push(server.clone());
        self.history.retain(|it| it.server != server);
        self.history.push(Tried { server, fault: None, back: None });
        self.state = State::Live(Live {
            sent: false,
            stage: Stage::Connect,
            loading,
            started: now,
            patient_since: now,
            content_since: now,
            last_content: now,
        });
    }

    /// Lets patience run out.
    fn expire(&mut self, now: Instant) {
        let out_of_time = self.deadline_runs() && self.deadline <= now;
        let ending = if self.phase == Phase::Committed { Ending::CutShort } else { Ending::OutOfTime };
        match &self.state {
            State::Live(live) if live.sent && self.patience_ends(live) <= now => {
                let fault = Fault::new(
                    live.stage,
                    match live.stage {
                        Stage::Connect => Cause::ConnectTimeout,
                        Stage::Head | Stage::FirstToken => Cause::FirstTokenTimeout,
                        Stage::Content => Cause::Stalled,
                    },
                );
                if out_of_time {
                    self.end(ending, Some(fault));
                } else {
                    self.abort_live(Some(fault));
                    self.fail(fault, now);
                }
            }
            _ if out_of_time => self.end(ending, None),
            State::Resting { until } if *until <= now => self.end_rest(now),
            State::Choosing { .. }
            | State::Live(_)
            | State::Resting { .. }
            | State::Ended(_)
            | State::Over => {}
        }
    }

    fn patience_ends(&self, live: &Live) -> Instant {
        let patience = &self.policy.patience;
        match live.stage {
            Stage::Connect => after(live.started, patience.connect),
            Stage::Head | Stage::FirstToken if live.loading => after(live.started, patience.load),
            Stage::Head | Stage::FirstToken => after(live.patient_since, patience.first_token),
            Stage::Content => after(live.last_content, patience.gap),
        }
    }

    fn deadline_runs(&self) -> bool {
        match &self.state {
            State::Choosing { .. } | State::Resting { .. } => true,
            State::Live(live) => live.stage < Stage::Content,
            State::Ended(_) | State::Over => false,
        }
    }

    fn opens_at(&self) -> Option<Instant> {
        let waits = self.policy.stream && self.phase == Phase::Silent && self.deadline_runs();
        waits.then_some(self.open_at)
    }

    fn fail(&mut self, fault: Fault, now: Instant) {
        let State::Live(live) = &self.state else { return };
        let committed = self.phase == Phase::Committed;
        let spoke = committed && live.stage == Stage::Content;
        if spoke {
            // The answer goes on elsewhere, and the caller waits for that with a clock of its own:
            // as for a first word, so that one server that hangs does not use up all of it.
            self.deadline = after(now, self.policy.patience.before_commit);
        } else if live.stage == Stage::Content {
            self.deadline += now.saturating_duration_since(live.content_since);
        }
        self.commit = false;
        let back = match fault.blame() {
            Blame::Caller | Blame::Daemon => {
                self.record(fault, None);
                self.state = State::Ended(if committed { Ending::CutShort } else { Ending::Refused });
                return;
            }
            // Its rest is set when it turns out to be alone.
            Blame::Server | Blame::Misfit => None,
            Blame::Busy { retry_after } => Some(after(now, retry_after.unwrap_or(BUSY_REST).max(LEAST_REST))),
            Blame::Loading => {
                self.spent -= 1;
                self.loadings += 1;
                Some(now + self.pause(self.loadings - 1).min(LOADING_REST))
            }
        };
        self.record(fault, back);
        self.choose_or_give_up();
    }

    fn record(&mut self, fault: Fault, back: Option<Instant>) {
        if let Some(tried) = self.history.last_mut() {
            tried.fault = Some(fault);
            tried.back = back;
        }
    }

    fn choose_or_give_up(&mut self) {
        if self.spent < self.policy.sends {
            self.state = State::Choosing { asked: false };
        } else {
            self.give_up();
        }
    }

    /// Nobody can be asked now: waits for whoever is back first, if that is soon.
    fn rest_or_give_up(&mut self, now: Instant) {
        self.grant_rest(now);
        let barred = self.history.iter().filter(|it| self.barred.contains(&it.server));
        match barred.filter_map(|it| it.back).chain(self.later).min() {
            Some(until)
                if until < self.deadline
                    && until.saturating_duration_since(now) <= LONGEST_REST
                    && self.spent < self.policy.sends =>
            {
                self.state = State::Resting { until };
            }
            Some(_) | None => self.give_up(),
        }
    }

    /// Who failed is tried again after a rest, as long as no two servers failed
    /// with the request in their hands: then it may itself be to blame, and is not
    /// sent round again. Where nobody listened nobody had it; servers that restart
    /// together, or one that restarts beside one that is long gone, are waited for.
    /// Nor does it speak against a request that it was answered well for a while. And where
    /// all have died somebody may be killing them: each is asked once more, and not again.
    fn grant_rest(&mut self, now: Instant) {
        let struck = |it: &Tried| it.fault.is_some_and(|it| it.blame() == Blame::Server);
        let absent = |it: &Tried| {
            it.fault.is_some_and(|it| {
                it.stage == Stage::Connect
                    && matches!(it.cause, Cause::Refused | Cause::Unreachable | Cause::Reset)
            })
        };
        let mut had_it = self.history.iter().filter(|it| struck(it) && !absent(it));
        let is_second = self.rests > 0;
        let suspected = self.phase != Phase::Committed
            && had_it.clone().count() > 1
            && (is_second || had_it.any(|it| !it.fault.is_some_and(is_death)));
        let unrested = |it: &Tried| struck(it) && it.back.is_none();
        if suspected || self.rests >= self.policy.rests || !self.history.iter().any(unrested) {
            return;
        }
        let back = now + self.pause(self.rests);
        self.rests += 1;
        for tried in self.history.iter_mut().filter(|it| unrested(it)) {
            tried.back = Some(back);
        }
    }

    fn end_rest(&mut self, now: Instant) {
        let history = &self.history;
        let is_back = |it: &Tried| it.back.is_some_and(|at| at <= now);
        self.barred.retain(|server| !history.iter().any(|it| it.server == *server && is_back(it)));
        self.later = None;
        self.state = State::Choosing { asked: false };
    }

    fn give_up(&mut self) {
        // Whoever hands on and had nobody left has not refused: those behind it have failed.
        let refused = |it: &Fault| it.blame() == Blame::Misfit && it.cause != Cause::NobodyLeft;
        let misfit = |it: &Tried| it.fault.as_ref().is_some_and(refused);
        self.state = State::Ended(if self.phase == Phase::Committed {
            Ending::CutShort
        } else if self.history.iter().all(misfit) {
            Ending::Refused
        } else {
            Ending::Exhausted
        });
    }

    fn end(&mut self, ending: Ending, fault: Option<Fault>) {
        self.commit = false;
        self.abort_live(fault);
        if let Some(fault) = fault {
            self.record(fault, None);
        }
        self.state = State::Ended(ending);
    }

    fn abort_live(&mut self, fault: Option<Fault>) {
        if let State::Live(live) = &self.state
            && live.sent
        {
            self.abort = Some(Step::Abort { attempt: AttemptNo(self.attempts), fault });
        }
    }

    /// Doubles with each turn; between half and all of it, so that requests that
    /// failed together do not come back together.
    fn pause(&mut self, turn: u32) -> Duration {
        let whole = self.policy.rest.saturating_mul(1 << turn.min(16)).min(LONGEST_REST).max(LEAST_REST);
        whole.mul_f64(0.5 + self.luck() / 2.0)
    }

    /// The next number of splitmix64, as 0..1.
    fn luck(&mut self) -> f64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A `Retry-After` or a header may name any number of seconds; a year from now is never.
fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(Duration::from_secs(365 * 24 * 3600))
}

/// Whether the server broke off without a word, as one does whose process ends.
pub(super) fn is_death(fault: Fault) -> bool {
    fault.stage > Stage::Connect && matches!(fault.cause, Cause::Reset | Cause::EarlyEnd)
}

/// Nobody is asked more often than that, whatever is said about when to come
/// back: a `Retry-After: 0` would make a busy loop.
pub(super) const LEAST_REST: Duration = Duration::from_millis(50);

/// For a server that is busy and does not say for how long: about one short answer.
const BUSY_REST: Duration = Duration::from_secs(1);

/// A server that loads is asked once a second at most: what is lost between its
/// readiness and our asking is then little beside any loading.
const LOADING_REST: Duration = Duration::from_secs(1);

/// The longest rest that is begun: above that a person is gone anyway, and a
/// program is better told when to come back.
const LONGEST_REST: Duration = Duration::from_secs(10);
