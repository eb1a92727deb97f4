//! The table: names as real servers give them, and which of them are one model.

use proptest::prelude::*;

use super::*;

/// Each line is one model; no two lines are.
const MODELS: [&[&str]; 41] = [
    // Ollama, vLLM, LM Studio old and new, llama.cpp, Docker, KoboldCpp, Hugging Face by Ollama, MLX.
    &[
        "qwen3:8b",
        "qwen3:8b-q4_K_M",
        "qwen3:8b-fp16",
        "Qwen/Qwen3-8B",
        "Qwen/Qwen3-8B-FP8",
        "Qwen/Qwen3-8B-AWQ",
        "Qwen/Qwen3-8B-GGUF",
        "qwen3-8b",
        "qwen3-8b@q4_k_m",
        "qwen/qwen3-8b",
        "qwen/qwen3-8b@8bit",
        "Qwen3-8B-Q4_K_M.gguf",
        "qwen3-8b-q4_k_m.gguf",
        "Qwen3-8B.Q8_0.gguf",
        "Qwen3-8B-UD-Q4_K_XL.gguf",
        "Qwen3-8B-IQ4_XS",
        "Qwen3-8B-BF16-00001-of-00002.gguf",
        "/models/qwen3-8b",
        "./Qwen3-8B",
        "ai/qwen3:8B-Q4_K_M",
        "koboldcpp/Qwen3-8B-Q4_K_M",
        "hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M",
        "unsloth/Qwen3-8B-GGUF/Qwen3-8B-Q5_K_S.gguf",
        "mlx-community/Qwen3-8B-4bit",
        "unsloth/Qwen3-8B-bnb-4bit",
        "RedHatAI/Qwen3-8B-quantized.w4a16",
        "Qwen3-8B-GGUF",
        "unsloth/Qwen3-8B-GGUF:Q4_K_M",
        "docker.io/ai/qwen3:8B-Q4_K_M",
        "registry.ollama.ai/library/qwen3:8b",
    ],
    // A second instance in LM Studio says nothing that a name has to know; in doubt it is another.
    &["qwen/qwen3-8b:2"],
    &["qwen3:14b", "Qwen/Qwen3-14B", "qwen3-14b@q4_k_m"],
    &["qwen3:0.6b", "Qwen/Qwen3-0.6B", "Qwen3-0.6B-Q8_0.gguf"],
    &["Qwen/Qwen3-8B-Base", "qwen3-8b-base"],
    &["Qwen3-8B-128K-GGUF", "unsloth/Qwen3-8B-128K-GGUF"],
    &["Qwen3-8B-abliterated", "qwen3-8b-abliterated-q4_k_m"],
    &["someone/Qwen3-8B", "someone/qwen3:8b"],
    &["Qwen/Qwen3-4B", "qwen3-4b"],
    &["qwen3:4b-instruct-2507-q4_K_M", "Qwen/Qwen3-4B-Instruct-2507", "qwen3-4b-instruct-2507"],
    &["qwen3:4b-thinking-2507-q4_K_M", "Qwen/Qwen3-4B-Thinking-2507", "qwen/qwen3-4b-thinking-2507"],
    &["Qwen/Qwen3-30B-A3B", "qwen3-30b-a3b", "qwen/qwen3-30b-a3b"],
    &["Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3:30b-a3b-instruct-2507-q8_0"],
    &["qwen3-coder:30b", "Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen/qwen3-coder-30b"],
    &["Qwen/Qwen3-VL-8B-Instruct", "qwen3-vl:8b-instruct"],
    &["Qwen/Qwen3-VL-8B-Thinking", "qwen3-vl:8b-thinking-q4_K_M"],
    &["Qwen/Qwen3-Embedding-0.6B", "qwen3-embedding:0.6b", "text-embedding-qwen3-embedding-0.6b"],
    &["qwen2.5:7b", "qwen2.5:7b-instruct-q4_K_M", "Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b-instruct"],
    &["llama3.2-vision:11b", "meta-llama/Llama-3.2-11B-Vision-Instruct"],
    &["Qwen/Qwen2.5-7B-Instruct-1M", "qwen2.5-7b-instruct-1m"],
    &["qwen2.5-coder:7b", "Qwen/Qwen2.5-Coder-7B-Instruct", "qwen2.5-coder-7b-instruct-q5_k_m.gguf"],
    &["qwen2.5-coder:7b-base", "qwen2.5-coder-7b-base"],
    &["qwen2.5vl:7b", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5-vl-7b-instruct"],
    &[
        "llama3.1:8b",
        "llama3.1:8b-instruct-q4_K_M",
        "meta-llama/Llama-3.1-8B-Instruct",
        "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf",
        "meta-llama-3.1-8b-instruct",
        "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4",
    ],
    &["gemma2:9b", "google/gemma-2-9b-it", "gemma-2-9b-it-Q4_K_M.gguf"],
    &["llama3.1:8b-text-q4_K_M", "llama-3.1-8b-base"],
    &["llama3.1:70b", "meta-llama/Llama-3.1-70B-Instruct", "nvidia/Llama-3.1-70B-Instruct-FP8"],
    &["llama3:8b", "meta-llama/Meta-Llama-3-8B-Instruct"],
    &["llama3.2:3b", "meta-llama/Llama-3.2-3B-Instruct", "ai/llama3.2:3B-Q4_K_M"],
    &["gemma3:4b", "google/gemma-3-4b-it", "google/gemma-3-4b", "gemma-3-4b-it-Q4_K_M.gguf"],
    &["google/gemma-3-4b-pt", "gemma3:4b-pt"],
    &["gemma3n:e4b", "google/gemma-3n-E4B-it"],
    &["gpt-oss:20b", "openai/gpt-oss-20b", "gpt-oss-20b-mxfp4.gguf", "gpt-oss-20b-MXFP4"],
    &["gpt-oss:120b", "openai/gpt-oss-120b", "gpt-oss-120b"],
    &["phi4:14b", "microsoft/phi-4", "phi-4-Q4_K_M.gguf", "phi4:latest"],
    &["mixtral:8x7b-instruct-v0.1-q4_K_M", "mistralai/Mixtral-8x7B-Instruct-v0.1"],
    &["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek-r1-distill-qwen-7b"],
    &["deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "deepseek/deepseek-r1-0528-qwen3-8b"],
    &["nomic-embed-text-v1.5", "nomic-ai/nomic-embed-text-v1.5", "text-embedding-nomic-embed-text-v1.5"],
    &["BAAI/bge-m3", "bge-m3", "bge-m3:latest"],
    &["codellama:7b-instruct", "codellama/CodeLlama-7b-Instruct-hf"],
];

/// Names that leave open which model they are: like no other, and some not even like themselves.
const OPEN: [&str; 35] = [
    "qwen3:4b",
    "qwen3:30b",
    "qwen3:latest",
    "qwen3-vl:8b",
    "deepseek-r1:8b",
    "deepseek-r1:7b-qwen-distill-q4_K_M",
    "gpt-oss:120b-cloud",
    "nomic-embed-text:latest",
    "nomic-embed-text",
    "llama3",
    "llama-3",
    "default",
    "model",
    "gpt-4",
    "llama-3.1-8b-draft-1b",
    "mistral:7b",
    "mistral-7b-instruct",
    "mistral-7b-v0.1",
    "Qwen/Qwen2.5-7B",
    "qwen2.5-7b",
    "meta-llama/Llama-3.1-8B",
    "llama-3.1-8b",
    "google/gemma-3n-E4B",
    "google/gemma-3n-e4b",
    "google/gemma-2-9b",
    "deepseek-r1:671b",
    "deepseek-ai/DeepSeek-R1",
    "mixtral:8x7b",
    "mistralai/Mixtral-8x7B-v0.1",
    "gemma:7b",
    "google/gemma-7b",
    "starcoder2:7b",
    "bigcode/starcoder2-7b",
    "tiny-a",
    "tiny-a:latest",
];

fn same(one: &str, other: &str) -> bool {
    Known::named(one).is(&Known::named(other))
}

#[test]
fn one_model_by_all_its_names() {
    let mut wrong = Vec::new();
    for names in MODELS {
        for (at, one) in names.iter().enumerate() {
            // Somebody who is not known for passing on unchanged what others made.
            let unknown = |it: &str| it.starts_with("hugging-quants/");
            for other in &names[at + 1..] {
                let expected = !unknown(one) && !unknown(other);
                if same(one, other) != expected {
                    wrong.push(format!("{one} = {other}: {:?} {:?}", Known::named(one), Known::named(other)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn two_models_are_never_one() {
    let all: Vec<(usize, &str)> =
        MODELS.iter().enumerate().flat_map(|(at, names)| names.iter().map(move |it| (at, *it))).collect();
    let mut wrong = Vec::new();
    for (line, one) in &all {
        let others = all.iter().filter(|it| it.0 != *line).map(|it| it.1).chain(OPEN);
        wrong.extend(others.filter(|it| same(one, it)).map(|it| format!("{one} = {it}")));
    }
    for (at, one) in OPEN.iter().enumerate() {
        let others = OPEN[at + 1..].iter().filter(|it| same(one, it));
        wrong.extend(others.map(|it| format!("{one} = {it}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn told(name: &str, family: &str, parameters: &str) -> Known {
    let mut model = Model::named(name);
    model.family = (!family.is_empty()).then(|| family.to_owned());
    model.parameters = (!parameters.is_empty()).then(|| parameters.to_owned());
    Known::of(&model)
}

#[test]
fn what_servers_tell_fills_in_a_size_that_a_name_leaves_out() {
    for (one, other, expected) in [
        (("qwen3:latest", "qwen3", "8.2B"), ("Qwen/Qwen3-8B", "", ""), true),
        (("qwen3:latest", "qwen3", "8.2B"), ("qwen/qwen3-8b", "qwen3", "8B"), true),
        (("qwen3:latest", "qwen3", "8.2B"), ("Qwen/Qwen3-14B", "", ""), false),
        (("llama3.2:latest", "llama", "3.2B"), ("Llama-3.2-3B-Instruct-Q4_K_M.gguf", "", "3.21B"), true),
        (("llama3.2:latest", "llama", "3.2B"), ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "", "1.24B"), false),
        (("llama3.2:latest", "llama", "3.2B"), ("llama3.2", "", ""), false),
        (("qwen2.5:latest", "qwen2", "7.6B"), ("Qwen/Qwen2.5-7B-Instruct", "", ""), true),
        (("smollm2:latest", "llama", "1.7B"), ("SmolLM2-1.7B-Instruct", "", ""), true),
        (("docker.io/ai/qwen3:latest", "qwen3", "8.19 B"), ("qwen3:8b", "qwen3", "8.2B"), true),
        (("docker.io/ai/qwen3:latest", "qwen3", "8.19 B"), ("Qwen3-8B-GGUF", "", ""), true),
        (("qwen3:latest", "qwen3", "32.8B"), ("Qwen/Qwen3-30B-A3B", "", ""), false),
    ] {
        let of = |it: (&str, &str, &str)| told(it.0, it.1, it.2);
        assert_eq!(of(one).is(&of(other)), expected, "{one:?} {other:?}");
        assert_eq!(of(other).is(&of(one)), expected, "{other:?} {one:?}");
    }
}

#[test]
fn what_servers_tell_contradicts_a_name() {
    let honest = told("qwen3:8b", "qwen3", "8.2B");
    assert!(honest.is(&told("Qwen3-8B-Q4_K_M.gguf", "", "8.19B")));
    assert!(!honest.is(&told("Qwen3-8B-Q4_K_M.gguf", "", "14.8B")), "it lies about its size");
    assert!(!honest.is(&told("qwen3-8b", "qwen2", "7.6B")), "another family");
    assert!(told("gpt-oss:20b", "gptoss", "20.9B").is(&told("openai/gpt-oss-20b", "gpt-oss", "20B")));
    assert!(told("gemma3:4b", "gemma3", "4.3B").is(&told("google/gemma-3-4b", "gemma3_text", "4B")));
}

#[test]
fn an_alias_of_a_server_is_a_name_of_the_model() {
    let mut model = Model::named("main");
    model.aliases.push("Qwen3-8B".into());
    assert!(Known::of(&model).is(&Known::named("qwen3:8b")));
}

#[test]
fn the_nearest_is_of_the_family_and_then_of_the_size() {
    let asked = Known::named("qwen3:8b");
    let mut names = ["llama3.1:8b", "qwen2.5:32b", "qwen2.5:7b", "x", "granite3.3:2b", "llama3.1:70b"];
    names.sort_by_key(|it| asked.distance(&Known::named(it)));
    assert_eq!(names, ["qwen2.5:7b", "qwen2.5:32b", "llama3.1:8b", "granite3.3:2b", "llama3.1:70b", "x"]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_can_be_asked_for(one in "\\PC{0,40}", two in "[a-z0-9:@/._-]{0,40}", fact in "\\PC{0,8}") {
        let (a, b) = (told(&one, "", &fact), told(&two, "", ""));
        prop_assert_eq!(a.is(&b), b.is(&a));
        a.distance(&b);
    }
}
