//! The list of models, as clients of this language read it.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::dialect::Listed;

/// The body of `GET /v1/models`: everything on one page.
pub fn list(models: &[Listed<'_>]) -> Bytes {
    let data: Vec<Value> = models.iter().map(entry).collect();
    json!({
        "data": data,
        "has_more": false,
        "first_id": models.first().map(|it| it.id),
        "last_id": models.last().map(|it| it.id),
    })
    .to_string()
    .into()
}

/// The body of `GET /v1/models/{id}`.
pub fn one(model: &Listed<'_>) -> Bytes {
    entry(model).to_string().into()
}

fn entry(model: &Listed<'_>) -> Value {
    json!({
        "type": "model",
        "id": model.id,
        "display_name": display_name(model.id),
        "created_at": rfc3339(model.created),
        "max_input_tokens": model.context_length,
        "context_length": model.context_length,
        "capabilities": model.capabilities,
        "loaded": model.loaded,
        "servers": model.servers,
    })
}

/// A name for people: `qwen3:8b-q4_K_M` is `Qwen3 8B Q4_K_M`.
fn display_name(id: &str) -> String {
    let name = id.rsplit('/').next().unwrap_or(id);
    let name = name.strip_suffix(":latest").unwrap_or(name);
    let name = name.strip_suffix(".gguf").unwrap_or(name);
    let words = name.split([':', '-', ' ']).filter(|it| !it.is_empty()).map(word);
    let shown = words.collect::<Vec<_>>().join(" ");
    if shown.is_empty() { id.to_owned() } else { shown }
}

fn word(word: &str) -> String {
    let bytes = word.as_bytes();
    // A size (`8b`, `30b`, `1.5b`) or a quantisation (`q4_K_M`, `fp16`).
    let is_size = bytes[0].is_ascii_digit() && matches!(bytes.last(), Some(b'b' | b'm' | b'k'));
    let is_quantisation =
        word.starts_with("fp") || matches!(bytes, [b'q', digit, ..] if digit.is_ascii_digit());
    if is_size || is_quantisation {
        return word.to_ascii_uppercase();
    }
    let mut letters = word.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).collect()
}

fn rfc3339(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|it| jiff::Timestamp::from_second(it).ok());
    // A time beyond the calendar is none that a server knows.
    at.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Capability;

    #[test]
    fn names_are_for_people() {
        let check = |id: &str, expected: &str| assert_eq!(display_name(id), expected, "for {id}");
        check("qwen3:8b", "Qwen3 8B");
        check("qwen3:8b-q4_K_M", "Qwen3 8B Q4_K_M");
        check("llama3.2:latest", "Llama3.2");
        check("openai/gpt-oss-20b", "Gpt Oss 20B");
        check("Qwen2.5-Coder-1.5b-Instruct.gguf", "Qwen2.5 Coder 1.5B Instruct");
        check("éa", "Éa");
        check(":", ":");
    }

    #[test]
    fn a_list_says_what_a_client_needs_and_more() {
        let listed = Listed {
            id: "qwen3:8b",
            created: 5,
            context_length: Some(4096),
            capabilities: &[Capability::Chat],
            loaded: Some(true),
            servers: vec!["ollama"],
            ..Listed::default()
        };
        let entry = json!({
            "type": "model", "id": "qwen3:8b", "display_name": "Qwen3 8B", "created_at": "1970-01-01T00:00:05Z",
            "max_input_tokens": 4096, "context_length": 4096, "capabilities": ["chat"], "loaded": true,
            "servers": ["ollama"],
        });
        assert_eq!(serde_json::from_slice::<Value>(&one(&listed)).unwrap(), entry);
        let expected =
            json!({"data": [entry], "has_more": false, "first_id": "qwen3:8b", "last_id": "qwen3:8b"});
        assert_eq!(serde_json::from_slice::<Value>(&list(&[listed])).unwrap(), expected);
        let empty = json!({"data": [], "has_more": false, "first_id": null, "last_id": null});
        assert_eq!(serde_json::from_slice::<Value>(&list(&[])).unwrap(), empty);
        assert_eq!(rfc3339(u64::MAX), "1970-01-01T00:00:00Z");
    }
}
