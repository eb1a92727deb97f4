//! The faults that come instead of an answer.

use serde_json::Value;

use super::{
    ask::{Ask, Gate, Tongue},
    http::{Connection, Request},
    script::{Fault, Script},
    serve::Server,
    shape::{Refusal, Reply},
};

impl Server {
    /// Carries out a fault that comes instead of an answer.
    pub(super) async fn strike_first(
        &self,
        connection: &mut Connection,
        fault: Option<Fault>,
        struck: Strike<'_>,
    ) -> Option<Struck> {
        let Strike { gate, request, ask, script } = struck;
        let tongue = gate.tongue();
        let stream = ask.is_some_and(|ask| ask.stream);
        let kind = match (stream, tongue) {
            (false, _) => "application/json",
            (true, Tongue::Ollama) => "application/x-ndjson",
            (true, Tongue::OpenAi | Tongue::Responses | Tongue::Messages) => "text/event-stream",
        };
        let refuse = |refusal: &Refusal| Struck::Reply(self.shape.refuse_in(tongue, refusal));
        let status = |status: u16, words: &str| refuse(&Refusal::Status(status, words.to_owned()));
        let quoting = |code: u16| status(code, &format!("cannot do this: {}", quote(request)));
        let hinted = |struck: Struck| match struck {
            Struck::Reply(reply) => Struck::Reply(Reply { more: "Retry-After: 1\r\n".to_owned(), ..reply }),
            other => other,
        };
        Some(match fault? {
            Fault::Refuse | Fault::Reset => Struck::Reset,
            Fault::CloseBeforeHead => Struck::Over,
            Fault::StallBeforeHead => self.stall(connection).await,
            Fault::BadRequest => quoting(400),
            Fault::Unauthorized => refuse(&Refusal::NeedsKey),
            Fault::Forbidden => Struck::Reply(Reply {
                status: 403,
                content_type: None,
                body: String::new(),
                more: String::new(),
            }),
            Fault::ModelNotFound => {
                let model = ask.and_then(|ask| ask.model.clone()).unwrap_or_default();
                refuse(&Refusal::NoSuchModel(model))
            }
            Fault::TooLarge => status(413, "the body is too large"),
            Fault::Unprocessable => quoting(422),
            Fault::TooMany => status(429, "too many requests"),
            Fault::TooManyHint => hinted(status(429, "too many requests")),
            Fault::ServerError => quoting(500),
            Fault::BadGateway => Struck::Reply(Reply {
                content_type: Some("text/html"),
                ..Reply::text(502, "<html><h1>502 Bad Gateway</h1></html>")
            }),
            Fault::Unavailable => status(503, "the server is overloaded"),
            Fault::UnavailableHint => hinted(status(503, "the server is overloaded")),
            Fault::Loading => refuse(&Refusal::Loading),
            Fault::GatewayTimeout => Struck::Reply(Reply {
                status: 504,
                content_type: None,
                body: String::new(),
                more: String::new(),
            }),
            Fault::Redirect => Struck::Reply(Reply {
                more: format!("Location: {}\r\n", script.elsewhere),
                ..Reply::text(307, "")
            }),
            Fault::GiantHead => {
                let mut head = self.head(200, Some(kind), "");
                let line = format!("x-filler: {}\r\n", "a".repeat(4000));
                head.extend(std::iter::repeat_n(line.as_str(), 1024));
                let _ = connection.write(head.as_bytes()).await;
                Struck::Over
            }
            Fault::NotHttp => {
                let _ = connection.write(b"SSH-2.0-OpenSSH_9.2p1\r\n").await;
                Struck::Over
            }
            Fault::EmptyOk => Struck::Reply(Reply {
                status: 200,
                content_type: Some(kind),
                body: String::new(),
                more: String::new(),
            }),
            Fault::StallAfterHead => {
                let head = self.head(200, Some(kind), "transfer-encoding: chunked\r\n") + "\r\n";
                let _ = connection.write(head.as_bytes()).await;
                self.stall(connection).await
            }
            Fault::EmptyStream if stream => {
                let head = self.head(200, Some(kind), "transfer-encoding: chunked\r\n") + "\r\n0\r\n\r\n";
                let _ = connection.write(head.as_bytes()).await;
                Struck::Over
            }
            Fault::EmptyStream => Struck::Reply(Reply::json(200, tongue.writes().nothing())),
            Fault::StallInMiddle
            | Fault::DieMidStream
            | Fault::DieMidFrame
            | Fault::ResetMidStream
            | Fault::ErrorInOk
            | Fault::ErrorThenDone
            | Fault::TruncatedJson
            | Fault::HalfCharacter
            | Fault::LengthTooLong
            | Fault::LengthTooShort
            | Fault::BadChunk
            | Fault::BareText
            | Fault::BlankEnd
            | Fault::EndWithoutFinish
            | Fault::DoneWithoutFinish
            | Fault::EndlessComments
            | Fault::EndlessFrame
            | Fault::EndlessWords
            | Fault::SlowBytes => return None,
        })
    }

    /// Says nothing until the client leaves.
    async fn stall(&self, connection: &mut Connection) -> Struck {
        connection.left().await;
        Struck::Over
    }
}

/// What a fault strikes.
pub(super) struct Strike<'a> {
    pub(super) gate: Gate,
    pub(super) request: &'a Request,
    /// What was understood of the request, if anything.
    pub(super) ask: Option<&'a Ask>,
    pub(super) script: &'a Script,
}

/// What became of a connection that a fault struck before an answer.
pub(super) enum Struck {
    Reply(Reply),
    Reset,
    Over,
}

/// The last thing that the caller wrote, for servers that quote it back.
fn quote(request: &Request) -> String {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let turns = body["messages"].as_array().or(body["input"].as_array());
    let last = turns.and_then(|turns| turns.last()).map(|it| &it["content"]);
    let text = last.and_then(Value::as_str).or(body["prompt"].as_str()).or(body["input"].as_str());
    text.unwrap_or("(nothing)").chars().take(500).collect()
}
