//! What an OpenAI client hears from us: refusals, broken streams, lists.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    dialect::{Listed, own},
    fault::Failure,
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
    let data: Vec<Value> = models.iter().map(entry).collect();
    json!({"object": "list", "data": data}).to_string().into()
}

/// The body of `GET /v1/models/{id}`.
pub fn one(model: &Listed<'_>) -> Bytes {
    entry(model).to_string().into()
}

fn entry(model: &Listed<'_>) -> Value {
    json!({
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "name": model.display_name(),
        "context_length": model.context_length,
        // Clients made for vLLM look for it under this name.
        "max_model_len": model.context_length,
        "capabilities": model.capabilities,
        "loaded": model.loaded,
        "servers": model.servers,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault::{Cause, Fault, Stage, Tried, Words};
    use crate::server::Capability;

    fn words(body: &str) -> Failure {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Failure::Relayed(Words { status: 400, content_type: None, body })
    }

    /// One of each, so that a new one must be thought of here.
    fn every_failure() -> Vec<Failure> {
        let tried = vec![Tried { server: "a".to_owned(), fault: Fault::new(Stage::Head, Cause::Reset) }];
        let all = vec![
            Failure::BadRequest("the body is \"bad\"\n".to_owned()),
            Failure::Unsupported("x".to_owned()),
            Failure::UnknownRoute("/x".to_owned()),
            Failure::WrongMethod { allow: "GET" },
            Failure::UnknownModel { model: "m".to_owned(), nearest: vec!["n".to_owned()] },
            Failure::NotFound("x".to_owned()),
            Failure::BodyTooLarge { limit: 5 },
            Failure::SlowCaller,
            Failure::Forbidden("x".to_owned()),
            Failure::WrongKey("x".to_owned()),
            Failure::Loop,
            words("{\n  \"error\": {\"message\": \"server's own\", \"code\": 400}\n}"),
            words("{\"detail\":[{\"msg\":\"server's own\",\"loc\":[\"body\"]}]}"),
            words("server's own\r\n\r\ndata: [DONE]\n\n"),
            words("{\"object\":\"error\",\"message\":\"server's own\"}"),
            words("{\"error\":\"server's own\"}"),
            words(""),
            Failure::Busy { retry_after: Duration::from_secs(1) },
            Failure::Exhausted(tried.clone()),
            Failure::NoServer("x".to_owned()),
            Failure::OutOfTime { waited: Duration::from_secs(1), tried },
            Failure::Internal,
        ];
        for failure in &all {
            match failure {
                Failure::BadRequest(_)
                | Failure::Unsupported(_)
                | Failure::UnknownRoute(_)
                | Failure::WrongMethod { .. }
                | Failure::UnknownModel { .. }
                | Failure::NotFound(_)
                | Failure::BodyTooLarge { .. }
                | Failure::SlowCaller
                | Failure::Forbidden(_)
                | Failure::WrongKey(_)
                | Failure::Loop
                | Failure::Relayed(_)
                | Failure::Busy { .. }
                | Failure::Exhausted(_)
                | Failure::NoServer(_)
                | Failure::OutOfTime { .. }
                | Failure::Internal => {}
            }
        }
        all
    }

    #[test]
    fn every_failure_can_be_told_in_every_dialect_before_and_after_the_commit() {
        let mut shown = String::new();
        for failure in every_failure() {
            let before: Value = serde_json::from_slice(&refuse(&failure, "r1")).unwrap();
            assert!(before["error"]["message"].as_str().is_some_and(|it| !it.is_empty()), "{failure:?}");

            let after = break_off(&failure);
            let line = after.strip_prefix(b"data: ").unwrap().strip_suffix(b"\n\n").unwrap();
            assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "one event, one line: {failure:?}");
            let after: Value = serde_json::from_slice(line).unwrap();
            assert_eq!(after["error"]["message"], before["error"]["message"]);

            let own: Value = serde_json::from_slice(&own::refuse(&failure, "r1")).unwrap();
            assert_eq!(own["error"]["request_id"], "r1");
            assert_eq!(own["error"]["code"], failure.code());
            assert!(own["error"]["message"].as_str().is_some_and(|it| !it.is_empty()));
            shown.push_str(&format!("{} {before}\n", failure.status()));
        }
        insta::assert_snapshot!("failures", shown);
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
        assert_eq!(list(&[]), "{\"data\":[],\"object\":\"list\"}");
    }
}
