//! Says a meaning in Ollama's own language.
//!
//! Always with `truncate: false`: Ollama would otherwise drop the oldest turns of a
//! conversation that does not fit and answer 200. A call that must be made is asked for
//! as structured output, since Ollama cannot force one.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    body::{Body, lack},
    line::is_object,
};
use crate::{
    dialect::{Asked, Door, Lack, To},
    generate::{Chat, Complete, Effort, Embed, Format, Meaning, Part, Role, Sampling, ToolChoice, Turn},
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
        if one.is_empty() {
            return Err(lack("an empty text only loads the model at Ollama's /api/embeddings"));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Call, Image, ImageSource, Tool, ToolResult};

    const TO: To<'_> = To { model: "m", stream: true, ask_usage: true, max_tokens: true, sold: None };

    fn said(door: Door, meaning: Meaning) -> String {
        String::from_utf8(ask(door, &meaning, &TO).unwrap().body.to_vec()).unwrap()
    }

    fn lacks(chat: Chat, expected: &str) {
        let lack = ask(Door::OllamaChat, &Meaning::Chat(chat.clone()), &TO).unwrap_err();
        assert_eq!(lack.0, expected, "for {chat:?}");
    }

    fn hello() -> Chat {
        Chat { turns: vec![Turn::text(Role::User, "hi")], ..Chat::default() }
    }

    fn tool(name: &str) -> Tool {
        Tool {
            name: name.to_owned(),
            description: Some("tells".to_owned()),
            parameters: Some(json!({"type": "object", "properties": {"tz": {"type": "string"}}})),
            strict: Some(true),
        }
    }

    fn everything() -> Chat {
        let image = Image {
            source: ImageSource::Data { media_type: "image/png".to_owned(), base64: "aGk=".to_owned() },
            detail: Some("high".to_owned()),
        };
        let turn = |role, parts| Turn { role, name: None, parts };
        let call = |id: &str, arguments: &str| {
            Part::Call(Call { id: id.to_owned(), name: "f".to_owned(), arguments: arguments.to_owned() })
        };
        let result = |id: &str, is_error, text: &str| {
            Part::Result(ToolResult {
                id: id.to_owned(),
                name: Some("f".to_owned()),
                parts: vec![Part::Text(text.to_owned())],
                is_error,
            })
        };
        Chat {
            turns: vec![
                Turn::text(Role::System, "Be brief."),
                turn(
                    Role::User,
                    vec![Part::Text("a".to_owned()), Part::Image(image), Part::Text("b".to_owned())],
                ),
                turn(
                    Role::Assistant,
                    vec![
                        Part::Thinking { text: "hm".to_owned(), signature: Some("proof".to_owned()) },
                        call("1", "{\"b\":1.50,\"a\":2}"),
                        call("2", ""),
                    ],
                ),
                turn(Role::Tool, vec![result("1", false, "12:00"), result("2", true, "no")]),
            ],
            tools: vec![tool("f"), tool("g")],
            parallel_calls: Some(true),
            effort: Some(Effort::Level("medium".to_owned())),
            sampling: Sampling {
                max_tokens: Some(9),
                temperature: Some(0.5),
                stop: vec!["END".to_owned()],
                ..Sampling::default()
            },
            logprobs: Some(2),
            choices: Some(1),
            keep_alive: Some(json!("10m")),
            context: Some(8192),
            extras: vec![
                ("options.mirostat".to_owned(), json!(2)),
                ("repeat_last_n".to_owned(), json!(32)),
                ("nothing".to_owned(), json!(null)),
            ],
            ..Chat::default()
        }
    }

    #[test]
    fn a_chat_with_everything_is_said_natively() {
        insta::assert_snapshot!("asked_chat", said(Door::OllamaChat, Meaning::Chat(everything())));
    }

    #[test]
    fn what_is_said_is_understood_as_the_same() {
        let mut chat = everything();
        let body = said(Door::OllamaChat, Meaning::Chat(chat.clone()));
        let Ok(Meaning::Chat(again)) =
            super::super::understand::understand(Door::OllamaChat, body.as_bytes())
        else {
            panic!("no chat")
        };
        // What has no place there: several texts in a turn, the proof, `detail`, `strict`.
        assert_eq!(ids(&again), ids(&chat));
        assert_eq!(
            (&again.sampling, again.context, &again.keep_alive),
            (&chat.sampling, chat.context, &chat.keep_alive)
        );
        assert_eq!((again.logprobs, &again.effort), (chat.logprobs, &chat.effort));
        chat.tools.iter_mut().for_each(|it| it.strict = None);
        assert_eq!(again.tools, chat.tools);
    }

    fn ids(chat: &Chat) -> Vec<(String, bool)> {
        let parts = chat.turns.iter().flat_map(|it| &it.parts);
        let ids = parts.filter_map(|it| match it {
            Part::Call(call) => Some((call.id.clone(), false)),
            Part::Result(result) => Some((result.id.clone(), true)),
            _ => None,
        });
        ids.collect()
    }

    #[test]
    fn a_call_that_must_be_made_is_asked_for_as_a_form() {
        for (choice, tools) in [
            (ToolChoice::Required, vec![tool("f")]),
            (ToolChoice::Named("f".to_owned()), vec![tool("g"), tool("f")]),
        ] {
            let chat = Chat { tool_choice: choice, tools, parallel_calls: Some(false), ..hello() };
            let asked = ask(Door::OllamaChat, &Meaning::Chat(chat), &TO).unwrap();
            assert_eq!(asked.forced.as_deref(), Some("f"));
            let body: Value = serde_json::from_slice(&asked.body).unwrap();
            assert_eq!(body["format"], tool("f").parameters.unwrap());
            assert!(body.get("tools").is_none());
            let instruction = body["messages"][0]["content"].as_str().unwrap();
            assert!(instruction.contains("`f` (tells)") && instruction.contains("\"tz\""), "{instruction}");
            assert_eq!(body["messages"][1]["content"], "hi");
        }
    }

    #[test]
    fn no_call_means_no_tools() {
        let chat =
            Chat { tool_choice: ToolChoice::None, tools: vec![tool("f")], format: Format::Json, ..hello() };
        let body: Value = serde_json::from_str(&said(Door::OllamaChat, Meaning::Chat(chat))).unwrap();
        assert!(body.get("tools").is_none());
        assert_eq!(body["format"], "json");
    }

    #[test]
    fn what_cannot_be_said_is_refused_by_name() {
        let tools = || vec![tool("f"), tool("g")];
        let sampling = |sampling| Chat { sampling, ..hello() };
        lacks(Chat { choices: Some(2), ..hello() }, "`n` above 1 cannot be said to Ollama");
        lacks(
            sampling(Sampling { logit_bias: Some(json!({"5": 1})), ..Sampling::default() }),
            "`logit_bias` cannot be said to Ollama",
        );
        lacks(
            sampling(Sampling { max_tokens: Some(0), ..Sampling::default() }),
            "a limit of 0 tokens cannot be said to Ollama, which takes it for none",
        );
        lacks(
            Chat { tool_choice: ToolChoice::Required, tools: tools(), ..hello() },
            "`tool_choice` that requires one of several tools cannot be said to Ollama",
        );
        lacks(
            Chat { tool_choice: ToolChoice::Named("x".to_owned()), tools: tools(), ..hello() },
            "`tool_choice` names a tool that is not among `tools`",
        );
        lacks(
            Chat { tools: tools(), parallel_calls: Some(false), ..hello() },
            "`parallel_tool_calls: false` cannot be said to Ollama",
        );
        lacks(
            Chat { tools: tools(), format: Format::Json, ..hello() },
            "a form of the answer beside tools cannot be said to Ollama, which would never call one",
        );
        lacks(
            Chat { extras: vec![("service".to_owned(), json!("x"))], ..hello() },
            "`service` cannot be said to Ollama",
        );
        lacks(
            Chat { extras: vec![("options.mirostat".to_owned(), json!("x"))], ..hello() },
            "`options.mirostat` cannot be said to Ollama",
        );
        let image = Image { source: ImageSource::Url("https://x/y.png".to_owned()), detail: None };
        let turn = Turn { role: Role::User, name: None, parts: vec![Part::Image(image)] };
        lacks(
            Chat { turns: vec![turn], ..Chat::default() },
            "the address of an image cannot be said to Ollama, which takes images in base64 only",
        );
        let named = Turn { name: Some("Ann".to_owned()), ..Turn::text(Role::User, "hi") };
        lacks(
            Chat { turns: vec![named], ..Chat::default() },
            "the `name` of a speaker cannot be said to Ollama",
        );
        lacks(
            Chat::default(),
            "a conversation without a turn cannot be said to Ollama, which takes it for a call to load",
        );
    }

    #[test]
    fn thinking_is_left_to_the_model_unless_a_level_is_named() {
        assert_eq!(think(&Effort::Off), Some(json!(false)));
        assert_eq!(think(&Effort::Level("none".to_owned())), Some(json!(false)));
        assert_eq!(think(&Effort::Level("xhigh".to_owned())), Some(json!("high")));
        assert_eq!(think(&Effort::Level("minimal".to_owned())), Some(json!("low")));
        assert_eq!((think(&Effort::On), think(&Effort::Budget(5))), (None, None));
    }

    #[test]
    fn a_text_goes_on_raw_and_a_middle_by_the_models_own_template() {
        let complete = Complete { prompt: "a\n".to_owned(), ..Complete::default() };
        let expected = r#"{"model":"m","stream":true,"truncate":false,"prompt":"a\n","raw":true}"#;
        assert_eq!(said(Door::OllamaGenerate, Meaning::Complete(complete.clone())), expected);
        let middle = Complete { suffix: Some("}".to_owned()), logprobs: Some(0), ..complete.clone() };
        let expected =
            r#"{"model":"m","stream":true,"truncate":false,"prompt":"a\n","suffix":"}","logprobs":true}"#;
        assert_eq!(said(Door::OllamaGenerate, Meaning::Complete(middle)), expected);
        let lack = |it: Complete| ask(Door::OllamaGenerate, &Meaning::Complete(it), &TO).unwrap_err().0;
        assert_eq!(lack(Complete { echo: true, ..complete }), "`echo` cannot be said to Ollama");
        assert!(lack(Complete::default()).starts_with("an empty `prompt`"));
    }

    #[test]
    fn texts_for_vectors_are_not_cut_unless_the_caller_allows_it() {
        let embed = Embed { inputs: vec!["a".to_owned(), "b".to_owned()], ..Embed::default() };
        let expected = r#"{"model":"m","input":["a","b"],"truncate":false}"#;
        assert_eq!(said(Door::OllamaEmbed, Meaning::Embed(embed.clone())), expected);
        let more = Embed { truncate: Some(true), dimensions: Some(64), context: Some(512), ..embed.clone() };
        let expected =
            r#"{"model":"m","input":["a","b"],"truncate":true,"dimensions":64,"options":{"num_ctx":512}}"#;
        assert_eq!(said(Door::OllamaEmbed, Meaning::Embed(more)), expected);
        assert!(ask(Door::OllamaEmbeddings, &Meaning::Embed(embed), &TO).is_err());
        let one = Embed { inputs: vec!["a".to_owned()], ..Embed::default() };
        assert_eq!(said(Door::OllamaEmbeddings, Meaning::Embed(one)), r#"{"model":"m","prompt":"a"}"#);
    }
}
