//! The `response` object that we write: in the first and the last events of a
//! stream, and as the whole answer.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{request::LOGPROBS, tool};
use crate::{
    dialect::Voice,
    generate::{Reason, Usage},
};

/// What an answer repeats of its request, with what is said where the request says nothing.
/// `null` is what we cannot know: the server's own defaults.
fn repeated() -> [(&'static str, Value); 19] {
    [
        ("background", json!(false)),
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("max_tool_calls", Value::Null),
        ("metadata", json!({})),
        ("parallel_tool_calls", json!(true)),
        ("previous_response_id", Value::Null),
        ("prompt", Value::Null),
        ("prompt_cache_key", Value::Null),
        ("reasoning", json!({"effort": null, "summary": null})),
        ("safety_identifier", Value::Null),
        ("temperature", Value::Null),
        ("text", json!({"format": {"type": "text"}})),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("top_logprobs", json!(0)),
        ("top_p", Value::Null),
        ("truncation", json!("disabled")),
        ("user", Value::Null),
    ]
}

/// The object without what changes while the answer comes, and what else of the request an answer needs.
pub(super) struct Frame {
    fields: Map<String, Value>,
    /// The tools that the caller knows as custom ones.
    pub(super) customs: BTreeSet<String>,
    /// Whether the caller wants log probabilities.
    pub(super) logprobs: bool,
    /// Our id of the request.
    pub(super) id: String,
}

impl Frame {
    /// The frame of the answer that `voice` gives.
    pub(super) fn new(voice: &Voice) -> Self {
        // It was read before; an object without fields only repeats less.
        let mut request: Map<String, Value> = serde_json::from_slice(&voice.request).unwrap_or_default();
        let mut fields = Map::new();
        let customs = request.get("tools").map(tool::custom_names).unwrap_or_default();
        let logprobs = request.get("top_logprobs").and_then(Value::as_u64).is_some_and(|it| it > 0)
            || request
                .get("include")
                .and_then(Value::as_array)
                .is_some_and(|it| it.contains(&LOGPROBS.into()));
        for (name, default) in repeated() {
            let value = request.remove(name).filter(|it| !it.is_null()).unwrap_or(default);
            fields.insert(name.to_owned(), value);
        }
        for (name, value) in [
            ("id", format!("resp_{}", voice.id).into()),
            ("object", "response".into()),
            ("created_at", (voice.at_ms / 1000).into()),
            ("model", voice.model.as_str().into()),
            ("error", Value::Null),
            // Nothing is, whatever was asked.
            ("store", false.into()),
            ("service_tier", "default".into()),
        ] {
            fields.insert(name.to_owned(), value);
        }
        Self { fields, customs, logprobs, id: voice.id.clone() }
    }

    /// The object before there is an answer.
    pub(super) fn begun(&self) -> Value {
        self.show("in_progress", Value::Null, Vec::new(), Value::Null)
    }

    /// The object with the answer, and the word for how it ended: `completed` or `incomplete`.
    pub(super) fn ended(
        &self,
        reason: Option<Reason>,
        output: Vec<Value>,
        usage: Usage,
    ) -> (&'static str, Value) {
        let (status, why) = match reason {
            Some(Reason::Stop | Reason::ToolCalls | Reason::Other) => ("completed", None),
            Some(Reason::Length) => ("incomplete", Some("max_output_tokens")),
            Some(Reason::ContentFilter) => ("incomplete", Some("content_filter")),
            None => ("incomplete", None),
        };
        let details = why.map_or(Value::Null, |it| json!({"reason": it}));
        (status, self.show(status, details, output, counts(usage)))
    }

    fn show(&self, status: &str, details: Value, output: Vec<Value>, usage: Value) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("status".to_owned(), status.into());
        fields.insert("incomplete_details".to_owned(), details);
        fields.insert("output".to_owned(), output.into());
        fields.insert("usage".to_owned(), usage);
        fields.into()
    }
}

/// Token counts.
///
/// Clients of this language stumble without numbers: @ai-sdk/openai 2.0.5 throws on
/// `usage: null` at the end of a stream, and Codex refuses details that have no
/// number. So what no server counted is written as 0, and its name is listed
/// beside it: absent is not zero to those who look.
fn counts(usage: Usage) -> Value {
    let input = usage.input_tokens.unwrap_or(0);
    let output = usage.output_tokens.unwrap_or(0);
    let mut counts = json!({
        "input_tokens": input,
        // Nobody here takes money for what is put into a cache.
        "input_tokens_details":
            {"cached_tokens": usage.cached_tokens.unwrap_or(0), "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens.unwrap_or(0)},
        "total_tokens": input.saturating_add(output),
    });
    let absent: Vec<&str> = [
        ("input_tokens", usage.input_tokens),
        ("cached_tokens", usage.cached_tokens),
        ("output_tokens", usage.output_tokens),
        ("reasoning_tokens", usage.reasoning_tokens),
    ]
    .into_iter()
    .filter_map(|(name, count)| count.is_none().then_some(name))
    .collect();
    if !absent.is_empty() {
        counts["not_counted"] = absent.into();
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_server_counted_is_a_number_and_said_to_be_none() {
        let known = Usage {
            input_tokens: Some(5),
            output_tokens: Some(7),
            cached_tokens: Some(0),
            reasoning_tokens: Some(3),
            ..Usage::default()
        };
        assert_eq!(
            counts(known),
            json!({"input_tokens": 5, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens": 7,
                "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 12})
        );
        let some = counts(Usage { cached_tokens: None, ..known });
        assert_eq!(
            (&some["input_tokens_details"]["cached_tokens"], &some["not_counted"]),
            (&json!(0), &json!(["cached_tokens"]))
        );
        let none = counts(Usage::default());
        assert_eq!(none["total_tokens"], 0);
        assert_eq!(
            none["not_counted"],
            json!(["input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"])
        );
    }
}
