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
        "display_name": model.display_name(),
        "created_at": rfc3339(model.created),
        "max_input_tokens": model.context_length,
        "context_length": model.context_length,
        "capabilities": model.capabilities,
        "loaded": model.loaded,
        "servers": model.servers,
    })
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
