//! The file with the variables that a service does not inherit from a shell.
//!
//! One variable a line, as systemd reads it. Lines that a person added stay as
//! they are; keys may be in it, so nobody else may read it.

use std::collections::BTreeMap;

const HEADER: &str = "# Written by `lovablectl service install`, until the next comment.\n";
/// People add lines at the end, so theirs come last.
const OWN: &str = "# Lines of yours; they are kept.\n";

/// The file with these variables in place of older values.
pub(super) fn merged(old: &str, variables: &BTreeMap<String, String>) -> String {
    let (ours, own) = parts(old);
    let others = |text: &str| {
        let other = |line: &&str| name(line).is_none_or(|it| !variables.contains_key(it));
        text.lines().filter(other).map(|it| format!("{it}\n")).collect::<String>()
    };
    let mut text = HEADER.to_owned() + &others(ours);
    for (name, value) in variables {
        text.push_str(&format!("{name}={}\n", quoted(value)));
    }
    text + OWN + &others(own)
}

/// What is left of the file without what `merged` put there; `None` where that is nothing.
pub(super) fn without_ours(text: &str) -> Option<&str> {
    Some(parts(text).1).filter(|it| !it.trim().is_empty())
}

/// What is ours in such a file, and what is the person's.
fn parts(text: &str) -> (&str, &str) {
    match text.strip_prefix(HEADER) {
        Some(rest) => rest.split_once(OWN).unwrap_or((rest, "")),
        None => ("", text),
    }
}

fn name(line: &str) -> Option<&str> {
    line.split_once('=').map(|it| it.0.trim())
}

/// A value that cannot stand on one line cannot be carried over.
pub(super) fn may_be_carried(value: &str) -> bool {
    !value.is_empty() && !value.chars().any(char::is_control)
}

/// The names of the variables in such a file.
pub(super) fn names(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|it| !it.trim_start().starts_with(['#', ';']));
    lines.filter_map(name).map(str::to_owned).collect()
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
        assert_eq!(first, format!("{HEADER}KEY=\"a\\\"b\\\\c\\$d\"\nOLLAMA_HOST=\"box:1\"\n{OWN}"));
        assert_eq!(without_ours(&first), None);
        let again = merged(&format!("{first}# mine\nMINE=7\n"), &variables(&[("OLLAMA_HOST", "box:2")]));
        assert_eq!(
            again,
            format!("{HEADER}KEY=\"a\\\"b\\\\c\\$d\"\nOLLAMA_HOST=\"box:2\"\n{OWN}# mine\nMINE=7\n")
        );
        assert_eq!(merged(&again, &variables(&[("OLLAMA_HOST", "box:2")])), again, "once is enough");
        assert_eq!(names(&again), ["KEY", "OLLAMA_HOST", "MINE"]);
        assert_eq!(without_ours(&again), Some("# mine\nMINE=7\n"));
    }

    #[test]
    fn a_file_that_was_there_before_comes_back() {
        let mine = "# my own\nMINE=1\n";
        assert_eq!(without_ours(mine), Some(mine));
        assert_eq!(without_ours(&merged(mine, &variables(&[("KEY", "k")]))), Some(mine));
    }

    #[test]
    fn what_cannot_stand_on_a_line_is_not_carried() {
        assert_eq!(["", "a\nB=1", "a b"].map(may_be_carried), [false, false, true]);
    }
}
