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
        if is_doubtful(stem, size, tagged) {
            return None;
        }
        let begins = |families: &[&str]| families.iter().any(|it| stem.starts_with(it));
        Some(if begins(&INSTRUCT) || is_gemma(stem) {
            Self::Instruct
        } else if begins(&USUAL) || is_one_size(stem) {
            Self::Usual
        } else if !tagged {
            Self::NameSilent
        } else if begins(&INSTRUCT_BY_TAG) {
            Self::Instruct
        } else if begins(&CHAT_BY_TAG) {
            Self::Chat
        } else {
            Self::TagSilent
        })
    }
}

/// Tags that stand for another model than they did, or for one that only looks like the
/// family: Ollama moved `qwen3:4b`, `30b` and `235b` to a later thinking model, has the
/// thinking one of these families where others have the instructed one, and calls models
/// `deepseek-r1` that only learned from it.
fn is_doubtful(stem: &str, size: Option<&str>, tagged: bool) -> bool {
    let moved = stem == "qwen3" && matches!(size, Some("4b" | "30b" | "235b"));
    let split = stem.starts_with("qwen3vl") || stem.starts_with("qwen3next");
    let pupil = stem == "deepseekr1" && size != Some("671b");
    (tagged && (moved || split)) || pupil
}

/// Families that had several versions under one bare name.
pub(super) fn leaves_open_the_version(stem: &str) -> bool {
    matches!(stem, "mistral" | "gemma" | "llama" | "qwen" | "phi" | "granite")
}

/// Of these only an instructed model exists, or a raw one is always called so.
const INSTRUCT: [&str; 2] = ["qwen3coder", "gemma4"];

fn is_gemma(stem: &str) -> bool {
    matches!(stem, "gemma3" | "gemma3n")
}

/// Of these the trained model bears the plain name everywhere, and a raw one is called so.
const USUAL: [&str; 8] =
    ["qwen3", "gptoss", "phi4", "qwq", "deepseekr1", "deepseekv3", "devstral", "magistral"];

/// Of these Ollama gives the instructed model to who does not say, and makers call the raw one so.
const INSTRUCT_BY_TAG: [&str; 11] = [
    "llama3",
    "llama4",
    "qwen2",
    "gemma2",
    "granite3",
    "granite4",
    "smollm",
    "codellama",
    "olmo2",
    "falcon3",
    "phi3",
];

/// Of these Ollama gives the one for conversation.
const CHAT_BY_TAG: [&str; 3] = ["llama2", "qwen1.5", "yi"];

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
