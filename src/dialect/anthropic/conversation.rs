//! Says the turns of a conversation in this language.

use serde_json::{Value, json};

use super::{
    ask::lack,
    whole::{fit, input},
};
use crate::{
    dialect::Lack,
    generate::{Image, ImageSource, Part, Role, ToolResult, Turn},
};

/// The instructions, which stand apart, wherever they stood; and the turns of the two who
/// talk, neighbours made one, the results of tools first in theirs.
pub(super) fn conversation(turns: &[Turn]) -> Result<(String, Vec<Value>), Lack> {
    let mut system = Vec::new();
    let mut messages: Vec<(&str, Vec<Value>)> = Vec::new();
    for turn in turns {
        let role = match turn.role {
            Role::System => {
                for part in &turn.parts {
                    let Part::Text(text) = part else {
                        return Err(lack("an image among instructions"));
                    };
                    system.push(text.as_str());
                }
                continue;
            }
            Role::Assistant => "assistant",
            Role::User | Role::Tool => "user",
        };
        let blocks = turn.parts.iter().filter_map(|it| block(turn.role, it).transpose());
        let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
        match messages.last_mut() {
            Some((last, all)) if *last == role => all.extend(blocks),
            _ => messages.push((role, blocks)),
        }
    }
    // An answer with nothing in it was never given.
    messages.retain(|(role, blocks)| *role == "user" || !blocks.is_empty());
    if messages.is_empty() {
        return Err(lack("a conversation with nothing but instructions"));
    }
    let messages = messages.into_iter().map(|(role, mut blocks)| {
        blocks.sort_by_key(|it| it["type"] != "tool_result");
        json!({"role": role, "content": content(blocks)})
    });
    Ok((system.join("\n\n"), messages.collect()))
}

/// A content of one text is that text.
fn content(mut blocks: Vec<Value>) -> Value {
    match &mut blocks[..] {
        [] => "".into(),
        [block] if block["type"] == "text" => block["text"].take(),
        _ => blocks.into(),
    }
}

/// A part of a turn; `None` is one that says nothing.
fn block(role: Role, part: &Part) -> Result<Option<Value>, Lack> {
    Ok(Some(match part {
        // By the book a text may not be empty.
        Part::Text(text) if text.is_empty() => return Ok(None),
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Image(image) if role != Role::Assistant => self::image(image),
        Part::Image(_) => return Err(lack("an image of the assistant's")),
        // Only the proof of another server: it says nothing to this one.
        Part::Thinking { text, .. } if text.is_empty() => return Ok(None),
        Part::Thinking { text, signature } => {
            let signature = signature.as_deref().unwrap_or_default();
            json!({"type": "thinking", "thinking": text, "signature": signature})
        }
        Part::Call(call) => json!({
            "type": "tool_use", "id": fit(&call.id), "name": call.name, "input": input(&call.arguments),
        }),
        Part::Result(result) => self::result(result)?,
    }))
}

fn image(image: &Image) -> Value {
    let source = match &image.source {
        ImageSource::Data { media_type, base64 } => {
            json!({"type": "base64", "media_type": media_type, "data": base64})
        }
        ImageSource::Url(url) => json!({"type": "url", "url": url}),
    };
    json!({"type": "image", "source": source})
}

fn result(result: &ToolResult) -> Result<Value, Lack> {
    let mut said = json!({"type": "tool_result", "tool_use_id": fit(&result.id)});
    let blocks = result.parts.iter().filter_map(|it| block(Role::Tool, it).transpose());
    said["content"] = content(blocks.collect::<Result<Vec<_>, _>>()?);
    if result.is_error {
        said["is_error"] = true.into();
    }
    Ok(said)
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

    fn result(id: &str, parts: Vec<Part>, is_error: bool) -> Part {
        Part::Result(ToolResult { id: id.to_owned(), name: None, parts, is_error })
    }

    #[test]
    fn instructions_stand_apart_wherever_they_stood() {
        let (system, messages) = conversation(&[
            Turn::text(Role::System, "a"),
            Turn::text(Role::User, "hi"),
            Turn::text(Role::System, "b"),
        ])
        .unwrap();
        assert_eq!((system.as_str(), messages), ("a\n\nb", vec![json!({"role": "user", "content": "hi"})]));
        let told = "a conversation with nothing but instructions cannot be said to Anthropic's messages";
        assert_eq!(conversation(&[Turn::text(Role::System, "a")]).unwrap_err().0, told);
    }

    #[test]
    fn neighbours_become_one_and_results_come_first() {
        let call = Part::Call(Call {
            id: "call.1".to_owned(),
            name: "f".to_owned(),
            arguments: "{\"a\":1}".to_owned(),
        });
        let image = Part::Image(Image {
            source: ImageSource::Data { media_type: "image/png".to_owned(), base64: "AA".to_owned() },
            detail: Some("high".to_owned()),
        });
        let said = conversation(&[
            Turn::text(Role::User, "hi"),
            turn(Role::Assistant, vec![Part::Thinking { text: "hm".to_owned(), signature: None }]),
            turn(Role::Assistant, vec![text(""), call]),
            turn(Role::User, vec![text("wait")]),
            turn(Role::Tool, vec![result("call.1", vec![text("no"), image], true)]),
            turn(Role::Tool, vec![result("x", vec![text("yes")], false), result("y", vec![], false)]),
        ]);
        let expected = json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "is_error": true, "content": [
                    {"type": "text", "text": "no"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
                ]},
                {"type": "tool_result", "tool_use_id": "x", "content": "yes"},
                {"type": "tool_result", "tool_use_id": "y", "content": ""},
                {"type": "text", "text": "wait"},
            ]},
        ]);
        assert_eq!(Value::from(said.unwrap().1), expected);
    }
}
