//! The OpenAI door, and `/lovable/v1/generate`, which is a shorter way to the same.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue},
};

use super::{Knock, VIA, body, bytes_of_json};
use crate::{
    dialect::{Door, Listed, openai as dialect},
    fault::Failure,
    relay::{Body, Errand, Wishes},
    route::{Fallback, nearest},
    wire::{self, ModelView},
};

/// What goes on to a server, beyond what HTTP itself needs.
const PASSED_ON: [&str; 4] = ["accept", "anthropic-version", "anthropic-beta", "traceparent"];

pub(super) async fn chat(knock: Knock) -> Response<Body> {
    relay(knock, Door::OpenAiChat, Ok).await
}

pub(super) async fn complete(knock: Knock) -> Response<Body> {
    relay(knock, Door::OpenAiComplete, Ok).await
}

pub(super) async fn embed(knock: Knock) -> Response<Body> {
    relay(knock, Door::OpenAiEmbed, Ok).await
}

pub(super) async fn generate(knock: Knock) -> Response<Body> {
    relay(knock, Door::OpenAiChat, |body| dialect::generate(&body)).await
}

async fn relay(knock: Knock, at: Door, prepare: fn(Bytes) -> Result<Bytes, Failure>) -> Response<Body> {
    let Knock { door, headers, body, request_id, shape, .. } = knock;
    let errand = async {
        let wishes = wishes(&headers)?;
        understood(&headers)?;
        let body = prepare(body::read(body, door.it.body_limit).await?)?;
        let request = dialect::peek(at, &body)?;
        let pass = pass(&headers, &request_id, door.instance());
        Ok(Errand { request, body, request_id: request_id.clone(), wishes, pass, shape })
    };
    match errand.await {
        Ok(errand) => door.it.relay.clone().run(errand).await,
        Err(failure) => crate::relay::refusal(&failure, shape, &request_id),
    }
}

/// What the caller wishes, by header. A value that cannot be read is an error: silence would be a lie.
fn wishes(headers: &HeaderMap) -> Result<Wishes, Failure> {
    let text = |name: &str| headers.get(name).map(|it| it.to_str().unwrap_or("?").trim());
    let millis = |name: &str| match text(name).map(|it| (it, it.parse::<u64>())) {
        None => Ok(None),
        Some((_, Ok(ms))) => Ok(Some(Duration::from_millis(ms))),
        Some((value, Err(_))) => {
            Err(Failure::BadRequest(format!("the header `{name}` takes milliseconds, not `{value}`")))
        }
    };
    let fallback = match text("x-lovable-fallback").map(|it| (it, it.parse::<Fallback>())) {
        None => None,
        Some((_, Ok(fallback))) => Some(fallback),
        Some((value, Err(_))) => {
            return Err(Failure::BadRequest(format!(
                "the header `x-lovable-fallback` takes none, same, local or cloud, not `{value}`"
            )));
        }
    };
    Ok(Wishes {
        fallback,
        timeout: millis("x-lovable-timeout-ms")?,
        open_after: millis("x-lovable-open-after-ms")?,
    })
}

/// No body is unpacked here, nor by most servers.
fn understood(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get(CONTENT_ENCODING).map(|it| it.to_str().unwrap_or("?").trim()) {
        None | Some("" | "identity") => Ok(()),
        Some(other) => Err(Failure::BadRequest(format!(
            "a body with `content-encoding: {other}` is not understood; send it as it is"
        ))),
    }
}

fn pass(headers: &HeaderMap, request_id: &str, instance: &str) -> HeaderMap {
    let mut pass = HeaderMap::with_capacity(8);
    pass.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for name in PASSED_ON {
        if let Some(value) = headers.get(name) {
            pass.insert(HeaderName::from_static(name), value.clone());
        }
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        pass.insert(HeaderName::from_static("x-request-id"), value);
    }
    let so_far = headers.get_all(VIA).iter().filter_map(|it| it.to_str().ok());
    let via = so_far.chain([instance]).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::from_str(&via) {
        pass.insert(HeaderName::from_static(VIA), value);
    }
    pass
}

pub(super) async fn list(knock: Knock) -> Response<Body> {
    let models = models(&knock);
    let listed: Vec<Listed<'_>> =
        names(&models).into_iter().map(|(id, model)| listed(&knock, id, model)).collect();
    bytes_of_json(StatusCode::OK, dialect::list(&listed))
}

pub(super) async fn one(knock: Knock) -> Response<Body> {
    let models = models(&knock);
    let names = names(&models);
    let latest = format!("{}:latest", knock.rest);
    let found = [&knock.rest, &latest].into_iter().find_map(|wanted| names.get_key_value(wanted.as_str()));
    match found {
        Some((id, model)) => bytes_of_json(StatusCode::OK, dialect::one(&listed(&knock, id, model))),
        None => {
            let nearest = nearest(&knock.rest, names.keys().copied());
            knock.refuse(&Failure::UnknownModel { model: knock.rest.clone(), nearest })
        }
    }
}

fn models(knock: &Knock) -> Vec<ModelView> {
    let door = &knock.door;
    wire::models(&door.it.house.snapshot(), &door.it.aliases)
}

/// Every name that can be asked for: the models' own first, and aliases that are no model's name.
fn names(models: &[ModelView]) -> BTreeMap<&str, &ModelView> {
    let mut names = BTreeMap::new();
    for model in models {
        for alias in &model.aliases {
            names.insert(alias.as_str(), model);
        }
    }
    names.extend(models.iter().map(|it| (it.name.as_str(), it)));
    names
}

fn listed<'a>(knock: &Knock, id: &'a str, model: &'a ModelView) -> Listed<'a> {
    Listed {
        id,
        created: knock.door.started_at_seconds(),
        owned_by: model.servers.first().map_or("lovable", |it| it.kind.as_str()),
        family: model.family.as_deref(),
        parameters: model.parameters.as_deref(),
        quantization: model.quantization.as_deref(),
        size_bytes: model.servers.iter().find_map(|it| it.size_bytes),
        memory_bytes: model.servers.iter().find_map(|it| it.memory_bytes),
        expires: model.servers.iter().find_map(|it| it.expires.as_deref()),
        context_length: model.loaded_context_length.or(model.context_length),
        capabilities: &model.capabilities,
        loaded: loaded(model),
        servers: model.servers.iter().map(|it| it.id.as_str()).collect(),
    }
}

/// Loaded anywhere; unknown where nobody tells.
fn loaded(model: &ModelView) -> Option<bool> {
    let told = model.servers.iter().filter_map(|it| it.loaded);
    told.reduce(|a, b| a || b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn wishes_that_cannot_be_read_are_refused_by_name() {
        let error = wishes(&headers(&[("x-lovable-timeout-ms", "soon")])).unwrap_err();
        assert_eq!(error.message(), "the header `x-lovable-timeout-ms` takes milliseconds, not `soon`");
        let error = wishes(&headers(&[("x-lovable-fallback", "always")])).unwrap_err();
        assert!(error.message().contains("none, same, local or cloud"), "{}", error.message());
        let good =
            wishes(&headers(&[("x-lovable-timeout-ms", "1500"), ("x-lovable-fallback", "none")])).unwrap();
        assert_eq!((good.timeout, good.fallback), (Some(Duration::from_millis(1500)), Some(Fallback::None)));
    }

    #[test]
    fn nothing_of_the_callers_credentials_goes_on() {
        let theirs = headers(&[
            ("authorization", "Bearer secret"),
            ("cookie", "a=b"),
            ("x-conversation-id", "c"),
            ("traceparent", "00-1-2-3"),
            ("x-lovable-via", "abc"),
        ]);
        let ours = pass(&theirs, "r1", "me");
        let mut names: Vec<_> = ours.keys().map(|it| it.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "traceparent", "x-lovable-via", "x-request-id"]);
        assert_eq!(ours["x-lovable-via"], "abc, me");
    }
}
