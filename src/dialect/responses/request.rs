//! A caller's request: what routing needs of it, and how it is sent on.
//!
//! As strict as OpenAI's chat: only what is read here is checked, and that the
//! input is made of objects. Everything else is the server's business and goes
//! on byte for byte.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memmem;
use serde_json::value::RawValue;

use crate::{
    dialect::{
        Door, Request, To,
        json::{self, bad},
        openai,
    },
    fault::Failure,
    generate::{Head, Needs, Operation},
};

/// The longest model name that is taken. Names go into headers, logs and records.
const LONGEST_NAME: usize = 512;

/// What asks for log probabilities, in `include`.
pub(super) const LOGPROBS: &str = "message.output_text.logprobs";

/// Finds what routing needs, in one pass and without copying.
pub(super) fn peek(door: Door, body: &Bytes) -> Result<Request, Failure> {
    let mut found = Found::default();
    json::walk(body, |name, _, value| found.take(name, value))?;

    let model = model(found.model)?;
    let stream = match found.stream.map(RawValue::get) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(bad("`stream` must be true or false")),
    };
    let vision = match found.input {
        Some(input) => look_at(input)?,
        // What is stored elsewhere may stand for it; whether it can is not known here.
        None if found.stands_for_input => false,
        None => return Err(bad("`input` is missing")),
    };
    let tools = match found.tools {
        None => false,
        Some(tools) if tools.get().starts_with('[') => !json::is_nothing(tools),
        Some(_) => return Err(bad("`tools` must be a list")),
    };
    let top_logprobs = number("top_logprobs", found.top_logprobs)?.is_some_and(|it| it > 0);
    Ok(Request {
        door,
        head: Head {
            operation: Operation::Chat,
            model,
            stream,
            max_tokens: number("max_output_tokens", found.max_tokens)?,
            needs: Needs { tools, vision, fim: false },
        },
        // The last event of every stream has them.
        asks_usage: true,
        choices: 1,
        logprobs: top_logprobs || includes_logprobs(found.include)?,
        spans: openai::Spans::default(),
    })
}

/// The caller's bytes for a server: only model and stream are different.
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

/// The fields that are read, as written; `null` counts as absent, but not for the model.
#[derive(Default)]
struct Found<'a> {
    seen: u32,
    model: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    max_tokens: Option<&'a RawValue>,
    tools: Option<&'a RawValue>,
    top_logprobs: Option<&'a RawValue>,
    include: Option<&'a RawValue>,
    stands_for_input: bool,
}

impl<'a> Found<'a> {
    fn take(&mut self, name: &str, value: &'a RawValue) -> Result<(), Failure> {
        let given = (value.get() != "null").then_some(value);
        let (bit, slot) = match name {
            "model" => (0, &mut self.model),
            "input" => (1, &mut self.input),
            "stream" => (2, &mut self.stream),
            "max_output_tokens" => (3, &mut self.max_tokens),
            "tools" => (4, &mut self.tools),
            "top_logprobs" => (5, &mut self.top_logprobs),
            "include" => (6, &mut self.include),
            "prompt" | "previous_response_id" | "conversation" => {
                self.stands_for_input |= given.is_some();
                return Ok(());
            }
            _ => return Ok(()),
        };
        // Which of two would count differs between servers; what we route by
        // must be what the server sees.
        if self.seen & (1 << bit) != 0 {
            return Err(bad(format!("`{name}` is given twice")));
        }
        self.seen |= 1 << bit;
        *slot = if name == "model" { Some(value) } else { given };
        Ok(())
    }
}

fn model(raw: Option<&RawValue>) -> Result<String, Failure> {
    let Some(raw) = raw else { return Err(bad("`model` is missing; `auto` lets lovable choose")) };
    // Half a character is reported by `walk`, so this is some other type.
    let Some(name) = json::text(raw) else {
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

/// A whole number. Less than zero is how some clients say "no limit".
fn number(name: &str, value: Option<&RawValue>) -> Result<Option<u64>, Failure> {
    let Some(value) = value else { return Ok(None) };
    if let Ok(number) = value.get().parse::<u64>() {
        return Ok(Some(number));
    }
    match serde_json::from_str::<f64>(value.get()) {
        Ok(number) if number < 0.0 => Ok(None),
        // Whole and below 2^53, so nothing is lost.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked on the left")]
        Ok(number) if number.fract() == 0.0 && number < 9e15 => Ok(Some(number as u64)),
        _ => Err(bad(format!("`{name}` must be a whole number"))),
    }
}

fn includes_logprobs(include: Option<&RawValue>) -> Result<bool, Failure> {
    let Some(include) = include else { return Ok(false) };
    if !include.get().starts_with('[') {
        return Err(bad("`include` must be a list"));
    }
    let wanted: Vec<Cow<'_, str>> =
        serde_json::from_str(include.get()).map_err(|_| bad("`include` must be a list of texts"))?;
    Ok(wanted.iter().any(|it| it == LOGPROBS))
}

/// Checks the input's shape; says whether it shows an image.
fn look_at(input: &RawValue) -> Result<bool, Failure> {
    if input.get().starts_with('"') {
        return Ok(false);
    }
    if !input.get().starts_with('[') {
        return Err(bad("`input` must be a text or a list"));
    }
    let items: Vec<&RawValue> =
        serde_json::from_str(input.get()).map_err(|_| bad("`input` must be a list of objects"))?;
    // Most show none, and looking for the word is faster than looking at each
    // part. Inside a text the quotes would be escaped.
    let may_show = memmem::find(input.get().as_bytes(), b"\"input_image\"").is_some();
    let mut shows = false;
    for (at, item) in items.iter().enumerate() {
        shows |= look_at_item(at, item, may_show)?;
    }
    Ok(shows)
}

fn look_at_item(at: usize, item: &RawValue, may_show: bool) -> Result<bool, Failure> {
    if !item.get().starts_with('{') {
        return Err(bad(format!("`input[{at}]` must be an object")));
    }
    let (mut kind, mut role, mut shows) = (None, None, false);
    json::walk(item.get().as_bytes(), |name, _, value| {
        match name {
            "type" if value.get() != "null" => kind = Some(value),
            "role" => role = Some(value),
            // What a person says, and what a tool gives.
            "content" | "output" if may_show => shows |= shows_image(value),
            _ => {}
        }
        Ok(())
    })?;
    let wrong = match (kind, role) {
        (Some(kind), _) if !kind.get().starts_with('"') => "type` must be a text",
        (Some(_), Some(role)) | (None, Some(role)) if !role.get().starts_with('"') => "role` must be a text",
        (None, None) => "role` is missing",
        _ => return Ok(shows),
    };
    Err(bad(format!("`input[{at}].{wrong}")))
}

fn shows_image(parts: &RawValue) -> bool {
    #[derive(serde::Deserialize)]
    struct Part {
        #[serde(default)]
        r#type: String,
    }
    serde_json::from_str::<Vec<Part>>(parts.get())
        .is_ok_and(|parts| parts.iter().any(|it| it.r#type == "input_image"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn look(body: &str) -> Result<Request, Failure> {
        peek(Door::Responses, &Bytes::copy_from_slice(body.as_bytes()))
    }

    fn refused(body: &str, expected: &str) {
        match look(body) {
            Ok(_) => panic!("taken: {body}"),
            Err(failure) => assert_eq!(failure.message(), expected, "for {body}"),
        }
    }

    fn to(model: &str, stream: bool) -> To<'_> {
        To { model, stream, ask_usage: true, max_tokens: true, sold: None }
    }

    #[test]
    fn what_routing_needs_is_found() {
        let head = look(r#"{"model":"a","input":"hi"}"#).unwrap().head;
        assert_eq!(
            head,
            Head {
                operation: Operation::Chat,
                model: "a".to_owned(),
                stream: false,
                max_tokens: None,
                needs: Needs::default(),
            }
        );
        let all = look(
            r#"{"model":"a","stream":true,"max_output_tokens":5,"tools":[{"type":"function"}],"input":[
                {"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"u"}]}]}"#,
        )
        .unwrap();
        assert!(all.head.stream && all.head.needs.tools && all.head.needs.vision && all.asks_usage);
        assert_eq!(all.head.max_tokens, Some(5));
    }

    #[test]
    fn an_image_is_seen_in_what_a_tool_gives_and_not_in_what_is_said() {
        let vision =
            |input: &str| look(&format!("{{\"model\":\"a\",\"input\":{input}}}")).unwrap().head.needs.vision;
        assert!(vision(
            r#"[{"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":"u"}]}]"#
        ));
        assert!(!vision(r#"[{"role":"user","content":"\"input_image\""}]"#));
        assert!(!vision(r#"[{"role":"user","content":[{"type":"input_text","text":"input_image"}]}]"#));
        assert!(!vision(r#""\"input_image\"""#));
    }

    #[test]
    fn log_probabilities_are_asked_for_in_two_places() {
        let asks = |more: &str| look(&format!(r#"{{"model":"a","input":"hi"{more}}}"#)).unwrap().logprobs;
        assert!(!asks(""));
        assert!(!asks(r#","top_logprobs":0,"include":["reasoning.encrypted_content"]"#));
        assert!(asks(r#","top_logprobs":3"#));
        assert!(asks(r#","include":["message.output_text.logprobs"]"#));
    }

    #[test]
    fn null_is_absent() {
        assert!(
            look(r#"{"model":"a","input":"hi","stream":null,"tools":null,"max_output_tokens":null}"#).is_ok()
        );
        refused(r#"{"model":"a","input":null}"#, "`input` is missing");
        refused(r#"{"model":null,"input":""}"#, "`model` must be a text; `auto` lets lovable choose");
    }

    #[test]
    fn what_is_stored_elsewhere_may_stand_for_the_input() {
        assert!(look(r#"{"model":"a","previous_response_id":"resp_1"}"#).is_ok());
        assert!(look(r#"{"model":"a","prompt":{"id":"p"}}"#).is_ok());
        refused(r#"{"model":"a","conversation":null}"#, "`input` is missing");
    }

    #[test]
    fn mistakes_are_named_and_no_value_is_quoted() {
        refused(r#"{"input":"secret"}"#, "`model` is missing; `auto` lets lovable choose");
        refused(r#"{"model":"","input":""}"#, "`model` is empty; `auto` lets lovable choose");
        refused(r#"{"model":"a\nb","input":""}"#, "`model` has control characters in it");
        refused(
            &format!(r#"{{"model":"{}","input":""}}"#, "a".repeat(513)),
            "`model` is longer than 512 bytes",
        );
        refused(r#"{"model":"a","input":5}"#, "`input` must be a text or a list");
        refused(r#"{"model":"a","input":{"role":"user"}}"#, "`input` must be a text or a list");
        refused(r#"{"model":"a","input":["secret"]}"#, "`input[0]` must be an object");
        refused(r#"{"model":"a","input":[{"role":"user"},{"content":"a"}]}"#, "`input[1].role` is missing");
        refused(r#"{"model":"a","input":[{"type":7}]}"#, "`input[0].type` must be a text");
        refused(r#"{"model":"a","input":[{"role":7}]}"#, "`input[0].role` must be a text");
        refused(r#"{"model":"a","input":[{"type":"message","role":7}]}"#, "`input[0].role` must be a text");
        refused(r#"{"model":"a","input":"","stream":"yes"}"#, "`stream` must be true or false");
        refused(r#"{"model":"a","input":"","tools":{}}"#, "`tools` must be a list");
        refused(r#"{"model":"a","input":"","include":"x"}"#, "`include` must be a list");
        refused(r#"{"model":"a","input":"","include":[5]}"#, "`include` must be a list of texts");
        refused(
            r#"{"model":"a","input":"","max_output_tokens":"5"}"#,
            "`max_output_tokens` must be a whole number",
        );
        refused(r#"{"model":"a","input":"","model":"b"}"#, "`model` is given twice");
        refused(r#"{"model":"a","input":"","input":[]}"#, "`input` is given twice");
        refused("[]", "the body must be a JSON object");
    }

    #[test]
    fn only_what_is_different_is_written_over() {
        let check = |body: &str, to: To<'_>, expected: &str| {
            let bytes = Bytes::copy_from_slice(body.as_bytes());
            let request = peek(Door::Responses, &bytes).unwrap();
            assert_eq!(readdress(&request, &bytes, &to), expected, "for {body}");
        };
        let body = r#"{ "x": 1.10, "model" : "a", "input":"hi" }"#;
        check(body, to("a", false), body);
        check(body, to("b", false), r#"{ "x": 1.10, "model" : "b", "input":"hi" }"#);
        check(body, to("a", true), r#"{"stream":true, "x": 1.10, "model" : "a", "input":"hi" }"#);
        let body = r#"{"stream":true,"model":"a","input":"hi"}"#;
        check(body, to("a", true), body);
        check(body, to("a", false), r#"{"stream":false,"model":"a","input":"hi"}"#);
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
            body.insert("input".to_owned(), json!([{"role": "user", "content": "hi", "x": 1}]));
            if let Some(stream) = stream {
                body.insert("stream".to_owned(), stream.into());
            }
            let bytes = Bytes::from(Value::Object(body.clone()).to_string());
            let request = peek(Door::Responses, &bytes).unwrap();
            let out = readdress(&request, &bytes, &to(&model, wants_stream));
            let out: Map<String, Value> = serde_json::from_slice(&out).unwrap();
            body.insert("model".to_owned(), model.into());
            if wants_stream || stream.is_some() {
                body.insert("stream".to_owned(), wants_stream.into());
            }
            prop_assert_eq!(out, body);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = peek(Door::Responses, &bytes.into());
        }
    }
}
