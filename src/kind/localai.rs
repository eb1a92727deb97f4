//! LocalAI.
//!
//! It imitates Ollama, down to the text of the root where it is told to. A document of its own
//! tells who it is, and is open to everybody.

use super::{Answer, Answers, Kind, Pulse, Question, Verdict, doing, fact, listing};
use crate::server::{Problem, Sighting};

/// LocalAI.
pub(super) struct LocalAi;

const DOCUMENT: &str = "/.well-known/localai.json";
const READY: &str = "/readyz";

impl Kind for LocalAi {
    fn id(&self) -> &'static str {
        "localai"
    }

    fn name(&self) -> &'static str {
        "LocalAI"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[8080]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let titled = answers.get("/").is_some_and(|it| it.is_titled("LocalAI"));
        // Behind another page, or none: its list has names and nothing else.
        let bare =
            |it: &Answer| it.header("x-correlation-id").is_some() && listing::is_bare(it, &["id", "object"]);
        let asked = answers.get(DOCUMENT);
        if asked.is_none() && !titled && !answers.get(listing::PATH).is_some_and(bare) {
            return Verdict::No;
        }
        let Some(document) = asked else { return Verdict::Ask(Question::get(DOCUMENT)) };
        let Some(document) = document.success().filter(|it| it["endpoints"].is_object()) else {
            return Verdict::No;
        };
        let Some(ready) = answers.get(READY) else { return Verdict::Ask(Question::get(READY)) };
        let mut sighting = Sighting { version: fact::text(&document["version"]), ..Sighting::of(self.id()) };
        if ready.status == 503 {
            sighting.problem = Some(Problem::Loading);
            return Verdict::proof(sighting);
        }
        let Some(list) = answers.get(listing::PATH) else {
            return Verdict::Ask(Question::get(listing::PATH));
        };
        listing::proof(sighting, list, listing::model)
    }

    fn pulse(&self, _: &str, answers: &Answers, _: &Answers) -> Pulse {
        doing::there(self.id(), answers, "/healthz")
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}
