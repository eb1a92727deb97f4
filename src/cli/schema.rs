//! A JSON schema for an answer, from a file.

use std::path::Path;

use serde_json::value::{RawValue, to_raw_value};

use super::Trouble;

/// The form of the answer, as OpenAI writes it. The schema stays as it is written.
pub(super) fn response_format(path: &Path) -> Result<Box<RawValue>, Trouble> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Trouble::Usage(format!("cannot read {}: {error}", path.display())))?;
    // Some editors begin a file with a mark that is no JSON.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let schema: Box<RawValue> = serde_json::from_str(text).map_err(|error| {
        let (line, column) = place(text, &error);
        Trouble::Usage(format!("{}:{line}:{column}: no JSON: {}", path.display(), reason(&error)))
    })?;
    if !schema.get().starts_with('{') {
        return Err(Trouble::Usage(format!("{} is no JSON schema: it must be an object", path.display())));
    }
    let stem = path.file_stem().and_then(|it| it.to_str()).unwrap_or_default();
    Ok(wrap(&name(stem), &schema))
}

fn wrap(name: &str, schema: &RawValue) -> Box<RawValue> {
    #[derive(serde::Serialize)]
    struct Format<'a> {
        r#type: &'static str,
        json_schema: Named<'a>,
    }
    #[derive(serde::Serialize)]
    struct Named<'a> {
        name: &'a str,
        schema: &'a RawValue,
    }
    to_raw_value(&Format { r#type: "json_schema", json_schema: Named { name, schema } })
        .expect("texts and JSON are JSON")
}

/// Line and column. What breaks at the end of a line, serde finds before the next one.
fn place(text: &str, error: &serde_json::Error) -> (usize, usize) {
    match (error.line(), error.column()) {
        (line @ 2.., 0) => (line - 1, text.lines().nth(line - 2).map_or(0, |it| it.chars().count()) + 1),
        place => place,
    }
}

/// serde's own words without the place, which stands before them already.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// A name that every server takes: letters, digits, `_` and `-`, at most 64.
fn name(stem: &str) -> String {
    let plain = stem.chars().map(|it| if it.is_ascii_alphanumeric() || it == '-' { it } else { '_' });
    let name: String = plain.take(64).collect();
    if name.is_empty() { "answer".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my person.v1.json");
        std::fs::write(&path, written).unwrap();
        let said = match response_format(&path) {
            Ok(format) => format.get().to_owned(),
            Err(trouble) => trouble.to_string().replace(&dir.path().display().to_string(), ""),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn the_schema_stays_as_it_is_written() {
        check(
            "\u{feff}{\"z\": 1,\n \"a\": 1.0}\n",
            "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"my_person_v1\",\"schema\":{\"z\": 1,\n \"a\": 1.0}}}",
        );
    }

    #[test]
    fn what_is_no_schema_is_told_with_its_place() {
        check("{\n  \"a\": tru\n}", "/my person.v1.json:2:11: no JSON: expected ident");
        check("{} x", "/my person.v1.json:1:4: no JSON: trailing characters");
        check("", "/my person.v1.json:1:0: no JSON: EOF while parsing a value");
        check("[]", "/my person.v1.json is no JSON schema: it must be an object");
    }

    #[test]
    fn a_name_is_one_that_servers_take() {
        assert_eq!([name("a b/é"), name("")], ["a_b__", "answer"]);
        assert_eq!(name(&"x".repeat(99)).len(), 64);
    }
}
