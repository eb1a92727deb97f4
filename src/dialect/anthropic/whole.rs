//! Writes an answer that goes to the caller in one piece.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{json, value::RawValue};

use super::UNSIGNED;
use crate::{
    dialect::Voice,
    generate::{Answer, Reason, Said, Usage},
};

/// The body of a whole answer.
pub(super) fn whole(answer: &Answer, voice: &Voice) -> Bytes {
    let refused = answer.said.iter().any(|it| matches!(it, Said::Refusal(_)));
    let reason = answer.reason.map(|it| stop_reason(it, answer.stop.is_some(), answer.calls(), refused));
    let mut message = Message::new(voice, &answer.usage);
    message.content = answer.said.iter().map(|it| Block::of(it, voice)).collect();
    message.stop_reason = reason;
    message.stop_sequence = answer.stop.as_deref();
    written(&message).into()
}

/// An answer, or the beginning of one.
#[derive(Serialize)]
pub(super) struct Message<'a> {
    id: String,
    r#type: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<Block<'a>>,
    stop_reason: Option<&'static str>,
    stop_sequence: Option<&'a str>,
    usage: Counts,
}

impl<'a> Message<'a> {
    /// An answer in which nothing is said yet.
    pub(super) fn new(voice: &'a Voice, usage: &Usage) -> Self {
        Self {
            id: format!("msg_{}", fit(&voice.id)),
            r#type: "message",
            role: "assistant",
            model: &voice.model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: Counts::of(usage),
        }
    }
}

/// A part of an answer.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block<'a> {
    /// Text, or a refusal: its stop reason says so.
    Text { text: &'a str },
    /// A thought; clients fall over one without a signature.
    Thinking { thinking: &'a str, signature: &'a str },
    /// A call of a tool.
    ToolUse { id: String, name: &'a str, input: Box<RawValue> },
}

impl<'a> Block<'a> {
    fn of(said: &'a Said, voice: &Voice) -> Self {
        match said {
            Said::Text(text) | Said::Refusal(text) => Self::Text { text },
            Said::Thinking { text, signature } => {
                Self::Thinking { thinking: text, signature: signature.as_deref().unwrap_or(UNSIGNED) }
            }
            Said::Call { index, id, name, arguments } => {
                Self::ToolUse { id: call_id(voice, *index, id.as_deref()), name, input: input(arguments) }
            }
        }
    }
}

/// The counts. Clients fall over a missing `input_tokens` or `output_tokens`, so those that no
/// server gave are zero, which no real one is beside words; the others are left out.
#[derive(Serialize)]
pub(super) struct Counts {
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_read_input_tokens: Option<u64>,
    output_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_details: Option<Details>,
}

#[derive(Serialize)]
struct Details {
    thinking_tokens: u64,
}

impl Counts {
    /// Those of a whole answer, or of the beginning of one.
    fn of(usage: &Usage) -> Self {
        Self { input_tokens: Some(input_tokens(usage).unwrap_or(0)), ..Self::at_last(usage) }
    }

    /// Those of the end of a stream, where a missing count leaves the one at its beginning.
    pub(super) fn at_last(usage: &Usage) -> Self {
        Self {
            input_tokens: input_tokens(usage),
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.output_tokens.unwrap_or(0),
            output_tokens_details: usage.reasoning_tokens.map(|it| Details { thinking_tokens: it }),
        }
    }
}

/// The tokens of the prompt without those that were cached.
fn input_tokens(usage: &Usage) -> Option<u64> {
    Some(usage.input_tokens?.saturating_sub(usage.cached_tokens.unwrap_or(0)))
}

/// JSON of one of these.
pub(super) fn written(value: &impl Serialize) -> String {
    // Nothing in them can fail: names are texts, and there are no foreign types.
    serde_json::to_string(value).unwrap_or_default()
}

/// The arguments of a call as the object that they must be here, as it was written. What is
/// none stands in one, under the name that Anthropic's documentation has for it.
pub(super) fn input(arguments: &str) -> Box<RawValue> {
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments.trim() };
    match serde_json::from_str::<Box<RawValue>>(arguments) {
        Ok(input) if arguments.starts_with('{') => input,
        _ => {
            let wrapped = json!({"INVALID_JSON": arguments}).to_string();
            RawValue::from_string(wrapped).unwrap_or_default()
        }
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

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
                ..Usage::default()
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
        let check = |arguments: &str, expected: &str| assert_eq!(input(arguments).get(), expected);
        check("", "{}");
        check(" {\"a\": 12345678901234567890123}\n", "{\"a\": 12345678901234567890123}");
        check("{\"a\":", "{\"INVALID_JSON\":\"{\\\"a\\\":\"}");
        check("5", "{\"INVALID_JSON\":\"5\"}");
        check("{} {}", "{\"INVALID_JSON\":\"{} {}\"}");
    }

    #[test]
    fn fields_stand_in_the_order_of_the_documentation() {
        let body =
            whole(&[Event::Text("a".to_owned()), finished(Reason::Stop)].into_iter().collect(), &voice());
        let expected = "{\"id\":\"msg_r1_x\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"qwen3:8b\",\
            \"content\":[{\"type\":\"text\",\"text\":\"a\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\
            \"usage\":{\"input_tokens\":0,\"output_tokens\":0}}";
        assert_eq!(body, expected);
    }
}
