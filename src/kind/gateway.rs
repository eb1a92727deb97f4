//! Gateways: servers that answer here and have others behind them.
//!
//! Where a request to one ends is its configuration's secret, so nothing that it says of itself
//! makes it near. A gateway is known by what no model server writes; one that hides well is
//! taken for what it imitates, and the person can say its zone.

use serde_json::Value;

use super::Answer;

/// Beginnings of names of headers that only gateways write, or pass on from who sells answers.
/// Most of these servers have others behind them, of which nothing is said.
const OF_GATEWAYS: [&str; 9] = [
    "x-olla-",
    "x-portkey-",
    "helicone-",
    "x-helicone-",
    "cf-aig-",
    "x-openrouter-",
    "x-new-api-",
    "x-oneapi-",
    "openai-",
];

/// Whether an answer is one of a gateway: LiteLLM by its page at `/`, any by its headers but
/// those that a server of its kind writes itself.
pub(super) fn says(answer: &Answer, own: &[&str]) -> bool {
    let of_gateways = |name: &str| OF_GATEWAYS.iter().any(|it| name.starts_with(it)) && !own.contains(&name);
    is_litellm(answer) || answer.headers.iter().any(|(name, _)| of_gateways(name))
}

/// Whether an answer is one of LiteLLM, by its page or its headers.
pub(super) fn is_litellm(answer: &Answer) -> bool {
    answer.is_titled("LiteLLM") || answer.headers.iter().any(|(name, _)| name.starts_with("x-litellm-"))
}

/// Whether it is LiteLLM's: this owner with this constant time (1.106.2). The owner alone is also
/// what many a small server writes.
pub(super) fn is_of_litellm(entry: &Value) -> bool {
    entry["owned_by"] == "openai" && entry["created"] == 1_677_610_602
}

/// Whether an entry of the list is one that only a gateway writes.
pub(super) fn lists(entry: &Value) -> bool {
    // OpenRouter and who is made like it; prices are for what is bought.
    let priced = entry["pricing"].is_object() || entry["top_provider"].is_object();
    // Open WebUI: which of its connections has the model.
    let webui = entry["urlIdx"].is_number() || entry["connection_type"].is_string();
    is_of_litellm(entry) || priced || webui || is_of_a_maker(entry)
}

/// Whether the model can only run at its maker's, by owner and name together.
fn is_of_a_maker(entry: &Value) -> bool {
    let name = entry["id"].as_str().unwrap_or_default();
    let owner = entry["owned_by"].as_str().unwrap_or_default();
    // Gateways put the way before the name: `azure/gpt-4o`, `openrouter/anthropic/claude-3`.
    let name = name.rsplit('/').next().unwrap_or(name);
    let maker = ["openai", "system", "anthropic", "google"].iter().any(|it| owner.starts_with(it));
    let open = ["gpt-oss", "gpt-j", "gpt-neo"].iter().any(|it| name.starts_with(it));
    let theirs = ["gpt-", "chatgpt-", "o1", "o3", "o4", "text-embedding-", "claude-", "gemini-"];
    maker && !open && theirs.iter().any(|it| name.starts_with(it))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_passes_requests_on_is_known_by_its_list() {
        let forwards = |entry: Value| lists(&entry);
        assert!(forwards(json!({"id": "gpt-4o", "owned_by": "openai"})));
        assert!(forwards(json!({"id": "o3-mini", "owned_by": "system"})));
        assert!(forwards(json!({"id": "anthropic/claude-sonnet-4", "owned_by": "anthropic"})));
        assert!(forwards(json!({"id": "a", "owned_by": "openai", "created": 1_677_610_602})));
        assert!(forwards(json!({"id": "a", "pricing": {"prompt": "0"}})));
        assert!(forwards(json!({"id": "a", "urlIdx": 0})));
        assert!(!forwards(json!({"id": "gpt-oss-20b", "owned_by": "openai"})));
        assert!(!forwards(json!({"id": "openai/gpt-oss-20b", "owned_by": "openai"})));
        assert!(!forwards(json!({"id": "tiny", "owned_by": "openai"})));
        assert!(!forwards(json!({"id": "gpt-4o", "owned_by": "me"})));
        assert!(!forwards(json!({"id": "a", "owned_by": "llama-swap", "status": {"value": "loaded"}})));
    }

    #[test]
    fn who_passes_requests_on_is_known_by_its_headers() {
        let answer = |name: &str| Answer {
            status: 200,
            headers: vec![(name.to_owned(), "1".to_owned())],
            ..Answer::default()
        };
        for name in ["x-litellm-version", "x-olla-endpoint", "openai-processing-ms", "cf-aig-cache-status"] {
            assert!(says(&answer(name), &[]), "{name}");
        }
        assert!(!says(&answer("x-request-id"), &[]));
        assert!(!says(&answer("openai-processing-ms"), &["openai-processing-ms"]));
    }
}
