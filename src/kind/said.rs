//! What a refusal says, whatever envelope it came in.
//!
//! Servers write `{"error": {"message", "type", "code"}}`, the same without the
//! outer object, `{"error": "text"}`, `{"detail": …}` or plain text. Words are
//! compared in small letters. They may quote the prompt, so a kind looks at
//! types and codes first, and nothing of them is ever kept.

use std::time::Duration;

use serde_json::Value;

use super::Refusal;
use crate::fault::Cause;

/// No server needs more to say what is wrong; the rest is a stack trace or the prompt.
const LONGEST_MESSAGE: usize = 2048;

/// The longest that a server may ask to be left alone. One that says "a year"
/// is asked again after an hour.
const LONGEST_REST: u64 = 3600;

/// A refusal, taken out of its envelope.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The message in small letters; plain text is a message too.
    pub(super) message: String,
    /// The type in small letters; empty when there is none.
    pub(super) sort: String,
    /// The code in small letters, where it is a word.
    pub(super) code: String,
    /// The status that is written inside.
    pub(super) status: Option<u16>,
    /// Whether it is FastAPI's own `{"detail": "…"}`.
    pub(super) is_detail: bool,
}

impl Said {
    /// Reads a body.
    pub(super) fn of(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return Self { message: small(&String::from_utf8_lossy(body)), ..Self::default() };
        };
        let error = match &value["error"] {
            Value::Null => &value,
            error => error,
        };
        let status =
            ["code", "http_status_code", "status"].iter().find_map(|field| as_status(&error[*field]));
        let detail = &value["detail"];
        let message = [
            error,
            &error["message"],
            &error["msg"],
            detail,
            &detail["msg"],
            &detail[0]["msg"],
            &error["error"],
        ]
        .into_iter()
        .find_map(Value::as_str)
        .unwrap_or_default();
        let word = |field: &str| small(error[field].as_str().or(value[field].as_str()).unwrap_or_default());
        let sort = match word("type") {
            sort if sort.is_empty() => word("error_type"),
            sort => sort,
        };
        Self { message: small(message), sort, code: word("code"), status, is_detail: !detail.is_null() }
    }

    /// Whether the message has any of these, given in small letters.
    pub(super) fn has(&self, any: &[&str]) -> bool {
        any.iter().any(|it| self.message.contains(it))
    }

    /// Whether the prompt is too long for this server, in the words that any of them uses.
    pub(super) fn is_overflow(&self) -> bool {
        matches!(self.sort.as_str(), "exceed_context_size_error" | "contextwindowexceedederror")
            || matches!(self.code.as_str(), "context_length_exceeded" | "context_window_exceeded")
            || self.has(&[
                "maximum context length",
                "exceeds the available context size",
                "exceeds the context length",
                "longer than the context length",
                "longer than the model's context length",
                "longer than the maximum model length",
                "is greater than the context length",
                "contextwindowexceedederror",
                "prompt is too long",
                "context overflow",
            ])
    }

    /// Whether it says that it has no such model.
    pub(super) fn is_unknown_model(&self) -> bool {
        self.code == "model_not_found"
            || (self.has(&["model"]) && self.has(&["not found", "does not exist", "no such model"]))
            || self.has(&["invalid model name", "unknown model", "no models loaded"])
    }

    /// Whether it says that this model, or this server, cannot do such a thing.
    pub(super) fn is_beyond_it(&self) -> bool {
        self.sort == "not_supported_error"
            || matches!(self.code.as_str(), "unsupported_parameter" | "unsupported_value")
            || self.has(&[
                "does not support",
                "not supported",
                "not currently supported",
                "unsupported",
                "not implemented",
                "is not a multimodal model",
            ])
    }

    /// Whether it is pydantic's list of mistakes. llama-cpp-python sends it as a 500.
    pub(super) fn is_validation(&self) -> bool {
        self.has(&["validation error"]) && self.has(&["'loc':"])
    }

    /// Whether it says that it has too much to do.
    pub(super) fn is_busy(&self) -> bool {
        self.sort == "overloaded_error"
            || self.has(&[
                "server busy",
                "server is busy",
                "queue is full",
                "overloaded",
                "too many requests",
            ])
    }

    /// Whether it says that it is loading.
    pub(super) fn is_loading(&self) -> bool {
        self.has(&["loading model", "model is loading", "still loading"])
    }
}

/// What a refusal means in the words that most servers have in common; `not_here` are those of
/// this one for what another may well take.
pub(super) fn in_common(refusal: Refusal<'_>, not_here: &[&str]) -> Option<Cause> {
    let it = Said::of(refusal.body);
    let refused = matches!(refusal.status, 400 | 404 | 422 | 500);
    match refusal.status {
        // It quotes the body, so no other words are looked for in it.
        400 | 422 | 500 if it.is_validation() => Some(Cause::Malformed),
        _ if it.is_overflow() => Some(Cause::ContextOverflow),
        _ if refused && it.is_unknown_model() => Some(Cause::ModelNotFound),
        _ if refused && (it.is_beyond_it() || it.has(not_here)) => Some(Cause::Unsupported),
        404 if it.is_detail => Some(Cause::Unsupported),
        _ => None,
    }
}

/// What a refusal means by its status, for all that its kind does not know better.
///
/// `Malformed` ends a request; everything else lets another server try.
pub(super) fn by_status(refusal: Refusal<'_>) -> Cause {
    let said = Said::of(refusal.body);
    match refusal.status {
        300..=399 => Cause::Redirect,
        400 | 422 => Cause::Malformed,
        401 => Cause::NeedsKey,
        403 => Cause::Forbidden,
        404 if said.has(&["model"]) => Cause::ModelNotFound,
        404 | 405 | 501 => Cause::Unsupported,
        413 => Cause::TooLarge,
        429 | 529 => busy(refusal),
        503 if said.is_loading() => Cause::Loading,
        503 if refusal.retry_after.is_some() || said.is_busy() => busy(refusal),
        _ => Cause::Status,
    }
}

/// Busy, for as long as it asked.
pub(super) fn busy(refusal: Refusal<'_>) -> Cause {
    let retry_after = refusal.retry_after.map(|it| Duration::from_secs(it.min(LONGEST_REST)));
    Cause::Busy { retry_after }
}

fn small(text: &str) -> String {
    let mut end = text.len().min(LONGEST_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_lowercase()
}

/// A status as a number or, as LiteLLM writes it, a text.
fn as_status(value: &Value) -> Option<u16> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    u16::try_from(number).ok().filter(|it| (400..=599).contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expected: Cause) {
        let refusal = Refusal { status, retry_after: None, body: body.as_bytes() };
        assert_eq!(by_status(refusal), expected, "{status} {body}");
    }

    #[test]
    fn every_status_has_a_meaning_of_its_own() {
        check(307, "", Cause::Redirect);
        check(400, "{}", Cause::Malformed);
        check(401, "", Cause::NeedsKey);
        check(403, "", Cause::Forbidden);
        check(404, r#"{"error":"model 'x' not found"}"#, Cause::ModelNotFound);
        check(404, "404 page not found", Cause::Unsupported);
        check(405, "", Cause::Unsupported);
        check(408, "", Cause::Status);
        check(413, "", Cause::TooLarge);
        check(422, "", Cause::Malformed);
        check(424, "", Cause::Status);
        check(429, "", Cause::Busy { retry_after: None });
        check(499, "", Cause::Status);
        check(500, "", Cause::Status);
        check(501, "", Cause::Unsupported);
        check(502, "", Cause::Status);
        check(503, "", Cause::Status);
        check(503, r#"{"detail":{"msg":"Server is busy; please try again later."}}"#, busy_now());
        check(503, "The request queue is full.", busy_now());
        check(503, r#"{"error":{"message":"Loading model"}}"#, Cause::Loading);
        check(529, "", busy_now());
    }

    fn busy_now() -> Cause {
        Cause::Busy { retry_after: None }
    }

    #[test]
    fn a_server_is_left_alone_for_as_long_as_it_asked_but_not_for_ever() {
        let ask = |retry_after| by_status(Refusal { status: 503, retry_after: Some(retry_after), body: b"" });
        assert_eq!(ask(7), Cause::Busy { retry_after: Some(Duration::from_secs(7)) });
        assert_eq!(ask(u64::MAX), Cause::Busy { retry_after: Some(Duration::from_secs(3600)) });
    }

    #[test]
    fn every_envelope_is_opened() {
        for body in [
            r#"{"error":{"message":"No","type":"T","code":"C"}}"#,
            r#"{"object":"error","message":"No","type":"T","code":"C"}"#,
            r#"{"type":"error","error":{"type":"T","message":"No","code":"C"}}"#,
        ] {
            let said = Said::of(body.as_bytes());
            assert_eq!((&*said.message, &*said.sort, &*said.code), ("no", "t", "c"), "{body}");
        }
        for body in [
            r#"{"error":"No"}"#,
            r#"{"detail":"No"}"#,
            r#"{"detail":[{"msg":"No"}]}"#,
            r#"{"detail":{"msg":"No"}}"#,
            "No",
            r#""No""#,
        ] {
            assert_eq!(Said::of(body.as_bytes()).message, "no", "{body}");
        }
    }

    #[test]
    fn a_status_inside_is_a_number_or_a_text() {
        let inside = |body: &str| Said::of(body.as_bytes()).status;
        assert_eq!(inside(r#"{"error":{"code":503}}"#), Some(503));
        assert_eq!(inside(r#"{"error":{"code":"400"}}"#), Some(400));
        assert_eq!(inside(r#"{"error":{"http_status_code":422}}"#), Some(422));
        assert_eq!(inside(r#"{"error":{"code":"model_not_found"}}"#), None);
        assert_eq!(inside(r#"{"error":{"code":200}}"#), None);
        assert_eq!(inside(r#"{"error":{"code":70000}}"#), None);
    }

    #[test]
    fn an_endless_message_is_cut_at_a_whole_letter() {
        let body = format!("{}é", "x".repeat(LONGEST_MESSAGE - 1));
        assert_eq!(Said::of(body.as_bytes()).message.len(), LONGEST_MESSAGE - 1);
    }
}
