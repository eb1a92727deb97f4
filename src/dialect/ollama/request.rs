//! A caller's request: what routing needs of it, and where to change it.
//!
//! Ollama reads the names of fields whatever their letter case, so a `Stream` counts
//! here as it does there. What it answers with a 500 though the caller is to blame
//! (a wrong type under `options`, an unknown `format`) is refused here.

use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{found::Found, option};
use crate::{
    dialect::{
        Door, Request, To,
        json::{self, bad},
    },
    fault::Failure,
    generate::{Head, Needs, Operation},
};

/// Finds what routing needs, in one pass and without copying.
pub(super) fn peek(door: Door, body: &Bytes) -> Result<Request, Failure> {
    let found = Found::of(body)?;
    let model = found.model()?;
    let streams = matches!(door, Door::OllamaChat | Door::OllamaGenerate);
    let stream = found.truth("stream", found.stream)?.unwrap_or(true) && streams;
    let mut needs = Needs::default();
    let operation = match door {
        Door::OllamaGenerate => {
            text("prompt", found.prompt)?;
            text("suffix", found.suffix)?;
            needs.vision = list("images", found.images)?;
            found.operation()?
        }
        Door::OllamaEmbed => {
            match found.input.map(RawValue::get) {
                None => return Err(bad("`input` is missing")),
                Some(it) if !it.starts_with(['"', '[']) => {
                    return Err(bad("`input` must be a text or a list of texts"));
                }
                Some(_) => {}
            }
            Operation::Embed
        }
        Door::OllamaEmbeddings => {
            text("prompt", found.prompt)?;
            if found.prompt.is_none() {
                return Err(bad("`prompt` is missing"));
            }
            Operation::Embed
        }
        _ => {
            needs.vision = look_at_messages(found.messages)?;
            needs.tools = list("tools", found.tools)?;
            Operation::Chat
        }
    };
    if found.is_empty(door) {
        return Err(bad(match door {
            Door::OllamaGenerate => {
                "`prompt` is empty, which loads or unloads a model; lovable loads models when they are asked"
            }
            Door::OllamaEmbed => "`input` is empty",
            Door::OllamaEmbeddings => "`prompt` is empty",
            _ => {
                "`messages` is empty, which loads or unloads a model; lovable loads models when they are asked"
            }
        }));
    }
    needs.fim = operation == Operation::Complete && found.suffix.is_some_and(|it| !json::is_nothing(it));
    check_format(found.format)?;
    let max_tokens = look_at_options(found.options)?;
    Ok(Request {
        door,
        head: Head { operation, model, stream, max_tokens, needs },
        // The last line always has them.
        asks_usage: true,
        choices: 1,
        logprobs: found.truth("logprobs", found.logprobs)?.unwrap_or(false),
        spans: crate::dialect::openai::Spans::default(),
    })
}

fn text(name: &str, value: Option<&RawValue>) -> Result<(), Failure> {
    match value {
        Some(value) if !value.get().starts_with('"') => Err(bad(format!("`{name}` must be a text"))),
        _ => Ok(()),
    }
}

/// Whether there is something in this list.
fn list(name: &str, value: Option<&RawValue>) -> Result<bool, Failure> {
    match value {
        None => Ok(false),
        Some(value) if value.get().starts_with('[') => Ok(!json::is_nothing(value)),
        Some(_) => Err(bad(format!("`{name}` must be a list"))),
    }
}

/// Checks the messages' shape; says whether one of them shows an image.
fn look_at_messages(raw: Option<&RawValue>) -> Result<bool, Failure> {
    list("messages", raw)?;
    let Some(raw) = raw else { return Ok(false) };
    let messages: Vec<&RawValue> =
        serde_json::from_str(raw.get()).map_err(|_| bad("`messages` must be a list of messages"))?;
    let mut shows = false;
    for (at, message) in messages.into_iter().enumerate() {
        if !message.get().starts_with('{') {
            return Err(bad(format!("`messages[{at}]` must be an object")));
        }
        let mut role = None;
        json::walk(message.get().as_bytes(), |name, _, value| {
            if name.eq_ignore_ascii_case("role") {
                role = Some(value);
            } else if name.eq_ignore_ascii_case("images") && value.get() != "null" {
                shows |= list(&format!("messages[{at}].images"), Some(value))?;
            }
            Ok(())
        })?;
        match role {
            None => return Err(bad(format!("`messages[{at}].role` is missing"))),
            Some(role) if !role.get().starts_with('"') => {
                return Err(bad(format!("`messages[{at}].role` must be a text")));
            }
            Some(_) => {}
        }
    }
    Ok(shows)
}

/// `"json"` or a schema; Ollama 0.24.0 says 500 to everything else.
fn check_format(value: Option<&RawValue>) -> Result<(), Failure> {
    match value.map(RawValue::get) {
        None | Some("\"\"" | "\"json\"") => Ok(()),
        Some(schema) if schema.starts_with('{') => Ok(()),
        Some(_) => Err(bad("`format` must be \"json\" or a JSON schema")),
    }
}

/// Checks the types under `options`; gives the most tokens that are wanted.
fn look_at_options(options: Option<&RawValue>) -> Result<Option<u64>, Failure> {
    let Some(options) = options else { return Ok(None) };
    if !options.get().starts_with('{') {
        return Err(bad("`options` must be an object"));
    }
    let mut most = None;
    json::walk(options.get().as_bytes(), |name, _, value| {
        if let Some(wrong) = option::wrong(name, value.get()) {
            return Err(bad(format!("`options.{name}` {wrong}")));
        }
        if name == "num_predict" {
            most = limit(value.get());
        }
        Ok(())
    })?;
    Ok(most)
}

/// The tokens that a `num_predict` allows. -1 is no limit, -2 until the context is
/// full, and 0 is no limit either (seen with 0.24.0).
pub(super) fn limit(value: &str) -> Option<u64> {
    match serde_json::from_str::<f64>(value) {
        // Whole below 2^53, so nothing is lost that matters.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked on the left")]
        Ok(number) if (1.0..9e15).contains(&number) => Some(number as u64),
        _ => None,
    }
}

/// The caller's bytes for a server: model and stream as `to` has them, and
/// `truncate: false` where the caller did not say.
///
/// Chat and generate take `truncate` since the end of 2025, embed since the middle of 2024;
/// older versions pass the field over. With it a prompt that does not fit is a 400 before any byte of an
/// answer, streamed or not; without it the oldest turns are gone and nothing tells
/// (both seen with 0.24.0). `/api/embeddings` has no such field and never cuts.
pub(super) fn readdress(request: &Request, body: &Bytes, to: &To<'_>) -> Bytes {
    // It was walked over when it was peeked at.
    let Ok(found) = Found::of(body) else { return body.clone() };
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut first = String::new();
    if to.model != request.head.model {
        for given in [found.model, found.name].into_iter().flatten() {
            edits.push((json::span(body, given), json::quote(to.model)));
        }
    }
    if found.model.is_none() {
        first.push_str(&format!("\"model\":{},", json::quote(to.model)));
    }
    if matches!(request.door, Door::OllamaChat | Door::OllamaGenerate) {
        let stream = if to.stream { "true" } else { "false" };
        match found.written_stream {
            Some(given) if given.get() != stream => edits.push((json::span(body, given), stream.to_owned())),
            None if !to.stream => first.push_str("\"stream\":false,"),
            Some(_) | None => {}
        }
    }
    if request.door != Door::OllamaEmbeddings && found.truncate.is_none() {
        match found.written_truncate {
            Some(null) => edits.push((json::span(body, null), "false".to_owned())),
            None => first.push_str("\"truncate\":false,"),
        }
    }
    if !first.is_empty() {
        // Never an empty object: the name of the model is in it.
        let open = body.iter().position(|it| *it == b'{').map_or(0, |at| at + 1);
        edits.push((open..open, first));
    }
    if edits.is_empty() {
        return body.clone();
    }
    edits.sort_by_key(|(span, _)| span.start);
    json::splice(body, &edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(door: Door, body: &str) -> Result<Request, String> {
        peek(door, &Bytes::copy_from_slice(body.as_bytes())).map_err(|it| it.message())
    }

    fn refused(door: Door, body: &str, expected: &str) {
        assert_eq!(look(door, body).unwrap_err(), expected, "for {body}");
    }

    fn chat(more: &str) -> String {
        format!("{{\"model\":\"a\",\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]{more}}}")
    }

    fn generate(more: &str) -> String {
        format!("{{\"model\":\"a\",\"prompt\":\"hi\"{more}}}")
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_its_place() {
        use Door::{OllamaChat, OllamaEmbed, OllamaEmbeddings, OllamaGenerate};
        refused(OllamaChat, "{\"messages\":[]}", "`model` is missing; `auto` lets lovable choose");
        refused(OllamaChat, "{\"model\":5}", "`model` must be a text; `auto` lets lovable choose");
        refused(OllamaChat, "{\"name\":\" \"}", "`name` is empty; `auto` lets lovable choose");
        refused(OllamaChat, "{\"model\":\"a\\n\"}", "`model` has control characters in it");
        let long = format!("{{\"model\":\"{}\"}}", "a".repeat(513));
        refused(OllamaChat, &long, "`model` is longer than 512 bytes");
        refused(OllamaChat, &chat(",\"model\":\"b\""), "`model` is given twice");
        refused(OllamaChat, &chat(",\"Model\":\"b\""), "`model` is given twice");
        refused(OllamaChat, &chat(",\"stream\":1"), "`stream` must be true or false");
        refused(OllamaChat, &chat(",\"tools\":{}"), "`tools` must be a list");
        refused(OllamaChat, &chat(",\"format\":\"yaml\""), "`format` must be \"json\" or a JSON schema");
        refused(OllamaChat, &chat(",\"format\":[]"), "`format` must be \"json\" or a JSON schema");
        refused(OllamaChat, &chat(",\"options\":[]"), "`options` must be an object");
        let text = "`options.temperature` must be a number";
        refused(OllamaChat, &chat(",\"options\":{\"temperature\":\"warm\"}"), text);
        let text = "`options.stop` must be a list of texts";
        refused(OllamaGenerate, &generate(",\"options\":{\"stop\":\"x\"}"), text);
        refused(OllamaChat, "{\"model\":\"a\",\"messages\":\"hi\"}", "`messages` must be a list");
        refused(OllamaChat, "{\"model\":\"a\",\"messages\":[5]}", "`messages[0]` must be an object");
        refused(OllamaChat, "{\"model\":\"a\",\"messages\":[{}]}", "`messages[0].role` is missing");
        let body = "{\"model\":\"a\",\"messages\":[{\"role\":\"user\"},{\"role\":7}]}";
        refused(OllamaChat, body, "`messages[1].role` must be a text");
        let body = "{\"model\":\"a\",\"messages\":[{\"role\":\"user\",\"images\":\"x\"}]}";
        refused(OllamaChat, body, "`messages[0].images` must be a list");
        refused(OllamaGenerate, "{\"model\":\"a\",\"prompt\":[\"x\"]}", "`prompt` must be a text");
        refused(OllamaGenerate, &generate(",\"raw\":\"yes\""), "`raw` must be true or false");
        refused(OllamaEmbed, "{\"model\":\"a\"}", "`input` is missing");
        refused(OllamaEmbed, "{\"model\":\"a\",\"input\":{}}", "`input` must be a text or a list of texts");
        refused(OllamaEmbed, "{\"model\":\"a\",\"input\":[]}", "`input` is empty");
        refused(OllamaEmbeddings, "{\"model\":\"a\",\"input\":\"x\"}", "`prompt` is missing");
    }

    #[test]
    fn nothing_to_answer_is_never_work() {
        let load = "which loads or unloads a model; lovable loads models when they are asked";
        for body in
            ["{\"model\":\"a\"}", "{\"model\":\"a\",\"prompt\":\"\"}", "{\"model\":\"a\",\"keep_alive\":0}"]
        {
            refused(Door::OllamaGenerate, body, &format!("`prompt` is empty, {load}"));
        }
        for body in
            ["{\"model\":\"a\"}", "{\"model\":\"a\",\"messages\":null}", "{\"model\":\"a\",\"messages\":[ ]}"]
        {
            refused(Door::OllamaChat, body, &format!("`messages` is empty, {load}"));
        }
    }

    #[test]
    fn the_head_has_what_routing_needs() {
        let request = look(
            Door::OllamaChat,
            r#"{"model":"a\/b","stream":false,"options":{"num_predict":7},"tools":[{}],"logprobs":true,
                "messages":[{"role":"user","content":"x","images":["aGk="]}]}"#,
        )
        .unwrap();
        let needs = Needs { tools: true, vision: true, fim: false };
        let operation = Operation::Chat;
        let head = Head { operation, model: "a/b".to_owned(), stream: false, max_tokens: Some(7), needs };
        assert_eq!(request.head, head);
        assert!(request.asks_usage && request.logprobs && request.choices == 1);

        // A stream is the default, and a limit below one is none.
        let request =
            look(Door::OllamaChat, &chat(",\"options\":{\"num_predict\":0},\"tools\":[ ]")).unwrap();
        assert!(request.head.stream);
        assert_eq!((request.head.max_tokens, request.head.needs), (None, Needs::default()));
        assert!(!look(Door::OllamaChat, &chat(",\"Stream\":false")).unwrap().head.stream);
        assert!(!look(Door::OllamaEmbed, "{\"model\":\"a\",\"input\":\"x\"}").unwrap().head.stream);
        assert_eq!(
            look(Door::OllamaChat, "{\"name\":\"b\",\"messages\":[{\"role\":\"user\"}]}").unwrap().head.model,
            "b"
        );
    }

    #[test]
    fn generate_is_a_chat_of_one_turn_unless_it_is_raw_or_has_a_suffix() {
        let check = |more: &str, operation: Operation, fim: bool| {
            let head = look(Door::OllamaGenerate, &generate(more)).unwrap().head;
            assert_eq!((head.operation, head.needs.fim), (operation, fim), "for {more}");
        };
        check("", Operation::Chat, false);
        check(",\"raw\":false,\"suffix\":\"\"", Operation::Chat, false);
        check(",\"raw\":true", Operation::Complete, false);
        check(",\"suffix\":\"}\"", Operation::Complete, true);
        assert!(look(Door::OllamaGenerate, &generate(",\"images\":[\"aGk=\"]")).unwrap().head.needs.vision);
        // The cursor stands at the beginning of a file.
        assert!(look(Door::OllamaGenerate, "{\"model\":\"a\",\"suffix\":\"}\"}").unwrap().head.needs.fim);
    }

    fn sent(door: Door, body: &str, model: &str, stream: bool) -> String {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let request = peek(door, &bytes).unwrap();
        let to = To { model, stream, ask_usage: true, max_tokens: true, sold: None };
        String::from_utf8(readdress(&request, &bytes, &to).to_vec()).unwrap()
    }

    #[test]
    fn only_what_must_change_is_changed() {
        let check = |more: &str, stream: bool, expected: &str| {
            assert_eq!(sent(Door::OllamaChat, &chat(more), "a", stream), expected, "for {more}");
        };
        let body = chat(",\"truncate\":true");
        let same = Bytes::copy_from_slice(body.as_bytes());
        let to = To { model: "a", stream: true, ask_usage: true, max_tokens: true, sold: None };
        let request = peek(Door::OllamaChat, &same).unwrap();
        assert_eq!(readdress(&request, &same, &to).as_ptr(), same.as_ptr());

        check("", true, &chat("").replacen('{', "{\"truncate\":false,", 1));
        check("", false, &chat("").replacen('{', "{\"stream\":false,\"truncate\":false,", 1));
        check(",\"truncate\":null", true, &chat(",\"truncate\":false"));
        check(",\"truncate\":true,\"stream\":true", false, &chat(",\"truncate\":true,\"stream\":false"));
        check(",\"Truncate\":true,\"stream\":null", true, &chat(",\"Truncate\":true,\"stream\":true"));
        let older = "{\"name\" : \"a\",\"prompt\":\"x\",\"x\":1.50}";
        let expected =
            "{\"model\":\"b\\\"\",\"truncate\":false,\"name\" : \"b\\\"\",\"prompt\":\"x\",\"x\":1.50}";
        assert_eq!(sent(Door::OllamaGenerate, older, "b\"", true), expected);
    }

    #[test]
    fn vectors_are_cut_only_where_the_caller_said_so() {
        let body = "{\"model\":\"a\",\"input\":\"x\"}";
        assert_eq!(
            sent(Door::OllamaEmbed, body, "b", true),
            "{\"truncate\":false,\"model\":\"b\",\"input\":\"x\"}"
        );
        let body = "{\"model\":\"a\",\"prompt\":\"x\"}";
        assert_eq!(sent(Door::OllamaEmbeddings, body, "a", false), body);
    }
}
