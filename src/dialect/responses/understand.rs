//! Understands a whole request, for a server that speaks another language.

use serde_json::Value;

use super::{
    field::{Fields, count, flag, is_nothing, keep_rest, list, number, object, take, take_some_text, text},
    input, request, tool,
};
use crate::{
    dialect::json::bad,
    fault::Failure,
    generate::{Chat, Effort, Extras, Format, Meaning, Role, Turn},
};

/// Fields that change no answer of any server here, so they are let go.
const HINTS: [&str; 12] = [
    // Whether events are padded against eavesdroppers.
    "stream_options",
    // Nothing is stored here, whether the caller would like it or not.
    "store",
    // Notes of the caller's, for its own lists.
    "metadata",
    "client_metadata",
    // Who the person is.
    "user",
    "safety_identifier",
    // What may be cached, for how long, and for how much money.
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "service_tier",
    // Counts only calls of tools that OpenAI runs itself; a request with such tools is refused by their names.
    "max_tool_calls",
    // Leave to cut a prompt that is too long, which is never taken: it is refused or goes elsewhere.
    "truncation",
];

/// What can be included that is no more than more of what is there, or belongs to tools
/// that are refused by their names. What servers here think is never encrypted: it is
/// given as it is, and comes back as it is.
const INCLUDED: [&str; 7] = [
    request::LOGPROBS,
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
];

/// Takes the whole request apart.
pub(super) fn understand(body: &[u8]) -> Result<Meaning, Failure> {
    let mut fields = match serde_json::from_slice(body) {
        Ok(value) => object("the body", value)?,
        Err(error) => return Err(bad(format!("the body is not valid JSON: {error}"))),
    };
    let mut chat = Chat::default();
    let mut extras = Extras::new();
    for name in ["model", "stream"].iter().chain(&HINTS) {
        fields.shift_remove(*name);
    }
    if let Some(value) = take(&mut fields, "instructions") {
        let instructions = text("instructions", value)?;
        if !instructions.is_empty() {
            chat.turns.push(Turn::text(Role::System, instructions));
        }
    }
    if let Some(value) = take(&mut fields, "input") {
        input::turns(value, &mut chat.turns, &mut extras)?;
    }
    if let Some(value) = take(&mut fields, "tools") {
        chat.tools = tool::tools(value, &mut extras)?;
    }
    if let Some(value) = take(&mut fields, "tool_choice") {
        chat.tool_choice = tool::choice(value, &mut chat.tools, &mut extras)?;
    }
    if let Some(value) = take(&mut fields, "parallel_tool_calls") {
        chat.parallel_calls = (!flag("parallel_tool_calls", &value)?).then_some(false);
    }
    if let Some(value) = take(&mut fields, "text") {
        let mut text = object("text", value)?;
        if let Some(value) = take(&mut text, "format") {
            chat.format = format(value, &mut extras)?;
        }
        // How wordy to be: advice that only OpenAI's own models were taught to take.
        text.remove("verbosity");
        keep_rest(&mut extras, "text", text);
    }
    if let Some(value) = take(&mut fields, "reasoning") {
        let mut reasoning = object("reasoning", value)?;
        chat.effort = take_some_text(&mut reasoning, "reasoning", "effort")?.map(|it| match it.as_str() {
            "none" => Effort::Off,
            _ => Effort::Level(it),
        });
        // How much is told of the thinking: here it is always all of it.
        reasoning.remove("summary");
        reasoning.remove("generate_summary");
        keep_rest(&mut extras, "reasoning", reasoning);
    }
    sampling(&mut fields, &mut chat)?;
    chat.logprobs = logprobs(&mut fields, &mut extras)?;
    // What is stored elsewhere, work in the background, and whatever has no name here.
    extras.extend(fields.into_iter().filter(|(_, value)| !is_nothing(value)));
    chat.extras = extras;
    Ok(Meaning::Chat(chat))
}

fn sampling(fields: &mut Fields, chat: &mut Chat) -> Result<(), Failure> {
    if let Some(value) = take(fields, "max_output_tokens") {
        chat.sampling.max_tokens = count("max_output_tokens", &value)?;
    }
    if let Some(value) = take(fields, "temperature") {
        chat.sampling.temperature = Some(number("temperature", &value)?);
    }
    if let Some(value) = take(fields, "top_p") {
        chat.sampling.top_p = Some(number("top_p", &value)?);
    }
    Ok(())
}

/// Log probabilities are asked for by a number, by an inclusion, or by both.
fn logprobs(fields: &mut Fields, extras: &mut Extras) -> Result<Option<u32>, Failure> {
    let top = match take(fields, "top_logprobs") {
        Some(value) => count("top_logprobs", &value)?.unwrap_or(0),
        None => 0,
    };
    let top = u32::try_from(top).map_err(|_| bad("`top_logprobs` is too large"))?;
    let mut wanted = top > 0;
    if let Some(value) = take(fields, "include") {
        for (at, value) in list("include", value)?.into_iter().enumerate() {
            let path = format!("include[{at}]");
            let included = text(&path, value)?;
            wanted |= included == request::LOGPROBS;
            if !INCLUDED.contains(&included.as_str()) {
                extras.push((path, included.into()));
            }
        }
    }
    Ok(wanted.then_some(top))
}

fn format(value: Value, extras: &mut Extras) -> Result<Format, Failure> {
    let path = "text.format";
    let mut fields = object(path, value)?;
    let Some(kind) = take_some_text(&mut fields, path, "type")? else {
        return Err(bad("`text.format.type` is missing"));
    };
    let format = match kind.as_str() {
        "text" => Format::Text,
        "json_object" => Format::Json,
        "json_schema" => {
            let name = take_some_text(&mut fields, path, "name")?;
            let strict = match take(&mut fields, "strict") {
                None => None,
                Some(value) => Some(flag("text.format.strict", &value)?),
            };
            let Some(mut schema) = take(&mut fields, "schema") else {
                return Err(bad("`text.format.schema` is missing"));
            };
            // What it is for; a schema has a place of its own for that.
            if let Some(description) = take_some_text(&mut fields, path, "description")?
                && let Value::Object(schema) = &mut schema
            {
                schema.entry("description").or_insert(description.into());
            }
            Format::Schema { name, schema, strict }
        }
        _ => {
            extras.push((format!("{path} ({kind})"), Value::Object(fields)));
            return Ok(Format::Text);
        }
    };
    keep_rest(extras, path, fields);
    Ok(format)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::generate::Sampling;

    fn chat(body: Value) -> Chat {
        match understand(body.to_string().as_bytes()) {
            Ok(Meaning::Chat(chat)) => chat,
            other => panic!("{other:?} for {body}"),
        }
    }

    fn with(more: Value) -> Chat {
        let mut body = json!({"model": "m", "input": "hi"});
        body.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
        chat(body)
    }

    fn refused(more: Value, expected: &str) {
        assert_eq!(understand(more.to_string().as_bytes()).unwrap_err().message(), expected);
    }

    #[test]
    fn instructions_come_first() {
        let chat = chat(json!({"model": "m", "stream": true, "input": "hi", "instructions": "be brief"}));
        let expected = Chat {
            turns: vec![Turn::text(Role::System, "be brief"), Turn::text(Role::User, "hi")],
            ..Chat::default()
        };
        assert_eq!(chat, expected);
    }

    #[test]
    fn neutral_values_and_hints_are_as_if_absent() {
        let plain = with(json!({}));
        assert_eq!(
            with(json!({
                "instructions": null, "tools": [], "tool_choice": "auto", "parallel_tool_calls": true,
                "text": {"format": {"type": "text"}, "verbosity": "low"}, "reasoning": {"effort": null, "summary": "auto"},
                "temperature": null, "top_logprobs": 0, "include": ["reasoning.encrypted_content"],
                "truncation": "auto", "store": false, "metadata": {"a": "b"}, "user": "u", "service_tier": "flex",
                "safety_identifier": "s", "prompt_cache_key": "k", "prompt_cache_retention": "24h",
                "previous_response_id": null, "conversation": null, "background": false, "prompt": null,
                "stream_options": {"include_obfuscation": false}, "max_tool_calls": 3, "client_metadata": {"a": "b"},
            })),
            plain
        );
        assert_eq!(plain.extras, Extras::new());
    }

    #[test]
    fn how_tokens_are_picked() {
        let chat = with(json!({"max_output_tokens": 5, "temperature": 0, "top_p": 0.5, "top_logprobs": 2,
            "include": ["message.output_text.logprobs"], "parallel_tool_calls": false}));
        assert_eq!(
            chat.sampling,
            Sampling { max_tokens: Some(5), temperature: Some(0.0), top_p: Some(0.5), ..Sampling::default() }
        );
        assert_eq!((chat.logprobs, chat.parallel_calls), (Some(2), Some(false)));
        assert_eq!(with(json!({"include": ["message.output_text.logprobs"]})).logprobs, Some(0));
    }

    #[test]
    fn the_form_of_the_answer() {
        let format = |format: Value| with(json!({"text": {"format": format}})).format;
        assert_eq!(format(json!({"type": "json_object"})), Format::Json);
        // As the AI SDK sends it.
        let schema = json!({"type": "object"});
        assert_eq!(
            format(json!({"type": "json_schema", "strict": false, "name": "response", "schema": schema})),
            Format::Schema { name: Some("response".to_owned()), schema, strict: Some(false) }
        );
        let described = json!({"type": "json_schema", "name": "r", "description": "d", "schema": {}});
        assert_eq!(
            format(described),
            Format::Schema { name: Some("r".to_owned()), schema: json!({"description": "d"}), strict: None }
        );
    }

    #[test]
    fn how_much_to_think() {
        let effort = |effort: &str| with(json!({"reasoning": {"effort": effort}})).effort;
        assert_eq!(effort("none"), Some(Effort::Off));
        assert_eq!(effort("minimal"), Some(Effort::Level("minimal".to_owned())));
        assert_eq!(with(json!({"reasoning": {}})).effort, None);
    }

    #[test]
    fn what_has_no_name_is_kept_by_its_path() {
        let chat = with(json!({
            "previous_response_id": "resp_1", "conversation": "conv_1", "background": true,
            "prompt": {"id": "p"}, "context_management": [{"type": "compaction"}], "top_k": 5,
            "text": {"x": 1}, "reasoning": {"y": 1}, "include": ["z"],
        }));
        let mut paths: Vec<_> = chat.extras.iter().map(|it| it.0.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                "background",
                "context_management",
                "conversation",
                "include[0]",
                "previous_response_id",
                "prompt",
                "reasoning.y",
                "text.x",
                "top_k"
            ]
        );
    }

    #[test]
    fn what_codex_sends_is_understood() {
        let chat = chat(json!({
            "model": "gpt-5", "instructions": "You are Codex", "stream": true, "store": false,
            "tool_choice": "auto", "parallel_tool_calls": true, "prompt_cache_key": "t",
            "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "medium", "summary": "auto"},
            "text": {"verbosity": "low"}, "client_metadata": {"x-codex-installation-id": "i"},
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "fix it"}]},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": null},
                {"type": "function_call", "name": "exec_command", "arguments": "{\"cmd\":\"ls\"}", "call_id": "c1"},
                {"type": "function_call_output", "call_id": "c1", "output": "a.rs"},
                {"type": "custom_tool_call", "status": "completed", "call_id": "c2", "name": "apply_patch", "input": "*"},
                {"type": "custom_tool_call_output", "call_id": "c2", "output": "ok"},
            ],
            "tools": [
                {"type": "function", "name": "exec_command", "description": "d", "strict": false,
                 "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}}},
                {"type": "custom", "name": "apply_patch", "description": "d", "format":
                    {"type": "grammar", "syntax": "lark", "definition": "start: x"}},
            ],
        }));
        assert_eq!(chat.extras, Extras::new());
        assert_eq!((chat.tools.len(), chat.turns.len()), (2, 7));
        assert_eq!(chat.effort, Some(Effort::Level("medium".to_owned())));
    }

    #[test]
    fn mistakes_are_named() {
        refused(json!([]), "`the body` must be an object");
        refused(json!({"instructions": 5}), "`instructions` must be a text");
        refused(json!({"temperature": "hot"}), "`temperature` must be a number");
        refused(json!({"top_logprobs": 1.5}), "`top_logprobs` must be a whole number");
        refused(json!({"parallel_tool_calls": 1}), "`parallel_tool_calls` must be true or false");
        refused(json!({"text": "json"}), "`text` must be an object");
        refused(json!({"text": {"format": {}}}), "`text.format.type` is missing");
        refused(json!({"text": {"format": {"type": "json_schema"}}}), "`text.format.schema` is missing");
        refused(json!({"reasoning": {"effort": 5}}), "`reasoning.effort` must be a text");
    }
}
