//! Lemonade.
//!
//! It runs its models in servers of its own, which its health lists with their addresses, and
//! passes some on to the cloud, which their entries say.

use serde_json::Value;

use super::{Answers, Kind, Pulse, Question, Verdict, doing, fact, listing};
use crate::server::{Capability, Doing, Model, Sighting, Zone};

/// Lemonade.
pub(super) struct Lemonade;

const HEALTH: &str = "/api/v1/health";

impl Kind for Lemonade {
    fn id(&self) -> &'static str {
        "lemonade"
    }

    fn name(&self) -> &'static str {
        "Lemonade"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[13305, 8000]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let titled = answers.get("/").is_some_and(|it| it.is_titled("Lemonade"));
        let list = match listing::known(answers, titled, "lemonade") {
            Ok(list) => list,
            Err(verdict) => return verdict,
        };
        let Some(health) = answers.get(HEALTH) else { return Verdict::Ask(Question::get(HEALTH)) };
        let health = health.success().unwrap_or_default();
        let loaded = health["all_models_loaded"].as_array().map(Vec::as_slice);
        // The page may be of anything that is called so.
        if loaded.is_none() && !listing::Listing::of(list).is_owned_by("lemonade") {
            return Verdict::No;
        }
        let mut sighting = Sighting::of(self.id());
        sighting.version = fact::text(&health["version"]);
        sighting.engine_ports =
            loaded.into_iter().flatten().filter_map(|it| fact::port_here(&it["backend_url"])).collect();
        listing::proof(sighting, list, |entry| model(entry, loaded))
    }

    fn pulse(&self, name: &str, answers: &Answers, _: &Answers) -> Pulse {
        let health = match doing::well(self.id(), answers, HEALTH) {
            Ok(health) => health.success().unwrap_or_default(),
            Err(known) => return known,
        };
        let Some(loaded) = health["all_models_loaded"].as_array() else {
            return Pulse::Is(Doing::Unknown);
        };
        let asked =
            Model { loaded: Some(loaded.iter().any(|it| it["model_name"] == name)), ..Model::named(name) };
        doing::by_memory(&[asked], name)
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}

fn model(entry: &Value, loaded: Option<&[Value]>) -> Option<Model> {
    let mut model = listing::model(entry)?;
    model.context_length = fact::count(&entry["max_context_window"]);
    if fact::text(&entry["cloud_provider"]).is_some() {
        model.zone = Some(Zone::Cloud);
        return Some(model);
    }
    let own = loaded.map(|all| all.iter().find(|it| it["model_name"] == entry["id"]));
    model.loaded = own.map(|it| it.is_some());
    // What it would be loaded with, until it is.
    let context = own.flatten().and_then(|it| fact::count(&it["recipe_options"]["ctx_size"]));
    model.loaded_context_length = context.or_else(|| fact::count(&entry["context_length"]));
    let labelled =
        |label: &str| entry["labels"].as_array().is_some_and(|all| all.iter().any(|it| it == label));
    model.capabilities.extend(labelled("embeddings").then_some(Capability::Embed));
    Some(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_model_is_here_unless_it_says_otherwise() {
        let loaded = [json!({"model_name": "a", "recipe_options": {"ctx_size": 8192}})];
        let of = |entry: Value| model(&entry, Some(&loaded[..])).unwrap();
        let here = of(json!({"id": "a", "context_length": 4096, "max_context_window": 40960}));
        assert_eq!((here.loaded, here.loaded_context_length, here.zone), (Some(true), Some(8192), None));
        assert_eq!(here.context_length, Some(40960));
        let there = of(json!({"id": "b", "cloud_provider": "fireworks"}));
        assert_eq!((there.loaded, there.zone), (None, Some(Zone::Cloud)));
    }

    #[test]
    fn its_own_servers_are_not_found_twice() {
        let port = |entry: Value| fact::port_here(&entry["backend_url"]);
        assert_eq!(port(json!({"backend_url": "http://127.0.0.1:8001/v1"})), Some(8001));
        assert_eq!(port(json!({"backend_url": "https://api.example.com/v1"})), None);
        assert_eq!(port(json!({"backend_url": ""})), None);
    }
}
