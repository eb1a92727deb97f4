//! A request taken apart field by field: what is taken is gone, what is left
//! over has no name here.

use serde_json::{Map, Value};

use crate::{
    dialect::json::{self, bad},
    fault::Failure,
    generate::Extras,
};

/// The fields of one object. Mistakes are told by their place, never by their value.
pub(super) struct Fields {
    /// The object's own place with a dot, or nothing for the body itself.
    at: String,
    fields: Map<String, Value>,
}

impl Fields {
    /// Of the whole body.
    pub(super) fn of(body: &[u8]) -> Result<Self, Failure> {
        let mut fields = Map::new();
        json::walk(body, |name, _, value| {
            let value: Value = serde_json::from_str(value.get())
                .map_err(|_| bad(format!("`{name}` has a number that is too large")))?;
            match fields.insert(name.to_owned(), value) {
                Some(_) => Err(bad(format!("`{name}` is given twice"))),
                None => Ok(()),
            }
        })?;
        Ok(Self { at: String::new(), fields })
    }

    /// Of an object within it.
    pub(super) fn within(at: &str, value: Value) -> Result<Self, Failure> {
        match value {
            Value::Object(fields) => Ok(Self { at: format!("{at}."), fields }),
            _ => Err(bad(format!("`{at}` must be an object"))),
        }
    }

    /// The place of a field.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.at)
    }

    /// Takes a field; `null` counts as absent.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.shift_remove(name).filter(|it| !it.is_null())
    }

    /// Looks at a field and leaves it there.
    pub(super) fn peek(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// Takes the fields of an object within it as if they were its own.
    pub(super) fn unfold(&mut self, name: &str) -> Result<(), Failure> {
        if let Some(mut inner) = self.object(name)? {
            self.fields.append(&mut inner.fields);
        }
        Ok(())
    }

    /// Takes a field that must be there.
    pub(super) fn need(&mut self, name: &str) -> Result<Value, Failure> {
        self.take(name).ok_or_else(|| bad(format!("`{}` is missing", self.path(name))))
    }

    /// Takes a text that must be there.
    pub(super) fn need_text(&mut self, name: &str) -> Result<String, Failure> {
        self.text(name)?.ok_or_else(|| bad(format!("`{}` is missing", self.path(name))))
    }

    /// Takes a text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "a text")),
        }
    }

    /// Takes a truth.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// Takes a number.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<f64>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(number.as_f64()),
            Some(_) => Err(self.wrong(name, "a number")),
        }
    }

    /// Takes a whole number.
    pub(super) fn integer(&mut self, name: &str) -> Result<Option<i64>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_i64().or_else(|| value.as_f64().and_then(whole)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(name, "a whole number")),
        }
    }

    /// Takes a count. Less than zero is how some clients say "no limit".
    pub(super) fn count(&mut self, name: &str) -> Result<Option<u64>, Failure> {
        Ok(self.integer(name)?.and_then(|it| u64::try_from(it).ok()))
    }

    /// Takes a list.
    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(self.wrong(name, "a list")),
        }
    }

    /// Takes an object.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, Failure> {
        let path = self.path(name);
        self.take(name).map(|value| Self::within(&path, value)).transpose()
    }

    /// Takes away what changes no answer.
    pub(super) fn drop_hints(&mut self, names: &[&str]) {
        for name in names {
            self.fields.shift_remove(*name);
        }
    }

    /// What is left over has no name here. What says nothing is as if it were not there.
    pub(super) fn rest(self, extras: &mut Extras) {
        for (name, value) in self.fields {
            if !is_empty(&value) {
                extras.push((format!("{}{name}", self.at), value));
            }
        }
    }

    /// The same where every name is switched off by false or zero, so that those say nothing.
    pub(super) fn rest_that_is_on(mut self, extras: &mut Extras) {
        self.fields.retain(|_, value| *value != false && value.as_f64() != Some(0.0));
        self.rest(extras);
    }

    /// The whole object as something that has no name here, called by its kind.
    pub(super) fn unnamed(self, kind: &str, extras: &mut Extras) {
        let place = self.at.strip_suffix('.').unwrap_or(&self.at);
        extras.push((format!("{place} ({kind})"), Value::Object(self.fields)));
    }

    /// What is told of a field of the wrong type.
    pub(super) fn wrong(&self, name: &str, what: &str) -> Failure {
        bad(format!("`{}` must be {what}", self.path(name)))
    }
}

/// A text, found at this place.
pub(super) fn text(at: &str, value: Value) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(bad(format!("`{at}` must be a text"))),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A whole number that was written with a point or an exponent.
fn whole(number: f64) -> Option<i64> {
    let fits = number.fract() == 0.0 && number.abs() < 9e15;
    #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
    fits.then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::within("x", value).unwrap()
    }

    #[test]
    fn a_count_is_whole_and_below_zero_is_none() {
        let check = |value: Value, expected: Option<Option<u64>>| {
            assert_eq!(fields(json!({"n": value})).count("n").ok(), expected, "for {value}");
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
        let body = json!({"a": null, "b": false, "c": 0, "d": "", "e": [], "f": {}, "g": 1});
        let mut extras = Extras::new();
        fields(body.clone()).rest(&mut extras);
        let kept: Vec<_> = extras.drain(..).map(|it| it.0).collect();
        assert_eq!(kept, ["x.b", "x.c", "x.g"]);
        fields(body).rest_that_is_on(&mut extras);
        assert_eq!(extras, [("x.g".to_owned(), json!(1))]);
    }
}
