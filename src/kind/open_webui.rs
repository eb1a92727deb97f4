//! Open WebUI: a page for people, and a gateway to what it is connected to.
//!
//! It is asked only for chats, at paths of its own and with a key of one of its users. Who
//! answers is its administrator's choice, so it counts as far away until a person says otherwise.

use super::{Answers, Door, Kind, Operation, Pulse, Question, Verdict, doing, fact, listing};
use crate::server::Sighting;

/// Open WebUI.
pub(super) struct OpenWebUi;

const CONFIG: &str = "/api/config";
const MODELS: &str = "/api/models";

impl Kind for OpenWebUi {
    fn id(&self) -> &'static str {
        "openwebui"
    }

    fn name(&self) -> &'static str {
        "Open WebUI"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[3000, 8080]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        if !answers.get("/").is_some_and(|it| it.is_titled("Open WebUI")) {
            return Verdict::No;
        }
        let Some(config) = answers.get(CONFIG) else { return Verdict::Ask(Question::get(CONFIG)) };
        let config = config.success().unwrap_or_default();
        if !config["name"].as_str().is_some_and(|it| it.contains("Open WebUI"))
            || !config["features"].is_object()
        {
            return Verdict::No;
        }
        let Some(list) = answers.get(MODELS) else { return Verdict::Ask(Question::get(MODELS)) };
        let version = fact::text(&config["version"]);
        listing::proof(Sighting { version, forwards: true, ..Sighting::of(self.id()) }, list, listing::model)
    }

    fn path(&self, door: Door) -> &'static str {
        match door {
            Door::OpenAiChat => "/api/chat/completions",
            other => other.path(),
        }
    }

    fn doors(&self, operation: Operation) -> &'static [Door] {
        listing::doors_of_chat(operation)
    }

    fn pulse(&self, _: &str, answers: &Answers, _: &Answers) -> Pulse {
        doing::there(self.id(), answers, CONFIG)
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}
