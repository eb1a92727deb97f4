//! A caller's request: what routing needs of it, and where to splice it.
//!
//! Only the fields that are read here are checked, and the roles of messages,
//! because several servers answer those mistakes with a 500 that would look
//! like their own. Everything else is the server's business and goes on byte
//! for byte.

use std::{fmt, ops::Range};

use bytes::Bytes;
use memchr::memmem;
use serde::{
    Deserialize,
    de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::sold;
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

/// Where the fields that are read stand in a body.
#[derive(Clone, Debug, Default)]
pub(in crate::dialect) struct Spans {
    /// After the brace that opens the object.
    open: usize,
    model: Range<usize>,
    stream: Option<Range<usize>>,
    options: Option<Options>,
    max_tokens: Option<Range<usize>>,
    /// Name and value of `max_completion_tokens`.
    max_completion: Option<(Range<usize>, Range<usize>)>,
}

#[derive(Clone, Debug)]
struct Options {
    span: Range<usize>,
    is_null: bool,
    is_empty: bool,
    include_usage: Option<Range<usize>>,
}

/// Finds what routing needs, in one pass and without copying.
pub fn peek(door: Door, body: &Bytes) -> Result<Request, Failure> {
    let operation = operation(door);
    let mut found = Found::default();
    json::walk(body, |name, written, value| found.take(name, written, value))?;

    let model = found.model(body)?;
    let stream = match found.stream.map(RawValue::get) {
        None | Some("null" | "false") => false,
        Some("true") => true,
        Some(_) => return Err(bad("`stream` must be true or false")),
    };
    let options = found.options(body)?;
    let max_tokens = number("max_tokens", found.max_tokens)?;
    let max_completion = number("max_completion_tokens", found.max_completion.map(|(_, value)| value))?;
    let mut needs = Needs::default();
    match operation {
        Operation::Chat => {
            let messages = found.messages.ok_or_else(|| bad("`messages` is missing"))?;
            needs.vision = look_at_messages(messages)?;
            needs.tools = is_list("tools", found.tools)? | is_list("functions", found.functions)?;
        }
        Operation::Complete => {
            let prompt = found.prompt.ok_or_else(|| bad("`prompt` is missing"))?;
            if !prompt.get().starts_with(['"', '[']) {
                return Err(bad("`prompt` must be a text or a list"));
            }
            needs.fim = found.suffix.is_some_and(|it| !json::is_nothing(it));
        }
        Operation::Embed => {
            let input = found.input.ok_or_else(|| bad("`input` is missing"))?;
            if !input.get().starts_with(['"', '[']) {
                return Err(bad("`input` must be a text or a list"));
            }
        }
    }
    Ok(Request {
        door,
        head: Head {
            operation,
            model,
            stream: stream && operation != Operation::Embed,
            max_tokens: max_completion.or(max_tokens),
            needs,
        },
        asks_usage: options.as_ref().is_some_and(|it| it.1),
        choices: number("n", found.n)?.unwrap_or(1),
        logprobs: found.logprobs.is_some_and(|it| it.get() != "false"),
        spans: Spans {
            open: body.iter().position(|it| *it == b'{').map_or(0, |at| at + 1),
            model: found.model.map(|it| json::span(body, it)).unwrap_or_default(),
            stream: found.written_stream.map(|it| json::span(body, it)),
            options: options.map(|it| it.0),
            max_tokens: found.written_max_tokens.map(|it| json::span(body, it)),
            max_completion: found
                .max_completion
                .map(|(name, value)| (json::span(body, name), json::span(body, value))),
        },
    })
}

/// The fields that are read, as written; `null` counts as absent.
#[derive(Default)]
struct Found<'a> {
    seen: u32,
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    written_stream: Option<&'a RawValue>,
    stream_options: Option<&'a RawValue>,
    max_tokens: Option<&'a RawValue>,
    written_max_tokens: Option<&'a RawValue>,
    max_completion: Option<(&'a RawValue, &'a RawValue)>,
    messages: Option<&'a RawValue>,
    prompt: Option<&'a RawValue>,
    suffix: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    tools: Option<&'a RawValue>,
    functions: Option<&'a RawValue>,
    n: Option<&'a RawValue>,
    logprobs: Option<&'a RawValue>,
}

impl<'a> Found<'a> {
    fn take(&mut self, name: &str, written: &'a RawValue, value: &'a RawValue) -> Result<(), Failure> {
        let given = (value.get() != "null").then_some(value);
        let bit = match name {
            "model" => {
                self.model = self.model.or(Some(value));
                0
            }
            "stream" => {
                (self.stream, self.written_stream) = (given, Some(value));
                1
            }
            "stream_options" => {
                self.stream_options = Some(value);
                2
            }
            "max_tokens" => {
                (self.max_tokens, self.written_max_tokens) = (given, Some(value));
                3
            }
            "max_completion_tokens" => {
                self.max_completion = given.map(|value| (written, value));
                4
            }
            "messages" => {
                self.messages = given;
                5
            }
            "prompt" => {
                self.prompt = given;
                6
            }
            "suffix" => {
                self.suffix = given;
                7
            }
            "input" => {
                self.input = given;
                8
            }
            "tools" => {
                self.tools = given;
                9
            }
            "functions" => {
                self.functions = given;
                10
            }
            "n" => {
                self.n = given;
                11
            }
            "logprobs" => {
                self.logprobs = given;
                12
            }
            _ => return Ok(()),
        };
        // Which of two would count differs between servers; what we route by
        // must be what the server sees.
        if self.seen & (1 << bit) != 0 {
            return Err(bad(format!("`{name}` is given twice")));
        }
        self.seen |= 1 << bit;
        Ok(())
    }

    fn model(&self, _body: &[u8]) -> Result<String, Failure> {
        let Some(raw) = self.model else {
            return Err(bad("`model` is missing; `auto` lets lovable choose"));
        };
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

    fn options(&self, body: &[u8]) -> Result<Option<(Options, bool)>, Failure> {
        let Some(raw) = self.stream_options else { return Ok(None) };
        let is_null = raw.get() == "null";
        let mut include = None;
        if !is_null {
            json::walk(raw.get().as_bytes(), |name, _, value| {
                if name == "include_usage" && include.replace(value).is_some() {
                    return Err(bad("`stream_options.include_usage` is given twice"));
                }
                Ok(())
            })
            .map_err(|failure| {
                if raw.get().starts_with('{') { failure } else { bad("`stream_options` must be an object") }
            })?;
        }
        let asked = match include.map(RawValue::get) {
            None | Some("null" | "false") => false,
            Some("true") => true,
            Some(_) => return Err(bad("`stream_options.include_usage` must be true or false")),
        };
        let options = Options {
            span: json::span(body, raw),
            is_null,
            is_empty: json::is_nothing(raw),
            include_usage: include.map(|it| json::span(body, it)),
        };
        Ok(Some((options, asked)))
    }
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

/// Whether there is something in this list.
fn is_list(name: &str, value: Option<&RawValue>) -> Result<bool, Failure> {
    match value {
        None => Ok(false),
        Some(value) if value.get().starts_with('[') => Ok(!json::is_nothing(value)),
        Some(_) => Err(bad(format!("`{name}` must be a list"))),
    }
}

/// Checks the messages' shape; says whether one of them shows an image.
fn look_at_messages(raw: &RawValue) -> Result<bool, Failure> {
    if !raw.get().starts_with('[') {
        return Err(bad("`messages` must be a list"));
    }
    let bytes = raw.get().as_bytes();
    // Most chats show none, and looking for the word is faster than looking at
    // each part. Inside a text the quotes would be escaped.
    let may_show =
        [&b"\"image_url\""[..], b"\"input_image\""].iter().any(|it| memmem::find(bytes, it).is_some());
    let mut look = Look { may_show, shows: false, failure: None };
    let read = serde_json::Deserializer::from_str(raw.get()).deserialize_seq(&mut look);
    match (look.failure, read) {
        (Some(failure), _) => Err(failure),
        (None, Ok(())) => Ok(look.shows),
        (None, Err(_)) => Err(bad("`messages` must be a list of messages")),
    }
}

struct Look {
    may_show: bool,
    shows: bool,
    failure: Option<Failure>,
}

impl<'a> Visitor<'a> for &mut Look {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut messages: A) -> Result<(), A::Error> {
        for at in 0.. {
            let message = match messages.next_element::<Message<'a>>() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => {
                    self.failure = Some(bad(format!("`messages[{at}]` must be an object")));
                    return Err(error);
                }
            };
            let wrong = match message.role {
                None => "is missing",
                Some(role) if !role.get().starts_with('"') => "must be a text",
                Some(_) => "",
            };
            if !wrong.is_empty() {
                self.failure = Some(bad(format!("`messages[{at}].role` {wrong}")));
                return Err(de::Error::custom("refused"));
            }
            if self.may_show && !self.shows {
                self.shows = message.content.is_some_and(shows_image);
            }
        }
        Ok(())
    }
}

struct Message<'a> {
    role: Option<&'a RawValue>,
    content: Option<&'a RawValue>,
}

// By hand, because a derived one takes a list for an object.
impl<'de> Deserialize<'de> for Message<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Message<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message<'de>, A::Error> {
                let mut message = Message { role: None, content: None };
                while let Some(name) = map.next_key::<&RawValue>()? {
                    match json::text(name).as_deref() {
                        Some("role") => message.role = Some(map.next_value()?),
                        Some("content") => message.content = Some(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(message)
            }
        }
        from.deserialize_map(Fields)
    }
}

fn shows_image(content: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        r#type: String,
    }
    serde_json::from_str::<Vec<Part>>(content.get())
        .is_ok_and(|parts| parts.iter().any(|it| matches!(it.r#type.as_str(), "image_url" | "input_image")))
}

/// What is wanted at this door.
pub(super) fn operation(door: Door) -> Operation {
    match door {
        Door::OpenAiComplete => Operation::Complete,
        Door::OpenAiEmbed => Operation::Embed,
        _ => Operation::Chat,
    }
}

/// The caller's bytes for a server: only what `to` names is different.
pub fn readdress(request: &Request, body: &Bytes, to: &To<'_>) -> Bytes {
    let edits = request.edits(body, to);
    let body = if edits.is_empty() { body.clone() } else { json::splice(body, &edits) };
    match to.sold {
        Some(sold) => sold::limit(request.door, body, sold),
        None => body,
    }
}

impl Request {
    /// What to write over which span, in the order of the body.
    fn edits(&self, body: &Bytes, to: &To<'_>) -> Vec<(Range<usize>, String)> {
        let mut edits = Vec::new();
        let mut first = String::new();
        if to.model != self.head.model {
            edits.push((self.spans.model.clone(), json::quote(to.model)));
        }
        let stream = if to.stream { "true" } else { "false" };
        match &self.spans.stream {
            Some(span) if body[span.clone()] != *stream.as_bytes() => {
                edits.push((span.clone(), stream.to_owned()))
            }
            None if to.stream => first.push_str("\"stream\":true,"),
            Some(_) | None => {}
        }
        if to.stream && to.ask_usage && !self.asks_usage {
            match &self.spans.options {
                None => first.push_str("\"stream_options\":{\"include_usage\":true},"),
                Some(Options { include_usage: Some(span), .. }) => {
                    edits.push((span.clone(), "true".to_owned()))
                }
                Some(options) if options.is_null || options.is_empty => {
                    edits.push((options.span.clone(), "{\"include_usage\":true}".to_owned()));
                }
                Some(options) => {
                    let after = options.span.start + 1;
                    edits.push((after..after, "\"include_usage\":true,".to_owned()));
                }
            }
        }
        if to.max_tokens
            && let Some((name, value)) = &self.spans.max_completion
        {
            match &self.spans.max_tokens {
                None => edits.push((name.clone(), "\"max_tokens\"".to_owned())),
                Some(span) if body[span.clone()] == *b"null" => {
                    edits.push((span.clone(), String::from_utf8_lossy(&body[value.clone()]).into_owned()));
                }
                Some(_) => {}
            }
        }
        if !first.is_empty() {
            edits.push((self.spans.open..self.spans.open, first));
        }
        edits.sort_by_key(|(span, _)| span.start);
        edits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn look(operation: Operation, body: &str) -> Result<Request, String> {
        let door = match operation {
            Operation::Chat => Door::OpenAiChat,
            Operation::Complete => Door::OpenAiComplete,
            Operation::Embed => Door::OpenAiEmbed,
        };
        peek(door, &Bytes::copy_from_slice(body.as_bytes())).map_err(|it| it.message())
    }

    fn refused(operation: Operation, body: &str, expected: &str) {
        assert_eq!(look(operation, body).unwrap_err(), expected, "for {body}");
    }

    fn chat(more: &str) -> String {
        format!("{{\"model\":\"a\",\"messages\":[]{more}}}")
    }

    fn to(model: &str) -> To<'_> {
        To { model, stream: false, ask_usage: false, max_tokens: false, sold: None }
    }

    fn sent(body: &str, to: &To<'_>) -> String {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let request = peek(Door::OpenAiChat, &bytes).unwrap();
        String::from_utf8(readdress(&request, &bytes, to).to_vec()).unwrap()
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_its_place() {
        use Operation::{Chat, Complete, Embed};
        refused(Chat, "{\"messages\":[]}", "`model` is missing; `auto` lets lovable choose");
        for model in ["null", "5", "[\"a\"]"] {
            let body = format!("{{\"model\":{model},\"messages\":[]}}");
            refused(Chat, &body, "`model` must be a text; `auto` lets lovable choose");
        }
        refused(Chat, "{\"model\":\" \",\"messages\":[]}", "`model` is empty; `auto` lets lovable choose");
        refused(Chat, "{\"model\":\"a\\n\",\"messages\":[]}", "`model` has control characters in it");
        let long = format!("{{\"model\":\"{}\",\"messages\":[]}}", "a".repeat(513));
        refused(Chat, &long, "`model` is longer than 512 bytes");
        refused(Chat, &chat(",\"model\":\"b\""), "`model` is given twice");
        refused(Chat, &chat(",\"mod\\u0065l\":\"b\""), "`model` is given twice");
        refused(Chat, &chat(",\"stream\":1"), "`stream` must be true or false");
        refused(Chat, &chat(",\"stream_options\":true"), "`stream_options` must be an object");
        let text = "`stream_options.include_usage` must be true or false";
        refused(Chat, &chat(",\"stream_options\":{\"include_usage\":\"yes\"}"), text);
        refused(Chat, &chat(",\"max_tokens\":\"abc\""), "`max_tokens` must be a whole number");
        refused(Chat, &chat(",\"max_tokens\":1.5"), "`max_tokens` must be a whole number");
        refused(Chat, &chat(",\"n\":{}"), "`n` must be a whole number");
        refused(Chat, &chat(",\"tools\":{}"), "`tools` must be a list");
        refused(Chat, "{\"model\":\"a\"}", "`messages` is missing");
        refused(Chat, "{\"model\":\"a\",\"messages\":null}", "`messages` is missing");
        refused(Chat, "{\"model\":\"a\",\"messages\":\"hi\"}", "`messages` must be a list");
        refused(Chat, "{\"model\":\"a\",\"messages\":[\"hi\"]}", "`messages[0]` must be an object");
        refused(Chat, "{\"model\":\"a\",\"messages\":[[\"user\",1]]}", "`messages[0]` must be an object");
        refused(
            Chat,
            "{\"model\":\"a\",\"messages\":[{\"content\":\"x\"}]}",
            "`messages[0].role` is missing",
        );
        let body = "{\"model\":\"a\",\"messages\":[{\"role\":\"user\"},{\"role\":7}]}";
        refused(Chat, body, "`messages[1].role` must be a text");
        refused(Complete, "{\"model\":\"a\"}", "`prompt` is missing");
        refused(Complete, "{\"model\":\"a\",\"prompt\":5}", "`prompt` must be a text or a list");
        refused(Embed, "{\"model\":\"a\",\"input\":null}", "`input` is missing");
    }

    #[test]
    fn the_head_has_what_routing_needs() {
        let request = look(
            Operation::Chat,
            r#"{"model":"a\/b","stream":true,"stream_options":{"include_usage":true},"max_tokens":5,
                "max_completion_tokens":7,"n":2,"tools":[{}],"logprobs":true,
                "messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]}]}"#,
        )
        .unwrap();
        let needs = Needs { tools: true, vision: true, fim: false };
        let head = Head {
            operation: Operation::Chat,
            model: "a/b".to_owned(),
            stream: true,
            max_tokens: Some(7),
            needs,
        };
        assert_eq!(request.head, head);
        assert!(request.asks_usage && request.logprobs && request.choices == 2);

        let request = look(Operation::Complete, r#"{"model":"a","prompt":"x","suffix":"y"}"#).unwrap();
        assert!(request.head.needs.fim);
        let request =
            look(Operation::Chat, &chat(",\"max_tokens\":-1,\"stream\":null,\"tools\":[ ]")).unwrap();
        assert_eq!((request.head.max_tokens, request.head.stream), (None, false));
        assert_eq!(request.head.needs, Needs::default());
        assert_eq!(look(Operation::Chat, &chat(",\"max_tokens\":1e3")).unwrap().head.max_tokens, Some(1000));
    }

    #[test]
    fn an_image_is_a_part_and_not_a_word() {
        let sees = |content: &str| {
            let body =
                format!("{{\"model\":\"a\",\"messages\":[{{\"role\":\"user\",\"content\":{content}}}]}}");
            look(Operation::Chat, &body).unwrap().head.needs.vision
        };
        assert!(sees(r#"[{"type":"text","text":"x"},{"type":"input_image"}]"#));
        assert!(!sees(r#"[{"type":"text","text":"image_url"}]"#));
        assert!(!sees(r#""what is \"image_url\"?""#));
        assert!(!sees(r#""image_url""#));
    }

    #[test]
    fn only_what_must_change_is_changed() {
        let body = "{ \"model\" : \"a\", \"x\": 1.50, \"messages\":[] }";
        let same = Bytes::copy_from_slice(body.as_bytes());
        let request = peek(Door::OpenAiChat, &same).unwrap();
        assert_eq!(readdress(&request, &same, &to("a")).as_ptr(), same.as_ptr());

        assert_eq!(sent(body, &to("b\"c")), "{ \"model\" : \"b\\\"c\", \"x\": 1.50, \"messages\":[] }");
        let streamed = To { stream: true, ask_usage: true, ..to("a") };
        let expected = "{\"stream\":true,\"stream_options\":{\"include_usage\":true}, \"model\"";
        assert!(sent(body, &streamed).starts_with(expected));
        let check = |more: &str, to: To<'_>, expected: &str| {
            assert_eq!(sent(&chat(more), &to), chat(expected), "for {more}");
        };
        check(",\"stream\":true", to("a"), ",\"stream\":false");
        check(",\"stream\":false", to("a"), ",\"stream\":false");
        let on = |options: &str| format!(",\"stream\":true,\"stream_options\":{options}");
        check(&on("{}"), streamed, &on("{\"include_usage\":true}"));
        check(&on("null"), streamed, &on("{\"include_usage\":true}"));
        check(&on("{\"include_usage\":false}"), streamed, &on("{\"include_usage\":true}"));
        check(&on("{\"x\":1}"), streamed, &on("{\"include_usage\":true,\"x\":1}"));
        check(&on("{\"include_usage\":true}"), streamed, &on("{\"include_usage\":true}"));
    }

    #[test]
    fn a_limit_is_called_as_the_server_wants_it() {
        let rename = To { max_tokens: true, ..to("a") };
        let check = |more: &str, expected: &str| assert_eq!(sent(&chat(more), &rename), chat(expected));
        check(",\"max_completion_tokens\": 5", ",\"max_tokens\": 5");
        check(
            ",\"max_completion_tokens\":5,\"max_tokens\":6",
            ",\"max_completion_tokens\":5,\"max_tokens\":6",
        );
        check(
            ",\"max_tokens\":null,\"max_completion_tokens\":5",
            ",\"max_tokens\":5,\"max_completion_tokens\":5",
        );
        check(",\"max_completion_tokens\":null", ",\"max_completion_tokens\":null");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // Numbers that serde_json itself reads back to the last bit.
            any::<i32>().prop_map(|it| Value::from(f64::from(it) / 8.0)),
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
            options in prop::option::of(prop::option::of(any::<bool>())),
        ) {
            let mut body: Map<String, Value> = unknown.into_iter().collect();
            body.insert("model".to_owned(), "a".into());
            body.insert("messages".to_owned(), json!([{"role": "user", "content": "hi", "x": 1}]));
            if let Some(stream) = stream {
                body.insert("stream".to_owned(), stream.into());
            }
            if let Some(options) = options {
                body.insert("stream_options".to_owned(), json!({"x": 1, "include_usage": options}));
            }
            let text = Value::Object(body.clone()).to_string();
            let to = To { model: &model, stream: wants_stream, ask_usage: true, max_tokens: true, sold: None };
            let out: Map<String, Value> = serde_json::from_str(&sent(&text, &to)).unwrap();

            body.insert("model".to_owned(), model.clone().into());
            if wants_stream || stream.is_some() {
                body.insert("stream".to_owned(), wants_stream.into());
            }
            if wants_stream {
                let mut all = json!({"include_usage": true});
                if options.is_some() {
                    all["x"] = 1.into();
                }
                body.insert("stream_options".to_owned(), all);
            }
            prop_assert_eq!(out, body);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = peek(Door::OpenAiChat, &bytes.into());
        }
    }
}
