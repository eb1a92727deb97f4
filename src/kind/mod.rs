//! The table of kinds: one sort of server per file, as data plus one pure conversation.
//!
//! A kind says which ports it usually has, which questions prove it, what its
//! models are, and what its refusals mean. It never does I/O and knows of no
//! other kind. Recognition begins with what one `GET /` says; each further
//! question must be earned by an answer already seen; a proof is a fact of that
//! server (a path and a field), never a port. Adding a kind is one file, one
//! line in `KINDS`, one directory of recorded replies.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{fault::Cause, server::Sighting};

/// A question to an endpoint. Until a server is recognised only `GET`s are asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Path and query, with its slash.
    pub path: Cow<'static, str>,
    /// A body makes it a POST: allowed only to a server that is already
    /// recognised, and only where it is known to be harmless.
    pub post: Option<Bytes>,
}

impl Question {
    /// A `GET` of `path`.
    pub fn get(path: impl Into<Cow<'static, str>>) -> Self {
        Self { path: path.into(), post: None }
    }

    /// A `POST` of a JSON body to `path`.
    pub fn post(path: impl Into<Cow<'static, str>>, body: impl Into<Bytes>) -> Self {
        Self { path: path.into(), post: Some(body.into()) }
    }
}

/// What an endpoint said. The body is cut at the prober's limit.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers, names in small letters.
    pub headers: Vec<(String, String)>,
    /// Body, as far as it was read.
    pub body: Bytes,
}

impl Answer {
    /// The first header of that name (given in small letters).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// The conversation with one endpoint so far: always begins with `GET /`.
#[derive(Clone, Debug, Default)]
pub struct Answers(Vec<(Question, Answer)>);

impl Answers {
    /// Adds what was answered to a question.
    pub fn push(&mut self, question: Question, answer: Answer) {
        self.0.push((question, answer));
    }

    /// The answer to `GET path`, if it was asked.
    pub fn get(&self, path: &str) -> Option<&Answer> {
        self.0.iter().find(|(it, _)| it.post.is_none() && it.path == path).map(|(_, answer)| answer)
    }

    /// The answer to exactly this question, if it was asked.
    pub fn to(&self, question: &Question) -> Option<&Answer> {
        self.0.iter().find(|(it, _)| it == question).map(|(_, answer)| answer)
    }

    /// How many questions were asked.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was asked yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the answers so far prove.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is this.
    Proof(Box<Sighting>),
    /// One more question, whose answer decides further.
    Ask(Question),
    /// Something that may become a server: it starts, loads or fails just now.
    NotYet,
    /// Something else. Conclusive until the listener changes.
    No,
}

/// A refusal as a server sent it.
#[derive(Clone, Copy)]
pub struct Refusal<'a> {
    /// Status, 400 and above.
    pub status: u16,
    /// `retry-after`, in whole seconds, where it was sent.
    pub retry_after: Option<u64>,
    /// Body, cut at a limit. May quote the prompt.
    pub body: &'a [u8],
}

/// One sort of server.
pub trait Kind: Sync {
    /// Its id in the contract: `ollama`.
    fn id(&self) -> &'static str;

    /// Its name for people: `Ollama`.
    fn name(&self) -> &'static str;

    /// The ports that it uses by default, likeliest first.
    fn usual_ports(&self) -> &'static [u16];

    /// What the answers so far prove, as far as this kind can tell.
    fn recognise(&self, answers: &Answers) -> Verdict;

    /// What a refusal means; `None` leaves it to the status.
    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause>;

    /// Whether hanging up on a plain (not streamed) request frees its slot.
    fn plain_is_cancelled(&self) -> bool;

    /// Whether it silently drops `max_completion_tokens` and wants `max_tokens`.
    fn wants_max_tokens(&self) -> bool {
        false
    }
}
