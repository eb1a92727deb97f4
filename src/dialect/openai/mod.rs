//! OpenAI's language: chat completions, completions, embeddings, models.
//!
//! Facing the caller: `peek` finds what routing needs, `refuse` and `break_off`
//! say what went wrong, `list` and `one` say what there is. Facing a server:
//! `readdress` splices the caller's own bytes, `Reader` judges each
//! event of a stream, `judge_plain` a whole answer, `Fold` makes one out of a
//! stream. What nobody here has a name for goes through unchanged.
//!
//! Where the other side speaks another language: `understand` takes a request
//! apart and `Speaker` and `whole` write the answer; `ask` puts a request
//! together, and `Events` tells what came back.

mod ask;
mod base64;
mod chunk;
mod conversation;
mod events;
mod fold;
mod generate;
mod go_on;
mod mend;
mod messages;
mod plain;
mod reader;
mod request;
mod sold;
mod speak;
mod understand;
mod whole;
mod writer;

use bytes::Bytes;

use self::{request::operation, speak::Speaker};
use super::{Asked, Beginning, Dialect, Door, Framing, Judged, Lack, Plain, Request, To, Voice};
use crate::{
    fault::{Cause, Failure},
    generate::{Answer, Begun, Event, Meaning, Operation, Reason, Usage},
};

pub(in crate::dialect) use self::request::Spans;
pub use self::{
    fold::Fold,
    generate::generate,
    mend::Numbering,
    plain::judge_plain,
    reader::Reader,
    request::{peek, readdress},
    writer::{DONE, KEEP_ALIVE, break_off, list, one, refuse},
};

/// OpenAI's chat completions, completions and embeddings.
pub struct OpenAi;

impl Dialect for OpenAi {
    fn id(&self) -> &'static str {
        "openai"
    }

    fn framing(&self) -> Framing {
        Framing::Events
    }

    fn peek(&self, door: Door, body: &Bytes) -> Result<Request, Failure> {
        peek(door, body)
    }

    fn understand(&self, door: Door, body: &[u8]) -> Result<Meaning, Failure> {
        understand::understand(door, body)
    }

    fn writer(&self, door: Door, voice: Voice) -> Box<dyn super::Writer> {
        Box::new(Speaker::new(door, &voice))
    }

    fn writer_after(&self, door: Door, voice: Voice, first: &[u8]) -> Box<dyn super::Writer> {
        Box::new(Speaker::after(door, &voice, first))
    }

    fn whole(&self, door: Door, answer: &Answer, voice: &Voice) -> Bytes {
        whole::whole(door, answer, voice)
    }

    fn refuse(&self, failure: &Failure, request_id: &str) -> Bytes {
        refuse(failure, request_id)
    }

    fn break_off(&self, failure: &Failure, _request_id: &str, _frames: u64) -> Bytes {
        break_off(failure)
    }

    fn keep_alive(&self, _door: Door, _model: &str) -> Bytes {
        Bytes::from_static(KEEP_ALIVE)
    }

    fn readdress(&self, request: &Request, body: &Bytes, to: &To<'_>) -> Bytes {
        readdress(request, body, to)
    }

    fn go_on(&self, door: Door, asked: &Bytes, beginning: &Beginning<'_>) -> Option<Bytes> {
        go_on::go_on(door, asked, beginning)
    }

    fn limit(&self, asked: &Bytes, max_tokens: u64) -> Bytes {
        go_on::limit(asked, max_tokens)
    }

    fn ask(&self, door: Door, meaning: &Meaning, to: &To<'_>) -> Result<Asked, Lack> {
        ask::ask(door, meaning, to)
    }

    fn reader(&self, door: Door, _operation: Operation) -> Box<dyn super::Reader> {
        Box::new(Reader::new(operation(door)))
    }

    fn fold(&self, door: Door, _operation: Operation) -> Box<dyn super::Fold> {
        Box::new(Fold::new(operation(door)))
    }

    fn judge_plain(
        &self,
        door: Door,
        _operation: Operation,
        body: &[u8],
        events: Option<&mut Vec<Event>>,
    ) -> Result<Plain, Cause> {
        let operation = operation(door);
        let plain = judge_plain(operation, body)?;
        if let Some(events) = events {
            plain::tell(operation, body, &plain, events)?;
        }
        Ok(plain)
    }
}

impl super::Reader for Reader {
    fn read(&mut self, data: &[u8], events: Option<&mut Vec<Event>>) -> Judged {
        match events {
            Some(events) => self.tell(data, events),
            None => self.judge(data),
        }
    }

    fn read_on(&mut self, data: &[u8], begun: &mut Begun) -> Judged {
        self.judge_into(data, Some(begun))
    }

    fn end(&self, clean: bool) -> Result<(), Cause> {
        Reader::end(self, clean)
    }

    fn missing_terminator(&self) -> Bytes {
        Bytes::from_static(DONE)
    }

    fn usage(&self) -> Usage {
        Reader::usage(self)
    }

    fn reason(&self) -> Option<Reason> {
        Reader::reason(self)
    }
}

impl super::Fold for Fold {
    fn add(&mut self, data: &[u8]) {
        Fold::add(self, data);
    }

    fn held(&self) -> usize {
        self.len()
    }

    fn is_broken(&self) -> bool {
        Fold::is_broken(self)
    }

    fn finish(self: Box<Self>) -> Result<Bytes, Cause> {
        Fold::finish(*self)
    }
}
