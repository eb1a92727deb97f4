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

use super::answer::SERVERS_REQUEST_ID;
use crate::{
    dialect::{
        Verdict,
        frames::{Cutter, FrameData},
        openai::{DONE, Fold, Reader, judge_plain},
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
    /// What may go to the caller, in order: whole frames as they came.
    pub(super) pass: Vec<Bytes>,
    /// The answer is whole.
    pub(super) whole: bool,
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
    /// A plain answer that was too much to hold and goes on as it comes.
    pub(super) passing: bool,
    /// The server's own id of the request.
    pub(super) request_id: Option<HeaderValue>,
    operation: Operation,
    drop_usage: bool,
    state: State,
    cutter: Cutter,
    reader: Reader,
    fold: Option<Fold>,
    /// The stream put together, once it is whole.
    folded: Option<Bytes>,
    plain: BytesMut,
    plain_judged: Option<(Usage, Option<Reason>)>,
    prelude: usize,
    told: VecDeque<Told>,
    _in_flight: InFlight,
}

pub(super) struct Start {
    pub(super) no: AttemptNo,
    pub(super) choice: Choice,
    pub(super) mode: Mode,
    pub(super) operation: Operation,
    /// The usage chunk is there because we asked for it, not the caller.
    pub(super) drop_usage: bool,
    pub(super) calling: Calling,
    pub(super) in_flight: InFlight,
}

impl Live {
    pub(super) fn new(it: Start) -> Self {
        Self {
            no: it.no,
            choice: it.choice,
            started: Instant::now(),
            first_token: None,
            mode: it.mode,
            passing: false,
            operation: it.operation,
            drop_usage: it.drop_usage,
            state: State::Calling(it.calling),
            cutter: Cutter::new(EVENT_CAP),
            reader: Reader::new(it.operation),
            fold: (it.mode == Mode::Fold).then(|| Fold::new(it.operation)),
            folded: None,
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
        match self.mode {
            Mode::Pass => None,
            Mode::Fold => self.folded.take().map(|whole| (whole, true)),
            Mode::Plain => {
                Some((std::mem::take(&mut self.plain).freeze(), matches!(self.state, State::Over)))
            }
        }
    }

    /// Makes one answer of the stream that has ended.
    fn fold(&mut self) -> Result<(), Cause> {
        if let Some(fold) = self.fold.take() {
            self.folded = Some(fold.finish()?);
        }
        Ok(())
    }

    /// How many bytes of the answer are held.
    pub(super) fn held(&self) -> usize {
        self.plain.len() + self.fold.as_ref().map_or(0, Fold::len)
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
        while let Some(frame) = self.cutter.next() {
            let Ok(frame) = frame else {
                fault = Some(self.broke(Cause::Unreadable));
                break;
            };
            let data = match &frame.data {
                FrameData::Comment => {
                    // A comment proves the socket, not the model: it is no content, and needs no passing on
                    // before there is some.
                    if self.first_token.is_some() || heard.content {
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
            let judged = self.reader.judge(data);
            match judged.verdict {
                Verdict::Content => heard.content = true,
                Verdict::Quiet | Verdict::Finish => {}
                Verdict::Usage if self.drop_usage => {
                    self.keep(data);
                    continue;
                }
                Verdict::Usage => {}
                Verdict::Done => {
                    match self.reader.end(true).and_then(|()| self.fold()) {
                        Ok(()) => {
                            heard.whole = true;
                            run.add(&chunk, frame.bytes, &mut heard.pass);
                        }
                        Err(cause) => fault = Some(self.broke(cause)),
                    }
                    break;
                }
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
            self.keep(data);
            if self.fold.as_ref().is_some_and(Fold::is_broken) {
                fault = Some(self.broke(Cause::Unreadable));
                break;
            }
            run.add(&chunk, frame.bytes, &mut heard.pass);
        }
        run.end(&chunk, &mut heard.pass);
        if self.first_token.is_none() && !heard.content && fault.is_none() {
            self.prelude += heard.pass.iter().map(Bytes::len).sum::<usize>();
            if self.prelude > PRELUDE_CAP {
                fault = Some(self.broke(Cause::Unreadable));
            }
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

    fn keep(&mut self, data: &[u8]) {
        if let Some(fold) = &mut self.fold {
            fold.add(data);
        }
    }

    /// Text where an event should be: an error body in place of a stream (LM Studio,
    /// a server that cannot stream), or a proxy's words (llama.cpp's router).
    fn bare_text(&mut self, bytes: &Bytes) -> Told {
        match judge_plain(self.operation, bytes) {
            Err(Cause::ErrorEvent) => self.error_inside(&bytes.clone()),
            Ok(_) | Err(_) => self.broke(Cause::Unreadable),
        }
    }

    /// The body ended cleanly.
    fn ended(&mut self) -> Told {
        if self.passing && self.mode == Mode::Plain {
            // Its framing alone can tell now that it is whole.
            self.state = State::Over;
            return Told::Heard(Heard { whole: true, ..Heard::default() });
        }
        if self.mode == Mode::Plain {
            return match judge_plain(self.operation, &self.plain) {
                Ok(plain) => {
                    self.plain_judged = Some((plain.usage, plain.reason));
                    self.state = State::Over;
                    Told::Heard(Heard { whole: true, ..Heard::default() })
                }
                Err(Cause::ErrorEvent) => {
                    let body = std::mem::take(&mut self.plain);
                    self.error_inside(&body)
                }
                Err(cause) => self.broke(cause),
            };
        }
        let rest = self.cutter.take_rest();
        if !rest.is_empty() {
            return self.bare_text(&rest);
        }
        match self.reader.end(true).and_then(|()| self.fold()) {
            Ok(()) => {
                self.state = State::Over;
                Told::Heard(Heard { whole: true, pass: vec![Bytes::from_static(DONE)], ..Heard::default() })
            }
            Err(cause) => self.broke(cause),
        }
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
