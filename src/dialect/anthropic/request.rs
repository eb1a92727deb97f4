//! A caller's request: what routing needs of it, and how its bytes go on.

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    dialect::{
        Door, Request, To,
        json::{self, bad},
    },
    fault::Failure,
    generate::{Head, Needs, Operation},
};

/// The longest model name that is taken. Names go into headers, logs and records.
const LONGEST_NAME: usize = 512;

/// Finds what routing needs, in one pass and without copying.
pub(super) fn peek(door: Door, body: &Bytes) -> Result<Request, Failure> {
    let found = find(body)?;
    let stream = match found.stream.map(RawValue::get) {
        None | Some("null" | "false") => false,
        Some("true") => true,
        Some(_) => return Err(bad("`stream` must be true or false")),
    };
    let max_tokens = match found.max_tokens.map(RawValue::get) {
        None | Some("null") => return Err(bad("`max_tokens` is missing")),
        // Ollama takes a zero for no limit at all.
        Some("0") => return Err(bad("`max_tokens` must be at least 1")),
        Some(number) => {
            number.parse::<u64>().map_err(|_| bad("`max_tokens` must be a whole number, at least 1"))?
        }
    };
    let messages = found.messages.ok_or_else(|| bad("`messages` is missing"))?;
    let needs = Needs {
        vision: look_at_messages(messages)?,
        tools: match found.tools.map(RawValue::get) {
            None | Some("null") => false,
            Some(tools) if tools.starts_with('[') => !found.tools.is_some_and(json::is_nothing),
            Some(_) => return Err(bad("`tools` must be a list")),
        },
        fim: false,
    };
    Ok(Request {
        door,
        head: Head {
            operation: Operation::Chat,
            model: name(found.model)?,
            stream,
            max_tokens: Some(max_tokens),
            needs,
        },
        // Every stream of this language has its counts.
        asks_usage: true,
        choices: 1,
        logprobs: false,
        spans: Default::default(),
    })
}

/// The caller's bytes for a server: only model and `stream` are different.
pub(super) fn readdress(request: &Request, body: &Bytes, to: &To<'_>) -> Bytes {
    let model = json::quote(to.model);
    let mut fields = Vec::new();
    if to.model != request.head.model {
        fields.push(("model", model.as_str()));
    }
    if to.stream != request.head.stream {
        fields.push(("stream", if to.stream { "true" } else { "false" }));
    }
    if fields.is_empty() { body.clone() } else { json::set(body, &fields) }
}

/// The model that a request names.
pub(super) fn name(model: Option<&RawValue>) -> Result<String, Failure> {
    let Some(model) = model else {
        return Err(bad("`model` is missing; `auto` lets lovable choose"));
    };
    let Some(name) = json::text(model) else {
        return Err(bad("`model` must be a text; `auto` lets lovable choose"));
    };
    if name.trim().is_empty() {
        return Err(bad("`model` is empty; `auto` lets lovable choose"));
    }
    if name.len() > LONGEST_NAME {
        return Err(bad(format!("`model` is longer than {LONGEST_NAME} bytes")));
    }
    if name.chars().any(char::is_control) {
        return Err(bad("`model` has control characters in it"));
    }
    Ok(name.into_owned())
}

/// The fields that are read, as written.
#[derive(Default)]
struct Found<'a> {
    model: Option<&'a RawValue>,
    messages: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    max_tokens: Option<&'a RawValue>,
    tools: Option<&'a RawValue>,
}

fn find(body: &[u8]) -> Result<Found<'_>, Failure> {
    let mut found = Found::default();
    json::walk(body, |name, _, value| {
        let slot = match name {
            "model" => &mut found.model,
            "messages" => &mut found.messages,
            "stream" => &mut found.stream,
            "max_tokens" => &mut found.max_tokens,
            "tools" => &mut found.tools,
            _ => return Ok(()),
        };
        // Which of two would count differs between servers.
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(bad(format!("`{name}` is given twice"))),
        }
    })?;
    found.messages = found.messages.filter(|it| it.get() != "null");
    Ok(found)
}

/// Checks the messages' shape; says whether one of them shows an image.
fn look_at_messages(raw: &RawValue) -> Result<bool, Failure> {
    let messages: Vec<&RawValue> =
        serde_json::from_str(raw.get()).map_err(|_| bad("`messages` must be a list"))?;
    if messages.is_empty() {
        return Err(bad("`messages` is empty"));
    }
    // Most conversations show none, and looking for the word is faster than
    // looking at each block. Inside a text the quotes would be escaped.
    let may_show = memmem::find(raw.get().as_bytes(), b"\"image\"").is_some();
    let mut shows = false;
    for (at, message) in messages.into_iter().enumerate() {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            role: Option<&'a RawValue>,
            #[serde(borrow)]
            content: Option<&'a RawValue>,
        }
        // A derived reader would take a list for an object.
        let message: Message<'_> = Some(message.get())
            .filter(|it| it.starts_with('{'))
            .and_then(|it| serde_json::from_str(it).ok())
            .ok_or_else(|| bad(format!("`messages[{at}]` must be an object with `role` and `content`")))?;
        match message.role.map(RawValue::get) {
            None | Some("null") => return Err(bad(format!("`messages[{at}].role` is missing"))),
            Some(role) if !role.starts_with('"') => {
                return Err(bad(format!("`messages[{at}].role` must be a text")));
            }
            Some(_) => {}
        }
        let content = message.content.filter(|it| it.get() != "null");
        let content = content.ok_or_else(|| bad(format!("`messages[{at}].content` is missing")))?;
        if !content.get().starts_with(['"', '[']) {
            return Err(bad(format!("`messages[{at}].content` must be a text or a list")));
        }
        shows |= may_show && shows_image(content);
    }
    Ok(shows)
}

/// Whether a content has an image, in the results of tools as well.
fn shows_image(content: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Block<'a> {
        #[serde(borrow, default)]
        r#type: Option<&'a RawValue>,
        #[serde(borrow, default)]
        content: Option<&'a RawValue>,
    }
    let Ok(blocks) = serde_json::from_str::<Vec<Block<'_>>>(content.get()) else { return false };
    blocks.iter().any(|it| match it.r#type.and_then(json::text).as_deref() {
        Some("image") => true,
        Some("tool_result") => it.content.is_some_and(shows_image),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn look(body: &str) -> Result<Request, String> {
        peek(Door::Messages, &Bytes::copy_from_slice(body.as_bytes())).map_err(|it| it.message())
    }

    fn refused(body: &str, expected: &str) {
        assert_eq!(look(body).unwrap_err(), expected, "for {body}");
    }

    fn with(more: &str) -> String {
        format!(
            "{{\"model\":\"a\",\"max_tokens\":5,\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]{more}}}"
        )
    }

    #[test]
    fn the_head_has_what_routing_needs() {
        let request = look(&with(",\"stream\":true,\"tools\":[{}]")).unwrap();
        let head = Head {
            operation: Operation::Chat,
            model: "a".to_owned(),
            stream: true,
            max_tokens: Some(5),
            needs: Needs { tools: true, vision: false, fim: false },
        };
        assert_eq!(request.head, head);
        assert!(request.asks_usage && !request.logprobs && request.choices == 1);
        let request = look(&with(",\"stream\":null,\"tools\":[ ]")).unwrap();
        assert!(!request.head.stream && !request.head.needs.tools);
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_its_place() {
        refused("{\"messages\":[],\"max_tokens\":1}", "`messages` is empty");
        let body = "{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}";
        refused(body, "`model` is missing; `auto` lets lovable choose");
        let body = "{\"model\":\"a\",\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}";
        refused(body, "`max_tokens` is missing");
        refused(&with(",\"model\":\"b\""), "`model` is given twice");
        refused(&with(",\"stream\":1"), "`stream` must be true or false");
        refused(&with(",\"tools\":{}"), "`tools` must be a list");
        for (limit, told) in [
            ("0", "`max_tokens` must be at least 1"),
            ("-1", "`max_tokens` must be a whole number, at least 1"),
            ("1.5", "`max_tokens` must be a whole number, at least 1"),
            ("\"9\"", "`max_tokens` must be a whole number, at least 1"),
        ] {
            refused(&with("").replace(":5,", &format!(":{limit},")), told);
        }
        let messages = |list: &str| format!("{{\"model\":\"a\",\"max_tokens\":1,\"messages\":{list}}}");
        refused(&messages("null"), "`messages` is missing");
        refused(&messages("\"hi\""), "`messages` must be a list");
        refused(&messages("[[]]"), "`messages[0]` must be an object with `role` and `content`");
        refused(&messages("[{\"content\":\"x\"}]"), "`messages[0].role` is missing");
        refused(&messages("[{\"role\":5,\"content\":\"x\"}]"), "`messages[0].role` must be a text");
        refused(&messages("[{\"role\":\"user\"}]"), "`messages[0].content` is missing");
        refused(
            &messages("[{\"role\":\"user\",\"content\":{}}]"),
            "`messages[0].content` must be a text or a list",
        );
        let model = |name: &str| with("").replace("\"a\"", name);
        refused(&model("5"), "`model` must be a text; `auto` lets lovable choose");
        refused(&model("\" \""), "`model` is empty; `auto` lets lovable choose");
        refused(&model("\"a\\n\""), "`model` has control characters in it");
        let long = format!("\"{}\"", "a".repeat(513));
        refused(&model(&long), "`model` is longer than 512 bytes");
    }

    #[test]
    fn an_image_is_seen_wherever_it_is_and_a_word_is_none() {
        let sees = |content: &str| {
            let body = with("").replace("\"hi\"", content);
            look(&body).unwrap().head.needs.vision
        };
        assert!(sees(r#"[{"type":"text","text":"x"},{"type":"image","source":{}}]"#));
        assert!(sees(r#"[{"type":"tool_result","content":[{"type":"image","source":{}}]}]"#));
        assert!(!sees(r#"[{"type":"tool_result","content":"\"image\""}]"#));
        assert!(!sees(r#"[{"type":"tool_use","input":{"type":"image","kind":"image"}}]"#));
        assert!(!sees(r#""image""#));
    }

    fn sent(body: &str, model: &str, stream: bool) -> Bytes {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let request = peek(Door::Messages, &bytes).unwrap();
        readdress(&request, &bytes, &To { model, stream, ask_usage: true, max_tokens: true, sold: None })
    }

    #[test]
    fn only_what_must_change_is_changed() {
        let body = with(", \"x\" : 1.50");
        let same = Bytes::copy_from_slice(body.as_bytes());
        let request = peek(Door::Messages, &same).unwrap();
        let to = To { model: "a", stream: false, ask_usage: true, max_tokens: true, sold: None };
        assert_eq!(readdress(&request, &same, &to).as_ptr(), same.as_ptr());
        assert_eq!(sent(&body, "b\"", false), body.replace("\"a\"", "\"b\\\"\""));
        assert_eq!(sent(&body, "a", true), body.replacen('{', "{\"stream\":true,", 1));
        let on = with(",\"stream\":true");
        assert_eq!(sent(&on, "a", false), with(",\"stream\":false"));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..4)
                    .prop_map(|it| Value::Object(it.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn unknown_fields_survive_unchanged(
            unknown in prop::collection::hash_map("[a-z\"\\\\é]{1,6}_", value(), 0..6),
            model in "[^\u{0}-\u{1f}\u{7f}-\u{9f}]{0,8}x",
            stream in prop::option::of(any::<bool>()),
            wants_stream in any::<bool>(),
        ) {
            let mut body: Map<String, Value> = unknown.into_iter().collect();
            body.insert("model".to_owned(), "a".into());
            body.insert("max_tokens".to_owned(), 7.into());
            body.insert("messages".to_owned(), json!([{"role": "user", "content": "hi", "x": 1}]));
            if let Some(stream) = stream {
                body.insert("stream".to_owned(), stream.into());
            }
            let text = Value::Object(body.clone()).to_string();
            let out: Map<String, Value> = serde_json::from_slice(&sent(&text, &model, wants_stream)).unwrap();
            body.insert("model".to_owned(), model.clone().into());
            if wants_stream || stream.is_some() {
                body.insert("stream".to_owned(), wants_stream.into());
            }
            prop_assert_eq!(out, body);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = peek(Door::Messages, &bytes.into());
        }
    }
}
