//! Groq.

use serde_json::Value;

use super::{Answer, Kind, Refusal, Verdict, fact, listing, said, sold, sold::Provider};
use crate::{
    dialect::Door,
    fault::Cause,
    generate::Operation,
    server::{Capability, Model},
};

/// Groq's own service, and whatever the configuration calls so.
pub(super) struct Groq;

static PROVIDER: Provider = Provider::at("https://api.groq.com/openai", "GROQ_API_KEY");

impl Kind for Groq {
    fn id(&self) -> &'static str {
        "groq"
    }

    fn name(&self) -> &'static str {
        "Groq"
    }

    fn provider(&self) -> Option<&'static Provider> {
        Some(&PROVIDER)
    }

    fn listed(&self, answer: &Answer) -> Verdict {
        sold::listed(self.id(), answer, false, model)
    }

    fn doors(&self, operation: Operation) -> &'static [Door] {
        listing::doors_of_chat(operation)
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        match refusal.status {
            // Its flexible tier has nothing free.
            498 => Some(said::busy(refusal)),
            // The model wrote a call that is none: another one may do better.
            400 if it.code == "tool_use_failed" => Some(Cause::Status),
            _ => sold::refused(refusal.status, &it),
        }
    }
}

fn model(entry: &Value) -> Option<Model> {
    const OTHER: [&str; 5] = ["whisper", "tts", "guard", "orpheus", "safeguard"];
    let name = entry["id"].as_str()?;
    if entry["active"] == false || OTHER.iter().any(|it| name.contains(it)) {
        return None;
    }
    let mut model = Model::named(name);
    model.context_length = fact::count(&entry["context_window"]);
    if entry["context_window"].is_number() {
        model.capabilities = [Capability::Chat, Capability::Tools].into();
        if name.contains("llama-4") {
            model.capabilities.insert(Capability::Vision);
        }
    }
    Some(model)
}
