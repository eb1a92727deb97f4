//! The conversation in a caller's request.

use serde_json::Value;

use crate::{
    dialect::{fields::Fields, json::bad},
    fault::Failure,
    generate::{Call, Extras, Image, ImageSource, Part, Role, ToolResult, Turn},
};

/// What clients send back of an answer that no model is ever shown.
const ECHOES: &[&str] = &["annotations", "audio", "id", "cache_control"];

/// Makes turns of messages.
pub(super) fn turns(messages: Vec<Value>, extras: &mut Extras) -> Result<Vec<Turn>, Failure> {
    let mut calls = Calls::default();
    let mut turns = Vec::with_capacity(messages.len());
    for (at, message) in messages.into_iter().enumerate() {
        let path = format!("messages[{at}]");
        let mut fields = Fields::within(&path, message)?;
        let name = fields.text("name")?.filter(|it| !it.is_empty());
        let role = fields.need_text("role")?;
        let turn = match role.as_str() {
            "system" | "developer" => {
                Turn { role: Role::System, name, parts: said(&mut fields, &path, extras)? }
            }
            "user" => Turn { role: Role::User, name, parts: said(&mut fields, &path, extras)? },
            "assistant" => Turn {
                role: Role::Assistant,
                name,
                parts: assistant(&mut fields, &path, &mut calls, extras)?,
            },
            "tool" | "function" => {
                let result = result(&mut fields, &path, name, &mut calls, extras)?;
                Turn { role: Role::Tool, name: None, parts: vec![Part::Result(result)] }
            }
            _ => {
                let known = "system, developer, user, assistant or tool";
                return Err(bad(format!("`{path}.role` must be {known}")));
            }
        };
        fields.drop_hints(ECHOES);
        fields.rest(extras);
        turns.push(turn);
    }
    Ok(turns)
}

/// The calls so far, for results that do not say whose they are.
#[derive(Default)]
struct Calls {
    made: Vec<(String, String, bool)>,
}

impl Calls {
    fn add(&mut self, id: Option<String>, name: &str) -> String {
        let id = id.unwrap_or_else(|| format!("call_{}", self.made.len()));
        self.made.push((id.clone(), name.to_owned(), false));
        id
    }

    /// The call that a result belongs to: by its id, by the tool's name, else the next without one.
    fn answer(&mut self, id: Option<&str>, name: Option<&str>) -> Option<(String, String)> {
        let fits = |(made, tool, answered): &(String, String, bool)| match id {
            Some(id) => made == id,
            None => !answered && name.is_none_or(|it| it == tool),
        };
        // Ids may be used again in a long conversation: the last one is meant.
        let at = match id {
            Some(_) => self.made.iter().rposition(fits)?,
            None => self.made.iter().position(fits)?,
        };
        self.made[at].2 = true;
        Some((self.made[at].0.clone(), self.made[at].1.clone()))
    }
}

fn assistant(
    fields: &mut Fields,
    path: &str,
    calls: &mut Calls,
    extras: &mut Extras,
) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::new();
    let older = fields.text("reasoning")?;
    if let Some(text) = fields.text("reasoning_content")?.or(older).filter(|it| !it.is_empty()) {
        parts.push(Part::Thinking { text, signature: None });
    }
    if let Some(content) = fields.take("content") {
        parts.extend(content_parts(content, path, extras)?);
    }
    // A refusal is what the model said.
    if let Some(text) = fields.text("refusal")?.filter(|it| !it.is_empty()) {
        parts.push(Part::Text(text));
    }
    for (at, call) in fields.list("tool_calls")?.into_iter().flatten().enumerate() {
        let path = format!("{path}.tool_calls[{at}]");
        let mut outer = Fields::within(&path, call)?;
        let kind = outer.text("type")?.unwrap_or_else(|| "function".to_owned());
        if kind != "function" {
            extras.push((format!("{path}.type"), kind.into()));
            continue;
        }
        let id = outer.text("id")?.filter(|it| !it.is_empty());
        let function = outer.need("function")?;
        parts.push(called(id, function, &format!("{path}.function"), calls)?);
        // Some clients send a streamed call back as it came.
        outer.drop_hints(&["index"]);
        outer.rest(extras);
    }
    if let Some(function) = fields.take("function_call") {
        parts.push(called(None, function, &format!("{path}.function_call"), calls)?);
    }
    Ok(parts)
}

fn called(id: Option<String>, function: Value, path: &str, calls: &mut Calls) -> Result<Part, Failure> {
    let mut function = Fields::within(path, function)?;
    let name = function.need_text("name")?;
    let arguments = match function.take("arguments") {
        None => "{}".to_owned(),
        Some(Value::String(text)) if text.trim().is_empty() => "{}".to_owned(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    let id = calls.add(id, &name);
    Ok(Part::Call(Call { id, name, arguments }))
}

fn result(
    fields: &mut Fields,
    path: &str,
    name: Option<String>,
    calls: &mut Calls,
    extras: &mut Extras,
) -> Result<ToolResult, Failure> {
    let id = fields.text("tool_call_id")?.filter(|it| !it.is_empty());
    let found = calls.answer(id.as_deref(), name.as_deref());
    let (id, name) = match (id, found) {
        (_, Some((id, name))) => (id, Some(name)),
        // A conversation may have been cut short in front.
        (Some(id), None) => (id, name),
        (None, None) => return Err(bad(format!("`{path}.tool_call_id` is missing"))),
    };
    let parts = match fields.take("content") {
        Some(content) => content_parts(content, path, extras)?,
        None => Vec::new(),
    };
    Ok(ToolResult { id, name, parts, is_error: false })
}

fn said(fields: &mut Fields, path: &str, extras: &mut Extras) -> Result<Vec<Part>, Failure> {
    let content = fields.need("content")?;
    content_parts(content, path, extras)
}

fn content_parts(content: Value, path: &str, extras: &mut Extras) -> Result<Vec<Part>, Failure> {
    let list = match content {
        Value::String(text) => return Ok(vec![Part::Text(text)]),
        Value::Array(list) => list,
        _ => return Err(bad(format!("`{path}.content` must be a text or a list of parts"))),
    };
    let mut parts = Vec::with_capacity(list.len());
    for (at, part) in list.into_iter().enumerate() {
        let path = format!("{path}.content[{at}]");
        let mut fields = Fields::within(&path, part)?;
        match fields.need_text("type")?.as_str() {
            "text" | "input_text" | "output_text" => parts.push(Part::Text(fields.need_text("text")?)),
            "refusal" => parts.push(Part::Text(fields.need_text("refusal")?)),
            "image_url" | "input_image" => parts.push(Part::Image(image(&mut fields, &path, extras)?)),
            other => {
                extras.push((format!("{path}.type"), other.into()));
                continue;
            }
        }
        fields.drop_hints(ECHOES);
        fields.rest(extras);
    }
    Ok(parts)
}

fn image(fields: &mut Fields, path: &str, extras: &mut Extras) -> Result<Image, Failure> {
    let (url, detail) = match fields.need("image_url")? {
        Value::String(url) => (url, fields.text("detail")?),
        object => {
            let mut inner = Fields::within(&format!("{path}.image_url"), object)?;
            let found = (inner.need_text("url")?, inner.text("detail")?);
            inner.rest(extras);
            found
        }
    };
    let source = match url.strip_prefix("data:") {
        None => ImageSource::Url(url),
        Some(data) => {
            let Some((kind, base64)) = data.split_once(',') else {
                return Err(bad(format!("`{path}.image_url` has no data")));
            };
            let Some(kind) = kind.strip_suffix(";base64") else {
                return Err(bad(format!("`{path}.image_url` must have its data in base64")));
            };
            let media_type = kind.split(';').next().unwrap_or_default().to_owned();
            ImageSource::Data { media_type, base64: base64.to_owned() }
        }
    };
    Ok(Image { source, detail: detail.filter(|it| it != "auto") })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meant(messages: Value) -> (Vec<Turn>, Vec<String>) {
        let Value::Array(list) = messages else { panic!("no list") };
        let mut extras = Extras::new();
        let turns = turns(list, &mut extras).unwrap();
        (turns, extras.into_iter().map(|it| it.0).collect())
    }

    fn refused(message: Value, expected: &str) {
        let failure = turns(vec![message], &mut Extras::new()).unwrap_err();
        assert_eq!(failure.message(), expected);
    }

    fn call(id: &str, name: &str, arguments: &str) -> Part {
        Part::Call(Call { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() })
    }

    fn result(id: &str, name: &str, text: &str) -> Turn {
        let result = ToolResult {
            id: id.to_owned(),
            name: Some(name.to_owned()),
            parts: vec![Part::Text(text.to_owned())],
            is_error: false,
        };
        Turn { role: Role::Tool, name: None, parts: vec![Part::Result(result)] }
    }

    #[test]
    fn all_roles_and_both_forms_of_content_are_understood() {
        let (turns, extras) = meant(json!([
            {"role": "developer", "content": "be brief"},
            {"role": "system", "content": [{"type": "text", "text": "be kind"}]},
            {"role": "user", "name": "ann", "content": "hi"},
            {"role": "assistant", "content": "hm", "reasoning": "well", "refusal": null, "annotations": []},
        ]));
        let thought = Part::Thinking { text: "well".to_owned(), signature: None };
        let expected = [
            Turn::text(Role::System, "be brief"),
            Turn::text(Role::System, "be kind"),
            Turn { name: Some("ann".to_owned()), ..Turn::text(Role::User, "hi") },
            Turn { role: Role::Assistant, name: None, parts: vec![thought, Part::Text("hm".to_owned())] },
        ];
        assert_eq!(turns, expected);
        assert!(extras.is_empty(), "{extras:?}");
    }

    #[test]
    fn images_are_here_or_elsewhere() {
        let (turns, _) = meant(json!([{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "http://x/y.png", "detail": "auto"}},
            {"type": "input_image", "image_url": "data:image/jpeg;charset=utf-8;base64,BBBB"},
        ]}]));
        let here = |media_type: &str, base64: &str, detail: Option<&str>| {
            let source = ImageSource::Data { media_type: media_type.to_owned(), base64: base64.to_owned() };
            Part::Image(Image { source, detail: detail.map(str::to_owned) })
        };
        let elsewhere =
            Part::Image(Image { source: ImageSource::Url("http://x/y.png".to_owned()), detail: None });
        let expected = [here("image/png", "AAAA", Some("low")), elsewhere, here("image/jpeg", "BBBB", None)];
        assert_eq!(turns[0].parts, expected);
    }

    #[test]
    fn calls_and_results_find_each_other() {
        let (turns, extras) = meant(json!([
            {"role": "assistant", "content": null, "tool_calls": [
                {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                {"id": "b", "function": {"name": "g", "arguments": ""}},
            ]},
            {"role": "tool", "tool_call_id": "b", "content": "2"},
            {"role": "tool", "tool_call_id": "a", "name": "f", "content": [{"type": "text", "text": "1"}]},
        ]));
        assert_eq!(turns[0].parts, [call("a", "f", "{\"x\":1}"), call("b", "g", "{}")]);
        assert_eq!(turns[1..], [result("b", "g", "2"), result("a", "f", "1")]);
        assert!(extras.is_empty(), "{extras:?}");
    }

    #[test]
    fn calls_without_ids_get_some() {
        let (turns, _) = meant(json!([
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "assistant", "tool_calls": [
                {"function": {"name": "f", "arguments": {"x": 2}}}, {"function": {"name": "g", "arguments": "{}"}},
            ]},
            {"role": "tool", "content": "2"},
            {"role": "tool", "content": "3"},
        ]));
        assert_eq!(turns[0].parts, [call("call_0", "f", "{}")]);
        assert_eq!(turns[1], result("call_0", "f", "1"));
        assert_eq!(turns[2].parts, [call("call_1", "f", "{\"x\":2}"), call("call_2", "g", "{}")]);
        assert_eq!(turns[3..], [result("call_1", "f", "2"), result("call_2", "g", "3")]);
    }

    #[test]
    fn what_has_no_name_is_kept_by_its_place() {
        let (_, extras) = meant(json!([
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}, {"type": "text", "text": "a", "x": 1}]},
            {"role": "assistant", "content": "a", "prefix": true, "tool_calls": [{"type": "custom", "custom": {}}]},
        ]));
        let expected = [
            "messages[0].content[0].type",
            "messages[0].content[1].x",
            "messages[1].tool_calls[0].type",
            "messages[1].prefix",
        ];
        assert_eq!(extras, expected);
    }

    #[test]
    fn a_mistake_is_told_by_its_place() {
        refused(json!({"content": "x"}), "`messages[0].role` is missing");
        let roles = "`messages[0].role` must be system, developer, user, assistant or tool";
        refused(json!({"role": "wizard", "content": "x"}), roles);
        refused(json!({"role": "user"}), "`messages[0].content` is missing");
        refused(
            json!({"role": "user", "content": 5}),
            "`messages[0].content` must be a text or a list of parts",
        );
        refused(json!({"role": "user", "content": ["x"]}), "`messages[0].content[0]` must be an object");
        refused(
            json!({"role": "user", "content": [{"type": "text"}]}),
            "`messages[0].content[0].text` is missing",
        );
        refused(json!({"role": "tool", "content": "x"}), "`messages[0].tool_call_id` is missing");
        let image = |url: &str| json!({"role": "user", "content": [{"type": "image_url", "image_url": url}]});
        refused(image("data:x"), "`messages[0].content[0].image_url` has no data");
        let base64 = "`messages[0].content[0].image_url` must have its data in base64";
        refused(image("data:image/svg+xml,<svg/>"), base64);
    }
}
