//! Our own short form of a chat request, made into OpenAI's.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    dialect::json::{self, bad, quote},
    fault::Failure,
};

/// Makes a body for chat completions out of one for `POST /lovable/v1/generate`:
/// `prompt` and `system` become messages, a missing model becomes `auto`, and
/// everything else stays as it is written.
pub fn generate(body: &Bytes) -> Result<Bytes, Failure> {
    let (mut prompt, mut messages, mut system, mut model) = (None, None, None, None);
    let mut rest = String::new();
    json::walk(body, |name, written, value| {
        let slot = match name {
            "prompt" => &mut prompt,
            "messages" => &mut messages,
            "system" => &mut system,
            "model" => &mut model,
            _ => {
                rest.push_str(&format!(",{}:{}", written.get(), value.get()));
                return Ok(());
            }
        };
        match slot.replace(value) {
            Some(_) => Err(bad(format!("`{name}` is given twice"))),
            None => Ok(()),
        }
    })?;
    let given = |it: Option<&'_ RawValue>| it.filter(|it| it.get() != "null").map(|it| it.get().to_owned());
    let is_text = |name: &str, value: &Option<String>| match value {
        Some(value) if !value.starts_with('"') => Err(bad(format!("`{name}` must be a text"))),
        _ => Ok(()),
    };
    let (prompt, messages, system) = (given(prompt), given(messages), given(system));
    is_text("prompt", &prompt)?;
    is_text("system", &system)?;

    let system = system.map(|text| format!("{{\"role\":\"system\",\"content\":{text}}}"));
    let messages = match (prompt, messages) {
        (Some(_), Some(_)) => return Err(bad("give `prompt` or `messages`, not both")),
        (None, None) => return Err(bad("`prompt` is missing (or `messages`)")),
        (Some(prompt), None) => {
            let user = format!("{{\"role\":\"user\",\"content\":{prompt}}}");
            format!("[{}]", system.into_iter().chain([user]).collect::<Vec<_>>().join(","))
        }
        (None, Some(messages)) => match (system, messages.strip_prefix('[')) {
            (_, None) => return Err(bad("`messages` must be a list")),
            (None, Some(_)) => messages,
            (Some(system), Some(others)) if others.trim_start() == "]" => format!("[{system}]"),
            (Some(system), Some(others)) => format!("[{system},{others}"),
        },
    };
    let model = given(model).unwrap_or_else(|| quote("auto"));
    Ok(format!("{{\"model\":{model},\"messages\":{messages}{rest}}}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &str) {
        let shown = match generate(&Bytes::copy_from_slice(body.as_bytes())) {
            Ok(body) => String::from_utf8(body.to_vec()).unwrap(),
            Err(failure) => format!("error: {}", failure.message()),
        };
        assert_eq!(shown, expected, "for {body}");
    }

    #[test]
    fn the_short_form_becomes_a_chat() {
        check(
            r#"{"prompt":"hi \"you\"","temperature":0.50,"x":{"y":[1]}}"#,
            r#"{"model":"auto","messages":[{"role":"user","content":"hi \"you\""}],"temperature":0.50,"x":{"y":[1]}}"#,
        );
        check(
            r#"{"prompt":"hi","system":"be brief","model":"m","stream":true}"#,
            r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}],"stream":true}"#,
        );
        check(
            r#"{"messages":[{"role":"user","content":"hi"}],"system":"s","model":null}"#,
            r#"{"model":"auto","messages":[{"role":"system","content":"s"},{"role":"user","content":"hi"}]}"#,
        );
        check(
            r#"{"messages":[ ],"system":"s"}"#,
            r#"{"model":"auto","messages":[{"role":"system","content":"s"}]}"#,
        );
    }

    #[test]
    fn what_is_unclear_is_refused() {
        check("{}", "error: `prompt` is missing (or `messages`)");
        check(r#"{"prompt":null}"#, "error: `prompt` is missing (or `messages`)");
        check(r#"{"prompt":"a","messages":[]}"#, "error: give `prompt` or `messages`, not both");
        check(r#"{"prompt":["a"]}"#, "error: `prompt` must be a text");
        check(r#"{"prompt":"a","system":5}"#, "error: `system` must be a text");
        check(r#"{"messages":"a"}"#, "error: `messages` must be a list");
        check(r#"{"prompt":"a","prompt":"b"}"#, "error: `prompt` is given twice");
        check("", "error: the body is empty; it must be a JSON object");
    }
}
