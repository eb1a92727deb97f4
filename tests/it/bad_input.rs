//! Everything that a caller can get wrong gets the right status and a helpful
//! message in OpenAI's shape.

use std::time::Duration;

use bytes::Bytes;
use lovable::simulate::{Script, Shape, Simulated};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    caller::request,
    daemon::{Daemon, Options},
    proof::Table,
};

const CHAT: &str = "/v1/chat/completions";

struct Case {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    body: &'static str,
    status: u16,
    /// What the message must mention.
    says: &'static str,
}

const fn case(name: &'static str, body: &'static str, status: u16, says: &'static str) -> Case {
    Case { name, method: "POST", path: CHAT, body, status, says }
}

const CASES: &[Case] = &[
    case("not JSON", "{\"model\": ", 400, "JSON"),
    case("empty body", "", 400, ""),
    case("an array", "[]", 400, ""),
    case("no model", r#"{"messages":[{"role":"user","content":"x"}]}"#, 400, "model"),
    case("unknown model", r#"{"model":"simm","messages":[]}"#, 404, "sim"),
    case("model of a wrong type", r#"{"model":7,"messages":[]}"#, 400, "model"),
    case("stream of a wrong type", r#"{"model":"sim","stream":"yes","messages":[]}"#, 400, "stream"),
    case("messages of a wrong type", r#"{"model":"sim","messages":"x"}"#, 400, "messages"),
    case("no messages", r#"{"model":"sim"}"#, 400, "messages"),
    case("two model keys", r#"{"model":"sim","model":"sim","messages":[]}"#, 400, "model"),
    case("something after the document", r#"{"model":"sim","messages":[]} x"#, 400, ""),
    case("invalid UTF-8 escape", r#"{"model":"\ud800","messages":[]}"#, 400, ""),
    Case {
        name: "no prompt",
        method: "POST",
        path: "/v1/completions",
        body: r#"{"model":"sim"}"#,
        status: 400,
        says: "prompt",
    },
    Case {
        name: "no input",
        method: "POST",
        path: "/v1/embeddings",
        body: r#"{"model":"sim"}"#,
        status: 400,
        says: "input",
    },
    Case {
        name: "unknown route",
        method: "POST",
        path: "/v1/chat/completion",
        body: "{}",
        status: 404,
        says: "/v1/chat/completion",
    },
    Case { name: "wrong method", method: "GET", path: CHAT, body: "", status: 405, says: "POST" },
    Case {
        name: "another wrong method",
        method: "DELETE",
        path: "/v1/models",
        body: "",
        status: 405,
        says: "GET",
    },
    Case {
        name: "unknown model by path",
        method: "GET",
        path: "/v1/models/nope",
        body: "",
        status: 404,
        says: "nope",
    },
];

async fn daemon() -> (Daemon, Simulated) {
    let server = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
    let limits = "[limits]\nbody = \"1MiB\"\n";
    let daemon = Options::alone().config(limits).simulated(&server, "sim", 0).start().await;
    (daemon, server)
}

#[tokio::test]
async fn wrong_requests_get_the_right_status_and_a_helpful_message() {
    let (daemon, server) = daemon().await;
    let mut table = Table::new("Bad input", &["case", "status", "code", "message"]);
    let mut bad = Vec::new();
    for case in CASES {
        let request = request(case.method, case.path, Bytes::from_static(case.body.as_bytes()), &[]);
        let answer = daemon.caller().send(request).await.unwrap();
        let body = serde_json::from_slice(&answer.body).unwrap_or_default();
        judge(case.name, answer.status, &body, case.status, case.says, &mut table, &mut bad);
        if case.status == 405 && answer.header("allow").is_none() {
            bad.push(format!("{}: no Allow header", case.name));
        }
    }
    for (name, (status, body), wanted) in [
        ("body over the limit", too_large(&daemon).await, 413),
        ("body over the limit, chunked", too_large_chunked(&daemon).await, 413),
        ("header too large", giant_header(&daemon).await, 431),
        ("no HTTP", raw(&daemon, b"hello\r\n\r\n").await, 400),
    ] {
        judge(name, status, &body, wanted, "", &mut table, &mut bad);
    }
    table.show();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(server.counts().received, 0, "none of it reached a server");
    assert_eq!(daemon.caller().chat("sim", false).await.unwrap().status, 200, "and it goes on");
}

fn judge(
    name: &str,
    status: u16,
    body: &Value,
    wanted: u16,
    says: &str,
    table: &mut Table,
    bad: &mut Vec<String>,
) {
    let error = &body["error"];
    let message = error["message"].as_str().unwrap_or_default();
    table.row(&[&name, &status, &error["code"], &message.chars().take(90).collect::<String>()]);
    let shaped = !message.is_empty() && error["type"].is_string() && error.get("code").is_some();
    if status != wanted || !shaped || !message.contains(says) {
        bad.push(format!("{name}: wanted {wanted} with `{says}`, got {status} {body}"));
    }
}

async fn too_large(daemon: &Daemon) -> (u16, Value) {
    let head = format!("POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 2 << 20);
    raw(daemon, head.as_bytes()).await
}

async fn too_large_chunked(daemon: &Daemon) -> (u16, Value) {
    let mut bytes =
        format!("POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..40 {
        bytes.extend_from_slice(format!("{:x}\r\n", 32 << 10).as_bytes());
        bytes.extend(std::iter::repeat_n(b' ', 32 << 10));
        bytes.extend_from_slice(b"\r\n");
    }
    raw(daemon, &bytes).await
}

async fn giant_header(daemon: &Daemon) -> (u16, Value) {
    let filler = "a".repeat(1 << 20);
    raw(daemon, format!("GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Filler: {filler}\r\n\r\n").as_bytes()).await
}

/// Writes bytes and reads one answer, whatever becomes of the writing.
async fn raw(daemon: &Daemon, bytes: &[u8]) -> (u16, Value) {
    let stream = UnixStream::connect(daemon.socket()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut got = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while let Ok(count) = read.read(&mut buffer).await {
            got.extend_from_slice(&buffer[..count]);
            if count == 0 || body(&got).is_some() {
                break;
            }
        }
    };
    let writing = async {
        // The daemon may close before it has read all; its answer counts.
        let _ = write.write_all(bytes).await;
    };
    let both = async { tokio::join!(writing, reading) };
    timeout(Duration::from_secs(10), both).await.expect("an answer in time");
    let text = String::from_utf8_lossy(&got).into_owned();
    let status = text.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
    (status, body(&got).unwrap_or_default())
}

/// The body of an answer, once it is whole.
fn body(answer: &[u8]) -> Option<Value> {
    let at = memchr::memmem::find(answer, b"\r\n\r\n")? + 4;
    serde_json::from_slice(&answer[at..]).ok()
}

/// A byte a second is told to come back, and holds nobody up meanwhile.
#[tokio::test]
async fn a_client_that_sends_a_byte_a_second_is_sent_away_and_others_are_served_meanwhile() {
    let (daemon, _server) = daemon().await;
    let stream = UnixStream::connect(daemon.socket()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let start = Instant::now();
    let slow = tokio::spawn(async move {
        let head = format!("POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
        write.write_all(head.as_bytes()).await.unwrap();
        while write.write_all(b" ").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    let quick = daemon.caller().chat("sim", true).await.unwrap();
    assert_eq!(quick.status, 200);
    let mut got = [0; 1024];
    let limit = Duration::from_secs(60);
    let count = timeout(limit, read.read(&mut got)).await.expect("it is sent away within a minute").unwrap();
    let text = String::from_utf8_lossy(&got[..count]);
    assert!(text.starts_with("HTTP/1.1 408"), "after {:?}: {text}", start.elapsed());
    slow.abort();
}
