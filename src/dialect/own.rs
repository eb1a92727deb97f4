//! Our own language, on the lovable routes, as far as failures go.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::fault::{Failure, Words};

/// The most that is taken from a server's words that are in no known shape.
const LONGEST_WORDS: usize = 4096;

/// The body that tells of a failure: `{"error": {"code", "message", "request_id"}}`.
pub fn refuse(failure: &Failure, request_id: &str) -> Bytes {
    json!({"error": {
        "code": failure.code(),
        "message": message(failure),
        "request_id": request_id,
    }})
    .to_string()
    .into()
}

/// The event that tells of a failure after a stream has begun. Nothing follows it.
pub fn break_off(failure: &Failure, request_id: &str) -> Bytes {
    let body = refuse(failure, request_id);
    [b"data: ", &body[..], b"\n\n"].concat().into()
}

/// What a caller is told: our sentence, or the server's own words for a relayed refusal.
pub(super) fn message(failure: &Failure) -> String {
    match failure {
        Failure::Relayed(words) => said(words).unwrap_or_else(|| failure.message()),
        other => other.message(),
    }
}

/// The sentence in a server's words, in any of the shapes that servers use.
fn said(words: &Words) -> Option<String> {
    let text = match serde_json::from_slice::<Value>(&words.body) {
        Ok(value) => find(&value)?,
        Err(_) => {
            let start = &words.body[..words.body.len().min(LONGEST_WORDS)];
            String::from_utf8_lossy(start).trim().to_owned()
        }
    };
    (!text.is_empty()).then_some(text)
}

fn find(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        // FastAPI lists what is wrong with each field.
        Value::Array(items) => {
            let all: Vec<String> = items.iter().filter_map(find).collect();
            (!all.is_empty()).then(|| all.join("; "))
        }
        Value::Object(fields) => {
            ["error", "message", "detail", "msg"].iter().find_map(|name| find(fields.get(*name)?))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}
