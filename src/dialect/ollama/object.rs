//! A JSON object whose fields are taken one by one, so that what nobody took is known.

use serde_json::{Value, value::RawValue};

use crate::{
    dialect::json::{self, bad},
    fault::Failure,
    generate::Extras,
};

/// The fields of an object, of which some have been taken.
pub(super) struct Object<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Failure> {
        let mut fields = Vec::new();
        json::walk(body, |name, _, value| {
            fields.push((name.to_owned(), value));
            Ok(())
        })?;
        Ok(Self(fields))
    }

    /// Takes a field, whatever its letter case; of several the last, as Ollama does. `null` is absent.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let mut found = None;
        self.0.retain(|(field, value)| {
            let is_it = field.eq_ignore_ascii_case(name);
            if is_it {
                found = Some(*value);
            }
            !is_it
        });
        found.filter(|it| it.get() != "null")
    }

    /// What nobody took and says something.
    pub(super) fn rest(self, prefix: &str, hints: &[&str], extras: &mut Extras) {
        for (name, raw) in self.0 {
            let is_hint = hints.iter().any(|it| name.eq_ignore_ascii_case(it));
            if !is_hint && !json::is_nothing(raw) {
                extras.push((format!("{prefix}{name}"), value(raw)));
            }
        }
    }
}

pub(super) fn object<'a>(path: &str, raw: &'a RawValue) -> Result<Object<'a>, Failure> {
    if !raw.get().starts_with('{') {
        return Err(bad(format!("`{path}` must be an object")));
    }
    Object::read(raw.get().as_bytes())
}

pub(super) fn list<'a>(path: &str, raw: Option<&'a RawValue>) -> Result<Vec<&'a RawValue>, Failure> {
    match raw {
        None => Ok(Vec::new()),
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| bad(format!("`{path}` must be a list"))),
    }
}

pub(super) fn text(path: &str, raw: Option<&RawValue>) -> Result<Option<String>, Failure> {
    match raw {
        None => Ok(None),
        Some(raw) => match json::text(raw) {
            Some(text) => Ok(Some(text.into_owned())),
            None => Err(bad(format!("`{path}` must be a text"))),
        },
    }
}

pub(super) fn truth(path: &str, raw: Option<&RawValue>) -> Result<Option<bool>, Failure> {
    match raw.map(RawValue::get) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(bad(format!("`{path}` must be true or false"))),
    }
}

pub(super) fn whole(path: &str, raw: Option<&RawValue>) -> Result<Option<u64>, Failure> {
    match raw.map(|it| it.get().parse()) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(bad(format!("`{path}` must be a whole number"))),
    }
}

/// JSON that has been walked over, taken apart.
pub(super) fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_default()
}
