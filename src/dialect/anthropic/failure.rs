//! What a client of this language hears when something failed.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{dialect::own, fault::Failure};

/// The body that tells of a failure, before the answer has begun.
pub(super) fn refuse(failure: &Failure, request_id: &str) -> Bytes {
    if let Failure::Relayed(words) = failure
        && is_ours(&words.body)
    {
        return words.body.clone();
    }
    envelope(failure, request_id).to_string().into()
}

/// The event that tells of a failure, after the answer has begun. Nothing may follow it.
pub(super) fn break_off(failure: &Failure, request_id: &str) -> Bytes {
    let body = match failure {
        // Written anew, because a server's words may be of several lines.
        Failure::Relayed(words) if is_ours(&words.body) => {
            serde_json::from_slice(&words.body).unwrap_or_else(|_| envelope(failure, request_id))
        }
        _ => envelope(failure, request_id),
    };
    format!("event: error\ndata: {body}\n\n").into()
}

/// Whether a server's words are what a client of this language can read.
fn is_ours(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|it| {
        it["type"] == "error" && it["error"]["type"].is_string() && it["error"]["message"].is_string()
    })
}

fn envelope(failure: &Failure, request_id: &str) -> Value {
    let kind = match failure.status() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    json!({
        "type": "error",
        "error": {"type": kind, "message": own::message(failure), "code": failure.code()},
        "request_id": request_id,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault::{Cause, Fault, Stage, Tried, Words};

    fn words(body: &str) -> Failure {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Failure::Relayed(Words { status: 400, content_type: None, body })
    }

    fn all() -> Vec<Failure> {
        let tried = vec![Tried { server: "a".to_owned(), fault: Fault::new(Stage::Head, Cause::Reset) }];
        vec![
            Failure::BadRequest("the body is \"bad\"\n".to_owned()),
            Failure::Unsupported("x".to_owned()),
            Failure::UnknownRoute("/x".to_owned()),
            Failure::WrongMethod { allow: "GET" },
            Failure::UnknownModel { model: "m".to_owned(), nearest: vec!["n".to_owned()] },
            Failure::NotFound("x".to_owned()),
            Failure::BodyTooLarge { limit: 5 },
            Failure::SlowCaller,
            Failure::WrongKey("x".to_owned()),
            Failure::Forbidden("x".to_owned()),
            Failure::Loop,
            words("{\n  \"type\": \"error\", \"error\": {\"type\": \"x_error\", \"message\": \"own\"}\n}"),
            words("{\"error\":{\"message\":\"own\",\"code\":400}}"),
            words("own\r\n\r\nevent: message_stop\n\n"),
            words(""),
            Failure::Busy { retry_after: Duration::from_secs(1) },
            Failure::Exhausted(tried.clone()),
            Failure::NoServer("x".to_owned()),
            Failure::OutOfTime { waited: Duration::from_secs(1), tried },
            Failure::Internal,
        ]
    }

    #[test]
    fn every_failure_can_be_told_before_and_after_the_answer_began() {
        let mut shown = String::new();
        for failure in all() {
            let before: Value = serde_json::from_slice(&refuse(&failure, "r1")).unwrap();
            assert_eq!(before["type"], "error");
            assert!(
                before["error"]["type"]
                    .as_str()
                    .is_some_and(|it| it.ends_with("_error") || it == "request_too_large")
            );
            assert!(before["error"]["message"].as_str().is_some_and(|it| !it.is_empty()), "{failure:?}");
            let after = break_off(&failure, "r1");
            let line = after.strip_prefix(b"event: error\ndata: ").unwrap().strip_suffix(b"\n\n").unwrap();
            assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "one event, one line: {failure:?}");
            assert_eq!(serde_json::from_slice::<Value>(line).unwrap()["error"], before["error"]);
            shown.push_str(&format!("{} {before}\n", failure.status()));
        }
        insta::assert_snapshot!("failures", shown);
    }

    #[test]
    fn a_servers_own_words_are_passed_on_as_they_are() {
        let body = "{ \"type\":\"error\",\"error\": {\"type\":\"t\",\"message\":\"m\"} }";
        assert_eq!(refuse(&words(body), "r"), body);
    }
}
