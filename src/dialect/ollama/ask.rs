//! Says a meaning in Ollama's own language.
//!
//! Always with `truncate: false`: Ollama would otherwise drop the oldest turns of a
//! conversation that does not fit and answer 200. A call that must be made is asked for
//! as structured output, since Ollama cannot force one.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    line::is_object,
    option::{self, Sort},
};
use crate::{
    dialect::{Asked, Door, Lack, To},
    generate::{
        Chat, Complete, Effort, Embed, Extras, Format, ImageSource, Meaning, Part, Role, Sampling,
        ToolChoice, Turn,
    },
};

/// Says it at this door.
pub(super) fn ask(door: Door, meaning: &Meaning, to: &To<'_>) -> Result<Asked, Lack> {
    match (door, meaning) {
        (Door::OllamaChat, Meaning::Chat(it)) => chat(it, to),
        (Door::OllamaGenerate, Meaning::Complete(it)) => complete(it, to).map(Asked::from),
        (Door::OllamaEmbed | Door::OllamaEmbeddings, Meaning::Embed(it)) => {
            embed(door, it, to).map(Asked::from)
        }
        (door, _) => Err(lack(format!("this request cannot be said at Ollama's {}", door.path()))),
    }
}

fn chat(chat: &Chat, to: &To<'_>) -> Result<Asked, Lack> {
    let forced = forced(chat)?;
    several(chat.choices)?;
    let mut turns = Vec::new();
    if let Some(call) = &forced {
        turns.push(json!({"role": "system", "content": call.instruction()}).to_string());
    }
    for turn in &chat.turns {
        say(turn, &mut turns)?;
    }
    if chat.turns.is_empty() {
        return Err(lack(
            "a conversation without a turn cannot be said to Ollama, which takes it for a call to load",
        ));
    }
    let mut body = Body::new(to);
    body.raw("messages", format!("[{}]", turns.join(",")));
    match &forced {
        Some(call) => body.set("format", call.schema.clone()),
        None => {
            let tools = offered(chat);
            if !tools.is_empty() {
                if chat.format != Format::Text {
                    return Err(lack(
                        "a form of the answer beside tools cannot be said to Ollama, which would never call one",
                    ));
                }
                if chat.parallel_calls == Some(false) {
                    return Err(lack("`parallel_tool_calls: false` cannot be said to Ollama"));
                }
                body.set("tools", Value::Array(tools));
            }
            body.format(&chat.format);
        }
    }
    if let Some(think) = chat.effort.as_ref().and_then(think) {
        body.set("think", think);
    }
    body.logprobs(chat.logprobs);
    body.common(&chat.sampling, chat.context, chat.keep_alive.as_ref(), &chat.extras)?;
    Ok(Asked { body: body.end(), forced: forced.map(|it| it.name) })
}

fn complete(complete: &Complete, to: &To<'_>) -> Result<Bytes, Lack> {
    several(complete.choices)?;
    if complete.echo {
        return Err(lack("`echo` cannot be said to Ollama"));
    }
    if complete.prompt.is_empty() {
        return Err(lack("an empty `prompt` cannot be said to Ollama, which takes it for a call to load"));
    }
    let mut body = Body::new(to);
    body.set("prompt", complete.prompt.as_str().into());
    match &complete.suffix {
        // The model's own template lays the marks of the middle around both.
        Some(suffix) => body.set("suffix", suffix.as_str().into()),
        // Otherwise a chat template would be laid around the prompt.
        None => body.set("raw", true.into()),
    }
    body.format(&complete.format);
    body.logprobs(complete.logprobs);
    body.common(&complete.sampling, complete.context, complete.keep_alive.as_ref(), &complete.extras)?;
    Ok(body.end())
}

fn embed(door: Door, embed: &Embed, to: &To<'_>) -> Result<Bytes, Lack> {
    let mut body = Body::bare(to);
    if door == Door::OllamaEmbeddings {
        // The older form, for servers that have no other. It never cuts.
        let [one] = &embed.inputs[..] else {
            return Err(lack("several texts cannot be said at Ollama's /api/embeddings"));
        };
        if embed.dimensions.is_some() {
            return Err(lack("`dimensions` cannot be said at Ollama's /api/embeddings"));
        }
        body.set("prompt", one.as_str().into());
    } else {
        body.set("input", embed.inputs.clone().into());
        body.set("truncate", embed.truncate.unwrap_or(false).into());
        if let Some(dimensions) = embed.dimensions {
            body.set("dimensions", dimensions.into());
        }
    }
    body.common(&Sampling::default(), embed.context, embed.keep_alive.as_ref(), &embed.extras)?;
    Ok(body.end())
}

/// A call that must be made.
struct Forced {
    name: String,
    description: Option<String>,
    schema: Value,
}

impl Forced {
    /// Says to the model what the form alone does not: what the tool is for, and what its
    /// fields mean. Ollama keeps the answer to the schema but does not show it to the model.
    fn instruction(&self) -> String {
        let purpose = match self.description.as_deref().filter(|it| !it.is_empty()) {
            Some(text) => format!(" ({text})"),
            None => String::new(),
        };
        format!(
            "Call the tool `{}`{purpose}. Answer with its arguments only: JSON that fits this schema: {}",
            self.name, self.schema
        )
    }
}

fn forced(chat: &Chat) -> Result<Option<Forced>, Lack> {
    let tool = match &chat.tool_choice {
        ToolChoice::Auto | ToolChoice::None => return Ok(None),
        ToolChoice::Required => match &chat.tools[..] {
            [one] => one,
            _ => {
                return Err(lack(
                    "`tool_choice` that requires one of several tools cannot be said to Ollama",
                ));
            }
        },
        ToolChoice::Named(name) => chat
            .tools
            .iter()
            .find(|it| it.name == *name)
            .ok_or_else(|| lack("`tool_choice` names a tool that is not among `tools`"))?,
    };
    if chat.format != Format::Text {
        return Err(lack("a form of the answer beside a tool that must be called cannot be said to Ollama"));
    }
    let schema = tool.parameters.clone().filter(|it| it.is_object());
    Ok(Some(Forced {
        name: tool.name.clone(),
        description: tool.description.clone(),
        schema: schema.unwrap_or_else(|| json!({"type": "object"})),
    }))
}

/// The tools that may be called. `strict` is a wish that no open server honours: a call is
/// what the model makes of it.
fn offered(chat: &Chat) -> Vec<Value> {
    if chat.tool_choice == ToolChoice::None {
        return Vec::new();
    }
    let tools = chat.tools.iter().map(|tool| {
        let parameters =
            tool.parameters.clone().unwrap_or_else(|| json!({"type": "object", "properties": {}}));
        json!({"type": "function", "function": {
            "name": tool.name,
            "description": tool.description.as_deref().unwrap_or_default(),
            "parameters": parameters,
        }})
    });
    tools.collect()
}

/// Says a turn, which for results of tools is a message each.
fn say(turn: &Turn, out: &mut Vec<String>) -> Result<(), Lack> {
    if turn.name.is_some() {
        return Err(lack("the `name` of a speaker cannot be said to Ollama"));
    }
    let role = match turn.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut message = Body::default();
    message.set("role", role.into());
    let (mut thinking, mut calls) = (String::new(), Vec::new());
    for part in &turn.parts {
        match part {
            Part::Text(_) | Part::Image(_) => {}
            // The proof is another server's.
            Part::Thinking { text, .. } => thinking.push_str(text),
            Part::Call(call) => {
                let arguments = match call.arguments.trim_ascii() {
                    "" => "{}",
                    object if is_object(object) => object,
                    _ => {
                        return Err(lack(
                            "arguments of a call that are no JSON object cannot be said to Ollama",
                        ));
                    }
                };
                let mut function = Body::default();
                function.set("name", call.name.as_str().into());
                function.raw("arguments", arguments.to_owned());
                let mut made = Body::default();
                made.set("id", call.id.as_str().into());
                made.raw("function", function.text());
                calls.push(made.text());
            }
            Part::Result(result) => {
                let mut message = Body::default();
                message.set("role", "tool".into());
                if let Some(name) = &result.name {
                    message.set("tool_name", name.as_str().into());
                }
                message.set("tool_call_id", result.id.as_str().into());
                let prefix = if result.is_error { "error: " } else { "" };
                message.set("content", format!("{prefix}{}", text(&result.parts)).into());
                message.images(&result.parts)?;
                out.push(message.text());
            }
        }
    }
    let is_only_results = !turn.parts.is_empty() && turn.parts.iter().all(|it| matches!(it, Part::Result(_)));
    if is_only_results {
        return Ok(());
    }
    message.set("content", text(&turn.parts).into());
    if !thinking.is_empty() {
        message.set("thinking", thinking.into());
    }
    message.images(&turn.parts)?;
    if !calls.is_empty() {
        message.raw("tool_calls", format!("[{}]", calls.join(",")));
    }
    out.push(message.text());
    Ok(())
}

/// All texts, a line break between them: Ollama has one text for each message.
fn text(parts: &[Part]) -> String {
    let texts = parts.iter().filter_map(|it| match it {
        Part::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// How much to think. Models that can think do so unless told not to, and Ollama refuses
/// the word to those that cannot: so "on" and "so many tokens" are left to the model.
fn think(effort: &Effort) -> Option<Value> {
    match effort {
        Effort::Off | Effort::Budget(0) => Some(false.into()),
        Effort::On | Effort::Budget(_) => None,
        Effort::Level(level) => Some(match level.as_str() {
            "none" => false.into(),
            "minimal" | "low" => "low".into(),
            "medium" => "medium".into(),
            // `max` is refused by versions before it.
            "high" | "xhigh" | "max" => "high".into(),
            _ => true.into(),
        }),
    }
}

fn several(choices: Option<u64>) -> Result<(), Lack> {
    match choices {
        None | Some(0 | 1) => Ok(()),
        Some(_) => Err(lack("`n` above 1 cannot be said to Ollama")),
    }
}

/// An object under construction; the order of its fields is ours.
#[derive(Default)]
struct Body {
    fields: Vec<(String, String)>,
    options: Map<String, Value>,
}

impl Body {
    fn bare(to: &To<'_>) -> Self {
        let mut body = Self::default();
        body.set("model", to.model.into());
        body
    }

    fn new(to: &To<'_>) -> Self {
        let mut body = Self::bare(to);
        body.set("stream", to.stream.into());
        body.set("truncate", false.into());
        body
    }

    fn set(&mut self, name: &str, value: Value) {
        self.raw(name, value.to_string());
    }

    /// Sets a field to JSON; a later one takes the place of an earlier one.
    fn raw(&mut self, name: &str, json: String) {
        match self.fields.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = json,
            None => self.fields.push((name.to_owned(), json)),
        }
    }

    fn images(&mut self, parts: &[Part]) -> Result<(), Lack> {
        let mut images = Vec::new();
        for part in parts {
            let Part::Image(image) = part else { continue };
            match &image.source {
                ImageSource::Data { base64, .. } => images.push(Value::from(base64.as_str())),
                ImageSource::Url(_) => {
                    return Err(lack(
                        "the address of an image cannot be said to Ollama, which takes images in base64 only",
                    ));
                }
            }
        }
        if !images.is_empty() {
            self.set("images", images.into());
        }
        Ok(())
    }

    fn format(&mut self, format: &Format) {
        match format {
            Format::Text => {}
            Format::Json => self.set("format", "json".into()),
            // It is always kept to.
            Format::Schema { schema, .. } => self.set("format", schema.clone()),
        }
    }

    fn logprobs(&mut self, top: Option<u32>) {
        let Some(top) = top else { return };
        self.set("logprobs", true.into());
        if top > 0 {
            self.set("top_logprobs", top.into());
        }
    }

    fn option(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.options.insert(name.to_owned(), value.into());
        }
    }

    fn common(
        &mut self,
        sampling: &Sampling,
        context: Option<u64>,
        keep_alive: Option<&Value>,
        extras: &Extras,
    ) -> Result<(), Lack> {
        if sampling.max_tokens == Some(0) {
            return Err(lack("a limit of 0 tokens cannot be said to Ollama, which takes it for none"));
        }
        if sampling.logit_bias.as_ref().is_some_and(|it| !is_nothing(it)) {
            return Err(lack("`logit_bias` cannot be said to Ollama"));
        }
        self.option("num_ctx", context);
        self.option("num_predict", sampling.max_tokens);
        self.option("temperature", sampling.temperature);
        self.option("top_p", sampling.top_p);
        self.option("top_k", sampling.top_k);
        self.option("min_p", sampling.min_p);
        self.option("seed", sampling.seed);
        self.option("frequency_penalty", sampling.frequency_penalty);
        self.option("presence_penalty", sampling.presence_penalty);
        self.option("repeat_penalty", sampling.repeat_penalty);
        self.option("stop", (!sampling.stop.is_empty()).then(|| sampling.stop.clone()));
        if let Some(keep_alive) = keep_alive {
            self.set("keep_alive", keep_alive.clone());
        }
        for (path, value) in extras {
            self.extra(path, value)?;
        }
        Ok(())
    }

    /// A field without a name of ours: known here by Ollama's name for it, under `options`
    /// or, as callers of llama.cpp and vLLM have it, by itself.
    fn extra(&mut self, path: &str, value: &Value) -> Result<(), Lack> {
        let refused = || lack(format!("`{path}` cannot be said to Ollama"));
        if is_nothing(value) {
            return Ok(());
        }
        match path {
            "truncate" | "shift" if value.is_boolean() => self.set(path, value.clone()),
            "keep_alive" if value.is_number() || value.is_string() => self.set(path, value.clone()),
            _ => {
                let name = path.strip_prefix("options.").unwrap_or(path);
                let is_known = matches!(option::sort(name), Some(Sort::Own(_) | Sort::Machine))
                    || matches!(name, "num_ctx" | "repeat_penalty" | "min_p" | "top_k" | "num_predict");
                if !is_known || option::wrong(name, &value.to_string()).is_some() {
                    return Err(refused());
                }
                self.option(name, Some(value.clone()));
            }
        }
        Ok(())
    }

    fn text(mut self) -> String {
        if !self.options.is_empty() {
            let options = Value::Object(std::mem::take(&mut self.options));
            self.set("options", options);
        }
        let fields: Vec<String> =
            self.fields.iter().map(|(name, json)| format!("{}:{json}", Value::from(name.as_str()))).collect();
        format!("{{{}}}", fields.join(","))
    }

    fn end(self) -> Bytes {
        self.text().into()
    }
}

/// Whether a value says nothing: null, false, or an empty text, list or object.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn lack(text: impl Into<String>) -> Lack {
    Lack(text.into())
}
