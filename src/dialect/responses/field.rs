//! Fields of a request that is taken apart: each is what it must be, or its
//! path is told, never its value.

use serde_json::{Map, Value};

use crate::{dialect::json::bad, fault::Failure, generate::Extras};

/// An object.
pub(super) type Fields = Map<String, Value>;

pub(super) fn object(path: &str, value: Value) -> Result<Fields, Failure> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(bad(format!("`{path}` must be an object"))),
    }
}

pub(super) fn list(path: &str, value: Value) -> Result<Vec<Value>, Failure> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(bad(format!("`{path}` must be a list"))),
    }
}

pub(super) fn text(path: &str, value: Value) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(bad(format!("`{path}` must be a text"))),
    }
}

pub(super) fn flag(path: &str, value: &Value) -> Result<bool, Failure> {
    value.as_bool().ok_or_else(|| bad(format!("`{path}` must be true or false")))
}

pub(super) fn number(path: &str, value: &Value) -> Result<f64, Failure> {
    value.as_f64().ok_or_else(|| bad(format!("`{path}` must be a number")))
}

/// A whole number; less than zero is how some clients say "no limit".
pub(super) fn count(path: &str, value: &Value) -> Result<Option<u64>, Failure> {
    if let Some(count) = value.as_u64() {
        return Ok(Some(count));
    }
    match value.as_f64() {
        Some(number) if number < 0.0 => Ok(None),
        // Whole and below 2^53, so nothing is lost.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked on the left")]
        Some(number) if number.fract() == 0.0 && number < 9e15 => Ok(Some(number as u64)),
        _ => Err(bad(format!("`{path}` must be a whole number"))),
    }
}

/// Takes a field out; `null` is absent.
pub(super) fn take(fields: &mut Fields, name: &str) -> Option<Value> {
    fields.shift_remove(name).filter(|it| !it.is_null())
}

/// Takes a text out that must be there.
pub(super) fn take_text(fields: &mut Fields, path: &str, name: &str) -> Result<String, Failure> {
    let path = format!("{path}.{name}");
    match take(fields, name) {
        Some(value) => text(&path, value),
        None => Err(bad(format!("`{path}` is missing"))),
    }
}

/// Takes a text out that may be there.
pub(super) fn take_some_text(fields: &mut Fields, path: &str, name: &str) -> Result<Option<String>, Failure> {
    take(fields, name).map(|it| text(&format!("{path}.{name}"), it)).transpose()
}

/// Keeps what is left of an object and says something, under its path.
pub(super) fn keep_rest(extras: &mut Extras, path: &str, fields: Fields) {
    for (name, value) in fields {
        if !is_nothing(&value) {
            extras.push((format!("{path}.{name}"), value));
        }
    }
}

/// Whether a value says nothing: null, false, zero, or an empty text, list or object.
pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_count_is_whole_and_below_zero_is_none() {
        let check = |value: Value, expected: Option<Option<u64>>| {
            assert_eq!(count("x", &value).ok(), expected, "for {value}");
        };
        check(json!(5), Some(Some(5)));
        check(json!(5.0), Some(Some(5)));
        check(json!(-1), Some(None));
        check(json!(5.5), None);
        check(json!(1e300), None);
        check(json!("5"), None);
    }

    #[test]
    fn only_what_says_something_is_kept() {
        let mut extras = Extras::new();
        let fields = json!({"a": null, "b": false, "c": 0, "d": "", "e": [], "f": {}, "g": 1});
        keep_rest(&mut extras, "x", object("x", fields).unwrap());
        assert_eq!(extras, [("x.g".to_owned(), json!(1))]);
    }
}
