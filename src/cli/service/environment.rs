//! The file with the variables that a service does not inherit from a shell.
//!
//! One variable a line, as systemd reads it. Lines that a person added stay as
//! they are; keys may be in it, so nobody else may read it.

use std::collections::BTreeMap;

pub(super) const HEADER: &str = "# Written by `lovablectl service install`; lines of yours are kept.\n";

/// The file with these variables in place of older values.
pub(super) fn merged(old: &str, variables: &BTreeMap<String, String>) -> String {
    let name = |line: &str| line.split_once('=').map(|it| it.0.trim().to_owned());
    let mut text = HEADER.to_owned();
    for line in old.lines().filter(|it| !HEADER.contains(it.trim_end()) || it.is_empty()) {
        if name(line).is_none_or(|it| !variables.contains_key(&it)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    for (name, value) in variables {
        text.push_str(&format!("{name}={}\n", quoted(value)));
    }
    text
}

/// A value that cannot stand on one line cannot be carried over.
pub(super) fn may_be_carried(value: &str) -> bool {
    !value.is_empty() && !value.chars().any(char::is_control)
}

/// The names of the variables in such a file.
pub(super) fn names(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|it| !it.trim_start().starts_with(['#', ';']));
    lines.filter_map(|it| it.split_once('=')).map(|it| it.0.trim().to_owned()).collect()
}

fn quoted(value: &str) -> String {
    format!(
        "\"{}\"",
        value.replace('\\', "\\\\").replace('"', "\\\"").replace('`', "\\`").replace('$', "\\$")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn values_are_quoted_and_replaced_and_other_lines_stay() {
        let first = merged("", &variables(&[("OLLAMA_HOST", "box:1"), ("KEY", r#"a"b\c$d"#)]));
        assert_eq!(first, format!("{HEADER}KEY=\"a\\\"b\\\\c\\$d\"\nOLLAMA_HOST=\"box:1\"\n"));
        let mine = format!("{first}# mine\nMINE=7\n");
        let again = merged(&mine, &variables(&[("OLLAMA_HOST", "box:2")]));
        assert_eq!(
            again,
            format!("{HEADER}KEY=\"a\\\"b\\\\c\\$d\"\n# mine\nMINE=7\nOLLAMA_HOST=\"box:2\"\n")
        );
        assert_eq!(merged(&again, &variables(&[("OLLAMA_HOST", "box:2")])), again, "once is enough");
        assert_eq!(names(&again), ["KEY", "MINE", "OLLAMA_HOST"]);
    }

    #[test]
    fn what_cannot_stand_on_a_line_is_not_carried() {
        assert_eq!(["", "a\nB=1", "a b"].map(may_be_carried), [false, false, true]);
    }
}
