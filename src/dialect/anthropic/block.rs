//! The blocks of a message, as a caller sends them.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{
    UNSIGNED,
    fields::{Fields, parsed},
};
use crate::{
    dialect::json::{self, bad},
    fault::Failure,
    generate::{Call, Extras, Image, ImageSource, Part, Role, ToolResult, Turn},
};

/// Understands the blocks of one conversation; remembers which tool was called by which id.
#[derive(Default)]
pub(super) struct Blocks {
    called: BTreeMap<String, String>,
}

impl Blocks {
    /// Understands what a user's message has: what the person says, and what tools gave.
    /// Neighbouring results become one turn of `Role::Tool`.
    pub(super) fn user(
        &mut self,
        path: &str,
        content: &RawValue,
        turns: &mut Vec<Turn>,
        extras: &mut Extras,
    ) -> Result<(), Failure> {
        let begun = turns.len();
        let mut add = |role, part| match turns.get_mut(begun..).and_then(<[Turn]>::last_mut) {
            Some(turn) if turn.role == role => turn.parts.push(part),
            _ => turns.push(Turn { role, name: None, parts: vec![part] }),
        };
        if let Some(text) = json::text(content) {
            add(Role::User, Part::Text(text.into_owned()));
            return Ok(());
        }
        for (path, value) in blocks(path, content)? {
            let mut block = Fields::of(path, value)?;
            let kind = block.need_text("type")?;
            match kind.as_str() {
                "tool_result" => {
                    let result = self.result(&mut block, extras)?;
                    add(Role::Tool, Part::Result(result));
                }
                _ => match shown(&kind, &mut block, extras)? {
                    Some(part) => add(Role::User, part),
                    None => {
                        extras.push((format!("{} ({})", block.path(), self::kind(&kind)), parsed(value)));
                        continue;
                    }
                },
            }
            block.pass_over(&["cache_control"]);
            block.keep_rest(extras);
        }
        Ok(())
    }

    /// Understands what the model said.
    pub(super) fn assistant(
        &mut self,
        path: &str,
        content: &RawValue,
        turns: &mut Vec<Turn>,
        extras: &mut Extras,
    ) -> Result<(), Failure> {
        if let Some(text) = json::text(content) {
            turns.push(Turn::text(Role::Assistant, text));
            return Ok(());
        }
        let mut parts = Vec::new();
        for (path, value) in blocks(path, content)? {
            let mut block = Fields::of(path, value)?;
            let kind = block.need_text("type")?;
            let part = match kind.as_str() {
                "text" => {
                    let part = Part::Text(block.need_text("text")?);
                    // Where a text of the model's own came from; it is the model's all the same.
                    block.pass_over(&["citations"]);
                    part
                }
                "thinking" => Part::Thinking {
                    text: block.need_text("thinking")?,
                    signature: block.text("signature")?.filter(|it| !it.is_empty() && it != UNSIGNED),
                },
                "redacted_thinking" => {
                    Part::Thinking { text: String::new(), signature: Some(block.need_text("data")?) }
                }
                "tool_use" => Part::Call(self.call(&mut block, extras)?),
                _ => {
                    extras.push((format!("{} ({})", block.path(), self::kind(&kind)), parsed(value)));
                    continue;
                }
            };
            block.pass_over(&["cache_control"]);
            block.keep_rest(extras);
            parts.push(part);
        }
        if !parts.is_empty() {
            turns.push(Turn { role: Role::Assistant, name: None, parts });
        }
        Ok(())
    }

    fn call(&mut self, block: &mut Fields<'_>, extras: &mut Extras) -> Result<Call, Failure> {
        let (id, name) = (block.need_text("id")?, block.need_text("name")?);
        // As written, so that no number in it changes.
        let arguments = block.take("input").map_or("{}", RawValue::get);
        if !arguments.starts_with('{') {
            return Err(block.wrong("input", "must be an object"));
        }
        // The model itself, or code that it wrote: the second is Anthropic's own.
        if let Some(mut caller) = block.object("caller")?
            && caller.need_text("type")? != "direct"
        {
            extras.push((block.path_of("caller"), true.into()));
        }
        self.called.insert(id.clone(), name.clone());
        Ok(Call { id, name, arguments: arguments.to_owned() })
    }

    fn result(&self, block: &mut Fields<'_>, extras: &mut Extras) -> Result<ToolResult, Failure> {
        let id = block.need_text("tool_use_id")?;
        let is_error = block.truth("is_error")?.unwrap_or_default();
        let path = block.path_of("content");
        let mut parts = Vec::new();
        match block.take("content") {
            None => {}
            Some(content) => match json::text(content) {
                Some(text) => parts.push(Part::Text(text.into_owned())),
                None => {
                    for (path, value) in blocks(&path, content)? {
                        let mut inner = Fields::of(path, value)?;
                        let kind = inner.need_text("type")?;
                        let part = match kind.as_str() {
                            // Tells the model that it may call a tool; here it always may.
                            "tool_reference" => Some(Part::Text(inner.need_text("tool_name")?)),
                            _ => shown(&kind, &mut inner, extras)?,
                        };
                        let Some(part) = part else {
                            let path = format!("{} ({})", inner.path(), self::kind(&kind));
                            extras.push((path, parsed(value)));
                            continue;
                        };
                        inner.pass_over(&["cache_control"]);
                        inner.keep_rest(extras);
                        parts.push(part);
                    }
                }
            },
        }
        let name = self.called.get(&id).cloned();
        Ok(ToolResult { id, name, parts, is_error })
    }
}

/// A block that shows something; `None` is one that has no name here.
fn shown(kind: &str, block: &mut Fields<'_>, extras: &mut Extras) -> Result<Option<Part>, Failure> {
    match kind {
        "text" => {
            let text = block.need_text("text")?;
            Ok(Some(Part::Text(text)))
        }
        "image" => {
            let mut source = block.object("source")?.ok_or_else(|| block.wrong("source", "is missing"))?;
            let source_kind = source.need_text("type")?;
            let found = match source_kind.as_str() {
                "base64" => ImageSource::Data {
                    media_type: source.need_text("media_type")?,
                    base64: source.need_text("data")?,
                },
                "url" => ImageSource::Url(source.need_text("url")?),
                // A file that was given to Anthropic.
                _ => return Ok(None),
            };
            source.keep_rest(extras);
            Ok(Some(Part::Image(Image { source: found, detail: None })))
        }
        "document" => document(block, extras),
        _ => Ok(None),
    }
}

/// A document that is plain text is that text, with its title. Others (PDF, files) have no
/// name here, nor have citations, which would have to be found in the answer.
fn document(block: &mut Fields<'_>, extras: &mut Extras) -> Result<Option<Part>, Failure> {
    let mut source = block.object("source")?.ok_or_else(|| block.wrong("source", "is missing"))?;
    if source.need_text("type")? != "text" {
        return Ok(None);
    }
    if let Some(mut citations) = block.object("citations")?
        && citations.truth("enabled")? == Some(true)
    {
        return Ok(None);
    }
    let text = source.need_text("data")?;
    source.pass_over(&["media_type"]);
    source.keep_rest(extras);
    let above = [block.text("title")?, block.text("context")?];
    let all: Vec<String> = above.into_iter().flatten().chain([text]).collect();
    Ok(Some(Part::Text(all.join("\n\n"))))
}

/// The blocks of a content, with their places.
fn blocks<'a>(path: &str, content: &'a RawValue) -> Result<Vec<(String, &'a RawValue)>, Failure> {
    let blocks: Vec<&RawValue> = serde_json::from_str(content.get())
        .map_err(|_| bad(format!("`{path}` must be a text or a list of blocks")))?;
    Ok(blocks.into_iter().enumerate().map(|(at, it)| (format!("{path}[{at}]"), it)).collect())
}

/// The name of a type as far as it may be told: a caller's free text is not repeated.
pub(super) fn kind(kind: &str) -> &str {
    let is_name = kind.len() <= 64 && kind.bytes().all(|it| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if is_name { kind } else { "of a type unknown here" }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(messages: Value) -> Result<(Vec<Turn>, Extras), String> {
        let body = json!({"messages": messages}).to_string();
        let chat = super::super::understand::understand(body.as_bytes()).map_err(|it| it.message())?;
        Ok((chat.turns, chat.extras))
    }

    fn user(content: Value) -> Result<(Vec<Turn>, Extras), String> {
        read(json!([{"role": "user", "content": content}]))
    }

    fn left(content: Value) -> Vec<String> {
        user(content).unwrap().1.into_iter().map(|(path, _)| path).collect()
    }

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    #[test]
    fn texts_and_images_stay_in_order() {
        let (turns, extras) = user(json!([
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
            {"type": "text", "text": "b"},
        ]))
        .unwrap();
        let image = |source| Part::Image(Image { source, detail: None });
        let data = ImageSource::Data { media_type: "image/png".to_owned(), base64: "AAAA".to_owned() };
        let url = ImageSource::Url("https://x/y.png".to_owned());
        assert_eq!(turns[0].parts, [text("a"), image(data), image(url), text("b")]);
        assert_eq!((turns.len(), extras), (1, vec![]));
    }

    #[test]
    fn calls_and_results_belong_together() {
        let (turns, extras) = read(json!([
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "thinking", "thinking": "hm", "signature": UNSIGNED},
                {"type": "redacted_thinking", "data": "xx"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"n": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": [
                    {"type": "text", "text": "no"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
                ]},
                {"type": "tool_result", "tool_use_id": "t2"},
                {"type": "text", "text": "go on"},
            ]},
        ]))
        .unwrap();
        assert_eq!(extras, []);
        let thought = |text: &str, signature: Option<&str>| Part::Thinking {
            text: text.to_owned(),
            signature: signature.map(str::to_owned),
        };
        let call =
            Part::Call(Call { id: "t1".to_owned(), name: "f".to_owned(), arguments: "{\"n\":1}".to_owned() });
        let said = [thought("hm", Some("sig")), thought("hm", None), thought("", Some("xx")), call];
        assert_eq!(turns[0].parts, said);
        let source = ImageSource::Data { media_type: "image/png".to_owned(), base64: "AA".to_owned() };
        let results = [
            Part::Result(ToolResult {
                id: "t1".to_owned(),
                name: Some("f".to_owned()),
                parts: vec![text("no"), Part::Image(Image { source, detail: None })],
                is_error: true,
            }),
            Part::Result(ToolResult { id: "t2".to_owned(), name: None, parts: vec![], is_error: false }),
        ];
        assert_eq!((turns[1].role, &turns[1].parts[..]), (Role::Tool, &results[..]));
        assert_eq!(turns[2], Turn::text(Role::User, "go on"));
    }

    #[test]
    fn arguments_stay_as_they_are_written() {
        let body = r#"{"messages":[{"role":"assistant","content":[
            {"type":"tool_use","id":"t","name":"f","input":{"n":12345678901234567890123,"x":1.50}}]}]}"#;
        let chat = super::super::understand::understand(body.as_bytes()).unwrap();
        let Part::Call(call) = &chat.turns[0].parts[0] else { panic!("no call") };
        assert_eq!(call.arguments, r#"{"n":12345678901234567890123,"x":1.50}"#);
    }

    #[test]
    fn a_plain_document_is_its_text_and_others_are_left_by_name() {
        let (turns, _) = user(json!([
            {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "D"}},
        ]))
        .unwrap();
        assert_eq!(turns, [Turn::text(Role::User, "T\n\nD")]);
        let expected = [
            "messages[0].content[0] (document)",
            "messages[0].content[1] (document)",
            "messages[0].content[2] (search_result)",
            "messages[0].content[3] (of a type unknown here)",
            "messages[0].content[4] (image)",
            "messages[0].content[5].x",
        ];
        let content = json!([
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}},
            {"type": "document", "citations": {"enabled": true}, "source": {"type": "text", "data": "D"}},
            {"type": "search_result", "source": "x"},
            {"type": "my secret", "x": 1},
            {"type": "image", "source": {"type": "file", "file_id": "f"}},
            {"type": "text", "text": "a", "x": 1},
        ]);
        assert_eq!(left(content), expected);
    }

    #[test]
    fn mistakes_are_told_by_their_place() {
        let told = |content: Value, expected: &str| assert_eq!(user(content).unwrap_err(), expected);
        told(json!(5), "`messages[0].content` must be a text or a list of blocks");
        told(json!(["a"]), "`messages[0].content[0]` must be an object");
        told(json!([{"text": "a"}]), "`messages[0].content[0].type` is missing");
        told(json!([{"type": "text", "text": 5}]), "`messages[0].content[0].text` must be a text");
        told(json!([{"type": "image"}]), "`messages[0].content[0].source` is missing");
        told(json!([{"type": "tool_result"}]), "`messages[0].content[0].tool_use_id` is missing");
        let call = json!([{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": "{}"}]}]);
        assert_eq!(read(call).unwrap_err(), "`messages[0].content[0].input` must be an object");
        let role = json!([{"role": "tool", "content": "x"}]);
        assert_eq!(read(role).unwrap_err(), "`messages[0].role` must be `user`, `assistant` or `system`");
    }
}
