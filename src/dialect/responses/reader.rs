//! Judges each event of a stream by its type before its bytes go on.
//!
//! A stream is whole only with `response.completed` or `response.incomplete`
//! and an answer in it. `response.failed` and `error` are errors, and so is an
//! `error` without a type. Servers differ in what they leave out: what no delta
//! brought is taken from the item when it is done, or from the answer at the end.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::answer::{self, Whole, is_call};
use crate::{
    dialect::{Judged, Verdict, json},
    fault::Cause,
    generate::{Event, Reason, Usage},
};

/// Reads one stream.
#[derive(Debug, Default)]
pub(super) struct Reader {
    came: bool,
    failed: Option<Cause>,
    reason: Option<Reason>,
    usage: Usage,
    items: BTreeMap<u64, Seen>,
    /// How many functions were called.
    called: usize,
    /// Whether a call of any sort came.
    calls: bool,
    /// Whether anything came that a caller would miss.
    content: bool,
}

/// What came of an item.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The number of the call that it is.
    call: Option<usize>,
    /// Whether a delta came.
    delta: bool,
    /// Whether the thought came itself, and not what is told of it.
    raw: Option<bool>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    output_index: Option<&'a RawValue>,
    #[serde(borrow)]
    summary_index: Option<&'a RawValue>,
}

impl<'a> Frame<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        // Checked as a whole, since fields that are skipped are not looked at.
        let text = std::str::from_utf8(data).ok()?;
        if !text.trim_ascii_start().starts_with('{') {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    /// The number of the item that this is about.
    fn place(&self) -> u64 {
        self.output_index.and_then(|it| it.get().parse().ok()).unwrap_or(0)
    }

    fn delta(&self) -> Option<String> {
        json::text(self.delta?).filter(|it| !it.is_empty()).map(|it| it.into_owned())
    }

    fn logprobs(&self) -> Option<Event> {
        let all: Vec<Value> = serde_json::from_str(self.logprobs?.get()).ok()?;
        (!all.is_empty()).then_some(Event::Logprobs(all))
    }

    fn item(&self) -> Option<Value> {
        serde_json::from_str(self.item?.get()).ok()
    }
}

impl Reader {
    fn look(&mut self, data: &[u8], events: &mut Vec<Event>) -> Judged {
        if data.trim_ascii() == b"[DONE]" {
            return Verdict::Done.into();
        }
        let Some(frame) = Frame::read(data) else { return Verdict::Unreadable.into() };
        let is_error = frame.error.is_some_and(|it| !json::is_nothing(it))
            || frame.object.is_some_and(|it| it.get() == "\"error\"");
        if is_error {
            return Verdict::Error.into();
        }
        let Some(kind) = frame.r#type.and_then(json::text) else { return Verdict::Unreadable.into() };
        match kind.as_ref() {
            "error" | "response.failed" | "response.cancelled" => return Verdict::Error.into(),
            "response.completed" | "response.incomplete" => return self.last(&kind, &frame, events),
            "response.output_item.added" => return self.item_begins(&frame, events),
            "response.output_item.done" => return self.item_ends(&frame, events),
            "response.output_text.delta" => {
                if let Some(text) = frame.delta() {
                    self.delta(&frame);
                    events.push(Event::Text(text));
                }
                events.extend(frame.logprobs());
            }
            "response.refusal.delta" => {
                if let Some(text) = frame.delta() {
                    self.delta(&frame);
                    events.push(Event::Refusal(text));
                }
            }
            "response.reasoning_text.delta" | "response.reasoning.delta" => {
                self.thinks(&frame, true, events);
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_summary.delta" => {
                self.thinks(&frame, false, events);
            }
            "response.reasoning_summary_part.added" => {
                let seen = self.items.entry(frame.place()).or_default();
                let follows = frame.summary_index.is_some_and(|it| it.get() != "0");
                if follows && seen.delta && seen.raw == Some(false) {
                    events.push(Event::Thinking("\n\n".to_owned()));
                }
            }
            "response.function_call_arguments.delta" => {
                // Of a call that was not announced nothing can be said until it is done.
                let call = self.items.get(&frame.place()).and_then(|it| it.call);
                if let (Some(index), Some(text)) = (call, frame.delta()) {
                    self.delta(&frame);
                    events.push(Event::Arguments { index, text });
                }
            }
            // Whatever else brings more of something, such as the input of a custom tool.
            other if other.ends_with(".delta") => {
                let verdict = if frame.delta().is_some() { Verdict::Content } else { Verdict::Quiet };
                return verdict.into();
            }
            _ => {}
        }
        (if events.is_empty() { Verdict::Quiet } else { Verdict::Content }).into()
    }

    fn delta(&mut self, frame: &Frame<'_>) {
        self.items.entry(frame.place()).or_default().delta = true;
    }

    /// Takes the thought in one of its two forms, whichever comes first.
    fn thinks(&mut self, frame: &Frame<'_>, raw: bool, events: &mut Vec<Event>) {
        let Some(text) = frame.delta() else { return };
        let seen = self.items.entry(frame.place()).or_default();
        if *seen.raw.get_or_insert(raw) == raw {
            seen.delta = true;
            events.push(Event::Thinking(text));
        }
    }

    fn item_begins(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Judged {
        let Some(item) = frame.item() else { return Verdict::Unreadable.into() };
        let kind = item["type"].as_str().unwrap_or_default();
        let seen = self.items.entry(frame.place()).or_default();
        *seen = Seen::default();
        if kind == "function_call" {
            seen.call = Some(self.called);
            events.push(answer::call(&item, self.called));
            self.called += 1;
        }
        self.calls |= is_call(kind);
        // A call is missed if it is gone, whoever carries it out.
        match kind {
            "message" | "reasoning" => Verdict::Quiet,
            _ => Verdict::Content,
        }
        .into()
    }

    fn item_ends(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Judged {
        let Some(item) = frame.item() else { return Verdict::Unreadable.into() };
        let kind = item["type"].as_str().unwrap_or_default();
        self.calls |= is_call(kind);
        let seen = self.items.entry(frame.place()).or_default();
        match kind {
            "message" if !seen.delta => events.extend(answer::spoken(&item)),
            "reasoning" => {
                if !seen.delta {
                    events.extend(answer::thought(&item));
                }
                events.extend(answer::proof(&item));
            }
            "function_call" => {
                if seen.call.is_none() {
                    seen.call = Some(self.called);
                    events.push(answer::call(&item, self.called));
                    self.called += 1;
                }
                if !seen.delta {
                    events.extend(seen.call.and_then(|it| answer::arguments(&item, it)));
                }
            }
            _ => {}
        }
        seen.delta = true;
        (if events.is_empty() { Verdict::Quiet } else { Verdict::Content }).into()
    }

    fn last(&mut self, kind: &str, frame: &Frame<'_>, events: &mut Vec<Event>) -> Judged {
        // An answer ends once.
        if self.reason.is_some() {
            return Verdict::Unreadable.into();
        }
        let whole = frame.response.and_then(|it| Whole::read(it.get().as_bytes()));
        let Some(whole) = whole else { return Verdict::Unreadable.into() };
        let kinds = whole.kinds().unwrap_or_default();
        let calls = self.calls || kinds.iter().any(|it| is_call(it));
        let reason = match whole.reason(kind.strip_prefix("response."), calls) {
            Ok(reason) => reason,
            Err(Cause::ErrorEvent) => return Verdict::Error.into(),
            Err(_) => return Verdict::Unreadable.into(),
        };
        if !self.content && self.items.is_empty() {
            let output = whole.output.map(RawValue::get).unwrap_or_default();
            for item in serde_json::from_str::<Vec<Value>>(output).unwrap_or_default() {
                answer::said(&item, &mut self.called, events);
            }
        }
        if let Some(usage) = whole.usage() {
            self.usage = usage;
            events.push(Event::Usage(usage));
        }
        self.reason = Some(reason);
        events.push(Event::Finished { reason, stop: None });
        Judged { verdict: Verdict::Done, finished: true }
    }
}

impl crate::dialect::Reader for Reader {
    fn read(&mut self, data: &[u8], events: Option<&mut Vec<Event>>) -> Judged {
        let mut said = Vec::new();
        let judged = self.look(data, &mut said);
        match judged.verdict {
            Verdict::Error => self.failed = self.failed.or(Some(Cause::ErrorEvent)),
            Verdict::Unreadable => self.failed = self.failed.or(Some(Cause::Unreadable)),
            Verdict::Content => (self.came, self.content) = (true, true),
            Verdict::Quiet | Verdict::Finish | Verdict::Usage => self.came = true,
            Verdict::Done => self.came |= judged.finished,
        }
        if let Some(events) = events {
            events.append(&mut said);
        }
        judged
    }

    fn end(&self, clean: bool) -> Result<(), Cause> {
        match (self.failed, self.reason) {
            (Some(cause), _) => Err(cause),
            // The last event is the terminator as well.
            (None, Some(_)) => Ok(()),
            (None, None) if !self.came && clean => Err(Cause::Empty),
            (None, None) => Err(Cause::EarlyEnd),
        }
    }

    fn missing_terminator(&self) -> Bytes {
        Bytes::new()
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Reader as _;

    fn judge(data: &str) -> Verdict {
        Reader::default().read(data.as_bytes(), None).verdict
    }

    fn check(data: &str, expected: Verdict) {
        assert_eq!(judge(data), expected, "for {data}");
    }

    fn read(frames: &[&str]) -> (Vec<Event>, Result<(), Cause>) {
        let (mut reader, mut events) = (Reader::default(), Vec::new());
        for frame in frames {
            reader.read(frame.as_bytes(), Some(&mut events));
        }
        (events, reader.end(true))
    }

    fn means(frames: &[&str], expected: &[Event]) {
        assert_eq!(read(frames).0, expected, "for {frames:?}");
    }

    fn end(frames: &[&str], clean: bool) -> Result<(), Cause> {
        let mut reader = Reader::default();
        for frame in frames {
            reader.read(frame.as_bytes(), None);
        }
        reader.end(clean)
    }

    fn text(text: &str) -> Event {
        Event::Text(text.to_owned())
    }

    fn stop() -> Event {
        Event::Finished { reason: Reason::Stop, stop: None }
    }

    fn call(name: &str) -> Event {
        Event::Call { index: 0, id: Some("c".to_owned()), name: name.to_owned() }
    }

    fn arguments(text: &str) -> Event {
        Event::Arguments { index: 0, text: text.to_owned() }
    }

    const CREATED: &str = r#"{"type":"response.created","response":{"status":"in_progress"}}"#;
    const MESSAGE: &str =
        r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"message","content":[]}}"#;
    const WORD: &str = r#"{"type":"response.output_text.delta","output_index":0,"delta":"a"}"#;
    const CALL: &str = r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":""}}"#;
    const DONE: &str = r#"{"type":"response.completed","response":{"status":"completed","output":[]}}"#;

    #[test]
    fn content_is_whatever_a_caller_would_miss() {
        check(WORD, Verdict::Content);
        check(r#"{"type":"response.refusal.delta","delta":"a"}"#, Verdict::Content);
        check(r#"{"type":"response.reasoning_text.delta","delta":"a"}"#, Verdict::Content);
        check(r#"{"type":"response.reasoning_summary_text.delta","delta":"a"}"#, Verdict::Content);
        check(r#"{"type":"response.custom_tool_call_input.delta","delta":"a"}"#, Verdict::Content);
        check(r#"{"type":"response.mcp_call_arguments.delta","delta":"{"}"#, Verdict::Content);
        check(CALL, Verdict::Content);
        check(
            r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"web_search_call"}}"#,
            Verdict::Content,
        );
        check(
            r#"{"type":"response.output_item.done","item":{"type":"message","content":[{"type":"output_text","text":"a"}]}}"#,
            Verdict::Content,
        );
    }

    #[test]
    fn frames_without_anything_yet_are_quiet() {
        check(CREATED, Verdict::Quiet);
        check(MESSAGE, Verdict::Quiet);
        check(r#"{"type":"response.queued","response":{}}"#, Verdict::Quiet);
        check(r#"{"type":"response.output_text.delta","delta":""}"#, Verdict::Quiet);
        check(
            r#"{"type":"response.content_part.added","part":{"type":"output_text","text":""}}"#,
            Verdict::Quiet,
        );
        check(r#"{"type":"response.something.new","error":null}"#, Verdict::Quiet);
        check(r#"{"type":"keepalive","sequence_number":3}"#, Verdict::Quiet);
    }

    #[test]
    fn an_error_is_seen_in_all_its_shapes() {
        check(r#"{"type":"error","code":"x","message":"y","param":null}"#, Verdict::Error);
        check(r#"{"type":"error","error":{"message":"y"}}"#, Verdict::Error);
        check(
            r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"x"}}}"#,
            Verdict::Error,
        );
        check(r#"{"error":{"message":"y"}}"#, Verdict::Error);
        check(r#"{"object":"error","message":"y"}"#, Verdict::Error);
        check(r#"{"type":"response.completed","response":{"status":"failed"}}"#, Verdict::Error);
        check(
            r#"{"type":"response.completed","response":{"status":"completed","error":{"code":"x"}}}"#,
            Verdict::Error,
        );
    }

    #[test]
    fn what_is_no_event_is_unreadable() {
        for data in [
            "",
            "x",
            "[]",
            "5",
            "{}",
            "{\"type\":5}",
            "{\"choices\":[]}",
            "{\"type\":\"resp",
            "{\"type\":\"response.completed\"}",
            "{\"type\":\"response.completed\",\"response\":5}",
            "{\"type\":\"response.completed\",\"response\":{\"status\":\"in_progress\"}}",
            "{\"type\":\"response.output_item.added\"}",
        ] {
            check(data, Verdict::Unreadable);
        }
        let broken = Reader::default().read(b"{\"type\":\"x\",\"y\":\"\xff\"}", None);
        assert_eq!(broken.verdict, Verdict::Unreadable);
    }

    #[test]
    fn whole_is_an_answer_in_the_last_event() {
        assert_eq!(end(&[CREATED, MESSAGE, WORD, DONE], true), Ok(()));
        assert_eq!(end(&[WORD, DONE], false), Ok(()), "it is the terminator as well");
        assert_eq!(end(&[WORD, DONE, "[DONE]"], true), Ok(()));
        assert_eq!(end(&[CREATED, DONE], true), Ok(()), "a model may say nothing");
        assert_eq!(end(&[CREATED, WORD], true), Err(Cause::EarlyEnd));
        assert_eq!(end(&[CREATED, WORD, "[DONE]"], true), Err(Cause::EarlyEnd));
        assert_eq!(end(&[], true), Err(Cause::Empty));
        assert_eq!(end(&["[DONE]"], true), Err(Cause::Empty));
        assert_eq!(end(&[], false), Err(Cause::EarlyEnd));
        assert_eq!(end(&[WORD, "{\"error\":\"x\"}", DONE], true), Err(Cause::ErrorEvent));
        assert_eq!(end(&[WORD, "x", DONE], true), Err(Cause::Unreadable));
        assert_eq!(end(&[WORD, DONE, DONE], true), Err(Cause::Unreadable), "it ends once");
    }

    #[test]
    fn the_last_event_says_why_and_how_much() {
        let last = |kind: &str, response: &str| {
            let mut reader = Reader::default();
            let judged = reader
                .read(format!("{{\"type\":\"response.{kind}\",\"response\":{response}}}").as_bytes(), None);
            assert_eq!(judged, Judged { verdict: Verdict::Done, finished: true }, "for {response}");
            (reader.reason().unwrap(), reader.usage())
        };
        let none = Usage::default();
        assert_eq!(last("completed", "{\"output\":[]}"), (Reason::Stop, none));
        assert_eq!(
            last("completed", r#"{"status":"completed","output":[{"type":"function_call"}]}"#),
            (Reason::ToolCalls, none)
        );
        let cut = |why: &str| {
            format!("{{\"status\":\"incomplete\",\"incomplete_details\":{{\"reason\":\"{why}\"}}}}")
        };
        assert_eq!(last("incomplete", &cut("max_output_tokens")).0, Reason::Length);
        assert_eq!(last("incomplete", &cut("content_filter")).0, Reason::ContentFilter);
        assert_eq!(last("incomplete", "{}").0, Reason::Other);
        let usage = r#"{"status":"completed","usage":{"input_tokens":5,"output_tokens":7,
            "input_tokens_details":{"cached_tokens":3},"output_tokens_details":{"reasoning_tokens":0},
            "not_counted":["reasoning_tokens"]}}"#;
        assert_eq!(
            last("completed", usage).1,
            Usage {
                input_tokens: Some(5),
                output_tokens: Some(7),
                cached_tokens: Some(3),
                ..Usage::default()
            }
        );
    }

    #[test]
    fn deltas_are_events() {
        let logprobs = r#"{"type":"response.output_text.delta","output_index":0,"delta":"b","logprobs":[{"token":"b"}]}"#;
        means(
            &[CREATED, MESSAGE, WORD, logprobs, DONE],
            &[text("a"), text("b"), Event::Logprobs(vec![serde_json::json!({"token": "b"})]), stop()],
        );
        let piece = r#"{"type":"response.function_call_arguments.delta","output_index":1,"delta":"{}"}"#;
        let done = r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}}"#;
        means(&[CALL, piece, done], &[call("f"), arguments("{}")]);
    }

    #[test]
    fn what_no_delta_brought_comes_from_the_item_or_from_the_answer() {
        let message = r#"{"type":"message","content":[{"type":"output_text","text":"a"},{"type":"refusal","refusal":"no"}]}"#;
        let expected = [text("a"), Event::Refusal("no".to_owned())];
        let done =
            format!("{{\"type\":\"response.output_item.done\",\"output_index\":0,\"item\":{message}}}");
        means(&[MESSAGE, &done], &expected);
        let last = format!("{{\"type\":\"response.completed\",\"response\":{{\"output\":[{message}]}}}}");
        means(&[CREATED, &last], &[expected[0].clone(), expected[1].clone(), stop()]);
        means(&[MESSAGE, &done, &last], &[expected[0].clone(), expected[1].clone(), stop()]);
        let called = r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":{"a":1}}}"#;
        means(&[called], &[call("f"), arguments("{\"a\":1}")]);
        means(&[CALL, called], &[call("f"), arguments("{\"a\":1}")]);
        let piece = r#"{"type":"response.function_call_arguments.delta","output_index":1,"delta":"{}"}"#;
        means(&[piece, called], &[call("f"), arguments("{\"a\":1}")]);
    }

    #[test]
    fn a_thought_is_taken_in_one_form_and_its_proof_after_it() {
        let thinking = |text: &str| Event::Thinking(text.to_owned());
        let raw = r#"{"type":"response.reasoning_text.delta","output_index":0,"delta":"raw"}"#;
        let told = |text: &str| {
            format!(
                "{{\"type\":\"response.reasoning_summary_text.delta\",\"output_index\":0,\"delta\":\"{text}\"}}"
            )
        };
        let part = r#"{"type":"response.reasoning_summary_part.added","output_index":0,"summary_index":1}"#;
        let done = r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning",
            "summary":[{"type":"summary_text","text":"x"}],"encrypted_content":"s"}}"#;
        let proof = Event::Signature("s".to_owned());
        means(&[raw, &told("a"), done], &[thinking("raw"), proof.clone()]);
        means(
            &[&told("a"), part, &told("b"), raw, done],
            &[thinking("a"), thinking("\n\n"), thinking("b"), proof.clone()],
        );
        means(&[done], &[thinking("x"), proof]);
    }
}
