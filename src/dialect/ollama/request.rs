//! A caller's request: what routing needs of it, and where to change it.
//!
//! Ollama reads the names of fields whatever their letter case, so a `Stream` counts
//! here as it does there. What it answers with a 500 though the caller is to blame
//! (a wrong type under `options`, an unknown `format`) is refused here.

use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::option;
use crate::{
    dialect::{
        Door, Request, To,
        json::{self, bad},
    },
    fault::Failure,
    generate::{Head, Needs, Operation},
};

/// The longest model name that is taken. Names go into headers, logs and records.
const LONGEST_NAME: usize = 512;

/// Finds what routing needs, in one pass and without copying.
pub(super) fn peek(door: Door, body: &Bytes) -> Result<Request, Failure> {
    let found = Found::of(body)?;
    let model = found.model()?;
    let streams = matches!(door, Door::OllamaChat | Door::OllamaGenerate);
    let stream = found.truth("stream", found.stream)?.unwrap_or(true) && streams;
    let mut needs = Needs::default();
    let operation = match door {
        Door::OllamaGenerate => {
            text("prompt", found.prompt)?;
            text("suffix", found.suffix)?;
            needs.vision = list("images", found.images)?;
            found.operation()?
        }
        Door::OllamaEmbed => {
            match found.input.map(RawValue::get) {
                None => return Err(bad("`input` is missing")),
                Some(it) if !it.starts_with(['"', '[']) => {
                    return Err(bad("`input` must be a text or a list of texts"));
                }
                Some(_) => {}
            }
            Operation::Embed
        }
        Door::OllamaEmbeddings => {
            text("prompt", found.prompt)?;
            if found.prompt.is_none() {
                return Err(bad("`prompt` is missing"));
            }
            Operation::Embed
        }
        _ => {
            needs.vision = look_at_messages(found.messages)?;
            needs.tools = list("tools", found.tools)?;
            Operation::Chat
        }
    };
    if found.is_empty(door) {
        return Err(bad(match door {
            Door::OllamaGenerate => {
                "`prompt` is empty, which loads or unloads a model; lovable loads models when they are asked"
            }
            Door::OllamaEmbed => "`input` is empty",
            Door::OllamaEmbeddings => "`prompt` is empty",
            _ => {
                "`messages` is empty, which loads or unloads a model; lovable loads models when they are asked"
            }
        }));
    }
    needs.fim = operation == Operation::Complete && found.suffix.is_some_and(|it| !json::is_nothing(it));
    check_format(found.format)?;
    let max_tokens = look_at_options(found.options)?;
    Ok(Request {
        door,
        head: Head { operation, model, stream, max_tokens, needs },
        // The last line always has them.
        asks_usage: true,
        choices: 1,
        logprobs: found.truth("logprobs", found.logprobs)?.unwrap_or(false),
        spans: crate::dialect::openai::Spans::default(),
    })
}

/// The fields that are read, as written; `null` counts as absent.
#[derive(Default)]
pub(super) struct Found<'a> {
    seen: u32,
    name: Option<&'a RawValue>,
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    written_stream: Option<&'a RawValue>,
    truncate: Option<&'a RawValue>,
    written_truncate: Option<&'a RawValue>,
    pub(super) messages: Option<&'a RawValue>,
    pub(super) prompt: Option<&'a RawValue>,
    pub(super) suffix: Option<&'a RawValue>,
    raw: Option<&'a RawValue>,
    images: Option<&'a RawValue>,
    tools: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    format: Option<&'a RawValue>,
    options: Option<&'a RawValue>,
    logprobs: Option<&'a RawValue>,
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

    fn truth(&self, name: &str, value: Option<&RawValue>) -> Result<Option<bool>, Failure> {
        match value.map(RawValue::get) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(bad(format!("`{name}` must be true or false"))),
        }
    }
}

fn text(name: &str, value: Option<&RawValue>) -> Result<(), Failure> {
    match value {
        Some(value) if !value.get().starts_with('"') => Err(bad(format!("`{name}` must be a text"))),
        _ => Ok(()),
    }
}

/// Whether there is something in this list.
fn list(name: &str, value: Option<&RawValue>) -> Result<bool, Failure> {
    match value {
        None => Ok(false),
        Some(value) if value.get().starts_with('[') => Ok(!json::is_nothing(value)),
        Some(_) => Err(bad(format!("`{name}` must be a list"))),
    }
}

/// Checks the messages' shape; says whether one of them shows an image.
fn look_at_messages(raw: Option<&RawValue>) -> Result<bool, Failure> {
    list("messages", raw)?;
    let Some(raw) = raw else { return Ok(false) };
    let messages: Vec<&RawValue> =
        serde_json::from_str(raw.get()).map_err(|_| bad("`messages` must be a list of messages"))?;
    let mut shows = false;
    for (at, message) in messages.into_iter().enumerate() {
        if !message.get().starts_with('{') {
            return Err(bad(format!("`messages[{at}]` must be an object")));
        }
        let mut role = None;
        json::walk(message.get().as_bytes(), |name, _, value| {
            if name.eq_ignore_ascii_case("role") {
                role = Some(value);
            } else if name.eq_ignore_ascii_case("images") && value.get() != "null" {
                shows |= list(&format!("messages[{at}].images"), Some(value))?;
            }
            Ok(())
        })?;
        match role {
            None => return Err(bad(format!("`messages[{at}].role` is missing"))),
            Some(role) if !role.get().starts_with('"') => {
                return Err(bad(format!("`messages[{at}].role` must be a text")));
            }
            Some(_) => {}
        }
    }
    Ok(shows)
}

/// `"json"` or a schema; Ollama 0.24.0 says 500 to everything else.
fn check_format(value: Option<&RawValue>) -> Result<(), Failure> {
    match value.map(RawValue::get) {
        None | Some("\"\"" | "\"json\"") => Ok(()),
        Some(schema) if schema.starts_with('{') => Ok(()),
        Some(_) => Err(bad("`format` must be \"json\" or a JSON schema")),
    }
}

/// Checks the types under `options`; gives the most tokens that are wanted.
fn look_at_options(options: Option<&RawValue>) -> Result<Option<u64>, Failure> {
    let Some(options) = options else { return Ok(None) };
    if !options.get().starts_with('{') {
        return Err(bad("`options` must be an object"));
    }
    let mut most = None;
    json::walk(options.get().as_bytes(), |name, _, value| {
        if let Some(wrong) = option::wrong(name, value.get()) {
            return Err(bad(format!("`options.{name}` {wrong}")));
        }
        if name == "num_predict" {
            most = limit(value.get());
        }
        Ok(())
    })?;
    Ok(most)
}

/// The tokens that a `num_predict` allows. -1 is no limit, -2 until the context is
/// full, and 0 is no limit either (seen with 0.24.0).
pub(super) fn limit(value: &str) -> Option<u64> {
    match serde_json::from_str::<f64>(value) {
        // Whole below 2^53, so nothing is lost that matters.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked on the left")]
        Ok(number) if (1.0..9e15).contains(&number) => Some(number as u64),
        _ => None,
    }
}

/// The caller's bytes for a server: model and stream as `to` has them, and
/// `truncate: false` where the caller did not say.
///
/// Chat and generate take `truncate` since 0.12.4, embed since 0.2.6; older versions pass
/// the field over. With it a prompt that does not fit is a 400 before any byte of an
/// answer, streamed or not; without it the oldest turns are gone and nothing tells
/// (both seen with 0.24.0). `/api/embeddings` has no such field and never cuts.
pub(super) fn readdress(request: &Request, body: &Bytes, to: &To<'_>) -> Bytes {
    // It was walked over when it was peeked at.
    let Ok(found) = Found::of(body) else { return body.clone() };
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut first = String::new();
    if to.model != request.head.model {
        for given in [found.model, found.name].into_iter().flatten() {
            edits.push((json::span(body, given), json::quote(to.model)));
        }
    }
    if found.model.is_none() {
        first.push_str(&format!("\"model\":{},", json::quote(to.model)));
    }
    if matches!(request.door, Door::OllamaChat | Door::OllamaGenerate) {
        let stream = if to.stream { "true" } else { "false" };
        match found.written_stream {
            Some(given) if given.get() != stream => edits.push((json::span(body, given), stream.to_owned())),
            None if !to.stream => first.push_str("\"stream\":false,"),
            Some(_) | None => {}
        }
    }
    if request.door != Door::OllamaEmbeddings && found.truncate.is_none() {
        match found.written_truncate {
            Some(null) => edits.push((json::span(body, null), "false".to_owned())),
            None => first.push_str("\"truncate\":false,"),
        }
    }
    if !first.is_empty() {
        // Never an empty object: the name of the model is in it.
        let open = body.iter().position(|it| *it == b'{').map_or(0, |at| at + 1);
        edits.push((open..open, first));
    }
    if edits.is_empty() {
        return body.clone();
    }
    edits.sort_by_key(|(span, _)| span.start);
    json::splice(body, &edits)
}
