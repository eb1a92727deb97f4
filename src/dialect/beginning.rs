//! What a conversation begins with, as a number.
//!
//! A server that has read a conversation keeps what it read, so the next turn is cheap there
//! and nowhere else. The next turn begins as the last one did: with the same instructions and
//! the same first words of the caller, whatever language it is in. Only words count: clients
//! move marks for caches about between turns. Nothing is judged here; a request that cannot be
//! read has no beginning. A prompt may be a megabyte: texts are looked at as they are written,
//! and no further than they differ.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use serde::{
    Deserialize,
    de::{Deserializer, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::dialect::json;

/// Of a text to be continued so many bytes are its beginning.
const BEGINNING: usize = 512;

/// So many bytes of a turn's text count, and how long it is.
const COUNTS: usize = 4096;

/// The number of the conversation in a request for this model. `None` where there is none.
pub fn beginning(model: &str, body: &[u8]) -> Option<u64> {
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    let mut hash = Hash::default();
    model.hash(&mut hash.0);
    for instructions in [body.system, body.instructions].into_iter().flatten() {
        hash.add_words(instructions);
    }
    match (body.messages.or(body.input), body.prompt) {
        (Some(turns), _) if turns.get().starts_with('[') => {
            let mut found = false;
            // Whoever is satisfied with the first turns leaves the rest unread, which is an error here.
            let _ = serde_json::Deserializer::from_str(turns.get())
                .deserialize_seq(Turns { hash: &mut hash, found: &mut found });
            found.then(|| hash.0.finish())
        }
        (Some(text), _) | (None, Some(text)) => {
            let text = written(text)?;
            hash.0.write(&text[..text.len().min(BEGINNING)]);
            Some(hash.0.finish())
        }
        (None, None) => None,
    }
}

/// The number of a conversation that the caller names itself.
pub fn named(session: &str) -> u64 {
    let mut hash = DefaultHasher::new();
    ("session", session).hash(&mut hash);
    hash.finish()
}

/// A text as it is written, without its quotes.
fn written(value: &RawValue) -> Option<&[u8]> {
    Some(value.get().strip_prefix('"')?.strip_suffix('"')?.as_bytes())
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    system: Option<&'a RawValue>,
    #[serde(borrow, default)]
    instructions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prompt: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Turn<'a> {
    #[serde(borrow, default)]
    role: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
}

/// Reads turns up to the first of the caller; says whether there is one.
struct Turns<'h> {
    hash: &'h mut Hash,
    found: &'h mut bool,
}

impl<'de> Visitor<'de> for Turns<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of turns")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut turns: A) -> Result<(), A::Error> {
        while let Some(turn) = turns.next_element::<Turn<'de>>()? {
            if let Some(content) = turn.content {
                self.hash.add_words(content);
            }
            if turn.role.and_then(json::text).as_deref() == Some("user") {
                *self.found = true;
                break;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Hash(DefaultHasher);

impl Hash {
    /// A text, or the texts of a list of parts.
    fn add_words(&mut self, content: &RawValue) {
        if let Some(text) = written(content) {
            text.len().hash(&mut self.0);
            self.0.write(&text[..text.len().min(COUNTS)]);
            return;
        }
        let parts: Vec<Part<'_>> = serde_json::from_str(content.get()).unwrap_or_default();
        for text in parts.into_iter().filter_map(|it| it.text) {
            self.add_words(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(body: Value) -> u64 {
        beginning("m", body.to_string().as_bytes()).unwrap_or_else(|| panic!("no beginning: {body}"))
    }

    fn turn(role: &str, text: &str) -> Value {
        json!({"role": role, "content": text})
    }

    #[test]
    fn every_turn_of_a_conversation_has_the_same_number() {
        let first = of(json!({"messages": [turn("system", "be brief"), turn("user", "hi")]}));
        let later =
            [turn("system", "be brief"), turn("user", "hi"), turn("assistant", "ho"), turn("user", "x")];
        assert_eq!(of(json!({"messages": later, "temperature": 1})), first);
        let parts = json!([{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]);
        let marked = json!([turn("system", "be brief"), {"role": "user", "content": parts}]);
        assert_eq!(of(json!({"messages": marked})), first);
        assert_eq!(of(json!({"messages": [turn("user", "hi")], "system": "be brief"})), first, "Anthropic's");
        assert_eq!(
            of(json!({"input": [turn("user", "hi")], "instructions": "be brief"})),
            first,
            "Responses"
        );
    }

    #[test]
    fn other_conversations_have_others() {
        let of_text = |text: &str| of(json!({"messages": [turn("user", text)]}));
        let first = of_text("hi");
        assert_ne!(of_text("ho"), first);
        assert_ne!(of(json!({"messages": [turn("system", "x"), turn("user", "hi")]})), first);
        let other_model = beginning("n", json!({"messages": [turn("user", "hi")]}).to_string().as_bytes());
        assert_ne!(other_model, Some(first));
        assert_ne!(named("a"), named("b"));
    }

    #[test]
    fn of_a_text_the_first_words_count() {
        let long = "é".repeat(400);
        let of_text = |text: String| of(json!({"prompt": text}));
        assert_eq!(of_text(format!("{long}a")), of_text(format!("{long}b")));
        assert_ne!(of_text("a".into()), of_text("b".into()));
        assert_eq!(of(json!({"input": "a"})), of_text("a".into()));
    }

    #[test]
    fn what_has_no_beginning_has_none() {
        for body in [
            "",
            "[]",
            "{}",
            "{\"messages\":[]}",
            "{\"messages\":[{\"role\":\"assistant\"}]}",
            "{\"prompt\":[1,2]}",
        ] {
            assert_eq!(beginning("m", body.as_bytes()), None, "{body}");
        }
    }
}
