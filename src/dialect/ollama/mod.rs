//! Ollama's own language: chat, generate, embed, and the lists that pickers ask for.
//!
//! Facing the caller: streams are the default, a line is one JSON object, the last
//! has `done` and why. Tool calls come whole, their arguments as an object, so they
//! are held until they are. Facing a server: every request says `truncate: false`
//! unless the caller said otherwise, because Ollama would cut a long prompt without
//! a word. `done` without a reason is how a broken connection looks, not an answer.

mod ask;
mod body;
mod fold;
mod found;
mod line;
mod list;
mod object;
mod option;
mod plain;
#[cfg(test)]
mod properties;
mod reader;
#[cfg(test)]
mod recorded;
mod render;
mod request;
mod turn;
mod understand;
mod warm;
mod writer;

use bytes::Bytes;

pub use self::{
    list::{GREETING, VERSION, named, ps, show, tags, version},
    warm::{Warm, warm},
};
use super::{Asked, Dialect, Door, Fold, Framing, Lack, Plain, Reader, Request, To, Voice, Writer};
use crate::{
    fault::{Cause, Failure},
    generate::{Answer, Event, Meaning, Operation},
};

/// Ollama's own language: chat, generate, embed, lists.
pub struct Ollama;

impl Dialect for Ollama {
    fn id(&self) -> &'static str {
        "ollama"
    }

    fn framing(&self) -> Framing {
        Framing::Lines
    }

    fn peek(&self, door: Door, body: &Bytes) -> Result<Request, Failure> {
        request::peek(door, body)
    }

    fn understand(&self, door: Door, body: &[u8]) -> Result<Meaning, Failure> {
        understand::understand(door, body)
    }

    fn writer(&self, door: Door, voice: Voice) -> Box<dyn Writer> {
        Box::new(writer::Writer::new(door, voice))
    }

    fn whole(&self, door: Door, answer: &Answer, voice: &Voice) -> Bytes {
        writer::whole(door, answer, voice)
    }

    fn refuse(&self, failure: &Failure, _request_id: &str) -> Bytes {
        writer::refuse(failure)
    }

    fn break_off(&self, failure: &Failure, _request_id: &str, _frames: u64) -> Bytes {
        writer::break_off(failure)
    }

    fn keep_alive(&self, door: Door, model: &str) -> Bytes {
        writer::keep_alive(door, model)
    }

    fn readdress(&self, request: &Request, body: &Bytes, to: &To<'_>) -> Bytes {
        request::readdress(request, body, to)
    }

    fn ask_rendered(&self, meaning: &Meaning, to: &To<'_>) -> Option<Bytes> {
        render::ask(meaning, to)
    }

    fn rendered(&self, answer: &[u8]) -> Option<String> {
        render::read(answer)
    }

    fn ask(&self, door: Door, meaning: &Meaning, to: &To<'_>) -> Result<Asked, Lack> {
        ask::ask(door, meaning, to)
    }

    fn reader(&self, door: Door, _operation: Operation) -> Box<dyn Reader> {
        Box::new(reader::Reader::new(door))
    }

    fn fold(&self, door: Door, _operation: Operation) -> Box<dyn Fold> {
        Box::new(fold::Fold::new(door))
    }

    fn judge_plain(
        &self,
        door: Door,
        _operation: Operation,
        body: &[u8],
        events: Option<&mut Vec<Event>>,
    ) -> Result<Plain, Cause> {
        plain::judge(door, body, events)
    }
}
