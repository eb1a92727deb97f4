//! What a line of a conversation is: something for the model, or a word for us.

use std::path::PathBuf;

/// What a person has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing.
    Nothing,
    /// Something for the model.
    Text(String),
    /// Something for us.
    Command(Command),
    /// A word that begins as a command does and is none.
    Unknown(String),
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    /// Show the models, or ask this one from now on.
    Model(Option<String>),
    /// Show how the model is to behave, or say so.
    System(Option<String>),
    Retry,
    /// Write the conversation to a file; without a name it is asked for one.
    Save(Option<PathBuf>),
    Clear,
    Quit,
}

/// All of them, for completion and help.
pub(super) const COMMANDS: [(&str, &str, &str); 7] = [
    ("/model", "[NAME]", "list the models, or ask another one from now on"),
    ("/system", "[TEXT|-]", "show how the model is to behave, say so, or take it back"),
    ("/retry", "", "ask the last question again"),
    ("/save", "FILE", "write the conversation to FILE.md or FILE.json"),
    ("/clear", "", "forget the conversation"),
    ("/help", "", "show this"),
    ("/quit", "", "leave, as Ctrl-D does"),
];

impl Said {
    /// What `text` is. Only one line can be a command; a second `/` makes it text.
    pub(super) fn parse(text: &str) -> Self {
        let line = text.trim();
        if line.is_empty() {
            return Self::Nothing;
        }
        let Some(rest) = text.strip_prefix('/') else { return Self::Text(text.to_owned()) };
        if rest.starts_with('/') {
            return Self::Text(rest.to_owned());
        }
        let (word, rest) = match line.split_once(char::is_whitespace) {
            Some((word, rest)) => (word, Some(rest.trim()).filter(|it| !it.is_empty())),
            None => (line, None),
        };
        let command = match (word, rest) {
            ("/help" | "/?", None) => Command::Help,
            ("/quit" | "/exit" | "/bye", None) => Command::Quit,
            ("/clear", None) => Command::Clear,
            ("/retry", None) => Command::Retry,
            ("/model", name) => Command::Model(name.map(str::to_owned)),
            ("/system", text) => Command::System(text.map(str::to_owned)),
            ("/save", file) => Command::Save(file.map(PathBuf::from)),
            (word, _) => return Self::Unknown(word.to_owned()),
        };
        Self::Command(command)
    }
}

/// What could stand at the end of `line`: where it begins, and the words.
pub(super) fn complete(line: &str, models: &[String]) -> (usize, Vec<String>) {
    let begins = |it: &str, start: &str| it.to_lowercase().starts_with(&start.to_lowercase());
    if let Some(name) = line.strip_prefix("/model ") {
        let found = models.iter().filter(|it| begins(it, name)).cloned().collect();
        return (line.len() - name.len(), found);
    }
    if !line.starts_with('/') || line.contains(char::is_whitespace) {
        return (line.len(), Vec::new());
    }
    let found = COMMANDS.iter().filter(|it| begins(it.0, line));
    (0, found.map(|it| if it.1.is_empty() { it.0.to_owned() } else { format!("{} ", it.0) }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_text_or_a_command() {
        let text = |it: &str| Said::Text(it.to_owned());
        let command = Said::Command;
        let some = |it: &str| Some(it.to_owned());
        for (line, said) in [
            ("", Said::Nothing),
            (" \t\n", Said::Nothing),
            ("hello", text("hello")),
            (" /help is a command", text(" /help is a command")),
            ("//help", text("/help")),
            ("a /help", text("a /help")),
            ("/help", command(Command::Help)),
            ("/help ", command(Command::Help)),
            ("/help me", Said::Unknown("/help".to_owned())),
            ("/model", command(Command::Model(None))),
            ("/model  qwen3:8b ", command(Command::Model(some("qwen3:8b")))),
            ("/system", command(Command::System(None))),
            ("/system be brief, please", command(Command::System(some("be brief, please")))),
            ("/system be\nbrief", command(Command::System(some("be\nbrief")))),
            ("/retry", command(Command::Retry)),
            ("/save a b.md", command(Command::Save(Some("a b.md".into())))),
            ("/save", command(Command::Save(None))),
            ("/clear", command(Command::Clear)),
            ("/quit", command(Command::Quit)),
            ("/models", Said::Unknown("/models".to_owned())),
            ("/etc/passwd says", Said::Unknown("/etc/passwd".to_owned())),
            ("/", Said::Unknown("/".to_owned())),
        ] {
            assert_eq!(Said::parse(line), said, "{line:?}");
        }
    }

    #[test]
    fn commands_and_models_are_completed() {
        let models = ["qwen3:8b", "Qwen2", "llama3"].map(str::to_owned);
        let check = |line: &str, at: usize, expected: &[&str]| {
            let (start, found) = complete(line, &models);
            assert_eq!((start, found), (at, expected.iter().map(|it| (*it).to_owned()).collect()), "{line}");
        };
        check("/m", 0, &["/model "]);
        check("/s", 0, &["/system ", "/save "]);
        check("/", 0, &["/model ", "/system ", "/retry", "/save ", "/clear", "/help", "/quit"]);
        check("/model q", 7, &["qwen3:8b", "Qwen2"]);
        check("/model ", 7, &["qwen3:8b", "Qwen2", "llama3"]);
        check("hello /m", 8, &[]);
        check("/system x", 9, &[]);
        check("/model é", 7, &[]);
    }

    #[test]
    fn every_command_that_is_offered_is_one() {
        for (name, ..) in COMMANDS {
            assert!(matches!(Said::parse(name), Said::Command(_)), "{name}");
        }
    }
}
