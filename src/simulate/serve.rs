//! One connection of a simulated server: requests in, answers or faults out.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    State,
    answer::Voice,
    ask::{Ask, Gate, Operation, Tongue, read},
    http::{Connection, Request, Stream},
    ollama,
    pieces::Pieces,
    script::{Fault, Offer, Script},
    shape::{Busy, Refusal, Reply, Shape},
    strike::{Strike, Struck},
    turn::{End, Turn},
};

/// What happened at a simulated server so far. A prompt is never kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections taken.
    pub connections: u64,
    /// Requests that generate nothing: identification, lists, health.
    pub probes: u64,
    /// Requests that generate something.
    pub received: u64,
    /// Of these: whole answers written.
    pub served: u64,
    /// Of these: turned down for what they asked.
    pub refused: u64,
    /// Of these: given a fault.
    pub faulted: u64,
    /// Of those: closed without a byte.
    pub hung_up: u64,
    /// Of these: left by their client before the end, a stalled one too.
    pub cancelled: u64,
    /// Of these: being worked on now, waiting ones not counted.
    pub in_flight: u32,
    /// The most that were ever worked on at once.
    pub most_in_flight: u32,
    /// Words and thoughts of all answers that were begun, but for those said elsewhere before.
    pub words: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    connections: AtomicU64,
    probes: AtomicU64,
    received: AtomicU64,
    served: AtomicU64,
    refused: AtomicU64,
    faulted: AtomicU64,
    hung_up: AtomicU64,
    cancelled: AtomicU64,
    in_flight: AtomicU32,
    most_in_flight: AtomicU32,
    words: AtomicU64,
    freed: Notify,
    /// Words written so far.
    written: AtomicU64,
    /// How many read a prompt.
    reading: AtomicU32,
}

impl Counters {
    /// A word is being written.
    pub(super) fn word(&self) {
        self.written.fetch_add(1, Relaxed);
    }

    /// A prompt is read until the guard is dropped.
    pub(super) fn read_prompt(&self) -> Reading<'_> {
        self.reading.fetch_add(1, Relaxed);
        Reading(self)
    }

    fn busy(&self) -> Busy {
        let reads = self.reading.load(Relaxed) > 0;
        let pieces = if reads { since_1970().as_millis() } else { 0 };
        let progress = self.written.load(Relaxed).wrapping_add(pieces as u64);
        Busy { requests: self.in_flight.load(Relaxed), progress }
    }

    pub(super) fn read(&self) -> Counts {
        Counts {
            connections: self.connections.load(Relaxed),
            probes: self.probes.load(Relaxed),
            received: self.received.load(Relaxed),
            served: self.served.load(Relaxed),
            refused: self.refused.load(Relaxed),
            faulted: self.faulted.load(Relaxed),
            hung_up: self.hung_up.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            most_in_flight: self.most_in_flight.load(Relaxed),
            words: self.words.load(Relaxed),
        }
    }

    /// Takes a slot if one is free.
    fn slot(&self, slots: u32) -> Option<Slot<'_>> {
        let free = |now: u32| (slots == 0 || now < slots).then_some(now + 1);
        let before = self.in_flight.fetch_update(Relaxed, Relaxed, free).ok()?;
        self.most_in_flight.fetch_max(before + 1, Relaxed);
        Some(Slot(self))
    }
}

/// A prompt being read, which is a piece further each time that it is looked at.
pub(super) struct Reading<'a>(&'a Counters);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.reading.fetch_sub(1, Relaxed);
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// A request being worked on.
struct Slot<'a>(&'a Counters);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
        self.0.freed.notify_waiters();
    }
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) shape: Shape,
    state: watch::Receiver<State>,
    pub(super) counters: Arc<Counters>,
    /// When models that were not in memory are, or will be, because somebody asked for them.
    loads: Mutex<BTreeMap<String, Instant>>,
}

impl Server {
    pub(super) fn new(shape: Shape, state: watch::Receiver<State>, counters: Arc<Counters>) -> Self {
        Self { shape, state, counters, loads: Mutex::default() }
    }

    /// The script, with what was loaded meanwhile.
    fn script(&self, state: &State) -> Arc<Script> {
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut script = state.script.clone();
        if loads.values().any(|it| *it <= Instant::now()) {
            for offer in &mut Arc::make_mut(&mut script).models {
                offer.loaded |= loads.get(&offer.name).is_some_and(|it| *it <= Instant::now());
            }
        }
        script
    }

    /// Has a model loaded, unless that is under way; says how long it takes.
    fn load(&self, offer: &Offer, takes: Duration) -> Duration {
        if offer.loaded || takes.is_zero() {
            return Duration::ZERO;
        }
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = loads.entry(offer.name.clone()).or_insert_with(|| Instant::now() + takes);
        ready.saturating_duration_since(Instant::now())
    }

    /// Serves one connection to its end.
    pub(super) async fn connection(&self, stream: Stream) {
        self.counters.connections.fetch_add(1, Relaxed);
        let mut state = self.state.clone();
        let mut connection = Connection::new(stream);
        loop {
            // An idle connection ends with the listener, as when a process exits.
            let request = tokio::select! {
                request = connection.request() => request,
                _ = state.wait_for(|state| !state.listens()) => return,
            };
            let Some(request) = request else { return };
            if state.borrow().script.frozen {
                tokio::select! {
                    () = connection.left() => return,
                    _ = state.wait_for(|state| !state.script.frozen) => {}
                }
            }
            let script = self.script(&state.borrow_and_update());
            let close = request.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
            let gate = Gate::at(self.shape, &request.path).filter(|_| request.method == "POST");
            let rendered =
                gate.filter(|it| *it == Gate::OllamaChat).and_then(|_| ollama::rendered(&request.body));
            let kept = if let Some(rendered) = rendered {
                self.counters.probes.fetch_add(1, Relaxed);
                self.say(connection, &Reply::json(200, rendered), false).await
            } else if let Some(gate) = gate {
                self.generate(connection, gate, &request, &script).await
            } else {
                self.counters.probes.fetch_add(1, Relaxed);
                let reply = self.shape.reply(&request, &script, self.counters.busy());
                self.say(connection, &reply, request.method == "HEAD").await
            };
            match kept {
                Some(kept) if !close => connection = kept,
                _ => return,
            }
        }
    }

    async fn say(&self, mut connection: Connection, reply: &Reply, head_only: bool) -> Option<Connection> {
        let mut out = self.head(reply.status, reply.content_type, &reply.more);
        let _ = write!(out, "content-length: {}\r\n", reply.body.len());
        let closes = self.shape.closes_after(reply.status);
        out.push_str(if closes { "Connection: close\r\n\r\n" } else { "\r\n" });
        if !head_only {
            out.push_str(&reply.body);
        }
        connection.write(out.as_bytes()).await.ok()?;
        (!closes).then_some(connection)
    }

    /// A head without framing and without its last empty line.
    pub(super) fn head(&self, status: u16, content_type: Option<&str>, more: &str) -> String {
        let mut out = String::with_capacity(1024);
        let _ = write!(out, "HTTP/1.1 {status} {}\r\n{}{more}", phrase(status), self.shape.headers());
        if let Some(content_type) = content_type {
            let _ = write!(out, "content-type: {content_type}\r\n");
        }
        out
    }

    async fn generate(
        &self,
        mut connection: Connection,
        gate: Gate,
        request: &Request,
        script: &Script,
    ) -> Option<Connection> {
        let counters = &self.counters;
        let number = counters.received.fetch_add(1, Relaxed) + 1;
        let fault = script.plan.fault(number);
        let ask = read(self.shape, gate, request);
        let struck = Strike { gate, request, ask: ask.as_ref().ok(), script };
        if let Some(kept) = self.strike_first(&mut connection, fault, struck).await {
            counters.faulted.fetch_add(1, Relaxed);
            let hangs_up = matches!(fault, Some(Fault::Refuse | Fault::Reset | Fault::CloseBeforeHead));
            counters.hung_up.fetch_add(u64::from(hangs_up), Relaxed);
            return match kept {
                Struck::Reply(reply) => self.say(connection, &reply, false).await,
                Struck::Reset => {
                    connection.reset();
                    None
                }
                Struck::Over => None,
            };
        }
        let checked = ask.and_then(|ask| {
            let (model, echoed) = self.admit(request, script, &ask)?;
            Ok((ask, model, echoed))
        });
        let (ask, offer, echoed) = match checked {
            Ok(checked) => checked,
            Err(refusal) => {
                counters.refused.fetch_add(1, Relaxed);
                return self.say(connection, &self.shape.refuse_in(gate.tongue(), &refusal), false).await;
            }
        };
        let load = self.load(offer, script.load);
        if !load.is_zero() && connection.pause(load).await {
            counters.cancelled.fetch_add(1, Relaxed);
            return None;
        }
        let slot = loop {
            // Listening before looking: a slot freed in between is not missed.
            let freed = counters.freed.notified();
            if let Some(slot) = counters.slot(script.slots) {
                break slot;
            }
            if script.turns_away {
                counters.refused.fetch_add(1, Relaxed);
                let busy = Refusal::Status(429, "too many requests".to_owned());
                return self.say(connection, &self.shape.refuse_in(gate.tongue(), &busy), false).await;
            }
            tokio::select! {
                () = freed => {}
                () = connection.left() => {
                    counters.cancelled.fetch_add(1, Relaxed);
                    return None;
                }
            }
        };
        let pieces = Pieces::of(script, &ask, number);
        counters.words.fetch_add(pieces.count() as u64, Relaxed);
        let created = since_1970().as_secs();
        let voice = Voice {
            shape: self.shape,
            ask: &ask,
            model: &echoed,
            pieces,
            number,
            created,
            context: offer.context,
        };
        let mut turn = Turn { server: self, connection, voice, script, fault };
        let end = if ask.stream { turn.stream().await } else { turn.plain().await };
        let Turn { connection, .. } = turn;
        drop(slot);
        match end {
            Ok(End::Served) => {
                counters.served.fetch_add(1, Relaxed);
                Some(connection)
            }
            Ok(End::Faulted) => {
                counters.faulted.fetch_add(1, Relaxed);
                match fault {
                    Some(Fault::ResetMidStream) => {
                        connection.reset();
                        None
                    }
                    Some(Fault::ErrorInOk | Fault::ErrorThenDone) => Some(connection),
                    _ => None,
                }
            }
            Ok(End::Gone) | Err(_) => {
                counters.cancelled.fetch_add(1, Relaxed);
                None
            }
        }
    }

    fn admit<'a>(
        &self,
        request: &Request,
        script: &'a Script,
        ask: &Ask,
    ) -> Result<(&'a Offer, String), Refusal> {
        if script.loading {
            return Err(Refusal::Loading);
        }
        if !self.shape.admits(request, script) {
            return Err(Refusal::NeedsKey);
        }
        let (offer, echoed) = self.shape.model(script, ask.model.as_deref())?;
        if ask.operation() == Operation::Embed && !offer.embeds {
            return Err(Refusal::CannotEmbed);
        }
        // Ollama looks at no image with a model that cannot, and says nothing.
        let blind = !ask.images.is_empty() && !offer.sees && self.shape != Shape::Ollama;
        let lacks = [
            (!ask.tools.is_empty() && !offer.tools, "tools"),
            (blind, "vision"),
            (ask.thinks && !offer.thinks && ask.gate.tongue() == Tongue::Ollama, "thinking"),
            (ask.fills && !offer.fills, "insert"),
        ];
        if let Some((_, what)) = lacks.into_iter().find(|(lacks, _)| *lacks) {
            return Err(Refusal::Lacks { model: echoed, what });
        }
        if ask.prompt_tokens() as u64 > offer.context && !ask.truncates {
            return Err(Refusal::TooLong { tokens: ask.prompt_tokens(), context: offer.context });
        }
        Ok((offer, echoed))
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Other",
    }
}
