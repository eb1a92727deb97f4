//! What the caller gets: heads, headers that tell the truth, failures in the right shape.

use std::{fmt, time::Duration};

use bytes::Bytes;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};

use super::{Body, conduit::AnswerHead, full};
use crate::{
    dialect::{Dialect, own},
    fault::Failure,
    generate::Substitution,
    route::Choice,
};

/// In whose words a failure is told.
#[derive(Clone, Copy)]
pub enum Shape {
    /// Those of a dialect.
    Of(&'static dyn Dialect),
    /// Those of the lovable routes.
    Own,
}

impl Shape {
    fn body(self, failure: &Failure, request_id: &str) -> Bytes {
        match self {
            Self::Of(dialect) => dialect.refuse(failure, request_id),
            Self::Own => own::refuse(failure, request_id),
        }
    }

    /// What tells of a failure after a stream has begun, of which the caller has had that many frames.
    pub(super) fn break_off(self, failure: &Failure, request_id: &str, frames: u64) -> Bytes {
        match self {
            Self::Of(dialect) => dialect.break_off(failure, request_id, frames),
            Self::Own => own::break_off(failure, request_id),
        }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Of(dialect) => dialect.id(),
            Self::Own => "lovable",
        })
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-lovable-request-id");
pub(super) const SERVERS_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SERVER: HeaderName = HeaderName::from_static("x-lovable-server");
const KIND: HeaderName = HeaderName::from_static("x-lovable-kind");
const MODEL: HeaderName = HeaderName::from_static("x-lovable-model");
const ZONE: HeaderName = HeaderName::from_static("x-lovable-zone");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-lovable-attempts");
const SUBSTITUTED: HeaderName = HeaderName::from_static("x-lovable-substituted");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// A refusal as a whole answer.
pub fn refusal(failure: &Failure, shape: Shape, request_id: &str) -> Response<Body> {
    let (head, body) = refused(failure, shape, request_id, 0);
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = head.headers;
    response
}

/// Head and body of a refusal.
pub(super) fn refused(
    failure: &Failure,
    shape: Shape,
    request_id: &str,
    attempts: usize,
) -> (AnswerHead, Bytes) {
    let mut headers = common(request_id, attempts);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(wait) = failure.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    if failure.all_tried() {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if let Failure::WrongMethod { allow } = failure {
        headers.insert(hyper::header::ALLOW, HeaderValue::from_static(allow));
    }
    (AnswerHead { status: failure.status(), headers }, shape.body(failure, request_id))
}

/// Who answers.
#[derive(Clone, Copy)]
pub(super) struct Answerer<'a> {
    pub(super) choice: &'a Choice,
    /// The server's own id of the request, if it gave one.
    pub(super) request_id: Option<&'a HeaderValue>,
}

/// Head of an answer by a server. `by` is `None` for a stream that is opened before anyone has answered.
pub(super) fn answering(
    by: Option<Answerer<'_>>,
    content_type: &'static str,
    request_id: &str,
    attempts: usize,
) -> AnswerHead {
    let mut headers = common(request_id, attempts);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(Answerer { choice, request_id }) = by {
        if let Some(theirs) = request_id {
            headers.insert(SERVERS_REQUEST_ID, theirs.clone());
        }
        let server = &choice.server;
        insert(&mut headers, SERVER, server.id.as_str());
        insert(&mut headers, KIND, server.kind.as_str());
        insert(&mut headers, MODEL, choice.model.as_str());
        headers.insert(ZONE, HeaderValue::from_static(choice.zone.as_str()));
        let substituted = match choice.substituted {
            Substitution::No => "no",
            Substitution::Equivalent => "equivalent",
            Substitution::Alternative => "alternative",
            Substitution::Cloud => "cloud",
        };
        headers.insert(SUBSTITUTED, HeaderValue::from_static(substituted));
    }
    AnswerHead { status: 200, headers }
}

fn common(request_id: &str, attempts: usize) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    insert(&mut headers, REQUEST_ID, request_id);
    // Where SDKs look for it; the server's own takes its place.
    insert(&mut headers, SERVERS_REQUEST_ID, request_id);
    headers.insert(ATTEMPTS, HeaderValue::from(attempts));
    headers
}

/// Names from servers may hold anything; what no header can carry is percent-encoded.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).or_else(|_| {
        let plain: String = value
            .bytes()
            .map(|byte| match byte {
                b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect();
        HeaderValue::from_str(&plain)
    });
    if let Ok(value) = value {
        headers.insert(name, value);
    }
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialect::openai::OpenAi,
        fault::{Cause, Fault, Stage, Tried},
    };

    #[test]
    fn a_refusal_says_when_to_come_back_in_whole_seconds_rounded_up() {
        let busy = Failure::Busy { retry_after: Duration::from_millis(1200) };
        let response = refusal(&busy, Shape::Of(&OpenAi), "r1");
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["x-lovable-request-id"], "r1");
    }

    #[test]
    fn a_client_is_told_not_to_repeat_what_was_tried_everywhere() {
        let tried = vec![Tried { server: "a".into(), fault: Fault::new(Stage::Connect, Cause::Refused) }];
        let response = refusal(&Failure::Exhausted(tried), Shape::Of(&OpenAi), "r1");
        assert_eq!(response.status(), 502);
        assert_eq!(response.headers()["x-should-retry"], "false");
    }

    #[test]
    fn a_model_name_that_no_header_can_carry_is_escaped() {
        let mut headers = HeaderMap::new();
        insert(&mut headers, MODEL, "a\nb");
        assert_eq!(headers["x-lovable-model"], "a%0Ab");
    }
}
