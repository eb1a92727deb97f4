//! Asks an OpenAI-like server for what another language said.
//!
//! Meant are the servers that people run: vLLM, llama.cpp, LM Studio and their
//! like. Where they agree on an extension of OpenAI's own words, it is used.
//!
//! Three things are left out, because they change no answer: `keep_alive`, for
//! these servers keep their model; a wish for a large context, because theirs is
//! fixed, and what does not fit is refused and never cut; and the leave to cut a
//! text before it is made a vector, of which no server needs to make use.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{conversation, sold};
use crate::{
    dialect::{Asked, Door, Lack, Sold, To},
    generate::{
        Chat, Complete, Effort, Embed, Extras, Format, Meaning, Part, Role, Sampling, Tool, ToolChoice,
    },
};

type Body = Map<String, Value>;

/// The name of a schema that has none. OpenAI's clients must give one.
const NAMELESS: &str = "answer";

/// Says it in OpenAI's words.
pub(super) fn ask(door: Door, meaning: &Meaning, to: &To<'_>) -> Result<Asked, Lack> {
    let mut body = Body::new();
    put(&mut body, "model", to.model);
    match (door, meaning) {
        (Door::OpenAiChat, Meaning::Chat(it)) => chat(&mut body, it, to)?,
        (Door::OpenAiComplete, Meaning::Complete(it)) => complete(&mut body, it)?,
        (Door::OpenAiEmbed, Meaning::Embed(it)) => embed(&mut body, it)?,
        _ => return Err(Lack(format!("this cannot be asked at {door}"))),
    }
    if to.stream && door != Door::OpenAiEmbed {
        put(&mut body, "stream", true);
        if to.ask_usage {
            put(&mut body, "stream_options", json!({"include_usage": true}));
        }
    }
    let body = Bytes::from(Value::Object(body).to_string());
    let body = match to.sold {
        Some(sold) => sold::limit(door, body, sold),
        None => body,
    };
    Ok(Asked { body, forced: None })
}

fn chat(body: &mut Body, chat: &Chat, to: &To<'_>) -> Result<(), Lack> {
    refuse_extras(&chat.extras)?;
    if let Some(sold) = to.sold {
        refuse_what_is_not_sold(chat, sold)?;
    }
    put(body, "messages", conversation::messages(&chat.turns)?);
    tools(body, chat)?;
    match &chat.format {
        Format::Text => {}
        format => put(body, "response_format", response_format(format)),
    }
    if let Some(effort) = &chat.effort {
        match to.sold {
            None => think(body, effort),
            Some(_) => put(body, "reasoning_effort", level(effort)),
        }
    }
    match to.sold {
        None => sampling(body, &chat.sampling),
        Some(sold) => sampling(body, &as_sold(&chat.sampling, sold)),
    }
    if let Some(top) = chat.logprobs {
        put(body, "logprobs", true);
        put(body, "top_logprobs", Some(top).filter(|it| *it > 0));
    }
    put(body, "n", chat.choices);
    if is_begun(chat) {
        // The caller wrote the beginning of the answer. llama.cpp would go on by
        // itself, vLLM would start again, and both heed these two.
        put(body, "continue_final_message", true);
        put(body, "add_generation_prompt", false);
    }
    Ok(())
}

/// Whether the last turn is the model's own, and unfinished.
fn is_begun(chat: &Chat) -> bool {
    let Some(last) = chat.turns.last() else { return false };
    let says = last.parts.iter().any(|it| matches!(it, Part::Text(text) if !text.is_empty()));
    last.role == Role::Assistant && says && !last.parts.iter().any(|it| matches!(it, Part::Call(_)))
}

fn complete(body: &mut Body, complete: &Complete) -> Result<(), Lack> {
    refuse_extras(&complete.extras)?;
    put(body, "prompt", complete.prompt.as_str());
    put(body, "suffix", complete.suffix.as_deref());
    put(body, "echo", Some(true).filter(|_| complete.echo));
    match &complete.format {
        Format::Text => {}
        format => {
            // vLLM reads the one, llama.cpp the other.
            put(body, "response_format", response_format(format));
            let schema = match format {
                Format::Schema { schema, .. } => schema.clone(),
                Format::Json | Format::Text => json!({"type": "object"}),
            };
            put(body, "json_schema", schema);
        }
    }
    sampling(body, &complete.sampling);
    put(body, "logprobs", complete.logprobs);
    put(body, "n", complete.choices);
    Ok(())
}

fn embed(body: &mut Body, embed: &Embed) -> Result<(), Lack> {
    refuse_extras(&embed.extras)?;
    put(body, "input", embed.inputs.as_slice());
    put(body, "dimensions", embed.dimensions);
    put(body, "encoding_format", "float");
    Ok(())
}

fn refuse_extras(extras: &Extras) -> Result<(), Lack> {
    if extras.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = extras.iter().map(|(name, _)| format!("`{name}`")).collect();
    Err(Lack(format!("{} cannot be said to a server that speaks OpenAI's language", names.join(", "))))
}

fn tools(body: &mut Body, chat: &Chat) -> Result<(), Lack> {
    let all = chat.tools.iter();
    let tools: Vec<Value> = match &chat.tool_choice {
        // llama.cpp knows the word and passes over the form that names a tool. The
        // word says the same when there is no other.
        ToolChoice::Named(name) => all.filter(|it| it.name == *name).map(tool).collect(),
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Required => all.map(tool).collect(),
    };
    let choice = match &chat.tool_choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some("none"),
        ToolChoice::Required | ToolChoice::Named(_) => Some("required"),
    };
    if tools.is_empty() {
        return match choice {
            Some("required") => Err(Lack("a tool must be called and there is none".to_owned())),
            // vLLM refuses an empty list.
            _ => Ok(()),
        };
    }
    put(body, "tools", tools);
    put(body, "tool_choice", choice);
    put(body, "parallel_tool_calls", chat.parallel_calls);
    Ok(())
}

fn tool(tool: &Tool) -> Value {
    let mut function = Body::new();
    put(&mut function, "name", tool.name.as_str());
    put(&mut function, "description", tool.description.as_deref());
    put(&mut function, "parameters", tool.parameters.clone());
    put(&mut function, "strict", tool.strict);
    json!({"type": "function", "function": function})
}

fn response_format(format: &Format) -> Value {
    match format {
        Format::Text => json!({"type": "text"}),
        Format::Json => json!({"type": "json_object"}),
        Format::Schema { name, schema, strict } => {
            let mut inner = Body::new();
            put(&mut inner, "name", name.as_deref().unwrap_or(NAMELESS));
            put(&mut inner, "schema", schema.clone());
            put(&mut inner, "strict", *strict);
            json!({"type": "json_schema", "json_schema": inner})
        }
    }
}

/// How much to think. `reasoning_effort` is for models with levels; the others
/// have a switch in their template, which both vLLM and llama.cpp hand on.
///
/// A limit in tokens becomes a level: no two servers have the same name for it,
/// and vLLM refuses its own unless it was started for it.
fn think(body: &mut Body, effort: &Effort) {
    let level = match effort {
        Effort::Off => return put(body, "chat_template_kwargs", json!({"enable_thinking": false})),
        Effort::On => return put(body, "chat_template_kwargs", json!({"enable_thinking": true})),
        Effort::Level(_) | Effort::Budget(_) => level(effort),
    };
    put(body, "reasoning_effort", level);
    put(body, "chat_template_kwargs", json!({"enable_thinking": true, "reasoning_effort": level}));
}

/// The same as a level; `None` where whoever thinks by itself does so.
fn level(effort: &Effort) -> Option<&str> {
    Some(match effort {
        Effort::Off => "none",
        Effort::On => return None,
        Effort::Level(level) => level,
        Effort::Budget(0..4096) => "low",
        Effort::Budget(4096..16384) => "medium",
        Effort::Budget(_) => "high",
    })
}

/// Without what says nothing, and would be refused by name all the same.
fn as_sold(sampling: &Sampling, sold: Sold) -> Sampling {
    match sold.strict {
        true => Sampling { min_p: None, repeat_penalty: None, ..sampling.clone() },
        false => sampling.clone(),
    }
}

/// Names what only people's own servers know, where it would be refused or passed over.
fn refuse_what_is_not_sold(chat: &Chat, sold: Sold) -> Result<(), Lack> {
    let sampling = &chat.sampling;
    let has = [
        ("`top_k`", sold.strict && sampling.top_k.is_some()),
        ("`min_p`", sold.strict && sampling.min_p.is_some_and(|it| it != 0.0)),
        ("`repeat_penalty`", sold.strict && sampling.repeat_penalty.is_some_and(|it| it != 1.0)),
        ("the beginning of an answer", is_begun(chat)),
    ];
    match has.into_iter().find(|(_, has)| *has) {
        Some((what, _)) => Err(Lack(format!("{what} cannot be said to this provider"))),
        None => Ok(()),
    }
}

fn sampling(body: &mut Body, sampling: &Sampling) {
    // Every local server knows the older name.
    put(body, "max_tokens", sampling.max_tokens);
    put(body, "temperature", sampling.temperature);
    put(body, "top_p", sampling.top_p);
    put(body, "top_k", sampling.top_k);
    put(body, "min_p", sampling.min_p);
    put(body, "seed", sampling.seed);
    put(body, "stop", Some(sampling.stop.as_slice()).filter(|it| !it.is_empty()));
    put(body, "frequency_penalty", sampling.frequency_penalty);
    put(body, "presence_penalty", sampling.presence_penalty);
    // vLLM reads the one, llama.cpp and LM Studio the other.
    put(body, "repetition_penalty", sampling.repeat_penalty);
    put(body, "repeat_penalty", sampling.repeat_penalty);
    put(body, "logit_bias", sampling.logit_bias.clone());
}

/// Sets a field, unless there is nothing to say.
pub(super) fn put(body: &mut Map<String, Value>, name: &str, value: impl serde::Serialize) {
    let value = serde_json::to_value(value).unwrap_or_default();
    if !value.is_null() {
        body.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{ToolResult, Turn};

    const TO: To<'_> = To { model: "m", stream: false, ask_usage: false, max_tokens: true, sold: None };

    fn asked(door: Door, meaning: &Meaning, to: &To<'_>) -> Value {
        let asked = ask(door, meaning, to).unwrap();
        assert_eq!(asked.forced, None);
        serde_json::from_slice(&asked.body).unwrap()
    }

    fn said(chat: Chat) -> Value {
        let mut body = asked(Door::OpenAiChat, &Meaning::Chat(chat), &TO);
        let fields = body.as_object_mut().unwrap();
        assert_eq!(fields.remove("model"), Some("m".into()));
        fields.remove("messages");
        body
    }

    fn lacks(chat: Chat, expected: &str) {
        assert_eq!(ask(Door::OpenAiChat, &Meaning::Chat(chat), &TO), Err(Lack(expected.to_owned())));
    }

    fn tools(choice: ToolChoice) -> Chat {
        let tool = |name: &str| Tool {
            name: name.to_owned(),
            description: Some("d".to_owned()),
            parameters: Some(json!({"type": "object"})),
            strict: None,
        };
        Chat { tools: vec![tool("f"), tool("g")], tool_choice: choice, ..Chat::default() }
    }

    #[test]
    fn a_chat_says_what_was_meant_and_nothing_more() {
        assert_eq!(said(Chat::default()), json!({}));
        let streamed = To { stream: true, ask_usage: true, ..TO };
        let body = asked(Door::OpenAiChat, &Meaning::Chat(Chat::default()), &streamed);
        let expected =
            json!({"model": "m", "messages": [], "stream": true, "stream_options": {"include_usage": true}});
        assert_eq!(body, expected);
    }

    #[test]
    fn numbers_have_the_names_that_local_servers_read() {
        let sampling = Sampling {
            max_tokens: Some(5),
            temperature: Some(0.5),
            top_p: Some(0.9),
            top_k: Some(40),
            min_p: Some(0.1),
            seed: Some(7),
            stop: vec!["x".to_owned()],
            frequency_penalty: Some(0.25),
            presence_penalty: Some(0.5),
            repeat_penalty: Some(1.5),
            logit_bias: Some(json!({"5": 1})),
        };
        let body = said(Chat { sampling, logprobs: Some(2), choices: Some(2), ..Chat::default() });
        let expected = json!({"max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1,
            "seed": 7, "stop": ["x"], "frequency_penalty": 0.25, "presence_penalty": 0.5,
            "repetition_penalty": 1.5, "repeat_penalty": 1.5, "logit_bias": {"5": 1},
            "logprobs": true, "top_logprobs": 2, "n": 2});
        assert_eq!(body, expected);
    }

    #[test]
    fn a_forced_call_is_the_only_one_that_can_be() {
        let tool = |name: &str| {
            json!({"type": "function",
                "function": {"name": name, "description": "d", "parameters": {"type": "object"}}})
        };
        assert_eq!(said(tools(ToolChoice::Auto)), json!({"tools": [tool("f"), tool("g")]}));
        let required = json!({"tools": [tool("f"), tool("g")], "tool_choice": "required"});
        assert_eq!(said(tools(ToolChoice::Required)), required);
        let named = json!({"tools": [tool("g")], "tool_choice": "required"});
        assert_eq!(said(tools(ToolChoice::Named("g".to_owned()))), named);
        let one = said(Chat { parallel_calls: Some(false), ..tools(ToolChoice::None) });
        assert_eq!((&one["tool_choice"], &one["parallel_tool_calls"]), (&json!("none"), &json!(false)));
        lacks(
            Chat { tool_choice: ToolChoice::Required, ..Chat::default() },
            "a tool must be called and there is none",
        );
    }

    #[test]
    fn forms_and_thinking_are_asked_for() {
        let schema = Format::Schema { name: None, schema: json!({"type": "object"}), strict: Some(true) };
        let expected = json!({"response_format": {"type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": true}}});
        assert_eq!(said(Chat { format: schema, ..Chat::default() }), expected);
        let json = said(Chat { format: Format::Json, ..Chat::default() });
        assert_eq!(json, json!({"response_format": {"type": "json_object"}}));

        let think = |effort| said(Chat { effort: Some(effort), ..Chat::default() });
        assert_eq!(think(Effort::Off), json!({"chat_template_kwargs": {"enable_thinking": false}}));
        assert_eq!(think(Effort::On), json!({"chat_template_kwargs": {"enable_thinking": true}}));
        let level = |level: &str| {
            json!({"reasoning_effort": level,
                "chat_template_kwargs": {"enable_thinking": true, "reasoning_effort": level}})
        };
        assert_eq!(think(Effort::Level("high".to_owned())), level("high"));
        assert_eq!(think(Effort::Budget(1024)), level("low"));
        assert_eq!(think(Effort::Budget(10_000)), level("medium"));
        assert_eq!(think(Effort::Budget(32_000)), level("high"));
    }

    #[test]
    fn what_changes_no_answer_is_left_out_and_the_rest_is_refused_by_name() {
        let kept = Chat { keep_alive: Some(json!("5m")), context: Some(8192), ..Chat::default() };
        assert_eq!(said(kept), json!({}));
        let extras = vec![("options.mirostat".to_owned(), json!(2)), ("raw".to_owned(), json!(true))];
        lacks(
            Chat { extras, ..Chat::default() },
            "`options.mirostat`, `raw` cannot be said to a server that speaks OpenAI's language",
        );
    }

    #[test]
    fn whoever_sells_answers_is_told_nothing_that_it_would_refuse() {
        let sold = Some(Sold { newer: true, strict: true, at_most: Some(9) });
        let to = To { sold, ..TO };
        let said = |chat: Chat| {
            let mut body = asked(Door::OpenAiChat, &Meaning::Chat(chat), &to);
            for name in ["model", "messages"] {
                body.as_object_mut().unwrap().remove(name);
            }
            body
        };
        assert_eq!(said(Chat::default()), json!({"max_completion_tokens": 9}));
        let sampling = Sampling { max_tokens: Some(5), repeat_penalty: Some(1.0), ..Sampling::default() };
        let chat = Chat { sampling, effort: Some(Effort::On), ..Chat::default() };
        assert_eq!(said(chat), json!({"max_completion_tokens": 5}));
        let thinks = said(Chat { effort: Some(Effort::Budget(9000)), ..Chat::default() });
        assert_eq!(thinks, json!({"max_completion_tokens": 9, "reasoning_effort": "medium"}));
        let lacks = |chat: Chat| ask(Door::OpenAiChat, &Meaning::Chat(chat), &to).unwrap_err().0;
        let sampling = Sampling { top_k: Some(5), ..Sampling::default() };
        assert!(lacks(Chat { sampling, ..Chat::default() }).contains("`top_k`"));
        let turns = vec![Turn::text(Role::User, "hi"), Turn::text(Role::Assistant, "{")];
        assert!(lacks(Chat { turns, ..Chat::default() }).contains("beginning"));
    }

    #[test]
    fn an_answer_that_the_caller_began_is_gone_on_with() {
        let turns = vec![Turn::text(Role::User, "hi"), Turn::text(Role::Assistant, "{")];
        let body = said(Chat { turns, ..Chat::default() });
        assert_eq!(body, json!({"continue_final_message": true, "add_generation_prompt": false}));
        let result = ToolResult { id: "a".to_owned(), name: None, parts: vec![], is_error: false };
        let turns = vec![Turn { role: Role::Tool, name: None, parts: vec![Part::Result(result)] }];
        assert_eq!(said(Chat { turns, ..Chat::default() }), json!({}));
    }

    #[test]
    fn texts_are_continued_and_made_vectors() {
        let complete = Complete {
            prompt: "a".to_owned(),
            suffix: Some("b".to_owned()),
            echo: true,
            format: Format::Json,
            logprobs: Some(0),
            ..Complete::default()
        };
        let body = asked(Door::OpenAiComplete, &Meaning::Complete(complete), &TO);
        let expected = json!({"model": "m", "prompt": "a", "suffix": "b", "echo": true, "logprobs": 0,
            "response_format": {"type": "json_object"}, "json_schema": {"type": "object"}});
        assert_eq!(body, expected);

        let inputs = vec!["a".to_owned(), "b".to_owned()];
        let embed = Embed { inputs, dimensions: Some(8), truncate: Some(true), ..Embed::default() };
        let to = To { stream: true, ask_usage: true, ..TO };
        let body = asked(Door::OpenAiEmbed, &Meaning::Embed(embed), &to);
        let expected =
            json!({"model": "m", "input": ["a", "b"], "dimensions": 8, "encoding_format": "float"});
        assert_eq!(body, expected);
    }
}
