//! `POST /v1/messages/count_tokens`: by the tokenizer of a server that has the model in
//! memory, else an estimate, and a header says which.

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{HeaderName, HeaderValue},
};
use serde_json::Value;

use super::{Knock, bytes_of_json, errand};
use crate::{
    dialect::{
        Dialect, Door, To,
        anthropic::{self, Anthropic},
        openai::OpenAi,
    },
    fault::Failure,
    generate::{Head, Needs, Operation},
    relay::{Body, Counting},
};

/// Whether the count is a tokenizer's or an estimate.
const COUNTED_BY: HeaderName = HeaderName::from_static("x-lovable-counted-by");

pub(super) async fn count(knock: Knock) -> Response<Body> {
    let Knock { door, headers, body, request_id, shape, .. } = knock;
    let counting = async {
        let body = errand::read(&headers, body, door.settings().body_limit).await?;
        let estimated = anthropic::count(&body)?;
        // A model that nobody has is an error here as with the request that is to follow.
        door.relay.meant(&estimated.model)?;
        let head = Head {
            operation: Operation::Chat,
            model: estimated.model,
            stream: false,
            max_tokens: None,
            needs: Needs::default(),
        };
        let (native, chat) = (|model: &str| native(&body, model), |model: &str| chat(&body, model));
        let counting = Counting { head: &head, native: &native, chat: &chat };
        Ok::<_, Failure>(match door.relay.count_tokens(counting).await {
            Some(count) => (count, "tokenizer"),
            None => (estimated.input_tokens, "estimate"),
        })
    };
    match counting.await {
        Ok((count, by)) => {
            let mut response = bytes_of_json(StatusCode::OK, anthropic::counted(count));
            response.headers_mut().insert(COUNTED_BY, HeaderValue::from_static(by));
            response
        }
        Err(failure) => crate::relay::refusal(&failure, shape, &request_id),
    }
}

/// The caller's own question, for a model of this name.
fn native(body: &Bytes, model: &str) -> Bytes {
    let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["model"] = model.into();
    body.to_string().into()
}

/// The conversation in OpenAI's language, which tokenizers take.
fn chat(body: &Bytes, model: &str) -> Option<Bytes> {
    let meaning = Anthropic.understand(Door::Messages, body).ok()?;
    let to = To { model, stream: false, ask_usage: false, max_tokens: false, sold: None };
    OpenAi.ask(Door::OpenAiChat, &meaning, &to).ok().map(|it| it.body)
}
