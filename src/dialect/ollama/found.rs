//! The fields of a request that are read, wherever they stand.

use serde_json::value::RawValue;

use crate::{
    dialect::{
        Door,
        json::{self, bad},
    },
    fault::Failure,
    generate::Operation,
};

/// The longest model name that is taken. Names go into headers, logs and records.
const LONGEST_NAME: usize = 512;

/// The fields that are read, as written; `null` counts as absent.
#[derive(Default)]
pub(super) struct Found<'a> {
    seen: u32,
    pub(super) name: Option<&'a RawValue>,
    pub(super) model: Option<&'a RawValue>,
    pub(super) stream: Option<&'a RawValue>,
    pub(super) written_stream: Option<&'a RawValue>,
    pub(super) truncate: Option<&'a RawValue>,
    pub(super) written_truncate: Option<&'a RawValue>,
    pub(super) messages: Option<&'a RawValue>,
    pub(super) prompt: Option<&'a RawValue>,
    pub(super) suffix: Option<&'a RawValue>,
    raw: Option<&'a RawValue>,
    pub(super) images: Option<&'a RawValue>,
    pub(super) tools: Option<&'a RawValue>,
    pub(super) input: Option<&'a RawValue>,
    pub(super) format: Option<&'a RawValue>,
    pub(super) options: Option<&'a RawValue>,
    pub(super) logprobs: Option<&'a RawValue>,
    pub(super) keep_alive: Option<&'a RawValue>,
}

impl<'a> Found<'a> {
    pub(super) fn of(body: &'a [u8]) -> Result<Self, Failure> {
        let mut found = Self::default();
        json::walk(body, |name, _, value| found.take(name, value))?;
        Ok(found)
    }

    fn take(&mut self, name: &str, value: &'a RawValue) -> Result<(), Failure> {
        let given = (value.get() != "null").then_some(value);
        let known = name.to_ascii_lowercase();
        let (bit, slot) = match known.as_str() {
            "model" => (0, &mut self.model),
            "name" => (1, &mut self.name),
            "stream" => {
                self.written_stream = Some(value);
                (2, &mut self.stream)
            }
            "truncate" => {
                self.written_truncate = Some(value);
                (3, &mut self.truncate)
            }
            "messages" => (4, &mut self.messages),
            "prompt" => (5, &mut self.prompt),
            "suffix" => (6, &mut self.suffix),
            "raw" => (7, &mut self.raw),
            "images" => (8, &mut self.images),
            "tools" => (9, &mut self.tools),
            "input" => (10, &mut self.input),
            "format" => (11, &mut self.format),
            "options" => (12, &mut self.options),
            "logprobs" => (13, &mut self.logprobs),
            "keep_alive" => (14, &mut self.keep_alive),
            _ => return Ok(()),
        };
        // The last one would count at Ollama, the first one at others.
        if self.seen & (1 << bit) != 0 {
            return Err(bad(format!("`{known}` is given twice")));
        }
        self.seen |= 1 << bit;
        *slot = given;
        Ok(())
    }

    /// The model's name; the older field for it is `name`.
    pub(super) fn model(&self) -> Result<String, Failure> {
        let (field, raw) = match (self.model, self.name) {
            (Some(model), _) => ("model", model),
            (None, Some(name)) => ("name", name),
            (None, None) => return Err(bad("`model` is missing; `auto` lets lovable choose")),
        };
        let Some(name) = json::text(raw) else {
            return Err(bad(format!("`{field}` must be a text; `auto` lets lovable choose")));
        };
        if name.trim().is_empty() {
            return Err(bad(format!("`{field}` is empty; `auto` lets lovable choose")));
        }
        if name.len() > LONGEST_NAME {
            return Err(bad(format!("`{field}` is longer than {LONGEST_NAME} bytes")));
        }
        if name.chars().any(char::is_control) {
            return Err(bad(format!("`{field}` has control characters in it")));
        }
        Ok(name.into_owned())
    }

    /// What is wanted of `/api/generate`: an answer, or with `raw` or `suffix` a text to go on.
    pub(super) fn operation(&self) -> Result<Operation, Failure> {
        let raw = self.truth("raw", self.raw)?.unwrap_or(false);
        let middle = self.suffix.is_some_and(|it| !json::is_nothing(it));
        Ok(if raw || middle { Operation::Complete } else { Operation::Chat })
    }

    /// Whether there is nothing to answer: Ollama takes that for a call to load the
    /// model, or with `keep_alive: 0` to unload it. At the end of a file there may be
    /// nothing before the cursor but something after it, and at its start the reverse:
    /// a `suffix` alone is work.
    pub(super) fn is_empty(&self, door: Door) -> bool {
        let nothing = |it: Option<&RawValue>| it.is_none_or(json::is_nothing);
        match door {
            Door::OllamaGenerate => nothing(self.prompt) && nothing(self.suffix),
            Door::OllamaEmbed => nothing(self.input),
            Door::OllamaEmbeddings => nothing(self.prompt),
            _ => nothing(self.messages),
        }
    }

    /// Whether the emptiness is none, or not one that Ollama would take.
    pub(super) fn has_wrong_types(&self, door: Door) -> bool {
        let begins = |it: Option<&RawValue>, with: &[char]| it.is_none_or(|it| it.get().starts_with(with));
        match door {
            Door::OllamaEmbed => self.input.is_none() || !begins(self.input, &['"', '[']),
            Door::OllamaEmbeddings => self.prompt.is_none() || !begins(self.prompt, &['"']),
            Door::OllamaGenerate => !begins(self.prompt, &['"']) || !begins(self.suffix, &['"']),
            _ => !begins(self.messages, &['[']),
        }
    }

    pub(super) fn truth(&self, name: &str, value: Option<&RawValue>) -> Result<Option<bool>, Failure> {
        match value.map(RawValue::get) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(bad(format!("`{name}` must be true or false"))),
        }
    }
}
