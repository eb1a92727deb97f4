//! Makes one whole answer out of a stream.
//!
//! `message_start` has the answer without what is said, blocks are put together from
//! their pieces, and `message_delta` has the rest. Texts are appended, the arguments of
//! a call become its input, and everything else is kept as it was written.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::frame::object;
use crate::{
    dialect::{
        self,
        json::{self, quote},
    },
    fault::Cause,
};

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// Fields as JSON text.
type Kept = BTreeMap<String, String>;

/// Collects the events of one stream.
#[derive(Debug, Default)]
pub(super) struct Fold {
    message: Kept,
    usage: Kept,
    blocks: BTreeMap<u64, Block>,
    begun: bool,
    held: usize,
    broken: bool,
}

/// A block that is being put together.
#[derive(Debug, Default)]
struct Block {
    fields: Kept,
    texts: BTreeMap<String, String>,
    lists: BTreeMap<String, Vec<String>>,
    input: String,
}

impl Fold {
    fn try_add(&mut self, data: &[u8]) -> Option<()> {
        if data.trim_ascii() == b"[DONE]" {
            return Some(());
        }
        let mut event: Object<'_> = object(std::str::from_utf8(data).ok()?)?;
        let kind = event.remove("type").and_then(json::text)?;
        let index = event.remove("index").and_then(|it| it.get().parse().ok());
        match kind.as_ref() {
            "message_start" => {
                self.begun = true;
                for (name, value) in read(event.remove("message")?)? {
                    self.keep(name, value)?;
                }
            }
            "content_block_start" => {
                let block = self.blocks.entry(index?).or_default();
                // A block without a word in it takes memory all the same.
                self.held += size_of::<Block>() + block.start(read(event.remove("content_block")?)?);
            }
            "content_block_delta" => {
                let block = self.blocks.get_mut(&index?)?;
                self.held += block.add(read(event.remove("delta")?)?)?;
            }
            "message_delta" => {
                for (name, value) in event.remove("delta").map_or(Some(Object::new()), read)? {
                    self.keep(name, value)?;
                }
                for (name, value) in event {
                    self.keep(name, value)?;
                }
            }
            "message_stop" => {
                for (name, value) in event {
                    self.keep(name, value)?;
                }
            }
            _ => {}
        }
        Some(())
    }

    fn keep(&mut self, name: String, value: &RawValue) -> Option<()> {
        if name == "usage" {
            if value.get() != "null" {
                // Each is the sum so far; one that is missing has not changed.
                for (name, value) in read(value)? {
                    if value.get() != "null" || !self.usage.contains_key(&name) {
                        self.held += keep(&mut self.usage, name, value);
                    }
                }
            }
        } else if name != "content" && (value.get() != "null" || !self.message.contains_key(&name)) {
            self.held += keep(&mut self.message, name, value);
        }
        Some(())
    }
}

impl Block {
    fn start(&mut self, fields: Object<'_>) -> usize {
        fields.into_iter().map(|(name, value)| keep(&mut self.fields, name, value)).sum()
    }

    fn add(&mut self, mut delta: Object<'_>) -> Option<usize> {
        let kind = delta.remove("type").and_then(json::text)?;
        let mut grown = 0;
        for (name, value) in delta {
            grown += value.get().len();
            match (kind.as_ref(), name.as_str()) {
                ("input_json_delta", "partial_json") => self.input.push_str(&json::text(value)?),
                ("citations_delta", "citation") => {
                    self.lists.entry("citations".to_owned()).or_default().push(value.get().to_owned());
                }
                _ => match json::text(value) {
                    Some(text) => self.texts.entry(name).or_default().push_str(&text),
                    None => {
                        self.fields.insert(name, value.get().to_owned());
                    }
                },
            }
        }
        Some(grown)
    }

    fn write(&self) -> Option<String> {
        let mut fields = self.fields.clone();
        for (name, text) in &self.texts {
            let before = fields.get(name).and_then(|it| serde_json::from_str::<String>(it).ok());
            fields.insert(name.clone(), quote(&(before.unwrap_or_default() + text)));
        }
        for (name, items) in &self.lists {
            let before = fields.get(name).and_then(|it| it.strip_prefix('[')?.strip_suffix(']'));
            let before = before.map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned);
            let all: Vec<String> = before.into_iter().chain(items.iter().cloned()).collect();
            fields.insert(name.clone(), format!("[{}]", all.join(",")));
        }
        if !self.input.trim().is_empty() {
            // As it was written, so that no number in it changes.
            object::<Object<'_>>(&self.input)?;
            fields.insert("input".to_owned(), self.input.trim().to_owned());
        }
        let mut out = String::from("{");
        for name in ["type", "id", "name"] {
            if let Some(value) = fields.remove(name) {
                field(&mut out, name, &value);
            }
        }
        for (name, value) in &fields {
            field(&mut out, name, value);
        }
        out.push('}');
        Some(out)
    }
}

impl dialect::Fold for Fold {
    fn add(&mut self, data: &[u8]) {
        if self.try_add(data).is_none() {
            self.broken = true;
        }
    }

    fn held(&self) -> usize {
        self.held
    }

    fn is_broken(&self) -> bool {
        self.broken
    }

    fn finish(self: Box<Self>) -> Result<Bytes, Cause> {
        if self.broken {
            return Err(Cause::Unreadable);
        }
        if !self.begun {
            return Err(Cause::Empty);
        }
        let blocks: Option<Vec<String>> = self.blocks.values().map(Block::write).collect();
        let blocks = blocks.ok_or(Cause::Unreadable)?;
        let mut message = self.message;
        let mut out = String::from("{");
        for (name, default) in
            [("id", None), ("type", Some("\"message\"")), ("role", Some("\"assistant\"")), ("model", None)]
        {
            let value = message.remove(name);
            if let Some(value) = value.as_deref().or(default) {
                field(&mut out, name, value);
            }
        }
        field(&mut out, "content", &format!("[{}]", blocks.join(",")));
        for name in ["stop_reason", "stop_sequence"] {
            field(&mut out, name, message.remove(name).as_deref().unwrap_or("null"));
        }
        if !self.usage.is_empty() {
            let mut usage = String::from("{");
            for (name, value) in &self.usage {
                field(&mut usage, name, value);
            }
            usage.push('}');
            field(&mut out, "usage", &usage);
        }
        for (name, value) in &message {
            field(&mut out, name, value);
        }
        out.push('}');
        Ok(out.into())
    }
}

fn read(value: &RawValue) -> Option<Object<'_>> {
    object(value.get())
}

/// Keeps the last value of a field; says by how much what is held has grown.
fn keep(fields: &mut Kept, name: String, value: &RawValue) -> usize {
    let grown = name.len() + value.get().len();
    match fields.insert(name, value.get().to_owned()) {
        None => grown,
        Some(before) => value.get().len().saturating_sub(before.len()),
    }
}

fn field(out: &mut String, name: &str, value: &str) {
    if out.len() > 1 {
        out.push(',');
    }
    out.push_str(&quote(name));
    out.push(':');
    out.push_str(value);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::Fold as _;

    fn fold(events: &[Value]) -> Result<Value, Cause> {
        let mut fold = Box::new(Fold::default());
        for event in events {
            fold.add(event.to_string().as_bytes());
        }
        fold.add(b"[DONE]");
        fold.finish().map(|it| serde_json::from_slice(&it).unwrap())
    }

    fn start() -> Value {
        json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant",
            "model": "x", "content": [], "stop_reason": null, "stop_sequence": null, "future": {"a": 1},
            "usage": {"input_tokens": 4, "output_tokens": 1, "service_tier": "standard"}}})
    }

    fn block(index: u64, block: Value) -> Value {
        json!({"type": "content_block_start", "index": index, "content_block": block})
    }

    fn delta(index: u64, delta: Value) -> Value {
        json!({"type": "content_block_delta", "index": index, "delta": delta})
    }

    #[test]
    fn pieces_become_an_answer_and_unknown_fields_stay() {
        let answer = fold(&[
            start(),
            json!({"type": "ping"}),
            block(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "h", "estimated_tokens": 1})),
            delta(0, json!({"type": "thinking_delta", "thinking": "m"})),
            delta(0, json!({"type": "signature_delta", "signature": "s"})),
            json!({"type": "content_block_stop", "index": 0}),
            block(1, json!({"type": "text", "text": "H", "citations": [1]})),
            delta(1, json!({"type": "text_delta", "text": "é\"y"})),
            delta(1, json!({"type": "citations_delta", "citation": {"x": 1}})),
            block(2, json!({"type": "tool_use", "id": "t", "name": "f", "input": {}})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "{\"a\": 1"})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "}"})),
            block(3, json!({"type": "tool_use", "id": "u", "name": "g", "input": {}})),
            block(4, json!({"type": "from_the_future", "text": "", "y": 2})),
            delta(4, json!({"type": "future_delta", "text": "z"})),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null, "container": null},
                "usage": {"output_tokens": 9, "input_tokens": null}, "context_management": {"b": 2}}),
            json!({"type": "message_stop", "metrics": 7}),
        ])
        .unwrap();
        let expected = json!({
            "id": "m", "type": "message", "role": "assistant", "model": "x", "future": {"a": 1},
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s", "estimated_tokens": 1},
                {"type": "text", "text": "Hé\"y", "citations": [1, {"x": 1}]},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "u", "name": "g", "input": {}},
                {"type": "from_the_future", "text": "z", "y": 2},
            ],
            "stop_reason": "tool_use", "stop_sequence": null, "container": null,
            "usage": {"input_tokens": 4, "output_tokens": 9, "service_tier": "standard"},
            "context_management": {"b": 2}, "metrics": 7,
        });
        assert_eq!(answer, expected);
    }

    #[test]
    fn what_cannot_be_put_together_is_a_fault() {
        assert_eq!(fold(&[]), Err(Cause::Empty));
        assert_eq!(
            fold(&[start(), delta(0, json!({"type": "text_delta", "text": "a"}))]),
            Err(Cause::Unreadable)
        );
        assert_eq!(fold(&[start(), json!([])]), Err(Cause::Unreadable));
        let torn = [
            start(),
            block(0, json!({"type": "tool_use", "id": "t", "name": "f", "input": {}})),
            delta(0, json!({"type": "input_json_delta", "partial_json": "{\"a\":"})),
        ];
        assert_eq!(fold(&torn), Err(Cause::Unreadable));
    }

    #[test]
    fn what_is_held_is_counted() {
        let mut fold = Fold::default();
        fold.add(start().to_string().as_bytes());
        let mut last = fold.held();
        for index in 0..20 {
            fold.add(block(index, json!({"type": "text"})).to_string().as_bytes());
            fold.add(
                delta(index, json!({"type": "text_delta", "text": "0123456789"})).to_string().as_bytes(),
            );
            assert!(fold.held() >= last + 10);
            last = fold.held();
        }
        assert!(last < 20_000);
    }
}
