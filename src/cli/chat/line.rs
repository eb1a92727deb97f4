//! Where lines come from: an editor on a terminal, or a pipe.
//!
//! Both block, so they are read on a thread of their own. Nothing that was typed is
//! written anywhere: the history ends with the conversation.

use std::{
    borrow::Cow,
    io::{self, BufRead, IsTerminal},
    sync::{Arc, Mutex, PoisonError},
};

use rustyline::{
    Behavior, Config, Editor, Helper, completion::Completer, error::ReadlineError, highlight::Highlighter,
    hint::Hinter, history::MemHistory, validate::Validator,
};

use super::command;
use crate::cli::{
    Trouble,
    out::{Ink, Look},
};

/// What comes next.
#[derive(Debug)]
pub(super) enum Line {
    /// A line, or several that were pasted.
    Text(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the end of the pipe.
    End,
}

/// Where lines come from.
pub(super) enum Lines {
    Terminal(Box<Editor<Completes, MemHistory>>),
    Pipe,
}

impl Lines {
    /// Whatever stdin is. `models` are the names that are completed; they may change.
    pub(super) fn of_stdin(models: Arc<Mutex<Vec<String>>>, look: Look) -> Result<Self, Trouble> {
        if !io::stdin().is_terminal() {
            return Ok(Self::Pipe);
        }
        // When stdout is a file the answers go there, and the editor to the terminal itself.
        let behavior = if io::stdout().is_terminal() { Behavior::Stdio } else { Behavior::PreferTerm };
        let config = Config::builder()
            .behavior(behavior)
            .auto_add_history(false)
            .completion_type(rustyline::CompletionType::List)
            .build();
        let history = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history).map_err(trouble)?;
        editor.set_helper(Some(Completes { models, look }));
        Ok(Self::Terminal(Box::new(editor)))
    }

    /// Whether a person types them.
    pub(super) fn are_typed(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// Reads the next one; gives itself back with it.
    pub(super) async fn next(self, prompt: &'static str) -> Result<(Self, Line), Trouble> {
        let read = tokio::task::spawn_blocking(move || {
            let mut lines = self;
            let line = lines.read(prompt);
            line.map(|line| (lines, line))
        });
        read.await.map_err(|error| Trouble::Failed(error.to_string()))?
    }

    fn read(&mut self, prompt: &str) -> Result<Line, Trouble> {
        match self {
            Self::Terminal(editor) => match editor.readline(prompt) {
                Ok(line) => Ok(Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(trouble(error)),
            },
            Self::Pipe => {
                let mut line = Vec::new();
                let read = io::stdin().lock().read_until(b'\n', &mut line);
                read.map_err(|error| Trouble::Failed(format!("cannot read stdin: {error}")))?;
                if line.is_empty() {
                    return Ok(Line::End);
                }
                let line = String::from_utf8(line)
                    .map_err(|_| Trouble::Usage("stdin is not text in UTF-8".to_owned()))?;
                let line = line.strip_suffix('\n').unwrap_or(&line);
                Ok(Line::Text(line.strip_suffix('\r').unwrap_or(line).to_owned()))
            }
        }
    }

    /// Remembers what was said, for the arrow keys.
    pub(super) fn remember(&mut self, text: &str) {
        if let Self::Terminal(editor) = self {
            // An entry that does not fit is one that cannot be had back; nothing else depends on it.
            let _ = editor.add_history_entry(text);
        }
    }
}

fn trouble(error: ReadlineError) -> Trouble {
    Trouble::Failed(format!("cannot read from the terminal: {error}"))
}

/// What the editor asks of us.
pub(super) struct Completes {
    models: Arc<Mutex<Vec<String>>>,
    look: Look,
}

impl Completer for Completes {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(command::complete(&line[..at], &models))
    }
}

impl Highlighter for Completes {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Owned(self.look.paint(Ink::Bold, prompt))
    }
}

impl Hinter for Completes {
    type Hint = String;
}
impl Validator for Completes {}
impl Helper for Completes {}
