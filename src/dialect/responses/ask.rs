//! Asks a server in this language.

use serde_json::{Map, Value, json};

use super::{request::LOGPROBS, tool};
use crate::{
    dialect::{Lack, To},
    generate::{
        Chat, Effort, Extras, Format, Image, ImageSource, Meaning, Part, Role, Sampling, ToolResult, Turn,
    },
};

/// Says it, or says by name what cannot be said.
pub(super) fn ask(meaning: &Meaning, to: &To<'_>) -> Result<Value, Lack> {
    let chat = match meaning {
        Meaning::Chat(chat) => chat,
        Meaning::Complete(_) => return Err(lack("a text to be continued")),
        Meaning::Embed(_) => return Err(lack("an embedding")),
    };
    refuse_rest(&chat.sampling)?;
    if is_begun(chat) {
        return Err(lack("the beginning of the answer"));
    }
    if chat.choices.is_some_and(|it| it != 1) {
        return Err(lack("`n`"));
    }
    let mut body = Map::new();
    let mut say = |name: &str, value: Value| {
        body.insert(name.to_owned(), value);
    };
    say("model", to.model.into());
    say("stream", to.stream.into());
    // Nobody will ever ask for it again.
    say("store", false.into());
    let (instructions, turns) = instructions(&chat.turns);
    if let Some(instructions) = instructions {
        say("instructions", instructions.into());
    }
    say("input", input(turns)?);
    if !chat.tools.is_empty() {
        say("tools", tool::say_tools(&chat.tools));
        if let Some(choice) = tool::say_choice(&chat.tool_choice) {
            say("tool_choice", choice);
        }
        if let Some(parallel) = chat.parallel_calls {
            say("parallel_tool_calls", parallel.into());
        }
    }
    if let Some(effort) = &chat.effort {
        say("reasoning", json!({"effort": level(effort)}));
    }
    for (name, value) in [
        ("max_output_tokens", chat.sampling.max_tokens.map(Value::from)),
        ("temperature", chat.sampling.temperature.map(Value::from)),
        ("top_p", chat.sampling.top_p.map(Value::from)),
    ] {
        if let Some(value) = value {
            say(name, value);
        }
    }
    if let Some(top) = chat.logprobs {
        say("include", json!([LOGPROBS]));
        if top > 0 {
            say("top_logprobs", top.into());
        }
    }
    let text = text(chat)?;
    if !text.is_empty() {
        say("text", text.into());
    }
    Ok(body.into())
}

fn lack(what: &str) -> Lack {
    Lack(format!("{what} cannot be said to a server that is asked through /v1/responses"))
}

/// This language has few words for how tokens are picked.
///
/// How long a model stays loaded and how large a context it is loaded with are no part of
/// an answer: a prompt for which a server has no room is refused by it, and goes elsewhere.
fn refuse_rest(sampling: &Sampling) -> Result<(), Lack> {
    let said = |value: Option<f64>, neutral: f64| value.is_some_and(|it| it != neutral);
    for (name, is_said) in [
        ("`stop`", !sampling.stop.is_empty()),
        ("`seed`", sampling.seed.is_some()),
        ("`top_k`", sampling.top_k.is_some_and(|it| it > 0)),
        ("`min_p`", said(sampling.min_p, 0.0)),
        ("`frequency_penalty`", said(sampling.frequency_penalty, 0.0)),
        ("`presence_penalty`", said(sampling.presence_penalty, 0.0)),
        ("`repeat_penalty`", said(sampling.repeat_penalty, 1.0)),
        ("`logit_bias`", sampling.logit_bias.is_some()),
    ] {
        if is_said {
            return Err(lack(name));
        }
    }
    Ok(())
}

/// Whether the caller wrote the beginning of the answer; here the model would start anew.
fn is_begun(chat: &Chat) -> bool {
    let Some(last) = chat.turns.last() else { return false };
    let says = last.parts.iter().any(|it| as_text(it).is_some_and(|it| !it.is_empty()));
    last.role == Role::Assistant && says && !last.parts.iter().any(|it| matches!(it, Part::Call(_)))
}

/// The instructions that open the conversation, and the turns after them.
fn instructions(turns: &[Turn]) -> (Option<String>, &[Turn]) {
    let Some((first, rest)) = turns.split_first() else { return (None, turns) };
    let texts: Option<Vec<&str>> = first.parts.iter().map(as_text).collect();
    match texts {
        Some(texts) if first.role == Role::System && first.name.is_none() => (Some(texts.join("\n\n")), rest),
        _ => (None, turns),
    }
}

fn as_text(part: &Part) -> Option<&str> {
    match part {
        Part::Text(text) => Some(text),
        Part::Image(_) | Part::Thinking { .. } | Part::Call(_) | Part::Result(_) => None,
    }
}

fn input(turns: &[Turn]) -> Result<Value, Lack> {
    let mut items = Vec::new();
    for turn in turns {
        if turn.name.is_some() {
            return Err(lack("the `name` of a speaker"));
        }
        match turn.role {
            Role::System => items.push(message("system", &turn.parts)),
            Role::User => items.push(message("user", &turn.parts)),
            Role::Assistant | Role::Tool => own(&turn.parts, &mut items),
        }
    }
    Ok(items.into())
}

/// A message of somebody else than the model. One text is said in the form that every server takes.
fn message(role: &str, parts: &[Part]) -> Value {
    json!({"role": role, "content": content(parts)})
}

fn content(parts: &[Part]) -> Value {
    match parts {
        [Part::Text(text)] => text.as_str().into(),
        _ => parts.iter().filter_map(part).collect(),
    }
}

fn part(part: &Part) -> Option<Value> {
    match part {
        Part::Text(text) => Some(json!({"type": "input_text", "text": text})),
        Part::Image(image) => Some(show(image)),
        // Only the model has these, and they are items of their own.
        Part::Thinking { .. } | Part::Call(_) | Part::Result(_) => None,
    }
}

fn show(image: &Image) -> Value {
    let url = match &image.source {
        ImageSource::Data { media_type, base64 } => format!("data:{media_type};base64,{base64}"),
        ImageSource::Url(url) => url.clone(),
    };
    json!({"type": "input_image", "image_url": url, "detail": image.detail.as_deref().unwrap_or("auto")})
}

/// What the model said, thought and called, and what came of it: an item each.
fn own(parts: &[Part], items: &mut Vec<Value>) {
    for part in parts {
        let at = items.len();
        items.push(match part {
            Part::Text(text) => json!({"role": "assistant", "content": text}),
            Part::Thinking { text, signature } => {
                // Some servers read the thought itself, others what is told of it.
                let told = |kind: &str| match text.is_empty() {
                    true => json!([]),
                    false => json!([{"type": kind, "text": text}]),
                };
                let mut item = json!({"type": "reasoning", "id": format!("rs_{at}"),
                    "summary": told("summary_text"), "content": told("reasoning_text")});
                if let Some(signature) = signature {
                    item["encrypted_content"] = signature.as_str().into();
                }
                item
            }
            Part::Call(call) => json!({"type": "function_call", "call_id": call.id,
                "name": call.name, "arguments": call.arguments}),
            Part::Result(result) => given(result),
            // A model shows no images; one that is there anyway is shown by the person.
            Part::Image(image) => json!({"role": "user", "content": [show(image)]}),
        });
    }
}

/// What a tool gave. That it failed has no place of its own, so it is said in words.
fn given(result: &ToolResult) -> Value {
    let mut output = content(&result.parts);
    if result.is_error {
        match &mut output {
            Value::String(text) => text.insert_str(0, "Error: "),
            Value::Array(parts) => parts.insert(0, json!({"type": "input_text", "text": "Error:"})),
            _ => {}
        }
    }
    // An empty list is no text; a tool may give nothing.
    if output.as_array().is_some_and(Vec::is_empty) {
        output = "".into();
    }
    json!({"type": "function_call_output", "call_id": result.id, "output": output})
}

/// Effort is advice in every language; a budget is the nearest level.
fn level(effort: &Effort) -> &str {
    match effort {
        Effort::Off => "none",
        Effort::On => "medium",
        Effort::Level(level) => level,
        Effort::Budget(0..4096) => "low",
        Effort::Budget(4096..16384) => "medium",
        Effort::Budget(_) => "high",
    }
}

/// What is said of the text of the answer; extras that this language knows go there.
fn text(chat: &Chat) -> Result<Map<String, Value>, Lack> {
    let mut text = Map::new();
    match &chat.format {
        Format::Text => {}
        Format::Json => {
            text.insert("format".to_owned(), json!({"type": "json_object"}));
        }
        Format::Schema { name, schema, strict } => {
            let name = name.as_deref().unwrap_or("answer");
            let mut format = json!({"type": "json_schema", "name": name, "schema": schema});
            if let Some(strict) = strict {
                format["strict"] = (*strict).into();
            }
            text.insert("format".to_owned(), format);
        }
    }
    known(&chat.extras, &mut text)?;
    Ok(text)
}

fn known(extras: &Extras, text: &mut Map<String, Value>) -> Result<(), Lack> {
    let mut unknown = Vec::new();
    for (path, value) in extras {
        match path.as_str() {
            "verbosity" => {
                text.insert("verbosity".to_owned(), value.clone());
            }
            other => unknown.push(format!("`{other}`")),
        }
    }
    if unknown.is_empty() { Ok(()) } else { Err(lack(&unknown.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Call, Complete, Tool, ToolChoice};

    const TO: To<'static> = To { model: "m", stream: true, ask_usage: true, max_tokens: false, sold: None };

    /// What is asked, without what is always the same.
    fn asked(chat: Chat) -> Value {
        let mut body = ask(&Meaning::Chat(chat), &TO).unwrap();
        let fields = body.as_object_mut().unwrap();
        assert_eq!(
            ["model", "stream", "store"].map(|it| fields.remove(it).unwrap()),
            [json!("m"), json!(true), json!(false)]
        );
        body
    }

    fn refused(chat: Chat, expected: &str) {
        let lack = ask(&Meaning::Chat(chat), &TO).unwrap_err();
        assert_eq!(
            lack.0,
            format!("{expected} cannot be said to a server that is asked through /v1/responses")
        );
    }

    fn sampled(sampling: Sampling) -> Chat {
        Chat { sampling, ..Chat::default() }
    }

    #[test]
    fn a_conversation_is_a_list_of_items() {
        let image = Part::Image(Image {
            source: ImageSource::Data { media_type: "image/png".to_owned(), base64: "AA".to_owned() },
            detail: None,
        });
        let chat = Chat {
            turns: vec![
                Turn::text(Role::System, "be brief"),
                Turn {
                    role: Role::User,
                    name: None,
                    parts: vec![Part::Text("look".to_owned()), image.clone()],
                },
                Turn {
                    role: Role::Assistant,
                    name: None,
                    parts: vec![
                        Part::Thinking { text: "hm".to_owned(), signature: Some("s".to_owned()) },
                        Part::Text("I call".to_owned()),
                        Part::Call(Call {
                            id: "c".to_owned(),
                            name: "f".to_owned(),
                            arguments: "{}".to_owned(),
                        }),
                    ],
                },
                Turn {
                    role: Role::Tool,
                    name: None,
                    parts: vec![
                        Part::Result(ToolResult {
                            id: "c".to_owned(),
                            name: None,
                            parts: vec![Part::Text("bad".to_owned())],
                            is_error: true,
                        }),
                        Part::Result(ToolResult {
                            id: "d".to_owned(),
                            name: None,
                            parts: vec![image],
                            is_error: false,
                        }),
                        Part::Result(ToolResult {
                            id: "e".to_owned(),
                            name: None,
                            parts: Vec::new(),
                            is_error: false,
                        }),
                    ],
                },
                Turn::text(Role::System, "now"),
            ],
            ..Chat::default()
        };
        let image = json!({"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "auto"});
        assert_eq!(
            asked(chat),
            json!({"instructions": "be brief", "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "look"}, image]},
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}],
                 "content": [{"type": "reasoning_text", "text": "hm"}], "encrypted_content": "s"},
                {"role": "assistant", "content": "I call"},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "Error: bad"},
                {"type": "function_call_output", "call_id": "d", "output": [image]},
                {"type": "function_call_output", "call_id": "e", "output": ""},
                {"role": "system", "content": "now"},
            ]})
        );
    }

    #[test]
    fn tools_sampling_and_the_form_of_the_answer() {
        let tool = Tool { name: "f".to_owned(), description: None, parameters: None, strict: None };
        let chat = Chat {
            tools: vec![tool],
            tool_choice: ToolChoice::Named("f".to_owned()),
            parallel_calls: Some(false),
            format: Format::Schema { name: None, schema: json!({"type": "object"}), strict: Some(true) },
            effort: Some(Effort::Off),
            sampling: Sampling { max_tokens: Some(5), temperature: Some(0.0), ..Sampling::default() },
            logprobs: Some(2),
            extras: vec![("verbosity".to_owned(), json!("low"))],
            ..Chat::default()
        };
        assert_eq!(
            asked(chat),
            json!({"input": [], "max_output_tokens": 5, "temperature": 0.0, "top_logprobs": 2,
                "include": ["message.output_text.logprobs"], "reasoning": {"effort": "none"},
                "parallel_tool_calls": false, "tool_choice": {"type": "function", "name": "f"},
                "tools": [{"type": "function", "name": "f", "strict": false,
                    "parameters": {"type": "object", "properties": {}}}],
                "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "answer",
                    "schema": {"type": "object"}, "strict": true}}})
        );
    }

    #[test]
    fn what_cannot_be_said_is_named() {
        let plain = Sampling::default();
        refused(sampled(Sampling { stop: vec!["x".to_owned()], ..plain.clone() }), "`stop`");
        refused(sampled(Sampling { seed: Some(0), ..plain.clone() }), "`seed`");
        refused(sampled(Sampling { top_k: Some(5), ..plain.clone() }), "`top_k`");
        refused(sampled(Sampling { min_p: Some(0.1), ..plain.clone() }), "`min_p`");
        refused(sampled(Sampling { frequency_penalty: Some(1.0), ..plain.clone() }), "`frequency_penalty`");
        refused(sampled(Sampling { presence_penalty: Some(1.0), ..plain.clone() }), "`presence_penalty`");
        refused(sampled(Sampling { repeat_penalty: Some(1.1), ..plain.clone() }), "`repeat_penalty`");
        refused(sampled(Sampling { logit_bias: Some(json!({"1": 1})), ..plain.clone() }), "`logit_bias`");
        refused(Chat { choices: Some(2), ..Chat::default() }, "`n`");
        refused(
            Chat {
                extras: vec![("options.mirostat".to_owned(), json!(2)), ("x".to_owned(), json!(1))],
                ..Chat::default()
            },
            "`options.mirostat`, `x`",
        );
        refused(
            Chat { turns: vec![Turn::text(Role::Assistant, "Once")], ..Chat::default() },
            "the beginning of the answer",
        );
        let named = Turn { name: Some("bob".to_owned()), ..Turn::text(Role::User, "hi") };
        refused(Chat { turns: vec![named], ..Chat::default() }, "the `name` of a speaker");
        assert!(ask(&Meaning::Complete(Complete::default()), &TO).is_err());
        let neutral = Sampling {
            top_k: Some(-1),
            min_p: Some(0.0),
            frequency_penalty: Some(0.0),
            presence_penalty: Some(0.0),
            repeat_penalty: Some(1.0),
            ..plain
        };
        assert_eq!(asked(Chat { choices: Some(1), ..sampled(neutral) }), json!({"input": []}));
    }

    #[test]
    fn what_is_asked_is_understood_again() {
        let chat = Chat {
            turns: vec![
                Turn::text(Role::System, "be brief"),
                Turn::text(Role::User, "a"),
                Turn {
                    role: Role::Assistant,
                    name: None,
                    parts: vec![
                        Part::Thinking { text: "hm".to_owned(), signature: None },
                        Part::Text("b".to_owned()),
                    ],
                },
                Turn::text(Role::System, "c"),
            ],
            parallel_calls: Some(false),
            tools: vec![Tool {
                name: "f".to_owned(),
                description: Some("d".to_owned()),
                parameters: Some(json!({"type": "object"})),
                strict: Some(true),
            }],
            tool_choice: ToolChoice::Required,
            format: Format::Json,
            effort: Some(Effort::Level("low".to_owned())),
            sampling: Sampling {
                max_tokens: Some(1),
                temperature: Some(0.5),
                top_p: Some(0.1),
                ..Sampling::default()
            },
            logprobs: Some(3),
            ..Chat::default()
        };
        let meaning = Meaning::Chat(chat);
        let body = ask(&meaning, &TO).unwrap().to_string();
        assert_eq!(super::super::understand::understand(body.as_bytes()).unwrap(), meaning);
    }
}
