//! Anthropic's language: messages, token counts, models.

use bytes::Bytes;

use super::{Asked, Dialect, Door, Fold, Framing, Lack, Plain, Reader, Request, To, Voice, Writer};
use crate::{
    fault::{Cause, Failure},
    generate::{Answer, Event, Meaning, Operation},
};

/// Anthropic's language: messages, token counts, models.
pub struct Anthropic;

impl Dialect for Anthropic {
    fn id(&self) -> &'static str {
        "anthropic"
    }

    fn framing(&self) -> Framing {
        Framing::Events
    }

    fn peek(&self, _door: Door, _body: &Bytes) -> Result<Request, Failure> {
        todo!()
    }

    fn understand(&self, _door: Door, _body: &[u8]) -> Result<Meaning, Failure> {
        todo!()
    }

    fn writer(&self, _door: Door, _voice: Voice) -> Box<dyn Writer> {
        todo!()
    }

    fn whole(&self, _door: Door, _answer: &Answer, _voice: &Voice) -> Bytes {
        todo!()
    }

    fn refuse(&self, _failure: &Failure, _request_id: &str) -> Bytes {
        todo!()
    }

    fn break_off(&self, _failure: &Failure, _request_id: &str, _frames: u64) -> Bytes {
        todo!()
    }

    fn keep_alive(&self, _door: Door, _model: &str) -> Bytes {
        todo!()
    }

    fn readdress(&self, _request: &Request, _body: &Bytes, _to: &To<'_>) -> Bytes {
        todo!()
    }

    fn ask(&self, _door: Door, _meaning: &Meaning, _to: &To<'_>) -> Result<Asked, Lack> {
        todo!()
    }

    fn reader(&self, _door: Door, _operation: Operation) -> Box<dyn Reader> {
        todo!()
    }

    fn fold(&self, _door: Door, _operation: Operation) -> Box<dyn Fold> {
        todo!()
    }

    fn judge_plain(
        &self,
        _door: Door,
        _operation: Operation,
        _body: &[u8],
        _events: Option<&mut Vec<Event>>,
    ) -> Result<Plain, Cause> {
        todo!()
    }
}
