//! Another lovable, or this one seen from outside.
//!
//! It is known by what stands in every reply of one. Its models are asked for like anybody's;
//! whoever leads the conversation is never found to be a server of its own, and of what the
//! other has it is told only what does not come back to it: each way to a model names the
//! daemons on it.

use serde_json::Value;

use super::{Answer, Answers, Kind, Pulse, Question, Refusal, Verdict, doing, fact, said, take_array};
use crate::{
    dialect::Door,
    fault::Cause,
    generate::Operation,
    server::{Capability, Model, Problem, Sighting, Zone},
};

/// A lovable.
pub(super) struct Lovable;

const STATUS: &str = "/lovable/v1/status";
const MODELS: &str = "/lovable/v1/models";
const HEALTH: &str = "/healthz";

/// The most daemons behind the first one. Nobody builds longer chains on purpose.
const LONGEST_WAY: usize = 4;

impl Kind for Lovable {
    fn id(&self) -> &'static str {
        "lovable"
    }

    fn name(&self) -> &'static str {
        "lovable"
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let asked = [answers.get("/"), answers.get(STATUS)];
        let Some(version) = asked.iter().flatten().find_map(|answer| version(answer)) else {
            return Verdict::No;
        };
        let instance = asked.iter().flatten().find_map(|answer| answer.header("x-lovable-instance"));
        let instance = match instance {
            Some(instance) if !fact::is_name(instance) || answers.is_asker(instance) => return Verdict::No,
            Some(instance) => instance,
            None if answers.get(STATUS).is_none() => return Verdict::Ask(Question::get(STATUS)),
            None => return Verdict::No,
        };
        let Some(answer) = answers.get(MODELS) else { return Verdict::Ask(Question::get(MODELS)) };
        let mut sighting = Sighting::of(self.id());
        sighting.version = Some(version);
        sighting.instance = Some(instance.to_owned());
        match answer.status {
            401 => sighting.problem = Some(Problem::NeedsKey),
            403 => sighting.problem = Some(Problem::WrongHost),
            _ => match answer.success().and_then(|mut it| take_array(&mut it, "models")) {
                Some(models) => sighting.models = models.iter().filter_map(|it| model(it, answers)).collect(),
                None => return Verdict::NotYet,
            },
        }
        Verdict::Proof(Box::new(sighting))
    }

    /// It speaks every language, and knows better than we do who of its servers does so natively.
    fn doors(&self, operation: Operation) -> &'static [Door] {
        match operation {
            Operation::Chat => {
                &[Door::OpenAiChat, Door::Messages, Door::Responses, Door::OllamaChat, Door::OllamaGenerate]
            }
            Operation::Complete => &[Door::OpenAiComplete, Door::OllamaGenerate],
            Operation::Embed => &[Door::OpenAiEmbed, Door::OllamaEmbed, Door::OllamaEmbeddings],
        }
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        match refusal.status {
            400 if it.is_overflow() => Some(Cause::ContextOverflow),
            400 if it.is_beyond_it() || it.code == "unsupported" => Some(Cause::Unsupported),
            // It is well, and so may be all its other models.
            502..=504 | 508 => Some(Cause::NobodyLeft),
            _ => None,
        }
    }

    fn plain_is_cancelled(&self) -> bool {
        true
    }

    fn pulse(&self, _: &str, answers: &Answers, _: &Answers) -> Pulse {
        doing::there(self.id(), answers, HEALTH)
    }

    fn hands_on(&self) -> bool {
        true
    }
}

fn version(answer: &Answer) -> Option<String> {
    let version = answer.header("server")?.strip_prefix("lovable/")?;
    fact::is_name(version).then(|| version.to_owned())
}

/// One of its models, by the best way there that does not lead through whoever asks.
fn model(value: &Value, answers: &Answers) -> Option<Model> {
    let ways = value["servers"].as_array()?.iter().filter_map(|it| Some((via(it, answers)?, zone(it), it)));
    let (via, zone, way) = ways.min_by_key(|(via, zone, way)| (via.len(), *zone, way["loaded"] != true))?;
    let capabilities = value["capabilities"].as_array().map(Vec::as_slice).unwrap_or_default();
    Some(Model {
        family: fact::text(&value["family"]),
        parameters: fact::text(&value["parameters"]),
        quantization: fact::text(&value["quantization"]),
        context_length: fact::count(&value["context_length"]),
        loaded_context_length: fact::count(&value["loaded_context_length"]),
        capabilities: capabilities.iter().filter_map(capability).collect(),
        loaded: way["loaded"].as_bool(),
        size_bytes: fact::count(&way["size_bytes"]),
        memory_bytes: fact::count(&way["memory_bytes"]),
        expires: fact::text(&way["expires"]),
        // What is on its own machine is where it is itself, as seen from here.
        zone: Some(zone).filter(|it| *it != Zone::Machine),
        via,
        // Its other names for it are its person's, and none that anybody here has said.
        ..Model::named(value["name"].as_str()?)
    })
}

/// The daemons on this way behind the first one; `None` if whoever asks is among them, or if it
/// cannot be told.
fn via(way: &Value, answers: &Answers) -> Option<Vec<String>> {
    let via = match &way["via"] {
        Value::Null => Vec::new(),
        via => {
            let via = via.as_array()?.iter().map(|it| Some(it.as_str()?.to_owned()));
            via.collect::<Option<Vec<_>>>()?
        }
    };
    let is_fit = |it: &String| fact::is_name(it) && !answers.is_asker(it);
    (via.len() <= LONGEST_WAY && via.iter().all(is_fit)).then_some(via)
}

/// Where it ends up as seen from there. What is not said may be anywhere.
fn zone(way: &Value) -> Zone {
    match way["zone"].as_str() {
        Some("machine") => Zone::Machine,
        Some("lan") => Zone::Lan,
        _ => Zone::Cloud,
    }
}

fn capability(value: &Value) -> Option<Capability> {
    serde::Deserialize::deserialize(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const OURS: &str = "0000000000000000";

    fn answer(status: u16, body: &Value) -> Answer {
        let headers = [("server", "lovable/0.1.0"), ("x-lovable-instance", "aaaaaaaaaaaaaaaa")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Answer { status, headers, body: body.to_string().into(), at: None }
    }

    fn asked(asker: &str, status: u16, list: &Value) -> Verdict {
        let mut answers = Answers::of(asker);
        answers.push(Question::get("/"), answer(200, &json!("Ollama is running")));
        let Verdict::Ask(question) = Lovable.recognise(&answers) else { return Lovable.recognise(&answers) };
        assert_eq!(question, Question::get(MODELS));
        answers.push(question, answer(status, list));
        Lovable.recognise(&answers)
    }

    fn models(list: &Value) -> Vec<Model> {
        match asked(OURS, 200, list) {
            Verdict::Proof(sighting) => sighting.models,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn its_models_are_as_far_as_they_are_from_here() {
        let list = json!({"models": [
            {"name": "near", "family": "qwen3", "capabilities": ["chat", "tools", "dance"], "aliases": ["gpt-5"],
             "context_length": 4096, "servers": [{"id": "ollama", "zone": "machine", "loaded": true}]},
            {"name": "desk", "servers": [{"id": "vllm", "zone": "lan"}]},
            {"name": "far", "servers": [{"id": "openai", "zone": "cloud"}]},
            {"name": "anywhere", "servers": [{"id": "x"}]},
        ]});
        let models = models(&list);
        let zones: Vec<_> = models.iter().map(|it| (it.name.as_str(), it.zone)).collect();
        assert_eq!(
            zones,
            [
                ("near", None),
                ("desk", Some(Zone::Lan)),
                ("far", Some(Zone::Cloud)),
                ("anywhere", Some(Zone::Cloud))
            ]
        );
        assert_eq!(models[0].capabilities, [Capability::Chat, Capability::Tools].into());
        assert_eq!((models[0].loaded, models[0].aliases.len()), (Some(true), 0));
    }

    #[test]
    fn what_it_has_from_us_is_not_its_own() {
        let list = json!({"models": [
            {"name": "ours", "servers": [{"id": "lovable", "zone": "lan", "via": [OURS]}]},
            {"name": "ours by a third", "servers": [{"id": "lovable-2", "zone": "lan", "via": ["b", OURS]}]},
            {"name": "both", "servers": [{"id": "lovable", "zone": "machine", "via": [OURS]},
                                         {"id": "vllm", "zone": "lan"}]},
            {"name": "a third's", "servers": [{"id": "lovable-2", "zone": "lan", "via": ["b"]}]},
            {"name": "endless", "servers": [{"id": "x", "zone": "lan", "via": ["b", "c", "d", "e", "f"]}]},
            {"name": "odd", "servers": [{"id": "x", "zone": "lan", "via": "b"}]},
            {"name": "nowhere", "servers": []},
        ]});
        let models = models(&list);
        let ways: Vec<_> = models.iter().map(|it| (it.name.as_str(), it.via.join(" "))).collect();
        assert_eq!(ways, [("both", String::new()), ("a third's", "b".to_owned())]);
    }

    #[test]
    fn nobody_finds_itself() {
        assert_eq!(asked("aaaaaaaaaaaaaaaa", 200, &json!({"models": []})), Verdict::No);
    }

    #[test]
    fn one_that_does_not_let_us_in_is_known_all_the_same() {
        for (status, problem) in [(401, Problem::NeedsKey), (403, Problem::WrongHost)] {
            let Verdict::Proof(sighting) = asked(OURS, status, &json!({})) else { panic!("{status}") };
            assert_eq!(sighting.problem, Some(problem));
        }
        assert_eq!(asked(OURS, 500, &json!({})), Verdict::NotYet);
    }

    #[test]
    fn what_its_servers_did_is_not_held_against_it() {
        let classify = |status, body: &str| {
            Lovable.classify(Refusal { status, retry_after: None, body: body.as_bytes() })
        };
        for status in [502, 503, 504, 508] {
            assert_eq!(classify(status, "{}"), Some(Cause::NobodyLeft), "{status}");
        }
        assert_eq!(classify(500, "{}"), None);
        let too_long = r#"{"error":{"code":"context_length_exceeded"}}"#;
        assert_eq!(classify(400, too_long), Some(Cause::ContextOverflow));
        assert_eq!(classify(400, r#"{"error":{"code":"unsupported"}}"#), Some(Cause::Unsupported));
    }

    proptest! {
        #[test]
        fn no_way_leads_back(ways in prop::collection::vec(prop::collection::vec(0u8..4, 0..6), 0..5)) {
            let name = |it: &u8| if *it == 0 { OURS.to_owned() } else { format!("{it}") };
            let servers: Vec<_> = ways
                .iter()
                .map(|it| json!({"id": "x", "zone": "lan", "via": it.iter().map(name).collect::<Vec<_>>()}))
                .collect();
            let models = models(&json!({"models": [{"name": "m", "servers": servers}]}));
            let good = ways.iter().filter(|it| !it.contains(&0) && it.len() <= LONGEST_WAY);
            let shortest = good.map(Vec::len).min();
            prop_assert_eq!(models.first().map(|it| it.via.len()), shortest);
            prop_assert!(models.iter().all(|it| !it.via.iter().any(|it| it == OURS)));
        }
    }
}
