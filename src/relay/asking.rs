//! Who is asked next, and what is sent there.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Errand, Relay, Settings,
    aside::Counter,
    before::Before,
    live::{Live, Mode, Start, Taken},
    telling,
    translation::{Listener, Translation},
    work::Work,
};
use crate::{
    dialect::{Door, To, Voice, bridge::Way},
    failover::{AttemptNo, Chosen},
    fault::{Blame, Cause, Failure, Fault, Stage},
    generate::{Candidate, Operation},
    housekeeping::Housekeeping,
    kind,
    registry::{Server, Snapshot},
    resume::{Care, Learned},
    route::{self, Ask, Choice, Decision, Fallback, Fidelity},
    server::{ServerId, Zone},
    upstream::{Call, Permit},
};

/// A plain answer of at most so many tokens is asked for plain where hanging up frees the slot.
const SHORT: u64 = 64;

impl Work {
    pub(super) async fn choose(&mut self) {
        let relay = self.record.relay.clone();
        self.news.mark_unchanged();
        let mut snapshot = relay.house.snapshot();
        if self.committed && !self.can_resume() {
            return self.machine.on_chosen(Chosen::Never, self.now());
        }
        // Servers whose last place went to somebody else just now.
        let mut gone = Vec::new();
        let (decision, candidates) = loop {
            let (decision, candidates) = self.look_for_one(&relay, &snapshot, &gone);
            match &decision {
                Decision::Server(choice) if !self.turn.take(relay.house.traffic(), &choice.server) => {
                    gone.push(choice.server.id.clone());
                }
                Decision::Server(choice) if choice.near_the_bound && self.telling.is_uncounted() => {
                    let tokens = match self.to_be_counted(choice) {
                        Some(chat) => {
                            let permit = permit(&relay.house, choice.server.clone(), choice.zone);
                            let by = Counter { server: choice.server.clone(), permit };
                            relay.count_before_sending(&by, chat).await
                        }
                        None => None,
                    };
                    self.telling.count(tokens);
                }
                Decision::UnknownModel { .. } | Decision::Nobody(_) if !relay.house.has_looked() => {
                    relay.house.looked_around().await;
                    snapshot = relay.house.snapshot();
                }
                // What is left of the day went to somebody else just now.
                Decision::Server(choice) if !self.fund(&relay, choice) => gone.push(choice.server.id.clone()),
                _ => break (decision, candidates),
            }
        };
        self.record.candidates = candidates;
        if !matches!(decision, Decision::Server(_) | Decision::Full(_)) {
            self.turn.leave();
        }
        if !matches!(decision, Decision::Server(_)) {
            self.bought = None;
        }
        let chosen = match decision {
            // Charged only where there is somebody to send to: looking around is free.
            Decision::Server(_) if !self.may_retry(&relay) => {
                self.turn.leave();
                self.bought = None;
                Chosen::Nobody
            }
            Decision::Server(choice) => {
                let (server, loading) = (choice.server.id.clone(), choice.loading);
                self.nobody = None;
                self.chosen = Some(choice);
                Chosen::Server { server, loading }
            }
            Decision::Full(servers) => self.queue_up(&relay, &servers),
            Decision::Later(at) => {
                let retry_after = at.saturating_duration_since(self.now()).max(Duration::from_secs(1));
                self.nobody = Some(Failure::Busy { retry_after });
                Chosen::Later(at)
            }
            Decision::UnknownModel { nearest } => {
                let model = self.errand.request.head.model.clone();
                self.nobody = Some(Failure::UnknownModel { model, nearest });
                Chosen::Nobody
            }
            Decision::Lacking(what) => {
                let misunderstood = self.telling.misunderstood();
                self.nobody = Some(misunderstood.unwrap_or(Failure::Unsupported(what)));
                Chosen::Nobody
            }
            Decision::TooLong { tokens, answer, context } => {
                self.nobody = Some(Failure::TooLong { tokens, answer, context });
                Chosen::Nobody
            }
            Decision::Nobody(why) => {
                self.nobody = Some(Failure::NoServer(why));
                Chosen::Nobody
            }
        };
        self.record.queues(self.turn.waits());
        self.machine.on_chosen(chosen, self.now());
    }

    /// What the tokenizer of a server is given to count that has the model in memory.
    fn to_be_counted(&self, choice: &Choice) -> Option<Bytes> {
        let request = &self.errand.request;
        if request.head.operation != Operation::Chat || choice.loading {
            return None;
        }
        let (kind, model) = (choice.server.kind.as_str(), choice.model.as_str());
        let asked = self.telling.ask(Door::OpenAiChat, kind, model, request, &self.errand.body);
        asked.ok().map(|it| it.body)
    }

    /// Who is asked next.
    fn look_for_one(
        &self,
        relay: &Relay,
        snapshot: &Snapshot,
        gone: &[ServerId],
    ) -> (Decision, Vec<Candidate>) {
        let said =
            |server: &Server| self.telling.to(server.kind.as_str(), &self.errand.request, &self.errand.body);
        if self.committed {
            // Whoever goes on where the answer ended is asked before those who would have to
            // say all of it again.
            let goes_on = |server: &Server| match self.goes_on(server.kind.as_str()) {
                true => said(server),
                false => Err("it cannot go on with the answer of another server".to_owned()),
            };
            let decided = self.decide(relay, snapshot, &goes_on, gone);
            if matches!(decided.0, Decision::Server(_)) {
                return decided;
            }
        }
        self.decide(relay, snapshot, &said, gone)
    }

    /// Who would be asked now. Those in `gone` are taken to be full.
    pub(super) fn decide(
        &self,
        relay: &Relay,
        snapshot: &Snapshot,
        said: &dyn Fn(&Server) -> Result<Fidelity, String>,
        gone: &[ServerId],
    ) -> (Decision, Vec<Candidate>) {
        let look = relay.house.traffic().look();
        let home = self.conversation.and_then(|it| relay.house.home_of(it));
        let of_the_rest = self.head_of_the_rest();
        let first = self.record.attempts.first();
        let cloud = route::Cloud {
            price: &|server, model| {
                let price = relay.house.price(server, model.name.as_str())?;
                Some(price.input.plus(price.output))
            },
            pays: &|server, model| self.may_buy(relay, server, model.name.as_str()),
        };
        let ask = Ask {
            head: of_the_rest.as_ref().unwrap_or(&self.errand.request.head),
            readings: &relay.readings,
            aliases: &self.settings.aliases,
            chains: &self.settings.chains,
            fallback: self.fallback_of_the_rest(self.errand.fallback(&self.settings)),
            via: &self.errand.via,
            // The rest of an answer may come from wherever its model is.
            widened: self.errand.wishes.fallback.is_some() || of_the_rest.is_some(),
            tried: self.machine.tried(),
            first: first.map(|it| &it.server),
            first_model: first.map(|it| it.model.as_str()),
            in_flight: &|id| self.turn.in_flight(&look, id),
            uses_others: &|server, model| look.uses_others(server, model),
            home: home.as_ref(),
            full: &|server| gone.contains(&server.id) || self.turn.is_full(&look, server),
            said,
            gpu_memory: self.settings.gpu_memory,
            cloud: relay.house.cloud_is_open().then_some(cloud),
            bytes: self.errand.body.len() as u64,
            length: &|| self.telling.length(&self.errand.request, &self.errand.body),
            now: self.now(),
            salt: self.seed,
        };
        route::choose(snapshot, &ask)
    }

    /// Whether the daemon's budget of retries allows one more. Only what a server broke is
    /// charged: a misfit or a busy server says nothing about a storm.
    fn may_retry(&self, relay: &Relay) -> bool {
        let last = self.record.attempts.last().and_then(|it| it.fault);
        if last.is_none_or(|it| it.blame() != Blame::Server) {
            return true;
        }
        let mut budget = relay.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.take(self.now())
    }

    pub(super) fn send(&mut self, no: AttemptNo) {
        let Some(choice) = self.chosen.take() else { return };
        (self.begun_by, self.resumed) = (None, self.committed);
        let asking = if self.half.is_some() { self.asking_on(&choice) } else { self.asking(&choice) };
        let Some(asking) = asking else {
            // What can be said was found out when the server was chosen; but not with an answer
            // that has begun.
            let cause = if self.committed { Cause::Unsupported } else { Cause::Internal };
            return self.machine.on_fault(no, &Fault::new(Stage::Connect, cause), self.now());
        };
        self.call(no, choice, asking);
    }

    /// Asks the same server once more within one attempt, with more care.
    pub(super) fn say_it_again(&mut self, no: AttemptNo, care: Care) {
        self.care = care;
        self.keep_half();
        let Some(choice) = self.record.live.as_ref().map(|it| it.choice.clone()) else { return };
        match self.asking_on(&choice) {
            Some(asking) => self.call(no, choice, asking),
            None => self.fail(no, Fault::new(Stage::Content, Cause::Unsupported), self.now()),
        }
    }

    fn call(&mut self, no: AttemptNo, choice: Choice, asking: Asking) {
        let Asking { at, mode, body, translation, before, may_lack } = asking;
        let bytes = body.len() as u64;
        let bought = self.bought.take();
        let relay = self.record.relay.clone();
        let request = &self.errand.request;
        let server = &choice.server;
        // Where the same server is asked once more within one attempt it has its place already.
        let again = || self.record.live.take().map(|it| (it.in_flight, it.requests));
        let place = self.turn.place().map(|it| (it, 0)).or_else(again);
        let Some((mut in_flight, before_this)) = place else { return };
        in_flight.uses(&choice.model);
        let calling = {
            let (relay, server, bought) = (relay.clone(), server.clone(), bought.clone());
            let (headers, zone, patience) = (self.headers(&choice), choice.zone, self.settings.patience);
            let permit = permit(&relay.house, server.clone(), zone);
            async move {
                let endpoint = &server.endpoint;
                if !permit() {
                    return Err(Fault::new(Stage::Connect, Cause::Barred));
                }
                let (body, learned) = match before {
                    Some(before) => {
                        let by = Counter { server: server.clone(), permit: permit.clone() };
                        before.by(&relay, &by, body, &patience).await?
                    }
                    None => (body, Learned::default()),
                };
                let path = kind::path(server.kind.as_str(), at);
                if let Some(bought) = bought
                    && !bought.is_kept().await
                {
                    return Err(Fault::new(Stage::Connect, Cause::Unfunded));
                }
                // What costs money is sent once for each time that it is booked.
                let (connect, again) = (patience.connect, zone != Zone::Cloud);
                let key = relay.house.key(endpoint);
                let (key, bounds, permit) = (key.as_ref(), server.bounds, Some(permit));
                let call = Call { endpoint, path, body, headers, key, connect, bounds, again, permit };
                Ok(Taken { reply: relay.upstream.send(call).await?, learned })
            }
        };
        // `upstream` enforces the patience for a connection and does not say when it has one.
        self.machine.on_connected(no);
        self.watch.heard(Instant::now());
        self.record.live = Some(Live::new(Start {
            no,
            mode,
            at,
            operation: request.head.operation,
            keeps: self.keeps(mode),
            holds: self.holds(),
            may_lack,
            drop_usage: mode != Mode::Plain && !request.asks_usage,
            translation,
            calling: Box::pin(calling),
            bytes,
            requests: before_this + 1,
            in_flight,
            choice,
            bought,
        }));
    }

    /// Whether what comes is kept, so that another server can go on with it. What is known to
    /// be impossible at a glance is not begun with.
    fn keeps(&self, mode: Mode) -> bool {
        let request = &self.errand.request;
        mode != Mode::Plain && request.choices == 1 && !request.logprobs
    }

    /// Whether calls are held until they are whole: a plain answer is held anyway, and a stream
    /// only where somebody else could make them.
    pub(super) fn holds(&self) -> bool {
        let able = self.record.candidates.iter().filter(|it| it.excluded.is_none());
        !self.errand.request.head.stream || able.count() > 1
    }

    /// What is sent to this server: the caller's own bytes where it speaks the caller's language.
    pub(super) fn asking(&mut self, choice: &Choice) -> Option<Asking> {
        let Errand { request, body, .. } = &self.errand;
        let head = &request.head;
        let (kind, model) = (choice.server.kind.as_str(), choice.model.as_str());
        let way = telling::way(kind, request)?;
        let ear = self.ear(&choice.server, choice.zone);
        let mode = match (head.stream, head.operation) {
            (_, Operation::Embed) => Mode::Plain,
            (true, _) => Mode::Pass,
            (false, _) if way == Way::Same && self.is_short(kind) => Mode::Plain,
            (false, _) => Mode::Fold,
        };
        match way {
            Way::Same => {
                let to = To {
                    model,
                    stream: mode != Mode::Plain,
                    ask_usage: mode != Mode::Plain,
                    max_tokens: kind::by_id(kind).is_some_and(|it| it.wants_max_tokens()),
                    sold: ear.sold,
                };
                let body = request.door.dialect().readdress(request, body, &to);
                Some(Asking {
                    at: request.door,
                    mode,
                    body,
                    translation: None,
                    before: None,
                    may_lack: false,
                })
            }
            Way::Other(at) => match self.telling.ask(at, ear, model, request, body) {
                Ok(asked) => {
                    let listener = Listener {
                        door: request.door,
                        stream: head.stream,
                        voice: self.voice(model),
                        arrived: self.record.started,
                        keeps: self.keeps(mode),
                        holds: self.holds(),
                    };
                    let translation = Translation::new(listener, asked.forced);
                    Some(Asking {
                        at,
                        mode,
                        body: asked.body,
                        translation: Some(Box::new(translation)),
                        before: None,
                        may_lack: false,
                    })
                }
                Err(failure) => {
                    self.nobody = Some(failure);
                    None
                }
            },
        }
    }

    /// Whether it is asked for plain: soon over, at a server where hanging up frees the slot.
    fn is_short(&self, kind: &str) -> bool {
        self.errand.request.head.max_tokens.is_some_and(|it| it <= SHORT)
            && kind::by_id(kind).is_some_and(|it| it.plain_is_cancelled())
    }

    /// As whom an answer of this model is given.
    pub(super) fn voice(&self, model: &str) -> Voice {
        let request = &self.errand.request;
        Voice {
            id: voice_id(&self.record.request_id, self.seed),
            model: model.to_owned(),
            at_ms: self.record.at_ms,
            waited: Duration::ZERO,
            asks_usage: request.asks_usage,
            operation: request.head.operation,
            request: self.errand.body.clone(),
        }
    }
}

impl Errand {
    /// How far a stand-in may be for this request.
    pub(super) fn fallback(&self, settings: &Settings) -> Fallback {
        let auto = self.request.head.model == "auto";
        let wished = self.wishes.fallback.unwrap_or(if auto {
            settings.fallback.max(Fallback::Local)
        } else {
            settings.fallback
        });
        wished.min(settings.limit)
    }
}

/// Whether a prompt may still go to the server that was chosen for it: the person may have said
/// something else since.
pub(super) fn permit(house: &Arc<Housekeeping>, server: Arc<Server>, zone: Zone) -> Permit {
    let house = house.clone();
    Arc::new(move || house.may_send(&server, zone))
}

/// How a server is asked.
pub(super) struct Asking {
    pub(super) at: Door,
    pub(super) mode: Mode,
    pub(super) body: Bytes,
    pub(super) translation: Option<Box<Translation>>,
    /// What is found out before; the body may hang on it.
    pub(super) before: Option<Before>,
    /// Whether it is asked in a way that not every server of its kind knows.
    pub(super) may_lack: bool,
}

/// What ids in an answer are made of: the number in our own id of the request. One that
/// the caller gave may be the same for all its requests, and have any character in it.
fn voice_id(request_id: &str, seed: u64) -> String {
    let ours = request_id.strip_prefix("req-");
    match ours.filter(|it| it.len() == 16 && it.bytes().all(|it| it.is_ascii_hexdigit())) {
        Some(number) => number.to_owned(),
        None => format!("{seed:016x}"),
    }
}
