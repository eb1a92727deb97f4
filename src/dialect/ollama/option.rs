//! The names under `options`, and what each is to us.
//!
//! Ollama reads them exactly as written, letter case included, ignores a name that
//! it does not know, and answers a wrong type with a 500 (seen with 0.24.0).

/// What a name under `options` stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sort {
    /// It has a place in `Sampling`, or is the context.
    Named,
    /// It steers how tokens are picked, and nobody else has a word for it.
    /// The number is its neutral value, with which it does nothing.
    Own(f64),
    /// It is about memory, threads and batches, or about making room in a full
    /// context, which never happens where nothing is cut: no answer changes by it.
    Machine,
}

/// Whole numbers, numbers, texts and truths, as Ollama 0.24.0 has them; beside them
/// those of older versions that clients still send.
pub(super) fn sort(name: &str) -> Option<Sort> {
    Some(match name {
        "num_predict" | "num_ctx" | "temperature" | "top_p" | "top_k" | "min_p" | "seed" | "stop"
        | "frequency_penalty" | "presence_penalty" | "repeat_penalty" => Sort::Named,
        "mirostat" => Sort::Own(0.0),
        "typical_p" | "tfs_z" => Sort::Own(1.0),
        // The default of every version.
        "repeat_last_n" => Sort::Own(64.0),
        "mirostat_tau" => Sort::Own(5.0),
        "mirostat_eta" => Sort::Own(0.1),
        "num_keep"
        | "num_batch"
        | "num_gpu"
        | "main_gpu"
        | "num_thread"
        | "use_mmap"
        | "use_mlock"
        | "low_vram"
        | "numa"
        | "f16_kv"
        | "logits_all"
        | "vocab_only"
        | "embedding_only"
        | "num_gqa"
        | "rope_frequency_base"
        | "rope_frequency_scale"
        | "penalize_newline" => Sort::Machine,
        _ => return None,
    })
}

/// What is wrong with the type of a value, in JSON, if Ollama would answer it with a 500.
pub(super) fn wrong(name: &str, value: &str) -> Option<&'static str> {
    if value == "null" {
        return None;
    }
    match (name, sort(name)?) {
        ("stop", _) => (!is_list_of_texts(value)).then_some("must be a list of texts"),
        // A text says which in newer versions, a truth in older ones.
        (
            "use_mmap" | "use_mlock" | "low_vram" | "numa" | "f16_kv" | "logits_all" | "vocab_only"
            | "embedding_only" | "penalize_newline",
            _,
        ) => (!matches!(value, "true" | "false")).then_some("must be true or false"),
        _ => (!value.starts_with(|it: char| it == '-' || it.is_ascii_digit())).then_some("must be a number"),
    }
}

fn is_list_of_texts(value: &str) -> bool {
    value.starts_with('[') && serde_json::from_str::<Vec<std::borrow::Cow<'_, str>>>(value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_type_is_seen_before_ollama_calls_it_its_own_fault() {
        assert_eq!(wrong("temperature", "\"warm\""), Some("must be a number"));
        assert_eq!(wrong("temperature", "0.5"), None);
        assert_eq!(wrong("num_predict", "-1"), None);
        assert_eq!(wrong("num_predict", "null"), None);
        assert_eq!(wrong("stop", "\"END\""), Some("must be a list of texts"));
        assert_eq!(wrong("stop", "[\"a\", 5]"), Some("must be a list of texts"));
        assert_eq!(wrong("stop", "[\"a\\n\"]"), None);
        assert_eq!(wrong("use_mmap", "1"), Some("must be true or false"));
        assert_eq!(wrong("unheard_of", "{}"), None, "Ollama passes it over");
    }
}
