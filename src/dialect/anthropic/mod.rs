//! Anthropic's language: messages, token counts, models.
//!
//! Facing the caller: `request` peeks at requests and sends them on, `understand`
//! and `block` take them apart, `writer` and `whole` write answers, `failure` says
//! what went wrong, `list` and `count` answer the side doors. Facing a server:
//! `ask` asks (the turns are in `conversation`), `reader` judges a stream and says what it means, `plain` does so
//! with a whole answer, and `fold` makes one out of a stream. `frame` has what the
//! three look at.

mod ask;
mod block;
mod conversation;
mod count;
mod failure;
mod fields;
mod fold;
mod frame;
mod list;
mod plain;
mod reader;
#[cfg(test)]
mod recorded;
mod request;
mod understand;
mod whole;
mod writer;

use bytes::Bytes;

pub use self::{
    count::{Counted, count, counted},
    list::{list, one},
};
use super::{Asked, Dialect, Door, Fold, Framing, Lack, Plain, Reader, Request, To, Voice, Writer};
use crate::{
    fault::{Cause, Failure},
    generate::{Answer, Event, Meaning, Operation},
};

/// The proof under a thought that nobody signed.
///
/// Clients of this language throw a thought without a proof away and do not send it
/// back, but models that think between calls of tools must see what they thought. So
/// there is a mark where a proof would be (`lovable` in base64); it proves nothing,
/// and is taken off where it comes back.
const UNSIGNED: &str = "bG92YWJsZQ==";

/// Anthropic's language: messages, token counts, models.
pub struct Anthropic;

impl Dialect for Anthropic {
    fn id(&self) -> &'static str {
        "anthropic"
    }

    fn framing(&self) -> Framing {
        Framing::Events
    }

    fn peek(&self, door: Door, body: &Bytes) -> Result<Request, Failure> {
        request::peek(door, body)
    }

    fn understand(&self, _door: Door, body: &[u8]) -> Result<Meaning, Failure> {
        understand::understand(body).map(Meaning::Chat)
    }

    fn writer(&self, _door: Door, voice: Voice) -> Box<dyn Writer> {
        Box::new(writer::Writer::new(voice))
    }

    fn whole(&self, _door: Door, answer: &Answer, voice: &Voice) -> Bytes {
        whole::whole(answer, voice)
    }

    fn refuse(&self, failure: &Failure, request_id: &str) -> Bytes {
        failure::refuse(failure, request_id)
    }

    fn break_off(&self, failure: &Failure, request_id: &str, _frames: u64) -> Bytes {
        failure::break_off(failure, request_id)
    }

    fn keep_alive(&self, _door: Door, _model: &str) -> Bytes {
        Bytes::from_static(b"event: ping\ndata: {\"type\":\"ping\"}\n\n")
    }

    fn readdress(&self, request: &Request, body: &Bytes, to: &To<'_>) -> Bytes {
        request::readdress(request, body, to)
    }

    fn ask(&self, _door: Door, meaning: &Meaning, to: &To<'_>) -> Result<Asked, Lack> {
        ask::ask(meaning, to)
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
        plain::judge_plain(body, events)
    }
}
