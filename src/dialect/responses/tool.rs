//! Tools and the choice of them.
//!
//! Functions are said as they are. A custom tool takes free text instead of a
//! JSON object; it is said as a function with one text, and `custom_names` is
//! how its calls are written back as what the caller knows. Tools that OpenAI
//! runs itself cannot be said: nobody here would run them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    dialect::{fields::Fields, json::bad},
    fault::Failure,
    generate::{Extras, Tool, ToolChoice},
};

/// The one field of the function that stands for a custom tool.
pub(super) const CUSTOM_INPUT: &str = "input";

/// Understands `tools`.
pub(super) fn tools(list: Vec<Value>, extras: &mut Extras) -> Result<Vec<Tool>, Failure> {
    let mut all = Vec::new();
    for (at, value) in list.into_iter().enumerate() {
        let mut fields = Fields::within(&format!("tools[{at}]"), value)?;
        let kind = fields.need_text("type")?;
        match kind.as_str() {
            "function" => all.push(function(fields, extras)?),
            "custom" => all.push(custom(fields, extras)?),
            _ => fields.unnamed(&kind, extras),
        }
    }
    Ok(all)
}

fn function(mut fields: Fields, extras: &mut Extras) -> Result<Tool, Failure> {
    // Chat nests it; some clients do so here as well.
    fields.unfold("function")?;
    let tool = Tool {
        name: fields.need_text("name")?,
        description: fields.text("description")?,
        parameters: fields.take("parameters"),
        strict: fields.flag("strict")?,
    };
    fields.rest_that_is_on(extras);
    Ok(tool)
}

/// A grammar cannot be enforced through a function: it goes into the
/// description, where the model reads it, as it does at OpenAI too.
fn custom(mut fields: Fields, extras: &mut Extras) -> Result<Tool, Failure> {
    let name = fields.need_text("name")?;
    let mut description = fields.text("description")?;
    if let Some(mut format) = fields.object("format")? {
        let kind = format.need_text("type")?;
        match kind.as_str() {
            "text" => format.rest_that_is_on(extras),
            "grammar" => {
                let (syntax, grammar) = (format.need_text("syntax")?, format.need_text("definition")?);
                let words = description.get_or_insert_default();
                words.push_str(&format!("\n\nThe input must follow this {syntax} grammar:\n{grammar}"));
                format.rest_that_is_on(extras);
            }
            _ => format.unnamed(&kind, extras),
        }
    }
    fields.rest_that_is_on(extras);
    let parameters = json!({
        "type": "object",
        "properties": {CUSTOM_INPUT: {"type": "string", "description": "The input of the tool, as plain text."}},
        "required": [CUSTOM_INPUT],
        "additionalProperties": false,
    });
    Ok(Tool { name, description, parameters: Some(parameters), strict: None })
}

/// Understands `tool_choice`; tools that may not be called are taken out.
pub(super) fn choice(
    value: Value,
    tools: &mut Vec<Tool>,
    extras: &mut Extras,
) -> Result<ToolChoice, Failure> {
    let mut fields = match value {
        Value::String(word) => return named_choice("tool_choice", &word),
        Value::Object(_) => Fields::within("tool_choice", value)?,
        _ => return Err(bad("`tool_choice` must be a text or an object")),
    };
    let kind = fields.need_text("type")?;
    match kind.as_str() {
        "function" | "custom" => {
            let name = fields.need_text("name")?;
            offered("tool_choice.name", &name, tools)?;
            fields.rest_that_is_on(extras);
            Ok(ToolChoice::Named(name))
        }
        "allowed_tools" => {
            let mode = fields.need_text("mode")?;
            let mut allowed = BTreeSet::new();
            let given = fields.list("tools")?.ok_or_else(|| bad("`tool_choice.tools` is missing"))?;
            for (at, value) in given.into_iter().enumerate() {
                let mut tool = Fields::within(&format!("tool_choice.tools[{at}]"), value)?;
                // A tool that OpenAI runs has no name: it is in the extras already, where it is offered.
                if tool.peek("name").is_some() || tool.peek("type").is_none() {
                    let name = tool.need_text("name")?;
                    offered(&tool.path("name"), &name, tools)?;
                    allowed.insert(name);
                }
            }
            tools.retain(|it| allowed.contains(&it.name));
            fields.rest_that_is_on(extras);
            named_choice("tool_choice.mode", &mode)
        }
        _ => {
            fields.unnamed(&kind, extras);
            Ok(ToolChoice::Auto)
        }
    }
}

fn named_choice(path: &str, word: &str) -> Result<ToolChoice, Failure> {
    match word {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        "required" => Ok(ToolChoice::Required),
        _ => Err(bad(format!("`{path}` must be `auto`, `none` or `required`"))),
    }
}

fn offered(path: &str, name: &str, tools: &[Tool]) -> Result<(), Failure> {
    match tools.iter().any(|it| it.name == name) {
        true => Ok(()),
        false => Err(bad(format!("`{path}` is none of the tools"))),
    }
}

/// The names of the custom tools in a caller's `tools`.
pub(super) fn custom_names(tools: &Value) -> BTreeSet<String> {
    let tools = tools.as_array().map(Vec::as_slice).unwrap_or_default();
    let customs = tools.iter().filter(|it| it["type"] == "custom");
    customs.filter_map(|it| it["name"].as_str()).map(str::to_owned).collect()
}

/// What a custom tool is called with, out of the arguments of the function that stands for it.
/// A model that does not keep to the function is taken at its word.
pub(super) fn custom_input(arguments: &str) -> String {
    match serde_json::from_str::<Value>(arguments) {
        Ok(Value::Object(mut fields)) => match fields.remove(CUSTOM_INPUT) {
            Some(Value::String(input)) => input,
            Some(other) => other.to_string(),
            None if fields.is_empty() => String::new(),
            None => arguments.to_owned(),
        },
        Ok(Value::String(input)) => input,
        _ => arguments.to_owned(),
    }
}

/// The arguments of the function that stands for a custom tool.
pub(super) fn custom_arguments(input: &str) -> String {
    json!({CUSTOM_INPUT: input}).to_string()
}

/// Says tools.
pub(super) fn say_tools(tools: &[Tool]) -> Value {
    let say = |tool: &Tool| {
        let mut said = json!({"type": "function", "name": tool.name});
        if let Some(description) = &tool.description {
            said["description"] = description.as_str().into();
        }
        // Both are asked for by the book, and a schema that is absent takes nothing.
        said["parameters"] =
            tool.parameters.clone().unwrap_or_else(|| json!({"type": "object", "properties": {}}));
        said["strict"] = tool.strict.unwrap_or(false).into();
        said
    };
    tools.iter().map(say).collect()
}

/// Says which tools may be called; `None` is as the server likes.
pub(super) fn say_choice(choice: &ToolChoice) -> Option<Value> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some("none".into()),
        ToolChoice::Required => Some("required".into()),
        ToolChoice::Named(name) => Some(json!({"type": "function", "name": name})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(tools_: Value, choice_: Value) -> Result<(Vec<Tool>, ToolChoice, Extras), Failure> {
        let mut extras = Extras::new();
        let Value::Array(list) = tools_ else { panic!("{tools_}") };
        let mut all = tools(list, &mut extras)?;
        let choice = choice(choice_, &mut all, &mut extras)?;
        Ok((all, choice, extras))
    }

    fn refused(tools: Value, choice: Value, expected: &str) {
        assert_eq!(understood(tools, choice).unwrap_err().message(), expected);
    }

    fn function(name: &str) -> Value {
        json!({"type": "function", "name": name, "parameters": {"type": "object"}, "strict": true})
    }

    #[test]
    fn functions_are_flat_and_may_be_nested() {
        let nested = json!({"type": "function", "function": {"name": "b", "description": "d"}});
        let (tools, choice, extras) = understood(json!([function("a"), nested]), json!("auto")).unwrap();
        let a = Tool {
            name: "a".to_owned(),
            description: None,
            parameters: Some(json!({"type": "object"})),
            strict: Some(true),
        };
        let b =
            Tool { name: "b".to_owned(), description: Some("d".to_owned()), parameters: None, strict: None };
        assert_eq!((tools, choice, extras), (vec![a, b], ToolChoice::Auto, Extras::new()));
    }

    #[test]
    fn a_tool_that_openai_runs_is_named() {
        let (tools, _, extras) = understood(
            json!([function("a"), {"type": "web_search", "external_web_access": false}]),
            json!("auto"),
        )
        .unwrap();
        assert_eq!(tools.len(), 1);
        assert_eq!(extras[0].0, "tools[1] (web_search)");
        let (_, _, extras) = understood(json!([function("a")]), json!({"type": "file_search"})).unwrap();
        assert_eq!(extras[0].0, "tool_choice (file_search)");
    }

    #[test]
    fn a_custom_tool_becomes_a_function_of_one_text() {
        let patch = json!({"type": "custom", "name": "apply_patch", "description": "d", "format":
            {"type": "grammar", "syntax": "lark", "definition": "start: x"}});
        let (tools, _, extras) = understood(json!([patch]), json!("auto")).unwrap();
        assert_eq!(extras, []);
        assert_eq!(
            tools[0].description.as_deref(),
            Some("d\n\nThe input must follow this lark grammar:\nstart: x")
        );
        assert_eq!(tools[0].parameters.as_ref().unwrap()["required"], json!(["input"]));
        assert_eq!(custom_names(&json!([patch, function("a")])), BTreeSet::from(["apply_patch".to_owned()]));
    }

    #[test]
    fn the_input_of_a_custom_tool_comes_back_whatever_the_model_makes_of_it() {
        for input in ["", "a\n\"b\"", "*** Begin Patch"] {
            assert_eq!(custom_input(&custom_arguments(input)), input);
        }
        assert_eq!(custom_input("plain"), "plain");
        assert_eq!(custom_input("\"text\""), "text");
        assert_eq!(custom_input("{}"), "");
        assert_eq!(custom_input("{\"patch\":1}"), "{\"patch\":1}");
        assert_eq!(custom_input("{\"input\":5}"), "5");
    }

    #[test]
    fn allowed_tools_are_those_that_are_left() {
        let allowed = json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]});
        let (tools, choice, extras) = understood(json!([function("a"), function("b")]), allowed).unwrap();
        assert_eq!(tools.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!((choice, extras), (ToolChoice::Required, Extras::new()));
    }

    #[test]
    fn mistakes_are_named() {
        refused(json!([5]), json!("auto"), "`tools[0]` must be an object");
        refused(json!([{"name": "a"}]), json!("auto"), "`tools[0].type` is missing");
        refused(json!([{"type": "function"}]), json!("auto"), "`tools[0].name` is missing");
        refused(json!([]), json!("secret"), "`tool_choice` must be `auto`, `none` or `required`");
        refused(json!([]), json!(5), "`tool_choice` must be a text or an object");
        refused(
            json!([]),
            json!({"type": "function", "name": "secret"}),
            "`tool_choice.name` is none of the tools",
        );
        refused(
            json!([function("a")]),
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"name": "b"}]}),
            "`tool_choice.tools[0].name` is none of the tools",
        );
    }
}
