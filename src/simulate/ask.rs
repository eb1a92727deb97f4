//! What of a request a simulated server looks at, whatever language it comes in.

use serde_json::Value;

use super::{
    begun::{self, Begun},
    http::Request,
    picture,
    shape::{Refusal, Shape},
};

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Chat,
    Complete,
    Embed,
}

/// A language that servers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tongue {
    OpenAi,
    Responses,
    Messages,
    Ollama,
}

/// A path that generates something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Chat,
    Complete,
    Embed,
    Responses,
    Messages,
    OllamaChat,
    OllamaGenerate,
    OllamaEmbed,
    OllamaEmbeddings,
}

impl Gate {
    /// The gate at a path, if this shape has it.
    pub(super) fn at(shape: Shape, path: &str) -> Option<Self> {
        let gate = match path {
            "/v1/chat/completions" => Self::Chat,
            "/v1/completions" => Self::Complete,
            "/v1/embeddings" => Self::Embed,
            "/v1/responses" => Self::Responses,
            "/v1/messages" => Self::Messages,
            "/api/chat" => Self::OllamaChat,
            "/api/generate" => Self::OllamaGenerate,
            "/api/embed" => Self::OllamaEmbed,
            "/api/embeddings" => Self::OllamaEmbeddings,
            _ => return None,
        };
        let has = match gate.tongue() {
            Tongue::OpenAi => true,
            Tongue::Responses | Tongue::Messages => shape != Shape::OpenAi,
            Tongue::Ollama => shape == Shape::Ollama,
        };
        has.then_some(gate)
    }

    pub(super) fn tongue(self) -> Tongue {
        match self {
            Self::Chat | Self::Complete | Self::Embed => Tongue::OpenAi,
            Self::Responses => Tongue::Responses,
            Self::Messages => Tongue::Messages,
            Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed | Self::OllamaEmbeddings => {
                Tongue::Ollama
            }
        }
    }

    pub(super) fn operation(self) -> Operation {
        match self {
            Self::Chat | Self::Responses | Self::Messages | Self::OllamaChat | Self::OllamaGenerate => {
                Operation::Chat
            }
            Self::Complete => Operation::Complete,
            Self::Embed | Self::OllamaEmbed | Self::OllamaEmbeddings => Operation::Embed,
        }
    }

    /// Whether a call of a tool comes in one piece: Ollama waits for the end of its arguments.
    pub(super) fn calls_come_whole(self) -> bool {
        self.tongue() == Tongue::Ollama
    }

    /// The field without which there is nothing to do.
    fn subject(self) -> &'static str {
        match self {
            Self::Chat | Self::Messages => "messages",
            Self::Complete => "prompt",
            Self::Embed | Self::Responses => "input",
            // Ollama takes a request without one as a wish to have the model loaded.
            Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed | Self::OllamaEmbeddings => "model",
        }
    }
}

/// A tool that is offered.
#[derive(Clone, PartialEq)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) parameters: Value,
}

/// Whether tools are called.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Choice {
    Auto,
    None,
    Required,
    Named(String),
}

/// The part of a request that a simulated server looks at. It has the prompt's last words in
/// it, and so no `Debug`.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) gate: Gate,
    pub(super) model: Option<String>,
    pub(super) stream: bool,
    pub(super) max_tokens: Option<usize>,
    pub(super) usage: bool,
    pub(super) inputs: usize,
    /// How many bytes the JSON has of what is asked, without a turn that was begun.
    pub(super) weight: usize,
    /// The beginning of the answer, where the shape goes on with it.
    pub(super) begun: Option<Begun>,
    pub(super) tools: Vec<Tool>,
    choice: Choice,
    parallel: bool,
    /// The schema that the answer must fit; for JSON without a schema one that any object fits.
    pub(super) format: Option<Value>,
    pub(super) thinks: bool,
    /// What the images of the last turn are, in words.
    pub(super) images: Vec<String>,
    /// The text of the last turn, if that is the caller's.
    last: String,
    /// With how many alternatives log probabilities are wanted.
    pub(super) logprobs: Option<usize>,
    pub(super) stop: Vec<String>,
    /// Whether the middle of a text is wanted.
    pub(super) fills: bool,
    /// Whether what does not fit is cut in silence.
    pub(super) truncates: bool,
    /// Nothing is asked but that the model be loaded, or with `false` unloaded.
    pub(super) only_loads: Option<bool>,
}

impl Ask {
    /// A token is four bytes of what is asked.
    pub(super) fn prompt_tokens(&self) -> usize {
        self.weight / 4 + 1
    }

    pub(super) fn operation(&self) -> Operation {
        self.gate.operation()
    }

    /// The tools that are called: the one that must be, or those whose names the last turn
    /// mentions, or where one must be and none is mentioned the first. `always` calls all.
    pub(super) fn called(&self, always: bool) -> Vec<&Tool> {
        let mentioned = |tool: &&Tool| {
            let is_part = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-');
            self.last.split(|it| !is_part(it)).any(|word| word == tool.name)
        };
        let mut called: Vec<_> = match &self.choice {
            Choice::None => Vec::new(),
            Choice::Named(name) => self.tools.iter().filter(|it| it.name == *name).collect(),
            Choice::Auto | Choice::Required if always => self.tools.iter().collect(),
            Choice::Auto => self.tools.iter().filter(mentioned).collect(),
            Choice::Required => {
                let some: Vec<_> = self.tools.iter().filter(mentioned).collect();
                if some.is_empty() { self.tools.iter().take(1).collect() } else { some }
            }
        };
        if !self.parallel {
            called.truncate(1);
        }
        called
    }
}

/// Reads what matters of a request.
pub(super) fn read(shape: Shape, gate: Gate, request: &Request) -> Result<Ask, Refusal> {
    let body: Value =
        serde_json::from_slice(&request.body).map_err(|error| Refusal::Malformed(error.to_string()))?;
    if !body.is_object() {
        return Err(Refusal::Malformed("the body must be a JSON object".to_owned()));
    }
    let subject = gate.subject();
    if body[subject].is_null() {
        return Err(Refusal::Missing(subject));
    }
    let ollama = gate.tongue() == Tongue::Ollama;
    let operation = gate.operation();
    let options = if ollama { &body["options"] } else { &body };
    let mut turns = turns(gate, &body)?;
    let begun = begun::taken(shape, gate, &body, &mut turns);
    let begins = begun.as_ref().is_some_and(|it| !it.ends_prompt);
    let thinks = match &begun {
        // What comes of a text is text.
        Some(it) if it.ends_prompt => false,
        Some(it) => it.inside && thinks(gate, &body),
        None => thinks(gate, &body),
    };
    let last = turns.last().filter(|it| ["user", "tool"].contains(&it["role"].as_str().unwrap_or("user")));
    let mut told = Told::default();
    if let Some(last) = last {
        told.take(&last["content"], gate)?;
        for image in last["images"].as_array().into_iter().flatten() {
            told.image(image.as_str().unwrap_or_default())?;
        }
    }
    let choice = choice(gate, &body["tool_choice"]);
    let max_tokens = match gate.tongue() {
        Tongue::Ollama => count(&options["num_predict"]),
        Tongue::Responses => count(&body["max_output_tokens"]),
        Tongue::OpenAi | Tongue::Messages => {
            count(&body["max_tokens"]).or(count(&body["max_completion_tokens"]))
        }
    };
    if gate == Gate::Messages && max_tokens.is_none() {
        return Err(Refusal::Missing("max_tokens"));
    }
    let empty = |it: &Value| it.as_str().is_none_or(str::is_empty);
    let only_loads = match gate {
        Gate::OllamaChat => turns.is_empty(),
        Gate::OllamaGenerate => empty(&body["prompt"]),
        Gate::OllamaEmbed | Gate::OllamaEmbeddings => false,
        _ => false,
    };
    let stream = body["stream"].as_bool().unwrap_or(ollama);
    Ok(Ask {
        gate,
        model: body["model"].as_str().map(str::to_owned),
        stream: stream && operation != Operation::Embed && !only_loads,
        max_tokens,
        usage: body["stream_options"]["include_usage"] == true,
        inputs: body["input"].as_array().map_or(1, Vec::len),
        weight: weight(gate, &body, begins),
        begun,
        tools: if operation == Operation::Chat { tools(gate, &body["tools"]) } else { Vec::new() },
        choice,
        parallel: body["parallel_tool_calls"] != false
            && body["tool_choice"]["disable_parallel_tool_use"] != true,
        format: format(gate, &body)?,
        thinks: operation == Operation::Chat && thinks,
        images: told.images,
        last: told.text,
        logprobs: logprobs(gate, &body),
        stop: stops(&options["stop"]).chain(stops(&body["stop_sequences"])).collect(),
        fills: !empty(&body["suffix"]),
        truncates: ollama && body["truncate"] != false,
        only_loads: only_loads.then(|| body["keep_alive"] != 0),
    })
}

/// How many bytes the JSON has of what is asked; without the last turn where that was begun.
/// The same question weighs the same in each language, as far as they say it alike.
fn weight(gate: Gate, body: &Value, without_last: bool) -> usize {
    // A conversation that was rendered weighs what it did before.
    if let Some(prompt) = body["prompt"].as_str().filter(|_| body["raw"] == true) {
        return prompt.len();
    }
    let one_turn = || serde_json::json!([{"role": "user", "content": body["prompt"]}]);
    let subject = match gate {
        Gate::OllamaChat => body["messages"].clone(),
        Gate::OllamaGenerate => one_turn(),
        Gate::OllamaEmbed => body["input"].clone(),
        Gate::OllamaEmbeddings => body["prompt"].clone(),
        _ => body[gate.subject()].clone(),
    };
    let turns = subject.as_array().filter(|_| without_last).and_then(|it| it.split_last());
    let asked = match turns {
        Some((_, before)) => Value::from(before).to_string().len(),
        None => subject.to_string().len(),
    };
    let more = ["tools", "system", "instructions", "suffix"].iter();
    asked + more.map(|it| body.get(it).map_or(0, |it| it.to_string().len())).sum::<usize>()
}

/// Ollama's -1, like no number, is no limit.
fn count(value: &Value) -> Option<usize> {
    value.as_u64().map(|it| usize::try_from(it).unwrap_or(usize::MAX))
}

fn stops(value: &Value) -> impl Iterator<Item = String> {
    let one = value.as_str().into_iter();
    let many = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    one.chain(many).filter(|it| !it.is_empty()).map(str::to_owned)
}

/// The turns of a conversation; a text alone is one turn.
fn turns(gate: Gate, body: &Value) -> Result<Vec<Value>, Refusal> {
    let (name, field) = match gate {
        Gate::Chat | Gate::Messages | Gate::OllamaChat => ("messages", &body["messages"]),
        Gate::Responses => ("input", &body["input"]),
        Gate::OllamaGenerate => {
            return Ok(vec![serde_json::json!({"content": body["prompt"], "images": body["images"]})]);
        }
        Gate::Complete | Gate::Embed | Gate::OllamaEmbed | Gate::OllamaEmbeddings => return Ok(Vec::new()),
    };
    match field {
        Value::Array(turns) => Ok(turns.clone()),
        Value::String(text) if gate == Gate::Responses => Ok(vec![serde_json::json!({"content": text})]),
        Value::Null => Ok(Vec::new()),
        _ => Err(Refusal::Malformed(format!("'{name}' must be a list"))),
    }
}

/// What a turn says and shows.
#[derive(Default)]
struct Told {
    text: String,
    images: Vec<String>,
}

impl Told {
    fn take(&mut self, content: &Value, gate: Gate) -> Result<(), Refusal> {
        if let Some(text) = content.as_str() {
            self.text = text.to_owned();
        }
        for part in content.as_array().into_iter().flatten() {
            if let Some(text) = part["text"].as_str() {
                self.text.push_str(text);
                self.text.push(' ');
            }
            let image = match gate.tongue() {
                Tongue::OpenAi => &part["image_url"]["url"],
                Tongue::Responses => &part["image_url"],
                Tongue::Messages if part["source"]["type"] == "base64" => &part["source"]["data"],
                Tongue::Messages => &part["source"]["url"],
                Tongue::Ollama => &Value::Null,
            };
            if let Some(image) = image.as_str() {
                self.image(image)?;
            }
        }
        Ok(())
    }

    fn image(&mut self, written: &str) -> Result<(), Refusal> {
        let told = picture::tell(written)
            .ok_or_else(|| Refusal::Malformed("an image is not readable".to_owned()))?;
        self.images.push(format!("image {}: {told}", self.images.len() + 1));
        Ok(())
    }
}

fn tools(gate: Gate, tools: &Value) -> Vec<Tool> {
    let tool = |it: &Value| {
        let (it, schema) = match gate.tongue() {
            Tongue::OpenAi | Tongue::Ollama => (&it["function"], "parameters"),
            Tongue::Responses => (it, "parameters"),
            Tongue::Messages => (it, "input_schema"),
        };
        Some(Tool { name: it["name"].as_str()?.to_owned(), parameters: it[schema].clone() })
    };
    // A tool without a schema takes an empty object.
    let mut tools: Vec<_> = tools.as_array().into_iter().flatten().filter_map(tool).collect();
    for tool in &mut tools {
        if !tool.parameters.is_object() || tool.parameters["type"].is_null() {
            tool.parameters["type"] = "object".into();
        }
    }
    tools
}

fn choice(gate: Gate, written: &Value) -> Choice {
    if gate.tongue() == Tongue::Ollama {
        return Choice::Auto;
    }
    let named = written["function"]["name"].as_str().or(written["name"].as_str());
    match (written.as_str().or(written["type"].as_str()), named) {
        (Some("none"), _) => Choice::None,
        (Some("required" | "any"), _) => Choice::Required,
        (Some("function" | "tool"), Some(name)) => Choice::Named(name.to_owned()),
        _ => Choice::Auto,
    }
}

fn format(gate: Gate, body: &Value) -> Result<Option<Value>, Refusal> {
    let any = || serde_json::json!({"type": "object", "properties": {"answer": {"type": "string"}}});
    let format = match gate {
        Gate::OllamaChat | Gate::OllamaGenerate => {
            return match &body["format"] {
                Value::Null => Ok(None),
                Value::String(word) if word == "json" => Ok(Some(any())),
                Value::String(word) if word.is_empty() => Ok(None),
                Value::Object(schema) => Ok(Some(Value::Object(schema.clone()))),
                _ => Err(Refusal::Status(
                    500,
                    "invalid format: expected \"json\" or a valid JSON Schema object".into(),
                )),
            };
        }
        Gate::Responses => &body["text"]["format"],
        Gate::Messages => &body["output_config"]["format"],
        _ => &body["response_format"],
    };
    let schema = [&format["json_schema"]["schema"], &format["schema"]].into_iter().find(|it| it.is_object());
    Ok(match (format["type"].as_str(), schema) {
        (Some("json_schema"), Some(schema)) => Some(schema.clone()),
        (Some("json_object" | "json_schema"), _) => Some(any()),
        _ => None,
    })
}

/// Whether thoughts are asked for. Where nothing is said there are none, so that plain
/// requests get plain words.
fn thinks(gate: Gate, body: &Value) -> bool {
    let level = match gate.tongue() {
        Tongue::Ollama => &body["think"],
        Tongue::Responses => &body["reasoning"]["effort"],
        Tongue::Messages => return ["enabled", "adaptive"].iter().any(|it| body["thinking"]["type"] == *it),
        Tongue::OpenAi => {
            let asked = body["chat_template_kwargs"]["enable_thinking"] == true;
            return asked || body["reasoning_effort"].as_str().is_some_and(|it| it != "none");
        }
    };
    level == true || level.as_str().is_some_and(|it| it != "none")
}

fn logprobs(gate: Gate, body: &Value) -> Option<usize> {
    let top = count(&body["top_logprobs"]);
    match gate {
        Gate::Responses => {
            let include = body["include"].as_array().into_iter().flatten();
            include.into_iter().any(|it| it == "message.output_text.logprobs").then(|| top.unwrap_or(0))
        }
        _ => (body["logprobs"] == true).then(|| top.unwrap_or(0)),
    }
    .map(|it| it.min(20))
}
