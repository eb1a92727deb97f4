//! One attempt: the call to a server, from connecting to the last byte, and
//! what is read out of it.
//!
//! `next` waits for whatever comes and may be dropped at any time without
//! losing a byte. Dropping the attempt closes its connection at once and gives
//! its place at the server back.

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use tokio::time::{Instant, timeout_at};

use super::{
    answer::SERVERS_REQUEST_ID,
    translation::{Piece, Translation},
};
use crate::{
    dialect::{Door, Fold, Reader, frames::Cutter, openai::Numbering},
    failover::AttemptNo,
    fault::{Cause, Fault, Stage, Words},
    generate::{Begun, Operation, Reason, Usage},
    housekeeping::{Bought, InFlight},
    kind::{self, Refusal},
    resume::Learned,
    route::Choice,
    upstream::Reply,
};

/// The longest event that is read: a whole file in one delta, or an image.
const EVENT_CAP: usize = 16 << 20;
/// How much of a refusal is read. Servers that quote the prompt quote a part of it.
const REFUSAL_CAP: usize = 256 << 10;
/// How long a refusal is read: its head has told the essential.
const REFUSAL_TIME: Duration = Duration::from_secs(2);
/// How much may come before the first content: role deltas and the like.
pub(super) const PRELUDE_CAP: usize = 256 << 10;
/// How long the end of a body is waited for after its terminator, so that the connection can be used again.
const END_OF_BODY: Duration = Duration::from_millis(100);

/// What an attempt has to say.
pub(super) enum Told {
    /// The server sent its head; it has taken the request.
    Head,
    /// Bytes came and were judged.
    Heard(Heard),
    /// It did not work.
    Fault(Fault, Option<Words>),
}

/// What a piece of the answer held.
#[derive(Default)]
pub(super) struct Heard {
    /// Whether there was content in it.
    pub(super) content: bool,
    /// What may go to the caller, in order: whole frames, as they came or translated.
    pub(super) pass: Vec<Bytes>,
    /// How many frames that is, comments not counted.
    pub(super) frames: u64,
    /// The answer is whole.
    pub(super) whole: bool,
}

impl Heard {
    pub(super) fn add(&mut self, piece: Piece) {
        if !piece.bytes.is_empty() {
            self.pass.push(piece.bytes);
            self.frames += piece.frames;
        }
    }
}

/// How the server is asked and its answer read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A stream for a caller who wants a stream.
    Pass,
    /// A stream that is folded for a caller who wants it whole.
    Fold,
    /// A plain answer.
    Plain,
}

/// The server took the request.
pub(super) struct Taken {
    pub(super) reply: Reply,
    /// What it told before.
    pub(super) learned: Learned,
}

pub(super) type Calling = Pin<Box<dyn Future<Output = Result<Taken, Fault>> + Send>>;

pub(super) enum State {
    Calling(Calling),
    /// A refusal is read, until then at the longest.
    Refusing(Reply, BytesMut, Instant),
    Reading(Reply),
    Over,
}

pub(super) struct Live {
    pub(super) no: AttemptNo,
    pub(super) choice: Choice,
    pub(super) started: Instant,
    pub(super) first_token: Option<Duration>,
    pub(super) mode: Mode,
    /// Whether it is a plain answer whose bytes are what the caller gets.
    pub(super) is_raw: bool,
    /// A plain answer that was too much to hold and goes on as it comes.
    pub(super) passing: bool,
    /// The server's own id of the request.
    pub(super) request_id: Option<HeaderValue>,
    /// Where it was asked, and so the language of what comes.
    pub(super) at: Door,
    pub(super) operation: Operation,
    pub(super) drop_usage: bool,
    pub(super) state: State,
    pub(super) cutter: Cutter,
    pub(super) reader: Box<dyn Reader>,
    /// Where calls of tools come without their numbers.
    pub(super) numbering: Option<Numbering>,
    pub(super) sense: Sense,
    /// What was said of an answer that is not translated, where another server may have to go
    /// on with it.
    pub(super) begun: Option<Begun>,
    /// The data of the first frame with content.
    pub(super) first: Option<Bytes>,
    /// The frames from the first piece of a call, or the finish reason, on: they go on once the
    /// answer is whole, because after them nobody could go on with it.
    pub(super) tail: Vec<Bytes>,
    /// Whether it was asked in a way that not every server of its kind knows.
    pub(super) may_lack: bool,
    /// Whether they are held.
    pub(super) holding: bool,
    /// Whether calls are held: somebody else could make them.
    pub(super) holds: bool,
    /// Whether it said something else than what the caller has.
    pub(super) misfit: bool,
    /// The counts of an answer that this server only went on with, and whether they are an estimate.
    pub(super) sum: Option<(Usage, bool)>,
    /// The answer put together, once it is whole.
    whole: Option<Bytes>,
    pub(super) plain: BytesMut,
    pub(super) plain_judged: Option<(Usage, Option<Reason>)>,
    pub(super) prelude: usize,
    pub(super) told: VecDeque<Told>,
    pub(super) in_flight: InFlight,
    /// How many bytes it was sent.
    pub(super) bytes: u64,
    /// How many requests it has got in this attempt.
    pub(super) requests: u32,
    /// Whether it is known to load the model first.
    pub(super) loads: bool,
    /// What is booked for it, where it costs money.
    pub(super) bought: Option<Arc<Bought>>,
}

/// What is made of the frames, beyond judging them.
pub(super) enum Sense {
    /// They go on as they are.
    None,
    /// One answer in the same language.
    Fold(Box<dyn Fold>),
    /// The same in the caller's language.
    Translate(Box<Translation>),
}

pub(super) struct Start {
    pub(super) no: AttemptNo,
    pub(super) choice: Choice,
    pub(super) mode: Mode,
    pub(super) at: Door,
    pub(super) operation: Operation,
    /// The usage chunk is there because we asked for it, not the caller.
    pub(super) drop_usage: bool,
    /// Whether what is said is kept, so that another server can go on with it.
    pub(super) keeps: bool,
    /// Whether calls are held until they are whole.
    pub(super) holds: bool,
    /// Whether it is asked in a way that not every server of its kind knows.
    pub(super) may_lack: bool,
    /// For a caller who speaks another language than is spoken there, or has the beginning of
    /// the answer from another server.
    pub(super) translation: Option<Box<Translation>>,
    pub(super) calling: Calling,
    pub(super) bytes: u64,
    pub(super) requests: u32,
    pub(super) in_flight: InFlight,
    /// What is booked for it, where it costs money.
    pub(super) bought: Option<Arc<Bought>>,
}

impl Live {
    pub(super) fn new(it: Start) -> Self {
        let dialect = it.at.dialect();
        let kind = kind::by_id(it.choice.server.kind.as_str());
        let numbering = kind.filter(|it| it.misnumbers_calls()).map(|_| Numbering::default());
        let sense = match (it.translation, it.mode) {
            (Some(translation), _) => Sense::Translate(translation),
            (None, Mode::Fold) => Sense::Fold(dialect.fold(it.at, it.operation)),
            (None, Mode::Pass | Mode::Plain) => Sense::None,
        };
        Self {
            no: it.no,
            bytes: it.bytes,
            requests: it.requests,
            loads: it.choice.loading,
            choice: it.choice,
            started: Instant::now(),
            first_token: None,
            mode: it.mode,
            is_raw: it.mode == Mode::Plain && matches!(sense, Sense::None),
            passing: false,
            at: it.at,
            operation: it.operation,
            drop_usage: it.drop_usage,
            state: State::Calling(it.calling),
            cutter: Cutter::of(dialect.framing(), EVENT_CAP),
            reader: dialect.reader(it.at, it.operation),
            numbering,
            begun: (it.keeps && !matches!(sense, Sense::Translate(_))).then(Begun::default),
            first: None,
            tail: Vec::new(),
            may_lack: it.may_lack,
            holding: false,
            holds: it.holds,
            misfit: false,
            sum: None,
            sense,
            whole: None,
            request_id: None,
            plain: BytesMut::new(),
            plain_judged: None,
            prelude: 0,
            told: VecDeque::new(),
            in_flight: it.in_flight,
            bought: it.bought,
        }
    }

    /// Waits for the next thing to be told. Safe to drop while waiting.
    pub(super) async fn next(&mut self) -> Told {
        loop {
            if let Some(told) = self.told.pop_front() {
                return told;
            }
            match &mut self.state {
                State::Calling(calling) => match calling.await {
                    Ok(Taken { mut reply, learned }) if reply.status() == 200 => {
                        if let Sense::Translate(translation) = &mut self.sense {
                            translation.learn(learned);
                        }
                        let id = reply.headers().get(SERVERS_REQUEST_ID);
                        self.request_id = id.and_then(|it| HeaderValue::from_bytes(it.as_bytes()).ok());
                        reply.drop_headers();
                        self.state = State::Reading(reply);
                        self.told.push_back(Told::Head);
                    }
                    Ok(Taken { reply, .. }) => {
                        let until = Instant::now() + REFUSAL_TIME;
                        self.state = State::Refusing(reply, BytesMut::new(), until);
                    }
                    Err(fault) => return self.over(fault.cause, fault.stage, None),
                },
                State::Refusing(reply, body, until) => match timeout_at(*until, reply.chunk()).await {
                    Ok(Ok(Some(chunk))) if body.len() + chunk.len() <= REFUSAL_CAP => {
                        body.extend_from_slice(&chunk)
                    }
                    // An error while reading a refusal, or no end of it: what came is what it said.
                    Ok(_) | Err(_) => {
                        let body = std::mem::take(body).freeze();
                        let words =
                            Words { status: reply.status(), content_type: header(reply, CONTENT_TYPE), body };
                        let retry_after = header(reply, RETRY_AFTER).and_then(|it| it.trim().parse().ok());
                        return self.refused(words, retry_after);
                    }
                },
                State::Reading(reply) => match reply.chunk().await {
                    Ok(Some(chunk)) => {
                        if let Some(told) = self.hear(chunk) {
                            return told;
                        }
                    }
                    Ok(None) => return self.ended(),
                    Err(fault) => return self.broke(fault.cause),
                },
                State::Over => std::future::pending().await,
            }
        }
    }

    /// Whether the server goes on with the prompt when it is hung up on.
    pub(super) fn is_read_on(&self) -> bool {
        let reads = self.first_token.is_none() && !self.loads && !matches!(self.state, State::Over);
        reads && kind::by_id(self.choice.server.kind.as_str()).is_some_and(|it| it.reads_to_the_end())
    }

    /// Usage and reason, as far as they were told.
    pub(super) fn tally(&self) -> (Usage, Option<Reason>) {
        self.plain_judged.unwrap_or_else(|| (self.reader.usage(), self.reader.reason()))
    }

    /// What there is of the answer for a caller who wants it whole, and whether that is all of it.
    pub(super) fn take_whole(&mut self) -> Option<(Bytes, bool)> {
        if let Some(whole) = self.whole.take() {
            return Some((whole, true));
        }
        self.is_raw.then(|| (std::mem::take(&mut self.plain).freeze(), matches!(self.state, State::Over)))
    }

    /// Makes one answer of what has ended, or the end of a stream in another language.
    pub(super) fn put_together(&mut self, heard: &mut Heard) -> Result<(), Cause> {
        match std::mem::replace(&mut self.sense, Sense::None) {
            Sense::None => {}
            Sense::Fold(fold) => self.whole = Some(fold.finish()?),
            Sense::Translate(mut translation) => {
                heard.add(translation.tell_the_end());
                if translation.is_misfit() {
                    self.misfit = true;
                    self.sense = Sense::Translate(translation);
                    return Err(Cause::Unsupported);
                }
                self.sum = translation.usage();
                self.whole = translation.whole();
                self.plain = BytesMut::new();
            }
        }
        Ok(())
    }

    /// How many bytes of the answer are held.
    pub(super) fn held(&self) -> usize {
        let made = match &self.sense {
            Sense::None => 0,
            Sense::Fold(fold) => fold.held(),
            Sense::Translate(translation) => translation.held(),
        };
        self.plain.len() + made
    }

    /// Reads the body to its end, so that the connection can be used again.
    pub(super) async fn read_to_end(&mut self) {
        if let State::Reading(reply) = &mut self.state {
            let _ = tokio::time::timeout(END_OF_BODY, async {
                // Some servers put a comment or a stray event after the terminator; more is not worth waiting for.
                for _ in 0..4 {
                    if !matches!(reply.chunk().await, Ok(Some(_))) {
                        break;
                    }
                }
            })
            .await;
        }
        self.state = State::Over;
    }

    fn refused(&mut self, words: Words, retry_after: Option<u64>) -> Told {
        let refusal = Refusal { status: words.status, retry_after, body: &words.body };
        let cause = kind::classify(self.choice.server.kind.as_str(), refusal);
        self.over(cause, Stage::Head, Some(words))
    }

    /// Ends the attempt with a fault of the right stage.
    fn over(&mut self, cause: Cause, stage: Stage, words: Option<Words>) -> Told {
        self.state = State::Over;
        let status = words.as_ref().map(|it| it.status);
        Told::Fault(Fault { stage, cause, status }, words)
    }

    pub(super) fn broke(&mut self, cause: Cause) -> Told {
        self.over(cause, self.stage(), None)
    }

    fn stage(&self) -> Stage {
        if self.first_token.is_some() { Stage::Content } else { Stage::FirstToken }
    }

    /// An error that came inside a success: its text is kept for the caller only.
    pub(super) fn error_inside(&mut self, data: &[u8]) -> Told {
        let cause = kind::classify_inside(self.choice.server.kind.as_str(), data);
        let words = (self.first_token.is_none()).then(|| Words {
            status: 400,
            content_type: Some("application/json".to_owned()),
            body: Bytes::copy_from_slice(data),
        });
        let told = self.over(cause, self.stage(), words);
        match told {
            // The status was 200; the 400 is only for the caller who gets the words.
            Told::Fault(fault, words) => Told::Fault(Fault { status: Some(200), ..fault }, words),
            told => told,
        }
    }

    /// Whether more is held than may be, by the bound of one answer.
    pub(super) fn is_too_long(&self) -> bool {
        matches!(&self.sense, Sense::Translate(translation) if translation.is_too_long())
    }
}

fn header(reply: &Reply, name: HeaderName) -> Option<String> {
    reply.headers().get(name)?.to_str().ok().map(str::to_owned)
}
