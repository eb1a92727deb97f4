//! How each shape lists its models, and what else it says of them.

use serde_json::{Value, json};

use super::{
    script::{Offer, Script},
    shape::{Busy, Shape},
};

impl Shape {
    pub(super) fn tag(self, offer: &Offer) -> Value {
        let name = self.name(offer);
        json!({
            "name": name, "model": name, "modified_at": "2026-08-01T10:00:00Z", "size": 5_225_388_164_u64,
            "digest": "500a1f067a9f782620b40bee6f7b0c89e17ae61f686b92c24933e4ca4b2b8b41",
            "details": details(offer),
        })
    }

    pub(super) fn list(self, script: &Script) -> Value {
        let data: Vec<_> = script.models.iter().map(|offer| self.listed(offer)).collect();
        match self {
            // Ollama says null where it has none.
            Self::Ollama if data.is_empty() => json!({"object": "list", "data": null}),
            Self::LlamaCpp => {
                let models: Vec<_> = script
                    .models
                    .iter()
                    .map(|offer| {
                        json!({
                            "name": offer.name, "model": offer.name, "type": "model", "capabilities": ["completion"],
                            "details": {"format": "gguf", "family": "", "parameter_size": "", "quantization_level": ""},
                        })
                    })
                    .collect();
                json!({"models": models, "object": "list", "data": data})
            }
            Self::Ollama | Self::Vllm | Self::LmStudio | Self::OpenAi => {
                json!({"object": "list", "data": data})
            }
        }
    }

    pub(super) fn listed(self, offer: &Offer) -> Value {
        let mut model = json!({"id": self.name(offer), "object": "model", "created": 1_766_000_000});
        match self {
            Self::Ollama => model["owned_by"] = "library".into(),
            Self::Vllm => {
                model["owned_by"] = "vllm".into();
                model["root"] = offer.name.as_str().into();
                model["parent"] = Value::Null;
                model["max_model_len"] = offer.context.into();
            }
            Self::LmStudio => model["owned_by"] = "organization_owner".into(),
            Self::LlamaCpp => {
                model["owned_by"] = "llamacpp".into();
                model["aliases"] = json!([offer.name]);
                model["meta"] = json!({
                    "n_ctx": offer.context, "n_ctx_train": offer.context, "n_params": parameters(offer),
                    "size": 5_022_000_000_u64, "ftype": offer.quantization,
                });
            }
            Self::OpenAi => model["owned_by"] = "somebody".into(),
        }
        model
    }
}

/// `8.2B` as a number.
fn parameters(offer: &Offer) -> u64 {
    let billions: f64 = offer.parameters.trim_end_matches('B').parse().unwrap_or(1.0);
    (billions * 1e9) as u64
}

fn details(offer: &Offer) -> Value {
    json!({
        "parent_model": "", "format": "gguf", "family": offer.family, "families": [offer.family],
        "parameter_size": offer.parameters, "quantization_level": offer.quantization,
    })
}

pub(super) fn show(offer: &Offer) -> Value {
    let able =
        [(offer.tools, "tools"), (offer.fills, "insert"), (offer.sees, "vision"), (offer.thinks, "thinking")];
    let mut capabilities = vec![if offer.embeds { "embedding" } else { "completion" }];
    if !offer.embeds {
        capabilities.extend(able.iter().filter(|(can, _)| *can).map(|(_, word)| word));
    }
    let family = &offer.family;
    json!({
        "details": details(offer),
        "capabilities": capabilities,
        "model_info": {"general.architecture": family, (format!("{family}.context_length")): offer.context},
    })
}

pub(super) fn lm_studio_v0(script: &Script) -> Value {
    let data: Vec<_> = script
        .models
        .iter()
        .map(|offer| {
            let mut model = json!({
                "id": offer.name, "object": "model", "type": if offer.embeds { "embeddings" } else if offer.sees { "vlm" } else { "llm" },
                "publisher": "simulated", "arch": offer.family, "compatibility_type": "gguf",
                "capabilities": if offer.tools { vec!["tool_use"] } else { Vec::new() },
                "quantization": offer.quantization, "state": if offer.loaded { "loaded" } else { "not-loaded" },
                "max_context_length": offer.context,
            });
            if offer.loaded {
                model["loaded_context_length"] = offer.context.into();
            }
            model
        })
        .collect();
    json!({"object": "list", "data": data})
}

pub(super) fn lm_studio_v1(script: &Script) -> Value {
    let models: Vec<_> = script
        .models
        .iter()
        .map(|offer| {
            let mut capabilities = json!({"vision": offer.sees, "trained_for_tool_use": offer.tools});
            if offer.thinks {
                capabilities["reasoning"] = json!({"allowed_options": ["off", "on"], "default": "off"});
            }
            let instance = json!({"id": offer.name, "config": {"context_length": offer.context, "parallel": 4}});
            json!({
                "type": if offer.embeds { "embedding" } else { "llm" }, "publisher": "simulated", "key": offer.name,
                "display_name": offer.name, "architecture": offer.family,
                "quantization": {"name": offer.quantization, "bits_per_weight": 4},
                "size_bytes": 5_027_783_488_u64, "params_string": offer.parameters,
                "max_context_length": offer.context, "format": "gguf",
                "loaded_instances": if offer.loaded { vec![instance] } else { Vec::new() },
                "capabilities": capabilities,
            })
        })
        .collect();
    json!({"models": models})
}

pub(super) fn llama_props(script: &Script) -> Value {
    let offer = script.models.first();
    json!({
        "default_generation_settings": {"n_ctx": offer.map(|it| it.context)},
        "total_slots": script.slots.max(1),
        "model_alias": offer.map(|it| it.name.as_str()),
        "model_path": offer.map(|it| format!("{}.gguf", it.name)),
        "modalities": {"vision": offer.is_some_and(|it| it.sees), "audio": false},
        "build_info": "b0-simulated",
        "is_sleeping": false,
    })
}

pub(super) fn llama_slots(script: &Script, busy: Busy) -> Value {
    let slots = script.slots.max(1);
    let context = script.models.first().map(|it| it.context);
    let slot = |id: u32| {
        json!({
            "id": id, "n_ctx": context, "is_processing": id < busy.requests,
            "n_prompt_tokens_processed": busy.progress, "next_token": [{"n_decoded": busy.progress}],
        })
    };
    (0..slots).map(slot).collect()
}

/// Those of its gauges and counters that tell what it does.
pub(super) fn vllm_metrics(script: &Script, busy: Busy) -> String {
    let model = script.models.first().map_or("", |it| it.name.as_str());
    let one = |name: &str, sort: &str, value: u64| {
        format!("# TYPE vllm:{name} {sort}\nvllm:{name}{{engine=\"0\",model_name=\"{model}\"}} {value}.0\n")
    };
    one("num_requests_running", "gauge", busy.requests.into())
        + &one("num_requests_waiting", "gauge", 0)
        + &one("generation_tokens_total", "counter", busy.progress)
}
