//! The lists that pickers ask for, in Ollama's own fields.
//!
//! Clients want `name`, `model`, `modified_at`, `size`, `digest` and `details` with all
//! of its texts in every entry; what no server says is an empty text, as Ollama itself
//! has it for models that it does not hold.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{found::Found, writer::at};
use crate::{dialect::Listed, fault::Failure, server::Capability};

/// What `GET /` says. Clients compare the whole text before they believe that an Ollama is there.
pub const GREETING: &str = "Ollama is running";

/// The version of Ollama's language that is spoken here, the newest one that was tried
/// against the real server. Clients compare it and refuse what is too old for their use (tools,
/// thinking, capabilities in `show`), so lovable's own version would shut them out.
pub const VERSION: &str = "0.24.0";

/// The body of `GET /api/version`.
pub fn version() -> Bytes {
    json!({"version": VERSION}).to_string().into()
}

/// The body of `GET /api/tags`.
pub fn tags(models: &[Listed<'_>]) -> Bytes {
    let models: Vec<Value> = models.iter().map(entry).collect();
    json!({"models": models}).to_string().into()
}

/// The body of `GET /api/ps`: those of the models that are loaded.
pub fn ps(models: &[Listed<'_>]) -> Bytes {
    let loaded = models.iter().filter(|it| it.loaded == Some(true)).map(|model| {
        let memory = model.memory_bytes.or(model.size_bytes).unwrap_or(0);
        let mut entry = json!({
            "name": model.id,
            "model": model.id,
            "size": memory,
            "digest": digest(model.id),
            "details": details(model),
            // Where a server never unloads, it is a date far ahead, as Ollama has it.
            "expires_at": model.expires.unwrap_or("2318-01-01T00:00:00Z"),
            // How much of it a GPU holds, nobody says; clients need the field.
            "size_vram": model.memory_bytes.unwrap_or(0),
        });
        if let Some(context) = model.context_length {
            entry["context_length"] = context.into();
        }
        entry
    });
    json!({"models": loaded.collect::<Vec<_>>()}).to_string().into()
}

/// The model that `POST /api/show` asks for, in `model` or `name`.
pub fn named(body: &[u8]) -> Result<String, Failure> {
    Found::of(body)?.model()
}

/// The body of `POST /api/show`.
pub fn show(model: &Listed<'_>) -> Bytes {
    // Clients look for `<architecture>.context_length`, so there must be one.
    let architecture = model.family.filter(|it| !it.is_empty()).unwrap_or("unknown");
    let mut info = Map::new();
    info.insert("general.architecture".to_owned(), architecture.into());
    info.insert("general.basename".to_owned(), model.id.into());
    if let Some(context) = model.context_length {
        info.insert(format!("{architecture}.context_length"), context.into());
    }
    json!({
        "modelfile": "",
        // Continue sends a `num_ctx` from here back, and Ollama would load the model anew for it.
        "parameters": "",
        "template": template(model.capabilities),
        "details": details(model),
        "model_info": info,
        "capabilities": words(model.capabilities),
        "modified_at": at(model.created.saturating_mul(1000)),
    })
    .to_string()
    .into()
}

fn entry(model: &Listed<'_>) -> Value {
    let mut details = details(model);
    if let Some(context) = model.context_length {
        details["context_length"] = context.into();
    }
    json!({
        "name": model.id,
        "model": model.id,
        "modified_at": at(model.created.saturating_mul(1000)),
        "size": model.size_bytes.unwrap_or(0),
        "digest": digest(model.id),
        "details": details,
        "capabilities": words(model.capabilities),
    })
}

fn details(model: &Listed<'_>) -> Value {
    let family = model.family.unwrap_or_default();
    let families: Vec<&str> = model.family.into_iter().collect();
    json!({
        "parent_model": "",
        "format": "",
        "family": family,
        "families": families,
        "parameter_size": model.parameters.unwrap_or_default(),
        "quantization_level": model.quantization.unwrap_or_default(),
    })
}

/// Ollama's words for what a model can do. Of one whose server does not say they are those of
/// any model that talks: clients take a model without words for one that can do nothing.
fn words(capabilities: &[Capability]) -> Vec<&'static str> {
    if capabilities.is_empty() {
        return vec!["completion"];
    }
    let mut words: Vec<&str> = capabilities
        .iter()
        .map(|it| match it {
            Capability::Chat | Capability::Complete => "completion",
            Capability::Fim => "insert",
            Capability::Embed => "embedding",
            Capability::Tools => "tools",
            Capability::Vision => "vision",
            Capability::Thinking => "thinking",
        })
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// A template that says what may be given, and that it is not the model's own: the server
/// lays that around a prompt. Clients from before `capabilities` look for `.Suffix` and `.Tools`.
fn template(capabilities: &[Capability]) -> String {
    let mut text = "{{- /* the model's own template is the server's business */ -}}{{ .System }}".to_owned();
    if capabilities.contains(&Capability::Tools) {
        text.push_str("{{ .Tools }}");
    }
    text.push_str("{{ .Prompt }}");
    if capabilities.contains(&Capability::Fim) {
        text.push_str("{{ .Suffix }}");
    }
    text
}

/// Sixty-four hexadecimal digits that are always the same for a name. Clients tell models
/// apart by them; the real digest of a file would promise what is not known here.
fn digest(name: &str) -> String {
    (0_u64..4).map(|part| format!("{:016x}", fnv(part, name))).collect()
}

/// FNV-1a, begun differently for each part.
fn fnv(part: u64, name: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    name.bytes().fold(start, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QWEN: &[Capability] =
        &[Capability::Chat, Capability::Complete, Capability::Tools, Capability::Thinking];

    fn qwen() -> Listed<'static> {
        Listed {
            id: "qwen3:8b",
            created: 1_785_578_400,
            owned_by: "ollama",
            family: Some("qwen3"),
            parameters: Some("8.2B"),
            quantization: Some("Q4_K_M"),
            context_length: Some(40_960),
            capabilities: QWEN,
            loaded: Some(true),
            size_bytes: Some(5_225_388_164),
            memory_bytes: Some(6_000_000_000),
            expires: Some("2026-08-01T10:05:00Z"),
            servers: vec!["ollama"],
        }
    }

    fn bare() -> Listed<'static> {
        Listed { id: "a/b", created: 5, owned_by: "vllm", ..Listed::default() }
    }

    fn pretty(body: &Bytes) -> String {
        serde_json::to_string_pretty(&serde_json::from_slice::<Value>(body).unwrap()).unwrap()
    }

    #[test]
    fn lists_have_ollamas_shape() {
        let models = [qwen(), bare()];
        let all = [tags(&models), ps(&models), show(&models[0]), show(&models[1]), version()];
        insta::assert_snapshot!("lists", all.iter().map(pretty).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn an_empty_list_is_a_list() {
        assert_eq!(tags(&[]), "{\"models\":[]}");
        assert_eq!(ps(&[bare()]), "{\"models\":[]}");
    }

    #[test]
    fn every_entry_has_what_clients_need() {
        for body in [tags(&[bare()]), ps(&[Listed { loaded: Some(true), ..bare() }])] {
            let list: Value = serde_json::from_slice(&body).unwrap();
            let entry = &list["models"][0];
            assert!(["name", "model", "digest"].iter().all(|it| entry[it].is_string()), "{entry}");
            assert!(entry["size"].is_u64());
            let texts = ["format", "family", "parameter_size", "quantization_level"];
            assert!(
                texts.iter().all(|it| entry["details"][it].is_string())
                    && entry["details"]["families"].is_array()
            );
        }
    }

    #[test]
    fn a_digest_is_of_the_name_and_of_nothing_else() {
        let one = digest("qwen3:8b");
        assert_eq!((one.len(), &one), (64, &digest("qwen3:8b")));
        assert!(one.bytes().all(|it| it.is_ascii_hexdigit()) && one != digest("qwen3:4b"));
        assert_ne!(one[..16], one[16..32]);
    }

    #[test]
    fn a_model_that_fills_the_middle_says_so_to_old_and_new_clients() {
        let model = Listed { capabilities: &[Capability::Complete, Capability::Fim], ..bare() };
        let shown: Value = serde_json::from_slice(&show(&model)).unwrap();
        assert!(shown["template"].as_str().unwrap().contains(".Suffix"), "Continue looks for it");
        assert_eq!(shown["capabilities"], json!(["completion", "insert"]));
        let plain: Value = serde_json::from_slice(&show(&bare())).unwrap();
        assert!(!plain["template"].as_str().unwrap().contains(".Suffix"));
    }

    #[test]
    fn show_asks_by_either_name() {
        assert_eq!(named(b"{\"model\":\"a\"}").unwrap(), "a");
        assert_eq!(named(b"{\"name\":\"b\",\"verbose\":true}").unwrap(), "b");
        assert!(named(b"{}").unwrap_err().message().starts_with("`model` is missing"));
    }
}
