//! Judges each event of a stream before its bytes go on.
//!
//! A stream is whole only when every choice that began has had a finish reason,
//! and then `[DONE]` or a clean end came. Neither alone proves anything: vLLM
//! sends `[DONE]` after an error event, Ollama ends cleanly after a runner
//! died, and `transformers serve` never sends `[DONE]`.

use crate::{
    dialect::openai::chunk::{Choices, Chunk, Finish},
    fault::Cause,
    generate::{Operation, Reason, Usage},
};

/// What one event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has text, thinking, a refusal or a piece of a tool call.
    Content,
    /// It has nothing yet: a role, an empty delta.
    Quiet,
    /// It says why a choice ended, and nothing else.
    Finish,
    /// Only token counts, after the answer. Drop it when the caller did not ask.
    Usage,
    /// The terminator.
    Done,
    /// The server reports an error. The data has its words.
    Error,
    /// No chunk of this dialect.
    Unreadable,
}

/// What one event is, and whether a choice ended with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What it is.
    pub verdict: Verdict,
    /// Whether it has a finish reason; content can come in the same event.
    pub finished: bool,
}

impl From<Verdict> for Judged {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, finished: false }
    }
}

/// Reads one stream.
#[derive(Clone, Debug)]
pub struct Reader {
    operation: Operation,
    /// A bit for each choice that began, and for each that ended.
    begun: u128,
    ended: u128,
    came: bool,
    content: bool,
    done: bool,
    failed: Option<Cause>,
    usage: Usage,
    reason: Option<Reason>,
    model: Option<String>,
}

impl Reader {
    /// A reader of an answer to this operation.
    pub fn new(operation: Operation) -> Self {
        Self {
            operation,
            begun: 0,
            ended: 0,
            came: false,
            content: false,
            done: false,
            failed: None,
            usage: Usage::default(),
            reason: None,
            model: None,
        }
    }

    /// Judges the data of one event.
    pub fn judge(&mut self, data: &[u8]) -> Judged {
        let judged = self.look(data);
        match judged.verdict {
            Verdict::Error => self.failed = self.failed.or(Some(Cause::ErrorEvent)),
            Verdict::Unreadable => self.failed = self.failed.or(Some(Cause::Unreadable)),
            Verdict::Done => self.done = true,
            Verdict::Content | Verdict::Quiet | Verdict::Finish | Verdict::Usage => self.came = true,
        }
        judged
    }

    fn look(&mut self, data: &[u8]) -> Judged {
        if data.trim_ascii() == b"[DONE]" {
            return Verdict::Done.into();
        }
        let Some(chunk) = Chunk::read(data) else { return Verdict::Unreadable.into() };
        if chunk.is_error() {
            return Verdict::Error.into();
        }
        let was_whole = self.is_whole();
        let usage = chunk.usage();
        let Some(choices) = &chunk.choices else {
            return match usage {
                Some(usage) => self.only_usage(usage).into(),
                None => Verdict::Unreadable.into(),
            };
        };
        let (content, finished) = match self.take(choices) {
            Ok(found) => found,
            Err(verdict) => return verdict.into(),
        };
        if self.model.is_none() {
            self.model = chunk.model();
        }
        self.content |= content;
        if let Some(usage) = usage {
            let after = choices.first.is_none() || was_whole && !content && !finished;
            if after {
                return self.only_usage(usage).into();
            }
            // Ollama's completions carry a count of zero in every chunk.
            if usage != (Usage { input_tokens: Some(0), output_tokens: Some(0) }) {
                self.usage = usage;
            }
        }
        let verdict = match (content, finished) {
            (true, _) => Verdict::Content,
            (false, true) => Verdict::Finish,
            (false, false) => Verdict::Quiet,
        };
        Judged { verdict, finished }
    }

    /// Takes note of the choices: whether there is content, and whether one ended.
    fn take(&mut self, choices: &Choices<'_>) -> Result<(bool, bool), Verdict> {
        let (mut content, mut finished) = (false, false);
        for choice in choices.iter() {
            // OpenAI allows 128.
            let bit = 1_u128.checked_shl(choice.index.unwrap_or(0)).ok_or(Verdict::Unreadable)?;
            self.begun |= bit;
            content |= choice.has_content(self.operation);
            match choice.finish() {
                Some(Finish::Whole(reason)) => {
                    self.ended |= bit;
                    self.reason = Some(reason);
                    finished = true;
                }
                Some(Finish::Failed) => return Err(Verdict::Error),
                None => {}
            }
        }
        Ok((content, finished))
    }

    fn only_usage(&mut self, usage: Usage) -> Verdict {
        self.usage = usage;
        Verdict::Usage
    }

    fn is_whole(&self) -> bool {
        self.begun != 0 && self.begun == self.ended
    }

    /// Whether the answer is whole now that the body is over. `clean` says
    /// whether it ended as its framing promised.
    pub fn end(&self, clean: bool) -> Result<(), Cause> {
        match self.failed {
            Some(cause) => Err(cause),
            None if self.is_whole() && (self.done || clean) => Ok(()),
            None if !self.came && (self.done || clean) => Err(Cause::Empty),
            None => Err(Cause::EarlyEnd),
        }
    }

    /// Whether content has come.
    pub fn has_content(&self) -> bool {
        self.content
    }

    /// Whether every choice that began has ended: only counts and the terminator
    /// can still come.
    pub fn has_finished(&self) -> bool {
        self.is_whole()
    }

    /// Whether the terminator has come. If not, the writer has to add it.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The counts that came last.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Why the model stopped.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// The model as the server names it.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }
}
