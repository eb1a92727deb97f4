//! Writes an answer that goes to the caller in one piece.

use bytes::Bytes;
use serde_json::{Value, json};

use super::UNSIGNED;
use crate::{
    dialect::Voice,
    generate::{Answer, Reason, Said, Usage},
};

/// The body of a whole answer.
pub(super) fn whole(answer: &Answer, voice: &Voice) -> Bytes {
    let content: Vec<Value> = answer.said.iter().map(|it| block(it, voice)).collect();
    let refused = answer.said.iter().any(|it| matches!(it, Said::Refusal(_)));
    let reason = answer.reason.map(|it| stop_reason(it, answer.stop.is_some(), answer.calls(), refused));
    json!({
        "id": message_id(voice),
        "type": "message",
        "role": "assistant",
        "model": voice.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": answer.stop,
        "usage": usage(&answer.usage),
    })
    .to_string()
    .into()
}

fn block(said: &Said, voice: &Voice) -> Value {
    match said {
        // A refusal is a text whose stop reason says so.
        Said::Text(text) | Said::Refusal(text) => json!({"type": "text", "text": text}),
        Said::Thinking { text, signature } => {
            let signature = signature.as_deref().unwrap_or(UNSIGNED);
            json!({"type": "thinking", "thinking": text, "signature": signature})
        }
        Said::Call { index, id, name, arguments } => json!({
            "type": "tool_use",
            "id": call_id(voice, *index, id.as_deref()),
            "name": name,
            "input": input(arguments),
        }),
    }
}

/// The arguments of a call as the object that they must be here. What is none stands in one,
/// under the name that Anthropic's documentation has for it.
pub(super) fn input(arguments: &str) -> Value {
    if arguments.trim().is_empty() {
        return json!({});
    }
    match serde_json::from_str(arguments) {
        Ok(input @ Value::Object(_)) => input,
        _ => json!({"INVALID_JSON": arguments}),
    }
}

/// The id of the answer.
pub(super) fn message_id(voice: &Voice) -> String {
    format!("msg_{}", fit(&voice.id))
}

/// The id of a call: the server's own where it gave one that this language allows.
pub(super) fn call_id(voice: &Voice, index: usize, id: Option<&str>) -> String {
    match id {
        Some(id) if !id.is_empty() && fit(id) == id => id.to_owned(),
        _ => format!("toolu_{}_{index}", fit(&voice.id)),
    }
}

/// An id with only the characters that this language allows in one.
pub(super) fn fit(id: &str) -> String {
    let allowed = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-');
    id.chars().map(|it| if allowed(it) { it } else { '_' }).collect()
}

/// The word for why a model stopped. What was said counts for more than the server's reason:
/// clients run tools when it is `tool_use`, and only then.
pub(super) fn stop_reason(reason: Reason, at_stop: bool, called: bool, refused: bool) -> &'static str {
    match reason {
        Reason::Stop | Reason::Other | Reason::ToolCalls if refused => "refusal",
        Reason::Stop | Reason::Other | Reason::ToolCalls if called => "tool_use",
        Reason::Stop if at_stop => "stop_sequence",
        // There is no word for another reason, and `pause_turn` would ask for more.
        Reason::Stop | Reason::Other | Reason::ToolCalls => "end_turn",
        Reason::Length => "max_tokens",
        Reason::ContentFilter => "refusal",
    }
}

/// The counts. Clients fall over a missing `input_tokens` or `output_tokens`, so those that no
/// server gave are zero, which no real one is beside words; the others are left out.
pub(super) fn usage(usage: &Usage) -> Value {
    let cached = usage.cached_tokens.unwrap_or(0);
    let mut all = json!({
        // Without those that were cached.
        "input_tokens": usage.input_tokens.unwrap_or(0).saturating_sub(cached),
        "output_tokens": usage.output_tokens.unwrap_or(0),
    });
    if let Some(cached) = usage.cached_tokens {
        all["cache_read_input_tokens"] = cached.into();
    }
    if let Some(thinking) = usage.reasoning_tokens {
        all["output_tokens_details"] = json!({"thinking_tokens": thinking});
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::generate::{Event, Operation};

    fn voice() -> Voice {
        Voice {
            id: "r1.x".to_owned(),
            model: "qwen3:8b".to_owned(),
            at_ms: 0,
            waited: Duration::ZERO,
            asks_usage: true,
            operation: Operation::Chat,
            request: Bytes::new(),
        }
    }

    fn written(events: Vec<Event>) -> Value {
        serde_json::from_slice(&whole(&events.into_iter().collect(), &voice())).unwrap()
    }

    fn finished(reason: Reason) -> Event {
        Event::Finished { reason, stop: None }
    }

    #[test]
    fn an_answer_has_all_that_was_said_in_order() {
        let answer = written(vec![
            Event::Thinking("hm".to_owned()),
            Event::Signature("s".to_owned()),
            Event::Text("a".to_owned()),
            Event::Call { index: 0, id: Some("call_1".to_owned()), name: "f".to_owned() },
            Event::Arguments { index: 0, text: "{\"a\":1}".to_owned() },
            Event::Call { index: 1, id: None, name: "g".to_owned() },
            Event::Usage(Usage {
                input_tokens: Some(30),
                output_tokens: Some(7),
                cached_tokens: Some(11),
                reasoning_tokens: Some(2),
            }),
            finished(Reason::ToolCalls),
        ]);
        let expected = json!({
            "id": "msg_r1_x", "type": "message", "role": "assistant", "model": "qwen3:8b",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "a"},
                {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "toolu_r1_x_1", "name": "g", "input": {}},
            ],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 19, "output_tokens": 7, "cache_read_input_tokens": 11,
                "output_tokens_details": {"thinking_tokens": 2}},
        });
        assert_eq!(answer, expected);
    }

    #[test]
    fn reasons_have_their_words() {
        let reason = |events: Vec<Event>| written(events)["stop_reason"].clone();
        assert_eq!(reason(vec![finished(Reason::Stop)]), "end_turn");
        assert_eq!(reason(vec![finished(Reason::Length)]), "max_tokens");
        assert_eq!(reason(vec![finished(Reason::ContentFilter)]), "refusal");
        assert_eq!(reason(vec![finished(Reason::Other)]), "end_turn");
        assert_eq!(reason(vec![finished(Reason::ToolCalls)]), "end_turn", "there is no call");
        let call = Event::Call { index: 0, id: None, name: "f".to_owned() };
        assert_eq!(reason(vec![call.clone(), finished(Reason::Stop)]), "tool_use", "Ollama says `stop`");
        assert_eq!(reason(vec![call, finished(Reason::Length)]), "max_tokens");
        let refusal = Event::Refusal("no".to_owned());
        assert_eq!(reason(vec![refusal, finished(Reason::Stop)]), "refusal");
        let stop = Event::Finished { reason: Reason::Stop, stop: Some("###".to_owned()) };
        let answer = written(vec![stop]);
        assert_eq!(
            (&answer["stop_reason"], &answer["stop_sequence"]),
            (&json!("stop_sequence"), &json!("###"))
        );
    }

    #[test]
    fn clients_get_the_fields_that_they_fall_over_without() {
        let answer = written(vec![Event::Thinking("hm".to_owned()), finished(Reason::Stop)]);
        assert_eq!(answer["usage"], json!({"input_tokens": 0, "output_tokens": 0}));
        assert_eq!(answer["content"][0]["signature"], UNSIGNED);
    }

    #[test]
    fn arguments_are_an_object_whatever_they_are() {
        assert_eq!(input(""), json!({}));
        assert_eq!(input("{\"a\":[1]}"), json!({"a": [1]}));
        assert_eq!(input("{\"a\":"), json!({"INVALID_JSON": "{\"a\":"}));
        assert_eq!(input("5"), json!({"INVALID_JSON": "5"}));
    }
}
