//! What is asked, of a server that is to go on with an answer another one began.
//!
//! What the caller wrote goes along byte for byte, so that nothing of its request is lost on
//! the way to the second server: only the end of the conversation (or of the prompt) and the
//! limit are different.

use bytes::Bytes;
use serde_json::{Map, Value, value::RawValue};

use crate::dialect::{Beginning, Door, json};

/// `None` where the beginning has no place: a prompt of token numbers.
pub(super) fn go_on(door: Door, body: &Bytes, beginning: &Beginning<'_>) -> Option<Bytes> {
    let found = Found::of(body)?;
    let mut fields: Vec<(&str, String)> = Vec::new();
    if let Some(left) = beginning.max_tokens {
        fields.extend(found.limits().map(|name| (name, left.to_string())));
    }
    if door == Door::OpenAiComplete {
        let prompt = json::text(found.prompt?)?;
        fields.push(("prompt", json::quote(&format!("{prompt}{}", beginning.text))));
    } else {
        fields.push(("messages", messages(found.messages?, beginning)?));
        let thinks = beginning.text.is_empty();
        if beginning.flags {
            let part = if thinks { json::quote(IN_THINKING) } else { "true".to_owned() };
            fields.push(("continue_final_message", part));
            fields.push(("add_generation_prompt", "false".to_owned()));
        }
        if beginning.flags && !beginning.thinking.is_empty() && !thinks {
            // The thinking is over. Templates and parsers would else expect some at the start
            // of what is generated, and take the rest of the answer for it.
            fields.push(("chat_template_kwargs", without_thinking(found.kwargs)?));
        }
    }
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Some(json::set(body, &fields))
}

/// The same question with another limit in place of the one that it has.
pub(super) fn limit(body: &Bytes, max_tokens: u64) -> Bytes {
    let Some(found) = Found::of(body) else { return body.clone() };
    let max_tokens = max_tokens.to_string();
    let fields: Vec<_> = found.limits().map(|name| (name, max_tokens.as_str())).collect();
    json::set(body, &fields)
}

/// What the flag says where the thinking of the last message is gone on with: llama.cpp knows
/// it (b11549), vLLM does not (0.32.0).
const IN_THINKING: &str = "reasoning_content";

#[derive(Default)]
struct Found<'a> {
    messages: Option<&'a RawValue>,
    prompt: Option<&'a RawValue>,
    max_tokens: Option<&'a RawValue>,
    max_completion: Option<&'a RawValue>,
    kwargs: Option<&'a RawValue>,
}

impl<'a> Found<'a> {
    fn of(body: &'a Bytes) -> Option<Self> {
        let mut found = Self::default();
        json::walk(body, |name, _, value| {
            let slot = match name {
                "messages" => &mut found.messages,
                "prompt" => &mut found.prompt,
                "max_tokens" => &mut found.max_tokens,
                "max_completion_tokens" => &mut found.max_completion,
                "chat_template_kwargs" => &mut found.kwargs,
                _ => return Ok(()),
            };
            *slot = Some(value).filter(|it| it.get() != "null");
            Ok(())
        })
        .ok()?;
        Some(found)
    }

    /// The fields in which there is a limit.
    fn limits(&self) -> impl Iterator<Item = &'static str> {
        let all = [("max_tokens", self.max_tokens), ("max_completion_tokens", self.max_completion)];
        all.into_iter().filter_map(|(name, value)| value.map(|_| name))
    }
}

/// The messages with the beginning as the last. A caller who had written the beginning of the
/// answer itself has its own and ours in one.
fn messages(written: &RawValue, beginning: &Beginning<'_>) -> Option<String> {
    let mut all: Vec<&RawValue> = serde_json::from_str(written.get()).ok()?;
    let mut text = beginning.text.to_owned();
    if let Some(last) = all.last()
        && let Some(own) = own_beginning(last)
    {
        text.insert_str(0, &own);
        all.pop();
    }
    let mut message = Map::new();
    message.insert("role".to_owned(), "assistant".into());
    message.insert("content".to_owned(), text.into());
    if !beginning.thinking.is_empty() {
        // vLLM reads the one, llama.cpp the other.
        message.insert("reasoning".to_owned(), beginning.thinking.into());
        message.insert("reasoning_content".to_owned(), beginning.thinking.into());
    }
    let mut out = String::from("[");
    for before in all {
        out.push_str(before.get());
        out.push(',');
    }
    out.push_str(&Value::Object(message).to_string());
    out.push(']');
    Some(out)
}

/// The text of a message, if it is one of the model's own that says nothing else.
fn own_beginning(message: &RawValue) -> Option<String> {
    let message: Map<String, Value> = serde_json::from_str(message.get()).ok()?;
    if message.get("role")? != "assistant" || message.get("tool_calls").is_some_and(|it| !it.is_null()) {
        return None;
    }
    message.get("content")?.as_str().map(str::to_owned)
}

fn without_thinking(kwargs: Option<&RawValue>) -> Option<String> {
    let mut kwargs: Map<String, Value> = match kwargs {
        Some(written) => serde_json::from_str(written.get()).ok()?,
        None => Map::new(),
    };
    kwargs.insert("enable_thinking".to_owned(), false.into());
    Some(Value::Object(kwargs).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(door: Door, body: &'static str, beginning: &Beginning<'_>, expected: &str) {
        let sent = go_on(door, &Bytes::from_static(body.as_bytes()), beginning);
        let sent = sent.map(|it| String::from_utf8(it.to_vec()).unwrap());
        assert_eq!(sent.as_deref(), Some(expected).filter(|it| !it.is_empty()), "for {body}");
    }

    const BEGUN: Beginning<'_> = Beginning { thinking: "", text: "a \"b\"", max_tokens: None, flags: true };

    #[test]
    fn the_beginning_is_the_last_message_and_the_rest_is_as_it_was() {
        check(
            Door::OpenAiChat,
            r#"{"x":1.50,"messages":[ {"role":"user","content":"hi"} ],"max_tokens":5}"#,
            &Beginning { max_tokens: Some(3), ..BEGUN },
            r#"{"continue_final_message":true,"add_generation_prompt":false,"x":1.50,"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"a \"b\""}],"max_tokens":3}"#,
        );
        check(
            Door::OpenAiChat,
            r#"{"messages":[]}"#,
            &Beginning { flags: false, max_tokens: Some(3), ..BEGUN },
            r#"{"messages":[{"role":"assistant","content":"a \"b\""}]}"#,
        );
        check(Door::OpenAiChat, r#"{"messages":5}"#, &BEGUN, "");
    }

    #[test]
    fn what_the_caller_had_begun_itself_stands_before_it() {
        check(
            Door::OpenAiChat,
            r#"{"messages":[{"role":"assistant","content":"x"}],"continue_final_message":true}"#,
            &BEGUN,
            r#"{"add_generation_prompt":false,"messages":[{"role":"assistant","content":"xa \"b\""}],"continue_final_message":true}"#,
        );
        let called = r#"{"role":"assistant","content":"","tool_calls":[]}"#;
        let body = Bytes::from(format!("{{\"messages\":[{called}]}}"));
        let sent = go_on(Door::OpenAiChat, &body, &BEGUN).unwrap();
        assert!(sent.windows(called.len()).any(|it| it == called.as_bytes()), "{sent:?}");
    }

    #[test]
    fn thoughts_go_along_and_no_more_are_wanted() {
        let body = Bytes::from_static(br#"{"messages":[],"chat_template_kwargs":{"a":1}}"#);
        let sent = go_on(Door::OpenAiChat, &body, &Beginning { thinking: "hm", ..BEGUN }).unwrap();
        let sent: Value = serde_json::from_slice(&sent).unwrap();
        assert_eq!(sent["messages"][0]["reasoning_content"], "hm");
        assert_eq!(sent["chat_template_kwargs"], serde_json::json!({"a": 1, "enable_thinking": false}));
    }

    #[test]
    fn thinking_that_is_not_over_is_named_as_the_part_to_go_on_with() {
        let sent = go_on(
            Door::OpenAiChat,
            &Bytes::from_static(br#"{"messages":[]}"#),
            &Beginning { thinking: "hm", text: "", ..BEGUN },
        );
        let sent: Value = serde_json::from_slice(&sent.unwrap()).unwrap();
        let last = serde_json::json!({"role": "assistant", "content": "", "reasoning": "hm", "reasoning_content": "hm"});
        assert_eq!(sent["messages"], serde_json::json!([last]));
        assert_eq!(sent["continue_final_message"], "reasoning_content");
        assert!(sent["chat_template_kwargs"].is_null(), "it may think");
    }

    #[test]
    fn another_limit_stands_where_one_stood() {
        let body = Bytes::from_static(br#"{"max_tokens":5,"x":1}"#);
        assert_eq!(limit(&body, 3), &br#"{"max_tokens":3,"x":1}"#[..]);
        let body = Bytes::from_static(br#"{"max_tokens":null}"#);
        assert_eq!(limit(&body, 3), body);
    }

    #[test]
    fn a_text_is_the_longer_prompt() {
        check(
            Door::OpenAiComplete,
            r#"{"prompt":"x","max_completion_tokens":9}"#,
            &Beginning { max_tokens: Some(3), ..BEGUN },
            r#"{"prompt":"xa \"b\"","max_completion_tokens":3}"#,
        );
        check(Door::OpenAiComplete, r#"{"prompt":[1,2]}"#, &BEGUN, "");
    }
}
