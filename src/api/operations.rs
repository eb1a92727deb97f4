//! What service managers ask.

use hyper::{Response, StatusCode};
use serde_json::json;

use super::{Knock, control, json};
use crate::relay::Body;

pub(super) async fn health(_: Knock) -> Response<Body> {
    json(StatusCode::OK, &json!({"status": "ok"}))
}

pub(super) async fn ready(knock: Knock) -> Response<Body> {
    if control::is_ready(&knock.door) {
        return json(StatusCode::OK, &json!({"ready": true}));
    }
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &json!({"ready": false}));
    response.headers_mut().insert(hyper::header::RETRY_AFTER, 2.into());
    response
}
