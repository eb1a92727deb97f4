//! Requests with nothing to answer, which Ollama takes for a call to load a model, or
//! with `keep_alive: 0` to unload it.
//!
//! `ollama run` begins with one and stops if it fails; `ollama stop` is one; Continue
//! and others send one so that the first answer comes sooner. Nothing is loaded by it
//! here: a server loads a model when it is asked for an answer, and which server that
//! will be is not decided before. So a call to load is answered at once, and a call to
//! unload, which would be a false promise of free memory, is refused.

use bytes::Bytes;
use serde_json::json;

use super::{found::Found, writer::at};
use crate::{
    dialect::{Door, json::bad},
    fault::Failure,
};

/// A request with nothing to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warm {
    /// The model, which must exist for an answer.
    pub model: String,
    door: Door,
}

/// Sees whether a request has nothing to answer; `None` is work, or a mistake that `peek` tells of.
/// Must be asked before `peek`, which refuses such requests.
pub fn warm(door: Door, body: &[u8]) -> Option<Result<Warm, Failure>> {
    let found = Found::of(body).ok()?;
    if !found.is_empty(door) || found.has_wrong_types(door) {
        return None;
    }
    let model = found.model().ok()?;
    let unloads = found.keep_alive.is_some_and(|it| is_zero(it.get()));
    if unloads && matches!(door, Door::OllamaChat | Door::OllamaGenerate) {
        return Some(Err(bad(
            "`keep_alive: 0` without a prompt unloads a model; lovable leaves that to the servers",
        )));
    }
    Some(Ok(Warm { model, door }))
}

/// Whether a `keep_alive` is no time at all: a number, or a duration such as `0s` or `0h0m`.
fn is_zero(value: &str) -> bool {
    if let Ok(number) = value.parse::<f64>() {
        return number == 0.0;
    }
    let digits: Vec<char> = value.chars().filter(char::is_ascii_digit).collect();
    !digits.is_empty() && digits.iter().all(|it| *it == '0') && !value.contains('-')
}

impl Warm {
    /// The answer, now at `at_ms`.
    pub fn answer(&self, at_ms: u64) -> Bytes {
        let (model, created_at) = (&self.model, at(at_ms));
        let body = match self.door {
            Door::OllamaGenerate => json!({
                "model": model, "created_at": created_at, "response": "", "done": true, "done_reason": "load",
            }),
            Door::OllamaEmbed => json!({"model": model, "embeddings": []}),
            Door::OllamaEmbeddings => json!({"embedding": []}),
            _ => json!({
                "model": model, "created_at": created_at, "message": {"role": "assistant", "content": ""},
                "done": true, "done_reason": "load",
            }),
        };
        body.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(door: Door, body: &str, expected: &str) {
        let shown = match warm(door, body.as_bytes()) {
            None => "work".to_owned(),
            Some(Ok(warm)) => String::from_utf8(warm.answer(1_000).to_vec()).unwrap(),
            Some(Err(failure)) => failure.message(),
        };
        assert_eq!(shown, expected, "for {body}");
    }

    #[test]
    fn a_call_to_load_is_answered_and_loads_nothing() {
        let answer = r#"{"model":"m","created_at":"1970-01-01T00:00:01Z","response":"","done":true,"done_reason":"load"}"#;
        check(Door::OllamaGenerate, r#"{"model":"m"}"#, answer);
        check(Door::OllamaGenerate, r#"{"model":"m","prompt":"","keep_alive":-1}"#, answer);
        check(Door::OllamaGenerate, r#"{"name":"m","prompt":null,"keep_alive":"10m"}"#, answer);
        check(
            Door::OllamaChat,
            r#"{"model":"m","messages":[ ]}"#,
            r#"{"model":"m","created_at":"1970-01-01T00:00:01Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}"#,
        );
        check(Door::OllamaEmbed, r#"{"model":"m","input":[]}"#, r#"{"model":"m","embeddings":[]}"#);
        check(Door::OllamaEmbeddings, r#"{"model":"m","prompt":""}"#, r#"{"embedding":[]}"#);
    }

    #[test]
    fn a_call_to_unload_is_refused() {
        let text = "`keep_alive: 0` without a prompt unloads a model; lovable leaves that to the servers";
        for zero in ["0", "0.0", "-0", "\"0\"", "\"0s\"", "\"0h0m\""] {
            check(Door::OllamaGenerate, &format!("{{\"model\":\"m\",\"keep_alive\":{zero}}}"), text);
            check(
                Door::OllamaChat,
                &format!("{{\"model\":\"m\",\"messages\":[],\"keep_alive\":{zero}}}"),
                text,
            );
        }
    }

    #[test]
    fn work_is_work_and_a_mistake_is_told_by_peek() {
        check(Door::OllamaGenerate, r#"{"model":"m","prompt":"hi","keep_alive":0}"#, "work");
        check(Door::OllamaGenerate, r#"{"model":"m","prompt":"","suffix":"}"}"#, "work");
        check(Door::OllamaGenerate, r#"{"prompt":""}"#, "work");
        check(Door::OllamaGenerate, r#"{"model":"m","prompt":false}"#, "work");
        check(Door::OllamaChat, r#"{"model":"m","messages":{}}"#, "work");
        check(Door::OllamaChat, "{", "work");
    }
}
