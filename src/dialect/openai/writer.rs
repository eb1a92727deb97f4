//! What an OpenAI client hears from us: refusals, broken streams, lists.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    dialect::{Listed, own},
    fault::Failure,
    server::Capability,
};

/// Keeps a waiting stream alive; every client passes comments over.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Ends a stream whose answer is whole.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// The body that tells of a failure, before the answer has begun.
pub fn refuse(failure: &Failure, request_id: &str) -> Bytes {
    if let Failure::Relayed(words) = failure
        && is_ours(&words.body)
    {
        return words.body.clone();
    }
    let mut body = error(failure);
    body["error"]["request_id"] = request_id.into();
    body.to_string().into()
}

/// The event that tells of a failure, after the answer has begun. Nothing may
/// follow it: SDKs raise on any event with an error, and take an end without
/// one, with or without `[DONE]`, for success.
pub fn break_off(failure: &Failure) -> Bytes {
    let body = match failure {
        // Written anew, because a server's words may be of several lines.
        Failure::Relayed(words) if is_ours(&words.body) => {
            serde_json::from_slice(&words.body).unwrap_or_else(|_| error(failure))
        }
        _ => error(failure),
    };
    format!("data: {body}\n\n").into()
}

/// Whether a server's words are what an OpenAI client can read.
fn is_ours(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|it| it["error"]["message"].is_string())
}

fn error(failure: &Failure) -> Value {
    let kind = match failure.status() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let param = match failure {
        Failure::UnknownModel { .. } => Value::from("model"),
        _ => Value::Null,
    };
    json!({"error": {
        "message": own::message(failure),
        "type": kind,
        "param": param,
        "code": failure.code(),
    }})
}

/// The body of `GET /v1/models`.
pub fn list(models: &[Listed<'_>]) -> Bytes {
    json_bytes(&List { object: "list", data: models.iter().map(entry).collect() })
}

/// The body of `GET /v1/models/{id}`.
pub fn one(model: &Listed<'_>) -> Bytes {
    json_bytes(&entry(model))
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
    name: String,
    context_length: Option<u64>,
    /// Clients made for vLLM look for it under this name.
    max_model_len: Option<u64>,
    capabilities: &'a [Capability],
    loaded: Option<bool>,
    servers: &'a [&'a str],
}

fn entry<'a>(model: &'a Listed<'_>) -> Entry<'a> {
    Entry {
        id: model.id,
        object: "model",
        created: model.created,
        owned_by: model.owned_by,
        name: model.display_name(),
        context_length: model.context_length,
        max_model_len: model.context_length,
        capabilities: model.capabilities,
        loaded: model.loaded,
        servers: &model.servers,
    }
}

/// These shapes have no map whose keys could not be written.
fn json_bytes(shape: &impl Serialize) -> Bytes {
    serde_json::to_vec(shape).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Words;

    fn words(body: &str) -> Failure {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Failure::Relayed(Words { status: 400, content_type: None, body })
    }

    #[test]
    fn a_servers_own_words_are_passed_on_as_they_are() {
        let body = "{ \"error\": {\"message\":\"m\",\"code\":400} }";
        assert_eq!(refuse(&words(body), "r"), body);
    }

    #[test]
    fn a_list_says_what_a_client_needs_and_more() {
        let capabilities = [Capability::Chat, Capability::Tools];
        let listed = Listed {
            id: "a/b:latest",
            created: 5,
            owned_by: "ollama",
            context_length: Some(4096),
            capabilities: &capabilities,
            servers: vec!["ollama"],
            ..Listed::default()
        };
        let entry = json!({"id": "a/b:latest", "object": "model", "created": 5, "owned_by": "ollama",
            "name": "B", "context_length": 4096, "max_model_len": 4096, "capabilities": ["chat", "tools"], "loaded": null, "servers": ["ollama"]});
        let parsed: Value = serde_json::from_slice(&one(&listed)).unwrap();
        assert_eq!(parsed, entry);
        let parsed: Value = serde_json::from_slice(&list(&[listed])).unwrap();
        assert_eq!(parsed, json!({"object": "list", "data": [entry]}));
        assert_eq!(list(&[]), "{\"object\":\"list\",\"data\":[]}");
    }
}
