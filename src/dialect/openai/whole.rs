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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::generate::{Event, Operation};

    fn voice(request: &'static str) -> Voice {
        Voice {
            id: "r1".to_owned(),
            model: "m".to_owned(),
            at_ms: 5999,
            waited: Duration::ZERO,
            asks_usage: true,
            operation: Operation::Chat,
            request: Bytes::from_static(request.as_bytes()),
        }
    }

    fn written(door: Door, events: Vec<Event>, request: &'static str) -> Value {
        let answer: Answer = events.into_iter().collect();
        serde_json::from_slice(&whole(door, &answer, &voice(request))).unwrap()
    }

    fn text(text: &str) -> Event {
        Event::Text(text.to_owned())
    }

    fn finished(reason: Reason) -> Event {
        Event::Finished { reason, stop: None }
    }

    fn counts() -> Event {
        let usage = Usage {
            input_tokens: Some(3),
            output_tokens: Some(2),
            cached_tokens: Some(1),
            reasoning_tokens: Some(0),
            ..Usage::default()
        };
        Event::Usage(usage)
    }

    fn called() -> Vec<Event> {
        vec![
            Event::Call { index: 0, id: Some("a".to_owned()), name: "f".to_owned() },
            Event::Arguments { index: 0, text: "{\"x\":1}".to_owned() },
            Event::Call { index: 1, id: None, name: "g".to_owned() },
            finished(Reason::Stop),
        ]
    }

    #[test]
    fn whole_answers_have_the_official_shape() {
        let chat = |events| written(Door::OpenAiChat, events, "{}");
        let token = json!({"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []});
        let all = json!({
            "a text": chat(vec![text("a"), finished(Reason::Stop), counts()]),
            "thinking": chat(vec![Event::Thinking("h".to_owned()), text("a"), finished(Reason::Length)]),
            "calls": chat(called()),
            "the older form of calls": written(Door::OpenAiChat, called(), r#"{"functions":[{}]}"#),
            "a refusal": chat(vec![Event::Refusal("no".to_owned()), finished(Reason::Stop)]),
            "nothing": chat(vec![finished(Reason::Stop)]),
            "log probabilities": chat(vec![text("a"), Event::Logprobs(vec![token.clone()]), finished(Reason::Stop)]),
            "a completion": written(Door::OpenAiComplete, vec![text("a"), Event::Logprobs(vec![token]), finished(Reason::Stop), counts()], "{}"),
        });
        insta::assert_json_snapshot!("whole", all);
    }

    #[test]
    fn vectors_keep_their_digits_and_come_as_they_were_asked_for() {
        let vectors = || vec![Event::Vector(vec![0.1, 1.0]), Event::Vector(vec![-0.5])];
        let answer: Answer = vectors().into_iter().chain([counts()]).collect();
        let body = whole(Door::OpenAiEmbed, &answer, &voice("{}"));
        let expected = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,1.0]},{"object":"embedding","index":1,"embedding":[-0.5]}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}"#;
        assert_eq!(body, expected);
        let encoded = written(Door::OpenAiEmbed, vectors(), r#"{"encoding_format":"base64"}"#);
        assert_eq!(encoded["data"][1]["embedding"], "AAAAvw==");
        assert_eq!(encoded.get("usage"), None, "absent is not zero");
    }

    #[test]
    fn tools_win_over_functions() {
        let wants = |request: &str| Wants::of(request.as_bytes()).functions;
        assert!(wants(r#"{"functions":[{}]}"#));
        assert!(!wants(r#"{"functions":[{}],"tools":[{}]}"#));
        assert!(!wants(r#"{"functions":[]}"#));
        assert!(!wants("?"));
    }
}
