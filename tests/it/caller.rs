//! A caller of the daemon that sees exactly what came and how it ended, and
//! judges whether an answer is whole.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use lovable::simulate;
use serde_json::{Value, json};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// Longer than anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where to call.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the body came to its announced end.
    pub(crate) clean: bool,
}

/// What an answer is worth to a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Whole, with so many words in their order.
    Whole(usize),
    /// Begun, with so many words, and then ended by the dialect's error.
    BrokenOff(usize),
    /// Refused with a status and an error in the dialect.
    Refused(u16),
    /// Anything else, which nobody should ever see.
    Wrong(String),
}

impl Answer {
    /// Its body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {:?}", self.status, self.text()))
    }

    /// Its body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What it is worth, when numbered words were asked for.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict_by(simulate::check)
    }

    /// What it is worth; `check` counts the words of a right text.
    pub(crate) fn verdict_by(&self, check: impl Fn(&str) -> Result<usize, String>) -> Verdict {
        if self.status != 200 {
            let body = serde_json::from_slice::<Value>(&self.body).unwrap_or_default();
            return match body["error"]["message"].as_str() {
                Some(_) if self.clean => Verdict::Refused(self.status),
                _ => Verdict::Wrong(format!("status {} with {:?}", self.status, self.text())),
            };
        }
        let streamed = self.header("content-type").is_some_and(|it| it.starts_with("text/event-stream"));
        let judged = if streamed { self.stream_verdict(check) } else { self.plain_verdict(check) };
        judged.unwrap_or_else(Verdict::Wrong)
    }

    fn plain_verdict(&self, check: impl Fn(&str) -> Result<usize, String>) -> Result<Verdict, String> {
        if !self.clean {
            return Err(format!("torn after {} bytes", self.body.len()));
        }
        let body: Value = serde_json::from_slice(&self.body).map_err(|error| error.to_string())?;
        let choice = &body["choices"][0];
        let text = choice["message"]["content"].as_str().or(choice["text"].as_str());
        let words = check(text.ok_or_else(|| format!("no text in {body}"))?)?;
        choice["finish_reason"].as_str().ok_or("no finish reason")?;
        Ok(Verdict::Whole(words))
    }

    fn stream_verdict(&self, check: impl Fn(&str) -> Result<usize, String>) -> Result<Verdict, String> {
        let text = std::str::from_utf8(&self.body).map_err(|error| error.to_string())?;
        let (mut said, mut finished, mut done, mut failed) = (String::new(), false, false, false);
        let (events, rest) = text.rsplit_once("\n\n").unwrap_or(("", text));
        if !rest.is_empty() {
            return Err(format!("a torn event: {rest:?}"));
        }
        for event in events.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':')) {
            let data = event.strip_prefix("data: ").ok_or_else(|| format!("no event: {event:?}"))?;
            if done || failed {
                return Err(format!("something after the end: {event:?}"));
            }
            if data == "[DONE]" {
                done = true;
                continue;
            }
            let value: Value = serde_json::from_str(data).map_err(|error| format!("{error} in {data:?}"))?;
            if value.get("error").is_some_and(|error| !error.is_null()) {
                value["error"]["message"]
                    .as_str()
                    .ok_or_else(|| format!("an error without a message: {data}"))?;
                failed = true;
                continue;
            }
            let choice = &value["choices"][0];
            said += choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default();
            finished |= choice["finish_reason"].is_string();
        }
        // Words before a break must be right as well.
        let words = check(&said)?;
        match (failed, finished, done, self.clean) {
            (true, false, false, _) => Ok(Verdict::BrokenOff(words)),
            (false, true, true, true) => Ok(Verdict::Whole(words)),
            _ => Err(format!(
                "error {failed}, finish reason {finished}, [DONE] {done}, clean end {} after {words} words",
                self.clean
            )),
        }
    }
}

impl Caller {
    /// A caller of a Unix socket.
    pub(crate) fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(path.into())
    }

    /// A caller of a loopback port.
    pub(crate) fn port(port: u16) -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// A new connection, to be used one request after the other.
    pub(crate) async fn connect(&self) -> io::Result<http1::SendRequest<Full<Bytes>>> {
        let shaken = match self {
            Self::Unix(path) => shake(UnixStream::connect(path).await?).await,
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                shake(stream).await
            }
        };
        shaken.map_err(io::Error::other)
    }

    /// Sends a request on a connection of its own and reads all that comes.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> io::Result<Answer> {
        let mut connection = self.connect().await?;
        timeout(PATIENCE, exchange(&mut connection, request)).await.map_err(io::Error::other)?
    }

    /// `GET path`, where a failure is expected.
    pub(crate) async fn try_get(&self, path: &str) -> io::Result<Answer> {
        self.send(request("GET", path, Bytes::new(), &[])).await
    }

    /// `GET path`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// `POST path` with a JSON body, where a failure is expected.
    pub(crate) async fn try_post(&self, path: &str, body: &Value) -> io::Result<Answer> {
        self.send(request("POST", path, body.to_string().into(), &[])).await
    }

    /// `POST path` with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).await.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Asks for a chat answer.
    pub(crate) async fn chat(&self, model: &str, stream: bool) -> io::Result<Answer> {
        self.try_post("/v1/chat/completions", &chat(model, stream, "Count for me.")).await
    }
}

/// The body of a chat request.
pub(crate) fn chat(model: &str, stream: bool, prompt: &str) -> Value {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": prompt}]})
}

/// A request with a `Host` and the length of its body.
pub(crate) fn request(
    method: &str,
    path: &str,
    body: Bytes,
    headers: &[(&str, &str)],
) -> Request<Full<Bytes>> {
    let mut builder = Request::builder().method(method).uri(path).header("host", "localhost");
    if !body.is_empty() {
        builder = builder.header("content-type", "application/json");
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::new(body)).unwrap()
}

/// Sends on an open connection and reads all that comes.
pub(crate) async fn exchange(
    connection: &mut http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> io::Result<Answer> {
    watched(connection, request, |_| {}).await
}

/// The same; `watch` is shown all that has come of the body, again with each piece.
pub(crate) async fn watched(
    connection: &mut http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    mut watch: impl FnMut(&[u8]),
) -> io::Result<Answer> {
    connection.ready().await.map_err(io::Error::other)?;
    let response = connection.send_request(request).await.map_err(io::Error::other)?;
    let (parts, mut body) = response.into_parts();
    let (mut bytes, mut clean) = (Vec::new(), true);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
                watch(&bytes);
            }
            Err(_) => {
                clean = false;
                break;
            }
        }
    }
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: bytes.into(), clean })
}

async fn shake<S>(stream: S) -> hyper::Result<http1::SendRequest<Full<Bytes>>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends when the sender is dropped and the body read or dropped.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, clean: bool, expected: Verdict) {
        let mut headers = HeaderMap::new();
        let kind = if body.starts_with('{') { "application/json" } else { "text/event-stream" };
        headers.insert("content-type", kind.parse().unwrap());
        let answer = Answer { status: 200, headers, body: Bytes::from(body.to_owned()), clean };
        assert_eq!(answer.verdict(), expected, "{body:?}");
    }

    fn wrong(body: &str, clean: bool) {
        let answer = |body: &str| Answer {
            status: 200,
            headers: HeaderMap::from_iter([(
                hyper::header::CONTENT_TYPE,
                hyper::header::HeaderValue::from_static("text/event-stream"),
            )]),
            body: Bytes::from(body.to_owned()),
            clean,
        };
        assert!(matches!(answer(body).verdict(), Verdict::Wrong(_)), "{body:?}");
    }

    #[test]
    fn only_a_finish_reason_then_done_then_a_clean_end_is_a_whole_stream() {
        let word = |n: usize| {
            format!("data: {}\n\n", json!({"choices": [{"delta": {"content": simulate::word(n)}}]}))
        };
        let finish = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        let error = "data: {\"error\":{\"message\":\"x\"}}\n\n";
        let done = "data: [DONE]\n\n";
        let two = word(1) + &word(2);
        check(&format!(": still here\n\n{two}{finish}{done}"), true, Verdict::Whole(2));
        check(&format!("{two}{error}"), true, Verdict::BrokenOff(2));
        check(&format!("{two}{error}"), false, Verdict::BrokenOff(2));
        wrong(&format!("{two}{finish}{done}"), false);
        wrong(&format!("{two}{finish}"), true);
        wrong(&format!("{two}{done}"), true);
        wrong(&two, true);
        wrong(&two, false);
        wrong(&format!("{two}{error}{done}"), true);
        wrong(&format!("{}{finish}{done}", word(2)), true);
        wrong(&format!("{two}{finish}{done}data: "), true);
        wrong(&format!("{two}{finish}{done}{}", word(3)), true);
    }

    #[test]
    fn a_plain_answer_needs_its_words_a_finish_reason_and_its_end() {
        let body = |text: &str| {
            json!({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).to_string()
        };
        check(&body("w1 w2 w3"), true, Verdict::Whole(3));
        check(&body("w1 w3"), true, Verdict::Wrong("`w3` where `w2` belongs".into()));
        check(&body("w1"), false, Verdict::Wrong(format!("torn after {} bytes", body("w1").len())));
    }
}
