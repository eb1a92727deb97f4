//! Writes a whole answer as OpenAI writes it.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{ask::put, base64};
use crate::{
    dialect::{Door, Voice, json},
    generate::{Answer, Reason, Said, Usage},
};

/// Writes a whole answer.
pub(super) fn whole(door: Door, answer: &Answer, voice: &Voice) -> Bytes {
    match door {
        Door::OpenAiEmbed => vectors(answer, voice).into(),
        Door::OpenAiComplete => text(answer, voice).to_string().into(),
        _ => message(answer, voice).to_string().into(),
    }
}

fn message(answer: &Answer, voice: &Voice) -> Value {
    let functions = Wants::of(&voice.request).functions;
    let refusal: String = joined(answer, |it| match it {
        Said::Refusal(text) => Some(text),
        _ => None,
    });
    let (text, calls) = (answer.text(), calls(answer, voice));
    let mut message = Map::new();
    put(&mut message, "role", "assistant");
    // As OpenAI has it: null beside calls or a refusal, else a text, which may be empty.
    let is_silent = text.is_empty() && (!calls.is_empty() || !refusal.is_empty());
    message.insert("content".to_owned(), if is_silent { Value::Null } else { text.into() });
    message.insert("refusal".to_owned(), Some(refusal).filter(|it| !it.is_empty()).into());
    put(&mut message, "reasoning_content", Some(answer.thinking()).filter(|it| !it.is_empty()));
    let called = !calls.is_empty();
    match calls.first() {
        Some(call) if functions => put(&mut message, "function_call", call["function"].clone()),
        Some(_) => put(&mut message, "tool_calls", calls),
        None => {}
    }
    let logprobs = match &answer.logprobs[..] {
        [] => Value::Null,
        tokens => json!({"content": tokens, "refusal": null}),
    };
    let choice = json!({
        "index": 0,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": finish_reason(answer.reason, called, functions),
    });
    body(Door::OpenAiChat, "chat.completion", choice, answer, voice)
}

fn calls(answer: &Answer, voice: &Voice) -> Vec<Value> {
    let calls = answer.said.iter().filter_map(|it| match it {
        Said::Call { index, id, name, arguments } => {
            let id = id.clone().unwrap_or_else(|| call_id(&voice.id, *index));
            let arguments = if arguments.is_empty() { "{}" } else { arguments };
            Some(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
        }
        Said::Text(_) | Said::Thinking { .. } | Said::Refusal(_) => None,
    });
    calls.collect()
}

fn text(answer: &Answer, voice: &Voice) -> Value {
    let text = joined(answer, |it| match it {
        Said::Text(text) | Said::Refusal(text) => Some(text),
        _ => None,
    });
    let logprobs = match &answer.logprobs[..] {
        [] => Value::Null,
        tokens => logprobs_of_text(tokens, &mut 0),
    };
    let choice = json!({
        "index": 0,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": finish_reason(answer.reason, false, false),
    });
    body(Door::OpenAiComplete, "text_completion", choice, answer, voice)
}

fn body(door: Door, object: &str, choice: Value, answer: &Answer, voice: &Voice) -> Value {
    let mut body = Map::new();
    put(&mut body, "id", id(door, voice));
    put(&mut body, "object", object);
    put(&mut body, "created", voice.at_ms / 1000);
    put(&mut body, "model", voice.model.as_str());
    put(&mut body, "choices", [choice]);
    put(&mut body, "usage", usage(&answer.usage));
    Value::Object(body)
}

fn joined<'a>(answer: &'a Answer, pick: impl Fn(&'a Said) -> Option<&'a String>) -> String {
    answer.said.iter().filter_map(pick).map(String::as_str).collect()
}

/// Written by hand: as values, numbers would grow digits that no server gave.
fn vectors(answer: &Answer, voice: &Voice) -> String {
    let base64 = Wants::of(&voice.request).base64;
    let data: Vec<String> = answer
        .vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let embedding = if base64 {
                json::quote(&base64::write(vector))
            } else {
                serde_json::to_string(vector).unwrap_or_default()
            };
            format!("{{\"object\":\"embedding\",\"index\":{index},\"embedding\":{embedding}}}")
        })
        .collect();
    let usage = match answer.usage.input_tokens {
        Some(input) => format!(",\"usage\":{{\"prompt_tokens\":{input},\"total_tokens\":{input}}}"),
        None => String::new(),
    };
    let model = json::quote(&voice.model);
    format!("{{\"object\":\"list\",\"data\":[{}],\"model\":{model}{usage}}}", data.join(","))
}

/// What the caller's request says about the form of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// Vectors in base64: OpenAI's own clients ask for it by themselves.
    pub(super) base64: bool,
    /// `function_call` in place of `tool_calls`.
    pub(super) functions: bool,
}

impl Wants {
    pub(super) fn of(request: &[u8]) -> Self {
        let mut wants = Self::default();
        let mut tools = false;
        // It was walked over before; what cannot be read wants nothing.
        let _ = json::walk(request, |name, _, value| {
            match name {
                "encoding_format" => wants.base64 = value.get() == "\"base64\"",
                "functions" => wants.functions = !json::is_nothing(value),
                "tools" => tools = !json::is_nothing(value),
                _ => {}
            }
            Ok(())
        });
        wants.functions &= !tools;
        wants
    }
}

/// The answer's id.
pub(super) fn id(door: Door, voice: &Voice) -> String {
    match door {
        Door::OpenAiComplete => format!("cmpl-{}", voice.id),
        _ => format!("chatcmpl-{}", voice.id),
    }
}

/// The id of a call, where the server gave none.
pub(super) fn call_id(request_id: &str, index: usize) -> String {
    format!("call_{request_id}_{index}")
}

/// Why it ended, in OpenAI's words.
pub(super) fn finish_reason(reason: Option<Reason>, called: bool, functions: bool) -> &'static str {
    match reason {
        Some(Reason::Length) => "length",
        Some(Reason::ContentFilter) => "content_filter",
        Some(Reason::Stop | Reason::ToolCalls | Reason::Other) | None if called && functions => {
            "function_call"
        }
        Some(Reason::Stop | Reason::ToolCalls | Reason::Other) | None if called => "tool_calls",
        Some(Reason::Stop | Reason::ToolCalls | Reason::Other) | None => "stop",
    }
}

/// The counts. OpenAI's clients want both or nothing: half of them would have to be made up.
pub(super) fn usage(usage: &Usage) -> Option<Value> {
    let (input, output) = (usage.input_tokens?, usage.output_tokens?);
    let mut counts = json!({
        "prompt_tokens": input,
        "completion_tokens": output,
        "total_tokens": input.saturating_add(output),
    });
    if let Some(cached) = usage.cached_tokens {
        counts["prompt_tokens_details"] = json!({"cached_tokens": cached});
    }
    if let Some(reasoning) = usage.reasoning_tokens {
        counts["completion_tokens_details"] = json!({"reasoning_tokens": reasoning});
    }
    Some(counts)
}

/// Log probabilities in the form of completions; `offset` is where the next token stands.
pub(super) fn logprobs_of_text(tokens: &[Value], offset: &mut usize) -> Value {
    let (mut texts, mut own, mut top, mut places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for token in tokens {
        let text = token["token"].as_str().unwrap_or_default();
        let others = token["top_logprobs"].as_array().into_iter().flatten();
        let others: Map<String, Value> =
            others.filter_map(|it| Some((it["token"].as_str()?.to_owned(), it["logprob"].clone()))).collect();
        texts.push(text);
        own.push(token["logprob"].clone());
        top.push(others);
        places.push(*offset);
        *offset += text.chars().count();
    }
    json!({"tokens": texts, "token_logprobs": own, "top_logprobs": top, "text_offset": places})
}
