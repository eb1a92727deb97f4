//! OpenRouter, which passes requests on to others.

use serde_json::Value;

use super::{Answer, Kind, Refusal, Verdict, fact, said, sold, sold::Provider};
use crate::{
    fault::Cause,
    server::{Capability, Model},
};

/// OpenRouter's own service, and whatever the configuration calls so.
pub(super) struct OpenRouter;

/// It hands on what it has no name for.
static PROVIDER: Provider =
    Provider { strict: false, ..Provider::at("https://openrouter.ai/api", "OPENROUTER_API_KEY") };

impl Kind for OpenRouter {
    fn id(&self) -> &'static str {
        "openrouter"
    }

    fn name(&self) -> &'static str {
        "OpenRouter"
    }

    fn provider(&self) -> Option<&'static Provider> {
        Some(&PROVIDER)
    }

    fn listed(&self, answer: &Answer) -> Verdict {
        sold::listed(self.id(), answer, false, model)
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        match refusal.status {
            // What was said is not allowed there, and is not sent round to be allowed elsewhere.
            403 if is_moderation(refusal.body) => Some(Cause::Malformed),
            // Whoever it asked was too slow.
            408 => Some(Cause::Status),
            // "No endpoints found that support tool use"
            404 if it.has(&["no endpoints found", "no allowed providers"]) => Some(Cause::Unsupported),
            400 if it.has(&["is not a valid model id"]) => Some(Cause::ModelNotFound),
            _ => sold::refused(refusal.status, &it),
        }
    }
}

fn is_moderation(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|it| it["error"]["metadata"]["reasons"].is_array())
}

fn model(entry: &Value) -> Option<Model> {
    let name = entry["id"].as_str()?;
    let has = |list: &Value, word: &str| list.as_array().is_some_and(|it| it.iter().any(|it| it == word));
    let made = &entry["architecture"];
    if made["output_modalities"].is_array() && !has(&made["output_modalities"], "text") {
        return None;
    }
    let mut model = Model::named(name);
    model.context_length = fact::count(&entry["context_length"]);
    if made.is_object() {
        model.capabilities = [Capability::Chat].into();
        let takes = &entry["supported_parameters"];
        let can = [
            (has(takes, "tools"), Capability::Tools),
            (has(takes, "reasoning"), Capability::Thinking),
            (has(&made["input_modalities"], "image"), Capability::Vision),
        ];
        model.capabilities.extend(can.into_iter().filter(|it| it.0).map(|it| it.1));
    }
    Some(model)
}
