//! What is looked at in a line of a stream or in a whole answer: borrowed, and only
//! as deep as needed.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    dialect::{Door, json},
    fault::Cause,
    generate::{Event, Reason, Usage},
};

/// A line of a stream, or a whole answer: chat has `message`, generate has the same
/// fields beside the others, with `response` for `content`.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<Said<'a>>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    done: Option<&'a RawValue>,
    #[serde(borrow)]
    done_reason: Option<&'a RawValue>,
    #[serde(borrow, rename = "_debug_info")]
    debug_info: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_eval_count: Option<&'a RawValue>,
    #[serde(borrow)]
    eval_count: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) embedding: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) embeddings: Option<&'a RawValue>,
}

/// What was said in a line.
#[derive(Clone, Copy, Default, Deserialize)]
pub(super) struct Said<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
}

impl<'a> Line<'a> {
    /// Reads JSON; anything but an object is `None`.
    pub(super) fn read(data: &'a [u8]) -> Option<Self> {
        // Checked as a whole, since fields that are skipped are not looked at.
        let text = std::str::from_utf8(data).ok()?;
        if !text.trim_ascii_start().starts_with('{') {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    /// Whether it reports an error.
    pub(super) fn is_error(&self) -> bool {
        self.error.is_some_and(|it| !json::is_nothing(it))
    }

    /// The name of the model, if there is one.
    pub(super) fn model(&self) -> Option<String> {
        let name = json::text(self.model?)?;
        (!name.is_empty()).then(|| name.into_owned())
    }

    /// What was said, if this is a line of an answer at this door.
    pub(super) fn said(&self, door: Door) -> Option<Said<'a>> {
        match door {
            Door::OllamaGenerate => {
                let content = self.response?;
                Some(Said { content: Some(content), thinking: self.thinking, tool_calls: self.tool_calls })
            }
            _ => self.message,
        }
    }

    /// Whether it is the last one. What `_debug_render_only` asks for comes in one line
    /// that says `done: false` (seen with 0.24.0).
    pub(super) fn is_done(&self) -> bool {
        self.done.is_some_and(|it| it.get() == "true") || self.debug_info.is_some()
    }

    /// Why the model stopped. Ollama leaves the reason away when the connection to its
    /// runner broke, so none is no answer.
    pub(super) fn reason(&self) -> Option<Reason> {
        let Some(reason) = self.done_reason else { return self.debug_info.map(|_| Reason::Other) };
        Some(match &*json::text(reason)? {
            "" => return None,
            "stop" => Reason::Stop,
            "length" => Reason::Length,
            // Not Ollama, but servers that speak its language.
            "tool_calls" => Reason::ToolCalls,
            "content_filter" => Reason::ContentFilter,
            // Also `load` and `unload`: nothing was asked.
            _ => Reason::Other,
        })
    }

    /// The counts. Ollama leaves a zero away, and the whole of a prompt that it had read
    /// before may be counted so: absent and zero are both not known.
    pub(super) fn usage(&self) -> Usage {
        let count = |it: Option<&RawValue>| it.and_then(|it| it.get().parse().ok());
        Usage {
            input_tokens: count(self.prompt_eval_count).filter(|it| *it != 0),
            output_tokens: count(self.eval_count),
            ..Usage::default()
        }
    }

    /// Log probabilities of the tokens of this line, in the shape that OpenAI has, too.
    pub(super) fn logprobs(&self) -> Result<Vec<Value>, Cause> {
        match self.logprobs {
            None => Ok(Vec::new()),
            Some(list) => serde_json::from_str::<Option<Vec<Value>>>(list.get())
                .map(Option::unwrap_or_default)
                .map_err(|_| Cause::Unreadable),
        }
    }
}

impl Said<'_> {
    /// Whether there is something that a caller would miss.
    pub(super) fn is_something(&self) -> bool {
        [self.content, self.thinking, self.tool_calls].into_iter().flatten().any(|it| !json::is_nothing(it))
    }

    /// The calls in it.
    pub(super) fn calls(&self) -> Result<Vec<Called>, Cause> {
        #[derive(Deserialize)]
        struct Call<'a> {
            #[serde(borrow)]
            id: Option<&'a RawValue>,
            #[serde(borrow)]
            function: Function<'a>,
        }
        #[derive(Deserialize)]
        struct Function<'a> {
            #[serde(borrow)]
            name: &'a RawValue,
            #[serde(borrow)]
            arguments: Option<&'a RawValue>,
        }
        let Some(list) = self.tool_calls.filter(|it| it.get() != "null") else { return Ok(Vec::new()) };
        let calls: Vec<Call<'_>> = serde_json::from_str(list.get()).map_err(|_| Cause::Unreadable)?;
        let calls = calls.into_iter().map(|call| {
            let name = json::text(call.function.name).filter(|it| !it.is_empty())?;
            let arguments = match call.function.arguments {
                None => "{}".into(),
                Some(object) if object.get().starts_with('{') => object.get().to_owned(),
                Some(null) if null.get() == "null" => "{}".into(),
                // Not Ollama, but servers that speak its language: OpenAI's form.
                Some(text) => json::text(text).filter(|it| is_object(it))?.into_owned(),
            };
            let id = call.id.and_then(json::text).filter(|it| !it.is_empty());
            Some(Called { id: id.map(Into::into), name: name.into_owned(), arguments })
        });
        calls.collect::<Option<Vec<_>>>().ok_or(Cause::Unreadable)
    }

    /// Says what it means; calls are numbered from `calls` on.
    pub(super) fn tell(&self, calls: &mut usize, events: &mut Vec<Event>) -> Result<(), Cause> {
        let text = |it: Option<&RawValue>| match it {
            None => Ok(String::new()),
            Some(null) if null.get() == "null" => Ok(String::new()),
            Some(text) => json::text(text).map(Into::into).ok_or(Cause::Unreadable),
        };
        let (thinking, content) = (text(self.thinking)?, text(self.content)?);
        if !thinking.is_empty() {
            events.push(Event::Thinking(thinking));
        }
        if !content.is_empty() {
            events.push(Event::Text(content));
        }
        for call in self.calls()? {
            events.push(Event::Call { index: *calls, id: call.id, name: call.name });
            events.push(Event::Arguments { index: *calls, text: call.arguments });
            *calls += 1;
        }
        Ok(())
    }
}

/// A call as it came: whole.
pub(super) struct Called {
    id: Option<String>,
    name: String,
    arguments: String,
}

/// Whether a text is a JSON object.
pub(super) fn is_object(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok()
}
