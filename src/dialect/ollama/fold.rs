//! Makes one whole answer out of a stream in Ollama's language.
//!
//! Texts are joined, tool calls and log probabilities put end to end; everything else
//! is kept as it was written in the last line that had it, in that line's order.

use bytes::Bytes;
use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    dialect::{self, Door, json},
    fault::Cause,
};

/// Collects the lines of one stream.
#[derive(Debug)]
pub(super) struct Fold {
    door: Door,
    fields: Object,
    message: Object,
    came: bool,
    held: usize,
    broken: bool,
}

/// An object under construction, in the order of its fields.
#[derive(Debug, Default)]
struct Object(Vec<(String, Part)>);

/// A field that grows, or one that is replaced.
#[derive(Debug)]
enum Part {
    Text(String),
    List(Vec<String>),
    Other(String),
    /// Where the message stands.
    Message,
}

impl Fold {
    pub(super) fn new(door: Door) -> Self {
        Self {
            door,
            fields: Object::default(),
            message: Object::default(),
            came: false,
            held: 0,
            broken: false,
        }
    }

    fn try_add(&mut self, data: &[u8]) -> Option<()> {
        let Fields(fields) = serde_json::from_slice(data).ok()?;
        for (name, value) in fields {
            self.held += match name.as_str() {
                "message" if self.door == Door::OllamaChat => {
                    self.fields.replace(name, Part::Message);
                    let Fields(message) = serde_json::from_str(value.get()).ok()?;
                    let mut grown = 0;
                    for (name, value) in message {
                        grown += self.message.say(name, value)?;
                    }
                    grown
                }
                "response" | "thinking" | "tool_calls" | "logprobs" => self.fields.say(name, value)?,
                _ => self.fields.keep(name, value),
            };
        }
        self.came = true;
        Some(())
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
        if !self.came {
            return Err(Cause::Empty);
        }
        let message = self.message.write("");
        Ok(self.fields.write(&message).into())
    }
}

impl Object {
    fn at(&mut self, name: &str) -> Option<&mut Part> {
        self.0.iter_mut().find(|(field, _)| field == name).map(|(_, part)| part)
    }

    fn replace(&mut self, name: String, part: Part) {
        match self.at(&name) {
            Some(old) => *old = part,
            None => self.0.push((name, part)),
        }
    }

    /// Keeps a field as it is written, but for a null after something else.
    fn keep(&mut self, name: String, value: &RawValue) -> usize {
        let grown = value.get().len();
        match self.at(&name) {
            Some(_) if value.get() == "null" => 0,
            Some(old) => {
                let before = match old {
                    Part::Other(old) => old.len(),
                    Part::Text(_) | Part::List(_) | Part::Message => 0,
                };
                *old = Part::Other(value.get().to_owned());
                grown.saturating_sub(before)
            }
            None => {
                self.0.push((name, Part::Other(value.get().to_owned())));
                grown
            }
        }
    }

    /// Joins what grows; `None` if it cannot be joined.
    fn say(&mut self, name: String, value: &RawValue) -> Option<usize> {
        let grows = matches!(name.as_str(), "content" | "response" | "thinking" | "tool_calls" | "logprobs");
        if !grows || value.get() == "null" {
            return Some(self.keep(name, value));
        }
        let more = if value.get().starts_with('"') {
            Part::Text(json::text(value)?.into_owned())
        } else {
            let list: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
            Part::List(list.into_iter().map(|it| it.get().to_owned()).collect())
        };
        match (self.at(&name), more) {
            (Some(Part::Text(text)), Part::Text(more)) => text.push_str(&more),
            (Some(Part::List(list)), Part::List(more)) => list.extend(more),
            (Some(Part::Other(_)) | None, more) => self.replace(name, more),
            (Some(_), _) => return None,
        }
        Some(value.get().len())
    }

    fn write(&self, message: &str) -> String {
        let fields = self.0.iter().map(|(name, part)| {
            let value = match part {
                Part::Text(text) => json::quote(text),
                Part::List(list) => format!("[{}]", list.join(",")),
                Part::Other(json) => json.clone(),
                Part::Message => message.to_owned(),
            };
            format!("{}:{value}", json::quote(name))
        });
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    }
}

/// The fields of an object in their order.
pub(super) struct Fields<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(field) = map.next_entry()? {
                    all.push(field);
                }
                Ok(all)
            }
        }
        from.deserialize_map(All).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dialect::Fold as _;

    fn folded(door: Door, lines: &[&str]) -> Result<String, Cause> {
        let mut fold = Box::new(Fold::new(door));
        for line in lines {
            fold.add(line.as_bytes());
        }
        fold.finish().map(|it| String::from_utf8(it.to_vec()).unwrap())
    }

    #[test]
    fn what_is_known_grows_and_what_is_not_is_kept() {
        let lines = [
            r#"{"model":"m","created_at":"t1","message":{"role":"assistant","content":"","thinking":"h","x":1},"done":false}"#,
            r#"{"model":"m","created_at":"t2","message":{"role":"assistant","content":"a\"","thinking":"m"},"done":false,"logprobs":[{"token":"a"}]}"#,
            r#"{"model":"m","created_at":"t3","message":{"role":"assistant","content":"b","tool_calls":[{"function":{"name":"f","arguments":{"b":1.50,"a":2}}}]},"done":false,"logprobs":[{"token":"b"}],"new":{"y":[1]}}"#,
            r#"{"model":"m","created_at":"t4","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"g"}}]},"done":true,"done_reason":"stop","eval_count":3,"logprobs":null}"#,
        ];
        let expected = r#"{"model":"m","created_at":"t4","message":{"role":"assistant","content":"a\"b","thinking":"hm","x":1,"tool_calls":[{"function":{"name":"f","arguments":{"b":1.50,"a":2}}},{"function":{"name":"g"}}]},"done":true,"logprobs":[{"token":"a"},{"token":"b"}],"new":{"y":[1]},"done_reason":"stop","eval_count":3}"#;
        assert_eq!(folded(Door::OllamaChat, &lines).unwrap(), expected);
    }

    #[test]
    fn generate_grows_at_the_top() {
        let lines = [
            r#"{"model":"m","response":"","thinking":"h","done":false}"#,
            r#"{"model":"m","response":"a","done":false}"#,
            r#"{"model":"m","response":"b","done":true,"done_reason":"length","context":[1,2]}"#,
        ];
        let expected = r#"{"model":"m","response":"ab","thinking":"h","done":true,"done_reason":"length","context":[1,2]}"#;
        assert_eq!(folded(Door::OllamaGenerate, &lines).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_put_together_is_no_answer() {
        assert_eq!(folded(Door::OllamaChat, &[]), Err(Cause::Empty));
        assert_eq!(folded(Door::OllamaChat, &["x"]), Err(Cause::Unreadable));
        let mixed = [r#"{"response":"a"}"#, r#"{"response":["b"]}"#];
        assert_eq!(folded(Door::OllamaGenerate, &mixed), Err(Cause::Unreadable));
        let mut fold = Fold::new(Door::OllamaChat);
        fold.add(br#"{"message":5}"#);
        assert!(fold.is_broken());
    }

    #[test]
    fn what_is_held_does_not_grow_by_what_is_replaced() {
        let mut fold = Fold::new(Door::OllamaChat);
        let line = br#"{"model":"m","created_at":"2026-11-23T19:55:05.52472528Z","message":{"role":"assistant","content":"a"},"done":false}"#;
        for _ in 0..1000 {
            fold.add(line);
        }
        assert!((1000..5000).contains(&fold.held()), "{}", fold.held());
    }
}
