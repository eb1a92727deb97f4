//! LM Studio.
//!
//! It answers 200 to every path that it does not know, with a text as `error`:
//! that gives it away at `/`, and is why a status alone is never believed. Its
//! own lists say more than the OpenAI one: `/api/v1/models` from 0.4.0,
//! `/api/v0/models` from 0.3.6.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Answer, Answers, Continuation, Folder, Json, Kind, Pulse, Question, Refusal, Verdict, doing, fact,
    listing, listing::Listing, said,
};
use crate::{
    fault::Cause,
    server::{Capability, Model, Problem, Sighting},
};

/// LM Studio.
pub(super) struct LmStudio;

const V1: &str = "/api/v1/models";
const V0: &str = "/api/v0/models";

impl Kind for LmStudio {
    fn id(&self) -> &'static str {
        "lmstudio"
    }

    fn name(&self) -> &'static str {
        "LM Studio"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[1234]
    }

    fn model_folders(&self) -> &'static [Folder] {
        &[
            Folder::Home(".lmstudio/models"),
            Folder::Home(".cache/lm-studio/models"),
            Folder::Pointer(".lmstudio-home-pointer", "models"),
        ]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let Some(root) = answers.get("/") else { return Verdict::No };
        let by_list = answers.get(listing::PATH).is_some_and(|it| {
            let listing = Listing::of(it);
            listing.mentions("organization_owner")
                || (matches!(listing, Listing::Models(_)) && it.header("x-powered-by") == Some("Express"))
        });
        let sure = is_unexpected(root) || wants_key(root);
        if !sure && !by_list {
            return Verdict::No;
        }
        let mut sighting = Sighting::of(self.id());
        let Some(v1) = answers.get(V1) else { return Verdict::Ask(Question::get(V1)) };
        if wants_key(v1) {
            sighting.problem = Some(Problem::NeedsKey);
            return Verdict::Proof(Box::new(sighting));
        }
        if sure && matches!(v1.json(), Json::Torn) {
            return Verdict::NotYet;
        }
        if let Some(entries) = list(v1, "models", "key") {
            sighting.models = entries.iter().filter_map(model_v1).collect();
            sighting.slots = slots(&entries);
            return Verdict::Proof(Box::new(sighting));
        }
        let Some(v0) = answers.get(V0) else { return Verdict::Ask(Question::get(V0)) };
        match list(v0, "data", "id") {
            Some(entries) => {
                sighting.models = entries.iter().filter_map(model_v0).collect();
                Verdict::Proof(Box::new(sighting))
            }
            None if sure && (matches!(v0.json(), Json::Torn) || v0.status >= 500) => Verdict::NotYet,
            None => Verdict::No,
        }
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        match refusal.status {
            _ if it.is_overflow() || it.has(&["context the overflows", "larger context length"]) => {
                Some(Cause::ContextOverflow)
            }
            _ if it.has(&["unexpected endpoint or method"]) => Some(Cause::Unsupported),
            400 | 404 if it.is_unknown_model() => Some(Cause::ModelNotFound),
            // A model that could not be loaded, or has crashed, comes as a 400.
            400 if it.has(&["failed to load", "has crashed", "unloaded", "error loading model"]) => {
                Some(Cause::Status)
            }
            400 if it.is_beyond_it() || it.has(&["jinja"]) => Some(Cause::Unsupported),
            _ => None,
        }
    }

    fn pulse(&self, model: &str, answers: &Answers, _: &Answers) -> Pulse {
        // It loads what is asked for. Of what it works on it says nothing.
        let v1 = match doing::well(self.id(), answers, V1) {
            Ok(v1) => v1,
            Err(known) => return known,
        };
        if let Some(entries) = list(v1, "models", "key") {
            let models: Vec<Model> = entries.iter().filter_map(model_v1).collect();
            return doing::by_memory(&models, model);
        }
        let Some(v0) = answers.get(V0) else { return Pulse::Ask(Question::get(V0)) };
        let models: Vec<Model> =
            list(v0, "data", "id").unwrap_or_default().iter().filter_map(model_v0).collect();
        doing::by_memory(&models, model)
    }

    fn continuation(&self) -> Continuation {
        // Not promised, but so; one of its runtimes said the last turn again (2.21.0 for CUDA).
        Continuation::LastTurn
    }

    fn reads_to_the_end(&self) -> bool {
        // By what it logs.
        true
    }

    fn plain_is_cancelled(&self) -> bool {
        true
    }

    fn wants_max_tokens(&self) -> bool {
        // Only `max_tokens` is documented, and a rename does no harm.
        true
    }
}

fn is_unexpected(answer: &Answer) -> bool {
    let Json::Whole(value) = answer.json() else { return false };
    value["error"].as_str().is_some_and(|it| it.starts_with("Unexpected endpoint or method"))
}

/// Its own words; the code alone is OpenAI's and many use it.
fn wants_key(answer: &Answer) -> bool {
    let Json::Whole(value) = answer.json() else { return false };
    answer.status == 401
        && value["error"]["type"] == "invalid_request"
        && value["error"]["code"] == "invalid_api_key"
}

fn list(answer: &Answer, field: &str, name: &str) -> Option<Vec<Value>> {
    super::take_array(&mut answer.success()?, field)
        .filter(|entries| entries.iter().all(|it| it[name].is_string()))
}

/// How many requests it works on at once: those of all models in memory together.
fn slots(entries: &[Value]) -> Option<u32> {
    let loaded = entries.iter().filter_map(|it| it["loaded_instances"].as_array()).flatten();
    let each = loaded.filter_map(|it| fact::count(&it["config"]["parallel"]));
    each.reduce(u64::saturating_add).and_then(|it| it.try_into().ok())
}

fn model_v1(entry: &Value) -> Option<Model> {
    let mut model = Model::named(entry["key"].as_str()?);
    let instances = entry["loaded_instances"].as_array();
    let loaded = instances.map(Vec::as_slice).unwrap_or_default();
    model.aliases = loaded.iter().filter_map(|it| it["id"].as_str()).map(Into::into).collect();
    model.aliases.extend(entry["selected_variant"].as_str().map(Into::into));
    model.family = fact::text(&entry["architecture"]);
    model.parameters = fact::text(&entry["params_string"]);
    model.quantization = fact::text(&entry["quantization"]["name"]);
    model.context_length = fact::count(&entry["max_context_length"]);
    model.loaded_context_length =
        loaded.iter().filter_map(|it| fact::count(&it["config"]["context_length"])).max();
    model.loaded = instances.map(|it| !it.is_empty());
    model.size_bytes = fact::count(&entry["size_bytes"]);
    let can = &entry["capabilities"];
    model.capabilities = match entry["type"].as_str() {
        Some("embedding" | "embeddings") => BTreeSet::from([Capability::Embed]),
        Some(_) if can.is_object() => {
            let reasons = can["reasoning"].is_object() || can["reasoning"] == true;
            talker(can["trained_for_tool_use"] == true, can["vision"] == true, reasons)
        }
        _ => BTreeSet::new(),
    };
    Some(model)
}

fn model_v0(entry: &Value) -> Option<Model> {
    let mut model = Model::named(entry["id"].as_str()?);
    model.family = fact::text(&entry["arch"]);
    model.quantization = fact::text(&entry["quantization"]);
    model.context_length = fact::count(&entry["max_context_length"]);
    model.loaded_context_length = fact::count(&entry["loaded_context_length"]);
    model.loaded = entry["state"].as_str().map(|it| it == "loaded");
    model.capabilities = match (entry["type"].as_str(), entry["capabilities"].as_array()) {
        (Some("embedding" | "embeddings"), _) => BTreeSet::from([Capability::Embed]),
        (Some(sort), Some(can)) => talker(can.iter().any(|it| it == "tool_use"), sort == "vlm", false),
        // Before 0.3.16 it does not say whether it takes tools.
        _ => BTreeSet::new(),
    };
    Some(model)
}

fn talker(tools: bool, vision: bool, thinking: bool) -> BTreeSet<Capability> {
    let mut can = BTreeSet::from([Capability::Chat, Capability::Complete]);
    can.extend(tools.then_some(Capability::Tools));
    can.extend(vision.then_some(Capability::Vision));
    can.extend(thinking.then_some(Capability::Thinking));
    can
}
