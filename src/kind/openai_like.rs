//! Whatever lists models the OpenAI way: the last resort.
//!
//! What no other kind claims is served well by the common language. What is
//! told here is only what some add to their list, and which of them are
//! gateways: these pass prompts on to who knows whom, and say nothing of it
//! that could be relied on.

use serde_json::Value;

use super::{
    Answer, Answers, Json, Kind, Question, Refusal, Verdict, fact, gateway, listing, listing::Listing, said,
    sold,
};
use crate::{
    fault::Cause,
    server::{Model, Problem, Sighting},
};

/// Any server with an OpenAI door.
pub(super) struct OpenAiLike;

impl Kind for OpenAiLike {
    fn id(&self) -> &'static str {
        "openai-compatible"
    }

    fn name(&self) -> &'static str {
        "OpenAI-compatible"
    }

    fn usual_ports(&self) -> &'static [u16] {
        // Olla.
        &[40114]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let Some(root) = answers.get("/") else { return Verdict::No };
        let Some(list) = answers.get(listing::PATH) else {
            return if root.status >= 500 {
                Verdict::NotYet
            } else {
                Verdict::Ask(Question::get(listing::PATH))
            };
        };
        let mut sighting = Sighting::of(self.id());
        match Listing::of(list) {
            Listing::Models(entries) => {
                sighting.forwards = entries.iter().any(gateway::lists);
                sighting.models = entries.iter().filter_map(model).collect();
                Verdict::Proof(Box::new(sighting))
            }
            Listing::Torn => Verdict::NotYet,
            Listing::Other if wants_key(list, root) => {
                sighting.problem = Some(Problem::NeedsKey);
                Verdict::Proof(Box::new(sighting))
            }
            Listing::Other if list.status >= 500 || matches!(list.status, 408 | 425 | 429) => Verdict::NotYet,
            Listing::Other => Verdict::No,
        }
    }

    fn listed(&self, answer: &Answer) -> Verdict {
        sold::listed(self.id(), answer, false, model)
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        match refusal.status {
            402 => Some(Cause::NoCredit),
            429 if it.code == "insufficient_quota" => Some(Cause::NoCredit),
            _ => said::in_common(refusal, &["cannot have 2 or more assistant messages"]),
        }
    }

    fn plain_is_cancelled(&self) -> bool {
        // Not known. Yet a plain request goes up as it came, since some stream no
        // token counts.
        true
    }

    fn wants_max_tokens(&self) -> bool {
        // Some ignore the newer name; all know the older.
        true
    }
}

/// Whether a model server wants a key here. Half the web says 401, so it has to
/// say so as these servers do: about a key, in the OpenAI envelope; or in the
/// few words of SGLang and TabbyAPI.
fn wants_key(list: &Answer, root: &Answer) -> bool {
    let Json::Whole(value) = list.json() else { return false };
    if !matches!(list.status, 401 | 403) {
        return false;
    }
    let uvicorn = list.header("server") == Some("uvicorn");
    let it = said::Said::of(&list.body);
    let about_key = it.has(&["api key", "api_key", "apikey", "bearer", "authorization"])
        || it.code == "invalid_api_key"
        || it.sort == "authentication_error";
    match &value["error"] {
        Value::Object(_) => about_key,
        // Where `/` is guarded too it may be any private site.
        Value::String(_) => (about_key || it.message == "unauthorized") && (uvicorn || root.status != 401),
        _ => uvicorn && it.is_detail && about_key,
    }
}

fn model(entry: &Value) -> Option<Model> {
    let mut model = listing::model(entry)?;
    model.family = fact::text(&entry["family"]);
    model.quantization = fact::text(&entry["quantization"]);
    let said = ["context_length", "max_context_window"].iter().find_map(|field| fact::count(&entry[*field]));
    model.context_length = said.or(model.context_length);
    model.loaded =
        entry["status"]["value"].as_str().or(entry["status"].as_str()).and_then(listing::is_loaded);
    Some(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_some_of_them_add_to_the_list_is_understood() {
        let model_of = |it: &Value| model(it).unwrap();
        let family = json!({"id": "a", "family": "qwen3", "quantization": "Q4_K_M", "context_length": 8192});
        assert_eq!(model_of(&family).family.as_deref(), Some("qwen3"));
        assert_eq!(model_of(&family).context_length, Some(8192));
        let state = json!({"id": "a", "status": {"value": "unloaded"}});
        assert_eq!(model_of(&state).loaded, Some(false));
        assert_eq!(model_of(&json!({"id": "a", "max_model_len": 4096})).loaded_context_length, Some(4096));
    }
}
