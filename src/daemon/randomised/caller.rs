//! What a caller of a random sequence does, and what it sees.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::simulate::check;

/// What one caller will do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plans {
    pub(super) comes: Duration,
    pub(super) stream: bool,
    /// Short enough for a server to be asked for all of it at once.
    pub(super) short: bool,
    /// How long after it came it leaves.
    pub(super) leaves: Option<Duration>,
}

/// What one caller saw.
#[derive(Debug)]
pub(super) enum Saw {
    /// A whole answer: words, and tokens as it tells them.
    Whole { words: usize, tokens: Option<u64> },
    /// An answer that had begun and ended in an error.
    BrokenOff { status: u16 },
    /// A refusal.
    Refused { status: u16 },
    /// Nothing any more.
    Left,
    /// What nobody should ever see.
    Wrong(String),
}

#[derive(Debug)]
pub(super) struct Account {
    pub(super) id: String,
    pub(super) plans: Plans,
    pub(super) saw: Saw,
    pub(super) attempts: Option<usize>,
    pub(super) first: Option<Duration>,
    pub(super) total: Duration,
}

/// Asks, and sees the answer to its end. Dropping it is leaving.
pub(super) async fn ask(stream: tokio::io::DuplexStream, account: &mut Account, begun: Instant) {
    let plans = account.plans;
    let mut body = json!({
        "model": "sim", "stream": plans.stream, "messages": [{"role": "user", "content": "Count for me."}],
    });
    if plans.stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    if plans.short {
        body["max_tokens"] = 40.into();
    }
    let request = Request::post("/v1/chat/completions")
        .header("host", "localhost")
        .header("x-request-id", &account.id)
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let exchange = async {
        let response = sender.send_request(request).await.unwrap();
        let (parts, mut body) = response.into_parts();
        account.attempts =
            parts.headers.get("x-lovable-attempts").and_then(|it| it.to_str().ok()?.parse().ok());
        let (mut text, mut clean) = (Vec::new(), true);
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                clean = false;
                break;
            };
            text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
            if account.first.is_none() && memchr::memmem::find(&text, b"w1").is_some() {
                account.first = Some(begun.elapsed());
            }
        }
        account.saw = judge(parts.status.as_u16(), plans.stream, &text, clean);
        drop(sender);
    };
    let _ = tokio::join!(exchange, connection);
}

/// What an answer is worth.
fn judge(status: u16, stream: bool, text: &[u8], clean: bool) -> Saw {
    let text = String::from_utf8_lossy(text);
    let wrong = |why: &str| Saw::Wrong(format!("{why} in {status} {text:?}"));
    if !clean {
        return wrong("torn");
    }
    let parse = |it: &str| serde_json::from_str::<Value>(it).ok();
    if status != 200 || !stream {
        let Some(body) = parse(&text) else { return wrong("no JSON") };
        if status != 200 {
            return if body["error"]["message"].is_string() {
                Saw::Refused { status }
            } else {
                wrong("no error")
            };
        }
        let said = body["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        return match (check(said), body["choices"][0]["finish_reason"].is_string()) {
            (Ok(words), true) => Saw::Whole { words, tokens: body["usage"]["completion_tokens"].as_u64() },
            _ => wrong("no whole answer"),
        };
    }
    let Some(events) = text.strip_suffix("\n\n") else { return wrong("a torn event") };
    let (mut said, mut reasons, mut done, mut failed, mut tokens) = (String::new(), 0, 0, 0, None);
    for event in events.split("\n\n").filter(|it| !it.starts_with(':')) {
        let data = event.strip_prefix("data: ").unwrap_or_default();
        if done + failed > 0 {
            return wrong("something after the end");
        }
        if data == "[DONE]" {
            done += 1;
            continue;
        }
        let Some(value) = parse(data) else { return wrong("no event") };
        failed += usize::from(value["error"]["message"].is_string());
        said += value["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        reasons += usize::from(value["choices"][0]["finish_reason"].is_string());
        tokens = tokens.or(value["usage"]["completion_tokens"].as_u64());
    }
    match (check(&said), reasons, done, failed) {
        (Ok(words), 1, 1, 0) => Saw::Whole { words, tokens },
        (Ok(_), 0, 0, 1) => Saw::BrokenOff { status },
        (Err(why), ..) => wrong(&why),
        (Ok(_), ..) => wrong("no right end"),
    }
}
