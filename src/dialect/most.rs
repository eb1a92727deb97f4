//! The most tokens that a request can take, for whoever has to pay for it.
//!
//! A token has at least one byte of what it stands for, and JSON never has fewer bytes than the
//! text in it, so the size of the body is more than its text can need. What is more than it
//! looks is counted at what it can be at the most (an image), and what has a price of its own
//! or is kept elsewhere (searches, files, other grades of service) cannot be told: such a
//! request is refused by the name of the field.

use memchr::memmem;
use serde_json::{Map, Value};

use super::{Door, Lack};
use crate::generate::Most;

/// What a template puts around a conversation; each turn has more bytes of JSON around it.
const AROUND: u64 = 256;

/// What a provider says to its model of tools, beside what the request does.
const TOOLS: u64 = 1024;

/// More than any of them counts for one image.
const IMAGE: u64 = 16_384;

const CHAT: [&str; 31] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "n",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "verbosity",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "metadata",
    "store",
    "reasoning_format",
];
const COMPLETE: [&str; 18] = [
    "model",
    "prompt",
    "suffix",
    "stream",
    "stream_options",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "n",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "user",
];
const EMBED: [&str; 5] = ["model", "input", "dimensions", "encoding_format", "user"];
const MESSAGES: [&str; 16] = [
    "model",
    "messages",
    "system",
    "stream",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "metadata",
    "cache_control",
    "context_management",
];

/// The most that a body can take at this door, or by what name that cannot be told.
pub fn most(door: Door, body: &[u8]) -> Result<Most, Lack> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
        return Err(Lack("what it costs cannot be told: it is no JSON object".to_owned()));
    };
    let known: &[&str] = match door {
        Door::OpenAiChat => &CHAT,
        Door::OpenAiComplete => &COMPLETE,
        Door::OpenAiEmbed => &EMBED,
        Door::Messages => &MESSAGES,
        Door::OllamaChat | Door::OllamaGenerate | Door::OllamaEmbed | Door::OllamaEmbeddings => &[],
        Door::Responses => return Err(Lack("what it costs cannot be told at this door".to_owned())),
    };
    // An Ollama has no field that costs anything by itself.
    let unknown = |(name, value): &(&String, &Value)| {
        !known.is_empty() && !value.is_null() && !known.contains(&name.as_str())
    };
    if let Some((name, _)) = fields.iter().find(unknown) {
        return Err(untold(&format!("`{name}`")));
    }
    let mut images = 0;
    for name in ["messages", "system"] {
        let list = fields.get(name).unwrap_or(&Value::Null);
        each(list, &mut |it| content(it, &mut images))?;
    }
    let tools = fields.get("tools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for tool in tools {
        // Searches and the like are done by the provider, and are paid for one by one.
        match tool["type"].as_str() {
            None | Some("function" | "custom") => {}
            Some(other) => return Err(untold(&format!("a tool of type `{other}`"))),
        }
    }
    let pictures = memmem::find_iter(body, b"\"images\"").count() as u64;
    let around = AROUND + if tools.is_empty() { 0 } else { TOOLS };
    Ok(Most {
        input: body.len() as u64 + around + (images + pictures) * IMAGE,
        output: answer(door, &fields)?,
        writes_cache: memmem::find(body, b"\"cache_control\"").is_some(),
    })
}

/// The tokens of all answers together.
fn answer(door: Door, fields: &Map<String, Value>) -> Result<u64, Lack> {
    let limit = match door {
        Door::OpenAiEmbed | Door::OllamaEmbed | Door::OllamaEmbeddings => return Ok(0),
        Door::OllamaChat | Door::OllamaGenerate => {
            fields.get("options").and_then(|it| it["num_predict"].as_u64())
        }
        _ => ["max_tokens", "max_completion_tokens"].iter().filter_map(|it| fields.get(*it)?.as_u64()).max(),
    };
    let limit =
        limit.ok_or_else(|| Lack("it has no limit of tokens, so what it costs cannot be told".to_owned()))?;
    let choices = fields.get("n").and_then(Value::as_u64).unwrap_or(1).max(1);
    Ok(limit.saturating_mul(choices))
}

/// Counts the images of a message or a part of one, and refuses what cannot be counted.
fn content(it: &Value, images: &mut u64) -> Result<(), Lack> {
    match it["type"].as_str() {
        // A message, or a part that says nothing of its sort.
        None => {}
        Some("image_url" | "image") => *images += 1,
        Some("text" | "refusal" | "thinking" | "redacted_thinking" | "tool_use" | "tool_result") => {}
        // Its pages are counted as images unless it is text.
        Some("document") if it["source"]["type"] == "text" => {}
        Some(other) => return Err(untold(&format!("content of type `{other}`"))),
    }
    each(&it["content"], &mut |it| content(it, images))
}

fn each(list: &Value, look: &mut dyn FnMut(&Value) -> Result<(), Lack>) -> Result<(), Lack> {
    list.as_array().into_iter().flatten().try_for_each(|it| if it.is_object() { look(it) } else { Ok(()) })
}

fn untold(what: &str) -> Lack {
    Lack(format!("what {what} costs cannot be told, and there is a limit for each day ([cloud] daily_usd)"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn chat(more: &Value) -> Value {
        let mut body =
            json!({"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    }

    fn of(more: Value) -> Result<Most, String> {
        most(Door::OpenAiChat, chat(&more).to_string().as_bytes()).map_err(|it| it.0)
    }

    #[test]
    fn answers_are_counted_with_their_limit() {
        assert_eq!(of(json!({})).unwrap().output, 10);
        assert_eq!(of(json!({"n": 3})).unwrap().output, 30);
        assert_eq!(of(json!({"max_completion_tokens": 50})).unwrap().output, 50);
        assert!(of(json!({"max_tokens": null})).unwrap_err().contains("no limit of tokens"));
        let embed = br#"{"model":"m","input":"a"}"#;
        assert_eq!(most(Door::OpenAiEmbed, embed).unwrap().output, 0);
        let ollama = br#"{"model":"m","messages":[],"options":{"num_predict":5},"think":true}"#;
        assert_eq!(most(Door::OllamaChat, ollama).unwrap().output, 5);
        assert!(most(Door::OllamaChat, br#"{"model":"m","messages":[]}"#).is_err());
    }

    #[test]
    fn what_is_more_than_it_looks_is_counted_and_what_cannot_be_is_refused() {
        let plain = of(json!({})).unwrap();
        let part = json!({"type": "image_url", "image_url": {"url": "https://x/y.png"}});
        let seen =
            of(json!({"messages": [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]}));
        assert!(seen.unwrap().input > plain.input + IMAGE);
        let nested = json!([{"type": "tool_result", "content": [{"type": "image", "source": {}}]}]);
        let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": nested}]});
        assert!(most(Door::Messages, body.to_string().as_bytes()).unwrap().input > IMAGE);
        for (more, name) in [
            (json!({"web_search_options": {}}), "`web_search_options`"),
            (json!({"service_tier": "priority"}), "`service_tier`"),
            (json!({"prediction": {"content": "x"}}), "`prediction`"),
            (json!({"tools": [{"type": "web_search"}]}), "`web_search`"),
            (json!({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}), "`file`"),
        ] {
            assert!(of(more).unwrap_err().contains(name), "{name}");
        }
        assert!(of(json!({"service_tier": null, "user": "me"})).is_ok());
        let cached = json!([{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]);
        let body = json!({"model": "m", "max_tokens": 1, "system": cached, "messages": []});
        assert!(most(Door::Messages, body.to_string().as_bytes()).unwrap().writes_cache);
    }

    proptest! {
        #[test]
        fn a_text_never_has_more_tokens_than_its_bytes(text in any::<String>()) {
            let body = chat(&json!({"messages": [{"role": "user", "content": text}]})).to_string();
            let most = most(Door::OpenAiChat, body.as_bytes()).unwrap();
            prop_assert!(most.input >= text.len() as u64 + AROUND);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = most(Door::OpenAiChat, &bytes);
        }
    }
}
