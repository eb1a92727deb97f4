//! What the program finds in its environment: where the bridge is, in the words of
//! each library, and nothing that would lead it past the bridge.

use super::key::Key;

/// Variables that win over the ones we set, in libraries that read both.
pub(super) const REMOVED: [&str; 4] = [
    // Claude Code sends it in place of the key.
    "ANTHROPIC_AUTH_TOKEN",
    // The older name of `OPENAI_BASE_URL`; LangChain and LiteLLM prefer it.
    "OPENAI_API_BASE",
    // LiteLLM's own name for `ANTHROPIC_BASE_URL`.
    "ANTHROPIC_API_BASE",
    // With it the AI SDK sends everything to its maker's gateway.
    "AI_GATEWAY_API_KEY",
];

/// Any of these sends what we bridge to a proxy, unless told otherwise.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
/// Libraries read one or the other.
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The variables to set. `env` is the environment as it is.
pub(super) fn variables(
    port: u16,
    key: &Key,
    env: impl Fn(&str) -> Option<String>,
) -> Vec<(&'static str, String)> {
    let base = format!("http://127.0.0.1:{port}");
    let key = key.as_str();
    let mut variables = vec![
        ("OPENAI_BASE_URL", format!("{base}/v1")),
        ("OPENAI_API_KEY", key.to_owned()),
        ("ANTHROPIC_BASE_URL", base.clone()),
        ("ANTHROPIC_API_KEY", key.to_owned()),
        // Ollama's own programs send no key, but keep a path.
        ("OLLAMA_HOST", format!("{base}/{key}")),
        ("OLLAMA_API_KEY", key.to_owned()),
    ];
    let set = |name: &str| env(name).filter(|it| !it.is_empty());
    if PROXIES.iter().any(|it| set(it).is_some()) {
        for name in EXCEPTIONS {
            let others = set(name).map(|it| format!(",{it}")).unwrap_or_default();
            variables.push((name, format!("127.0.0.1{others}")));
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(env: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let env = |name: &str| env.iter().find(|it| it.0 == name).map(|it| it.1.to_owned());
        variables(4711, &Key::from("sk-x"), env)
    }

    #[test]
    fn each_library_is_told_in_its_own_words() {
        let expected = [
            ("OPENAI_BASE_URL", "http://127.0.0.1:4711/v1"),
            ("OPENAI_API_KEY", "sk-x"),
            ("ANTHROPIC_BASE_URL", "http://127.0.0.1:4711"),
            ("ANTHROPIC_API_KEY", "sk-x"),
            ("OLLAMA_HOST", "http://127.0.0.1:4711/sk-x"),
            ("OLLAMA_API_KEY", "sk-x"),
        ];
        assert_eq!(with(&[]), expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn a_proxy_does_not_get_what_is_for_the_bridge() {
        let set = with(&[("http_proxy", "http://proxy:3128"), ("no_proxy", "corp.example")]);
        let of = |name: &str| set.iter().find(|it| it.0 == name).map(|it| it.1.as_str());
        assert_eq!(of("NO_PROXY"), Some("127.0.0.1"));
        assert_eq!(of("no_proxy"), Some("127.0.0.1,corp.example"));
        assert!(with(&[("http_proxy", "")]).iter().all(|it| it.0 != "NO_PROXY"));
    }
}
