//! What a caller's request means.
//!
//! Fields that have no name in `Meaning` go to its extras, and are refused by
//! that name when the request must be said in another language. Only what
//! changes no answer is left out: see `HINTS`.

use serde_json::Value;

use super::messages;
use crate::{
    dialect::{Door, fields::Fields, json::bad},
    fault::Failure,
    generate::{Chat, Complete, Effort, Embed, Extras, Format, Meaning, Sampling, Tool, ToolChoice},
};

/// What changes no answer, so that nothing is lost without it.
const HINTS: &[&str] = &[
    // Read elsewhere: by routing, and by whoever writes the answer.
    "model",
    "stream",
    "stream_options",
    // Who asks, and what is kept of it: nothing is sold or stored here.
    "user",
    "safety_identifier",
    "metadata",
    "store",
    "service_tier",
    // A wish about length that Codex sends with every request and only one maker's models know.
    "verbosity",
    // They make an answer come sooner, not differently.
    "prompt_cache_key",
    "prompt_cache_retention",
    "cache_prompt",
    "prediction",
];

/// Takes the whole request apart.
pub(super) fn understand(door: Door, body: &[u8]) -> Result<Meaning, Failure> {
    let mut fields = Fields::of(body)?;
    fields.drop_hints(HINTS);
    match door {
        Door::OpenAiComplete => complete(fields).map(Meaning::Complete),
        Door::OpenAiEmbed => embed(fields).map(Meaning::Embed),
        _ => chat(fields).map(Meaning::Chat),
    }
}

fn chat(mut fields: Fields) -> Result<Chat, Failure> {
    let mut extras = Extras::new();
    let Some(list) = fields.list("messages")? else { return Err(bad("`messages` is missing")) };
    let turns = messages::turns(list, &mut extras)?;
    let mut tools = tools(&mut fields, &mut extras)?;
    let tool_choice = tool_choice(&mut fields, &mut tools, &mut extras)?;
    let format = format(&mut fields, &mut extras)?;
    let effort = effort(&mut fields, &mut extras)?;
    let top = fields.count("top_logprobs")?.filter(|it| *it > 0);
    let logprobs = match (fields.flag("logprobs")?.unwrap_or(false), top) {
        (true, top) => Some(alternatives("top_logprobs", top.unwrap_or(0))?),
        (false, None) => None,
        (false, Some(_)) => return Err(bad("`top_logprobs` needs `logprobs` to be true")),
    };
    let chat = Chat {
        turns,
        tools,
        tool_choice,
        // True is what it is anyway.
        parallel_calls: fields.flag("parallel_tool_calls")?.filter(|it| !it),
        format,
        effort,
        sampling: sampling(&mut fields)?,
        logprobs,
        choices: choices(&mut fields)?,
        keep_alive: fields.take("keep_alive"),
        context: None,
        extras: Extras::new(),
    };
    neutral(&mut fields, "modalities", |it| *it == serde_json::json!(["text"]));
    neutral(&mut fields, "include_reasoning", |it| *it == true);
    neutral(&mut fields, "reasoning_format", |it| it == "auto" || it == "parsed");
    fields.rest(&mut extras);
    Ok(Chat { extras, ..chat })
}

fn complete(mut fields: Fields) -> Result<Complete, Failure> {
    let mut extras = Extras::new();
    let prompt = match fields.need("prompt")? {
        Value::String(prompt) => prompt,
        Value::Array(list) => match &list[..] {
            [Value::String(prompt)] => prompt.clone(),
            [] => return Err(bad("`prompt` is an empty list")),
            [Value::String(_), ..] => return Err(only_same("several texts in `prompt`")),
            _ => return Err(only_same("token numbers in `prompt`")),
        },
        _ => return Err(bad("`prompt` must be a text or a list")),
    };
    let logprobs = match fields.count("logprobs")? {
        Some(top) => Some(alternatives("logprobs", top)?),
        None => None,
    };
    let complete = Complete {
        prompt,
        suffix: fields.text("suffix")?.filter(|it| !it.is_empty()),
        echo: fields.flag("echo")?.unwrap_or(false),
        format: format(&mut fields, &mut extras)?,
        sampling: sampling(&mut fields)?,
        logprobs,
        choices: choices(&mut fields)?,
        keep_alive: fields.take("keep_alive"),
        context: None,
        extras: Extras::new(),
    };
    neutral(&mut fields, "best_of", |it| *it == 1);
    fields.rest(&mut extras);
    Ok(Complete { extras, ..complete })
}

fn embed(mut fields: Fields) -> Result<Embed, Failure> {
    let inputs = match fields.need("input")? {
        Value::String(text) => vec![text],
        Value::Array(list) if list.is_empty() => return Err(bad("`input` is an empty list")),
        Value::Array(list) => {
            let texts = list.into_iter().map(|it| match it {
                Value::String(text) => Ok(text),
                _ => Err(only_same("token numbers in `input`")),
            });
            texts.collect::<Result<_, _>>()?
        }
        _ => return Err(bad("`input` must be a text or a list")),
    };
    let mut embed = Embed {
        inputs,
        dimensions: fields.count("dimensions")?,
        truncate: None,
        keep_alive: fields.take("keep_alive"),
        context: None,
        extras: Extras::new(),
    };
    // In what form vectors go to the caller is for whoever writes them.
    neutral(&mut fields, "encoding_format", |it| it == "float" || it == "base64");
    fields.rest(&mut embed.extras);
    Ok(embed)
}

/// What only a server of the caller's own language can be given.
fn only_same(what: &str) -> Failure {
    Failure::Unsupported(format!("{what} can only be sent to a server that speaks OpenAI's language"))
}

/// Takes a field away if it says what holds anyway.
fn neutral(fields: &mut Fields, name: &str, holds_anyway: impl FnOnce(&Value) -> bool) {
    if fields.peek(name).is_some_and(holds_anyway) {
        fields.drop_hints(&[name]);
    }
}

fn sampling(fields: &mut Fields) -> Result<Sampling, Failure> {
    let older = fields.count("max_tokens")?;
    let stop = match fields.take("stop") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => {
            let texts = list.into_iter().map(|it| match it {
                Value::String(text) => Ok(text),
                _ => Err(fields.wrong("stop", "a text or a list of texts")),
            });
            texts.collect::<Result<_, _>>()?
        }
        Some(_) => return Err(fields.wrong("stop", "a text or a list of texts")),
    };
    let repetition = fields.number("repetition_penalty")?;
    Ok(Sampling {
        max_tokens: fields.count("max_completion_tokens")?.or(older),
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        // vLLM, llama.cpp and LM Studio take these from OpenAI's clients.
        top_k: fields.integer("top_k")?,
        min_p: fields.number("min_p")?,
        repeat_penalty: fields.number("repeat_penalty")?.or(repetition),
        seed: fields.integer("seed")?,
        stop: stop.into_iter().filter(|it| !it.is_empty()).collect(),
        frequency_penalty: fields.number("frequency_penalty")?,
        presence_penalty: fields.number("presence_penalty")?,
        logit_bias: fields.take("logit_bias").filter(|it| it.as_object().is_none_or(|it| !it.is_empty())),
    })
}

fn choices(fields: &mut Fields) -> Result<Option<u64>, Failure> {
    match fields.count("n")? {
        Some(0) => Err(bad("`n` must be at least 1")),
        other => Ok(other.filter(|it| *it != 1)),
    }
}

fn alternatives(name: &str, top: u64) -> Result<u32, Failure> {
    u32::try_from(top).map_err(|_| bad(format!("`{name}` is too large")))
}

/// `tools`, or `functions` as they were called before.
fn tools(fields: &mut Fields, extras: &mut Extras) -> Result<Vec<Tool>, Failure> {
    let mut tools = Vec::new();
    for (at, tool) in fields.list("tools")?.into_iter().flatten().enumerate() {
        let path = format!("tools[{at}]");
        let mut outer = Fields::within(&path, tool)?;
        let kind = outer.text("type")?.unwrap_or_else(|| "function".to_owned());
        if kind != "function" {
            extras.push((format!("{path}.type"), kind.into()));
            continue;
        }
        let function = outer.need("function")?;
        tools.push(tool_of(Fields::within(&format!("{path}.function"), function)?, extras)?);
        outer.rest(extras);
    }
    for (at, function) in fields.list("functions")?.into_iter().flatten().enumerate() {
        tools.push(tool_of(Fields::within(&format!("functions[{at}]"), function)?, extras)?);
    }
    Ok(tools)
}

fn tool_of(mut fields: Fields, extras: &mut Extras) -> Result<Tool, Failure> {
    let tool = Tool {
        name: fields.need_text("name")?,
        description: fields.text("description")?,
        parameters: fields.take("parameters"),
        strict: fields.flag("strict")?,
    };
    fields.rest(extras);
    Ok(tool)
}

/// `tool_choice`, or `function_call` as it was called before. Of `allowed_tools`
/// the others are taken out of `tools`.
fn tool_choice(
    fields: &mut Fields,
    tools: &mut Vec<Tool>,
    extras: &mut Extras,
) -> Result<ToolChoice, Failure> {
    let older = fields.take("function_call");
    let (name, choice) = match (fields.take("tool_choice"), older) {
        (Some(choice), _) => ("tool_choice", choice),
        (None, Some(choice)) => ("function_call", choice),
        (None, None) => return Ok(ToolChoice::Auto),
    };
    let choice = match choice {
        Value::String(word) => match mode(&word) {
            Some(choice) => choice,
            None => return Err(bad(format!("`{name}` must be none, auto, required or a tool"))),
        },
        object => {
            let mut choice = Fields::within(name, object)?;
            let kind = choice.text("type")?;
            match kind.as_deref() {
                // Before there were tools it was the name alone.
                None if name == "function_call" => ToolChoice::Named(choice.need_text("name")?),
                None | Some("function") => {
                    let function = choice.need("function")?;
                    let mut function = Fields::within("tool_choice.function", function)?;
                    ToolChoice::Named(function.need_text("name")?)
                }
                Some("allowed_tools") => allowed(choice, tools)?,
                Some(other) => {
                    extras.push((format!("{name}.type"), other.into()));
                    ToolChoice::Auto
                }
            }
        }
    };
    match &choice {
        ToolChoice::Named(wanted) if !tools.iter().any(|it| it.name == *wanted) => {
            Err(bad(format!("`{name}` names a tool that is not among the tools")))
        }
        ToolChoice::Required if tools.is_empty() => Err(bad(format!("`{name}` needs `tools`"))),
        _ => Ok(choice),
    }
}

fn mode(word: &str) -> Option<ToolChoice> {
    match word {
        "auto" => Some(ToolChoice::Auto),
        "none" => Some(ToolChoice::None),
        // Mistral's word, which many servers take as well.
        "required" | "any" => Some(ToolChoice::Required),
        _ => None,
    }
}

fn allowed(mut choice: Fields, tools: &mut Vec<Tool>) -> Result<ToolChoice, Failure> {
    let allowed = choice.need("allowed_tools")?;
    let mut allowed = Fields::within("tool_choice.allowed_tools", allowed)?;
    let mode = allowed.text("mode")?.and_then(|it| mode(&it)).unwrap_or_default();
    let mut names = Vec::new();
    for (at, tool) in allowed.list("tools")?.into_iter().flatten().enumerate() {
        let path = format!("tool_choice.allowed_tools.tools[{at}]");
        let function = Fields::within(&path, tool)?.need("function")?;
        names.push(Fields::within(&format!("{path}.function"), function)?.need_text("name")?);
    }
    tools.retain(|it| names.contains(&it.name));
    Ok(mode)
}

fn format(fields: &mut Fields, extras: &mut Extras) -> Result<Format, Failure> {
    let Some(mut format) = fields.object("response_format")? else { return Ok(Format::Text) };
    match format.need_text("type")?.as_str() {
        "text" => Ok(Format::Text),
        "json_object" => match format.take("schema") {
            // llama.cpp's way.
            Some(schema) => Ok(Format::Schema { name: None, schema, strict: None }),
            None => Ok(Format::Json),
        },
        "json_schema" => {
            let schema = format.need("json_schema")?;
            let mut fields = Fields::within("response_format.json_schema", schema)?;
            let (name, strict) = (fields.text("name")?, fields.flag("strict")?);
            let described = fields.text("description")?;
            let Some(mut schema) = fields.take("schema") else { return Ok(Format::Json) };
            // It is the same thing in the schema's own words.
            if let (Some(text), Some(schema)) = (described, schema.as_object_mut()) {
                schema.entry("description").or_insert(text.into());
            }
            fields.rest(extras);
            Ok(Format::Schema { name, schema, strict })
        }
        other => {
            extras.push(("response_format.type".to_owned(), other.into()));
            Ok(Format::Text)
        }
    }
}

/// `reasoning_effort`, or the switch that vLLM and llama.cpp hand to the model's template.
fn effort(fields: &mut Fields, extras: &mut Extras) -> Result<Option<Effort>, Failure> {
    let mut switch = None;
    if let Some(mut template) = fields.object("chat_template_kwargs")? {
        switch = template.flag("enable_thinking")?;
        template.rest(extras);
    }
    Ok(match (fields.text("reasoning_effort")?, switch) {
        (Some(level), _) if level == "none" => Some(Effort::Off),
        (_, Some(false)) => Some(Effort::Off),
        (Some(level), _) => Some(Effort::Level(level)),
        (None, Some(true)) => Some(Effort::On),
        (None, None) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(door: Door, body: &str) -> Result<Meaning, String> {
        understand(door, body.as_bytes()).map_err(|it| it.message())
    }

    fn chat(more: &str) -> Chat {
        let body =
            format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]{more}}}");
        match meant(Door::OpenAiChat, &body) {
            Ok(Meaning::Chat(chat)) => chat,
            other => panic!("{other:?} for {body}"),
        }
    }

    fn refused(more: &str, expected: &str) {
        let body = format!("{{\"model\":\"m\",\"messages\":[]{more}}}");
        assert_eq!(meant(Door::OpenAiChat, &body).unwrap_err(), expected, "for {more}");
    }

    fn names(extras: &Extras) -> Vec<&str> {
        extras.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn numbers_are_understood_under_all_their_names() {
        let sampling = chat(
            r#","max_tokens":5,"max_completion_tokens":7.0,"temperature":0.5,"top_p":1,"top_k":40,"min_p":0.1,
            "repetition_penalty":1.1,"seed":-3,"stop":"x","frequency_penalty":0.5,"presence_penalty":-0.5,
            "logit_bias":{"5":1}"#,
        )
        .sampling;
        let expected = Sampling {
            max_tokens: Some(7),
            temperature: Some(0.5),
            top_p: Some(1.0),
            top_k: Some(40),
            min_p: Some(0.1),
            seed: Some(-3),
            stop: vec!["x".to_owned()],
            frequency_penalty: Some(0.5),
            presence_penalty: Some(-0.5),
            repeat_penalty: Some(1.1),
            logit_bias: Some(serde_json::json!({"5": 1})),
        };
        assert_eq!(sampling, expected);
        assert_eq!(chat(r#","repeat_penalty":1.2,"max_tokens":5"#).sampling.repeat_penalty, Some(1.2));
        assert_eq!(chat(r#","max_tokens":5"#).sampling.max_tokens, Some(5));
        assert_eq!(chat(r#","stop":["a","","b"]"#).sampling.stop, ["a", "b"]);
    }

    #[test]
    fn what_says_nothing_is_as_if_it_were_not_there() {
        let neutral = r#","n":1,"logprobs":false,"top_logprobs":0,"parallel_tool_calls":true,"stop":null,"stop":[],
            "max_tokens":-1,"logit_bias":{},"tools":[],"tool_choice":"auto","response_format":{"type":"text"},
            "modalities":["text"],"x":null,"y":[],"z":"","chat_template_kwargs":{}"#;
        assert_eq!(chat(&neutral.replace(r#""stop":null,"#, "")), chat(""));
    }

    #[test]
    fn hints_change_no_answer() {
        let hints = r#","stream":true,"stream_options":{"include_usage":true},"user":"u","metadata":{"a":"b"},
            "store":true,"service_tier":"flex","safety_identifier":"s","prompt_cache_key":"k"}"#;
        assert_eq!(chat(hints.trim_end_matches('}')), chat(""));
    }

    #[test]
    fn what_has_no_name_is_kept_by_the_callers_name() {
        let chat = chat(
            r#","mirostat":2,"foo":{"a":1},"chat_template_kwargs":{"x":1},
            "tools":[{"type":"web_search"}],"audio":{"voice":"v"}"#,
        );
        let expected = ["tools[0].type", "chat_template_kwargs.x", "audio", "foo", "mirostat"];
        let mut all = names(&chat.extras);
        all.sort_unstable();
        let mut sorted = expected.to_vec();
        sorted.sort_unstable();
        assert_eq!(all, sorted);
    }

    #[test]
    fn tools_are_chosen_in_both_ways_of_saying_it() {
        let tools = r#","tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}},
            {"type":"function","function":{"name":"g"}}]"#;
        let choice = |choice: &str| chat(&format!("{tools},\"tool_choice\":{choice}")).tool_choice;
        assert_eq!(chat(tools).tool_choice, ToolChoice::Auto);
        assert_eq!(choice("\"none\""), ToolChoice::None);
        assert_eq!(choice("\"required\""), ToolChoice::Required);
        let named = ToolChoice::Named("g".to_owned());
        assert_eq!(choice(r#"{"type":"function","function":{"name":"g"}}"#), named);
        let first = Tool {
            name: "f".to_owned(),
            description: Some("d".to_owned()),
            parameters: Some(serde_json::json!({"type": "object"})),
            strict: Some(true),
        };
        assert_eq!(chat(tools).tools[0], first);

        let allowed = r#"{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"g"}}]}}"#;
        let chosen = chat(&format!("{tools},\"tool_choice\":{allowed}"));
        assert_eq!((chosen.tools.len(), chosen.tool_choice), (1, ToolChoice::Required));

        let older = chat(r#","functions":[{"name":"g"}],"function_call":{"name":"g"}"#);
        assert_eq!((older.tools[0].name.as_str(), older.tool_choice), ("g", named));
        assert_eq!(chat(&format!("{tools},\"parallel_tool_calls\":false")).parallel_calls, Some(false));
    }

    #[test]
    fn forms_of_answers_are_understood() {
        let format = |format: &str| chat(&format!(",\"response_format\":{format}")).format;
        assert_eq!(format(r#"{"type":"json_object"}"#), Format::Json);
        let schema = serde_json::json!({"type": "object"});
        let expected =
            Format::Schema { name: Some("n".to_owned()), schema: schema.clone(), strict: Some(true) };
        assert_eq!(
            format(
                r#"{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":true}}"#
            ),
            expected
        );
        let expected = Format::Schema { name: None, schema, strict: None };
        assert_eq!(format(r#"{"type":"json_object","schema":{"type":"object"}}"#), expected);
        let described = format(r#"{"type":"json_schema","json_schema":{"description":"d","schema":{}}}"#);
        let schema = serde_json::json!({"description": "d"});
        assert_eq!(described, Format::Schema { name: None, schema, strict: None });
        assert_eq!(names(&chat(r#","response_format":{"type":"grammar"}"#).extras), ["response_format.type"]);
    }

    #[test]
    fn thinking_is_a_level_or_a_switch() {
        assert_eq!(chat(r#","reasoning_effort":"none""#).effort, Some(Effort::Off));
        assert_eq!(chat(r#","reasoning_effort":"low""#).effort, Some(Effort::Level("low".to_owned())));
        let switch =
            |on: bool| chat(&format!(",\"chat_template_kwargs\":{{\"enable_thinking\":{on}}}")).effort;
        assert_eq!((switch(true), switch(false)), (Some(Effort::On), Some(Effort::Off)));
    }

    #[test]
    fn log_probabilities_are_asked_for_in_two_fields() {
        assert_eq!(chat(r#","logprobs":true"#).logprobs, Some(0));
        assert_eq!(chat(r#","logprobs":true,"top_logprobs":5"#).logprobs, Some(5));
        refused(r#","top_logprobs":5"#, "`top_logprobs` needs `logprobs` to be true");
        assert_eq!(chat(r#","n":2"#).choices, Some(2));
    }

    #[test]
    fn a_mistake_is_told_by_its_place() {
        refused(r#","temperature":"hot""#, "`temperature` must be a number");
        refused(r#","stop":[5]"#, "`stop` must be a text or a list of texts");
        refused(r#","n":0"#, "`n` must be at least 1");
        refused(r#","seed":1.5"#, "`seed` must be a whole number");
        refused(r#","temperature":1,"temperature":2"#, "`temperature` is given twice");
        refused(r#","tools":[5]"#, "`tools[0]` must be an object");
        refused(r#","tools":[{"type":"function"}]"#, "`tools[0].function` is missing");
        refused(r#","tools":[{"type":"function","function":{}}]"#, "`tools[0].function.name` is missing");
        refused(r#","tool_choice":"maybe""#, "`tool_choice` must be none, auto, required or a tool");
        refused(r#","tool_choice":"required""#, "`tool_choice` needs `tools`");
        let named = r#","tool_choice":{"type":"function","function":{"name":"f"}}"#;
        refused(named, "`tool_choice` names a tool that is not among the tools");
        refused(r#","response_format":"json""#, "`response_format` must be an object");
    }

    #[test]
    fn a_text_to_continue_is_one_text() {
        let complete = |body: &str| meant(Door::OpenAiComplete, body);
        let body =
            r#"{"model":"m","prompt":["a"],"suffix":"b","echo":true,"logprobs":0,"n":1,"max_tokens":3}"#;
        let expected = Complete {
            prompt: "a".to_owned(),
            suffix: Some("b".to_owned()),
            echo: true,
            logprobs: Some(0),
            sampling: Sampling { max_tokens: Some(3), ..Sampling::default() },
            ..Complete::default()
        };
        assert_eq!(complete(body), Ok(Meaning::Complete(expected)));
        let only = "can only be sent to a server that speaks OpenAI's language";
        let several = complete(r#"{"prompt":["a","b"]}"#);
        assert_eq!(several, Err(format!("several texts in `prompt` {only}")));
        for prompt in ["[1,2]", "[[1,2]]"] {
            let tokens = complete(&format!("{{\"prompt\":{prompt}}}"));
            assert_eq!(tokens, Err(format!("token numbers in `prompt` {only}")));
        }
        assert_eq!(complete(r#"{"prompt":[]}"#), Err("`prompt` is an empty list".to_owned()));
    }

    #[test]
    fn texts_to_be_vectors_are_one_or_many() {
        let embed = |body: &str| meant(Door::OpenAiEmbed, body);
        let expected = |inputs: &[&str]| {
            let inputs = inputs.iter().map(|it| (*it).to_owned()).collect();
            Ok(Meaning::Embed(Embed { inputs, dimensions: Some(8), ..Embed::default() }))
        };
        assert_eq!(embed(r#"{"input":"a","dimensions":8,"encoding_format":"base64"}"#), expected(&["a"]));
        assert_eq!(embed(r#"{"input":["a","b"],"dimensions":8,"user":"u"}"#), expected(&["a", "b"]));
        let refused = "token numbers in `input` can only be sent to a server that speaks OpenAI's language";
        assert_eq!(embed(r#"{"input":[1,2]}"#), Err(refused.to_owned()));
        assert_eq!(embed(r#"{"input":[]}"#), Err("`input` is an empty list".to_owned()));
    }
}
