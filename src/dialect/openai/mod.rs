//! OpenAI's language: chat completions, completions, embeddings, models.
//!
//! Facing the caller: `peek` finds what routing needs, `refuse` and `break_off`
//! say what went wrong, `list` and `one` say what there is. Facing a server:
//! `Request::readdress` splices the caller's own bytes, `Reader` judges each
//! event of a stream, `judge_plain` a whole answer, `Fold` makes one out of a
//! stream. What nobody here has a name for goes through unchanged.

mod chunk;
mod fold;
mod generate;
mod plain;
mod reader;
mod request;
mod writer;

use bytes::Bytes;

use self::request::operation;
use super::{Asked, Dialect, Door, Framing, Judged, Lack, Plain, Request, To, Voice};
use crate::{
    fault::{Cause, Failure},
    generate::{Answer, Event, Meaning, Operation, Reason, Usage},
};

pub(in crate::dialect) use self::request::Spans;
pub use self::{
    fold::Fold,
    generate::generate,
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

    fn understand(&self, _door: Door, _body: &[u8]) -> Result<Meaning, Failure> {
        todo!()
    }

    fn writer(&self, _door: Door, _voice: Voice) -> Box<dyn super::Writer> {
        todo!()
    }

    fn whole(&self, _door: Door, _answer: &Answer, _voice: &Voice) -> Bytes {
        todo!()
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

    fn ask(&self, _door: Door, _meaning: &Meaning, _to: &To<'_>) -> Result<Asked, Lack> {
        todo!()
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
        _events: Option<&mut Vec<Event>>,
    ) -> Result<Plain, Cause> {
        judge_plain(operation(door), body)
    }
}

impl super::Reader for Reader {
    fn read(&mut self, data: &[u8], _events: Option<&mut Vec<Event>>) -> Judged {
        self.judge(data)
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
