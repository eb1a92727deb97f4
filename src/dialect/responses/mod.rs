//! OpenAI's newer language: responses.
//!
//! A conversation is a flat list of items here, an answer as well, and a stream
//! is a story told in events, each with a type and a number: an item begins, a
//! part of it, more of the part, and everything is said again when it is done.
//! Nothing is stored: what stands for something stored is refused by its name.

mod answer;
mod ask;
mod failure;
mod fold;
mod input;
mod item;
mod object;
mod reader;
mod request;
#[cfg(test)]
mod tests;
mod tool;
mod understand;
mod writer;

use bytes::Bytes;

use super::{Asked, Dialect, Door, Fold, Framing, Lack, Plain, Reader, Request, To, Voice, Writer, openai};
use crate::{
    fault::{Cause, Failure},
    generate::{Answer, Event, Meaning, Operation},
};

/// OpenAI's newer language: responses.
pub struct Responses;

impl Dialect for Responses {
    fn id(&self) -> &'static str {
        "responses"
    }

    fn framing(&self) -> Framing {
        Framing::Events
    }

    fn peek(&self, door: Door, body: &Bytes) -> Result<Request, Failure> {
        request::peek(door, body)
    }

    fn understand(&self, _door: Door, body: &[u8]) -> Result<Meaning, Failure> {
        understand::understand(body)
    }

    fn writer(&self, _door: Door, voice: Voice) -> Box<dyn Writer> {
        Box::new(writer::Writer::new(&voice))
    }

    fn whole(&self, _door: Door, answer: &Answer, voice: &Voice) -> Bytes {
        writer::whole(answer, voice)
    }

    fn refuse(&self, failure: &Failure, request_id: &str) -> Bytes {
        // Before the answer has begun both of OpenAI's languages say it alike.
        openai::refuse(failure, request_id)
    }

    fn break_off(&self, failure: &Failure, request_id: &str, frames: u64) -> Bytes {
        failure::break_off(failure, request_id, frames)
    }

    fn keep_alive(&self, _door: Door, _model: &str) -> Bytes {
        Bytes::from_static(openai::KEEP_ALIVE)
    }

    fn readdress(&self, request: &Request, body: &Bytes, to: &To<'_>) -> Bytes {
        request::readdress(request, body, to)
    }

    fn ask(&self, _door: Door, meaning: &Meaning, to: &To<'_>) -> Result<Asked, Lack> {
        ask::ask(meaning, to).map(|it| Bytes::from(it.to_string()).into())
    }

    fn reader(&self, _door: Door, _operation: Operation) -> Box<dyn Reader> {
        Box::new(reader::Reader::default())
    }

    fn fold(&self, _door: Door, _operation: Operation) -> Box<dyn Fold> {
        Box::new(fold::Fold::default())
    }

    fn judge_plain(
        &self,
        _door: Door,
        _operation: Operation,
        body: &[u8],
        events: Option<&mut Vec<Event>>,
    ) -> Result<Plain, Cause> {
        answer::judge_plain(body, events)
    }
}
