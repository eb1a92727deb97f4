//! Looking into JSON without taking it apart.
//!
//! A prompt may be a megabyte, and it goes on as it came. So a body is read as
//! spans of itself: which field stands where. No value is copied and none is
//! ever put into a message; a mistake is told by its place.

use std::{borrow::Cow, fmt, ops::Range};

use bytes::Bytes;
use memchr::memchr2;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::fault::Failure;

/// How deep a body may be nested. Servers written in Python give up at some
/// 1,000 and others crash; nobody's request comes near this.
const DEPTH: usize = 128;

/// Walks over the fields of the object that `body` must be.
///
/// `visit` gets each name, the name as written, and the value as written. The
/// whole body is checked: syntax, depth, and characters that are none.
pub(super) fn walk<'a>(
    body: &'a [u8],
    visit: impl FnMut(&str, &'a RawValue, &'a RawValue) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if body.trim_ascii().is_empty() {
        return Err(bad("the body is empty; it must be a JSON object"));
    }
    let mut failure = None;
    let mut reader = serde_json::Deserializer::from_slice(body);
    let walked = reader.deserialize_map(Walk { visit, failure: &mut failure }).and_then(|()| reader.end());
    if let Some(failure) = failure {
        return Err(failure);
    }
    match walked {
        Ok(()) => check(body),
        Err(error) if error.is_data() => Err(bad("the body must be a JSON object")),
        Err(error) => Err(bad(format!("the body is not valid JSON: {error}"))),
    }
}

struct Walk<'f, F> {
    visit: F,
    failure: &'f mut Option<Failure>,
}

impl<'a, F> Visitor<'a> for Walk<'_, F>
where
    F: FnMut(&str, &'a RawValue, &'a RawValue) -> Result<(), Failure>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<&'a RawValue, &'a RawValue>()? {
            // A name that is no text is found by `check`.
            let text = text(name).unwrap_or_default();
            if let Err(failure) = (self.visit)(&text, name, value) {
                *self.failure = Some(failure);
                return Err(de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// Looks through valid JSON for what is valid only on paper: nesting without
/// measure, and halves of characters (`"\ud83d"`), on which servers crash.
fn check(body: &[u8]) -> Result<(), Failure> {
    let mut depth = 0;
    let mut here = 0;
    while here < body.len() {
        match body[here] {
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH {
                    return Err(bad(format!("the body is nested deeper than {DEPTH} levels")));
                }
            }
            b']' | b'}' => depth -= 1,
            b'"' => here = end_of_text(body, here + 1)?,
            _ => {}
        }
        here += 1;
    }
    Ok(())
}

/// The place of the quote that ends the text which begins at `here`.
fn end_of_text(body: &[u8], mut here: usize) -> Result<usize, Failure> {
    while let Some(length) = memchr2(b'"', b'\\', &body[here..]) {
        here += length;
        if body[here] == b'"' {
            break;
        }
        if body.get(here + 1) != Some(&b'u') {
            here += 2;
            continue;
        }
        here += 6;
        match unit(body, here - 6) {
            Some(0xd800..=0xdbff) if matches!(unit(body, here), Some(0xdc00..=0xdfff)) => here += 6,
            Some(0xd800..=0xdfff) => {
                let line = 1 + memchr::memchr_iter(b'\n', &body[..here]).count();
                return Err(bad(format!("the body has half a character (a lone surrogate) in line {line}")));
            }
            _ => {}
        }
    }
    Ok(here)
}

/// The UTF-16 unit that is written as `\uXXXX` at this place.
fn unit(body: &[u8], here: usize) -> Option<u16> {
    let digits = body.get(here..here + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Where `part` stands in `body`, of which it must be a piece.
pub(super) fn span(body: &[u8], part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr().addr() - body.as_ptr().addr();
    start..start + part.get().len()
}

/// The text that a value is, if it is one.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(value.get()).ok().map(Cow::Owned)
}

/// The object `body` with these top-level fields set to JSON; everything else stays byte for byte.
/// `body` must have been walked over before; of a field given twice the first is set.
pub(super) fn set(body: &Bytes, fields: &[(&str, &str)]) -> Bytes {
    let mut spans: Vec<Option<Range<usize>>> = vec![None; fields.len()];
    let walked = walk(body, |name, _, value| {
        for ((field, _), place) in fields.iter().zip(&mut spans) {
            if *field == name && place.is_none() {
                *place = Some(span(body, value));
            }
        }
        Ok(())
    });
    let Some(open) = body.iter().position(|it| *it == b'{').filter(|_| walked.is_ok()) else {
        return body.clone();
    };
    let is_empty = body[open + 1..].trim_ascii_start().first() == Some(&b'}');
    let mut first = String::new();
    let mut edits: Vec<(Range<usize>, &str)> = Vec::new();
    for ((name, value), place) in fields.iter().zip(spans) {
        match place {
            Some(place) => edits.push((place, value)),
            None => {
                first.push_str(&quote(name));
                first.push(':');
                first.push_str(value);
                first.push(',');
            }
        }
    }
    if is_empty {
        first.pop();
    }
    edits.push((open + 1..open + 1, &first));
    edits.sort_by_key(|(span, _)| span.start);
    splice(body, &edits)
}

/// `body` with each span replaced by its text; the spans are in order and apart.
pub(super) fn splice(body: &[u8], edits: &[(Range<usize>, impl AsRef<str>)]) -> Bytes {
    let grown: usize = edits.iter().map(|(_, text)| text.as_ref().len()).sum();
    let mut out = Vec::with_capacity(body.len() + grown);
    let mut here = 0;
    for (span, text) in edits {
        out.extend_from_slice(&body[here..span.start]);
        out.extend_from_slice(text.as_ref().as_bytes());
        here = span.end;
    }
    out.extend_from_slice(&body[here..]);
    out.into()
}

/// Text as JSON.
pub(super) fn quote(text: &str) -> String {
    // Writing a str cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

/// Whether a value says nothing: null, false, zero, or an empty text, list or object.
pub(super) fn is_nothing(value: &RawValue) -> bool {
    match value.get() {
        "null" | "false" | "0" | "\"\"" | "[]" | "{}" => true,
        // A list or an object with only white space in it.
        other => {
            let inner = other.strip_prefix(['[', '{']).and_then(|it| it.strip_suffix([']', '}']));
            inner.is_some_and(|it| it.trim_ascii().is_empty())
        }
    }
}

/// A request that cannot be understood.
pub(super) fn bad(text: impl Into<String>) -> Failure {
    Failure::BadRequest(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_body(body: &str, expected: &str) {
        let shown = match walk(body.as_bytes(), |_, _, _| Ok(())) {
            Ok(()) => "fine".to_owned(),
            Err(failure) => failure.message(),
        };
        assert_eq!(shown, expected, "for {body:?}");
    }

    #[test]
    fn a_mistake_is_told_by_its_place_and_never_by_its_value() {
        check_body("{\"a\":1}", "fine");
        check_body("", "the body is empty; it must be a JSON object");
        check_body("[1]", "the body must be a JSON object");
        check_body("\"secret\"", "the body must be a JSON object");
        check_body("{\"a\":secret}", "the body is not valid JSON: expected value at line 1 column 6");
        check_body("{\"a\":1", "the body is not valid JSON: EOF while parsing an object at line 1 column 6");
        check_body("{\"a\":1} x", "the body is not valid JSON: trailing characters at line 1 column 9");
        check_body("{\n\"a\":NaN}", "the body is not valid JSON: expected value at line 2 column 5");
    }

    #[test]
    fn half_characters_are_found_wherever_they_are() {
        check_body(r#"{"a":"\ud83d\ude00 \u00e9 \\ud83d"}"#, "fine");
        let lone = "the body has half a character (a lone surrogate) in line 1";
        check_body(r#"{"a":["\ud83d"]}"#, lone);
        check_body(r#"{"a":"\ude00\ud83d"}"#, lone);
        check_body(r#"{"\ud83d":1}"#, lone);
        check_body(r#"{"a":"\ud83d\u0041"}"#, lone);
        assert!(walk(b"{\"a\":\"\xff\"}", |_, _, _| Ok(())).is_err());
    }

    #[test]
    fn nesting_has_a_measure() {
        let nested = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        check_body(&nested(127), "fine");
        check_body(&nested(128), "the body is nested deeper than 128 levels");
        check_body(&nested(1_000_000), "the body is nested deeper than 128 levels");
        check_body("{\"a\":\"[[[[\\\"[[[\"}", "fine");
    }

    #[test]
    fn fields_are_set_where_they_stand_or_first() {
        let check = |body: &'static str, expected: &str| {
            let set = set(&Bytes::from_static(body.as_bytes()), &[("model", "\"b\""), ("stream", "true")]);
            assert_eq!(set, expected, "for {body}");
        };
        check(r#"{"x": 1, "model" : "a"}"#, r#"{"stream":true,"x": 1, "model" : "b"}"#);
        check(r#" {"stream":false,"mod\u0065l":"a"}"#, r#" {"stream":true,"mod\u0065l":"b"}"#);
        check("{ }", r#"{"model":"b","stream":true }"#);
    }

    #[test]
    fn escaped_names_are_the_names_they_mean() {
        let mut names = Vec::new();
        walk(br#"{"mod\u0065l":1,"b":2}"#, |name, _, value| {
            names.push((name.to_owned(), value.get()));
            Ok(())
        })
        .unwrap();
        assert_eq!(names, [("model".to_owned(), "1"), ("b".to_owned(), "2")]);
    }
}
