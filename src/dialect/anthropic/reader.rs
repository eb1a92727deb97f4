//! Judges each event of a stream before its bytes go on, and says what it means.
//!
//! A stream is whole only when a `message_delta` has had a stop reason, and then
//! `message_stop` or a clean end came: Ollama's stream ends cleanly after its
//! runner died, in the middle of a block. Blocks must begin before they go on,
//! because official clients keep them in a list and fall over a piece of one
//! that is not in it.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;

use super::{
    UNSIGNED,
    frame::{Block, Counts, Ending, Frame, Stop, object, something},
};
use crate::{
    dialect::{self, Judged, Verdict},
    fault::Cause,
    generate::{Event, Reason, Usage},
};

/// Ends a stream whose answer is whole.
const MESSAGE_STOP: &[u8] = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// Reads one stream.
#[derive(Debug, Default)]
pub(super) struct Reader {
    begun: bool,
    open: BTreeMap<u64, Open>,
    calls: usize,
    said: bool,
    done: bool,
    failed: Option<Cause>,
    counts: Counts,
    reason: Option<Reason>,
}

/// A block that has begun and not ended.
#[derive(Debug)]
enum Open {
    /// Not a call.
    Other,
    /// A call, and the arguments that stood in its beginning, if no others come.
    Call { index: usize, arguments: Option<String> },
}

/// Where events go, if anyone wants them: on pass-through none are made.
struct Out<'a>(Option<&'a mut Vec<Event>>);

impl Out<'_> {
    fn give(&mut self, event: impl FnOnce() -> Event) {
        if let Some(events) = &mut self.0 {
            events.push(event());
        }
    }
}

impl Reader {
    fn look(&mut self, data: &[u8], out: &mut Out<'_>) -> Option<Judged> {
        // vLLM ends this stream, too, as OpenAI's; no client of this language waits for it.
        if data.trim_ascii() == b"[DONE]" {
            return Some(if self.done { Verdict::Done } else { Verdict::Quiet }.into());
        }
        let frame = Frame::read(data)?;
        let kind = frame.kind();
        match kind.as_deref() {
            Some("ping") => Some(Verdict::Quiet.into()),
            Some("message_start") => self.message_start(&frame, out),
            Some("content_block_start") => self.block_start(&frame, out),
            Some("content_block_delta") => self.block_delta(&frame, out),
            Some("content_block_stop") => self.block_stop(&frame, out),
            Some("message_delta") => self.message_delta(&frame, out),
            Some("message_stop") => Some(Verdict::Done.into()),
            _ if frame.is_error() => Some(Verdict::Error.into()),
            // By the book there may be new sorts, which clients pass over.
            Some(_) => Some(Verdict::Quiet.into()),
            None => None,
        }
    }

    fn message_start(&mut self, frame: &Frame<'_>, out: &mut Out<'_>) -> Option<Judged> {
        let message: Frame<'_> = object(frame.message?.get())?;
        if std::mem::replace(&mut self.begun, true) {
            return None;
        }
        self.counts.take(message.usage);
        self.counts.begin();
        let usage = self.counts.usage(false);
        if usage != Usage::default() {
            out.give(|| Event::Usage(usage));
        }
        Some(Verdict::Quiet.into())
    }

    fn block_start(&mut self, frame: &Frame<'_>, out: &mut Out<'_>) -> Option<Judged> {
        let (index, block) = (frame.index?, Block::read(frame.content_block)?);
        if !self.begun || self.reason.is_some() || self.open.contains_key(&index) {
            return None;
        }
        let (open, verdict) = match block.kind()?.as_ref() {
            "text" => (Open::Other, self.say(Event::Text, block.text(), out)),
            "thinking" => {
                let verdict = self.say(Event::Thinking, block.thinking(), out);
                sign(block.signature(), out);
                (Open::Other, verdict)
            }
            "redacted_thinking" => (Open::Other, self.say(Event::Signature, block.data(), out)),
            "tool_use" => {
                let call = self.calls;
                self.calls += 1;
                self.said = true;
                out.give(|| Event::Call { index: call, id: block.id(), name: block.name().into_owned() });
                let arguments = Some(block.input.map_or("{}", |it| it.get()).to_owned());
                (Open::Call { index: call, arguments }, Verdict::Content)
            }
            // A tool of the server's own, and what it gave: only a caller who asked for it, in
            // this language, gets one.
            _ => {
                self.said = true;
                (Open::Other, Verdict::Content)
            }
        };
        self.open.insert(index, open);
        Some(verdict.into())
    }

    fn block_delta(&mut self, frame: &Frame<'_>, out: &mut Out<'_>) -> Option<Judged> {
        let (index, delta) = (frame.index?, Block::read(frame.delta)?);
        let open = self.open.get_mut(&index)?;
        if self.reason.is_some() {
            return None;
        }
        let verdict = match (delta.kind()?.as_ref(), open) {
            ("text_delta", _) => self.say(Event::Text, delta.text(), out),
            ("thinking_delta", _) => self.say(Event::Thinking, delta.thinking(), out),
            ("signature_delta", _) => {
                sign(delta.signature(), out);
                Verdict::Quiet
            }
            ("input_json_delta", Open::Call { index, arguments }) => {
                let text = delta.partial_json();
                if text.is_empty() {
                    Verdict::Quiet
                } else {
                    *arguments = None;
                    out.give(|| Event::Arguments { index: *index, text: text.into_owned() });
                    Verdict::Content
                }
            }
            // Citations, arguments of the server's own tools, and what is new.
            _ => Verdict::Content,
        };
        Some(verdict.into())
    }

    fn block_stop(&mut self, frame: &Frame<'_>, out: &mut Out<'_>) -> Option<Judged> {
        if let Open::Call { index, arguments: Some(text) } = self.open.remove(&frame.index?)? {
            out.give(|| Event::Arguments { index, text });
        }
        Some(Verdict::Quiet.into())
    }

    fn message_delta(&mut self, frame: &Frame<'_>, out: &mut Out<'_>) -> Option<Judged> {
        if !self.begun {
            return None;
        }
        let ending: Ending<'_> = frame.delta.map_or(Some(Ending::default()), |it| object(it.get()))?;
        self.counts.take(frame.usage);
        let mut finished = false;
        if let Some(reason) = something(ending.stop_reason)
            && self.reason.is_none()
        {
            let Stop::Whole(reason) = Stop::of(&reason) else { return Some(Verdict::Error.into()) };
            self.reason = Some(reason);
            // Of a call that was never closed the arguments may be at the beginning.
            for open in std::mem::take(&mut self.open).into_values() {
                if let Open::Call { index, arguments: Some(text) } = open {
                    out.give(|| Event::Arguments { index, text });
                }
            }
            out.give(|| Event::Finished { reason, stop: something(ending.stop_sequence) });
            finished = true;
        }
        if frame.usage.is_some() {
            out.give(|| Event::Usage(self.counts.usage(self.said)));
        }
        let verdict = if finished { Verdict::Finish } else { Verdict::Quiet };
        Some(Judged { verdict, finished })
    }

    fn say(&mut self, event: fn(String) -> Event, text: Cow<'_, str>, out: &mut Out<'_>) -> Verdict {
        if text.is_empty() {
            return Verdict::Quiet;
        }
        self.said = true;
        out.give(|| event(text.into_owned()));
        Verdict::Content
    }
}

fn sign(signature: Cow<'_, str>, out: &mut Out<'_>) {
    if !signature.is_empty() && signature != UNSIGNED {
        out.give(|| Event::Signature(signature.into_owned()));
    }
}

impl dialect::Reader for Reader {
    fn read(&mut self, data: &[u8], events: Option<&mut Vec<Event>>) -> Judged {
        let judged = self.look(data, &mut Out(events)).unwrap_or(Verdict::Unreadable.into());
        match judged.verdict {
            Verdict::Error => self.failed = self.failed.or(Some(Cause::ErrorEvent)),
            Verdict::Unreadable => self.failed = self.failed.or(Some(Cause::Unreadable)),
            Verdict::Done => self.done = true,
            Verdict::Content | Verdict::Quiet | Verdict::Finish | Verdict::Usage => {}
        }
        judged
    }

    fn end(&self, clean: bool) -> Result<(), Cause> {
        match self.failed {
            Some(cause) => Err(cause),
            None if self.reason.is_some() && (self.done || clean) => Ok(()),
            None if !self.begun && (self.done || clean) => Err(Cause::Empty),
            None => Err(Cause::EarlyEnd),
        }
    }

    fn missing_terminator(&self) -> Bytes {
        if self.done { Bytes::new() } else { Bytes::from_static(MESSAGE_STOP) }
    }

    fn usage(&self) -> Usage {
        self.counts.usage(self.said)
    }

    fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
