//! OpenAI.

use serde_json::Value;

use super::{Answer, Kind, Refusal, Verdict, said, sold, sold::Provider};
use crate::{
    fault::Cause,
    server::{Capability, Model},
};

/// OpenAI's own service, and whatever the configuration calls so.
pub(super) struct OpenAi;

/// Newer models refuse `max_tokens` by name (`unsupported_parameter`); all that chat take the
/// newer one.
static PROVIDER: Provider =
    Provider { newer: true, ..Provider::at("https://api.openai.com", "OPENAI_API_KEY") };

impl Kind for OpenAi {
    fn id(&self) -> &'static str {
        "openai"
    }

    fn name(&self) -> &'static str {
        "OpenAI"
    }

    fn provider(&self) -> Option<&'static Provider> {
        Some(&PROVIDER)
    }

    fn listed(&self, answer: &Answer) -> Verdict {
        sold::listed(self.id(), answer, false, model)
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        sold::refused(refusal.status, &said::Said::of(refusal.body))
    }
}

/// The list says no more than names, and has everything that is sold in it: pictures, voices
/// and searches, which are not asked for here.
fn model(entry: &Value) -> Option<Model> {
    const OTHER: [&str; 13] = [
        "whisper",
        "tts",
        "dall-e",
        "image",
        "sora",
        "realtime",
        "audio",
        "transcribe",
        "moderation",
        "search",
        "deep-research",
        "computer-use",
        "codex",
    ];
    let name = entry["id"].as_str()?;
    if OTHER.iter().any(|it| name.contains(it)) {
        return None;
    }
    let mut model = Model::named(name);
    let begins = |with: &[&str]| with.iter().any(|it| name.starts_with(it));
    // A name may be that of a model that somebody tuned: `ft:gpt-4o-mini:me::1`.
    let base = name.strip_prefix("ft:").unwrap_or(name);
    let chats = ["gpt-", "chatgpt-", "o1", "o3", "o4"].iter().any(|it| base.starts_with(it));
    if name.contains("embedding") {
        model.capabilities = [Capability::Embed].into();
    } else if begins(&["davinci", "babbage"]) || name.contains("-instruct") {
        model.capabilities = [Capability::Complete].into();
    } else if chats {
        model.capabilities = [Capability::Chat, Capability::Tools].into();
        if !base.starts_with("gpt-3.5") && base != "gpt-4" && !base.starts_with("gpt-4-0") {
            model.capabilities.insert(Capability::Vision);
        }
    }
    Some(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_sold_besides_words_is_left_out() {
        let can = |id: &str| model(&json!({"id": id, "owned_by": "system"})).map(|it| it.capabilities);
        for other in
            ["whisper-1", "tts-1-hd", "gpt-image-1", "gpt-4o-realtime-preview", "gpt-4o-search-preview"]
        {
            assert_eq!(can(other), None, "{other}");
        }
        let full = Some([Capability::Chat, Capability::Tools, Capability::Vision].into());
        assert_eq!(can("gpt-5"), full);
        assert_eq!(can("ft:gpt-4o-mini:me::1"), full);
        assert_eq!(can("gpt-3.5-turbo"), Some([Capability::Chat, Capability::Tools].into()));
        assert_eq!(can("text-embedding-3-small"), Some([Capability::Embed].into()));
        assert_eq!(can("gpt-3.5-turbo-instruct"), Some([Capability::Complete].into()));
        assert_eq!(can("mine"), Some([].into()), "nobody knows");
    }
}
