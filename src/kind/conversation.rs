//! A conversation with an endpoint: questions, answers, and what they prove.

use std::{borrow::Cow, net::IpAddr};

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::server::Sighting;

/// A question to an endpoint. Until a server is recognised only `GET`s are asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Path and query, with its slash.
    pub path: Cow<'static, str>,
    /// A body makes it a POST: allowed only to a server that is already
    /// recognised, and only where it is known to be harmless.
    pub post: Option<Bytes>,
    /// Headers that the question needs.
    pub headers: &'static [(&'static str, &'static str)],
}

impl Question {
    /// A `GET` of `path`.
    pub fn get(path: impl Into<Cow<'static, str>>) -> Self {
        Self { path: path.into(), post: None, headers: &[] }
    }

    /// A `POST` of a JSON body to `path`.
    pub fn post(path: impl Into<Cow<'static, str>>, body: impl Into<Bytes>) -> Self {
        Self { path: path.into(), post: Some(body.into()), headers: &[] }
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
    /// The address that was connected to, where that was one.
    pub at: Option<IpAddr>,
}

impl Answer {
    /// The first header of that name (given in small letters).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The body read as JSON.
    pub(super) fn json(&self) -> Json {
        // An endless list is megabytes of torn text, which is none the better for being built first.
        let read =
            serde_json::from_slice::<IgnoredAny>(&self.body).and_then(|_| serde_json::from_slice(&self.body));
        match read {
            Ok(value) => Json::Whole(value),
            Err(error) if error.is_eof() && !self.body.trim_ascii().is_empty() => Json::Torn,
            Err(_) => Json::None,
        }
    }

    /// The JSON of a success. LM Studio says 200 to every path it does not
    /// know, with a text as `error`: that is no success.
    pub(super) fn success(&self) -> Option<Value> {
        match self.json() {
            Json::Whole(value) if self.status == 200 && !value["error"].is_string() => Some(value),
            _ => None,
        }
    }

    /// Whether this is a page for people.
    pub(super) fn is_page(&self) -> bool {
        self.header("content-type").is_some_and(|it| it.to_ascii_lowercase().starts_with("text/html"))
            || self.body.trim_ascii_start().first() == Some(&b'<')
    }

    /// Whether this is a page whose title begins so: a hint, since anybody may call a page so.
    pub(super) fn is_titled(&self, title: &str) -> bool {
        let tag = b"<title>";
        let begins = |at: usize| self.body[at + tag.len()..].trim_ascii_start().starts_with(title.as_bytes());
        self.is_page() && memchr::memmem::find_iter(&self.body, tag).any(begins)
    }

    /// The word in `{"status": "…"}`, whatever the status of the answer.
    pub(super) fn said_status(&self) -> Option<String> {
        match self.json() {
            Json::Whole(value) => value["status"].as_str().map(str::to_owned),
            Json::Torn | Json::None => None,
        }
    }
}

/// Takes the array out of this field, if there is an object with such a field.
pub(super) fn take_array(value: &mut Value, field: &str) -> Option<Vec<Value>> {
    match value.get_mut(field)?.take() {
        Value::Array(entries) => Some(entries),
        _ => None,
    }
}

/// A body as JSON.
pub(super) enum Json {
    /// It is.
    Whole(Value),
    /// It begins so and was cut.
    Torn,
    /// It is something else.
    None,
}

/// The conversation with one endpoint so far: always begins with `GET /`.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    each: Vec<(Question, Answer)>,
    /// The instance id of whoever asks.
    asker: String,
}

impl Answers {
    /// The beginning of a conversation that the daemon of this instance id leads.
    pub fn of(asker: &str) -> Self {
        Self { each: Vec::new(), asker: asker.to_owned() }
    }

    /// Whether this is the instance id of whoever asks.
    pub(super) fn is_asker(&self, instance: &str) -> bool {
        self.asker == instance
    }

    /// Adds what was answered to a question.
    pub fn push(&mut self, question: Question, answer: Answer) {
        self.each.push((question, answer));
    }

    /// The answer to `GET path`, if it was asked.
    pub fn get(&self, path: &str) -> Option<&Answer> {
        self.each.iter().find(|(it, _)| it.post.is_none() && it.path == path).map(|(_, answer)| answer)
    }

    /// The answer to exactly this question, if it was asked.
    pub fn to(&self, question: &Question) -> Option<&Answer> {
        self.each.iter().find(|(it, _)| it == question).map(|(_, answer)| answer)
    }

    /// Everything asked and answered, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Question, &Answer)> {
        self.each.iter().map(|(question, answer)| (question, answer))
    }

    /// How many questions were asked.
    pub fn len(&self) -> usize {
        self.each.len()
    }

    /// Whether nothing was asked yet.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
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

impl Verdict {
    /// It is this.
    pub(super) fn proof(sighting: Sighting) -> Self {
        Self::Proof(Box::new(sighting))
    }
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
