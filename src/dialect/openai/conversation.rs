//! Turns of a conversation as messages for an OpenAI-like server.

use serde_json::{Map, Value, json};

use super::ask::put;
use crate::{
    dialect::Lack,
    generate::{Image, ImageSource, Part, Role, ToolResult, Turn},
};

/// Writes the messages.
pub(super) fn messages(turns: &[Turn]) -> Result<Vec<Value>, Lack> {
    let mut out: Vec<Value> = Vec::with_capacity(turns.len());
    let mut shown: Vec<Value> = Vec::new();
    let mut before: Option<Role> = None;
    for turn in turns {
        // Images of results wait until all results are said, which may have
        // nothing between them, and join what the person says next: many templates
        // want the two sides to take turns.
        if !matches!(turn.role, Role::Tool | Role::User) && !shown.is_empty() {
            out.push(json!({"role": "user", "content": std::mem::take(&mut shown)}));
        }
        match turn.role {
            // Many templates take one message of instructions and no more.
            Role::System if before == Some(Role::System) && turn.name.is_none() => {
                let text = texts(turn)?;
                if let Some(Value::String(all)) = out.last_mut().and_then(|it| it.get_mut("content")) {
                    all.push_str("\n\n");
                    all.push_str(&text);
                }
            }
            Role::System => out.push(message("system", turn, texts(turn)?.into())),
            Role::User => {
                let content = user(turn, std::mem::take(&mut shown))?;
                out.push(message("user", turn, content));
            }
            Role::Assistant => out.push(assistant(turn)?),
            Role::Tool => {
                for part in &turn.parts {
                    let Part::Result(result) = part else { return Err(misplaced("tool")) };
                    out.push(tool(result, &mut shown)?);
                }
            }
        }
        before = Some(turn.role);
    }
    if !shown.is_empty() {
        out.push(json!({"role": "user", "content": shown}));
    }
    Ok(out)
}

fn message(role: &str, turn: &Turn, content: Value) -> Value {
    let mut out = Map::new();
    put(&mut out, "role", role);
    put(&mut out, "name", turn.name.as_deref());
    put(&mut out, "content", content);
    Value::Object(out)
}

/// The texts of a turn that has nothing else.
fn texts(turn: &Turn) -> Result<String, Lack> {
    let mut texts = Vec::with_capacity(turn.parts.len());
    for part in &turn.parts {
        match part {
            Part::Text(text) => texts.push(text.as_str()),
            Part::Image(_) | Part::Thinking { .. } | Part::Call(_) | Part::Result(_) => {
                return Err(misplaced("system"));
            }
        }
    }
    Ok(texts.join("\n"))
}

/// A text, or a list of parts where there are images.
fn user(turn: &Turn, mut content: Vec<Value>) -> Result<Value, Lack> {
    if content.is_empty() && turn.parts.iter().all(|it| matches!(it, Part::Text(_))) {
        return Ok(texts(turn)?.into());
    }
    for part in &turn.parts {
        match part {
            Part::Text(text) => content.push(json!({"type": "text", "text": text})),
            Part::Image(image) => content.push(image_url(image)),
            Part::Thinking { .. } | Part::Call(_) | Part::Result(_) => return Err(misplaced("user")),
        }
    }
    Ok(content.into())
}

/// What the model said and did.
///
/// What it thought goes with it, under both names: models that think between
/// their calls want it back, and templates leave out what theirs does not want.
/// The proof of it is another server's and means nothing here.
fn assistant(turn: &Turn) -> Result<Value, Lack> {
    let (mut said, mut thought, mut calls) = (Vec::new(), String::new(), Vec::new());
    for part in &turn.parts {
        match part {
            Part::Text(text) => said.push(text.as_str()),
            Part::Thinking { text, .. } => thought.push_str(text),
            Part::Call(call) => calls.push(json!({
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            })),
            Part::Image(_) | Part::Result(_) => return Err(misplaced("assistant")),
        }
    }
    let mut out = Map::new();
    put(&mut out, "role", "assistant");
    put(&mut out, "name", turn.name.as_deref());
    let content = if said.is_empty() && !calls.is_empty() { Value::Null } else { said.join("\n").into() };
    out.insert("content".to_owned(), content);
    let thought = Some(thought).filter(|it| !it.is_empty());
    put(&mut out, "reasoning", thought.as_deref());
    put(&mut out, "reasoning_content", thought.as_deref());
    put(&mut out, "tool_calls", Some(calls).filter(|it| !it.is_empty()));
    Ok(Value::Object(out))
}

/// A result is a text here: its images are put aside, and that it failed is said in words.
fn tool(result: &ToolResult, shown: &mut Vec<Value>) -> Result<Value, Lack> {
    let mut texts = Vec::new();
    for part in &result.parts {
        match part {
            Part::Text(text) => texts.push(text.as_str()),
            Part::Image(image) => shown.push(image_url(image)),
            Part::Thinking { .. } | Part::Call(_) | Part::Result(_) => return Err(misplaced("tool")),
        }
    }
    let text = texts.join("\n");
    let content = if result.is_error { format!("Error: {text}") } else { text };
    Ok(json!({"role": "tool", "tool_call_id": result.id, "content": content}))
}

fn image_url(image: &Image) -> Value {
    let mut inner = Map::new();
    let url = match &image.source {
        ImageSource::Url(url) => url.clone(),
        ImageSource::Data { media_type, base64 } => format!("data:{media_type};base64,{base64}"),
    };
    put(&mut inner, "url", url);
    put(&mut inner, "detail", image.detail.as_deref());
    json!({"type": "image_url", "image_url": inner})
}

fn misplaced(role: &str) -> Lack {
    Lack(format!("a message of role `{role}` has a part that OpenAI's language does not allow there"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Call;

    fn turn(role: Role, parts: Vec<Part>) -> Turn {
        Turn { role, name: None, parts }
    }

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    fn image(base64: &str) -> Part {
        let source = ImageSource::Data { media_type: "image/png".to_owned(), base64: base64.to_owned() };
        Part::Image(Image { source, detail: None })
    }

    fn url(base64: &str) -> Value {
        json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{base64}")}})
    }

    fn result(id: &str, parts: Vec<Part>, is_error: bool) -> Part {
        Part::Result(ToolResult { id: id.to_owned(), name: None, parts, is_error })
    }

    fn check(turns: &[Turn], expected: Value) {
        assert_eq!(Value::from(messages(turns).unwrap()), expected);
    }

    #[test]
    fn a_conversation_is_written_in_messages() {
        check(
            &[
                Turn::text(Role::System, "a"),
                Turn::text(Role::System, "b"),
                turn(Role::User, vec![text("c"), text("d")]),
                turn(Role::User, vec![text("e"), image("AAAA")]),
                Turn { name: Some("bo".to_owned()), ..Turn::text(Role::User, "f") },
                Turn::text(Role::System, "g"),
            ],
            json!([
                {"role": "system", "content": "a\n\nb"},
                {"role": "user", "content": "c\nd"},
                {"role": "user", "content": [{"type": "text", "text": "e"}, url("AAAA")]},
                {"role": "user", "name": "bo", "content": "f"},
                {"role": "system", "content": "g"},
            ]),
        );
    }

    #[test]
    fn calls_go_with_the_thought_before_them() {
        let thought = Part::Thinking { text: "hm".to_owned(), signature: Some("proof".to_owned()) };
        let call = Part::Call(Call { id: "a".to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() });
        check(
            &[turn(Role::Assistant, vec![thought, call]), Turn::text(Role::Assistant, "x")],
            json!([
                {"role": "assistant", "content": null, "reasoning": "hm", "reasoning_content": "hm",
                 "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "assistant", "content": "x"},
            ]),
        );
    }

    #[test]
    fn images_of_results_follow_all_results() {
        let results =
            vec![result("a", vec![text("1"), image("AAAA")], false), result("b", vec![text("no")], true)];
        let tools = [
            json!({"role": "tool", "tool_call_id": "a", "content": "1"}),
            json!({"role": "tool", "tool_call_id": "b", "content": "Error: no"}),
        ];
        let alone = json!({"role": "user", "content": [url("AAAA")]});
        check(&[turn(Role::Tool, results.clone())], json!([tools[0], tools[1], alone]));
        let answered = [turn(Role::Tool, results.clone()), Turn::text(Role::Assistant, "x")];
        check(&answered, json!([tools[0], tools[1], alone, {"role": "assistant", "content": "x"}]));
        let both = json!({"role": "user", "content": [url("AAAA"), {"type": "text", "text": "y"}]});
        check(&[turn(Role::Tool, results), Turn::text(Role::User, "y")], json!([tools[0], tools[1], both]));
    }

    #[test]
    fn what_stands_in_a_wrong_place_is_refused() {
        let lack = messages(&[turn(Role::Assistant, vec![image("AAAA")])]).unwrap_err();
        let expected = "a message of role `assistant` has a part that OpenAI's language does not allow there";
        assert_eq!(lack.0, expected);
    }
}
