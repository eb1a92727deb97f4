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
mod tests {
    use super::*;
    use crate::dialect::Reader as _;

    const START: &str = r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"x","content":[],"usage":{"input_tokens":4,"output_tokens":1}}}"#;
    const TEXT: &str =
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    const WORD: &str = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
    const CLOSE: &str = r#"{"type":"content_block_stop","index":0}"#;
    const FINISH: &str = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":3}}"#;
    const STOP: &str = r#"{"type":"message_stop"}"#;

    fn verdicts(events: &[&str]) -> Vec<Verdict> {
        let mut reader = Reader::default();
        events.iter().map(|it| reader.read(it.as_bytes(), None).verdict).collect()
    }

    fn end(events: &[&str], clean: bool) -> Result<(), Cause> {
        let mut reader = Reader::default();
        for event in events {
            reader.read(event.as_bytes(), None);
        }
        reader.end(clean)
    }

    fn means(events: &[&str]) -> Vec<Event> {
        let mut reader = Reader::default();
        let mut out = Vec::new();
        for event in events {
            reader.read(event.as_bytes(), Some(&mut out));
        }
        out
    }

    #[test]
    fn an_answer_by_the_book() {
        use Verdict::{Content, Done, Finish, Quiet};
        let ping = r#"{"type":"ping"}"#;
        let all = [START, ping, TEXT, WORD, CLOSE, FINISH, STOP];
        assert_eq!(verdicts(&all), [Quiet, Quiet, Quiet, Content, Quiet, Finish, Done]);
        let usage =
            |output| Event::Usage(Usage { input_tokens: Some(4), output_tokens: output, ..Usage::default() });
        let finished = Event::Finished { reason: Reason::Stop, stop: None };
        assert_eq!(means(&all), [usage(None), Event::Text("a".to_owned()), finished, usage(Some(3))]);
    }

    #[test]
    fn whole_is_a_stop_reason_and_then_an_end() {
        let all = [START, TEXT, WORD, CLOSE, FINISH];
        assert_eq!(end(&[&all[..], &[STOP]].concat(), true), Ok(()));
        assert_eq!(end(&[&all[..], &[STOP]].concat(), false), Ok(()));
        assert_eq!(end(&all, true), Ok(()));
        assert_eq!(end(&all, false), Err(Cause::EarlyEnd));
        assert_eq!(end(&[START, TEXT, WORD, CLOSE, STOP], true), Err(Cause::EarlyEnd));
        assert_eq!(end(&[START, TEXT, WORD], true), Err(Cause::EarlyEnd), "Ollama, its runner killed");
        assert_eq!(end(&[START], true), Err(Cause::EarlyEnd));
        assert_eq!(end(&[START, FINISH, STOP], true), Ok(()), "a model may say nothing");
        assert_eq!(end(&[], true), Err(Cause::Empty));
        assert_eq!(end(&[], false), Err(Cause::EarlyEnd));
        assert_eq!(end(&["[DONE]"], true), Err(Cause::Empty));
        let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#;
        assert_eq!(end(&[START, error], true), Err(Cause::ErrorEvent));
        assert_eq!(end(&[&all[..], &[error, STOP]].concat(), true), Err(Cause::ErrorEvent));
        let silent = FINISH.replace("\"end_turn\"", "null");
        assert_eq!(end(&[START, TEXT, WORD, CLOSE, &silent, STOP], true), Err(Cause::EarlyEnd));
    }

    #[test]
    fn a_missing_end_is_added_and_only_then() {
        let ending = |events: &[&str]| {
            let mut reader = Reader::default();
            for event in events {
                reader.read(event.as_bytes(), None);
            }
            reader.missing_terminator()
        };
        assert_eq!(ending(&[START, FINISH]), MESSAGE_STOP);
        assert_eq!(ending(&[START, FINISH, "[DONE]"]), MESSAGE_STOP);
        assert_eq!(ending(&[START, FINISH, STOP, "[DONE]"]), "");
    }

    #[test]
    fn an_error_is_seen_in_all_its_shapes() {
        for error in [
            r#"{"type":"error","error":{"type":"api_error","message":"x"}}"#,
            r#"{"type":"error"}"#,
            r#"{"code":500,"message":"x","type":"server_error"}"#,
            r#"{"error":{"message":"x","code":500}}"#,
            r#"{"error":"Unexpected endpoint or method."}"#,
        ] {
            assert_eq!(verdicts(&[error]), [Verdict::Error], "{error}");
        }
        for reason in ["abort", "error"] {
            let failed = FINISH.replace("end_turn", reason);
            assert_eq!(verdicts(&[START, &failed])[1], Verdict::Error);
        }
    }

    #[test]
    fn what_is_no_event_of_this_language_is_unreadable() {
        for data in [
            "",
            "x",
            "5",
            "[]",
            "{}",
            r#"{"choices":[]}"#,
            r#"{"type":5}"#,
            r#"{"type":"message_start"}"#,
            r#"{"type":"message_start","message":[]}"#,
            TEXT,
            FINISH,
        ] {
            assert_eq!(verdicts(&[data]), [Verdict::Unreadable], "for {data}");
        }
        for data in [WORD, CLOSE, START, r#"{"type":"content_block_start","index":0}"#] {
            assert_eq!(verdicts(&[START, data])[1], Verdict::Unreadable, "for {data}");
        }
        assert_eq!(verdicts(&[START, TEXT, TEXT])[2], Verdict::Unreadable);
        assert_eq!(verdicts(&[START, TEXT, CLOSE, WORD])[3], Verdict::Unreadable);
        assert_eq!(verdicts(&[START, TEXT, FINISH, WORD])[3], Verdict::Unreadable, "words after the end");
        assert_eq!(verdicts(&[r#"{"type":"from the future"}"#]), [Verdict::Quiet]);
    }

    #[test]
    fn every_stop_reason_has_a_meaning() {
        for (reason, expected) in [
            ("end_turn", Reason::Stop),
            ("stop_sequence", Reason::Stop),
            ("max_tokens", Reason::Length),
            ("model_context_window_exceeded", Reason::Length),
            ("tool_use", Reason::ToolCalls),
            ("refusal", Reason::ContentFilter),
            ("pause_turn", Reason::Other),
            ("new", Reason::Other),
        ] {
            let mut reader = Reader::default();
            reader.read(START.as_bytes(), None);
            reader.read(FINISH.replace("end_turn", reason).as_bytes(), None);
            assert_eq!(reader.reason(), Some(expected), "for {reason}");
        }
        let stop =
            r#"{"type":"message_delta","delta":{"stop_reason":"stop_sequence","stop_sequence":"END"}}"#;
        let expected = Event::Finished { reason: Reason::Stop, stop: Some("END".to_owned()) };
        assert_eq!(means(&[START, stop])[1..], [expected]);
    }

    #[test]
    fn calls_are_counted_and_have_arguments_in_any_case() {
        let start = |index: usize, input: &str| {
            format!(
                "{{\"type\":\"content_block_start\",\"index\":{index},\"content_block\":{{\"type\":\"tool_use\",\"id\":\"t{index}\",\"name\":\"f\",\"input\":{input}}}}}"
            )
        };
        let piece = |text: &str| {
            format!(
                "{{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{{\"type\":\"input_json_delta\",\"partial_json\":\"{text}\"}}}}"
            )
        };
        let close = |index: usize| format!("{{\"type\":\"content_block_stop\",\"index\":{index}}}");
        let all = [
            START.to_owned(),
            TEXT.to_owned(),
            WORD.to_owned(),
            CLOSE.to_owned(),
            start(1, "{}"),
            piece(""),
            piece("{\\\"a\\\""),
            piece(":1}"),
            close(1),
            start(2, "{\"b\":2}"),
            close(2),
            start(3, "{}"),
            FINISH.replace("end_turn", "tool_use"),
        ];
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let call = |index, id: &str| Event::Call { index, id: Some(id.to_owned()), name: "f".to_owned() };
        let arguments = |index, text: &str| Event::Arguments { index, text: text.to_owned() };
        let events = means(&all);
        let expected = [
            Event::Text("a".to_owned()),
            call(0, "t1"),
            arguments(0, "{\"a\""),
            arguments(0, ":1}"),
            call(1, "t2"),
            arguments(1, "{\"b\":2}"),
            call(2, "t3"),
            arguments(2, "{}"),
            Event::Finished { reason: Reason::ToolCalls, stop: None },
        ];
        assert_eq!(events[1..events.len() - 1], expected);
    }

    #[test]
    fn thoughts_and_their_proofs() {
        let start = r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#;
        let piece = |kind: &str, text: &str| {
            format!(
                "{{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"{kind}_delta\",\"{kind}\":\"{text}\"}}}}"
            )
        };
        let thought = Event::Thinking("hm".to_owned());
        let events = means(&[START, start, &piece("thinking", "hm"), &piece("signature", "s")]);
        assert_eq!(events[1..], [thought.clone(), Event::Signature("s".to_owned())]);
        let events = means(&[START, start, &piece("thinking", "hm"), &piece("signature", UNSIGNED)]);
        assert_eq!(events[1..], [thought], "our own mark proves nothing");
        let hidden = r#"{"type":"content_block_start","index":0,"content_block":{"type":"redacted_thinking","data":"d"}}"#;
        assert_eq!(means(&[START, hidden])[1..], [Event::Signature("d".to_owned())]);
        assert_eq!(verdicts(&[START, hidden])[1], Verdict::Content);
    }
}
