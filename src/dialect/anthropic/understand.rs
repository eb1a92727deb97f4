//! Takes a request apart: what it means, whatever server answers it.
//!
//! The blocks of its messages are `block`'s story; this file has everything
//! around them.

use serde_json::value::RawValue;

use super::{
    block::{self, Blocks},
    fields::{Fields, list, parsed},
};
use crate::{
    dialect::json::{self, bad},
    fault::Failure,
    generate::{Chat, Effort, Extras, Format, Role, Sampling, Tool, ToolChoice, Turn},
};

/// Fields that change no answer of any server here.
///
/// Who asks and who pays (`metadata`, `service_tier`, `billing_policy`, ids of
/// a profile or workspace), how fast (`speed`), what is cached and told about
/// it (`cache_control`, `diagnostics`), the beta features that the SDK names,
/// and `context_management`: it has old thinking and old results cut out of
/// long conversations, and who does not cut sees more, not less.
const HINTS: [&str; 11] = [
    "metadata",
    "service_tier",
    "billing_policy",
    "user_profile_id",
    "workspace_id",
    "speed",
    "cache_control",
    "diagnostics",
    "betas",
    "anthropic_beta",
    "context_management",
];

/// How the first block of Claude Code's system prompt begins. It is for
/// Anthropic's books, not for a model, and it changes with each request, so
/// that a server that got it would have to read the whole prompt anew.
const ATTRIBUTION: &str = "x-anthropic-billing-header:";

/// Understands a conversation. `max_tokens` may be missing, as it is where tokens are counted.
pub(super) fn understand(body: &[u8]) -> Result<Chat, Failure> {
    let mut fields = Fields::of_body(body)?;
    let mut extras = Extras::new();
    // Said by whoever asks the server.
    fields.pass_over(&["model", "stream"]);
    fields.pass_over(&HINTS);
    let mut turns = Vec::new();
    if let Some(value) = fields.take("system") {
        let text = system("system", value, &mut extras)?;
        if !text.is_empty() {
            turns.push(Turn::text(Role::System, text));
        }
    }
    messages(&mut fields, &mut turns, &mut extras)?;
    let tools = fields.list("tools")?;
    let tools = tools
        .into_iter()
        .enumerate()
        .filter_map(|(at, value)| tool(at, value, &mut extras).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    let (tool_choice, parallel_calls) = choice(&mut fields, &mut extras)?;
    let mut effort = thinking(&mut fields, &mut extras)?;
    let mut format = Format::Text;
    if let Some(mut config) = fields.object("output_config")? {
        format = self::format(&mut config, "format", &mut extras)?;
        effort = effort.or(level(config.text("effort")?));
        config.keep_rest(&mut extras);
    }
    // Where the form of the answer stood before.
    if format == Format::Text {
        format = self::format(&mut fields, "output_format", &mut extras)?;
    }
    let sampling = Sampling {
        max_tokens: fields.whole("max_tokens")?,
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        top_k: fields.whole("top_k")?,
        stop: fields
            .list("stop_sequences")?
            .into_iter()
            .map(|it| json::text(it).map(|it| it.into_owned()))
            .collect::<Option<_>>()
            .ok_or_else(|| bad("`stop_sequences` must be a list of texts"))?,
        ..Sampling::default()
    };
    fields.keep_rest(&mut extras);
    Ok(Chat {
        turns,
        tools,
        tool_choice,
        parallel_calls,
        format,
        effort,
        sampling,
        extras,
        ..Chat::default()
    })
}

/// The text of a system prompt: a text, or blocks of them.
fn system(path: &str, value: &RawValue, extras: &mut Extras) -> Result<String, Failure> {
    if let Some(text) = json::text(value) {
        return Ok(text.into_owned());
    }
    let blocks = serde_json::from_str::<Vec<&RawValue>>(value.get())
        .map_err(|_| bad(format!("`{path}` must be a text or a list of blocks")))?;
    let mut texts = Vec::new();
    for (at, value) in blocks.into_iter().enumerate() {
        let mut block = Fields::of(format!("{path}[{at}]"), value)?;
        match block.need_text("type")?.as_str() {
            "text" => {
                let text = block.need_text("text")?;
                block.pass_over(&["cache_control"]);
                block.keep_rest(extras);
                if !text.is_empty() && !text.starts_with(ATTRIBUTION) {
                    texts.push(text);
                }
            }
            _ => return Err(block.wrong("type", "must be `text`")),
        }
    }
    // Each is a thing of its own; run together, words at the seams would melt.
    Ok(texts.join("\n\n"))
}

fn messages(fields: &mut Fields<'_>, turns: &mut Vec<Turn>, extras: &mut Extras) -> Result<(), Failure> {
    let messages = fields.need("messages")?;
    let mut blocks = Blocks::default();
    for (at, value) in list("messages", messages)?.into_iter().enumerate() {
        let mut message = Fields::of(format!("messages[{at}]"), value)?;
        let content = message.need("content")?;
        match message.need_text("role")?.as_str() {
            "user" => blocks.user(&message.path_of("content"), content, turns, extras)?,
            "assistant" => blocks.assistant(&message.path_of("content"), content, turns, extras)?,
            "system" => {
                let text = system(&message.path_of("content"), content, extras)?;
                turns.push(Turn::text(Role::System, text));
            }
            _ => return Err(message.wrong("role", "must be `user`, `assistant` or `system`")),
        }
        message.pass_over(&["cache_control"]);
        message.keep_rest(extras);
    }
    Ok(())
}

/// A tool; `None` is one that is no function of the caller's and stands in the extras.
fn tool(at: usize, value: &RawValue, extras: &mut Extras) -> Result<Option<Tool>, Failure> {
    let mut tool = Fields::of(format!("tools[{at}]"), value)?;
    match tool.text("type")?.as_deref() {
        None | Some("custom") => {}
        // Run at Anthropic (`web_search_…`), or known only to its models (`bash_…`).
        Some(kind) => {
            extras.push((format!("{} ({})", tool.path(), block::kind(kind)), parsed(value)));
            return Ok(None);
        }
    }
    let name = tool.need_text("name")?;
    let description = tool.text("description")?;
    let parameters = tool.take("input_schema").map(parsed);
    if parameters.as_ref().is_some_and(|it| !it.is_object()) {
        return Err(tool.wrong("input_schema", "must be an object"));
    }
    let strict = tool.truth("strict")?;
    // When it is shown to the model and how its arguments are sent: here it is
    // always shown, and they are sent as they come.
    tool.pass_over(&["cache_control", "defer_loading", "eager_input_streaming"]);
    // Called by the model and not by code that the model writes: the only way here.
    if let Some(callers) = tool.take("allowed_callers")
        && !serde_json::from_str::<Vec<String>>(callers.get())
            .is_ok_and(|it| it.iter().any(|it| it == "direct"))
    {
        extras.push((tool.path_of("allowed_callers"), parsed(callers)));
    }
    tool.keep_rest(extras);
    Ok(Some(Tool { name, description, parameters, strict }))
}

fn choice(fields: &mut Fields<'_>, extras: &mut Extras) -> Result<(ToolChoice, Option<bool>), Failure> {
    let Some(mut choice) = fields.object("tool_choice")? else { return Ok((ToolChoice::Auto, None)) };
    let kind = match choice.need_text("type")?.as_str() {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Named(choice.need_text("name")?),
        _ => return Err(choice.wrong("type", "must be `auto`, `any`, `tool` or `none`")),
    };
    let parallel = choice.truth("disable_parallel_tool_use")?.map(|it| !it);
    choice.keep_rest(extras);
    Ok((kind, parallel))
}

/// How much to think. `adaptive` leaves it to the model, and so does its silence.
fn thinking(fields: &mut Fields<'_>, extras: &mut Extras) -> Result<Option<Effort>, Failure> {
    let Some(mut thinking) = fields.object("thinking")? else { return Ok(None) };
    let budget = thinking.whole("budget_tokens")?;
    let effort = match thinking.need_text("type")?.as_str() {
        "enabled" => Some(budget.map_or(Effort::On, Effort::Budget)),
        "disabled" => Some(Effort::Off),
        "adaptive" | "between_tools" => None,
        _ => return Err(thinking.wrong("type", "must be `enabled`, `disabled` or `adaptive`")),
    };
    // Whether the caller wants to see it; it may look away by itself.
    thinking.pass_over(&["display"]);
    thinking.keep_rest(extras);
    Ok(effort)
}

/// A level of effort. `high` is what they do without being told, `max` the most there is.
fn level(effort: Option<String>) -> Option<Effort> {
    let effort = effort.filter(|it| it != "high")?;
    Some(Effort::Level(if effort == "max" { "xhigh".to_owned() } else { effort }))
}

/// The form of the answer, from the field of that name.
fn format(fields: &mut Fields<'_>, name: &str, extras: &mut Extras) -> Result<Format, Failure> {
    let Some(mut format) = fields.object(name)? else { return Ok(Format::Text) };
    if format.need_text("type")? != "json_schema" {
        return Err(format.wrong("type", "must be `json_schema`"));
    }
    let schema = parsed(format.need("schema")?);
    let name = format.text("name")?;
    format.keep_rest(extras);
    Ok(Format::Schema { name, schema, strict: Some(true) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::generate::Part;

    fn read(mut body: Value) -> Result<Chat, String> {
        let default = json!({"messages": [{"role": "user", "content": "hi"}], "model": "m", "max_tokens": 9});
        for (name, value) in default.as_object().unwrap() {
            body.as_object_mut().unwrap().entry(name).or_insert(value.clone());
        }
        understand(body.to_string().as_bytes()).map_err(|it| it.message())
    }

    fn left(body: Value) -> Vec<String> {
        read(body).unwrap().extras.into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn a_plain_question_is_a_turn_and_a_limit() {
        let chat = read(json!({})).unwrap();
        let expected = Chat {
            turns: vec![Turn::text(Role::User, "hi")],
            sampling: Sampling { max_tokens: Some(9), ..Sampling::default() },
            ..Chat::default()
        };
        assert_eq!(chat, expected);
    }

    #[test]
    fn instructions_come_first_whatever_their_form() {
        let first = |system: Value| read(json!({"system": system})).unwrap().turns.remove(0);
        assert_eq!(first(json!("be brief")), Turn::text(Role::System, "be brief"));
        let blocks = json!([
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "b"},
        ]);
        assert_eq!(first(blocks), Turn::text(Role::System, "a\n\nb"));
        for nothing in [json!(""), json!([]), json!(null)] {
            assert_eq!(first(nothing), Turn::text(Role::User, "hi"));
        }
        let told = read(json!({"system": [{"type": "image"}]})).unwrap_err();
        assert_eq!(told, "`system[0].type` must be `text`");
        assert_eq!(read(json!({"system": 5})).unwrap_err(), "`system` must be a text or a list of blocks");
    }

    #[test]
    fn sampling_is_understood() {
        let body = json!({"temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop_sequences": ["a", "b"]});
        let expected = Sampling {
            max_tokens: Some(9),
            temperature: Some(0.5),
            top_p: Some(0.9),
            top_k: Some(40),
            stop: vec!["a".to_owned(), "b".to_owned()],
            ..Sampling::default()
        };
        assert_eq!(read(body).unwrap().sampling, expected);
        let told = read(json!({"stop_sequences": [5]})).unwrap_err();
        assert_eq!(told, "`stop_sequences` must be a list of texts");
        assert_eq!(read(json!({"temperature": "x"})).unwrap_err(), "`temperature` must be a number");
    }

    #[test]
    fn tools_and_whether_they_are_called() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let chat = read(json!({
            "tools": [
                {"name": "f", "description": "d", "input_schema": schema, "cache_control": {"type": "ephemeral"}},
                {"type": "custom", "name": "g", "input_schema": {"type": "object"}, "strict": true,
                 "defer_loading": true, "eager_input_streaming": true, "allowed_callers": ["direct"]},
            ],
            "tool_choice": {"type": "tool", "name": "g", "disable_parallel_tool_use": true},
        }))
        .unwrap();
        let expected = [
            Tool {
                name: "f".to_owned(),
                description: Some("d".to_owned()),
                parameters: Some(schema),
                strict: None,
            },
            Tool {
                name: "g".to_owned(),
                description: None,
                parameters: Some(json!({"type": "object"})),
                strict: Some(true),
            },
        ];
        assert_eq!(chat.tools, expected);
        assert_eq!(chat.tool_choice, ToolChoice::Named("g".to_owned()));
        assert_eq!(chat.parallel_calls, Some(false));
        assert_eq!(chat.extras, []);
        let choice = |it: Value| {
            let chat = read(json!({"tool_choice": it})).unwrap();
            (chat.tool_choice, chat.parallel_calls)
        };
        assert_eq!(choice(json!({"type": "auto"})), (ToolChoice::Auto, None));
        assert_eq!(choice(json!({"type": "any"})), (ToolChoice::Required, None));
        assert_eq!(choice(json!({"type": "none"})), (ToolChoice::None, None));
    }

    #[test]
    fn tools_that_only_anthropic_has_are_left_with_their_names() {
        let tools = json!([
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
            {"type": "secret stuff", "name": "x"},
            {"name": "f", "input_schema": {}, "allowed_callers": ["code_execution_20260120"], "input_examples": [{}]},
        ]);
        let expected = [
            "tools[0] (web_search_20250305)",
            "tools[1] (of a type unknown here)",
            "tools[2].allowed_callers",
            "tools[2].input_examples",
        ];
        assert_eq!(left(json!({"tools": tools})), expected);
    }

    #[test]
    fn thinking_and_effort_are_one_word() {
        let effort = |body: Value| read(body).unwrap().effort;
        let budget = json!({"thinking": {"type": "enabled", "budget_tokens": 2048}});
        assert_eq!(effort(budget), Some(Effort::Budget(2048)));
        assert_eq!(effort(json!({"thinking": {"type": "enabled"}})), Some(Effort::On));
        assert_eq!(effort(json!({"thinking": {"type": "disabled"}})), Some(Effort::Off));
        assert_eq!(effort(json!({"thinking": {"type": "adaptive", "display": "omitted"}})), None);
        let low = json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}});
        assert_eq!(effort(low), Some(Effort::Level("low".to_owned())));
        let off = json!({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}});
        assert_eq!(effort(off), Some(Effort::Off));
        assert_eq!(effort(json!({"output_config": {"effort": "high"}})), None, "the same as silence");
        let most = json!({"output_config": {"effort": "max"}});
        assert_eq!(effort(most), Some(Effort::Level("xhigh".to_owned())));
    }

    #[test]
    fn a_schema_is_understood_in_both_places() {
        let format = json!({"type": "json_schema", "schema": {"type": "object"}});
        let expected = Format::Schema { name: None, schema: json!({"type": "object"}), strict: Some(true) };
        assert_eq!(read(json!({"output_config": {"format": format}})).unwrap().format, expected);
        assert_eq!(read(json!({"output_format": format})).unwrap().format, expected);
        let told = read(json!({"output_config": {"format": {"type": "x"}}})).unwrap_err();
        assert_eq!(told, "`output_config.format.type` must be `json_schema`");
    }

    #[test]
    fn what_has_no_name_here_is_left_with_its_path_and_hints_are_not() {
        let body = json!({
            "metadata": {"user_id": "u"}, "service_tier": "auto", "cache_control": {"type": "ephemeral"},
            "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}, "speed": "fast",
            "mcp_servers": [], "container": null, "inference_geo": "eu", "mirostat": 2,
            "tool_choice": {"type": "auto", "x": 1}, "output_config": {"task_budget": {"total": 5}},
        });
        let expected = ["tool_choice.x", "output_config.task_budget", "inference_geo", "mirostat"];
        assert_eq!(left(body), expected);
    }

    #[test]
    fn what_claude_code_sends_is_understood_without_a_rest() {
        let body = include_str!("claude_code.json");
        let chat = understand(body.as_bytes()).unwrap();
        assert_eq!(chat.extras, []);
        let roles: Vec<Role> = chat.turns.iter().map(|it| it.role).collect();
        assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::Tool, Role::User]);
        let Part::Text(system) = &chat.turns[0].parts[0] else { panic!("no text") };
        assert!(system.starts_with("You are Claude Code"), "the attribution is not for the model");
        assert_eq!(chat.effort, Some(Effort::Budget(31_999)));
    }
}
