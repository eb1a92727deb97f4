//! The table of dialects: one wire language per folder, from both sides.
//!
//! Facing the caller a dialect peeks at requests, understands them, writes
//! answers, refuses and breaks off; facing a server it readdresses the caller's
//! bytes or asks in its own words, and reads what comes back. All of it is pure:
//! byte slices in, verdicts, events and bytes out. A dialect knows no server, no
//! socket and no failover. Adding one is one folder, its line in `Door`, and
//! snapshots.

pub mod anthropic;
pub mod beginning;
pub mod bridge;
mod fields;
pub mod frames;
mod json;
mod listed;
pub mod most;
pub mod ollama;
pub mod openai;
pub mod own;
pub mod responses;

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};

pub use self::listed::Listed;
use crate::{
    fault::{Cause, Failure},
    generate::{Answer, Begun, Event, Head, Meaning, Operation, Reason, Usage},
};

/// One path of one dialect that generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Door {
    /// OpenAI `/v1/chat/completions`.
    OpenAiChat,
    /// OpenAI `/v1/completions`.
    OpenAiComplete,
    /// OpenAI `/v1/embeddings`.
    OpenAiEmbed,
    /// OpenAI `/v1/responses`.
    Responses,
    /// Anthropic `/v1/messages`.
    Messages,
    /// Ollama `/api/chat`.
    OllamaChat,
    /// Ollama `/api/generate`: a conversation of one turn, or with `raw` or `suffix` a text to continue.
    OllamaGenerate,
    /// Ollama `/api/embed`.
    OllamaEmbed,
    /// Ollama `/api/embeddings`: one text, the older form.
    OllamaEmbeddings,
}

impl Door {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::OpenAiChat,
        Self::OpenAiComplete,
        Self::OpenAiEmbed,
        Self::Responses,
        Self::Messages,
        Self::OllamaChat,
        Self::OllamaGenerate,
        Self::OllamaEmbed,
        Self::OllamaEmbeddings,
    ];

    /// The language that is spoken there.
    pub fn dialect(self) -> &'static dyn Dialect {
        match self {
            Self::OpenAiChat | Self::OpenAiComplete | Self::OpenAiEmbed => &openai::OpenAi,
            Self::Responses => &responses::Responses,
            Self::Messages => &anthropic::Anthropic,
            Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed | Self::OllamaEmbeddings => {
                &ollama::Ollama
            }
        }
    }

    /// Where it is, at a server and at us.
    pub fn path(self) -> &'static str {
        match self {
            Self::OpenAiChat => "/v1/chat/completions",
            Self::OpenAiComplete => "/v1/completions",
            Self::OpenAiEmbed => "/v1/embeddings",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::OllamaChat => "/api/chat",
            Self::OllamaGenerate => "/api/generate",
            Self::OllamaEmbed => "/api/embed",
            Self::OllamaEmbeddings => "/api/embeddings",
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.path())
    }
}

/// One wire language.
pub trait Dialect: Sync {
    /// Its name in records and statistics: `openai`.
    fn id(&self) -> &'static str;

    /// How a stream is cut.
    fn framing(&self) -> Framing;

    // Facing the caller.

    /// Finds what routing needs, in one pass and without copying.
    fn peek(&self, door: Door, body: &Bytes) -> Result<Request, Failure>;

    /// Takes the whole request apart. Only done when it must be said in another language.
    fn understand(&self, door: Door, body: &[u8]) -> Result<Meaning, Failure>;

    /// Writes the stream of an answer.
    fn writer(&self, door: Door, voice: Voice) -> Box<dyn Writer>;

    /// Writes the rest of a stream whose beginning the caller has from a server, whose first
    /// frame with content held this. What was said is written to it before, and thrown away.
    fn writer_after(&self, door: Door, voice: Voice, _first: &[u8]) -> Box<dyn Writer> {
        self.writer(door, voice)
    }

    /// Writes a whole answer.
    fn whole(&self, door: Door, answer: &Answer, voice: &Voice) -> Bytes;

    /// The body that tells of a failure, before the answer has begun.
    fn refuse(&self, failure: &Failure, request_id: &str) -> Bytes;

    /// What tells of a failure in a stream that has begun, of which the caller has had that
    /// many frames. Nothing follows it.
    fn break_off(&self, failure: &Failure, request_id: &str, frames: u64) -> Bytes;

    /// What keeps a waiting stream alive and changes nothing for any client; `model` as the caller asked for it.
    fn keep_alive(&self, door: Door, model: &str) -> Bytes;

    // Facing a server.

    /// The caller's bytes for a server that speaks its language: only what `to` names is different.
    fn readdress(&self, request: &Request, body: &Bytes, to: &To<'_>) -> Bytes;

    /// What is asked at this door, as a question to go on with an answer that another server
    /// began. `None` where that cannot be said so; asking for what was meant may do.
    fn go_on(&self, _door: Door, _asked: &Bytes, _beginning: &Beginning<'_>) -> Option<Bytes> {
        None
    }

    /// What is asked, with another limit in place of the one that it has.
    fn limit(&self, asked: &Bytes, _max_tokens: u64) -> Bytes {
        asked.clone()
    }

    /// Asks for no answer to this conversation, but for the text that the model would see of it.
    fn ask_rendered(&self, _meaning: &Meaning, _to: &To<'_>) -> Option<Bytes> {
        None
    }

    /// The text that the model would see, out of what was answered to that.
    fn rendered(&self, _answer: &[u8]) -> Option<String> {
        None
    }

    /// Says it in this language, or says by name what cannot be said.
    fn ask(&self, door: Door, meaning: &Meaning, to: &To<'_>) -> Result<Asked, Lack>;

    /// Reads the stream of an answer.
    fn reader(&self, door: Door, operation: Operation) -> Box<dyn Reader>;

    /// Makes one whole answer of a stream in the same language, what nobody here has a name for with it.
    fn fold(&self, door: Door, operation: Operation) -> Box<dyn Fold>;

    /// Judges the body of a 200 that came whole. Where `events` is given, says what it means as well.
    fn judge_plain(
        &self,
        door: Door,
        operation: Operation,
        body: &[u8],
        events: Option<&mut Vec<Event>>,
    ) -> Result<Plain, Cause>;
}

/// How a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events, `text/event-stream`.
    Events,
    /// One JSON object a line, `application/x-ndjson`.
    Lines,
}

impl Framing {
    /// The content type of a stream.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// A request as it was peeked at.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where it came in.
    pub door: Door,
    /// What routing needs.
    pub head: Head,
    /// Whether the caller gets token counts in its stream: it asked, or its language always has them.
    pub asks_usage: bool,
    /// How many answers it wants.
    pub choices: u64,
    /// Whether it wants log probabilities.
    pub logprobs: bool,
    /// Where OpenAI's fields stand in the body.
    spans: openai::Spans,
}

/// To whom a request goes, and how.
#[derive(Clone, Copy, Debug)]
pub struct To<'a> {
    /// The model's name there.
    pub model: &'a str,
    /// Whether the server shall stream.
    pub stream: bool,
    /// Whether a stream shall end with token counts.
    pub ask_usage: bool,
    /// Whether `max_completion_tokens` must be called `max_tokens` there.
    pub max_tokens: bool,
    /// How whoever sells answers is asked; `None` for people's own servers.
    pub sold: Option<Sold>,
}

/// How whoever sells answers is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sold {
    /// Whether `max_tokens` must be called `max_completion_tokens` there.
    pub newer: bool,
    /// Whether it refuses what OpenAI has no word for.
    pub strict: bool,
    /// The limit of the answer where the caller gave none: what it costs must be bounded.
    pub at_most: Option<u64>,
}

/// What a server is told of an answer that it is to go on with.
#[derive(Clone, Copy)]
pub struct Beginning<'a> {
    /// What was thought.
    pub thinking: &'a str,
    /// What was said. Where that is nothing the thinking is not over.
    pub text: &'a str,
    /// How many tokens are left of the caller's limit, if it gave one.
    pub max_tokens: Option<u64>,
    /// Whether the server goes on only where it is told to by vLLM's two flags.
    pub flags: bool,
}

/// A request in a server's language.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The body.
    pub body: Bytes,
    /// The text of the answer is the arguments of a call of this tool: how a forced call is
    /// asked of a language that cannot force one. `bridge::Calling` makes it a call again.
    pub forced: Option<String>,
}

impl From<Bytes> for Asked {
    fn from(body: Bytes) -> Self {
        Self { body, forced: None }
    }
}

/// What cannot be said in a language: the field, in the field's words, and why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lack(pub String);

/// As whom an answer is given.
#[derive(Clone, Debug)]
pub struct Voice {
    /// Our id of the request, unique; ids in the answer are made of it.
    pub id: String,
    /// The model that answers.
    pub model: String,
    /// When the request came, milliseconds since 1970.
    pub at_ms: u64,
    /// How long ago that was when the answer began.
    pub waited: Duration,
    /// Whether the caller gets token counts in its stream.
    pub asks_usage: bool,
    /// What kind of work it was.
    pub operation: Operation,
    /// The caller's own request, for what an answer repeats of it.
    pub request: Bytes,
}

/// Writes one stream to a caller: events in, bytes out.
pub trait Writer: Send {
    /// Writes what came. Bytes may be held back until a later event.
    fn write(&mut self, event: Event, out: &mut BytesMut);

    /// The answer is whole, so long after the request came: writes what was held back, the
    /// reason, the counts and the terminator.
    fn finish(&mut self, took: Duration, out: &mut BytesMut);

    /// How many bytes are held back or kept for the end, about.
    fn held(&self) -> usize {
        0
    }
}

/// Reads one stream of a server.
pub trait Reader: Send {
    /// Judges the data of one frame. Where `events` is given, says what it means as well.
    fn read(&mut self, data: &[u8], events: Option<&mut Vec<Event>>) -> Judged;

    /// Judges the data of one frame, and keeps what it says of an answer that has not ended.
    fn read_on(&mut self, data: &[u8], begun: &mut Begun) -> Judged {
        let mut events = Vec::new();
        let judged = self.read(data, Some(&mut events));
        if judged.verdict == Verdict::Content && !judged.finished {
            events.iter().for_each(|event| begun.add(event));
        }
        judged
    }

    /// Whether the answer is whole now that the body is over. `clean` says whether
    /// it ended as its framing promised.
    fn end(&self, clean: bool) -> Result<(), Cause>;

    /// What must be added to a stream that passes through and is whole without its terminator.
    fn missing_terminator(&self) -> Bytes;

    /// The counts that came last.
    fn usage(&self) -> Usage;

    /// Why the model stopped.
    fn reason(&self) -> Option<Reason>;
}

/// Makes one whole answer out of a stream in the same language.
pub trait Fold: Send {
    /// Adds the data of one frame that was judged to be good.
    fn add(&mut self, data: &[u8]);

    /// How many bytes are held, about.
    fn held(&self) -> usize;

    /// Whether something came that cannot be put together.
    fn is_broken(&self) -> bool;

    /// The whole answer. It must have been judged to be whole.
    fn finish(self: Box<Self>) -> Result<Bytes, Cause>;
}

/// What one frame is.
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
    /// No frame of this dialect.
    Unreadable,
}

/// What one frame is, and whether a choice ended with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What it is.
    pub verdict: Verdict,
    /// Whether it has a finish reason; content can come in the same frame.
    pub finished: bool,
}

impl From<Verdict> for Judged {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, finished: false }
    }
}

/// What a whole answer says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plain {
    /// Its counts.
    pub usage: Usage,
    /// Why the model stopped.
    pub reason: Option<Reason>,
    /// The model as the server names it.
    pub model: Option<String>,
}
