//! Docker Model Runner.
//!
//! It hands what it is asked to an engine for each model (llama.cpp, vLLM, MLX, SGLang), so
//! refusals and what becomes of a last turn of the model are those of that engine, which it does
//! not name.

use serde_json::Value;

use super::{Answers, Kind, Pulse, Question, Verdict, doing, fact, listing};
use crate::server::{Model, Sighting};

/// Docker Model Runner.
pub(super) struct DockerModelRunner;

const ROOT: &[u8] = b"Docker Model Runner is running";
const VERSION: &str = "/version";

impl Kind for DockerModelRunner {
    fn id(&self) -> &'static str {
        "dockermodelrunner"
    }

    fn name(&self) -> &'static str {
        "Docker Model Runner"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[12434]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let says_so = answers.get("/").is_some_and(|it| it.status == 200 && it.body.trim_ascii() == ROOT);
        let list = match listing::known(answers, says_so, "docker") {
            Ok(list) => list,
            Err(verdict) => return verdict,
        };
        let Some(version) = answers.get(VERSION) else { return Verdict::Ask(Question::get(VERSION)) };
        let sighting = Sighting { version: fact::only_version(version), ..Sighting::of(self.id()) };
        listing::proof(sighting, list, model)
    }

    fn pulse(&self, _: &str, answers: &Answers, _: &Answers) -> Pulse {
        doing::there(self.id(), answers, "/")
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}

fn model(entry: &Value) -> Option<Model> {
    let mut model = listing::model(entry)?;
    let own = &entry["dmr"];
    model.family = fact::text(&own["architecture"]);
    model.parameters = fact::text(&own["parameters"]);
    model.quantization = fact::text(&own["quantization"]);
    model.context_length = fact::count(&own["context_window"]);
    Some(model)
}
