//! Takes turns and tools apart.
//!
//! Ollama's calls need no ids, and results name the tool at most: ids are invented, and
//! results matched to calls by name and order.

use serde_json::value::RawValue;

use super::object::{Object, list, object, text, truth, value};
use crate::{
    dialect::json::{self, bad},
    fault::Failure,
    generate::{Call, Extras, Image, ImageSource, Part, Role, Tool, ToolResult, Turn},
};

/// The calls so far, to find the one that a result belongs to.
#[derive(Default)]
pub(super) struct Calls {
    /// Id, tool, and whether its result has come.
    all: Vec<(String, String, bool)>,
}

impl Calls {
    /// Takes note of a call; makes up an id that no other has.
    fn call(&mut self, id: Option<String>, name: &str) -> String {
        let id = id.filter(|it| !it.is_empty()).unwrap_or_else(|| {
            (self.all.len()..).map(|it| format!("call_{it}")).find(|it| !self.has(it)).unwrap_or_default()
        });
        self.all.push((id.clone(), name.to_owned(), false));
        id
    }

    fn has(&self, id: &str) -> bool {
        self.all.iter().any(|(other, ..)| other == id)
    }

    /// The id and the tool of the call that a result belongs to.
    fn result(&mut self, id: Option<String>, name: Option<String>) -> (String, Option<String>) {
        let found = match (&id, &name) {
            (Some(id), _) => self.all.iter_mut().rev().find(|(other, ..)| other == id),
            (None, Some(name)) => self.all.iter_mut().find(|(_, other, done)| !done && other == name),
            (None, None) => self.all.iter_mut().find(|(_, _, done)| !done),
        };
        match found {
            Some((id, tool, done)) => {
                *done = true;
                (id.clone(), Some(tool.clone()))
            }
            // A result without a call: Ollama takes it.
            None => {
                let tool = name.clone().unwrap_or_default();
                let id = self.call(id, &tool);
                if let Some((.., done)) = self.all.last_mut() {
                    *done = true;
                }
                (id, name)
            }
        }
    }
}

pub(super) fn turn(
    path: &str,
    mut message: Object<'_>,
    calls: &mut Calls,
    extras: &mut Extras,
) -> Result<Turn, Failure> {
    let field = |name: &str| format!("{path}.{name}");
    let role = match text(&field("role"), message.take("role"))?.as_deref() {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        Some(_) => return Err(bad(format!("`{path}.role` must be system, user, assistant or tool"))),
        None => return Err(bad(format!("`{path}.role` is missing"))),
    };
    let content = text(&field("content"), message.take("content"))?.unwrap_or_default();
    let thinking = text(&field("thinking"), message.take("thinking"))?.unwrap_or_default();
    let mut parts = match role {
        Role::User | Role::Tool => images(&field("images"), message.take("images"))?,
        // No other language has them there; what is left is refused by its name.
        Role::System | Role::Assistant => Vec::new(),
    };
    if !content.is_empty() {
        parts.push(Part::Text(content));
    }
    match role {
        Role::Assistant => {
            if !thinking.is_empty() {
                parts.insert(0, Part::Thinking { text: thinking, signature: None });
            }
            for (at, call) in list(&field("tool_calls"), message.take("tool_calls"))?.into_iter().enumerate()
            {
                let path = format!("{path}.tool_calls[{at}]");
                parts.push(Part::Call(self::call(&path, object(&path, call)?, calls, extras)?));
            }
        }
        Role::Tool => {
            let id = text(&field("tool_call_id"), message.take("tool_call_id"))?.filter(|it| !it.is_empty());
            // Before `tool_name` clients wrote `name`.
            let named = message.take("tool_name").or_else(|| message.take("name"));
            let named = text(&field("tool_name"), named)?.filter(|it| !it.is_empty());
            let (id, name) = calls.result(id, named);
            parts = vec![Part::Result(ToolResult { id, name, parts, is_error: false })];
        }
        Role::System | Role::User => {}
    }
    // Ollama has no names of speakers and passes them over; so does nearly every template.
    message.rest(&format!("{path}."), &["name"], extras);
    Ok(Turn { role, name: None, parts })
}

fn call(path: &str, mut call: Object<'_>, calls: &mut Calls, extras: &mut Extras) -> Result<Call, Failure> {
    let id = text(&format!("{path}.id"), call.take("id"))?;
    let function = format!("{path}.function");
    let inner = call.take("function").ok_or_else(|| bad(format!("`{function}` is missing")))?;
    let mut inner = object(&function, inner)?;
    let name = text(&format!("{function}.name"), inner.take("name"))?.filter(|it| !it.is_empty());
    let name = name.ok_or_else(|| bad(format!("`{function}.name` is missing")))?;
    let arguments = match inner.take("arguments") {
        None => "{}".to_owned(),
        Some(object) if object.get().starts_with('{') => object.get().to_owned(),
        Some(_) => return Err(bad(format!("`{function}.arguments` must be an object"))),
    };
    inner.rest(&format!("{function}."), &["index"], extras);
    call.rest(&format!("{path}."), &["type", "index"], extras);
    Ok(Call { id: calls.call(id, &name), name, arguments })
}

pub(super) fn tool(path: &str, mut tool: Object<'_>, extras: &mut Extras) -> Result<Tool, Failure> {
    if let Some(sort) = text(&format!("{path}.type"), tool.take("type"))?
        && sort != "function"
    {
        return Err(bad(format!("`{path}.type` must be function")));
    }
    let function = format!("{path}.function");
    let inner = tool.take("function").ok_or_else(|| bad(format!("`{function}` is missing")))?;
    let mut inner = object(&function, inner)?;
    let name = text(&format!("{function}.name"), inner.take("name"))?.filter(|it| !it.is_empty());
    let made = Tool {
        name: name.ok_or_else(|| bad(format!("`{function}.name` is missing")))?,
        description: text(&format!("{function}.description"), inner.take("description"))?,
        parameters: inner.take("parameters").map(value),
        strict: truth(&format!("{function}.strict"), inner.take("strict"))?,
    };
    inner.rest(&format!("{function}."), &[], extras);
    tool.rest(&format!("{path}."), &[], extras);
    Ok(made)
}

/// Images in base64; their sort is seen by how they begin.
pub(super) fn images(path: &str, value: Option<&RawValue>) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::new();
    for (at, image) in list(path, value)?.into_iter().enumerate() {
        let base64 =
            json::text(image).ok_or_else(|| bad(format!("`{path}[{at}]` must be a text in base64")))?;
        let is_base64 = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'+' | b'/' | b'=');
        if base64.is_empty() || !base64.bytes().all(is_base64) {
            return Err(bad(format!("`{path}[{at}]` must be an image in base64, without a prefix")));
        }
        let source =
            ImageSource::Data { media_type: media_type(&base64).to_owned(), base64: base64.into_owned() };
        parts.push(Part::Image(Image { source, detail: None }));
    }
    Ok(parts)
}

/// What sort of image begins like this.
fn media_type(base64: &str) -> &'static str {
    let begins = [
        ("iVBORw0KGgo", "image/png"),
        ("/9j/", "image/jpeg"),
        ("UklGR", "image/webp"),
        ("R0lGOD", "image/gif"),
        ("Qk", "image/bmp"),
        ("SUkq", "image/tiff"),
        ("TU0AK", "image/tiff"),
    ];
    let found = begins.iter().find(|(start, _)| base64.starts_with(start));
    found.map_or("application/octet-stream", |(_, sort)| sort)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        dialect::{Door, ollama::understand::understand},
        generate::{Chat, Meaning},
    };

    fn chat(body: &Value) -> Result<Chat, String> {
        match understand(Door::OllamaChat, body.to_string().as_bytes()) {
            Ok(Meaning::Chat(chat)) => Ok(chat),
            Ok(other) => Err(format!("{other:?}")),
            Err(failure) => Err(failure.message()),
        }
    }

    fn messages(messages: Value) -> Result<Chat, String> {
        chat(&json!({"model": "m", "messages": messages}))
    }

    fn refused(wrong: Value, expected: &str) {
        assert_eq!(messages(wrong.clone()).unwrap_err(), expected, "for {wrong}");
    }

    fn calling(names: &[&str]) -> Value {
        let calls: Vec<Value> =
            names.iter().map(|it| json!({"function": {"name": it, "arguments": {"b": 1, "a": 2}}})).collect();
        json!({"role": "assistant", "content": "", "tool_calls": calls})
    }

    /// Ids and names of calls and results, in order.
    fn ids(chat: &Chat) -> Vec<String> {
        let parts = chat.turns.iter().flat_map(|it| &it.parts);
        let shown = parts.filter_map(|it| match it {
            Part::Call(call) => Some(format!("{} {}", call.id, call.name)),
            Part::Result(result) => {
                Some(format!("< {} {}", result.id, result.name.as_deref().unwrap_or("?")))
            }
            _ => None,
        });
        shown.collect()
    }

    #[test]
    fn results_find_their_calls_by_name_and_order() {
        let result = |name: &str| json!({"role": "tool", "content": "1", "tool_name": name});
        let chat = messages(json!([
            calling(&["f", "g", "f"]),
            result("f"),
            result("g"),
            result("f"),
            calling(&["f"]),
            result("f")
        ]));
        let expected = [
            "call_0 f",
            "call_1 g",
            "call_2 f",
            "< call_0 f",
            "< call_1 g",
            "< call_2 f",
            "call_3 f",
            "< call_3 f",
        ];
        assert_eq!(ids(&chat.unwrap()), expected);

        let nameless = json!({"role": "tool", "content": "1"});
        let older = json!({"role": "tool", "content": "1", "name": "g"});
        let chat = messages(json!([calling(&["f", "g"]), older, nameless])).unwrap();
        assert_eq!(ids(&chat), ["call_0 f", "call_1 g", "< call_1 g", "< call_0 f"]);
    }

    #[test]
    fn ids_that_are_given_are_kept_and_never_invented_again() {
        let given = json!({"role": "assistant", "tool_calls": [
            {"id": "call_1", "function": {"name": "f", "arguments": {}}},
            {"id": "", "function": {"name": "g", "arguments": null}},
        ]});
        let result = json!({"role": "tool", "content": "1", "tool_call_id": "call_1", "tool_name": "x"});
        let chat = messages(json!([given, result, {"role": "tool", "content": "2"}])).unwrap();
        assert_eq!(ids(&chat), ["call_1 f", "call_2 g", "< call_1 f", "< call_2 g"]);
        assert!(chat.extras.is_empty());
    }

    #[test]
    fn a_result_without_a_call_is_taken_as_ollama_does() {
        let lone = json!({"role": "tool", "content": "1", "tool_name": "f"});
        assert_eq!(ids(&messages(json!([lone.clone(), lone])).unwrap()), ["< call_0 f", "< call_1 f"]);
    }

    #[test]
    fn arguments_stay_as_they_are_written() {
        let body = br#"{"model":"m","messages":[{"role":"assistant","thinking":"hm","content":"x","tool_calls":[{"type":"function","function":{"index":0,"name":"f","arguments":{"b":1.50, "a":2}}}]}]}"#;
        let Ok(Meaning::Chat(chat)) = understand(Door::OllamaChat, body) else { panic!("no chat") };
        let expected = [
            Part::Thinking { text: "hm".to_owned(), signature: None },
            Part::Text("x".to_owned()),
            Part::Call(Call {
                id: "call_0".to_owned(),
                name: "f".to_owned(),
                arguments: r#"{"b":1.50, "a":2}"#.to_owned(),
            }),
        ];
        assert_eq!(chat.turns[0].parts, expected);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_place() {
        refused(json!([{"role": "robot"}]), "`messages[0].role` must be system, user, assistant or tool");
        refused(
            json!([{"role": "user", "content": [{"type": "text"}]}]),
            "`messages[0].content` must be a text",
        );
        let text = "`messages[0].tool_calls[0].function.name` is missing";
        refused(json!([{"role": "assistant", "tool_calls": [{"function": {}}]}]), text);
        let call = json!({"function": {"name": "f", "arguments": "{}"}});
        let text = "`messages[0].tool_calls[0].function.arguments` must be an object";
        refused(json!([{"role": "assistant", "tool_calls": [call]}]), text);
        let text = "`messages[0].images[0]` must be an image in base64, without a prefix";
        refused(json!([{"role": "user", "images": ["data:image/png;base64,aGk="]}]), text);
        refused(json!([{"role": "user", "images": [""]}]), text);
    }

    #[test]
    fn images_are_told_by_how_they_begin() {
        for (base64, sort) in [
            ("iVBORw0KGgoAAAA=", "image/png"),
            ("/9j/4AAQ", "image/jpeg"),
            ("UklGRgAA", "image/webp"),
            ("R0lGODlh", "image/gif"),
            ("AAAA", "application/octet-stream"),
        ] {
            assert_eq!(media_type(base64), sort);
        }
    }

    #[test]
    fn tools_are_functions() {
        let tools =
            |tools: Value| chat(&json!({"model": "m", "messages": [{"role": "user"}], "tools": tools}));
        let made = tools(json!([{"type": "function", "items": {"x": 1},
            "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": true}}]))
        .unwrap();
        let tool = Tool {
            name: "f".to_owned(),
            description: Some("d".to_owned()),
            parameters: Some(json!({"type": "object"})),
            strict: Some(true),
        };
        assert_eq!(made.tools, [tool]);
        assert_eq!(made.extras, [("tools[0].items".to_owned(), json!({"x": 1}))]);
        let shown = messages(json!([{"role": "assistant", "content": "x", "images": ["aGk="]}])).unwrap();
        assert_eq!(shown.extras, [("messages[0].images".to_owned(), json!(["aGk="]))]);
        assert_eq!(tools(json!([{"type": "web"}])).unwrap_err(), "`tools[0].type` must be function");
        assert_eq!(tools(json!([{}])).unwrap_err(), "`tools[0].function` is missing");
    }
}
