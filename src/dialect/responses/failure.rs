//! What a client of this language hears when something goes wrong after its stream has begun.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::writer::emit;
use crate::{dialect::openai, fault::Failure};

/// Breaks off a stream of which the caller has had that many events. Nothing follows.
///
/// First the error: the OpenAI SDKs raise only on an `error` inside of the data, while
/// @ai-sdk/openai 2.0.5 wants its fields beside `type`, and `code` as a text. Then, as
/// OpenAI itself does, the response that failed, because Codex looks at nothing else
/// and would otherwise only say that the stream was closed.
pub(super) fn break_off(failure: &Failure, request_id: &str, frames: u64) -> Bytes {
    let told: Value = serde_json::from_slice(&openai::refuse(failure, request_id)).unwrap_or_default();
    let told = &told["error"];
    let code = match &told["code"] {
        Value::String(code) => code.clone(),
        Value::Number(code) => code.to_string(),
        _ => failure.code().to_owned(),
    };
    let message = told["message"].as_str().map_or_else(|| failure.message(), str::to_owned);
    let param = told["param"].as_str();
    let kind = told["type"].as_str().unwrap_or("server_error");
    let mut out = BytesMut::new();
    let error = json!({
        "code": code, "message": message, "param": param,
        "error": {"type": kind, "code": code, "message": message, "param": param},
    });
    let mut sequence = frames;
    emit("error", error, &mut sequence, &mut out);
    let response = json!({
        "id": format!("resp_{request_id}"),
        "object": "response",
        "status": "failed",
        "error": {"code": code, "message": message},
        "incomplete_details": null,
        "output": [],
        "usage": null,
        // What only the beginning of the stream knew, in its neutral form for strict clients.
        "created_at": 0,
        "model": "",
        "instructions": null,
        "metadata": {},
        "parallel_tool_calls": true,
        "temperature": null,
        "tool_choice": "auto",
        "tools": [],
        "top_p": null,
    });
    emit("response.failed", json!({"response": response}), &mut sequence, &mut out);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault::Words;

    fn events(failure: &Failure, frames: u64) -> Vec<Value> {
        let out = break_off(failure, "r1", frames);
        let text = std::str::from_utf8(&out).unwrap();
        let mut events = Vec::new();
        for frame in text.strip_suffix("\n\n").unwrap().split("\n\n") {
            let (kind, data) = frame.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(kind, format!("event: {}", data["type"].as_str().unwrap()));
            events.push(data);
        }
        events
    }

    fn words(body: &str) -> Failure {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Failure::Relayed(Words { status: 400, content_type: None, body })
    }

    #[test]
    fn every_client_finds_the_error_where_it_looks() {
        let told = events(&Failure::Busy { retry_after: Duration::from_secs(1) }, 7);
        let message = "every server is busy; try again in 1 s";
        assert_eq!(
            told[0],
            json!({"type": "error", "sequence_number": 7, "code": "busy", "message": message, "param": null,
                "error": {"type": "rate_limit_error", "code": "busy", "message": message, "param": null}})
        );
        assert_eq!(
            (&told[1]["type"], &told[1]["sequence_number"], &told[1]["response"]["status"]),
            (&json!("response.failed"), &json!(8), &json!("failed"))
        );
        assert_eq!(told[1]["response"]["error"], json!({"code": "busy", "message": message}));
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn a_servers_own_words_are_told_and_its_code_is_a_text() {
        let told = events(&words("{\n\"error\":{\"message\":\"no\\n\\nway\",\"code\":400}}"), 0);
        assert_eq!((&told[0]["code"], &told[0]["message"]), (&json!("400"), &json!("no\n\nway")));
        let told = events(&words("no way\r\n\r\ndata: [DONE]\n\n"), 0);
        assert_eq!(told[0]["message"], "no way\r\n\r\ndata: [DONE]");
        assert_eq!(told.len(), 2);
    }
}
