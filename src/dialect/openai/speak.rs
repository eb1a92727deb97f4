//! Writes the stream of an answer: chunks as OpenAI writes them.
//!
//! A role goes first and only once, because some clients take no other chunk
//! with one. The reason waits until the answer is known to be whole.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    whole::{self, Wants},
    writer::DONE,
};
use crate::{
    dialect::{Door, Voice, json::quote},
    generate::{Event, Reason, Usage},
};

/// Writes one stream.
pub(super) struct Speaker {
    door: Door,
    id: String,
    asks_usage: bool,
    /// Whether the caller speaks of functions, as was done before there were tools.
    functions: bool,
    /// What stands before the choices of each chunk.
    head: String,
    /// What thinking is called.
    thinking: &'static str,
    begun: bool,
    /// For each call, whether it has arguments.
    calls: Vec<bool>,
    /// Where the next token stands in the text, for log probabilities of completions.
    offset: usize,
    usage: Usage,
    reason: Option<Reason>,
}

impl Speaker {
    /// A writer for this door.
    pub(super) fn new(door: Door, voice: &Voice) -> Self {
        let object = match door {
            Door::OpenAiComplete => "text_completion",
            _ => "chat.completion.chunk",
        };
        let head = format!(
            "data: {{\"id\":{},\"object\":\"{object}\",\"created\":{},\"model\":{},\"choices\":[",
            quote(&whole::id(door, voice)),
            voice.at_ms / 1000,
            quote(&voice.model),
        );
        Self {
            door,
            id: voice.id.clone(),
            asks_usage: voice.asks_usage,
            functions: Wants::of(&voice.request).functions,
            head,
            thinking: "reasoning_content",
            begun: false,
            calls: Vec::new(),
            offset: 0,
            usage: Usage::default(),
            reason: None,
        }
    }

    /// A writer that goes on with a stream whose first content came with this frame: a stream
    /// has one id, and one name for its thinking, which vLLM calls otherwise than llama.cpp.
    pub(super) fn after(door: Door, voice: &Voice, first: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            id: Option<&'a RawValue>,
            #[serde(borrow)]
            object: Option<&'a RawValue>,
            #[serde(borrow)]
            created: Option<&'a RawValue>,
            #[serde(borrow)]
            model: Option<&'a RawValue>,
            #[serde(borrow)]
            system_fingerprint: Option<&'a RawValue>,
            #[serde(default)]
            choices: Vec<Choice>,
        }
        #[derive(Deserialize)]
        struct Choice {
            #[serde(default)]
            delta: Delta,
        }
        #[derive(Default, Deserialize)]
        struct Delta {
            reasoning: Option<String>,
            reasoning_content: Option<String>,
        }
        let speaker = Self::new(door, voice);
        let Ok(it) = serde_json::from_slice::<Named<'_>>(first) else { return speaker };
        let named = [
            ("id", it.id),
            ("object", it.object),
            ("created", it.created),
            ("model", it.model),
            ("system_fingerprint", it.system_fingerprint),
        ];
        let fields = named.into_iter().filter_map(|(name, value)| Some(format!("\"{name}\":{},", value?)));
        let head = format!("data: {{{}\"choices\":[", fields.collect::<String>());
        let delta = it.choices.first().map(|it| &it.delta);
        let short = delta.is_some_and(|it| it.reasoning.is_some() && it.reasoning_content.is_none());
        let thinking = if short { "reasoning" } else { speaker.thinking };
        Self { head, thinking, ..speaker }
    }

    fn is_chat(&self) -> bool {
        self.door != Door::OpenAiComplete
    }

    /// A chunk: what is new of the choice, its log probabilities and its reason, as JSON.
    fn chunk(&self, new: &str, logprobs: &str, reason: &str, out: &mut BytesMut) {
        let name = if self.is_chat() { "delta" } else { "text" };
        out.put_slice(self.head.as_bytes());
        let choice = format!(
            "{{\"index\":0,\"{name}\":{new},\"logprobs\":{logprobs},\"finish_reason\":{reason}}}]}}\n\n"
        );
        out.put_slice(choice.as_bytes());
    }

    /// Says who speaks, before anything else is said.
    fn begin(&mut self, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.begun, true) && self.is_chat() {
            self.chunk("{\"role\":\"assistant\",\"content\":\"\"}", "null", "null", out);
        }
    }

    fn delta(&mut self, delta: &str, out: &mut BytesMut) {
        self.begin(out);
        self.chunk(delta, "null", "null", out);
    }

    fn field(&mut self, name: &str, text: &str, out: &mut BytesMut) {
        if self.is_chat() {
            self.delta(&format!("{{\"{name}\":{}}}", quote(text)), out);
        } else if matches!(name, "content" | "refusal") {
            // A completion has one text and no other place: a model that thinks
            // first is not what a text is continued with.
            self.delta(&quote(text), out);
        }
    }

    fn call(&mut self, index: usize, id: Option<String>, name: &str, out: &mut BytesMut) {
        if self.calls.len() <= index {
            self.calls.resize(index + 1, false);
        }
        let id = id.unwrap_or_else(|| whole::call_id(&self.id, index));
        let delta = match (self.is_chat(), self.functions, index) {
            (true, false, _) => json!({"tool_calls": [{"index": index, "id": id, "type": "function",
                "function": {"name": name, "arguments": ""}}]}),
            (true, true, 0) => json!({"function_call": {"name": name, "arguments": ""}}),
            // Only one was known then; and a completion calls nothing.
            (true, true, _) | (false, _, _) => return,
        };
        self.delta(&delta.to_string(), out);
    }

    fn arguments(&mut self, index: usize, text: &str, out: &mut BytesMut) {
        if let Some(argued) = self.calls.get_mut(index) {
            *argued |= !text.is_empty();
        }
        let delta = match (self.is_chat(), self.functions, index) {
            (true, false, _) => json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]}),
            (true, true, 0) => json!({"function_call": {"arguments": text}}),
            (true, true, _) | (false, _, _) => return,
        };
        self.delta(&delta.to_string(), out);
    }

    fn logprobs(&mut self, tokens: &[Value], out: &mut BytesMut) {
        self.begin(out);
        let logprobs = if self.is_chat() {
            json!({"content": tokens, "refusal": null})
        } else {
            whole::logprobs_of_text(tokens, &mut self.offset)
        };
        let nothing = if self.is_chat() { "{}" } else { "\"\"" };
        self.chunk(nothing, &logprobs.to_string(), "null", out);
    }
}

impl crate::dialect::Writer for Speaker {
    fn write(&mut self, event: Event, out: &mut BytesMut) {
        match event {
            Event::Text(text) => self.field("content", &text, out),
            Event::Thinking(text) => self.field(self.thinking, &text, out),
            Event::Refusal(text) => self.field("refusal", &text, out),
            Event::Call { index, id, name } => self.call(index, id, &name, out),
            Event::Arguments { index, text } => self.arguments(index, &text, out),
            Event::Logprobs(tokens) => self.logprobs(&tokens, out),
            Event::Usage(usage) => self.usage = usage,
            Event::Finished { reason, .. } => self.reason = Some(reason),
            // The proof is another server's and has no place here; vectors do not come in streams.
            Event::Signature(_) | Event::Vector(_) => {}
        }
    }

    fn finish(&mut self, _took: Duration, out: &mut BytesMut) {
        // A call without arguments has none, which is an empty object.
        for index in 0..self.calls.len() {
            if !self.calls[index] {
                self.arguments(index, "{}", out);
            }
        }
        self.begin(out);
        let reason = whole::finish_reason(self.reason, !self.calls.is_empty(), self.functions);
        let nothing = if self.is_chat() { "{}" } else { "\"\"" };
        self.chunk(nothing, "null", &quote(reason), out);
        if let Some(usage) = whole::usage(&self.usage).filter(|_| self.asks_usage) {
            out.put_slice(self.head.as_bytes());
            out.put_slice(format!("],\"usage\":{usage}}}\n\n").as_bytes());
        }
        out.put_slice(DONE);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::{dialect::Writer, generate::Operation};

    fn voice(operation: Operation, asks_usage: bool, request: &'static str) -> Voice {
        Voice {
            id: "r1".to_owned(),
            model: "m\"x".to_owned(),
            at_ms: 5999,
            waited: Duration::ZERO,
            asks_usage,
            operation,
            request: Bytes::from_static(request.as_bytes()),
        }
    }

    fn spoken(door: Door, voice: &Voice, events: Vec<Event>) -> String {
        let mut speaker = Speaker::new(door, voice);
        let mut out = BytesMut::new();
        for event in events {
            speaker.write(event, &mut out);
        }
        speaker.finish(Duration::ZERO, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn chat(events: Vec<Event>) -> String {
        spoken(Door::OpenAiChat, &voice(Operation::Chat, true, "{}"), events)
    }

    fn text(text: &str) -> Event {
        Event::Text(text.to_owned())
    }

    fn finished(reason: Reason) -> Event {
        Event::Finished { reason, stop: None }
    }

    fn counts() -> Event {
        Event::Usage(Usage { input_tokens: Some(3), output_tokens: Some(2), ..Usage::default() })
    }

    fn called() -> Vec<Event> {
        vec![
            Event::Call { index: 0, id: Some("call_a".to_owned()), name: "f".to_owned() },
            Event::Arguments { index: 0, text: "{\"x\":".to_owned() },
            Event::Call { index: 1, id: None, name: "g".to_owned() },
            Event::Arguments { index: 0, text: "1}".to_owned() },
            finished(Reason::ToolCalls),
        ]
    }

    #[test]
    fn streams_have_the_official_shape() {
        let mut shown = String::new();
        let mut show = |name: &str, stream: String| shown.push_str(&format!("# {name}\n{stream}"));
        show("a text", chat(vec![text("a\n"), text("b"), counts(), finished(Reason::Stop)]));
        let thought = Event::Thinking("hm".to_owned());
        let proof = Event::Signature("s".to_owned());
        show("thinking", chat(vec![thought, proof, text("a"), finished(Reason::Length)]));
        show("calls", chat(called()));
        let functions = voice(Operation::Chat, false, r#"{"functions":[{"name":"f"}]}"#);
        show("the older form of calls", spoken(Door::OpenAiChat, &functions, called()));
        let token = json!({"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -1.5}]});
        let likely = vec![text("a"), Event::Logprobs(vec![token.clone(), token]), finished(Reason::Stop)];
        show("log probabilities", chat(likely.clone()));
        show("a refusal", chat(vec![Event::Refusal("no".to_owned()), finished(Reason::ContentFilter)]));
        show("nothing", chat(vec![finished(Reason::Stop)]));
        let complete = voice(Operation::Complete, true, "{}");
        let completed = vec![text("a"), counts(), finished(Reason::Stop)];
        show("a completion", spoken(Door::OpenAiComplete, &complete, completed));
        show("its log probabilities", spoken(Door::OpenAiComplete, &complete, likely));
        insta::assert_snapshot!("streams", shown);
    }

    #[test]
    fn a_role_is_said_once_and_first() {
        let stream = chat(called());
        assert_eq!(stream.matches("\"role\"").count(), 1);
        assert!(stream.lines().next().unwrap().contains("\"role\":\"assistant\""));
    }

    #[test]
    fn thinking_is_called_what_it_was_called_before() {
        for (first, expected) in [
            (r#"{"choices":[{"delta":{"reasoning":"h"}}]}"#, "reasoning"),
            (r#"{"choices":[{"delta":{"reasoning_content":"h"}}]}"#, "reasoning_content"),
            (r#"{"choices":[{"delta":{"reasoning":"h","reasoning_content":"h"}}]}"#, "reasoning_content"),
            (r#"{"choices":[{"delta":{"content":"a"}}]}"#, "reasoning_content"),
            (r#"{"choices":5}"#, "reasoning_content"),
        ] {
            let voice = voice(Operation::Chat, false, "{}");
            let mut speaker = Speaker::after(Door::OpenAiChat, &voice, first.as_bytes());
            let mut out = BytesMut::new();
            speaker.write(Event::Thinking("m".to_owned()), &mut out);
            let written = String::from_utf8(out.to_vec()).unwrap();
            assert!(written.contains(&format!("\"{expected}\":\"m\"")), "{first}: {written}");
        }
    }

    #[test]
    fn counts_are_given_whole_or_not_at_all_and_only_when_asked_for() {
        let half = Event::Usage(Usage { output_tokens: Some(2), ..Usage::default() });
        assert!(!chat(vec![text("a"), half, finished(Reason::Stop)]).contains("usage"));
        let quiet = voice(Operation::Chat, false, "{}");
        let events = vec![text("a"), counts(), finished(Reason::Stop)];
        assert!(!spoken(Door::OpenAiChat, &quiet, events).contains("usage"));
    }

    #[test]
    fn nothing_is_held_back_while_the_model_speaks() {
        let mut speaker = Speaker::new(Door::OpenAiChat, &voice(Operation::Chat, true, "{}"));
        let mut out = BytesMut::new();
        for event in called() {
            let before = out.len();
            let says = !matches!(event, Event::Finished { .. });
            speaker.write(event, &mut out);
            assert_eq!(out.len() > before, says);
        }
    }
}
