//! llama.cpp's server, alone or as a router with children.
//!
//! Its `Server` header is in every response, errors included. While it loads it
//! listens and says 503 to everything. A router lists its children; asking it
//! for the properties of one (`/props?model=`) would start that one, so only
//! its own are asked.

use serde_json::{Value, json};

use super::{
    Answer, Answers, Continuation, Json, Kind, Pulse, Question, Refusal, Tokenizer, Verdict, doing, fact,
    listing, listing::Listing, said,
};
use crate::{
    fault::Cause,
    server::{Doing, Model, ModelName, Problem, Sighting},
};

/// llama.cpp's server.
pub(super) struct LlamaCpp;

const PROPS: &str = "/props";
const HEALTH: &str = "/health";
const SLOTS: &str = "/slots";

impl Kind for LlamaCpp {
    fn id(&self) -> &'static str {
        "llamacpp"
    }

    fn name(&self) -> &'static str {
        "llama.cpp"
    }

    fn usual_ports(&self) -> &'static [u16] {
        // 9931 is the default that was announced for the future.
        &[8080, 9931, 8081, 8082, 8083, 8084, 8085, 8086, 8087, 8088, 8089, 8090]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let mut sighting = Sighting::of(self.id());
        if answers.iter().any(|(_, answer)| is_loading(answer)) {
            return problem(sighting, Problem::Loading);
        }
        let list = answers.get(listing::PATH);
        let marked = answers.iter().any(|(_, answer)| answer.header("server") == Some("llama.cpp"));
        if !marked && !list.is_some_and(|it| Listing::of(it).is_owned_by("llamacpp")) {
            return Verdict::No;
        }
        let Some(list) = list else { return Verdict::Ask(Question::get(listing::PATH)) };
        let entries = match Listing::of(list) {
            Listing::Models(entries) => entries,
            Listing::Torn => return Verdict::NotYet,
            Listing::Other => {
                return match list.status {
                    401 | 403 => problem(sighting, Problem::NeedsKey),
                    500.. => problem(sighting, Problem::Unhealthy),
                    _ => Verdict::No,
                };
            }
        };
        let Some(props) = answers.get(PROPS) else { return Verdict::Ask(Question::get(PROPS)) };
        // Builds before 2026 list models to everybody and want the key for the rest.
        if matches!(props.status, 401 | 403) {
            sighting.problem = Some(Problem::NeedsKey);
        }
        let props = props.success().unwrap_or_default();
        let is_router =
            props["role"] == "router" || entries.iter().any(|it| it["status"]["value"].is_string());
        sighting.version = fact::text(&props["build_info"]);
        if is_router {
            sighting.models = entries.iter().filter_map(child).collect();
            sighting.engine_ports = entries.iter().filter_map(child_port).collect();
        } else {
            sighting.models = entries.iter().filter_map(|it| own(it, &props)).collect();
            sighting.slots = fact::count(&props["total_slots"]).and_then(|it| it.try_into().ok());
            sighting.engine_of = props["model_path"].as_str().filter(|it| is_blob(it)).map(str::to_owned);
        }
        Verdict::Proof(Box::new(sighting))
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        let refused = matches!(refusal.status, 400 | 500);
        match refusal.status {
            // "Increase the physical batch size" comes with a 500, for inputs to embed.
            _ if it.is_overflow() || it.has(&["input is too large to process"]) => {
                Some(Cause::ContextOverflow)
            }
            503 if it.is_loading() => Some(Cause::Loading),
            // The library's own words for a body that is no JSON, or has a wrong
            // type in it: with 400 in newer builds, with 500 in older ones.
            400 | 500 if it.has(&["[json.exception."]) => Some(Cause::Malformed),
            400 | 404 if it.is_unknown_model() || it.has(&["model name is missing"]) => {
                Some(Cause::ModelNotFound)
            }
            404 => Some(Cause::Unsupported),
            _ if refused && it.has(&NOT_HERE) => Some(Cause::Unsupported),
            _ if it.is_beyond_it() => Some(Cause::Unsupported),
            _ => None,
        }
    }

    fn tokenizer(&self) -> Option<Tokenizer> {
        Some(Tokenizer::Text)
    }

    fn pulse(&self, model: &str, answers: &Answers, earlier: &Answers) -> Pulse {
        if let Err(known) = doing::well(self.id(), answers, HEALTH) {
            return known;
        }
        let slots = match doing::well(self.id(), answers, SLOTS) {
            Ok(slots) => slots,
            // They are switched off (501).
            Err(Pulse::Is(Doing::Dead)) => return Pulse::Is(Doing::Unknown),
            Err(known) => return known,
        };
        if let Some(slots) = slots.success() {
            let before = answers_of(earlier, SLOTS);
            return Pulse::Is(by_slots(&slots, &before));
        }
        if slots.status != 400 {
            return Pulse::Is(Doing::Unknown);
        }
        // A router has no slots of its own; its list says whether a child runs.
        let Some(list) = answers.get(listing::PATH) else {
            return Pulse::Ask(Question::get(listing::PATH));
        };
        let Listing::Models(entries) = Listing::of(list) else { return Pulse::Is(Doing::Unknown) };
        let children: Vec<Model> = entries.iter().filter_map(child).collect();
        doing::by_memory(&children, model)
    }

    fn continuation(&self) -> Continuation {
        // Builds since May 2026 know the flags (b11549, recorded); older ones go on without them,
        // unless their template thinks. These refuse a flag that names a part.
        Continuation::Parts
    }

    fn plain_is_cancelled(&self) -> bool {
        // It computes a plain answer to its end for a client who has left
        // (37 s for 3,000 tokens, b11549).
        false
    }
}

/// What another server, another flag or another chat template may well take.
const NOT_HERE: [&str; 6] = [
    // Tools need a flag, in some builds.
    "requires --jinja",
    // More than one choice needs as many slots.
    "field 'n':",
    // Only some templates let an answer be continued.
    "assistant messages at the end",
    "prefill is incompatible",
    // The template itself refused: "roles must alternate" and the like.
    "jinja exception",
    "roles must alternate",
];

fn answers_of(answers: &Answers, path: &'static str) -> Value {
    answers.get(path).and_then(Answer::success).unwrap_or_default()
}

/// What its slots do. Newer builds count in each how much was written: where all that are busy
/// have begun to write, and none has written more since it was asked last, nothing is worked
/// on. While a prompt is read no count moves (b11549), so one that reads is taken to work.
fn by_slots(slots: &Value, before: &Value) -> Doing {
    let busy = |slots: &Value| -> Option<Vec<Value>> {
        let all = slots.as_array().filter(|it| !it.is_empty())?;
        if !all.iter().all(|it| it["is_processing"].is_boolean()) {
            return None;
        }
        let busy = all.iter().filter(|it| it["is_processing"] == true).map(|it| {
            let decoded = it["next_token"].pointer("/0/n_decoded").or(it["next_token"].get("n_decoded"));
            json!([it["id"], it["id_task"], decoded])
        });
        Some(busy.collect())
    };
    match (busy(slots), busy(before)) {
        (Some(now), _) if now.is_empty() => Doing::Idle,
        (Some(now), Some(before)) if now == before && now.iter().all(|it| it[2].as_u64() > Some(0)) => {
            Doing::Idle
        }
        (Some(_), _) => Doing::Working,
        (None, _) => Doing::Unknown,
    }
}

fn problem(mut sighting: Sighting, problem: Problem) -> Verdict {
    sighting.problem = Some(problem);
    Verdict::Proof(Box::new(sighting))
}

fn is_loading(answer: &Answer) -> bool {
    let Json::Whole(value) = answer.json() else { return false };
    answer.status == 503
        && value["error"]["type"] == "unavailable_error"
        && value["error"]["message"] == "Loading model"
}

/// The model of a server that has one, under whatever name: it ignores the name
/// that is asked for.
fn own(entry: &Value, props: &Value) -> Option<Model> {
    let name = entry["id"].as_str()?;
    let meta = &entry["meta"];
    let mut model = Model::named(name);
    model.aliases = aliases(entry);
    model.aliases.extend(file_names(name));
    model.parameters = fact::count(&meta["n_params"]).map(fact::parameters);
    model.quantization = fact::text(&meta["ftype"]).map(|it| it.trim_start_matches("(guessed) ").to_owned());
    model.context_length = fact::count(&meta["n_ctx_train"]);
    // What a request may fill: all of it is divided among the slots, and only
    // `/props` says by how much.
    model.loaded_context_length = fact::count(&props["default_generation_settings"]["n_ctx"]);
    model.size_bytes = fact::count(&meta["size"]);
    model.loaded = Some(true);
    // Capabilities stay unknown: whether it was started for embeddings is in no
    // answer to a GET, and a set without them would say that it was not.
    Some(model)
}

fn child(entry: &Value) -> Option<Model> {
    let mut model = Model::named(entry["id"].as_str()?);
    model.aliases = aliases(entry);
    model.context_length = fact::count(&entry["meta"]["n_ctx_train"]);
    model.size_bytes = fact::count(&entry["meta"]["size"]);
    model.parameters = fact::count(&entry["meta"]["n_params"]).map(fact::parameters);
    model.loaded = entry["status"]["value"].as_str().map(|it| it == "loaded");
    Some(model)
}

/// The port of a child that runs: the last `--port` of its command line. One
/// that has died keeps it there, and somebody else may have it by then.
fn child_port(entry: &Value) -> Option<u16> {
    if entry["status"]["value"] == "unloaded" {
        return None;
    }
    let args = entry["status"]["args"].as_array()?;
    let at = args.iter().rposition(|it| it == "--port")?;
    args.get(at + 1)?.as_str()?.parse().ok().filter(|port| *port > 0)
}

fn aliases(entry: &Value) -> Vec<ModelName> {
    let given = entry["aliases"].as_array().map(Vec::as_slice).unwrap_or_default();
    given.iter().filter_map(Value::as_str).map(Into::into).collect()
}

/// A model without an alias is listed by the path of its file; people ask for
/// the file's name, with or without its ending.
fn file_names(name: &str) -> Vec<ModelName> {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let stem = file.strip_suffix(".gguf").unwrap_or(file);
    [file, stem].into_iter().filter(|it| *it != name && !it.is_empty()).map(Into::into).collect()
}

/// Whether this file lies in an Ollama store: then an Ollama runs this server
/// for itself (from 0.30).
fn is_blob(path: &str) -> bool {
    fact::is_name(path) && (path.contains("/blobs/sha256-") || path.contains("\\blobs\\sha256-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_path_its_name_and_its_stem() {
        let entry = json!({"id": "/models/qwen3-8b-q4_k_m.gguf"});
        let model = own(&entry, &Value::Null).unwrap();
        for name in ["/models/qwen3-8b-q4_k_m.gguf", "qwen3-8b-q4_k_m.gguf", "qwen3-8b-q4_k_m"] {
            assert!(model.answers_to(name), "{name}");
        }
        let windows = own(&json!({"id": "C:\\models\\tiny.gguf"}), &Value::Null).unwrap();
        assert!(windows.answers_to("tiny"));
        assert!(own(&json!({"id": "tiny"}), &Value::Null).unwrap().aliases.is_empty());
    }

    #[test]
    fn only_a_child_that_runs_has_a_port() {
        let entry =
            |value: &str, port: &str| json!({"status": {"value": value, "args": ["s", "--port", port]}});
        assert_eq!(child_port(&entry("loaded", "39643")), Some(39643));
        assert_eq!(child_port(&entry("loading", "39643")), Some(39643));
        assert_eq!(child_port(&entry("unloaded", "39643")), None);
        assert_eq!(child_port(&entry("loaded", "0")), None);
        assert_eq!(child_port(&json!({"status": {"value": "loaded", "args": ["--port"]}})), None);
    }

    #[test]
    fn the_engine_of_an_ollama_is_known_by_its_file() {
        assert!(is_blob("/usr/share/ollama/.ollama/models/blobs/sha256-a88fe1"));
        assert!(is_blob("C:\\Users\\me\\.ollama\\models\\blobs\\sha256-a88fe1"));
        assert!(!is_blob("/models/tiny.gguf"));
    }

    #[test]
    fn a_slot_works_while_it_reads_or_its_count_moves() {
        let slot = |id: u64, busy: bool, written: u64| json!({"id": id, "is_processing": busy, "next_token": [{"n_decoded": written}]});
        let bare = json!([{"id": 0, "is_processing": true}]);
        let (reads, writes) = (json!([slot(0, true, 0)]), json!([slot(0, true, 7), slot(1, false, 9)]));
        for (now, before, expected) in [
            (json!([slot(0, false, 5), slot(1, false, 9)]), Value::Null, Doing::Idle),
            (writes.clone(), Value::Null, Doing::Working),
            (writes.clone(), json!([slot(0, true, 6), slot(1, false, 9)]), Doing::Working),
            (writes.clone(), json!([slot(0, true, 7), slot(1, true, 9)]), Doing::Working),
            (writes.clone(), json!([slot(0, true, 7), slot(1, false, 8)]), Doing::Idle),
            // It stands still because another slot reads.
            (
                json!([slot(0, true, 7), slot(1, true, 0)]),
                json!([slot(0, true, 7), slot(1, true, 0)]),
                Doing::Working,
            ),
            (reads.clone(), reads, Doing::Working),
            // Older builds do not count.
            (bare.clone(), bare, Doing::Working),
            (json!([]), Value::Null, Doing::Unknown),
            (json!({"error": "x"}), Value::Null, Doing::Unknown),
        ] {
            assert_eq!(by_slots(&now, &before), expected, "{now} after {before}");
        }
    }

    #[test]
    fn what_was_not_recorded_is_understood_too() {
        let classify = |status, message: &str| {
            let body =
                json!({"error": {"code": status, "message": message, "type": "server_error"}}).to_string();
            LlamaCpp.classify(Refusal { status, retry_after: None, body: body.as_bytes() })
        };
        for (status, message, expected) in [
            (
                400,
                "the request exceeds the available context size. try increasing it",
                Some(Cause::ContextOverflow),
            ),
            (
                500,
                "input is too large to process. increase the physical batch size",
                Some(Cause::ContextOverflow),
            ),
            (500, "tools param requires --jinja flag", Some(Cause::Unsupported)),
            (500, "image input is not supported - hint: provide the mmproj", Some(Cause::Unsupported)),
            (
                400,
                "Cannot have 2 or more assistant messages at the end of the list.",
                Some(Cause::Unsupported),
            ),
            (500, "Jinja Exception: Conversation roles must alternate", Some(Cause::Unsupported)),
            (503, "Loading model", Some(Cause::Loading)),
            (500, "proxy error: Failed to read connection", None),
            (500, "Compute error.", None),
        ] {
            assert_eq!(classify(status, message), expected, "{message}");
        }
    }
}
