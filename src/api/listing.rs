//! The models as each dialect lists them, from one conversion: `Listed`. The registry answers,
//! at once; no server is asked.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::{Response, StatusCode};

use super::{Door, Knock, bytes_of_json, tongue::ANTHROPIC_VERSION};
use crate::{
    dialect::{Listed, anthropic, openai},
    fault::Failure,
    relay::Body,
    route::nearest,
    wire::{self, ModelView},
};

/// `GET /v1/models`, in the language of whoever asks.
pub(super) async fn list(knock: Knock) -> Response<Body> {
    let tell = if knock.headers.contains_key(ANTHROPIC_VERSION) { anthropic::list } else { openai::list };
    all(&knock.door, tell)
}

/// `GET /v1/models/{id}`, in the language of whoever asks.
pub(super) async fn one(knock: Knock) -> Response<Body> {
    let tell = if knock.headers.contains_key(ANTHROPIC_VERSION) { anthropic::one } else { openai::one };
    match named(&knock.door, &knock.rest, tell) {
        Ok(body) => bytes_of_json(StatusCode::OK, body),
        Err(failure) => knock.refuse(&failure),
    }
}

/// All models, told by `tell`.
pub(super) fn all(door: &Door, tell: impl FnOnce(&[Listed<'_>]) -> Bytes) -> Response<Body> {
    let models = models(door);
    let listed: Vec<Listed<'_>> =
        names(&models).into_iter().map(|(id, model)| listed(door, id, model)).collect();
    bytes_of_json(StatusCode::OK, tell(&listed))
}

/// One model, told by `tell`. As everywhere, Ollama's `:latest` may be left out.
pub(super) fn named<T>(door: &Door, wanted: &str, tell: impl FnOnce(&Listed<'_>) -> T) -> Result<T, Failure> {
    let models = models(door);
    let names = names(&models);
    let latest = format!("{wanted}:latest");
    if let Some((id, model)) = [wanted, &latest].into_iter().find_map(|it| names.get_key_value(it)) {
        return Ok(tell(&listed(door, id, model)));
    }
    // `auto` and pins are names that are in no list.
    let meant = door.relay.meant(wanted).ok().flatten();
    match meant.and_then(|it| names.get(it.as_str())) {
        Some(model) => Ok(tell(&listed(door, wanted, model))),
        None => {
            let nearest = nearest(wanted, names.keys().copied());
            Err(Failure::UnknownModel { model: wanted.to_owned(), nearest })
        }
    }
}

fn models(door: &Door) -> Vec<ModelView> {
    wire::models(&door.house.snapshot(), &door.settings().aliases)
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

fn listed<'a>(door: &Door, id: &'a str, model: &'a ModelView) -> Listed<'a> {
    Listed {
        id,
        created: door.started_at_seconds(),
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
