//! An answer before it is written: its pieces, and which language gives them their form.
//!
//! The orders and fields of each language are those of recorded servers where there are
//! recordings, else those of their documentation.

use serde_json::{Value, json};

use super::{
    ask::{Ask, Tongue},
    messages, ollama, openai,
    pieces::{Bit, Pieces},
    responses,
    shape::Shape,
};

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Stop,
    Length,
    Calls,
}

/// An answer and what it must know to be written.
pub(super) struct Voice<'a> {
    pub(super) shape: Shape,
    pub(super) ask: &'a Ask,
    /// The model's name as it is echoed.
    pub(super) model: &'a str,
    pub(super) pieces: Pieces<'a>,
    pub(super) number: u64,
    pub(super) created: u64,
    /// The most tokens of the prompt that fit.
    pub(super) context: u64,
}

/// How one language writes answers.
pub(super) trait Writes: Sync {
    /// The content type of a stream.
    fn content_type(&self, voice: &Voice<'_>) -> &'static str;

    /// What comes before the first piece, where the shape has something.
    fn opening(&self, voice: &Voice<'_>) -> Option<String>;

    /// The events of one piece. `last` is true for the last one of a whole answer.
    fn piece(&self, voice: &Voice<'_>, index: usize, last: bool) -> String;

    /// The chunks after the last piece: reason, counts, terminator.
    fn ending(&self, voice: &Voice<'_>) -> Vec<String>;

    /// A terminator, whether there was a reason or not.
    fn terminator(&self, voice: &Voice<'_>) -> String;

    /// A piece with nothing in it, as of a runner that has died.
    fn blank(&self, voice: &Voice<'_>) -> String;

    /// What keeps a stream alive and says nothing.
    fn comment(&self) -> &'static [u8] {
        b": still here\n\n"
    }

    /// What ends a frame.
    fn frame_end(&self) -> &'static [u8] {
        b"\n\n"
    }

    /// An error inside a stream that has begun.
    fn error(&self, voice: &Voice<'_>, message: &str) -> String;

    /// A whole answer. Without `finished` its finish reason is missing.
    fn whole(&self, voice: &Voice<'_>, finished: bool) -> String;

    /// A whole answer with nothing in it.
    fn nothing(&self) -> Value;
}

impl Tongue {
    pub(super) fn writes(self) -> &'static dyn Writes {
        match self {
            Self::OpenAi => &openai::OpenAi,
            Self::Responses => &responses::Responses,
            Self::Messages => &messages::Messages,
            Self::Ollama => &ollama::Ollama,
        }
    }
}

impl Voice<'_> {
    pub(super) fn writes(&self) -> &'static dyn Writes {
        self.ask.gate.tongue().writes()
    }

    /// `Length` when the request's limit cut it, else `Stop`.
    pub(super) fn reason(&self) -> Reason {
        match self.ask.max_tokens {
            _ if !self.pieces.calls().is_empty() => Reason::Calls,
            _ if self.pieces.stop.is_some() => Reason::Stop,
            Some(limit) if self.pieces.count() >= limit => Reason::Length,
            _ => Reason::Stop,
        }
    }

    /// What the prompt has in tokens; where it was cut in silence, what is left of it.
    pub(super) fn prompt_tokens(&self) -> usize {
        let asked = (self.ask.weight - self.pieces.begun_bytes) / 4 + 1;
        (asked + self.pieces.begun()).min(usize::try_from(self.context).unwrap_or(usize::MAX))
    }

    /// Vectors that differ by the place of their input.
    pub(super) fn vectors(&self) -> Vec<Vec<f64>> {
        let vector = |index: usize| (1..=8).map(|it| (index + it) as f64 / 16.0).collect();
        (0..self.ask.inputs).map(vector).collect()
    }

    /// Log probabilities of piece `index`, if they are asked for and it has any.
    pub(super) fn logprob(&self, index: usize) -> Option<Value> {
        let alternatives = self.ask.logprobs?;
        let Bit::Text(said) = self.pieces.at(index) else { return None };
        let likely = -0.125 * (index + 1) as f64;
        let token =
            |text: String, logprob: f64| json!({"bytes": text.as_bytes(), "token": text, "logprob": logprob});
        let mut whole = token(said.clone(), likely);
        whole["top_logprobs"] = (0..alternatives)
            .map(|nth| match nth {
                0 => token(said.clone(), likely),
                nth => token(format!(" a{nth}"), likely - nth as f64),
            })
            .collect();
        Some(whole)
    }

    /// Log probabilities of all of it.
    pub(super) fn logprobs(&self) -> Option<Vec<Value>> {
        self.ask.logprobs?;
        Some((0..self.pieces.count()).filter_map(|index| self.logprob(index)).collect())
    }
}

/// As a JSON string.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
