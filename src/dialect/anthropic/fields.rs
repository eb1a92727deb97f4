//! Takes an object apart field by field, and knows what was left in it.
//!
//! Whoever understands a request takes each field that it has a name for;
//! what is left then is what nobody here has a name for, with its path.

use std::collections::BTreeMap;

use serde_json::{Value, value::RawValue};

use crate::{
    dialect::json::{self, bad},
    fault::Failure,
    generate::Extras,
};

/// The fields of an object that have not been taken yet; `null` counts as absent.
pub(super) struct Fields<'a> {
    path: String,
    fields: BTreeMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    /// The fields of the object that is the whole body, which is checked.
    pub(super) fn of_body(body: &'a [u8]) -> Result<Self, Failure> {
        let mut fields = BTreeMap::new();
        json::walk(body, |name, _, value| match fields.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(bad(format!("`{name}` is given twice"))),
        })?;
        fields.retain(|_, it| it.get() != "null");
        Ok(Self { path: String::new(), fields })
    }

    /// The fields of an object inside a body that was checked.
    pub(super) fn of(path: impl Into<String>, value: &'a RawValue) -> Result<Self, Failure> {
        let path = path.into();
        let read = if value.get().starts_with('{') { serde_json::from_str(value.get()).ok() } else { None };
        let mut fields: BTreeMap<String, &'a RawValue> =
            read.ok_or_else(|| bad(format!("`{path}` must be an object")))?;
        fields.retain(|_, it| it.get() != "null");
        Ok(Self { path, fields })
    }

    /// Where the object is.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where one of its fields is.
    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Takes a field as written.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        self.fields.remove(name)
    }

    /// Takes a field that must be there.
    pub(super) fn need(&mut self, name: &str) -> Result<&'a RawValue, Failure> {
        self.take(name).ok_or_else(|| self.wrong(name, "is missing"))
    }

    /// Takes a text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let text = json::text(value).ok_or_else(|| self.wrong(name, "must be a text"))?;
        Ok(Some(text.into_owned()))
    }

    /// Takes a text that must be there.
    pub(super) fn need_text(&mut self, name: &str) -> Result<String, Failure> {
        self.text(name)?.ok_or_else(|| self.wrong(name, "is missing"))
    }

    /// Takes a truth.
    pub(super) fn truth(&mut self, name: &str) -> Result<Option<bool>, Failure> {
        match self.take(name).map(RawValue::get) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.wrong(name, "must be true or false")),
        }
    }

    /// Takes a number.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<f64>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = serde_json::from_str(value.get()).map_err(|_| self.wrong(name, "must be a number"))?;
        Ok(Some(number))
    }

    /// Takes a whole number.
    pub(super) fn whole<N: std::str::FromStr>(&mut self, name: &str) -> Result<Option<N>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.get().parse().map_err(|_| self.wrong(name, "must be a whole number"))?;
        Ok(Some(number))
    }

    /// Takes a list.
    pub(super) fn list(&mut self, name: &str) -> Result<Vec<&'a RawValue>, Failure> {
        let Some(value) = self.take(name) else { return Ok(Vec::new()) };
        list(&self.path_of(name), value)
    }

    /// Takes an object.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Fields<'a>>, Failure> {
        let path = self.path_of(name);
        self.take(name).map(|value| Fields::of(path, value)).transpose()
    }

    /// Passes over fields that change no answer.
    pub(super) fn pass_over(&mut self, names: &[&str]) {
        for name in names {
            self.fields.remove(*name);
        }
    }

    /// Keeps what is left, unless it says nothing, as what has no name here.
    pub(super) fn keep_rest(self, extras: &mut Extras) {
        for (name, value) in &self.fields {
            if !json::is_nothing(value) {
                extras.push((self.path_of(name), parsed(value)));
            }
        }
    }

    /// What is wrong with a field.
    pub(super) fn wrong(&self, name: &str, what: &str) -> Failure {
        bad(format!("`{}` {what}", self.path_of(name)))
    }
}

/// The items of a list.
pub(super) fn list<'a>(path: &str, value: &'a RawValue) -> Result<Vec<&'a RawValue>, Failure> {
    serde_json::from_str(value.get()).map_err(|_| bad(format!("`{path}` must be a list")))
}

/// A value taken apart. It was checked as a part of the body.
pub(super) fn parsed(value: &RawValue) -> Value {
    serde_json::from_str(value.get()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_is_kept_with_its_path_unless_it_says_nothing() {
        let body = br#"{"a":1,"b":null,"c":{"d":"x","e":[],"f":{"g":2}},"h":false}"#;
        let mut fields = Fields::of_body(body).unwrap();
        let mut extras = Extras::new();
        let mut inner = fields.object("c").unwrap().unwrap();
        assert_eq!(inner.text("d").unwrap().as_deref(), Some("x"));
        inner.keep_rest(&mut extras);
        fields.keep_rest(&mut extras);
        assert_eq!(extras, [("c.f".to_owned(), json!({"g": 2})), ("a".to_owned(), json!(1))]);
    }

    #[test]
    fn mistakes_are_told_by_their_path() {
        let mut fields = Fields::of_body(br#"{"a":{"b":5,"c":"x","d":1.5}}"#).unwrap();
        let mut inner = fields.object("a").unwrap().unwrap();
        let told = |failure: Failure| failure.message();
        assert_eq!(told(inner.need_text("x").unwrap_err()), "`a.x` is missing");
        assert_eq!(told(inner.text("b").unwrap_err()), "`a.b` must be a text");
        assert_eq!(told(inner.number("c").unwrap_err()), "`a.c` must be a number");
        assert_eq!(told(inner.whole::<u64>("d").unwrap_err()), "`a.d` must be a whole number");
        assert_eq!(told(Fields::of_body(b"{\"a\":1,\"a\":2}").err().unwrap()), "`a` is given twice");
        let mut fields = Fields::of_body(br#"{"a":5,"b":5,"c":5}"#).unwrap();
        assert_eq!(told(fields.object("a").err().unwrap()), "`a` must be an object");
        assert_eq!(told(fields.list("b").unwrap_err()), "`b` must be a list");
        assert_eq!(told(fields.truth("c").unwrap_err()), "`c` must be true or false");
    }
}
