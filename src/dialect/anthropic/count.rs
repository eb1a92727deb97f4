//! Answers `POST /v1/messages/count_tokens`.

use bytes::Bytes;
use serde_json::json;

use super::{fields::Fields, request, understand};
use crate::{
    fault::Failure,
    generate::{Meaning, estimate},
};

/// What a count is asked of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The model as the caller wrote it.
    pub model: String,
    /// How many tokens the request has, as good as can be told without the model's own
    /// tokenizer; see `generate::estimate`.
    pub input_tokens: u64,
}

/// Understands what is to be counted, and estimates it.
///
/// It asks no server: of those that speak this language half have no such route, and a
/// client that counts before each turn would wait for a model to load.
pub fn count(body: &Bytes) -> Result<Counted, Failure> {
    let chat = understand::understand(body)?;
    let model = request::name(Fields::of_body(body)?.take("model"))?;
    Ok(Counted { model, input_tokens: estimate(&Meaning::Chat(chat)) })
}

/// The body of the answer.
pub fn counted(input_tokens: u64) -> Bytes {
    json!({"input_tokens": input_tokens}).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_needs_a_model_and_messages_and_no_limit() {
        let count =
            |body: &'static str| count(&Bytes::from_static(body.as_bytes())).map_err(|it| it.message());
        let small = count(r#"{"model":"m","messages":[{"role":"user","content":"Hello, world"}]}"#).unwrap();
        assert_eq!(small.model, "m");
        assert!((4..20).contains(&small.input_tokens), "{small:?}");
        let tools = count(
            r#"{"model":"m","system":"be brief","messages":[{"role":"user","content":"Hello, world"}],
            "tools":[{"name":"f","input_schema":{"type":"object"}}]}"#,
        )
        .unwrap();
        assert!(tools.input_tokens > small.input_tokens);
        assert_eq!(count(r#"{"model":"m"}"#).unwrap_err(), "`messages` is missing");
        assert_eq!(
            count(r#"{"messages":[]}"#).unwrap_err(),
            "`model` is missing; `auto` lets lovable choose"
        );
        assert_eq!(counted(7), "{\"input_tokens\":7}");
    }
}
