//! A conversation as the text that the model sees: Ollama shows it instead of an answer, by a
//! field that is there for debugging (0.24.0). What it shows ends where the model would begin,
//! and is what `raw` at `/api/generate` takes.

use bytes::Bytes;
use serde_json::Value;

use super::ask;
use crate::{
    dialect::{Door, To, json},
    generate::Meaning,
};

/// Asks for the text.
pub(super) fn ask(meaning: &Meaning, to: &To<'_>) -> Option<Bytes> {
    let asked = ask::ask(Door::OllamaChat, meaning, &To { stream: false, ..*to }).ok()?;
    asked.forced.is_none().then(|| json::set(&asked.body, &[("_debug_render_only", "true")]))
}

/// Reads it. A server that does not know the field has answered the conversation.
pub(super) fn read(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let text = answer["_debug_info"]["rendered_template"].as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Chat, Role, Turn};

    #[test]
    fn the_text_is_asked_for_and_read() {
        let turns = vec![Turn::text(Role::User, "hi")];
        let meaning = Meaning::Chat(Chat { turns, ..Chat::default() });
        let to = To { model: "m", stream: true, ask_usage: true, max_tokens: false, sold: None };
        let asked: Value = serde_json::from_slice(&ask(&meaning, &to).unwrap()).unwrap();
        assert_eq!((&asked["_debug_render_only"], &asked["stream"]), (&true.into(), &false.into()));
        assert_eq!(asked["messages"][0]["content"], "hi");
        let recorded =
            include_bytes!("../../../tests/recordings/ollama-0.24.0/114-ollama-chat-debug-render.http");
        let body = recorded.split(|it| *it == b'\n').next_back().unwrap();
        assert_eq!(read(body).unwrap(), "<|im_start|>user\nCount for me.<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(read(br#"{"message":{"role":"assistant","content":"hello"},"done":true}"#), None);
    }
}
