//! Anthropic, in its own language.

use serde_json::Value;

use super::{Answer, Kind, Refusal, Verdict, fact, said, sold, sold::Provider};
use crate::{
    dialect::Door,
    fault::Cause,
    generate::Operation,
    server::{Capability, Model},
};

/// Anthropic's own service, and whatever the configuration calls so.
pub(super) struct Anthropic;

static PROVIDER: Provider = Provider {
    // It gives twenty at a time else.
    list: "/v1/models?limit=1000",
    key_header: Some("x-api-key"),
    headers: &[("anthropic-version", "2023-06-01")],
    ..Provider::at("https://api.anthropic.com", "ANTHROPIC_API_KEY")
};

impl Kind for Anthropic {
    fn id(&self) -> &'static str {
        "anthropic"
    }

    fn name(&self) -> &'static str {
        "Anthropic"
    }

    fn provider(&self) -> Option<&'static Provider> {
        Some(&PROVIDER)
    }

    fn listed(&self, answer: &Answer) -> Verdict {
        sold::listed(self.id(), answer, false, model)
    }

    fn doors(&self, operation: Operation) -> &'static [Door] {
        match operation {
            Operation::Chat => &[Door::Messages],
            Operation::Complete | Operation::Embed => &[],
        }
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        match refusal.status {
            // Said with the status of a malformed request.
            400 | 403 if it.has(&["credit balance is too low"]) => Some(Cause::NoCredit),
            // "You have reached your specified API usage limits. You will regain access on …"
            400 if it.has(&["api usage limits"]) => Some(Cause::NoCredit),
            404 if it.sort == "not_found_error" && it.has(&["model"]) => Some(Cause::ModelNotFound),
            400 if it.has(&["prefill", "deprecated for this model", "cannot both be specified"]) => {
                Some(Cause::Unsupported)
            }
            _ => sold::refused(refusal.status, &it),
        }
    }
}

fn model(entry: &Value) -> Option<Model> {
    let name = entry["id"].as_str()?;
    let mut model = Model::named(name);
    model.context_length = fact::count(&entry["max_input_tokens"]);
    if name.starts_with("claude-") {
        model.capabilities = [Capability::Chat, Capability::Tools, Capability::Vision].into();
    }
    Some(model)
}
