//! What is looked at in a chunk or an answer: borrowed, and only as deep as needed.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize,
    de::{Deserializer, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    dialect::json,
    generate::{Begun, Operation, Reason, Usage},
};

/// A chunk of a stream, or a whole answer.
#[derive(Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) object: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) model: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) choices: Option<Choices<'a>>,
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
}

impl<'a> Chunk<'a> {
    /// Reads JSON; anything but an object is `None`.
    pub(super) fn read(data: &'a [u8]) -> Option<Self> {
        // Checked as a whole, since fields that are skipped are not looked at.
        let text = std::str::from_utf8(data).ok()?;
        if !text.trim_ascii_start().starts_with('{') {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    /// Whether it reports an error: vLLM, llama.cpp and most others in `error`,
    /// LM Studio as a text there, old vLLM and SGLang with `object`.
    pub(super) fn is_error(&self) -> bool {
        self.error.is_some_and(|it| !json::is_nothing(it))
            || self.object.is_some_and(|it| it.get() == "\"error\"")
    }

    /// The name of the model, if there is one.
    pub(super) fn model(&self) -> Option<String> {
        let name = json::text(self.model?)?;
        (!name.is_empty()).then(|| name.into_owned())
    }

    /// The counts, if they can be read.
    pub(super) fn usage(&self) -> Option<Usage> {
        #[derive(Deserialize)]
        struct Counts {
            prompt_tokens: Option<u64>,
            completion_tokens: Option<u64>,
            total_tokens: Option<u64>,
            prompt_tokens_details: Option<Cached>,
            completion_tokens_details: Option<Reasoning>,
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
        // Gemini leaves what was thought out of `completion_tokens`, not out of the sum.
        let rest =
            counts.total_tokens.zip(counts.prompt_tokens).map(|(all, prompt)| all.saturating_sub(prompt));
        Some(Usage {
            input_tokens: counts.prompt_tokens,
            output_tokens: counts.completion_tokens.map(|it| it.max(rest.unwrap_or(0))),
            cached_tokens: counts.prompt_tokens_details.and_then(|it| it.cached_tokens),
            reasoning_tokens: counts.completion_tokens_details.and_then(|it| it.reasoning_tokens),
            written_tokens: None,
        })
    }
}

/// The choices. Nearly always one, and then nothing is allocated.
pub(super) struct Choices<'a> {
    pub(super) first: Option<Choice<'a>>,
    pub(super) more: Vec<Choice<'a>>,
}

impl<'a> Choices<'a> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Choice<'a>> {
        self.first.iter().chain(&self.more)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Choices<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for List<'a> {
            type Value = Choices<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Choices<'a>, A::Error> {
                let first = list.next_element()?;
                let mut more = Vec::new();
                while let Some(choice) = list.next_element()? {
                    more.push(choice);
                }
                Ok(Choices { first, more })
            }
        }
        from.deserialize_seq(List(PhantomData))
    }
}

/// One choice.
#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    pub(super) index: Option<u32>,
    #[serde(borrow)]
    pub(super) delta: Option<Said<'a>>,
    #[serde(borrow)]
    pub(super) message: Option<Said<'a>>,
    #[serde(borrow)]
    pub(super) text: Option<&'a RawValue>,
    pub(super) finish_reason: Option<String>,
}

impl Choice<'_> {
    /// Whether it has content, where this operation has it.
    pub(super) fn has_content(&self, operation: Operation) -> bool {
        match operation {
            Operation::Chat => [&self.delta, &self.message].into_iter().flatten().any(Said::is_something),
            Operation::Complete => self.text.is_some_and(|it| !json::is_nothing(it)),
            Operation::Embed => false,
        }
    }

    /// Keeps what it says.
    pub(super) fn tell(&self, operation: Operation, begun: &mut Begun) {
        if self.index.unwrap_or(0) != 0 {
            return begun.go_beyond();
        }
        match operation {
            Operation::Chat => {
                [&self.delta, &self.message].into_iter().flatten().for_each(|it| it.tell(begun))
            }
            Operation::Complete => tell(self.text, begun, Begun::say),
            Operation::Embed => {}
        }
    }

    /// Why it ended, if it did. An empty reason is none.
    pub(super) fn finish(&self) -> Option<Finish> {
        let reason = self.finish_reason.as_deref().filter(|it| !it.is_empty())?;
        Some(match reason {
            "stop" | "eos" | "eos_token" | "stop_sequence" => Finish::Whole(Reason::Stop),
            "length" => Finish::Whole(Reason::Length),
            "tool_calls" | "function_call" => Finish::Whole(Reason::ToolCalls),
            "content_filter" => Finish::Whole(Reason::ContentFilter),
            // vLLM says `abort` when it is told to drop a request, OpenRouter
            // `error` when the server behind it failed: neither is an answer.
            "abort" | "error" => Finish::Failed,
            _ => Finish::Whole(Reason::Other),
        })
    }
}

/// What a finish reason says.
pub(super) enum Finish {
    /// The answer is whole.
    Whole(Reason),
    /// It is not.
    Failed,
}

/// A delta or a message.
#[derive(Deserialize)]
pub(super) struct Said<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
}

/// Keeps a text; what is none, like a list of parts, is more than can be kept.
fn tell(value: Option<&RawValue>, begun: &mut Begun, keep: fn(&mut Begun, &str)) {
    let Some(value) = value.filter(|it| !json::is_nothing(it)) else { return };
    match json::text(value) {
        Some(text) => keep(begun, &text),
        None => begun.go_beyond(),
    }
}

impl Said<'_> {
    fn tell(&self, begun: &mut Begun) {
        // Some servers say the same under both names.
        tell(
            self.reasoning_content.filter(|it| !json::is_nothing(it)).or(self.reasoning),
            begun,
            Begun::think,
        );
        tell(self.content, begun, Begun::say);
        let others = [self.refusal, self.tool_calls, self.function_call];
        if others.into_iter().flatten().any(|it| !json::is_nothing(it)) {
            begun.go_beyond();
        }
    }

    fn is_something(&self) -> bool {
        [
            self.content,
            self.reasoning,
            self.reasoning_content,
            self.refusal,
            self.tool_calls,
            self.function_call,
        ]
        .into_iter()
        .flatten()
        .any(|it| !json::is_nothing(it))
    }
}
