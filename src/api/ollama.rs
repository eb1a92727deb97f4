//! What programs that only know `OLLAMA_HOST` ask besides answers: the greeting, the version,
//! the lists, and a look at one model.

use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};

use super::{Knock, bytes_of_json, errand, listing};
use crate::{
    dialect::ollama,
    fault::Failure,
    relay::{Body, full},
};

/// The most bytes of a question about a model.
const QUESTION: u64 = 64 << 10;

/// `GET /` and `HEAD /`: clients look for the whole text. Whoever looks for servers sees by
/// our `Server` header what this is.
pub(super) async fn greeting(_: Knock) -> Response<Body> {
    let mut response = Response::new(full(ollama::GREETING));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// `GET /api/version`.
pub(super) async fn version(_: Knock) -> Response<Body> {
    bytes_of_json(StatusCode::OK, ollama::version())
}

/// `GET /api/tags`: all models.
pub(super) async fn tags(knock: Knock) -> Response<Body> {
    knock.door.until_looked().await;
    listing::all(&knock.door, ollama::tags)
}

/// `GET /api/ps`: the models that are in memory somewhere.
pub(super) async fn ps(knock: Knock) -> Response<Body> {
    listing::all(&knock.door, ollama::ps)
}

/// `POST /api/show`: one model.
pub(super) async fn show(knock: Knock) -> Response<Body> {
    let Knock { door, headers, body, request_id, shape, .. } = knock;
    let shown = async {
        let body = errand::read(&headers, body, QUESTION).await?;
        listing::named(&door, &ollama::named(&body)?, ollama::show)
    };
    match shown.await {
        Ok(shown) => bytes_of_json(StatusCode::OK, shown),
        Err(failure) => crate::relay::refusal(&failure, shape, &request_id),
    }
}

/// What Ollama does with models themselves, and nobody does here: said in words, since
/// `ollama run` comes to it when a model is unknown.
pub(super) fn manages(path: &str) -> Option<Failure> {
    let what = path.strip_prefix("/api/")?;
    let manages = ["pull", "push", "create", "copy", "delete"].contains(&what) || what.starts_with("blobs/");
    manages.then(|| {
        Failure::NotFound(format!(
            "`{path}` changes what models a server has, and lovable leaves that to the servers; ask one of them"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_wants_a_model_pulled_is_told_to_ask_a_server() {
        assert!(manages("/api/pull").unwrap().message().contains("leaves that to the servers"));
        assert!(manages("/api/blobs/sha256:1").is_some());
        for other in ["/api/chat", "/api", "/api/pullx", "/v1/pull"] {
            assert!(manages(other).is_none(), "{other}");
        }
    }
}
