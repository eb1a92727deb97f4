//! The `response` object as a server gives it: judged, counted, and taken apart.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    dialect::{Plain, json},
    fault::Cause,
    generate::{Event, Reason, Usage},
};

/// What is looked at.
#[derive(Deserialize)]
pub(super) struct Whole<'a> {
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    incomplete_details: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) output: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
}

impl<'a> Whole<'a> {
    /// Reads JSON; anything but an object is `None`.
    pub(super) fn read(data: &'a [u8]) -> Option<Self> {
        // Checked as a whole, since fields that are skipped are not looked at.
        let text = std::str::from_utf8(data).ok()?;
        if !text.trim_ascii_start().starts_with('{') {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    /// Why it ended, or why it is no answer. `status` is what stands for a missing one.
    pub(super) fn reason(&self, status: Option<&str>, calls: bool) -> Result<Reason, Cause> {
        let is_error = self.error.is_some_and(|it| !json::is_nothing(it))
            || self.object.is_some_and(|it| it.get() == "\"error\"");
        if is_error {
            return Err(Cause::ErrorEvent);
        }
        let given = self.status.and_then(json::text);
        match given.as_deref().or(status) {
            Some("completed") if calls => Ok(Reason::ToolCalls),
            Some("completed") => Ok(Reason::Stop),
            Some("incomplete") => Ok(self.why_incomplete()),
            Some("failed" | "cancelled") => Err(Cause::ErrorEvent),
            Some("in_progress" | "queued") => Err(Cause::EarlyEnd),
            Some(_) => Err(Cause::Unreadable),
            None if self.output.is_some() => Err(Cause::EarlyEnd),
            None => Err(Cause::Unreadable),
        }
    }

    fn why_incomplete(&self) -> Reason {
        #[derive(Deserialize)]
        struct Details {
            reason: String,
        }
        let details = self.incomplete_details.and_then(|it| serde_json::from_str::<Details>(it.get()).ok());
        match details.as_ref().map(|it| it.reason.as_str()) {
            Some("max_output_tokens" | "max_tokens") => Reason::Length,
            Some("content_filter") => Reason::ContentFilter,
            _ => Reason::Other,
        }
    }

    /// The types of the items, if there is a list of them.
    pub(super) fn kinds(&self) -> Option<Vec<String>> {
        #[derive(Deserialize)]
        struct Head {
            r#type: String,
        }
        let items: Vec<Head> = serde_json::from_str(self.output?.get()).ok()?;
        Some(items.into_iter().map(|it| it.r#type).collect())
    }

    /// The counts, if they can be read.
    pub(super) fn usage(&self) -> Option<Usage> {
        #[derive(Deserialize)]
        struct Counts {
            input_tokens: Option<u64>,
            output_tokens: Option<u64>,
            input_tokens_details: Option<Cached>,
            output_tokens_details: Option<Reasoning>,
            #[serde(default)]
            not_counted: Vec<String>,
        }
        #[derive(Deserialize)]
        struct Cached {
            cached_tokens: Option<u64>,
        }
        #[derive(Deserialize)]
        struct Reasoning {
            reasoning_tokens: Option<u64>,
        }
        let counts: Counts = serde_json::from_str(self.usage?.get()).ok()?;
        // Another lovable says so where it only wrote a number because one must stand there.
        let is_counted = |name: &str| !counts.not_counted.iter().any(|it| it == name);
        let cached = counts.input_tokens_details.as_ref().and_then(|it| it.cached_tokens);
        let reasoning = counts.output_tokens_details.as_ref().and_then(|it| it.reasoning_tokens);
        Some(Usage {
            input_tokens: counts.input_tokens.filter(|_| is_counted("input_tokens")),
            output_tokens: counts.output_tokens.filter(|_| is_counted("output_tokens")),
            cached_tokens: cached.filter(|_| is_counted("cached_tokens")),
            reasoning_tokens: reasoning.filter(|_| is_counted("reasoning_tokens")),
            written_tokens: None,
        })
    }

    /// The name of the model, if there is one.
    pub(super) fn model(&self) -> Option<String> {
        let name = json::text(self.model?)?;
        (!name.is_empty()).then(|| name.into_owned())
    }
}

/// Whether items of this type are calls that the caller answers.
pub(super) fn is_call(kind: &str) -> bool {
    matches!(kind, "function_call" | "custom_tool_call")
}

/// Judges the body of a 200.
pub(super) fn judge_plain(body: &[u8], events: Option<&mut Vec<Event>>) -> Result<Plain, Cause> {
    if body.trim_ascii().is_empty() {
        return Err(Cause::Empty);
    }
    let whole = Whole::read(body).ok_or(Cause::Unreadable)?;
    let kinds = whole.kinds();
    let calls = kinds.as_ref().is_some_and(|it| it.iter().any(|it| is_call(it)));
    let reason = whole.reason(None, calls)?;
    let kinds = kinds.ok_or(Cause::Unreadable)?;
    // One that is incomplete may have been cut before its first word.
    if kinds.is_empty() && matches!(reason, Reason::Stop | Reason::Other) {
        return Err(Cause::Empty);
    }
    let usage = whole.usage();
    if let Some(events) = events {
        let mut called = 0;
        let output = whole.output.map(RawValue::get).unwrap_or_default();
        let items: Vec<Value> = serde_json::from_str(output).map_err(|_| Cause::Unreadable)?;
        for item in &items {
            said(item, &mut called, events);
        }
        events.extend(usage.map(Event::Usage));
        events.push(Event::Finished { reason, stop: None });
    }
    Ok(Plain { usage: usage.unwrap_or_default(), reason: Some(reason), model: whole.model() })
}

/// What an item says, as events; calls are numbered by `called`. Types that have no name here say nothing.
pub(super) fn said(item: &Value, called: &mut usize, events: &mut Vec<Event>) {
    match item["type"].as_str() {
        Some("message") => events.extend(spoken(item)),
        Some("reasoning") => {
            events.extend(thought(item));
            events.extend(proof(item));
        }
        Some("function_call") => {
            events.push(call(item, *called));
            events.extend(arguments(item, *called));
            *called += 1;
        }
        _ => {}
    }
}

/// The parts of a message.
pub(super) fn spoken(item: &Value) -> Vec<Event> {
    let mut events = Vec::new();
    for part in parts(item, "content") {
        match part["type"].as_str() {
            Some("refusal") => events.extend(text_of(part, "refusal").map(Event::Refusal)),
            _ => events.extend(text_of(part, "text").map(Event::Text)),
        }
        let logprobs = parts(part, "logprobs");
        if !logprobs.is_empty() {
            events.push(Event::Logprobs(logprobs.to_vec()));
        }
    }
    events
}

/// The thought: itself where it is there, else what is told of it.
pub(super) fn thought(item: &Value) -> Option<Event> {
    let texts = |name| {
        let texts: Vec<&str> = parts(item, name).iter().filter_map(|it| it["text"].as_str()).collect();
        Some(texts.join("\n\n")).filter(|it| !it.is_empty())
    };
    texts("content").or_else(|| texts("summary")).map(Event::Thinking)
}

/// The proof of a thought.
pub(super) fn proof(item: &Value) -> Option<Event> {
    text_of(item, "encrypted_content").map(Event::Signature)
}

/// The beginning of a call.
pub(super) fn call(item: &Value, index: usize) -> Event {
    let id = text_of(item, "call_id").or_else(|| text_of(item, "id"));
    Event::Call { index, id, name: text_of(item, "name").unwrap_or_default() }
}

/// The arguments of a call: a text by the book; some servers send the object itself.
pub(super) fn arguments(item: &Value, index: usize) -> Option<Event> {
    let text = match &item["arguments"] {
        Value::String(text) => text.clone(),
        Value::Null => return None,
        other => other.to_string(),
    };
    (!text.is_empty()).then_some(Event::Arguments { index, text })
}

fn parts<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text_of(value: &Value, name: &str) -> Option<String> {
    value[name].as_str().filter(|it| !it.is_empty()).map(str::to_owned)
}
