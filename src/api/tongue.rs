//! Whose language a path is in: what is told of a failure is told in it, also where there
//! is no such route or the body was never read.

use hyper::HeaderMap;

use crate::{
    dialect::{Dialect, anthropic::Anthropic, ollama::Ollama, openai::OpenAi, responses::Responses},
    relay::Shape,
};

/// What only callers who speak Anthropic's language send.
pub(super) const ANTHROPIC_VERSION: &str = "anthropic-version";

/// Whether a caller speaks Anthropic's language.
pub(super) fn is_anthropic(path: &str, headers: &HeaderMap) -> bool {
    matches!(shape_of(path, headers), Shape::Of(dialect) if dialect.id() == Anthropic.id())
}

/// The language of a path. Both OpenAI and Anthropic have `/v1`; there the header decides.
pub(crate) fn shape_of(path: &str, headers: &HeaderMap) -> Shape {
    let below =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if below("/lovable") {
        Shape::Own
    } else if ["/v1/messages", "/messages", "/v1/v1/messages"].into_iter().any(below)
        || headers.contains_key(ANTHROPIC_VERSION)
    {
        Shape::Of(&Anthropic)
    } else if path == "/" || below("/api") {
        Shape::Of(&Ollama)
    } else if below("/v1/responses") {
        Shape::Of(&Responses)
    } else {
        Shape::Of(&OpenAi)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn check(path: &str, expected: &str) {
        assert_eq!(format!("{:?}", shape_of(path, &HeaderMap::new())), expected, "{path}");
    }

    #[test]
    fn a_path_is_in_the_language_of_its_prefix() {
        check("/lovable/v1/status", "lovable");
        check("/lovable", "lovable");
        check("/lovablex", "openai");
        check("/v1/messages", "anthropic");
        check("/v1/messages/batches", "anthropic");
        check("/v1/v1/messages/count_tokens", "anthropic");
        check("/messages", "anthropic");
        check("/messagesx", "openai");
        check("/", "ollama");
        check("/api/pull", "ollama");
        check("/api", "ollama");
        check("/apix", "openai");
        check("/v1/responses", "responses");
        check("/v1/responses/resp_1", "responses");
        check("/v1/chat/completions", "openai");
        check("/v1/models", "openai");
        check("/healthz", "openai");
        check("/nowhere", "openai");
    }

    #[test]
    fn a_version_of_anthropic_says_who_asks() {
        let version = (HeaderName::from_static(ANTHROPIC_VERSION), HeaderValue::from_static("2023-06-01"));
        let headers = HeaderMap::from_iter([version]);
        for path in ["/v1/models", "/v1/models/x", "/v1/nowhere"] {
            assert_eq!(format!("{:?}", shape_of(path, &headers)), "anthropic", "{path}");
        }
        assert_eq!(format!("{:?}", shape_of("/lovable/v1/status", &headers)), "lovable");
    }
}
