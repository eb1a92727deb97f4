//! HTTP as it comes from callers who speak it in unusual ways.

use std::time::Duration;

use lovable::simulate::{Offer, Script, Shape, Simulated};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use crate::{
    caller::chat,
    daemon::{Daemon, Options},
};

const CHAT: &str = "/v1/chat/completions";

async fn daemon() -> (Daemon, Simulated) {
    // Its context has room for the largest body.
    let offer = Offer { context: 1 << 30, ..Offer::named("sim") };
    let script = Script { models: vec![offer], ..Script::default() };
    let server = Simulated::start(Shape::Vllm, script).await.unwrap();
    let daemon = Options::alone().simulated(&server, "sim", 0).start().await;
    (daemon, server)
}

/// All that comes back on one connection, which is asked to close with the last request.
async fn said(daemon: &Daemon, bytes: impl AsRef<[u8]>) -> String {
    let (mut read, mut write) = UnixStream::connect(daemon.socket()).await.unwrap().into_split();
    let mut got = Vec::new();
    let writing = async {
        // The daemon may answer and close before it has read all.
        let _ = write.write_all(bytes.as_ref()).await;
    };
    let both = async { tokio::join!(writing, read.read_to_end(&mut got)) };
    let (_, read) = timeout(Duration::from_secs(30), both).await.expect("an answer and its end in time");
    let _ = read;
    String::from_utf8_lossy(&got).into_owned()
}

fn body() -> String {
    chat("sim", false, "x").to_string()
}

fn statuses(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    for (at, _) in text.match_indices("HTTP/1.") {
        all.push(&text[at + 9..at + 12]);
    }
    all
}

#[tokio::test]
async fn unusual_but_right_requests_are_answered() {
    let (daemon, _server) = daemon().await;
    let (body, close) = (body(), "host: x\r\nconnection: close\r\n");
    let length = body.len();
    let half = length / 2;
    let chunked = format!(
        "POST {CHAT} HTTP/1.1\r\n{close}transfer-encoding: chunked\r\n\r\n{half:x}\r\n{}\r\n{:x};ext=1\r\n{}\r\n0\r\nx: y\r\n\r\n",
        &body[..half],
        length - half,
        &body[half..],
    );
    for (name, request, expected) in [
        ("chunked", chunked, vec!["200"]),
        (
            "expecting",
            format!(
                "POST {CHAT} HTTP/1.1\r\n{close}expect: 100-continue\r\ncontent-length: {length}\r\n\r\n{body}"
            ),
            vec!["100", "200"],
        ),
        (
            "absolute form",
            format!(
                "POST http://localhost:80{CHAT} HTTP/1.1\r\n{close}content-length: {length}\r\n\r\n{body}"
            ),
            vec!["200"],
        ),
        ("HTTP/1.0", format!("POST {CHAT} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}"), vec!["200"]),
        ("HTTP/1.0 without a Host", "GET /v1/models HTTP/1.0\r\n\r\n".to_owned(), vec!["200"]),
        ("a query", format!("GET /v1/models?x=y HTTP/1.1\r\n{close}\r\n"), vec!["200"]),
        ("encoded", format!("GET /v1/models/s%69m HTTP/1.1\r\n{close}\r\n"), vec!["200"]),
        ("head", format!("HEAD /healthz HTTP/1.1\r\n{close}\r\n"), vec!["200"]),
        (
            "one after the other without waiting",
            format!(
                "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}\
                 GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTTP/1.1\r\n{close}\r\n"
            ),
            vec!["200", "404", "200"],
        ),
    ] {
        let text = said(&daemon, request).await;
        assert_eq!(statuses(&text), expected, "{name}: {text}");
    }
}

#[tokio::test]
async fn a_stream_for_http_1_0_ends_with_its_connection() {
    let (daemon, _server) = daemon().await;
    let body = chat("sim", true, "x").to_string();
    let text =
        said(&daemon, format!("POST {CHAT} HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    assert!(text.ends_with("data: [DONE]\n\n") && !text.contains("transfer-encoding"), "{text}");
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_words() {
    let (daemon, server) = daemon().await;
    let (body, close) = (body(), "host: x\r\nconnection: close\r\n");
    let length = body.len();
    for (name, request, status, says) in [
        (
            "packed",
            format!("POST {CHAT} HTTP/1.1\r\n{close}content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc"),
            "400",
            "content-encoding: gzip",
        ),
        (
            "two lengths",
            format!(
                "POST {CHAT} HTTP/1.1\r\n{close}content-length: {length}\r\ncontent-length: 1\r\n\r\n{body}"
            ),
            "400",
            "HTTP/1.1",
        ),
        (
            "a length that is none",
            format!("POST {CHAT} HTTP/1.1\r\n{close}content-length: ten\r\n\r\n{body}"),
            "400",
            "HTTP/1.1",
        ),
        ("two slashes", format!("GET //v1/models HTTP/1.1\r\n{close}\r\n"), "404", "//v1/models"),
        ("a slash too many", format!("POST {CHAT}/ HTTP/1.1\r\n{close}\r\n"), "404", "completions/"),
        ("no UTF-8", format!("GET /v1/models/%ff HTTP/1.1\r\n{close}\r\n"), "400", "UTF-8"),
        ("head of what is posted", format!("HEAD {CHAT} HTTP/1.1\r\n{close}\r\n"), "405", "allow: POST"),
        (
            "expecting to send too much",
            format!(
                "POST {CHAT} HTTP/1.1\r\n{close}expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
                1_u64 << 40
            ),
            "413",
            "larger than",
        ),
    ] {
        let text = said(&daemon, request).await;
        assert_eq!(statuses(&text)[..1], [status], "{name}: {text}");
        assert!(text.contains(says), "{name}: {text}");
        if name != "head of what is posted" {
            assert!(text.contains("\"message\""), "{name}: {text}");
        }
    }
    assert_eq!(server.counts().received, 0);
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() {
    let (daemon, _server) = daemon().await;
    let post = |size: usize| {
        let mut body = body();
        // White space after the document is part of the body.
        body.extend(std::iter::repeat_n(' ', size - body.len()));
        format!(
            "POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n{body}"
        )
    };
    let text = said(&daemon, post(64 << 20)).await;
    assert_eq!(statuses(&text), ["200"], "{}", &text[..text.len().min(500)]);
    let text = said(&daemon, post((64 << 20) + 1)).await;
    assert_eq!(statuses(&text), ["413"], "{text}");
}
