//! An answer to `generate`: who gave it, and its text, whole or piece by piece.

use bytes::Bytes;
use hyper::{HeaderMap, Response, body::Incoming};
use serde::Deserialize;

use super::{ClientError, feed::Events};

/// Who answered, as the response head tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnsweredBy {
    /// The request's id.
    pub request_id: Option<String>,
    /// The server.
    pub server: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// How far from what was asked the answer is: `no`, `equivalent`, `alternative`, `cloud`.
    pub substituted: Option<String>,
}

impl AnsweredBy {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let header = |name| headers.get(name).and_then(|it| it.to_str().ok()).map(str::to_owned);
        Self {
            request_id: header("x-lovable-request-id"),
            server: header("x-lovable-server"),
            model: header("x-lovable-model"),
            substituted: header("x-lovable-substituted"),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Who gives it. In an answer whose head went out before a server was
    /// chosen, nothing is known here.
    pub by: AnsweredBy,
    /// Its pieces; a whole answer is one piece.
    pub stream: Stream,
}

/// Where the pieces come from.
#[derive(Debug)]
pub struct Stream(Source);

#[derive(Debug)]
enum Source {
    Whole(Option<Bytes>),
    Events { events: Events, finished: bool, over: bool },
}

/// A piece of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The JSON as it came.
    pub raw: Bytes,
    /// Text of the answer; may be empty.
    pub text: String,
    /// What the model thinks before it says something; may be empty.
    pub thought: String,
    /// Why the answer ends here: `stop`, `length`, …
    pub reason: Option<String>,
    /// The model, as the answer itself names it.
    pub model: Option<String>,
    /// How many tokens the answer has, where that is told: near its end.
    pub output_tokens: Option<u64>,
}

impl Answer {
    pub(super) fn whole(by: AnsweredBy, raw: Bytes) -> Self {
        Self { by, stream: Stream(Source::Whole(Some(raw))) }
    }

    pub(super) fn streamed(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let source = Source::Events { events: Events::new(body), finished: false, over: false };
        Self { by: AnsweredBy::read(&head.headers), stream: Stream(source) }
    }
}

impl Stream {
    /// The next piece; `None` after a whole answer. An answer that ends without
    /// a reason is an error, and so is one that says so itself.
    pub async fn next(&mut self) -> Option<Result<Piece, ClientError>> {
        match &mut self.0 {
            Source::Whole(raw) => raw.take().map(read),
            Source::Events { over: true, .. } => None,
            Source::Events { events, finished, over } => {
                let piece = match events.next().await {
                    Some(Ok(data)) if &*data == b"[DONE]" => {
                        *over = true;
                        return if *finished { None } else { Some(Err(early_end())) };
                    }
                    Some(Ok(data)) => read(data),
                    Some(Err(error)) => Err(error),
                    None => Err(early_end()),
                };
                match &piece {
                    Ok(piece) => *finished |= piece.reason.is_some(),
                    Err(_) => *over = true,
                }
                Some(piece)
            }
        }
    }
}

fn early_end() -> ClientError {
    ClientError::BrokenOff { code: None, message: "it ended in the middle".to_owned(), raw: Bytes::new() }
}

/// The little that is needed of a chat completion or a chunk of one.
#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<Broken>,
    model: Option<String>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(alias = "message")]
    delta: Option<Said>,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Said {
    content: Option<String>,
    // Servers do not agree on a name for it.
    reasoning: Option<serde_json::Value>,
    reasoning_content: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Broken {
    code: Option<serde_json::Value>,
    message: Option<String>,
}

fn read(raw: Bytes) -> Result<Piece, ClientError> {
    let completion: Completion = serde_json::from_slice(&raw).map_err(|error| {
        ClientError::Unreadable(format!("line {}, column {}", error.line(), error.column()))
    })?;
    if let Some(error) = completion.error {
        return Err(ClientError::BrokenOff {
            code: error.code.and_then(|it| it.as_str().map(str::to_owned)),
            message: error.message.unwrap_or_else(|| "no reason was given".to_owned()),
            raw,
        });
    }
    let output_tokens = completion.usage.and_then(|it| it.completion_tokens);
    let piece = Piece { raw, model: completion.model, output_tokens, ..Piece::default() };
    let Some(choice) = completion.choices.into_iter().next() else { return Ok(piece) };
    let said = choice.delta.unwrap_or_default();
    let thought = said.reasoning.or(said.reasoning_content);
    Ok(Piece {
        thought: thought.and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default(),
        text: said.content.unwrap_or_default(),
        reason: choice.finish_reason,
        ..piece
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &'static str, text: &str, reason: Option<&str>) {
        let piece = read(Bytes::from_static(json.as_bytes())).unwrap();
        assert_eq!((piece.text.as_str(), piece.reason.as_deref()), (text, reason), "{json}");
    }

    #[test]
    fn text_and_reason_are_found_in_chunks_and_whole_answers() {
        check(r#"{"choices":[{"delta":{"content":"hi"}}]}"#, "hi", None);
        check(r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, "", Some("stop"));
        check(r#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#, "", None);
        check(
            r#"{"choices":[{"message":{"content":"whole"},"finish_reason":"length"}]}"#,
            "whole",
            Some("length"),
        );
        check(r#"{"choices":[],"usage":{"prompt_tokens":1}}"#, "", None);
    }

    #[test]
    fn thinking_is_no_text() {
        let piece =
            read(Bytes::from_static(br#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#)).unwrap();
        assert_eq!((piece.thought.as_str(), piece.text.as_str()), ("hm", ""));
    }

    #[test]
    fn the_model_and_the_count_are_told_where_the_server_tells_them() {
        let piece =
            read(Bytes::from_static(br#"{"model":"m","choices":[],"usage":{"completion_tokens":7}}"#));
        let piece = piece.unwrap();
        assert_eq!((piece.model.as_deref(), piece.output_tokens), (Some("m"), Some(7)));
        assert_eq!(read(Bytes::from_static(br#"{"usage":null}"#)).unwrap().output_tokens, None);
    }

    #[test]
    fn an_error_in_the_stream_is_an_error() {
        let error = read(Bytes::from_static(br#"{"error":{"code":"all_servers_failed","message":"sad"}}"#));
        let Err(ClientError::BrokenOff { code, message, .. }) = error else { panic!("{error:?}") };
        assert_eq!((code.as_deref(), message.as_str()), (Some("all_servers_failed"), "sad"));
    }
}
