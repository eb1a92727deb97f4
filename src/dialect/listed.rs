//! A model as it is listed, in whichever dialect.

use crate::server::Capability;

/// What pickers want to know of a model. What no server says is `None`.
#[derive(Clone, Debug, Default)]
pub struct Listed<'a> {
    /// The name to ask for.
    pub id: &'a str,
    /// When it became known, seconds since 1970.
    pub created: u64,
    /// Who serves it: the kind of its first server.
    pub owned_by: &'a str,
    /// Architecture or family: `qwen3`.
    pub family: Option<&'a str>,
    /// Parameter count as people write it: `8.2B`.
    pub parameters: Option<&'a str>,
    /// Quantisation: `Q4_K_M`.
    pub quantization: Option<&'a str>,
    /// The longest context that a request can have, in tokens.
    pub context_length: Option<u64>,
    /// What it can do.
    pub capabilities: &'a [Capability],
    /// Whether some server has it in memory.
    pub loaded: Option<bool>,
    /// Size of its file, in bytes.
    pub size_bytes: Option<u64>,
    /// Memory that it takes now, in bytes.
    pub memory_bytes: Option<u64>,
    /// When it will be unloaded, RFC 3339.
    pub expires: Option<&'a str>,
    /// The ids of the servers that have it.
    pub servers: Vec<&'a str>,
}

impl Listed<'_> {
    /// Its name for people: `qwen3:8b-q4_K_M` is `Qwen3 8B Q4_K_M`.
    pub fn display_name(&self) -> String {
        let id = self.id;
        let name = id.rsplit('/').next().unwrap_or(id);
        let name = name.strip_suffix(":latest").unwrap_or(name);
        let name = name.strip_suffix(".gguf").unwrap_or(name);
        let words = name.split([':', '-', ' ']).filter(|it| !it.is_empty()).map(word);
        let shown = words.collect::<Vec<_>>().join(" ");
        if shown.is_empty() { id.to_owned() } else { shown }
    }
}

fn word(word: &str) -> String {
    let bytes = word.as_bytes();
    // A size (`8b`, `30b`, `1.5b`) or a quantisation (`q4_K_M`, `fp16`).
    let is_size = bytes[0].is_ascii_digit() && matches!(bytes.last(), Some(b'b' | b'm' | b'k'));
    let is_quantisation =
        word.starts_with("fp") || matches!(bytes, [b'q', digit, ..] if digit.is_ascii_digit());
    if is_size || is_quantisation {
        return word.to_ascii_uppercase();
    }
    let mut letters = word.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_for_people() {
        let check = |id: &str, expected: &str| {
            assert_eq!(Listed { id, ..Listed::default() }.display_name(), expected, "for {id}");
        };
        check("qwen3:8b", "Qwen3 8B");
        check("qwen3:8b-q4_K_M", "Qwen3 8B Q4_K_M");
        check("llama3.2:latest", "Llama3.2");
        check("openai/gpt-oss-20b", "Gpt Oss 20B");
        check("Qwen2.5-Coder-1.5b-Instruct.gguf", "Qwen2.5 Coder 1.5B Instruct");
        check("éa", "Éa");
        check(":", ":");
    }
}
