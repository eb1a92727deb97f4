//! Whatever lists models the OpenAI way: the last resort.
//!
//! llama-cpp-python, transformers serve, SGLang, TGI, Docker Model Runner,
//! KoboldCpp, LocalAI and many more are served well by the common language.
//! What is told here is only what some of them add to their list, and which of
//! them are gateways: these pass prompts on to who knows whom, and say nothing
//! of it that could be relied on.

use serde_json::Value;

use super::{
    Answer, Answers, Json, Kind, Question, Refusal, Verdict, fact, gateway, listing, listing::Listing, said,
    sold,
};
use crate::{
    fault::Cause,
    server::{Model, Problem, Sighting, Zone},
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
        // Docker Model Runner, Lemonade, SGLang, Jan, KoboldCpp, text-generation-webui
        // and TabbyAPI, LiteLLM, TGI, GPT4All, Olla.
        &[12434, 13305, 30000, 1337, 5001, 5000, 4000, 3000, 4891, 40114]
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
            // exo lists its whole catalogue; none of it answers before it was placed by hand.
            listing if listing.is_owned_by("exo") => Verdict::No,
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
        let refused = matches!(refusal.status, 400 | 404 | 422 | 500);
        match refusal.status {
            // pydantic's list of mistakes; llama-cpp-python sends it as a 500. It
            // quotes the body, so no other words are looked for in it.
            400 | 422 | 500 if is_validation(&it) => Some(Cause::Malformed),
            402 => Some(Cause::NoCredit),
            429 if it.code == "insufficient_quota" => Some(Cause::NoCredit),
            _ if it.is_overflow() => Some(Cause::ContextOverflow),
            422 if it.sort == "validation"
                && it.has(&["max_new_tokens", "max_total_tokens", "inputs must have"]) =>
            {
                Some(Cause::ContextOverflow)
            }
            _ if refused && (it.is_unknown_model() || it.has(&["server is pinned to"])) => {
                Some(Cause::ModelNotFound)
            }
            // LiteLLM says so to a key that it does not know.
            400 if it.sort == "no_db_connection" => Some(Cause::NeedsKey),
            _ if refused && (it.is_beyond_it() || it.has(&NOT_HERE)) => Some(Cause::Unsupported),
            404 if it.is_detail => Some(Cause::Unsupported),
            _ => None,
        }
    }

    fn plain_is_cancelled(&self) -> bool {
        // Not known of most. Yet a plain request goes up as it came, since some
        // of them stream no token counts and one (GPT4All) does not stream at all.
        true
    }

    fn wants_max_tokens(&self) -> bool {
        // llama-cpp-python and transformers ignore the newer name; all know the older.
        true
    }
}

/// What another server may well take.
const NOT_HERE: [&str; 4] = [
    // transformers serve, about every field beyond the common ones.
    "unexpected fields in the request",
    // llama-cpp-python without the flag.
    "must be created with embedding=true",
    // llama-cpp-python, given parts of content where its template wants a text.
    "can only concatenate str",
    "cannot have 2 or more assistant messages",
];

fn is_validation(it: &said::Said) -> bool {
    it.has(&["validation error"]) && it.has(&["'loc':"])
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
    let name = entry["id"].as_str()?;
    // KoboldCpp's word for no model at all.
    if name == "koboldcpp/inactive" {
        return None;
    }
    let own = &entry["dmr"];
    let mut model = Model::named(name);
    model.family = fact::text(&entry["family"]).or_else(|| fact::text(&own["architecture"]));
    model.parameters = fact::text(&own["parameters"]);
    model.quantization = fact::text(&entry["quantization"]).or_else(|| fact::text(&own["quantization"]));
    model.context_length = ["context_length", "max_context_window", "max_model_len"]
        .iter()
        .find_map(|field| fact::count(&entry[*field]))
        .or_else(|| fact::count(&own["context_window"]));
    model.loaded_context_length = fact::count(&entry["max_model_len"]);
    // llama-swap and mistral.rs.
    model.loaded = entry["status"]["value"].as_str().or(entry["status"].as_str()).and_then(|it| match it {
        "loaded" => Some(true),
        "unloaded" | "loading" | "reloading" => Some(false),
        _ => None,
    });
    model.zone = is_elsewhere(entry).then_some(Zone::Cloud);
    Some(model)
}

/// Whether the server says of this model alone that it is not here.
fn is_elsewhere(entry: &Value) -> bool {
    let lemonade = fact::text(&entry["cloud_provider"]).is_some();
    // llama-swap runs its models itself, but for those of its peers.
    let swap = fact::text(&entry["meta"]["llamaswap"]["peerID"]).is_some();
    lemonade || swap
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_model_that_its_server_says_is_not_here_is_in_the_cloud() {
        let zone = |entry: Value| model(&entry).unwrap().zone;
        let entry = json!({"id": "x", "owned_by": "lemonade", "cloud_provider": "fireworks"});
        assert_eq!(zone(entry), Some(Zone::Cloud));
        let peer = json!({"id": "x", "owned_by": "llama-swap", "meta": {"llamaswap": {"peerID": "titan"}}});
        assert_eq!(zone(peer), Some(Zone::Cloud));
        let own = json!({"id": "x", "owned_by": "llama-swap", "meta": {"llamaswap": {"type": "model"}}});
        assert_eq!(zone(own), None);
    }

    #[test]
    fn what_some_of_them_add_to_the_list_is_understood() {
        let docker = json!({"id": "ai/qwen3", "owned_by": "docker", "dmr": {"context_window": 40960,
            "architecture": "qwen3", "parameters": "8.19 B", "quantization": "MOSTLY_Q4_K_M"}});
        let model_of = |it: &Value| model(it).unwrap();
        assert_eq!(model_of(&docker).context_length, Some(40960));
        assert_eq!(model_of(&docker).family.as_deref(), Some("qwen3"));
        let swap = json!({"id": "a", "owned_by": "llama-swap", "status": {"value": "unloaded"}});
        assert_eq!(model_of(&swap).loaded, Some(false));
        assert_eq!(model_of(&json!({"id": "a", "max_model_len": 4096})).loaded_context_length, Some(4096));
    }
}
