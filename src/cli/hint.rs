//! What helps when something is missing.

use std::{io, path::PathBuf};

use super::Trouble;
use crate::{
    client::ClientError,
    kind::{KINDS, usual_ports},
};

/// What to try after a trouble, if we know.
pub(super) fn after(trouble: &Trouble, looked: &[PathBuf]) -> Option<String> {
    let Trouble::Client(error) = trouble else { return None };
    match error {
        ClientError::Unreachable { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Some("you may not open this socket: it belongs to another user or group\n".to_owned())
            }
            io::ErrorKind::InvalidInput => Some("the path is too long or no path of a socket\n".to_owned()),
            _ => Some(not_running(looked)),
        },
        ClientError::Silent { .. } => {
            Some("it takes connections but says nothing; its log may say why\n".to_owned())
        }
        ClientError::HungUp { .. }
        | ClientError::Api { .. }
        | ClientError::BrokenOff { .. }
        | ClientError::Unreadable(_) => None,
    }
}

fn not_running(looked: &[PathBuf]) -> String {
    let mut text = "It does not seem to be running. Start it:\n".to_owned();
    text.push_str("  lovabled                           in a terminal\n");
    text.push_str("  lovablectl service start           where it is installed as a service\n");
    text.push_str("  lovablectl doctor                  says what else may be wrong\n");
    if looked.len() > 1 {
        let places: Vec<_> = looked.iter().map(|it| it.display().to_string()).collect();
        text.push_str(&format!("Looked at {}; name another with --socket PATH.\n", places.join(" and ")));
    }
    text
}

/// What was looked for, and how to start one.
pub(super) fn no_server() -> String {
    let own = KINDS.iter().filter(|it| !matches!(it.id(), "lovable" | "openai-compatible"));
    // Whoever sells answers is not looked for.
    let own = own.filter(|it| it.provider().is_none());
    let own: Vec<_> = own
        .map(|it| match it.usual_ports().first() {
            Some(port) => format!("{} ({port})", it.name()),
            None => it.name().to_owned(),
        })
        .collect();
    format!(
        "\
Looked for
{}
and anything OpenAI-compatible,
at {} usual ports and at every other port of this machine that something listens on.
Start one:
  ollama serve                  Ollama
  llama-server -m MODEL.gguf    llama.cpp
  vllm serve MODEL              vLLM
  lms server start              LM Studio (or its switch: Developer, Start server)
or name one that is elsewhere:
  lovablectl servers add URL
To try lovable without any: lovabled --demo
",
        lines(&own),
        usual_ports().len(),
    )
}

/// Names in lines that fit on a terminal.
fn lines(names: &[String]) -> String {
    let mut lines = vec![String::from(" ")];
    for (at, name) in names.iter().enumerate() {
        let comma = if at + 1 < names.len() { "," } else { "" };
        if lines.last().is_some_and(|it| it.chars().count() + name.chars().count() > 86) {
            lines.push(String::from(" "));
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(&format!(" {name}{comma}"));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_was_looked_for_is_named_and_nothing_else() {
        let hint = no_server();
        for kind in KINDS.iter().filter(|it| it.id() != "lovable" && it.id() != "openai") {
            assert_eq!(hint.contains(kind.name()), kind.provider().is_none(), "{}: {hint}", kind.name());
        }
        assert!(hint.contains("Ollama (11434)"), "{hint}");
        assert!(hint.lines().all(|it| it.chars().count() <= 90), "{hint}");
    }
}
