//! What an Ollama client hears from us: streams, whole answers, refusals.
//!
//! Fields and their order are Ollama's. Clients need `model`, `created_at`, `message`
//! with `role` and `content` (or `response`) and `done` in every line; counts and
//! durations are for those who have them, and what nobody measured is not there.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::line::is_object;
use crate::{
    dialect::{self, Door, Voice, own},
    fault::Failure,
    generate::{Answer, Event, Reason, Said, Usage},
};

/// Go's word for "no time", which Ollama's own client reads as one.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// A line of a stream, or a whole answer.
#[derive(Default, Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<&'a [Call]>,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    logprobs: &'a [Value],
    #[serde(skip_serializing_if = "Option::is_none")]
    total_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_duration: Option<u64>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<&'a [Call]>,
}

#[derive(Serialize)]
struct Call {
    id: String,
    function: Function,
}

#[derive(Serialize)]
struct Function {
    index: usize,
    name: String,
    /// As the model wrote it: the order of its fields is part of the answer.
    arguments: Box<RawValue>,
}

/// What a line says.
#[derive(Clone, Copy, Default)]
struct Words<'a> {
    content: &'a str,
    thinking: &'a str,
    calls: &'a [Call],
    logprobs: &'a [Value],
}

impl<'a> Line<'a> {
    fn new(door: Door, model: &'a str, created_at: &'a str, words: Words<'a>) -> Self {
        let tool_calls = (!words.calls.is_empty()).then_some(words.calls);
        let line = Line { model, created_at, logprobs: words.logprobs, ..Line::default() };
        match door {
            Door::OllamaGenerate => {
                Line { response: Some(words.content), thinking: words.thinking, tool_calls, ..line }
            }
            _ => {
                let Words { content, thinking, .. } = words;
                Line { message: Some(Message { role: "assistant", content, thinking, tool_calls }), ..line }
            }
        }
    }

    /// `took` in all; `waited` of it until the first word, where that is known: programs
    /// reckon tokens per second with the rest.
    fn finished(self, reason: Reason, usage: Usage, took: Duration, waited: Option<Duration>) -> Self {
        Line {
            done: true,
            done_reason: Some(word(reason)),
            total_duration: Some(nanos(took)),
            prompt_eval_duration: waited.map(nanos),
            eval_duration: waited.map(|it| nanos(took.saturating_sub(it))),
            prompt_eval_count: usage.input_tokens,
            eval_count: usage.output_tokens,
            ..self
        }
    }

    fn write(&self, out: &mut BytesMut) {
        write(self, out);
    }
}

/// Ollama's word for a reason. It says `stop` when tools are called; the others are
/// not its own, and its clients take any text.
fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Stop | Reason::ToolCalls => "stop",
        Reason::Length => "length",
        Reason::ContentFilter => "content_filter",
        Reason::Other => "other",
    }
}

/// A call that is on its way.
#[derive(Debug)]
struct Open {
    index: usize,
    id: Option<String>,
    name: String,
    arguments: String,
}

impl Open {
    fn is_whole(&self) -> bool {
        is_object(&self.arguments)
    }

    /// The call, or its arguments as they are if they are no object.
    fn close(self, request: &str) -> Result<Call, String> {
        let arguments = match self.arguments.trim_ascii() {
            "" => "{}",
            _ if self.is_whole() => self.arguments.trim_ascii(),
            _ => return Err(self.arguments),
        };
        let Ok(arguments) = RawValue::from_string(arguments.to_owned()) else { return Err(self.arguments) };
        let id = self.id.unwrap_or_else(|| format!("call_{request}_{}", self.index));
        Ok(Call { id, function: Function { index: self.index, name: self.name, arguments } })
    }
}

/// Writes one stream.
pub(super) struct Writer {
    door: Door,
    voice: Voice,
    created_at: String,
    open: Vec<Open>,
    usage: Usage,
    reason: Option<Reason>,
    /// What came, where the answer is not a stream of lines.
    vectors: Answer,
}

impl Writer {
    pub(super) fn new(door: Door, voice: Voice) -> Self {
        let created_at = began(&voice);
        Self {
            door,
            voice,
            created_at,
            open: Vec::new(),
            usage: Usage::default(),
            reason: None,
            vectors: Answer::default(),
        }
    }

    fn line(&self, words: Words<'_>, out: &mut BytesMut) {
        Line::new(self.door, &self.voice.model, &self.created_at, words).write(out);
        out.extend_from_slice(b"\n");
    }

    /// Writes the calls that are whole, as far as none before them is still open. With
    /// `all`, those that are not whole become text, as Ollama has it itself when an
    /// answer is cut inside a call: it is what the model wrote.
    fn close(&mut self, all: bool, out: &mut BytesMut) {
        let ready =
            if all { self.open.len() } else { self.open.iter().take_while(|it| it.is_whole()).count() };
        if ready == 0 {
            return;
        }
        let (mut calls, mut rest) = (Vec::new(), String::new());
        for open in self.open.drain(..ready) {
            match open.close(&self.voice.id) {
                Ok(call) => calls.push(call),
                Err(text) => rest.push_str(&text),
            }
        }
        self.line(Words { content: &rest, calls: &calls, ..Words::default() }, out);
    }
}

impl dialect::Writer for Writer {
    fn write(&mut self, event: Event, out: &mut BytesMut) {
        if !matches!(self.door, Door::OllamaChat | Door::OllamaGenerate) {
            return self.vectors.add(event);
        }
        match event {
            Event::Text(text) | Event::Refusal(text) => {
                self.close(false, out);
                self.line(Words { content: &text, ..Words::default() }, out);
            }
            Event::Thinking(text) => {
                self.close(false, out);
                self.line(Words { thinking: &text, ..Words::default() }, out);
            }
            // A proof of one server, which no Ollama client sends back.
            Event::Signature(_) | Event::Vector(_) => {}
            Event::Call { index, id, name } => {
                self.open.push(Open { index, id, name, arguments: String::new() });
            }
            Event::Arguments { index, text } => {
                if let Some(open) = self.open.iter_mut().rev().find(|it| it.index == index) {
                    open.arguments.push_str(&text);
                }
            }
            Event::Logprobs(list) => self.line(Words { logprobs: &list, ..Words::default() }, out),
            Event::Usage(usage) => self.usage = usage,
            Event::Finished { reason, .. } => self.reason = Some(reason),
        }
    }

    fn held(&self) -> usize {
        self.open.iter().map(|it| it.arguments.len()).sum()
    }

    fn finish(&mut self, took: Duration, out: &mut BytesMut) {
        if !matches!(self.door, Door::OllamaChat | Door::OllamaGenerate) {
            out.extend_from_slice(&whole(self.door, &self.vectors, &self.voice));
            return;
        }
        self.close(true, out);
        let Some(reason) = self.reason else {
            // Never `done` without a reason: clients take it for success.
            return out.extend_from_slice(&break_off(&Failure::Internal));
        };
        Line::new(self.door, &self.voice.model, &self.created_at, Words::default())
            .finished(reason, self.usage, took, Some(self.voice.waited))
            .write(out);
        out.extend_from_slice(b"\n");
    }
}

/// A whole answer.
pub(super) fn whole(door: Door, answer: &Answer, voice: &Voice) -> Bytes {
    if !matches!(door, Door::OllamaChat | Door::OllamaGenerate) {
        return vectors(door, answer, voice);
    }
    let (mut content, mut calls) = (String::new(), Vec::new());
    for said in &answer.said {
        match said {
            Said::Text(text) | Said::Refusal(text) => content.push_str(text),
            Said::Thinking { .. } => {}
            Said::Call { index, id, name, arguments } => {
                let (id, name, arguments) = (id.clone(), name.clone(), arguments.clone());
                match (Open { index: *index, id, name, arguments }).close(&voice.id) {
                    Ok(call) => calls.push(call),
                    Err(text) => content.push_str(&text),
                }
            }
        }
    }
    let Some(reason) = answer.reason else { return refuse(&Failure::Internal) };
    let (created_at, thinking) = (began(voice), answer.thinking());
    let words = Words { content: &content, thinking: &thinking, calls: &calls, logprobs: &answer.logprobs };
    let mut out = BytesMut::new();
    Line::new(door, &voice.model, &created_at, words)
        .finished(reason, answer.usage, voice.waited, None)
        .write(&mut out);
    out.freeze()
}

fn vectors(door: Door, answer: &Answer, voice: &Voice) -> Bytes {
    /// `/api/embed` has all of them, the older `/api/embeddings` the one that there is.
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Vectors<'a> {
        All {
            model: &'a str,
            embeddings: &'a [Vec<f32>],
            total_duration: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            prompt_eval_count: Option<u64>,
        },
        One {
            embedding: &'a [f32],
        },
    }
    let vectors = match door {
        Door::OllamaEmbeddings => {
            Vectors::One { embedding: answer.vectors.first().map_or(&[], Vec::as_slice) }
        }
        _ => Vectors::All {
            model: &voice.model,
            embeddings: &answer.vectors,
            total_duration: nanos(voice.waited),
            prompt_eval_count: answer.usage.input_tokens,
        },
    };
    let mut out = BytesMut::new();
    write(&vectors, &mut out);
    out.freeze()
}

fn write(value: &impl Serialize, out: &mut BytesMut) {
    // Plain data into memory: this cannot fail.
    let _ = serde_json::to_writer(out.writer(), value);
}

/// A duration as Ollama writes it.
fn nanos(it: Duration) -> u64 {
    u64::try_from(it.as_nanos()).unwrap_or(u64::MAX)
}

/// When the answer began.
fn began(voice: &Voice) -> String {
    let waited = u64::try_from(voice.waited.as_millis()).unwrap_or(u64::MAX);
    at(voice.at_ms.saturating_add(waited))
}

/// A time in RFC 3339, from milliseconds since 1970.
pub(super) fn at(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|it| Timestamp::from_millisecond(it).ok());
    time.map_or_else(|| NO_TIME.to_owned(), |it| it.to_string())
}

/// The body that tells of a failure, before the answer has begun.
pub(super) fn refuse(failure: &Failure) -> Bytes {
    if let Failure::Relayed(words) = failure
        && is_ours(&words.body)
    {
        return words.body.clone();
    }
    error(failure).into()
}

/// The line that tells of a failure, after the answer has begun. The stream ends with it:
/// clients raise an error, and one that passes the line over misses `done`.
pub(super) fn break_off(failure: &Failure) -> Bytes {
    format!("{}\n", error(failure)).into()
}

/// Whether a server's words are what an Ollama client can read.
fn is_ours(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body)
        .is_ok_and(|it| it["error"].as_str().is_some_and(|text| !text.is_empty()))
}

fn error(failure: &Failure) -> String {
    json!({"error": own::message(failure)}).to_string()
}

/// A line without a word. There is no clock here, so it has no time; no client but those
/// that show lines as they are would miss it.
pub(super) fn keep_alive(door: Door, model: &str) -> Bytes {
    let mut out = BytesMut::new();
    Line::new(door, model, NO_TIME, Words::default()).write(&mut out);
    out.extend_from_slice(b"\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::{
        super::properties::{voice, written},
        *,
    };
    use crate::fault::{Cause, Fault, Stage, Tried, Words as Own};

    fn call(index: usize, name: &str) -> Event {
        Event::Call { index, id: None, name: name.to_owned() }
    }

    fn piece(index: usize, text: &str) -> Event {
        Event::Arguments { index, text: text.to_owned() }
    }

    fn finished(reason: Reason) -> Event {
        Event::Finished { reason, stop: None }
    }

    /// Thinking, text, two calls that take turns, and counts.
    fn everything() -> Vec<Event> {
        vec![
            Event::Thinking("Let me".to_owned()),
            Event::Signature("proof".to_owned()),
            Event::Text("It \"is\"\n".to_owned()),
            Event::Logprobs(vec![json!({"token": "It", "logprob": -0.25})]),
            call(0, "get_time"),
            Event::Call { index: 1, id: Some("call_x".to_owned()), name: "ring".to_owned() },
            piece(0, "{\"tz\":\"UTC\","),
            piece(1, "{}"),
            piece(0, "\"a\":1}"),
            Event::Usage(Usage { input_tokens: Some(26), output_tokens: Some(41), ..Usage::default() }),
            finished(Reason::ToolCalls),
        ]
    }

    #[test]
    fn a_whole_stream_of_chat_has_ollamas_shape() {
        insta::assert_snapshot!("chat_stream", written(Door::OllamaChat, everything()));
    }

    #[test]
    fn a_whole_stream_of_generate_has_ollamas_shape() {
        insta::assert_snapshot!("generate_stream", written(Door::OllamaGenerate, everything()));
    }

    #[test]
    fn an_answer_that_is_whole_has_ollamas_shape() {
        let answer: Answer = everything().into_iter().collect();
        let mut shown = String::new();
        for door in [Door::OllamaChat, Door::OllamaGenerate] {
            shown.push_str(&String::from_utf8_lossy(&whole(door, &answer, &voice())));
            shown.push('\n');
        }
        let usage = Usage { input_tokens: Some(2), ..Usage::default() };
        let vectors = [Event::Vector(vec![0.25, -1.0]), Event::Vector(vec![0.5, 2.0]), Event::Usage(usage)];
        let answer: Answer = vectors.iter().cloned().collect();
        for door in [Door::OllamaEmbed, Door::OllamaEmbeddings] {
            shown.push_str(&String::from_utf8_lossy(&whole(door, &answer, &voice())));
            shown.push('\n');
            assert_eq!(written(door, vectors.clone()), whole(door, &answer, &voice()));
        }
        insta::assert_snapshot!("whole", shown);
    }

    #[test]
    fn what_nobody_counted_is_not_there() {
        let stream = written(Door::OllamaChat, [finished(Reason::Stop)]);
        let last: Value = serde_json::from_str(&stream).unwrap();
        let mut fields: Vec<&str> = last.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "created_at",
                "done",
                "done_reason",
                "eval_duration",
                "message",
                "model",
                "prompt_eval_duration",
                "total_duration"
            ]
        );
        assert_eq!(last["message"], json!({"role": "assistant", "content": ""}));
        assert_eq!(last["created_at"], "2025-11-24T16:00:00.25Z");
    }

    #[test]
    fn a_call_is_held_until_it_is_whole_and_then_not_longer_than_the_next_word() {
        let stream = written(
            Door::OllamaChat,
            [
                call(0, "f"),
                piece(0, "{\"a\":"),
                Event::Text("between".to_owned()),
                piece(0, "1}"),
                Event::Text("after".to_owned()),
                call(1, "g"),
                finished(Reason::ToolCalls),
            ],
        );
        let lines: Vec<Value> = stream.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
        let calls = |at: usize| &lines[at]["message"]["tool_calls"];
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0]["message"]["content"], "between");
        let function = json!({"index": 0, "name": "f", "arguments": {"a": 1}});
        assert_eq!(calls(1), &json!([{"id": "call_r1_0", "function": function}]));
        assert_eq!(lines[2]["message"]["content"], "after");
        assert_eq!(calls(3)[0]["function"]["arguments"], json!({}), "no arguments are an empty object");
        assert_eq!(lines[4]["done_reason"], "stop");
    }

    #[test]
    fn a_call_that_is_cut_short_is_what_the_model_wrote() {
        let stream =
            written(Door::OllamaChat, [call(0, "f"), piece(0, "{\"a\":\"b"), finished(Reason::Length)]);
        let first: Value = serde_json::from_str(stream.lines().next().unwrap()).unwrap();
        assert_eq!(first["message"], json!({"role": "assistant", "content": "{\"a\":\"b"}));
        assert!(stream.contains("\"done_reason\":\"length\""));
    }

    #[test]
    fn an_answer_without_a_reason_is_never_done() {
        let stream = written(Door::OllamaChat, [Event::Text("a".to_owned())]);
        assert!(!stream.contains("\"done\":true") && stream.contains("{\"error\":"), "{stream}");
        assert!(whole(Door::OllamaChat, &Answer::default(), &voice()).starts_with(b"{\"error\":"));
    }

    #[test]
    fn a_waiting_stream_is_kept_alive_by_a_line_without_a_word() {
        for (door, field) in [(Door::OllamaChat, "message"), (Door::OllamaGenerate, "response")] {
            let line = keep_alive(door, "m\"n");
            let value: Value = serde_json::from_slice(line.strip_suffix(b"\n").unwrap()).unwrap();
            assert_eq!((&value["model"], &value["done"]), (&json!("m\"n"), &json!(false)));
            assert!(value.get(field).is_some() && value["created_at"].is_string());
        }
    }

    #[test]
    fn a_failure_is_one_text() {
        let words =
            |body: &'static str| Failure::Relayed(Own { status: 400, content_type: None, body: body.into() });
        let check = |failure: &Failure, expected: &str| assert_eq!(refuse(failure), expected);
        check(
            &words("{ \"error\": \"own\", \"signin_url\": \"x\" }"),
            "{ \"error\": \"own\", \"signin_url\": \"x\" }",
        );
        check(&words("{\"error\":{\"message\":\"m\",\"code\":400}}"), "{\"error\":\"m\"}");
        check(&words("{\"detail\":[{\"msg\":\"m\"}]}"), "{\"error\":\"m\"}");
        check(&words("plain\nwords"), "{\"error\":\"plain\\nwords\"}");
        check(&words(""), "{\"error\":\"the server refused the request with status 400\"}");
        let tried = vec![Tried { server: "a".to_owned(), fault: Fault::new(Stage::Head, Cause::Reset) }];
        check(&Failure::Exhausted(tried), "{\"error\":\"every server failed: a broke the connection\"}");
        assert_eq!(break_off(&words("{\"error\":\n\"own\"}")), "{\"error\":\"own\"}\n");
    }
}
