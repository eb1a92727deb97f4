//! Understands a whole request, for a server that speaks another language.

use serde_json::Value;

use super::{input, request, tool};
use crate::{
    dialect::{
        fields::{Fields, text},
        json::bad,
    },
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
    let mut fields = Fields::of(body)?;
    let mut chat = Chat::default();
    let mut extras = Extras::new();
    fields.drop_hints(&["model", "stream"]);
    fields.drop_hints(&HINTS);
    if let Some(instructions) = fields.text("instructions")?.filter(|it| !it.is_empty()) {
        chat.turns.push(Turn::text(Role::System, instructions));
    }
    if let Some(value) = fields.take("input") {
        input::turns(value, &mut chat.turns, &mut extras)?;
    }
    if let Some(list) = fields.list("tools")? {
        chat.tools = tool::tools(list, &mut extras)?;
    }
    if let Some(value) = fields.take("tool_choice") {
        chat.tool_choice = tool::choice(value, &mut chat.tools, &mut extras)?;
    }
    chat.parallel_calls = fields.flag("parallel_tool_calls")?.filter(|it| !it);
    if let Some(mut text) = fields.object("text")? {
        if let Some(fields) = text.object("format")? {
            chat.format = format(fields, &mut extras)?;
        }
        // How wordy to be: advice that only OpenAI's own models were taught to take.
        text.drop_hints(&["verbosity"]);
        text.rest_that_is_on(&mut extras);
    }
    if let Some(mut reasoning) = fields.object("reasoning")? {
        chat.effort = reasoning.text("effort")?.map(|it| match it.as_str() {
            "none" => Effort::Off,
            _ => Effort::Level(it),
        });
        // How much is told of the thinking: here it is always all of it.
        reasoning.drop_hints(&["summary", "generate_summary"]);
        reasoning.rest_that_is_on(&mut extras);
    }
    chat.sampling.max_tokens = fields.count("max_output_tokens")?;
    chat.sampling.temperature = fields.number("temperature")?;
    chat.sampling.top_p = fields.number("top_p")?;
    chat.logprobs = logprobs(&mut fields, &mut extras)?;
    // What is stored elsewhere, work in the background, and whatever has no name here.
    fields.rest_that_is_on(&mut extras);
    chat.extras = extras;
    Ok(Meaning::Chat(chat))
}

/// Log probabilities are asked for by a number, by an inclusion, or by both.
fn logprobs(fields: &mut Fields, extras: &mut Extras) -> Result<Option<u32>, Failure> {
    let top = fields.count("top_logprobs")?.unwrap_or(0);
    let top = u32::try_from(top).map_err(|_| bad("`top_logprobs` is too large"))?;
    let mut wanted = top > 0;
    for (at, value) in fields.list("include")?.unwrap_or_default().into_iter().enumerate() {
        let path = format!("include[{at}]");
        let included = text(&path, value)?;
        wanted |= included == request::LOGPROBS;
        if !INCLUDED.contains(&included.as_str()) {
            extras.push((path, included.into()));
        }
    }
    Ok(wanted.then_some(top))
}

fn format(mut fields: Fields, extras: &mut Extras) -> Result<Format, Failure> {
    let kind = fields.need_text("type")?;
    let format = match kind.as_str() {
        "text" => Format::Text,
        "json_object" => Format::Json,
        "json_schema" => {
            let (name, strict) = (fields.text("name")?, fields.flag("strict")?);
            let mut schema = fields.need("schema")?;
            // What it is for; a schema has a place of its own for that.
            if let Some(description) = fields.text("description")?
                && let Value::Object(schema) = &mut schema
            {
                schema.entry("description").or_insert(description.into());
            }
            Format::Schema { name, schema, strict }
        }
        _ => {
            fields.unnamed(&kind, extras);
            return Ok(Format::Text);
        }
    };
    fields.rest_that_is_on(extras);
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
        refused(json!([]), "the body must be a JSON object");
        refused(json!({"tools": {}}), "`tools` must be a list");
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
