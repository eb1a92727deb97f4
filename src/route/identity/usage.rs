//! What makers and servers leave out of a name, and what is meant then.
//!
//! Ollama's `llama3.1:8b` follows instructions; `Llama-3.1-8B` of its maker is the raw
//! model. Such habits cannot be read off a name, so they stand here, family by family;
//! of a family that is not listed, a name with a tag and one without are never the same
//! unless both say what they are trained for.

/// What a model was trained for, as far as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tuning {
    Instruct,
    Chat,
    Base,
    Thinking,
    /// The usual one of a family where names do not say it.
    Usual,
    /// A tag says nothing.
    TagSilent,
    /// A name without a tag says nothing.
    NameSilent,
}

impl Tuning {
    /// What a word of a name says; `in_tag` is whether it stands after the colon.
    pub(super) fn of(word: &str, in_tag: bool) -> Option<Self> {
        Some(match word {
            "instruct" | "it" => Self::Instruct,
            "chat" => Self::Chat,
            "base" | "pt" | "pretrained" => Self::Base,
            // Ollama's word for a raw model; elsewhere it is part of a name (`nomic-embed-text`).
            "text" if in_tag => Self::Base,
            "thinking" => Self::Thinking,
            _ => return None,
        })
    }

    /// What silence means. `None` is doubt: such a name is like no other.
    pub(super) fn unsaid(stem: &str, size: Option<&str>, tagged: bool) -> Option<Self> {
        let begins = |families: &[&str]| families.iter().any(|it| stem.starts_with(it));
        if is_doubtful(stem, size, tagged) {
            None
        } else if INSTRUCT.contains(&stem) {
            Some(Self::Instruct)
        } else if USUAL.contains(&stem) || is_one_size(stem) {
            Some(Self::Usual)
        } else if tagged && begins(&INSTRUCT_BY_TAG) {
            Some(Self::Instruct)
        } else if tagged && stem == "llama2" {
            Some(Self::Chat)
        } else if tagged {
            Some(Self::TagSilent)
        } else if begins(&INSTRUCT_BY_TAG) || begins(&RAW_BY_NAME) {
            None
        } else {
            Some(Self::NameSilent)
        }
    }
}

/// Tags that stand for another model than they did, or for one that only looks like the
/// family: Ollama moved `qwen3:4b`, `30b` and `235b` to a later thinking model, has the
/// thinking one of some families where others have the instructed one, and calls models
/// `deepseek-r1` that only learned from it.
fn is_doubtful(stem: &str, size: Option<&str>, tagged: bool) -> bool {
    let moved = stem == "qwen3" && matches!(size, Some("4b" | "30b" | "235b"));
    let split = stem.starts_with("qwen3vl") || stem.starts_with("qwen3next");
    (tagged && (moved || split)) || stem == "deepseekr1"
}

/// Families that had several versions under one bare name.
pub(super) fn leaves_open_the_version(stem: &str) -> bool {
    matches!(stem, "mistral" | "gemma" | "llama" | "qwen" | "phi" | "granite" | "yi")
}

/// Of these only an instructed model exists, or the raw one is always called so.
const INSTRUCT: [&str; 3] = ["qwen3coder", "qwen3codernext", "gemma3"];

/// Of these the trained model bears the plain name everywhere, and a raw one is called so.
const USUAL: [&str; 6] = ["qwen3", "qwen3embedding", "qwen3reranker", "gptoss", "gptosssafeguard", "qwq"];

/// Of these Ollama gives the instructed model to who does not say, and makers call the raw
/// one by the plain name. What a plain name means elsewhere is anybody's guess.
const INSTRUCT_BY_TAG: [&str; 10] =
    ["llama3", "llama4", "qwen2", "gemma2", "gemma3n", "granite3", "smollm", "codellama", "olmo2", "falcon3"];

/// More of whose makers do, or did for some of them.
const RAW_BY_NAME: [&str; 12] = [
    "llama2",
    "gemma",
    "mistral",
    "mixtral",
    "granite",
    "yi",
    "phi3",
    "qwen1",
    "deepseekcoder",
    "deepseekllm",
    "codegemma",
    "internlm",
];

/// Models that come in one size, so that their names say none.
const ONE_SIZE: [&str; 12] = [
    "phi4",
    "phi4reasoning",
    "phi4reasoningplus",
    "bgem3",
    "bgelargeenv1.5",
    "bgebaseenv1.5",
    "bgesmallenv1.5",
    "nomicembedtextv1.5",
    "nomicembedtextv2moe",
    "mxbaiembedlargev1",
    "allminilml6v2",
    "multilinguale5large",
];

pub(super) fn is_one_size(stem: &str) -> bool {
    ONE_SIZE.contains(&stem)
}

/// Those who make the models that people run, and those who pass them on unchanged but
/// for the packing. Anybody else's model of the same name may be another.
const VENDORS: [&str; 41] = [
    "ai",
    "library",
    "models",
    "koboldcpp",
    "qwen",
    "openai",
    "meta-llama",
    "meta",
    "google",
    "mistralai",
    "microsoft",
    "deepseek-ai",
    "deepseek",
    "ibm-granite",
    "ibm",
    "nvidia",
    "allenai",
    "huggingfacetb",
    "tiiuae",
    "01-ai",
    "thudm",
    "zai-org",
    "nomic-ai",
    "baai",
    "mixedbread-ai",
    "sentence-transformers",
    "intfloat",
    "nousresearch",
    "codellama",
    "unsloth",
    "lmstudio-community",
    "bartowski",
    "mlx-community",
    "ggml-org",
    "thebloke",
    "maziyarpanahi",
    "mradermacher",
    "redhatai",
    "neuralmagic",
    "quantfactory",
    "second-state",
];

/// The vendor as far as it makes a difference.
pub(super) fn vendor(name: &str) -> String {
    if VENDORS.contains(&name) { String::new() } else { name.to_owned() }
}
