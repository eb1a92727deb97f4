//! Makes one whole answer out of a stream.
//!
//! Most requests are streamed by the server even when the caller wants the
//! answer whole, because a stream can be stopped and watched. What is known is
//! put together (texts appended, tool calls by their index, log probabilities
//! end to end); everything else is kept as it was written in the last chunk
//! that had it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    dialect::json::{self, quote},
    fault::Cause,
    generate::Operation,
};

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// Collects the chunks of one stream.
#[derive(Debug)]
pub struct Fold {
    operation: Operation,
    fields: BTreeMap<String, String>,
    choices: BTreeMap<u64, Choice>,
    held: usize,
    broken: bool,
}

#[derive(Debug, Default)]
struct Choice {
    said: BTreeMap<String, Part>,
    logprobs: Option<BTreeMap<String, Part>>,
    fields: BTreeMap<String, String>,
}

/// A field that grows, or one that is replaced. JSON text, but for `Text`.
#[derive(Debug)]
enum Part {
    Text(String),
    List(Vec<String>),
    Calls(BTreeMap<u64, Call>),
    Call(Call),
    Other(String),
}

/// A tool call; `function_call` has only the inner half of it.
#[derive(Debug, Default)]
struct Call {
    fields: BTreeMap<String, String>,
    function: BTreeMap<String, String>,
    arguments: String,
}

impl Fold {
    /// A fold of the answer to this operation.
    pub fn new(operation: Operation) -> Self {
        Self { operation, fields: BTreeMap::new(), choices: BTreeMap::new(), held: 0, broken: false }
    }

    /// How many bytes are held, about.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether something came that cannot be put together.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Adds the data of one event that was judged to be a chunk; the terminator is passed over.
    pub fn add(&mut self, data: &[u8]) {
        if data.trim_ascii() != b"[DONE]" && self.try_add(data).is_none() {
            self.broken = true;
        }
    }

    fn try_add(&mut self, data: &[u8]) -> Option<()> {
        let chunk: Object<'_> = serde_json::from_slice(data).ok()?;
        for (name, value) in chunk {
            if name == "choices" {
                let choices: Vec<Object<'_>> = serde_json::from_str(value.get()).ok()?;
                for choice in choices {
                    let index = choice.get("index").and_then(|it| it.get().parse().ok()).unwrap_or(0);
                    self.held += self.choices.entry(index).or_default().add(choice)?;
                }
            } else if !json::is_nothing(value) || !self.fields.contains_key(&name) {
                self.held += keep(&mut self.fields, name, value);
            }
        }
        Some(())
    }

    /// The whole answer. It must have been judged to be whole; this only refuses
    /// what cannot be put together.
    pub fn finish(self) -> Result<Bytes, Cause> {
        if self.broken {
            return Err(Cause::Unreadable);
        }
        if self.choices.is_empty() {
            return Err(Cause::Empty);
        }
        let object = match self.operation {
            Operation::Chat => "chat.completion",
            Operation::Complete | Operation::Embed => "text_completion",
        };
        let mut out = Writer::new();
        let mut fields = self.fields;
        for name in ["id", "object", "created", "model", "choices"] {
            let kept = fields.remove(name);
            match (name, kept) {
                ("object", _) => out.field(name, &quote(object)),
                ("choices", _) => {
                    let choices: Vec<String> =
                        self.choices.iter().map(|(index, it)| it.write(self.operation, *index)).collect();
                    out.field(name, &list(&choices));
                }
                (_, Some(value)) => out.field(name, &value),
                (_, None) => {}
            }
        }
        out.fields(&fields);
        Ok(out.end().into())
    }
}

impl Choice {
    fn add(&mut self, choice: Object<'_>) -> Option<usize> {
        let mut grown = 0;
        for (name, value) in choice {
            match name.as_str() {
                "index" => {}
                "delta" | "message" => {
                    if value.get() != "null" {
                        for (name, value) in serde_json::from_str::<Object<'_>>(value.get()).ok()? {
                            grown += say(&mut self.said, name, value)?;
                        }
                    }
                }
                "text" => grown += say(&mut self.said, name, value)?,
                "logprobs" => {
                    if value.get() != "null" {
                        let all = self.logprobs.get_or_insert_default();
                        for (name, value) in serde_json::from_str::<Object<'_>>(value.get()).ok()? {
                            grown += append(all, name, value)?;
                        }
                    }
                }
                _ => {
                    if value.get() != "null" || !self.fields.contains_key(&name) {
                        grown += keep(&mut self.fields, name, value);
                    }
                }
            }
        }
        Some(grown)
    }

    fn write(&self, operation: Operation, index: u64) -> String {
        let mut out = Writer::new();
        match operation {
            Operation::Chat => {
                out.field("index", &index.to_string());
                out.field("message", &self.message());
            }
            Operation::Complete | Operation::Embed => {
                out.field("text", &self.said.get("text").map_or_else(|| quote(""), Part::write));
                out.field("index", &index.to_string());
            }
        }
        if let Some(logprobs) = &self.logprobs {
            let mut inner = Writer::new();
            for (name, part) in logprobs {
                inner.field(name, &part.write());
            }
            out.field("logprobs", &inner.end());
        }
        out.fields(&self.fields);
        out.end()
    }

    fn message(&self) -> String {
        let mut out = Writer::new();
        out.field("role", &self.said.get("role").map_or_else(|| quote("assistant"), Part::write));
        // As OpenAI has it: null beside tool calls, else a text, which may be empty.
        let called = self.said.contains_key("tool_calls") || self.said.contains_key("function_call");
        match self.said.get("content") {
            Some(part) => out.field("content", &part.write()),
            None => out.field("content", if called { "null" } else { "\"\"" }),
        }
        for (name, part) in &self.said {
            if !matches!(name.as_str(), "role" | "content") {
                out.field(name, &part.write());
            }
        }
        out.end()
    }
}

/// Adds one field of a delta.
fn say(said: &mut BTreeMap<String, Part>, name: String, value: &RawValue) -> Option<usize> {
    if value.get() == "null" {
        return Some(0);
    }
    match name.as_str() {
        "content" | "reasoning" | "reasoning_content" | "refusal" | "text"
            if value.get().starts_with('"') =>
        {
            let text = json::text(value)?;
            let grown = text.len();
            match said.get_mut(&name) {
                Some(Part::Text(all)) => all.push_str(&text),
                // Nothing said is no reason to have a field, but for the main one.
                None if text.is_empty() && !matches!(name.as_str(), "content" | "text") => {}
                _ => {
                    said.insert(name, Part::Text(text.into_owned()));
                }
            }
            Some(grown)
        }
        "tool_calls" => {
            let calls: Vec<Object<'_>> = serde_json::from_str(value.get()).ok()?;
            if calls.is_empty() {
                return Some(0);
            }
            let Part::Calls(all) = said.entry(name).or_insert_with(|| Part::Calls(BTreeMap::new())) else {
                return None;
            };
            let mut grown = 0;
            for call in calls {
                let index = call_index(all, &call);
                if !all.contains_key(&index) {
                    // Calls without a word in them take memory all the same.
                    grown += size_of::<Call>();
                }
                grown += all.entry(index).or_default().add(call)?;
            }
            Some(grown)
        }
        "function_call" => {
            let function: Object<'_> = serde_json::from_str(value.get()).ok()?;
            let Part::Call(call) = said.entry(name).or_insert_with(|| Part::Call(Call::default())) else {
                return None;
            };
            call.add_function(function)
        }
        // Servers repeat the role; a list of unknown things grows.
        "role" => Some(match said.entry(name) {
            std::collections::btree_map::Entry::Vacant(slot) if !json::is_nothing(value) => {
                slot.insert(Part::Other(value.get().to_owned()));
                value.get().len()
            }
            _ => 0,
        }),
        _ => append(said, name, value),
    }
}

/// Where a piece of a call belongs. Some servers give no index: then an id
/// begins a new call, and what has none goes on with the last.
fn call_index(all: &BTreeMap<u64, Call>, call: &Object<'_>) -> u64 {
    if let Some(index) = call.get("index").and_then(|it| it.get().parse().ok()) {
        return index;
    }
    let last = all.keys().next_back().copied();
    let is_new = call.get("id").is_some_and(|it| !json::is_nothing(it));
    match last {
        Some(last) if is_new => last + 1,
        Some(last) => last,
        None => 0,
    }
}

/// Adds to a list, or replaces what is none.
fn append(all: &mut BTreeMap<String, Part>, name: String, value: &RawValue) -> Option<usize> {
    let grown = value.get().len();
    if value.get().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
        let items = items.into_iter().map(|it| it.get().to_owned());
        match all.get_mut(&name) {
            Some(Part::List(list)) => list.extend(items),
            _ => {
                all.insert(name, Part::List(items.collect()));
            }
        }
    } else if value.get() != "null" || !all.contains_key(&name) {
        all.insert(name, Part::Other(value.get().to_owned()));
    }
    Some(grown)
}

/// Keeps the last value of a field.
fn keep(fields: &mut BTreeMap<String, String>, name: String, value: &RawValue) -> usize {
    let grown = value.get().len();
    let before = fields.insert(name, value.get().to_owned()).map_or(0, |it| it.len());
    grown.saturating_sub(before)
}

impl Call {
    fn add(&mut self, call: Object<'_>) -> Option<usize> {
        let mut grown = 0;
        for (name, value) in call {
            match name.as_str() {
                "index" => {}
                "function" => grown += self.add_function(serde_json::from_str(value.get()).ok()?)?,
                _ if json::is_nothing(value) => {}
                _ => grown += keep(&mut self.fields, name, value),
            }
        }
        Some(grown)
    }

    fn add_function(&mut self, function: Object<'_>) -> Option<usize> {
        let mut grown = 0;
        for (name, value) in function {
            if name == "arguments" {
                // A text by the book; some servers send the object itself.
                let arguments = match value.get() {
                    "null" => "".into(),
                    text if text.starts_with('"') => json::text(value)?,
                    object => object.into(),
                };
                grown += arguments.len();
                self.arguments.push_str(&arguments);
            } else if !json::is_nothing(value) {
                grown += keep(&mut self.function, name, value);
            }
        }
        Some(grown)
    }

    fn write(&self) -> String {
        let mut out = Writer::new();
        let mut fields = self.fields.clone();
        for (name, default) in [("id", "\"\""), ("type", "\"function\"")] {
            out.field(name, fields.remove(name).as_deref().unwrap_or(default));
        }
        out.field("function", &self.write_function());
        out.fields(&fields);
        out.end()
    }

    fn write_function(&self) -> String {
        let mut out = Writer::new();
        out.fields(&self.function);
        out.field("arguments", &quote(&self.arguments));
        out.end()
    }
}

impl Part {
    fn write(&self) -> String {
        match self {
            Self::Text(text) => quote(text),
            Self::List(items) => list(items),
            Self::Calls(calls) => list(&calls.values().map(Call::write).collect::<Vec<_>>()),
            Self::Call(call) => call.write_function(),
            Self::Other(value) => value.clone(),
        }
    }
}

fn list(items: &[String]) -> String {
    format!("[{}]", items.join(","))
}

/// Writes an object out of names and JSON.
struct Writer(String);

impl Writer {
    fn new() -> Self {
        Self("{".to_owned())
    }

    fn field(&mut self, name: &str, value: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quote(name));
        self.0.push(':');
        self.0.push_str(value);
    }

    fn fields(&mut self, fields: &BTreeMap<String, String>) {
        for (name, value) in fields {
            self.field(name, value);
        }
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn fold(operation: Operation, chunks: &[Value]) -> Value {
        let mut fold = Fold::new(operation);
        for chunk in chunks {
            fold.add(chunk.to_string().as_bytes());
        }
        fold.add(b"[DONE]");
        serde_json::from_slice(&fold.finish().unwrap()).unwrap()
    }

    fn delta(delta: Value) -> Value {
        json!({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    }

    #[test]
    fn texts_are_appended_under_the_names_they_came_with() {
        let answer = fold(
            Operation::Chat,
            &[
                delta(json!({"role": "assistant", "content": null})),
                delta(json!({"reasoning_content": "hm"})),
                delta(json!({"role": "assistant", "reasoning_content": "m", "content": "Hé"})),
                delta(json!({"content": "llo"})),
                json!({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": null}]}),
                json!({"id": "c", "model": "m", "choices": [], "usage": {"prompt_tokens": 1}, "timings": {"x": 0.1}}),
            ],
        );
        let expected = json!({
            "id": "c", "object": "chat.completion", "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "stop_reason": null,
                "message": {"role": "assistant", "content": "Héllo", "reasoning_content": "hmm"}}],
            "usage": {"prompt_tokens": 1}, "timings": {"x": 0.1},
        });
        assert_eq!(answer, expected);
    }

    #[test]
    fn tool_calls_are_put_together_by_their_index() {
        let call = |call: Value| delta(json!({"tool_calls": [call]}));
        let answer = fold(
            Operation::Chat,
            &[
                call(
                    json!({"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}),
                ),
                call(
                    json!({"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{\"y\""}}),
                ),
                call(json!({"index": 0, "function": {"arguments": "{\"x\":"}})),
                call(json!({"index": 0, "id": "", "function": {"name": null, "arguments": "1}"}})),
                call(json!({"index": 1, "function": {"arguments": ":2}"}})),
            ],
        );
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["content"], Value::Null);
        assert_eq!(
            message["tool_calls"],
            json!([
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{\"y\":2}"}},
            ])
        );
    }

    #[test]
    fn calls_without_an_index_are_told_apart_by_their_ids() {
        let answer = fold(
            Operation::Chat,
            &[delta(json!({"tool_calls": [
                {"id": "a", "function": {"name": "f", "arguments": "1"}},
                {"function": {"arguments": "2"}},
                {"id": "b", "function": {"name": "g", "arguments": {"z": 3}}},
            ]}))],
        );
        let calls = &answer["choices"][0]["message"]["tool_calls"];
        assert_eq!(calls[0]["function"]["arguments"], "12");
        assert_eq!(calls[1]["function"]["arguments"], "{\"z\":3}");
    }

    #[test]
    fn log_probabilities_are_laid_end_to_end() {
        let with = |token: &str| json!({"choices": [{"index": 0, "delta": {"content": token}, "logprobs": {"content": [{"token": token, "logprob": -0.123_456_789_012_345_67}]}}]});
        let answer = fold(Operation::Chat, &[with("a"), with("b")]);
        let logprobs = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
        assert_eq!(logprobs.len(), 2);
        assert_eq!(logprobs[1], with("b")["choices"][0]["logprobs"]["content"][0]);
    }

    #[test]
    fn what_cannot_be_put_together_is_refused() {
        assert_eq!(Fold::new(Operation::Chat).finish(), Err(Cause::Empty));
        for chunk in [
            "x",
            "{\"choices\":5}",
            "{\"choices\":[{\"delta\":{\"tool_calls\":5}}]}",
            "{\"choices\":[{\"delta\":{\"content\":\"\\ud83d\"}}]}",
        ] {
            let mut fold = Fold::new(Operation::Chat);
            fold.add(chunk.as_bytes());
            assert_eq!(fold.finish(), Err(Cause::Unreadable), "{chunk}");
        }
    }

    #[test]
    fn what_is_held_is_counted() {
        let mut fold = Fold::new(Operation::Chat);
        assert!(fold.is_empty());
        let mut last = 0;
        for _ in 0..10 {
            fold.add(delta(json!({"content": "0123456789", "x": [1]})).to_string().as_bytes());
            assert!(fold.len() >= last + 10);
            last = fold.len();
        }
        assert!(last < 1000);
    }

    /// A text in pieces.
    fn pieces() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[a-z \"\\\\é🙂\n]{1,5}", 1..6)
    }

    proptest! {
        #[test]
        fn folding_the_chunks_of_an_answer_gives_that_answer(
            choices in prop::collection::vec((pieces(), prop::option::of(pieces()), prop::collection::vec(pieces(), 0..3)), 1..4),
            usage in any::<u32>(),
        ) {
            let mut chunks = Vec::new();
            let mut whole = Vec::new();
            for (index, (content, reasoning, calls)) in choices.iter().enumerate() {
                let mut chunk = |delta: Value, reason: Value| {
                    chunks.push(json!({"id": "i", "created": 5, "model": "m", "object": "chat.completion.chunk",
                        "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}));
                };
                chunk(json!({"role": "assistant", "content": ""}), Value::Null);
                let mut message = json!({"role": "assistant", "content": content.concat()});
                for piece in reasoning.iter().flatten() {
                    chunk(json!({"reasoning": piece}), Value::Null);
                }
                if let Some(reasoning) = reasoning {
                    message["reasoning"] = reasoning.concat().into();
                }
                for piece in content {
                    chunk(json!({"content": piece}), Value::Null);
                }
                for (number, arguments) in calls.iter().enumerate() {
                    chunk(json!({"tool_calls": [{"index": number, "id": format!("c{number}"), "type": "function",
                        "function": {"name": "f", "arguments": ""}}]}), Value::Null);
                    for piece in arguments {
                        chunk(json!({"tool_calls": [{"index": number, "function": {"arguments": piece}}]}), Value::Null);
                    }
                    if number == 0 {
                        message["tool_calls"] = json!([]);
                    }
                    message["tool_calls"].as_array_mut().unwrap().push(json!({"id": format!("c{number}"),
                        "type": "function", "function": {"name": "f", "arguments": arguments.concat()}}));
                }
                chunk(json!({}), "stop".into());
                whole.push(json!({"index": index, "message": message, "finish_reason": "stop"}));
            }
            chunks.push(json!({"id": "i", "choices": [], "usage": {"total_tokens": usage}}));
            let expected = json!({"id": "i", "created": 5, "model": "m", "object": "chat.completion",
                "choices": whole, "usage": {"total_tokens": usage}});
            prop_assert_eq!(fold(Operation::Chat, &chunks), expected);
        }
    }
}
