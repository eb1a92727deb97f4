//! The variables of the environment that a daemon listens to.

use std::collections::BTreeSet;

use super::Setting;
use crate::kind::KINDS;

/// Those that say how it is set up and where servers are. `LOVABLE_SOCKET` is not one of
/// them: a service has its socket from its manager, and the variable is for those who call.
const OURS: [&str; 16] = [
    "LOVABLE_CONFIG",
    "LOVABLE_STATE_DIR",
    "LOVABLE_LISTEN",
    "LOVABLE_LOG",
    "LOVABLE_TRACKING",
    "DO_NOT_TRACK",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "OLLAMA_ENABLED",
    "OLLAMA_BASE_URL",
    "OLLAMA_HOST",
    "VLLM_ENABLED",
    "VLLM_BASE_URL",
    "VLLM_API_KEY",
    "LMSTUDIO_ENABLED",
    "LMSTUDIO_BASE_URL",
];

/// All variables that a daemon with these settings listens to: those above, the keys of
/// whoever sells answers, and what `key_env` names.
pub fn variables(settings: &[Setting]) -> BTreeSet<String> {
    let sold = KINDS.iter().filter_map(|it| it.provider()).map(|it| it.key_env);
    let named = settings.iter().filter(|it| it.key.ends_with(".key_env")).filter_map(|it| it.value.as_str());
    OURS.into_iter().chain(sold).chain(named).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Origin;

    #[test]
    fn keys_of_sellers_and_keys_that_the_file_names_are_among_them() {
        let key = Setting {
            key: "servers[0].key_env".to_owned(),
            value: json!("MY_KEY"),
            from: Origin::File,
            at: None,
        };
        let all = variables(&[key]);
        for name in ["OLLAMA_HOST", "OPENAI_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY", "MY_KEY"] {
            assert!(all.contains(name), "{name} in {all:?}");
        }
        assert!(!all.contains("LOVABLE_SOCKET"));
    }
}
