//! Takes a request apart: what it means, whatever language it is then said in.
//!
//! Ollama's calls have no ids of their own, and results name the tool at most: ids are
//! invented, and results matched to calls by name and order.

use serde_json::{Value, value::RawValue};

use super::{
    option::{self, Sort},
    request::limit,
};
use crate::{
    dialect::{
        Door,
        json::{self, bad},
    },
    fault::Failure,
    generate::{
        Call, Chat, Complete, Effort, Embed, Extras, Format, Image, ImageSource, Meaning, Part, Role,
        Sampling, Tool, ToolResult, Turn,
    },
};

/// Fields that change no answer where nothing is cut or shifted out of a context, which
/// is so at every server that this is said to.
const HINTS: [&str; 3] = ["truncate", "shift", "stream"];

/// Takes the whole request apart.
pub(super) fn understand(door: Door, body: &[u8]) -> Result<Meaning, Failure> {
    let mut body = Object::read(body)?;
    // Who answers has been decided.
    body.take("model");
    body.take("name");
    match door {
        Door::OllamaGenerate => generate(body),
        Door::OllamaEmbed | Door::OllamaEmbeddings => embed(door, body).map(Meaning::Embed),
        _ => chat(body).map(Meaning::Chat),
    }
}

fn chat(mut body: Object<'_>) -> Result<Chat, Failure> {
    let mut chat = Chat::default();
    let messages = list("messages", body.take("messages"))?;
    let mut calls = Calls::default();
    for (at, message) in messages.into_iter().enumerate() {
        let path = format!("messages[{at}]");
        let message = object(&path, message)?;
        chat.turns.push(turn(&path, message, &mut calls, &mut chat.extras)?);
    }
    for (at, tool) in list("tools", body.take("tools"))?.into_iter().enumerate() {
        let path = format!("tools[{at}]");
        chat.tools.push(self::tool(&path, object(&path, tool)?, &mut chat.extras)?);
    }
    chat.effort = effort(body.take("think"))?;
    finish_chat(body, chat)
}

/// What chat and the chat of one turn have in common.
fn finish_chat(mut body: Object<'_>, mut chat: Chat) -> Result<Chat, Failure> {
    chat.format = format(body.take("format"))?;
    chat.logprobs = logprobs(&mut body)?;
    chat.keep_alive = body.take("keep_alive").map(value);
    (chat.sampling, chat.context) = options(&mut body, &mut chat.extras)?;
    body.rest("", &HINTS, &mut chat.extras);
    Ok(chat)
}

fn generate(mut body: Object<'_>) -> Result<Meaning, Failure> {
    let raw = truth("raw", body.take("raw"))?.unwrap_or(false);
    let prompt = text("prompt", body.take("prompt"))?.unwrap_or_default();
    let suffix = text("suffix", body.take("suffix"))?.filter(|it| !it.is_empty());
    if !raw && suffix.is_none() {
        let mut turns = Vec::new();
        if let Some(system) = text("system", body.take("system"))?.filter(|it| !it.is_empty()) {
            turns.push(Turn::text(Role::System, system));
        }
        let mut parts = images("images", body.take("images"))?;
        if !prompt.is_empty() || parts.is_empty() {
            parts.push(Part::Text(prompt));
        }
        turns.push(Turn { role: Role::User, name: None, parts });
        let effort = effort(body.take("think"))?;
        return finish_chat(body, Chat { turns, effort, ..Chat::default() }).map(Meaning::Chat);
    }
    let mut complete = Complete { prompt, suffix, ..Complete::default() };
    complete.format = format(body.take("format"))?;
    complete.logprobs = logprobs(&mut body)?;
    complete.keep_alive = body.take("keep_alive").map(value);
    (complete.sampling, complete.context) = options(&mut body, &mut complete.extras)?;
    // What is left of `system`, `template`, `images` and `think` has no place beside a raw text.
    body.rest("", &HINTS, &mut complete.extras);
    Ok(Meaning::Complete(complete))
}

fn embed(door: Door, mut body: Object<'_>) -> Result<Embed, Failure> {
    let mut embed = Embed::default();
    if door == Door::OllamaEmbeddings {
        embed.inputs.extend(text("prompt", body.take("prompt"))?);
    } else {
        match body.take("input") {
            Some(one) if one.get().starts_with('"') => embed.inputs.extend(json::text(one).map(Into::into)),
            many => {
                for (at, one) in list("input", many)?.into_iter().enumerate() {
                    let one = json::text(one).ok_or_else(|| bad(format!("`input[{at}]` must be a text")))?;
                    embed.inputs.push(one.into_owned());
                }
            }
        }
        embed.dimensions = body.take("dimensions").and_then(|it| limit(it.get()));
        embed.truncate = truth("truncate", body.take("truncate"))?;
    }
    embed.keep_alive = body.take("keep_alive").map(value);
    // How tokens are picked changes no vector.
    (_, embed.context) = options(&mut body, &mut embed.extras)?;
    body.rest("", &["stream"], &mut embed.extras);
    Ok(embed)
}

/// The calls so far, to find the one that a result belongs to.
#[derive(Default)]
struct Calls {
    /// Id, tool, and whether its result has come.
    all: Vec<(String, String, bool)>,
}

impl Calls {
    /// Takes note of a call; makes up an id that no other has.
    fn call(&mut self, id: Option<String>, name: &str) -> String {
        let id = id.filter(|it| !it.is_empty()).unwrap_or_else(|| {
            (self.all.len()..).map(|it| format!("call_{it}")).find(|it| !self.has(it)).unwrap_or_default()
        });
        self.all.push((id.clone(), name.to_owned(), false));
        id
    }

    fn has(&self, id: &str) -> bool {
        self.all.iter().any(|(other, ..)| other == id)
    }

    /// The id and the tool of the call that a result belongs to.
    fn result(&mut self, id: Option<String>, name: Option<String>) -> (String, Option<String>) {
        let found = match (&id, &name) {
            (Some(id), _) => self.all.iter_mut().rev().find(|(other, ..)| other == id),
            (None, Some(name)) => self.all.iter_mut().find(|(_, other, done)| !done && other == name),
            (None, None) => self.all.iter_mut().find(|(_, _, done)| !done),
        };
        match found {
            Some((id, tool, done)) => {
                *done = true;
                (id.clone(), Some(tool.clone()))
            }
            // A result without a call: Ollama takes it.
            None => {
                let tool = name.clone().unwrap_or_default();
                let id = self.call(id, &tool);
                if let Some((.., done)) = self.all.last_mut() {
                    *done = true;
                }
                (id, name)
            }
        }
    }
}

fn turn(
    path: &str,
    mut message: Object<'_>,
    calls: &mut Calls,
    extras: &mut Extras,
) -> Result<Turn, Failure> {
    let field = |name: &str| format!("{path}.{name}");
    let role = match text(&field("role"), message.take("role"))?.as_deref() {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        Some(_) => return Err(bad(format!("`{path}.role` must be system, user, assistant or tool"))),
        None => return Err(bad(format!("`{path}.role` is missing"))),
    };
    let content = text(&field("content"), message.take("content"))?.unwrap_or_default();
    let thinking = text(&field("thinking"), message.take("thinking"))?.unwrap_or_default();
    let mut parts = images(&field("images"), message.take("images"))?;
    if !content.is_empty() {
        parts.push(Part::Text(content));
    }
    match role {
        Role::Assistant => {
            if !thinking.is_empty() {
                parts.insert(0, Part::Thinking { text: thinking, signature: None });
            }
            for (at, call) in list(&field("tool_calls"), message.take("tool_calls"))?.into_iter().enumerate()
            {
                let path = format!("{path}.tool_calls[{at}]");
                parts.push(Part::Call(self::call(&path, object(&path, call)?, calls, extras)?));
            }
        }
        Role::Tool => {
            let id = text(&field("tool_call_id"), message.take("tool_call_id"))?.filter(|it| !it.is_empty());
            // Before `tool_name` clients wrote `name`.
            let named = message.take("tool_name").or_else(|| message.take("name"));
            let named = text(&field("tool_name"), named)?.filter(|it| !it.is_empty());
            let (id, name) = calls.result(id, named);
            parts = vec![Part::Result(ToolResult { id, name, parts, is_error: false })];
        }
        Role::System | Role::User => {}
    }
    // Ollama has no names of speakers and passes them over; so does nearly every template.
    message.rest(&format!("{path}."), &["name"], extras);
    Ok(Turn { role, name: None, parts })
}

fn call(path: &str, mut call: Object<'_>, calls: &mut Calls, extras: &mut Extras) -> Result<Call, Failure> {
    let id = text(&format!("{path}.id"), call.take("id"))?;
    let function = format!("{path}.function");
    let inner = call.take("function").ok_or_else(|| bad(format!("`{function}` is missing")))?;
    let mut inner = object(&function, inner)?;
    let name = text(&format!("{function}.name"), inner.take("name"))?.filter(|it| !it.is_empty());
    let name = name.ok_or_else(|| bad(format!("`{function}.name` is missing")))?;
    let arguments = match inner.take("arguments") {
        None => "{}".to_owned(),
        Some(object) if object.get().starts_with('{') => object.get().to_owned(),
        Some(_) => return Err(bad(format!("`{function}.arguments` must be an object"))),
    };
    inner.rest(&format!("{function}."), &["index"], extras);
    call.rest(&format!("{path}."), &["type", "index"], extras);
    Ok(Call { id: calls.call(id, &name), name, arguments })
}

fn tool(path: &str, mut tool: Object<'_>, extras: &mut Extras) -> Result<Tool, Failure> {
    if let Some(sort) = text(&format!("{path}.type"), tool.take("type"))?
        && sort != "function"
    {
        return Err(bad(format!("`{path}.type` must be function")));
    }
    let function = format!("{path}.function");
    let inner = tool.take("function").ok_or_else(|| bad(format!("`{function}` is missing")))?;
    let mut inner = object(&function, inner)?;
    let name = text(&format!("{function}.name"), inner.take("name"))?.filter(|it| !it.is_empty());
    let made = Tool {
        name: name.ok_or_else(|| bad(format!("`{function}.name` is missing")))?,
        description: text(&format!("{function}.description"), inner.take("description"))?,
        parameters: inner.take("parameters").map(value),
        strict: truth(&format!("{function}.strict"), inner.take("strict"))?,
    };
    inner.rest(&format!("{function}."), &[], extras);
    tool.rest(&format!("{path}."), &[], extras);
    Ok(made)
}

/// Images in base64; their sort is seen by how they begin.
fn images(path: &str, value: Option<&RawValue>) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::new();
    for (at, image) in list(path, value)?.into_iter().enumerate() {
        let base64 =
            json::text(image).ok_or_else(|| bad(format!("`{path}[{at}]` must be a text in base64")))?;
        let is_base64 = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'+' | b'/' | b'=');
        if base64.is_empty() || !base64.bytes().all(is_base64) {
            return Err(bad(format!("`{path}[{at}]` must be an image in base64, without a prefix")));
        }
        let source =
            ImageSource::Data { media_type: media_type(&base64).to_owned(), base64: base64.into_owned() };
        parts.push(Part::Image(Image { source, detail: None }));
    }
    Ok(parts)
}

/// What sort of image begins like this.
fn media_type(base64: &str) -> &'static str {
    let begins = [
        ("iVBORw0KGgo", "image/png"),
        ("/9j/", "image/jpeg"),
        ("UklGR", "image/webp"),
        ("R0lGOD", "image/gif"),
        ("Qk", "image/bmp"),
        ("SUkq", "image/tiff"),
        ("TU0AK", "image/tiff"),
    ];
    let found = begins.iter().find(|(start, _)| base64.starts_with(start));
    found.map_or("application/octet-stream", |(_, sort)| sort)
}

fn effort(think: Option<&RawValue>) -> Result<Option<Effort>, Failure> {
    let wrong = || bad("`think` must be true, false or a level: low, medium, high, max");
    Ok(match think.map(RawValue::get) {
        None => None,
        Some("true") => Some(Effort::On),
        Some("false") => Some(Effort::Off),
        Some(_) => match think.and_then(json::text).ok_or_else(wrong)?.as_ref() {
            "" => None,
            level @ ("minimal" | "low" | "medium" | "high" | "xhigh" | "max") => {
                Some(Effort::Level(level.to_owned()))
            }
            _ => return Err(wrong()),
        },
    })
}

fn format(given: Option<&RawValue>) -> Result<Format, Failure> {
    Ok(match given.map(RawValue::get) {
        None | Some("\"\"") => Format::Text,
        Some("\"json\"") => Format::Json,
        Some(schema) if schema.starts_with('{') => {
            Format::Schema { name: None, schema: given.map(value).unwrap_or_default(), strict: None }
        }
        Some(_) => return Err(bad("`format` must be \"json\" or a JSON schema")),
    })
}

fn logprobs(body: &mut Object<'_>) -> Result<Option<u32>, Failure> {
    let wanted = truth("logprobs", body.take("logprobs"))?.unwrap_or(false);
    let top = body.take("top_logprobs").and_then(|it| it.get().parse().ok()).unwrap_or(0);
    Ok((wanted || top > 0).then_some(top))
}

/// How tokens are picked, and the context; what has no name here goes to the extras.
fn options(body: &mut Object<'_>, extras: &mut Extras) -> Result<(Sampling, Option<u64>), Failure> {
    let mut sampling = Sampling::default();
    let mut context = None;
    let Some(options) = body.take("options") else { return Ok((sampling, context)) };
    for (name, raw) in object("options", options)?.0 {
        if let Some(wrong) = option::wrong(&name, raw.get()) {
            return Err(bad(format!("`options.{name}` {wrong}")));
        }
        let number = || raw.get().parse::<f64>().ok();
        #[expect(clippy::cast_possible_truncation, reason = "as Ollama does it")]
        let whole = || number().map(|it| it as i64);
        match option::sort(&name) {
            Some(Sort::Machine) => {}
            Some(Sort::Own(neutral)) if number().is_none_or(|it| it == neutral) => {}
            Some(Sort::Own(_)) => extras.push((format!("options.{name}"), value(raw))),
            Some(Sort::Named) => match name.as_str() {
                "num_predict" => sampling.max_tokens = limit(raw.get()),
                "num_ctx" => context = limit(raw.get()),
                "temperature" => sampling.temperature = number(),
                "top_p" => sampling.top_p = number(),
                "top_k" => sampling.top_k = whole(),
                "min_p" => sampling.min_p = number(),
                "frequency_penalty" => sampling.frequency_penalty = number(),
                "presence_penalty" => sampling.presence_penalty = number(),
                "repeat_penalty" => sampling.repeat_penalty = number(),
                // -1 is Ollama's word for chance.
                "seed" => sampling.seed = whole().filter(|it| *it >= 0),
                _ => sampling.stop = serde_json::from_str(raw.get()).unwrap_or_default(),
            },
            None if json::is_nothing(raw) => {}
            None => extras.push((format!("options.{name}"), value(raw))),
        }
    }
    Ok((sampling, context))
}

/// The fields of an object, of which some have been taken.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Failure> {
        let mut fields = Vec::new();
        json::walk(body, |name, _, value| {
            fields.push((name.to_owned(), value));
            Ok(())
        })?;
        Ok(Self(fields))
    }

    /// Takes a field, whatever its letter case; of several the last, as Ollama does. `null` is absent.
    fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let mut found = None;
        self.0.retain(|(field, value)| {
            let is_it = field.eq_ignore_ascii_case(name);
            if is_it {
                found = Some(*value);
            }
            !is_it
        });
        found.filter(|it| it.get() != "null")
    }

    /// What nobody took and says something.
    fn rest(self, prefix: &str, hints: &[&str], extras: &mut Extras) {
        for (name, raw) in self.0 {
            let is_hint = hints.iter().any(|it| name.eq_ignore_ascii_case(it));
            if !is_hint && !json::is_nothing(raw) {
                extras.push((format!("{prefix}{name}"), value(raw)));
            }
        }
    }
}

fn object<'a>(path: &str, raw: &'a RawValue) -> Result<Object<'a>, Failure> {
    if !raw.get().starts_with('{') {
        return Err(bad(format!("`{path}` must be an object")));
    }
    Object::read(raw.get().as_bytes())
}

fn list<'a>(path: &str, raw: Option<&'a RawValue>) -> Result<Vec<&'a RawValue>, Failure> {
    match raw {
        None => Ok(Vec::new()),
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| bad(format!("`{path}` must be a list"))),
    }
}

fn text(path: &str, raw: Option<&RawValue>) -> Result<Option<String>, Failure> {
    match raw {
        None => Ok(None),
        Some(raw) => match json::text(raw) {
            Some(text) => Ok(Some(text.into_owned())),
            None => Err(bad(format!("`{path}` must be a text"))),
        },
    }
}

fn truth(path: &str, raw: Option<&RawValue>) -> Result<Option<bool>, Failure> {
    match raw.map(RawValue::get) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(bad(format!("`{path}` must be true or false"))),
    }
}

/// JSON that has been walked over, taken apart.
fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_default()
}
