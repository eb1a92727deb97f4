//! One attempt: the call to a server, from connecting to the last byte, and
//! what is read out of it.
//!
//! `next` waits for whatever comes and may be dropped at any time without
//! losing a byte. Dropping the attempt closes its connection at once and gives
//! its place at the server back.

use std::{collections::VecDeque, future::Future, pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use tokio::time::{Instant, timeout_at};

use super::{
    answer::SERVERS_REQUEST_ID,
    translation::{Piece, Translation},
};
use crate::{
    dialect::{
        Door, Fold, Framing, Reader, Verdict,
        frames::{Cutter, FrameData},
    },
    failover::AttemptNo,
    fault::{Cause, Fault, Stage, Words},
    generate::{Operation, Reason, Usage},
    housekeeping::InFlight,
    kind::{self, Refusal},
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
const PRELUDE_CAP: usize = 256 << 10;
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
    fn add(&mut self, piece: Piece) {
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

pub(super) type Calling = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;

enum State {
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
    at: Door,
    operation: Operation,
    drop_usage: bool,
    state: State,
    cutter: Cutter,
    reader: Box<dyn Reader>,
    sense: Sense,
    /// The answer put together, once it is whole.
    whole: Option<Bytes>,
    plain: BytesMut,
    plain_judged: Option<(Usage, Option<Reason>)>,
    prelude: usize,
    told: VecDeque<Told>,
    _in_flight: InFlight,
}

/// What is made of the frames, beyond judging them.
enum Sense {
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
    /// For a caller who speaks another language than is spoken there.
    pub(super) translation: Option<Translation>,
    pub(super) calling: Calling,
    pub(super) in_flight: InFlight,
}

impl Live {
    pub(super) fn new(it: Start) -> Self {
        let dialect = it.at.dialect();
        let sense = match (it.translation, it.mode) {
            (Some(translation), _) => Sense::Translate(Box::new(translation)),
            (None, Mode::Fold) => Sense::Fold(dialect.fold(it.at, it.operation)),
            (None, Mode::Pass | Mode::Plain) => Sense::None,
        };
        Self {
            no: it.no,
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
            sense,
            whole: None,
            request_id: None,
            plain: BytesMut::new(),
            plain_judged: None,
            prelude: 0,
            told: VecDeque::new(),
            _in_flight: it.in_flight,
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
                    Ok(reply) if reply.status() == 200 => {
                        self.request_id = reply.headers().get(SERVERS_REQUEST_ID).cloned();
                        self.state = State::Reading(reply);
                        self.told.push_back(Told::Head);
                    }
                    Ok(reply) => {
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
    fn put_together(&mut self, heard: &mut Heard) -> Result<(), Cause> {
        match std::mem::replace(&mut self.sense, Sense::None) {
            Sense::None => {}
            Sense::Fold(fold) => self.whole = Some(fold.finish()?),
            Sense::Translate(mut translation) => {
                heard.add(translation.tell_the_end());
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

    fn broke(&mut self, cause: Cause) -> Told {
        self.over(cause, self.stage(), None)
    }

    fn stage(&self) -> Stage {
        if self.first_token.is_some() { Stage::Content } else { Stage::FirstToken }
    }

    /// An error that came inside a success: its text is kept for the caller only.
    fn error_inside(&mut self, data: &[u8]) -> Told {
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

    fn hear(&mut self, chunk: Bytes) -> Option<Told> {
        if self.mode == Mode::Plain {
            self.plain.extend_from_slice(&chunk);
            return Some(Told::Heard(Heard { content: true, ..Heard::default() }));
        }
        let mut heard = Heard::default();
        self.cutter.push(chunk.clone());
        let mut run = Run::default();
        let mut fault = None;
        let passes = !matches!(self.sense, Sense::Translate(_));
        while let Some(frame) = self.cutter.next() {
            let Ok(frame) = frame else {
                fault = Some(self.broke(Cause::Unreadable));
                break;
            };
            let data = match &frame.data {
                FrameData::Comment => {
                    // A comment proves the socket, not the model: it is no content, and needs no passing on
                    // before there is some.
                    if passes && (self.first_token.is_some() || heard.content) {
                        run.add(&chunk, frame.bytes, &mut heard.pass);
                    }
                    continue;
                }
                FrameData::Event(data) => data,
                FrameData::Broken => {
                    fault = Some(self.bare_text(&frame.bytes));
                    break;
                }
            };
            let judged = match &mut self.sense {
                Sense::Translate(translation) => self.reader.read(data, Some(translation.ear())),
                Sense::None | Sense::Fold(_) => self.reader.read(data, None),
            };
            self.prelude += frame.bytes.len();
            match judged.verdict {
                Verdict::Content => heard.content = true,
                Verdict::Quiet | Verdict::Finish | Verdict::Usage | Verdict::Done => {}
                Verdict::Error => {
                    let data = data.clone();
                    fault = Some(self.error_inside(&data));
                    break;
                }
                Verdict::Unreadable => {
                    fault = Some(self.broke(Cause::Unreadable));
                    break;
                }
            }
            if let Err(cause) = self.keep(data) {
                fault = Some(self.broke(cause));
                break;
            }
            let done = judged.verdict == Verdict::Done;
            if done && let Err(cause) = self.reader.end(true).and_then(|()| self.put_together(&mut heard)) {
                fault = Some(self.broke(cause));
                break;
            }
            if passes && !(self.drop_usage && judged.verdict == Verdict::Usage) {
                run.add(&chunk, frame.bytes, &mut heard.pass);
                heard.frames += 1;
            }
            if done {
                heard.whole = true;
                break;
            }
        }
        run.end(&chunk, &mut heard.pass);
        let begun = self.first_token.is_some() || heard.content;
        if begun && let Sense::Translate(translation) = &mut self.sense {
            heard.add(translation.tell());
        }
        if !begun && !heard.whole && fault.is_none() && self.prelude > PRELUDE_CAP {
            fault = Some(self.broke(Cause::Unreadable));
        }
        if let Some(fault) = fault {
            // Content that came before the fault in the same piece is content all the same.
            if heard.content {
                self.told.push_back(fault);
                return Some(Told::Heard(heard));
            }
            return Some(fault);
        }
        (heard.content || heard.whole || !heard.pass.is_empty()).then_some(Told::Heard(heard))
    }

    /// Adds a good frame to what is put together.
    fn keep(&mut self, data: &[u8]) -> Result<(), Cause> {
        let Sense::Fold(fold) = &mut self.sense else { return Ok(()) };
        fold.add(data);
        if fold.is_broken() { Err(Cause::Unreadable) } else { Ok(()) }
    }

    /// Text where an event should be: an error body in place of a stream (LM Studio,
    /// a server that cannot stream), or a proxy's words (llama.cpp's router).
    fn bare_text(&mut self, bytes: &Bytes) -> Told {
        match self.at.dialect().judge_plain(self.at, self.operation, bytes, None) {
            Err(Cause::ErrorEvent) => self.error_inside(&bytes.clone()),
            Ok(_) | Err(_) => self.broke(Cause::Unreadable),
        }
    }

    /// The body ended cleanly.
    fn ended(&mut self) -> Told {
        if self.mode == Mode::Plain {
            return self.ended_plain();
        }
        if self.at.dialect().framing() == Framing::Lines && self.cutter.rest() > 0 {
            // The last line may do without its end, and there is no other way to tell that it is whole.
            if let Some(told) = self.hear(Bytes::from_static(b"\n")) {
                return told;
            }
        }
        let rest = self.cutter.take_rest();
        if !rest.is_empty() {
            return self.bare_text(&rest);
        }
        let mut heard = Heard { whole: true, ..Heard::default() };
        if !matches!(self.sense, Sense::Translate(_)) {
            heard.pass.push(self.reader.missing_terminator());
        }
        match self.reader.end(true).and_then(|()| self.put_together(&mut heard)) {
            Ok(()) => {
                self.state = State::Over;
                Told::Heard(heard)
            }
            Err(cause) => self.broke(cause),
        }
    }

    fn ended_plain(&mut self) -> Told {
        let mut heard = Heard { whole: true, ..Heard::default() };
        if self.passing {
            // Its framing alone can tell now that it is whole.
            self.state = State::Over;
            return Told::Heard(heard);
        }
        let events = match &mut self.sense {
            Sense::Translate(translation) => Some(translation.ear()),
            Sense::None | Sense::Fold(_) => None,
        };
        let judged = self.at.dialect().judge_plain(self.at, self.operation, &self.plain, events);
        match judged.and_then(|plain| self.put_together(&mut heard).map(|()| plain)) {
            Ok(plain) => {
                self.plain_judged = Some((plain.usage, plain.reason));
                self.state = State::Over;
                Told::Heard(heard)
            }
            Err(Cause::ErrorEvent) => {
                let body = std::mem::take(&mut self.plain);
                self.error_inside(&body)
            }
            Err(cause) => self.broke(cause),
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

/// Joins frames that lie side by side in one chunk, so that they go on in one write.
#[derive(Default)]
struct Run {
    start: usize,
    end: usize,
}

impl Run {
    fn add(&mut self, chunk: &Bytes, frame: Bytes, pass: &mut Vec<Bytes>) {
        let at = (frame.as_ptr() as usize).wrapping_sub(chunk.as_ptr() as usize);
        if at > chunk.len() || at + frame.len() > chunk.len() {
            self.end(chunk, pass);
            pass.push(frame);
            return;
        }
        if at != self.end || self.start == self.end {
            self.end(chunk, pass);
            self.start = at;
        }
        self.end = at + frame.len();
    }

    fn end(&mut self, chunk: &Bytes, pass: &mut Vec<Bytes>) {
        if self.start < self.end {
            pass.push(chunk.slice(self.start..self.end));
        }
        self.start = self.end;
    }
}
