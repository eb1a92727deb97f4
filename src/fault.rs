//! What can go wrong: `Fault` is for us, `Failure` is for the caller.
//!
//! A fault knows at which stage an attempt stopped, for what cause, and whose
//! side that was on; failover needs no more. A failure knows its status and its
//! public message. How a dialect prints a failure is not known here, and no
//! server's own words are in a fault: they may quote a prompt, so they travel
//! beside it, to the caller only.

use std::{fmt, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// How far an attempt had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// No connection yet.
    Connect,
    /// Connected, no response head yet.
    Head,
    /// A head, no content yet.
    FirstToken,
    /// Content had come.
    Content,
}

/// Why an attempt did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum Cause {
    /// Nobody listens there.
    Refused,
    /// No route, no such name, no such socket.
    Unreachable,
    /// The TLS handshake failed.
    Tls,
    /// It showed another TLS key than the one that is pinned.
    WrongPin,
    /// Its name leads farther away than the request may go.
    TooFar,
    /// It did not take the connection in time.
    ConnectTimeout,
    /// The connection broke.
    Reset,
    /// Nothing came in time for the first token.
    FirstTokenTimeout,
    /// Content stopped coming.
    Stalled,
    /// It fell silent, and answered nothing that it was asked on the side either: a process that
    /// is stopped, or gone.
    Unresponsive,
    /// A status that tells of a broken server, or one that nobody can place.
    Status,
    /// A redirect, which is never followed.
    Redirect,
    /// A head that is no HTTP, or too large.
    BadHead,
    /// A body that cannot be read: broken framing, broken JSON, a frame without end.
    Unreadable,
    /// A success with nothing in it.
    Empty,
    /// An end without a finish reason, or in the middle of the body.
    EarlyEnd,
    /// An error reported inside a success.
    ErrorEvent,
    /// It is busy and said when to come back, or not.
    Busy {
        /// For how long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// Whoever uses it has to pay first.
    NoCredit,
    /// It is loading its model.
    Loading,
    /// The prompt does not fit the context that it has.
    ContextOverflow,
    /// It does not have the model.
    ModelNotFound,
    /// It cannot do what is asked: no such route, no tools, no images.
    Unsupported,
    /// It wants another key (401).
    NeedsKey,
    /// It will not serve us (403).
    Forbidden,
    /// It hands requests on, and has nobody who answers this one.
    NobodyLeft,
    /// The body is larger than it takes (413).
    TooLarge,
    /// It may not be paid for: the limit of the day, or a disk that would not keep count.
    Unfunded,
    /// The person has forbidden it since it was chosen.
    Barred,
    /// The request is wrong for any server.
    Malformed,
    /// Our own bug.
    Internal,
}

impl Cause {
    /// Its name, as the store and the API have it.
    pub fn word(self) -> String {
        let named = serde_json::to_value(self).ok();
        let word = named.as_ref().and_then(|it| it.get("cause")).and_then(|it| it.as_str());
        word.unwrap_or_default().to_owned()
    }
}

/// How long whoever wants to be paid is left alone: a person has to notice, and to pay.
const PAYING: Duration = Duration::from_secs(600);

/// Whose side a fault was on, and so what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Next candidate, and a strike for this server.
    Server,
    /// Next candidate; this server is left alone for so long.
    Busy {
        /// What it asked for, if it did.
        retry_after: Option<Duration>,
    },
    /// Wait if nothing better is warm; its standing is unchanged.
    Loading,
    /// Next candidate; what it lacks is remembered, its standing unchanged.
    Misfit,
    /// Stop; the caller gets the server's words.
    Caller,
    /// Stop.
    Daemon,
}

/// Why an attempt did not work, for us: kept, counted, logged and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// How far it had come.
    pub stage: Stage,
    /// Why it stopped.
    #[serde(flatten)]
    pub cause: Cause,
    /// The status that the server gave, if it came to that.
    pub status: Option<u16>,
}

impl Fault {
    /// A fault without a status.
    pub fn new(stage: Stage, cause: Cause) -> Self {
        Self { stage, cause, status: None }
    }

    /// Whose side it was on.
    pub fn blame(&self) -> Blame {
        match self.cause {
            Cause::Refused
            | Cause::Unreachable
            | Cause::Tls
            | Cause::WrongPin
            | Cause::TooFar
            | Cause::ConnectTimeout
            | Cause::Reset
            | Cause::FirstTokenTimeout
            | Cause::Stalled
            | Cause::Unresponsive
            | Cause::Status
            | Cause::Redirect
            | Cause::BadHead
            | Cause::Unreadable
            | Cause::Empty
            | Cause::EarlyEnd
            | Cause::ErrorEvent => Blame::Server,
            Cause::Busy { retry_after } => Blame::Busy { retry_after },
            Cause::NoCredit => Blame::Busy { retry_after: Some(PAYING) },
            Cause::Loading => Blame::Loading,
            Cause::ContextOverflow
            | Cause::ModelNotFound
            | Cause::Unsupported
            | Cause::NeedsKey
            | Cause::Forbidden
            | Cause::NobodyLeft
            | Cause::Unfunded
            | Cause::Barred
            | Cause::TooLarge => Blame::Misfit,
            Cause::Malformed => Blame::Caller,
            Cause::Internal => Blame::Daemon,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = match self.cause {
            Cause::Refused => "refused the connection",
            Cause::Unreachable => "cannot be reached",
            Cause::Tls => "failed the TLS handshake",
            Cause::WrongPin => "showed another TLS key than the one that is pinned",
            Cause::TooFar => "has a name that leads farther away than is allowed",
            Cause::ConnectTimeout => "did not take the connection in time",
            Cause::Reset => "broke the connection",
            Cause::FirstTokenTimeout => "gave no first token in time",
            Cause::Stalled => "stopped in the middle of its answer",
            Cause::Unresponsive => "stopped answering anything",
            Cause::Status => "answered with an error",
            Cause::Redirect => "answered with a redirect",
            Cause::BadHead => "sent a response head that cannot be read",
            Cause::Unreadable => "sent a reply that cannot be read",
            Cause::Empty => "sent an empty answer",
            Cause::EarlyEnd => "ended its answer early",
            Cause::ErrorEvent => "reported an error inside its answer",
            Cause::Busy { .. } => "is busy",
            Cause::NoCredit => "has no credit left",
            Cause::Loading => "is loading its model",
            Cause::ContextOverflow => "has too small a context for this prompt",
            Cause::ModelNotFound => "does not have the model",
            Cause::Unsupported => "cannot do what is asked",
            Cause::NeedsKey => "wants a key",
            Cause::Forbidden => "refuses to serve us",
            Cause::NobodyLeft => "has nobody left who could answer",
            Cause::Unfunded => "may not be paid for now",
            Cause::Barred => "may not be asked any more",
            Cause::TooLarge => "does not take a body this large",
            Cause::Malformed => "calls the request malformed",
            Cause::Internal => "was asked wrongly by lovable",
        };
        match self.status {
            Some(status) => write!(f, "{cause} (status {status})"),
            None => f.write_str(cause),
        }
    }
}

/// What a server said when it refused. It may quote the prompt: it goes to the
/// caller of that very request and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Words {
    /// Status.
    pub status: u16,
    /// Its `content-type`.
    pub content_type: Option<String>,
    /// Its body.
    pub body: Bytes,
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Words({}, {} bytes)", self.status, self.body.len())
    }
}

/// A server that was tried in vain, for the message of `Exhausted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Its id.
    pub server: String,
    /// What it did.
    pub fault: Fault,
}

/// What the caller hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The request cannot be understood; the text says where.
    BadRequest(String),
    /// A field that no server of ours can honour.
    Unsupported(String),
    /// The prompt fits into no context that there is for the model.
    TooLong {
        /// The tokens of the prompt, estimated.
        tokens: u64,
        /// The tokens of the answer, where a server takes no request without room for them.
        answer: Option<u64>,
        /// The largest context.
        context: u64,
    },
    /// No such route.
    UnknownRoute(String),
    /// The route exists, the method does not.
    WrongMethod {
        /// The methods that exist, comma separated.
        allow: &'static str,
    },
    /// Nobody has ever had a model of that name.
    UnknownModel {
        /// The name.
        model: String,
        /// The nearest names that exist.
        nearest: Vec<String>,
    },
    /// Something named in the path does not exist: a server id, a request id.
    NotFound(String),
    /// The body is over the limit.
    BodyTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The caller did not send its body in time.
    SlowCaller,
    /// The caller may not do this; the text says why.
    Forbidden(String),
    /// The caller has no key, or a wrong one; the text says where the right one is.
    WrongKey(String),
    /// The request went round in a circle.
    Loop,
    /// A server's own refusal, passed on.
    Relayed(Words),
    /// Every candidate is busy.
    Busy {
        /// When to come back.
        retry_after: Duration,
    },
    /// Every candidate failed.
    Exhausted(Vec<Tried>),
    /// Nothing can serve this now; the text says why.
    NoServer(String),
    /// The deadline passed.
    OutOfTime {
        /// How long was waited.
        waited: Duration,
        /// Who was tried.
        tried: Vec<Tried>,
    },
    /// Our own bug.
    Internal,
}

impl Failure {
    /// The HTTP status, when it can still be sent.
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) | Self::Unsupported(_) | Self::TooLong { .. } => 400,
            Self::UnknownRoute(_) | Self::UnknownModel { .. } | Self::NotFound(_) => 404,
            Self::WrongMethod { .. } => 405,
            Self::SlowCaller => 408,
            Self::BodyTooLarge { .. } => 413,
            Self::WrongKey(_) => 401,
            Self::Forbidden(_) => 403,
            Self::Loop => 508,
            Self::Relayed(words) => words.status,
            Self::Busy { .. } => 429,
            Self::Exhausted(_) => 502,
            Self::NoServer(_) => 503,
            Self::OutOfTime { .. } => 504,
            Self::Internal => 500,
        }
    }

    /// A word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::Unsupported(_) => "unsupported",
            // OpenAI's own word, which clients shorten the conversation at.
            Self::TooLong { .. } => "context_length_exceeded",
            Self::UnknownRoute(_) => "unknown_route",
            Self::WrongMethod { .. } => "method_not_allowed",
            Self::UnknownModel { .. } => "model_not_found",
            Self::NotFound(_) => "not_found",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::SlowCaller => "request_timeout",
            Self::Forbidden(_) => "forbidden",
            Self::WrongKey(_) => "invalid_api_key",
            Self::Loop => "loop_detected",
            Self::Relayed(_) => "refused_by_server",
            Self::Busy { .. } => "busy",
            Self::Exhausted(_) => "all_servers_failed",
            Self::NoServer(_) => "no_server",
            Self::OutOfTime { .. } => "out_of_time",
            Self::Internal => "internal_error",
        }
    }

    /// A sentence for people. A relayed refusal has its own words instead.
    pub fn message(&self) -> String {
        match self {
            Self::BadRequest(text)
            | Self::Unsupported(text)
            | Self::Forbidden(text)
            | Self::WrongKey(text)
            | Self::NoServer(text)
            | Self::NotFound(text) => text.clone(),
            // The first words are Anthropic's own, at which its clients shorten the conversation.
            Self::TooLong { tokens, answer, context } => {
                let answer = answer.map(|it| format!(" and {it} for the answer")).unwrap_or_default();
                format!(
                    "prompt is too long: about {tokens} tokens (an estimate){answer} > {context} maximum, the \
                     largest context that there is for this model now"
                )
            }
            Self::UnknownRoute(path) => format!("no route `{path}`; see GET /lovable/v1/openapi.json"),
            Self::WrongMethod { allow } => format!("this route takes {allow}"),
            Self::UnknownModel { model, nearest } if nearest.is_empty() => {
                format!("no server offers `{model}`; see GET /v1/models")
            }
            Self::UnknownModel { model, nearest } => {
                format!("no server offers `{model}`; nearest: {}", nearest.join(", "))
            }
            Self::BodyTooLarge { limit } => format!("the body is larger than {limit} bytes ([limits] body)"),
            Self::SlowCaller => "the body did not arrive in time".to_owned(),
            Self::Loop => "this request has already passed through this daemon".to_owned(),
            Self::Relayed(words) => format!("the server refused the request with status {}", words.status),
            Self::Busy { retry_after } => {
                format!("every server is busy; try again in {} s", retry_after.as_secs_f64().ceil())
            }
            Self::Exhausted(tried) => format!("every server failed: {}", list(tried)),
            Self::OutOfTime { waited, tried } if tried.is_empty() => {
                format!("no content within {:.1} s", waited.as_secs_f64())
            }
            Self::OutOfTime { waited, tried } => {
                format!("no content within {:.1} s: {}", waited.as_secs_f64(), list(tried))
            }
            Self::Internal => "lovable made a mistake; the log of lovabled says more".to_owned(),
        }
    }

    /// When to come back, for `Retry-After`; every 429 and 503 has one.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } => Some(*retry_after),
            Self::NoServer(_) => Some(Duration::from_secs(2)),
            Self::Relayed(words) if matches!(words.status, 429 | 503) => Some(Duration::from_secs(2)),
            _ => None,
        }
    }

    /// Whether every candidate has been tried, so that a client should not try again by itself.
    pub fn all_tried(&self) -> bool {
        matches!(self, Self::Exhausted(_) | Self::OutOfTime { .. })
    }

    /// Whether it is the caller's own fault.
    pub fn is_callers(&self) -> bool {
        match self {
            Self::BadRequest(_)
            | Self::Unsupported(_)
            | Self::TooLong { .. }
            | Self::UnknownRoute(_)
            | Self::WrongMethod { .. }
            | Self::UnknownModel { .. }
            | Self::NotFound(_)
            | Self::BodyTooLarge { .. }
            | Self::SlowCaller
            | Self::Forbidden(_)
            | Self::WrongKey(_)
            | Self::Loop
            | Self::Relayed(_) => true,
            Self::Busy { .. }
            | Self::Exhausted(_)
            | Self::NoServer(_)
            | Self::OutOfTime { .. }
            | Self::Internal => false,
        }
    }
}

fn list(tried: &[Tried]) -> String {
    tried.iter().map(|it| format!("{} {}", it.server, it.fault)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_429_or_503_always_says_when_to_come_back() {
        let words = |status| Failure::Relayed(Words { status, content_type: None, body: Bytes::new() });
        for failure in [
            Failure::Busy { retry_after: Duration::from_secs(7) },
            Failure::NoServer(String::new()),
            words(429),
            words(503),
        ] {
            assert!(failure.retry_after().is_some(), "{failure:?}");
        }
        assert_eq!(words(400).retry_after(), None);
    }

    #[test]
    fn a_servers_words_are_in_no_debug_output() {
        let words = Words { status: 400, content_type: None, body: Bytes::from_static(b"secret prompt") };
        assert!(!format!("{:?}", Failure::Relayed(words.clone())).contains("secret"));
        assert!(!Failure::Relayed(words).message().contains("secret"));
    }

    #[test]
    fn the_message_names_each_server_and_what_it_did() {
        let tried = vec![
            Tried { server: "a".into(), fault: Fault::new(Stage::Connect, Cause::Refused) },
            Tried {
                server: "b".into(),
                fault: Fault { stage: Stage::Head, cause: Cause::Status, status: Some(500) },
            },
        ];
        assert_eq!(
            Failure::Exhausted(tried).message(),
            "every server failed: a refused the connection; b answered with an error (status 500)"
        );
    }
}
