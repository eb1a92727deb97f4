//! What an OpenAI client hears from us: refusals, broken streams, lists.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{dialect::own, fault::Failure, server::Capability};

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

/// A model as it is listed.
#[derive(Clone, Debug, Serialize)]
pub struct Listed<'a> {
    /// The name to ask for.
    pub id: &'a str,
    /// When it became known, seconds since 1970.
    pub created: u64,
    /// Who serves it.
    pub owned_by: &'a str,
    /// The longest context that a request can have, in tokens.
    pub context_length: Option<u64>,
    /// What it can do.
    pub capabilities: &'a [Capability],
    /// Whether some server has it in memory.
    pub loaded: Option<bool>,
    /// The ids of the servers that have it.
    pub servers: Vec<&'a str>,
}

/// The body of `GET /v1/models`.
pub fn list(models: &[Listed<'_>]) -> Bytes {
    let data: Vec<Value> = models.iter().map(entry).collect();
    json!({"object": "list", "data": data}).to_string().into()
}

/// The body of `GET /v1/models/{id}`.
pub fn one(model: &Listed<'_>) -> Bytes {
    entry(model).to_string().into()
}

fn entry(model: &Listed<'_>) -> Value {
    let mut entry = json!(model);
    entry["object"] = "model".into();
    entry
}
