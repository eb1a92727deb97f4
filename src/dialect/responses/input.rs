//! Understands the input: a flat list of items becomes turns.
//!
//! The model's own items (messages, thoughts, calls) that follow each other are
//! one turn, because other languages know only turns, and a result must follow
//! the turn that called. An item that cannot be said is kept by its place and
//! type.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tool::custom_arguments;
use crate::{
    dialect::{fields::Fields, json::bad},
    fault::Failure,
    generate::{Call, Extras, Image, ImageSource, Part, Role, ToolResult, Turn},
};

/// What items and parts carry that says nothing to a model: their ids and states,
/// what was noted beside an answer when it was given, and hints for caches.
const NOTES: [&str; 9] = [
    "id",
    "status",
    "phase",
    "end_turn",
    "annotations",
    "logprobs",
    "created_by",
    "prompt_cache_breakpoint",
    "internal_chat_message_metadata_passthrough",
];

/// Understands `input`.
pub(super) fn turns(value: Value, turns: &mut Vec<Turn>, extras: &mut Extras) -> Result<(), Failure> {
    let items = match value {
        Value::String(text) => {
            turns.push(Turn::text(Role::User, text));
            return Ok(());
        }
        Value::Array(items) => items,
        _ => return Err(bad("`input` must be a text or a list")),
    };
    let mut input = Input { turns, extras, called: BTreeMap::new() };
    for (at, item) in items.into_iter().enumerate() {
        input.item(Fields::within(&format!("input[{at}]"), item)?)?;
    }
    Ok(())
}

struct Input<'a> {
    turns: &'a mut Vec<Turn>,
    extras: &'a mut Extras,
    /// The tools by the ids of their calls.
    called: BTreeMap<String, String>,
}

impl Input<'_> {
    fn item(&mut self, mut fields: Fields) -> Result<(), Failure> {
        let kind = fields.text("type")?;
        match kind.as_deref() {
            None | Some("message") => self.message(&mut fields)?,
            Some("function_call") => {
                let id = fields.need_text("call_id")?;
                let name = fields.need_text("name")?;
                let mut arguments = fields.need_text("arguments")?;
                if arguments.trim().is_empty() {
                    arguments = "{}".to_owned();
                }
                self.call(id, name, arguments);
            }
            Some("custom_tool_call") => {
                let id = fields.need_text("call_id")?;
                let name = fields.need_text("name")?;
                let input = fields.need_text("input")?;
                self.call(id, name, custom_arguments(&input));
            }
            Some("function_call_output" | "custom_tool_call_output") => self.result(&mut fields)?,
            Some("reasoning") => self.thinking(&mut fields)?,
            Some(kind) => {
                fields.unnamed(kind, self.extras);
                return Ok(());
            }
        }
        self.rest(fields);
        Ok(())
    }

    fn rest(&mut self, mut fields: Fields) {
        fields.drop_hints(&NOTES);
        fields.rest_that_is_on(self.extras);
    }

    fn message(&mut self, fields: &mut Fields) -> Result<(), Failure> {
        let role = match fields.need_text("role")?.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => {
                return Err(fields.wrong("role", "`system`, `developer`, `user` or `assistant`"));
            }
        };
        let content = fields.need("content")?;
        let parts = self.parts(content, &fields.path("content"))?;
        self.add(role, parts);
        Ok(())
    }

    /// The parts of a message, or of what a tool gave.
    fn parts(&mut self, content: Value, path: &str) -> Result<Vec<Part>, Failure> {
        let items = match content {
            Value::String(text) => return Ok(vec![Part::Text(text)]),
            Value::Array(items) => items,
            _ => return Err(bad(format!("`{path}` must be a text or a list"))),
        };
        let mut parts = Vec::new();
        for (at, item) in items.into_iter().enumerate() {
            let mut fields = Fields::within(&format!("{path}[{at}]"), item)?;
            let kind = fields.need_text("type")?;
            match kind.as_str() {
                "input_text" | "output_text" | "text" => parts.push(Part::Text(fields.need_text("text")?)),
                // To a model its own refusal is what it said.
                "refusal" => parts.push(Part::Text(fields.need_text("refusal")?)),
                "input_image" if fields.peek("image_url").is_some_and(|it| !it.is_null()) => {
                    parts.push(Part::Image(image(&mut fields)?));
                }
                _ => {
                    fields.unnamed(&kind, self.extras);
                    continue;
                }
            }
            self.rest(fields);
        }
        Ok(parts)
    }

    fn call(&mut self, id: String, name: String, arguments: String) {
        self.called.insert(id.clone(), name.clone());
        self.add(Role::Assistant, vec![Part::Call(Call { id, name, arguments })]);
    }

    fn result(&mut self, fields: &mut Fields) -> Result<(), Failure> {
        let id = fields.need_text("call_id")?;
        let output = fields.need("output")?;
        let parts = self.parts(output, &fields.path("output"))?;
        let told = fields.text("name")?;
        let name = self.called.get(&id).cloned().or(told);
        self.add(Role::Tool, vec![Part::Result(ToolResult { id, name, parts, is_error: false })]);
        Ok(())
    }

    /// The thought itself where it is there, else what was told of it.
    fn thinking(&mut self, fields: &mut Fields) -> Result<(), Failure> {
        let mut thought = texts(fields, "content")?;
        let told = texts(fields, "summary")?;
        if thought.is_empty() {
            thought = told;
        }
        let signature = fields.text("encrypted_content")?.filter(|it| !it.is_empty());
        let text = thought.join("\n\n");
        if !text.is_empty() || signature.is_some() {
            self.add(Role::Assistant, vec![Part::Thinking { text, signature }]);
        }
        Ok(())
    }

    fn add(&mut self, role: Role, parts: Vec<Part>) {
        match self.turns.last_mut() {
            Some(last) if last.role == role && matches!(role, Role::Assistant | Role::Tool) => {
                last.parts.extend(parts);
            }
            _ => self.turns.push(Turn { role, name: None, parts }),
        }
    }
}

/// The texts of a list of parts that are nothing else.
fn texts(fields: &mut Fields, name: &str) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    for (at, part) in fields.list(name)?.unwrap_or_default().into_iter().enumerate() {
        let path = format!("{}[{at}]", fields.path(name));
        texts.push(Fields::within(&path, part)?.need_text("text")?);
    }
    texts.retain(|it| !it.is_empty());
    Ok(texts)
}

fn image(fields: &mut Fields) -> Result<Image, Failure> {
    let url = fields.need_text("image_url")?;
    let detail = fields.text("detail")?.filter(|it| it != "auto");
    let data = url.strip_prefix("data:").and_then(|it| it.split_once(";base64,"));
    let source = match data {
        Some((media_type, base64)) => {
            ImageSource::Data { media_type: media_type.to_owned(), base64: base64.to_owned() }
        }
        None => ImageSource::Url(url),
    };
    Ok(Image { source, detail })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn understood(input: Value) -> Result<(Vec<Turn>, Extras), Failure> {
        let (mut all, mut extras) = (Vec::new(), Extras::new());
        turns(input, &mut all, &mut extras)?;
        Ok((all, extras))
    }

    fn check(input: Value, expected: &[Turn]) {
        let (turns, extras) = understood(input.clone()).unwrap();
        assert_eq!((turns.as_slice(), extras), (expected, Extras::new()), "for {input}");
    }

    fn refused(input: Value, expected: &str) {
        assert_eq!(understood(input.clone()).unwrap_err().message(), expected, "for {input}");
    }

    fn call(id: &str, name: &str, arguments: &str) -> Part {
        Part::Call(Call { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() })
    }

    fn result(id: &str, name: Option<&str>, parts: Vec<Part>) -> Part {
        Part::Result(ToolResult { id: id.to_owned(), name: name.map(str::to_owned), parts, is_error: false })
    }

    fn words(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    fn turn(role: Role, parts: Vec<Part>) -> Turn {
        Turn { role, name: None, parts }
    }

    #[test]
    fn a_text_is_what_the_person_says() {
        check(json!("hi"), &[Turn::text(Role::User, "hi")]);
    }

    #[test]
    fn messages_come_with_and_without_a_type() {
        check(
            json!([
                {"role": "developer", "content": "be brief"},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"role": "user", "content": "b"},
                {"id": "msg_1", "status": "completed", "phase": "final_answer", "type": "message",
                 "role": "assistant", "content": [
                    {"type": "output_text", "text": "c", "annotations": [{}], "logprobs": [{}]},
                    {"type": "refusal", "refusal": "no"}]},
            ]),
            &[
                Turn::text(Role::System, "be brief"),
                Turn::text(Role::User, "a"),
                Turn::text(Role::User, "b"),
                turn(Role::Assistant, vec![words("c"), words("no")]),
            ],
        );
    }

    #[test]
    fn what_the_model_did_in_a_row_is_one_turn_and_so_is_what_came_of_it() {
        check(
            json!([
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}],
                 "encrypted_content": "s"},
                {"role": "assistant", "content": "I look"},
                {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"},
                {"type": "function_call", "call_id": "c2", "name": "g", "arguments": ""},
                {"type": "function_call_output", "call_id": "c1", "output": "one"},
                {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
            ]),
            &[
                turn(
                    Role::Assistant,
                    vec![
                        Part::Thinking { text: "hm".to_owned(), signature: Some("s".to_owned()) },
                        words("I look"),
                        call("c1", "f", "{\"a\":1}"),
                        call("c2", "g", "{}"),
                    ],
                ),
                turn(
                    Role::Tool,
                    vec![
                        result("c1", Some("f"), vec![words("one")]),
                        result("c2", Some("g"), vec![words("two")]),
                    ],
                ),
            ],
        );
    }

    #[test]
    fn calls_of_custom_tools_are_calls() {
        check(
            json!([
                {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "***"},
                {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
            ]),
            &[
                turn(Role::Assistant, vec![call("c1", "apply_patch", "{\"input\":\"***\"}")]),
                turn(Role::Tool, vec![result("c1", Some("apply_patch"), vec![words("done")])]),
            ],
        );
    }

    #[test]
    fn the_thought_itself_is_better_than_what_was_told_of_it() {
        let thought = |text: &str, signature: Option<&str>| {
            let signature = signature.map(str::to_owned);
            turn(Role::Assistant, vec![Part::Thinking { text: text.to_owned(), signature }])
        };
        let summary = json!([{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]);
        check(json!([{"type": "reasoning", "summary": summary}]), &[thought("a\n\nb", None)]);
        let content = json!([{"type": "reasoning_text", "text": "raw"}]);
        check(
            json!([{"type": "reasoning", "summary": summary, "content": content}]),
            &[thought("raw", None)],
        );
        check(
            json!([{"type": "reasoning", "summary": [], "encrypted_content": "s"}]),
            &[thought("", Some("s"))],
        );
        check(json!([{"type": "reasoning", "summary": [], "encrypted_content": null}]), &[]);
    }

    #[test]
    fn images_are_here_or_elsewhere() {
        let image =
            |source, detail: Option<&str>| Part::Image(Image { source, detail: detail.map(str::to_owned) });
        check(
            json!([{"role": "user", "content": [
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
                {"type": "input_image", "image_url": "http://x/y.png", "detail": "high", "file_id": null},
            ]}]),
            &[turn(
                Role::User,
                vec![
                    image(
                        ImageSource::Data { media_type: "image/png".to_owned(), base64: "AAAA".to_owned() },
                        None,
                    ),
                    image(ImageSource::Url("http://x/y.png".to_owned()), Some("high")),
                ],
            )],
        );
    }

    #[test]
    fn what_cannot_be_said_is_kept_by_its_place_and_type() {
        let (turns, extras) = understood(json!([
            {"type": "item_reference", "id": "msg_1"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"role": "user", "content": [{"type": "input_file", "file_id": "f"}, {"type": "input_image", "file_id": "f"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "n"},
        ]))
        .unwrap();
        assert_eq!(turns.len(), 2);
        let paths: Vec<_> = extras.iter().map(|it| it.0.as_str()).collect();
        assert_eq!(
            paths,
            [
                "input[0] (item_reference)",
                "input[1] (web_search_call)",
                "input[2].content[0] (input_file)",
                "input[2].content[1] (input_image)",
                "input[3].namespace",
            ]
        );
    }

    #[test]
    fn mistakes_are_named() {
        refused(json!(5), "`input` must be a text or a list");
        refused(json!(["a"]), "`input[0]` must be an object");
        refused(json!([{"content": "a"}]), "`input[0].role` is missing");
        refused(
            json!([{"role": "secret", "content": "a"}]),
            "`input[0].role` must be `system`, `developer`, `user` or `assistant`",
        );
        refused(json!([{"role": "user"}]), "`input[0].content` is missing");
        refused(json!([{"role": "user", "content": 5}]), "`input[0].content` must be a text or a list");
        refused(
            json!([{"role": "user", "content": [{"text": "a"}]}]),
            "`input[0].content[0].type` is missing",
        );
        refused(
            json!([{"type": "function_call", "name": "f", "arguments": "{}"}]),
            "`input[0].call_id` is missing",
        );
        refused(
            json!([{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]),
            "`input[0].arguments` must be a text",
        );
        refused(json!([{"type": "function_call_output", "call_id": "c"}]), "`input[0].output` is missing");
        refused(json!([{"type": "reasoning", "summary": ["a"]}]), "`input[0].summary[0]` must be an object");
    }
}
