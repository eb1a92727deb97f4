//! What is looked at in an event or an answer: borrowed, and only as deep as needed.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    dialect::json,
    generate::{Reason, Usage},
};

/// An event of a stream, or a whole answer.
#[derive(Deserialize)]
pub(super) struct Frame<'a> {
    #[serde(borrow)]
    pub(super) r#type: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) code: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) message: Option<&'a RawValue>,
    pub(super) index: Option<u64>,
    #[serde(borrow)]
    pub(super) content_block: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) delta: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) model: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) stop_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) stop_sequence: Option<&'a RawValue>,
}

impl<'a> Frame<'a> {
    /// Reads JSON; anything but an object is `None`.
    pub(super) fn read(data: &'a [u8]) -> Option<Self> {
        // Checked as a whole, since fields that are skipped are not looked at.
        object(std::str::from_utf8(data).ok()?)
    }

    /// What sort of event it is.
    pub(super) fn kind(&self) -> Option<Cow<'a, str>> {
        self.r#type.and_then(json::text)
    }

    /// Whether it reports an error: by the book, as a bare `{code, message, type}` (llama.cpp),
    /// or in the shape of some other language (LM Studio).
    pub(super) fn is_error(&self) -> bool {
        self.error.is_some_and(|it| !json::is_nothing(it))
            || self.r#type.is_some_and(|it| it.get() == "\"error\"")
            || self.code.is_some_and(|it| !json::is_nothing(it)) && self.message.is_some_and(is_text)
    }
}

/// A delta of `message_delta`. llama.cpp b11549 names the stop sequence beside `end_turn`.
#[derive(Default, Deserialize)]
pub(super) struct Ending<'a> {
    #[serde(borrow)]
    pub(super) stop_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) stop_sequence: Option<&'a RawValue>,
}

/// A block, or a piece of one.
#[derive(Deserialize)]
pub(super) struct Block<'a> {
    #[serde(borrow)]
    pub(super) r#type: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    signature: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(borrow)]
    partial_json: Option<&'a RawValue>,
}

impl<'a> Block<'a> {
    pub(super) fn read(value: Option<&'a RawValue>) -> Option<Self> {
        object(value?.get())
    }

    pub(super) fn kind(&self) -> Option<Cow<'a, str>> {
        self.r#type.and_then(json::text)
    }

    pub(super) fn text(&self) -> Cow<'a, str> {
        text(self.text)
    }

    pub(super) fn thinking(&self) -> Cow<'a, str> {
        text(self.thinking)
    }

    pub(super) fn signature(&self) -> Cow<'a, str> {
        text(self.signature)
    }

    pub(super) fn data(&self) -> Cow<'a, str> {
        text(self.data)
    }

    pub(super) fn id(&self) -> Option<String> {
        something(self.id)
    }

    pub(super) fn name(&self) -> Cow<'a, str> {
        text(self.name)
    }

    pub(super) fn partial_json(&self) -> Cow<'a, str> {
        text(self.partial_json)
    }
}

/// Reads an object; a derived reader alone would take a list as well.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    if !text.trim_ascii_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

/// A text; what is none is an empty one.
fn text(value: Option<&RawValue>) -> Cow<'_, str> {
    value.and_then(json::text).unwrap_or_default()
}

/// A text that is there and not empty.
pub(super) fn something(value: Option<&RawValue>) -> Option<String> {
    Some(text(value)).filter(|it| !it.is_empty()).map(Cow::into_owned)
}

/// What a stop reason says.
pub(super) enum Stop {
    /// The answer is whole.
    Whole(Reason),
    /// It is not.
    Failed,
}

impl Stop {
    pub(super) fn of(reason: &str) -> Self {
        Self::Whole(match reason {
            "end_turn" | "stop_sequence" => Reason::Stop,
            "max_tokens" | "model_context_window_exceeded" => Reason::Length,
            "tool_use" => Reason::ToolCalls,
            "refusal" => Reason::ContentFilter,
            // What the engine behind says when it dropped the request or failed,
            // where it is passed on as it is.
            "abort" | "error" => return Self::Failed,
            // `pause_turn` and whatever is new.
            _ => Reason::Other,
        })
    }
}

/// The counts as they come, each by itself: a later event has only those that changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    input: Option<u64>,
    read: Option<u64>,
    written: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
}

impl Counts {
    /// Takes what is there; what cannot be read is passed over.
    pub(super) fn take(&mut self, usage: Option<&RawValue>) {
        #[derive(Deserialize)]
        struct Written {
            input_tokens: Option<u64>,
            cache_read_input_tokens: Option<u64>,
            cache_creation_input_tokens: Option<u64>,
            output_tokens: Option<u64>,
            output_tokens_details: Option<Details>,
        }
        #[derive(Deserialize)]
        struct Details {
            thinking_tokens: Option<u64>,
        }
        let Some(usage) = usage.and_then(|it| object::<Written>(it.get())) else { return };
        self.input = usage.input_tokens.or(self.input);
        self.read = usage.cache_read_input_tokens.or(self.read);
        self.written = usage.cache_creation_input_tokens.or(self.written);
        self.output = usage.output_tokens.or(self.output);
        self.thinking = usage.output_tokens_details.and_then(|it| it.thinking_tokens).or(self.thinking);
    }

    /// Forgets the count of the answer: at the start of a stream it is none yet.
    pub(super) fn begin(&mut self) {
        self.output = None;
    }

    /// The counts as we have them. `said` is whether anything was: this language has no way to
    /// say that a count is not known, so a zero beside words, or a prompt of nothing, says that.
    pub(super) fn usage(&self, said: bool) -> Usage {
        // What is cached is not in `input_tokens`.
        let all = [self.input, self.read, self.written];
        let input = all.into_iter().flatten().fold(0, u64::saturating_add);
        Usage {
            input_tokens: Some(input).filter(|it| *it > 0),
            output_tokens: self.output.filter(|it| *it > 0 || !said),
            cached_tokens: self.read.filter(|_| input > 0),
            reasoning_tokens: self.thinking,
            written_tokens: self.written.filter(|it| *it > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(written: &[&str], said: bool) -> Usage {
        let mut counts = Counts::default();
        for usage in written {
            let raw: Box<RawValue> = serde_json::from_str(usage).unwrap();
            counts.take(Some(&raw));
        }
        counts.usage(said)
    }

    #[test]
    fn what_was_cached_is_part_of_the_prompt() {
        let all = r#"{"input_tokens":16,"cache_read_input_tokens":11,"cache_creation_input_tokens":3,
            "output_tokens":4,"output_tokens_details":{"thinking_tokens":2}}"#;
        let expected = Usage {
            input_tokens: Some(30),
            output_tokens: Some(4),
            cached_tokens: Some(11),
            reasoning_tokens: Some(2),
            written_tokens: Some(3),
        };
        assert_eq!(counts(&[all], true), expected);
    }

    #[test]
    fn later_counts_win_and_missing_ones_stay() {
        let usage = counts(&[r#"{"input_tokens":4,"output_tokens":0}"#, r#"{"output_tokens":7}"#], true);
        assert_eq!((usage.input_tokens, usage.output_tokens), (Some(4), Some(7)));
        let usage = counts(&[r#"{"input_tokens":4}"#, r#"{"input_tokens":27,"output_tokens":4}"#], true);
        assert_eq!(usage.input_tokens, Some(27), "Ollama guesses first");
    }

    #[test]
    fn absent_is_not_zero() {
        assert_eq!(counts(&["{}"], true), Usage::default());
        assert_eq!(counts(&[r#"{"input_tokens":0,"output_tokens":0}"#], true), Usage::default());
        let nothing_said = Usage { output_tokens: Some(0), ..Usage::default() };
        assert_eq!(counts(&[r#"{"input_tokens":0,"output_tokens":0}"#], false), nothing_said);
        assert_eq!(counts(&[r#"{"input_tokens":"x"}"#, "[]", "5"], true), Usage::default());
    }
}
