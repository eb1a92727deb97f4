//! Google Gemini, by the door that speaks OpenAI's language.
//!
//! Its paths have no `/v1` in them, its models a prefix, its calls of tools no numbers, its
//! refusals the shape of another house (a list around the object), and a key that it does not
//! know is a malformed request to it.

use std::time::Duration;

use serde_json::Value;

use super::{Answer, Kind, Refusal, Verdict, said, said::Said, sold, sold::Provider};
use crate::{
    dialect::Door,
    fault::Cause,
    generate::Operation,
    server::{Capability, Model},
};

/// Google's own service, and whatever the configuration calls so.
pub(super) struct Gemini;

static PROVIDER: Provider = Provider {
    list: "/models",
    ..Provider::at("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY")
};

impl Kind for Gemini {
    fn id(&self) -> &'static str {
        "gemini"
    }

    fn name(&self) -> &'static str {
        "Google Gemini"
    }

    fn provider(&self) -> Option<&'static Provider> {
        Some(&PROVIDER)
    }

    fn listed(&self, answer: &Answer) -> Verdict {
        let said = Said::of(inner(&answer.body).as_ref());
        sold::listed(self.id(), answer, is_about_key(&said), model)
    }

    fn doors(&self, operation: Operation) -> &'static [Door] {
        match operation {
            Operation::Chat => &[Door::OpenAiChat],
            Operation::Embed => &[Door::OpenAiEmbed],
            Operation::Complete => &[],
        }
    }

    fn path(&self, door: Door) -> &'static str {
        door.path().strip_prefix("/v1").unwrap_or(door.path())
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let body = inner(refusal.body);
        let it = Said::of(body.as_ref());
        match refusal.status {
            400 | 401 | 403 if is_about_key(&it) => Some(Cause::NeedsKey),
            // A quota of a minute is over when it says so; one of a day it tells the same way.
            429 => Some(said::busy(Refusal { retry_after: refusal.retry_after.or(retry(&body)), ..refusal })),
            503 => Some(said::busy(refusal)),
            _ => sold::refused(refusal.status, &it),
        }
    }

    fn misnumbers_calls(&self) -> bool {
        true
    }
}

fn is_about_key(said: &Said) -> bool {
    said.has(&["api key not valid", "api_key_invalid", "api key expired", "valid api key", "missing api key"])
        || said.has(&["missing or invalid authorization header"])
}

/// The object that a refusal is, out of the list that it comes in.
fn inner(body: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Array(list)) => list.first().map(Value::to_string).unwrap_or_default().into_bytes(),
        Ok(_) | Err(_) => body.to_vec(),
    }
}

/// `"retryDelay": "34s"` among the details.
fn retry(body: &[u8]) -> Option<u64> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let details = value["error"]["details"].as_array()?;
    let delay = details.iter().find_map(|it| it["retryDelay"].as_str())?;
    let seconds = delay.strip_suffix('s')?.parse::<f64>().ok()?;
    Duration::try_from_secs_f64(seconds.ceil()).ok().map(|it| it.as_secs())
}

fn model(entry: &Value) -> Option<Model> {
    const OTHER: [&str; 8] = ["imagen", "veo", "aqa", "tts", "audio", "live", "image", "lyria"];
    let full = entry["id"].as_str()?;
    let name = full.strip_prefix("models/").unwrap_or(full);
    if OTHER.iter().any(|it| name.contains(it)) {
        return None;
    }
    let mut model = Model::named(name);
    model.aliases = vec![full.into()];
    if name.contains("embedding") {
        model.capabilities = [Capability::Embed].into();
    } else if name.starts_with("gemini-") {
        model.capabilities = [Capability::Chat, Capability::Tools, Capability::Vision].into();
    } else if name.starts_with("gemma-") {
        model.capabilities = [Capability::Chat].into();
    }
    Some(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_in_a_list_is_read() {
        let check = |status: u16, body: Value, expected: Option<Cause>| {
            let body = body.to_string();
            let refusal = Refusal { status, retry_after: None, body: body.as_bytes() };
            assert_eq!(Gemini.classify(refusal), expected, "{body}");
        };
        let key = json!({"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
            "status": "INVALID_ARGUMENT"}});
        check(400, json!([key]), Some(Cause::NeedsKey));
        check(400, key, Some(Cause::NeedsKey));
        let quota = json!([{"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "x"}, {"retryDelay": "33.4s"}]}}]);
        check(429, quota, Some(Cause::Busy { retry_after: Some(Duration::from_secs(34)) }));
        let unknown =
            json!([{"error": {"code": 404, "message": "models/x is not found for API version v1main"}}]);
        check(404, unknown, Some(Cause::ModelNotFound));
        check(
            503,
            json!([{"error": {"message": "The model is overloaded."}}]),
            Some(Cause::Busy { retry_after: None }),
        );
        check(400, json!([{"error": {"message": "Please use a valid role"}}]), None);
    }

    #[test]
    fn models_are_called_with_and_without_their_prefix() {
        let model = model(&json!({"id": "models/gemini-2.5-flash", "owned_by": "google"})).unwrap();
        assert!(model.answers_to("gemini-2.5-flash") && model.answers_to("models/gemini-2.5-flash"));
        assert_eq!(super::model(&json!({"id": "models/imagen-4"})), None);
        assert_eq!(Gemini.path(Door::OpenAiChat), "/chat/completions");
    }
}
