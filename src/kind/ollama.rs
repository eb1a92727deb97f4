//! Ollama.
//!
//! `/api/version` and `/api/tags` prove nothing by themselves: half a dozen
//! servers imitate them. What none of them imitates is the plain text of `/`,
//! but for LocalAI on request, which another path gives away. Seen with 0.24.0:
//! no GET and no `/api/show` loads a model.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Answer, Answers, Continuation, Folder, Json, Kind, Pulse, Question, Refusal, Verdict, doing, fact,
    listing, listing::Listing, said,
};
use crate::{
    dialect::Door,
    fault::Cause,
    generate::Operation,
    server::{Capability, Doing, Model, Problem, Sighting, Zone},
};

/// Ollama.
pub(super) struct Ollama;

const VERSION: &str = "/api/version";
const TAGS: &str = "/api/tags";
const PS: &str = "/api/ps";
const LOCAL_AI: &str = "/.well-known/localai.json";

/// The versions that KoboldCpp, LocalAI and Docker Model Runner claim, for ever.
const CLAIMED: [&str; 3] = ["0.7.0", "0.9.0", "0.1.0"];

/// How many models are looked at one by one in a conversation. A look takes
/// milliseconds; all of a large collection would make every probe a long one.
const MOST_LOOKS: usize = 32;

impl Kind for Ollama {
    fn id(&self) -> &'static str {
        "ollama"
    }

    fn name(&self) -> &'static str {
        "Ollama"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[11434, 11435]
    }

    fn model_folders(&self) -> &'static [Folder] {
        // A manifest is written last, when all of a model is there. The last is the home of the
        // user that Ollama's own installer makes for the service.
        &[
            Folder::Variable("OLLAMA_MODELS", "manifests"),
            Folder::Home(".ollama/models/manifests"),
            Folder::System("/usr/share/ollama/.ollama/models/manifests"),
        ]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let hint = Hint::of(answers);
        if hint == Hint::None {
            return Verdict::No;
        }
        let Some(version) = answers.get(VERSION) else { return Verdict::Ask(Question::get(VERSION)) };
        if hint == Hint::HostCheck {
            // The whole server, this path included, turns a foreign Host away.
            return if is_host_check(version) {
                proof(Sighting { problem: Some(Problem::WrongHost), ..Sighting::of(self.id()) })
            } else {
                Verdict::No
            };
        }
        let said = fact::only_version(version);
        if hint == Hint::Paths && said.is_none() {
            return Verdict::No;
        }
        let claimed = said.as_deref().is_some_and(|it| CLAIMED.contains(&it));
        if claimed && hint == Hint::Text {
            match answers.get(LOCAL_AI) {
                None => return Verdict::Ask(Question::get(LOCAL_AI)),
                Some(answer) if answer.success().is_some_and(|it| it.is_object()) => return Verdict::No,
                Some(_) => {}
            }
        }
        let Some(tags) = answers.get(TAGS) else { return Verdict::Ask(Question::get(TAGS)) };
        let mut sighting = Sighting { version: said, ..Sighting::of(self.id()) };
        let entries = match entries(tags) {
            Ok(entries) => entries,
            Err(Json::Torn) => return Verdict::NotYet,
            Err(_) if hint == Hint::Text => {
                sighting.problem = Some(Problem::Unhealthy);
                return proof(sighting);
            }
            Err(_) => return Verdict::No,
        };
        if claimed && hint == Hint::Paths && !entries.iter().all(has_digest) {
            return Verdict::No;
        }
        let Some(ps) = answers.get(PS) else { return Verdict::Ask(Question::get(PS)) };
        for question in entries.iter().filter(|it| wants_look(it)).filter_map(look).take(MOST_LOOKS) {
            if answers.to(&question).is_none() {
                return Verdict::Ask(question);
            }
        }
        let running = self::entries(ps).ok();
        sighting.models = entries.iter().filter_map(|it| model(it, running.as_deref(), answers)).collect();
        proof(sighting)
    }

    fn doors(&self, operation: Operation) -> &'static [Door] {
        // Its doors in other languages are left out. A runner that dies there ends a stream as
        // if it were whole (0.24.0: no reason and no `[DONE]`, or no `message_stop`), a prompt
        // that is too long is cut in silence, and no context can be asked for.
        match operation {
            Operation::Chat => &[Door::OllamaChat, Door::OllamaGenerate],
            Operation::Complete => &[Door::OllamaGenerate],
            Operation::Embed => &[Door::OllamaEmbed, Door::OllamaEmbeddings],
        }
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        match refusal.status {
            // Fields that exclude each other, at any Ollama.
            400 if it.has(&["raw mode does not support"]) => Some(Cause::Malformed),
            400 | 500 if it.is_overflow() => Some(Cause::ContextOverflow),
            400 if it.has(&["invalid model name"]) => Some(Cause::ModelNotFound),
            // It takes `data:` images only, and only for models that can see.
            400 | 500
                if it.is_beyond_it() || it.has(&["required for image input", "invalid image input"]) =>
            {
                Some(Cause::Unsupported)
            }
            // The machine is too small for this model; others may run well.
            500 if it.has(&["more system memory"]) => Some(Cause::Unsupported),
            // A wrong type of an option and a wrong format are the caller's, and yet 500 (0.24.0).
            500 if it.message.starts_with("option \"") || it.message.starts_with("invalid format:") => {
                Some(Cause::Malformed)
            }
            404 if it.has(&["not found"]) && it.has(&["model "]) => Some(Cause::ModelNotFound),
            404 => Some(Cause::Unsupported),
            503 if it.is_busy() => Some(said::busy(refusal)),
            _ => None,
        }
    }

    fn still_holds(&self, earlier: &Answers, now: &Answers) -> bool {
        // A model that was changed has another digest in the list.
        match (earlier.get(TAGS), now.get(TAGS)) {
            (Some(earlier), Some(now)) => earlier.body == now.body,
            _ => false,
        }
    }

    fn loads_context(&self) -> bool {
        true
    }

    fn continuation(&self) -> Continuation {
        // What it does with a last turn of the model depends on the template: most close it and
        // start again (0.24.0). Text that is not templated goes on with the exact next word.
        Continuation::Rendered
    }

    fn pulse(&self, model: &str, answers: &Answers, _: &Answers) -> Pulse {
        let ps = match doing::well(self.id(), answers, PS) {
            Ok(ps) => ps,
            Err(known) => return known,
        };
        // A model is listed once it has loaded, and stays so while its runner reads, waits for
        // a slot or hangs (0.24.0).
        let is_it = |entry: &Value| {
            name(entry).is_some_and(|it| it == model || it.strip_suffix(":latest") == Some(model))
        };
        Pulse::Is(match entries(ps) {
            Ok(running) if !running.iter().any(is_it) => Doing::Loading,
            Ok(_) | Err(_) => Doing::Unknown,
        })
    }

    fn reads_to_the_end(&self) -> bool {
        // Hanging up frees the slot at once while it writes; while it reads, only after the whole
        // prompt (8.4 s of 9.2 s, 0.24.0).
        true
    }

    fn plain_is_cancelled(&self) -> bool {
        true
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}

/// What there is to suggest Ollama, before its own paths are asked.
#[derive(PartialEq)]
enum Hint {
    /// `/` says it in its own words.
    Text,
    /// `/` turns us away as Ollama does with a host name that it does not know.
    HostCheck,
    /// `/` was changed by something in front, but the list of models has its
    /// owner, or there is none and nothing speaks against asking.
    Paths,
    None,
}

impl Hint {
    fn of(answers: &Answers) -> Self {
        let Some(root) = answers.get("/") else { return Self::None };
        if root.status == 200 && root.body.trim_ascii() == b"Ollama is running" {
            return Self::Text;
        }
        if is_host_check(root) {
            return Self::HostCheck;
        }
        match answers.get(listing::PATH) {
            Some(list) if Listing::of(list).mentions("library") => Self::Paths,
            Some(list) if list.status == 404 && !root.is_page() && !list.is_page() => Self::Paths,
            _ => Self::None,
        }
    }
}

fn is_host_check(answer: &Answer) -> bool {
    answer.status == 403 && answer.body.is_empty() && answer.header("server").is_none()
}

fn proof(sighting: Sighting) -> Verdict {
    Verdict::Proof(Box::new(sighting))
}

/// The entries of `{"models": [{"name": …}]}`.
fn entries(answer: &Answer) -> Result<Vec<Value>, Json> {
    let mut value = match answer.json() {
        Json::Whole(value) if answer.status == 200 => value,
        Json::Torn if answer.status == 200 => return Err(Json::Torn),
        _ => return Err(Json::None),
    };
    super::take_array(&mut value, "models")
        .filter(|entries| entries.iter().all(|it| name(it).is_some()))
        .ok_or(Json::None)
}

fn name(entry: &Value) -> Option<&str> {
    entry["name"].as_str().or(entry["model"].as_str())
}

/// The imitators write no real digests.
fn has_digest(entry: &Value) -> bool {
    entry["digest"].as_str().is_some_and(|it| it.len() == 64 && it.bytes().all(|b| b.is_ascii_hexdigit()))
        && entry["details"]["family"] != "koboldcpp"
}

/// Whether the list leaves out what routing needs: 0.24.0 and older say neither
/// capabilities nor context there.
fn wants_look(entry: &Value) -> bool {
    entry["capabilities"].as_array().is_none() || fact::count(&entry["details"]["context_length"]).is_none()
}

fn look(entry: &Value) -> Option<Question> {
    let body = json!({ "model": name(entry)? });
    Some(Question::post("/api/show", body.to_string()))
}

fn model(entry: &Value, running: Option<&[Value]>, answers: &Answers) -> Option<Model> {
    let name = name(entry)?;
    let details = &entry["details"];
    let shown = look(entry).and_then(|it| answers.to(&it)?.success()).unwrap_or_default();
    let info = &shown["model_info"];
    let architecture = info["general.architecture"].as_str().unwrap_or_default();
    let mut model = Model::named(name);
    model.aliases = name.strip_suffix(":latest").map(Into::into).into_iter().collect();
    model.family = fact::known(&details["family"]).or_else(|| fact::known(&info["general.architecture"]));
    model.parameters = fact::known(&details["parameter_size"])
        .or_else(|| fact::count(&info["general.parameter_count"]).map(fact::parameters));
    model.quantization = fact::known(&details["quantization_level"]);
    model.context_length = fact::count(&details["context_length"])
        .or_else(|| fact::count(&info[format!("{architecture}.context_length")]));
    model.capabilities = capabilities(&entry["capabilities"], &shown["capabilities"]);
    model.size_bytes = fact::count(&entry["size"]);
    model.zone = is_cloud(name, entry, &shown).then_some(Zone::Cloud);
    if let Some(running) = running {
        let found = running.iter().find(|it| self::name(it) == Some(name));
        model.loaded = Some(found.is_some());
        if let Some(found) = found {
            model.loaded_context_length = fact::count(&found["context_length"]);
            model.memory_bytes = fact::count(&found["size"]);
            model.expires = fact::text(&found["expires_at"]).filter(|it| !is_never(it));
        }
    }
    Some(model)
}

fn capabilities(listed: &Value, shown: &Value) -> BTreeSet<Capability> {
    let words = listed.as_array().or(shown.as_array()).map(Vec::as_slice).unwrap_or_default();
    let mut found = BTreeSet::new();
    for word in words.iter().filter_map(Value::as_str) {
        match word {
            "completion" => found.extend([Capability::Chat, Capability::Complete]),
            "tools" => found.extend([Capability::Tools]),
            "insert" => found.extend([Capability::Fim]),
            "vision" => found.extend([Capability::Vision]),
            "embedding" => found.extend([Capability::Embed]),
            "thinking" => found.extend([Capability::Thinking]),
            _ => {}
        }
    }
    found
}

/// Whether the model runs on its maker's computers, though it is in a local list.
fn is_cloud(name: &str, entry: &Value, shown: &Value) -> bool {
    let says_where =
        |it: &Value| ["remote_host", "remote_model"].iter().any(|field| fact::text(&it[*field]).is_some());
    name.ends_with(":cloud") || name.ends_with("-cloud") || says_where(entry) || says_where(shown)
}

/// "Keep it for ever" is written as a date centuries ahead (2319).
fn is_never(expires: &str) -> bool {
    expires.get(..4).is_some_and(|year| year > "2200")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Value {
        json!({"name": "gpt-oss:120b-cloud", "size": 384, "digest": "d"})
    }

    #[test]
    fn a_model_that_runs_elsewhere_is_in_the_cloud() {
        let none = Answers::default();
        let zone = |entry: &Value| model(entry, None, &none).unwrap().zone;
        assert_eq!(zone(&entry()), Some(Zone::Cloud));
        assert_eq!(zone(&json!({"name": "qwen3:cloud"})), Some(Zone::Cloud));
        assert_eq!(
            zone(&json!({"name": "mine:latest", "remote_host": "https://ollama.com:443"})),
            Some(Zone::Cloud)
        );
        assert_eq!(zone(&json!({"name": "cloudy:8b"})), None);
    }

    #[test]
    fn a_model_is_known_with_and_without_latest() {
        let model = model(&json!({"name": "tiny-a:latest"}), None, &Answers::default()).unwrap();
        assert!(model.answers_to("tiny-a") && model.answers_to("tiny-a:latest"));
        assert!(!model.answers_to("tiny"));
    }

    #[test]
    fn what_the_list_of_running_models_did_not_say_is_not_known() {
        let none = Answers::default();
        assert_eq!(model(&entry(), None, &none).unwrap().loaded, None);
        assert_eq!(model(&entry(), Some(&[]), &none).unwrap().loaded, Some(false));
        let running = json!({"name": "gpt-oss:120b-cloud", "expires_at": "2319-03-05T19:42:22Z", "size": 5,
            "context_length": 4096});
        let model = model(&entry(), Some(&[running]), &none).unwrap();
        assert_eq!((model.loaded, model.memory_bytes, model.expires), (Some(true), Some(5), None));
        assert_eq!(model.loaded_context_length, Some(4096));
    }

    #[test]
    fn the_list_is_enough_where_it_says_all() {
        let entry = json!({"name": "qwen3:8b", "capabilities": ["completion", "tools", "thinking", "insert"],
            "details": {"context_length": 40960, "family": "qwen3", "parameter_size": "8.2B"}});
        assert!(!wants_look(&entry));
        let model = model(&entry, None, &Answers::default()).unwrap();
        assert_eq!(model.context_length, Some(40960));
        assert_eq!(model.capabilities.len(), 5);
    }
}
