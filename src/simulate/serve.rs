//! One connection of a simulated server: requests in, answers or faults out.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::{
    State,
    answer::{Ask, Operation, Pieces, Voice},
    http::{Connection, Request, Stream},
    script::{Fault, Script},
    shape::{Refusal, Reply, Shape, is_generation},
    strike::Struck,
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
    /// Of these: left by their client before the end, a stalled one too.
    pub cancelled: u64,
    /// Of these: being worked on now, waiting ones not counted.
    pub in_flight: u32,
    /// The most that were ever worked on at once.
    pub most_in_flight: u32,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    connections: AtomicU64,
    probes: AtomicU64,
    received: AtomicU64,
    served: AtomicU64,
    refused: AtomicU64,
    faulted: AtomicU64,
    cancelled: AtomicU64,
    in_flight: AtomicU32,
    most_in_flight: AtomicU32,
    freed: Notify,
}

impl Counters {
    pub(super) fn read(&self) -> Counts {
        Counts {
            connections: self.connections.load(Relaxed),
            probes: self.probes.load(Relaxed),
            received: self.received.load(Relaxed),
            served: self.served.load(Relaxed),
            refused: self.refused.load(Relaxed),
            faulted: self.faulted.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            most_in_flight: self.most_in_flight.load(Relaxed),
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
    counters: Arc<Counters>,
}

impl Server {
    pub(super) fn new(shape: Shape, state: watch::Receiver<State>, counters: Arc<Counters>) -> Self {
        Self { shape, state, counters }
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
            let script = state.borrow_and_update().script.clone();
            let close = request.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
            let kept = if request.method == "POST" && is_generation(&request.path) {
                self.generate(connection, &request, &script).await
            } else {
                self.counters.probes.fetch_add(1, Relaxed);
                let reply = self.shape.reply(&request, &script, self.counters.in_flight.load(Relaxed));
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
        request: &Request,
        script: &Script,
    ) -> Option<Connection> {
        let counters = &self.counters;
        let number = counters.received.fetch_add(1, Relaxed) + 1;
        let fault = script.plan.fault(number);
        let ask = read(request);
        if let Some(kept) = self.strike_first(&mut connection, fault, request, &ask, script).await {
            counters.faulted.fetch_add(1, Relaxed);
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
        let (ask, echoed) = match checked {
            Ok((ask, _, echoed)) => (ask, echoed),
            Err(refusal) => {
                counters.refused.fetch_add(1, Relaxed);
                return self.say(connection, &self.shape.refuse(&refusal), false).await;
            }
        };
        let slot = loop {
            // Listening before looking: a slot freed in between is not missed.
            let freed = counters.freed.notified();
            if let Some(slot) = counters.slot(script.slots) {
                break slot;
            }
            tokio::select! {
                () = freed => {}
                () = connection.left() => {
                    counters.cancelled.fetch_add(1, Relaxed);
                    return None;
                }
            }
        };
        let pieces = Pieces::of(script, ask.max_tokens);
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |it| it.as_secs());
        let voice = Voice { shape: self.shape, ask: &ask, model: &echoed, pieces, number, created };
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
    ) -> Result<(&'a super::Offer, String), Refusal> {
        if script.loading {
            return Err(Refusal::Loading);
        }
        if !self.shape.admits(request, script) {
            return Err(Refusal::NeedsKey);
        }
        let (offer, echoed) = self.shape.model(script, ask.model.as_deref())?;
        if ask.operation == Operation::Embed && !offer.embeds {
            return Err(Refusal::CannotEmbed);
        }
        if ask.prompt_tokens as u64 > offer.context {
            return Err(Refusal::TooLong { tokens: ask.prompt_tokens, context: offer.context });
        }
        Ok((offer, echoed))
    }
}

#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    stream: Option<bool>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    stream_options: Option<StreamOptions>,
    messages: Option<IgnoredAny>,
    prompt: Option<IgnoredAny>,
    input: Option<Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// Reads what matters of a request.
fn read(request: &Request) -> Result<Ask, Refusal> {
    let body: Body =
        serde_json::from_slice(&request.body).map_err(|error| Refusal::Malformed(error.to_string()))?;
    let (operation, missing) = match request.path.as_str() {
        "/v1/embeddings" => (Operation::Embed, body.input.is_none().then_some("input")),
        "/v1/completions" => (Operation::Complete, body.prompt.is_none().then_some("prompt")),
        _ => (Operation::Chat, body.messages.is_none().then_some("messages")),
    };
    if let Some(field) = missing {
        return Err(Refusal::Missing(field));
    }
    Ok(Ask {
        operation,
        model: body.model,
        stream: body.stream.unwrap_or(false) && operation != Operation::Embed,
        max_tokens: body.max_tokens.or(body.max_completion_tokens),
        usage: body.stream_options.and_then(|it| it.include_usage).unwrap_or(false),
        inputs: body.input.as_ref().and_then(Value::as_array).map_or(1, Vec::len),
        prompt_tokens: (request.body.len() / 4).max(1),
    })
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
