//! Answers of two real servers with one model, cut at every token: each goes on from the other
//! server and is what it would have been.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use lovable::server::Endpoint;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    caller::Answer,
    daemon::{Daemon, Options},
    real::{Real, odd_port},
};

/// How many tokens an answer has.
const TOKENS: usize = 12;

/// What stands before a server and cuts its answers off after so many events.
struct Scissors {
    endpoint: Endpoint,
    after: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Scissors {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nothing is cut.
const NEVER: usize = usize::MAX;

impl Scissors {
    async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let after = Arc::new(AtomicUsize::new(NEVER));
        let task = tokio::spawn({
            let after = after.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(pass(stream, port, after.clone()));
                }
            }
        });
        Self { endpoint, after, task }
    }
}

/// Passes one connection on, and closes it after so many events of an answer.
async fn pass(stream: TcpStream, port: u16, cut_after: Arc<AtomicUsize>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let ((mut from_us, mut to_us), (mut from_server, mut to_server)) =
        (stream.into_split(), server.into_split());
    let up = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_us, &mut to_server).await;
    });
    let (mut seen, mut after, mut piece) = (0, NEVER, vec![0; 64 << 10]);
    while let Ok(size @ 1..) = from_server.read(&mut piece).await {
        if piece.starts_with(b"HTTP/1.1 ") {
            // The next answer on a connection that is used again.
            (seen, after) = (0, cut_after.load(Ordering::Relaxed));
        }
        let mut end = size;
        for at in memchr::memmem::find_iter(&piece[..size], b"data: ") {
            if seen == after {
                end = at;
                break;
            }
            seen += 1;
        }
        if to_us.write_all(&piece[..end]).await.is_err() || end < size {
            break;
        }
    }
    up.abort();
}

/// Text, finish reasons and counts of an answer.
fn got(answer: &Answer) -> (String, Vec<String>, Value) {
    let shown = answer.text();
    assert_eq!((answer.status, answer.clean), (200, true), "{shown}");
    let (mut text, mut reasons, mut usage, mut ids) = (String::new(), Vec::new(), Value::Null, Vec::new());
    let data: Vec<_> = shown.lines().map(|it| it.strip_prefix("data: ").unwrap_or(it)).collect();
    for one in data.iter().filter(|it| !it.is_empty() && **it != "[DONE]") {
        let one: Value = serde_json::from_str(one).unwrap_or_else(|error| panic!("{error} in {shown}"));
        let choice = &one["choices"][0];
        for said in [&choice["delta"]["content"], &choice["message"]["content"], &choice["text"]] {
            text += said.as_str().unwrap_or_default();
        }
        reasons.extend(choice["finish_reason"].as_str().map(str::to_owned));
        if one["usage"].is_object() {
            usage = json!([one["usage"]["prompt_tokens"], one["usage"]["completion_tokens"]]);
        }
        ids.push(one["id"].clone());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "one id: {shown}");
    (text, reasons, usage)
}

async fn asked(daemon: &Daemon, path: &str, body: &Value) -> (Answer, String) {
    let answer = daemon.caller().post(path, body).await;
    let id = answer.header("x-lovable-request-id").unwrap();
    let told = daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await.json();
    let ending = told["ending"].as_str().unwrap().to_owned();
    (answer, ending)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers; tests/run sets them up"]
async fn an_answer_of_llama_cpp_cut_at_any_token_is_the_uncut_answer() {
    let ports = [odd_port().await, odd_port().await];
    let _first = Real::llama_with("real-cut", ports[0], &[]).await;
    let _second = Real::llama_with("real-cut", ports[1], &[]).await;
    cut_at_every_token(ports[0], ports[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real vLLM; tests/prove sets it up"]
async fn vllm_and_llama_cpp_go_on_with_each_other() {
    let ports = [odd_port().await, odd_port().await];
    let _first = Real::vllm("real-cut", ports[0]).await;
    let _second = Real::llama_with("real-cut", ports[1], &[]).await;
    cut_at_every_token(ports[0], ports[1]).await;
    cut_at_every_token(ports[1], ports[0]).await;
}

async fn cut_at_every_token(first: u16, second: u16) {
    let scissors = Scissors::before(first).await;
    let second = Endpoint::parse(&format!("http://127.0.0.1:{second}")).unwrap();
    let daemon =
        Options::alone().server(&scissors.endpoint, "cut", 0).server(&second, "whole", 10).start().await;
    for (path, stream) in [
        ("/v1/chat/completions", true),
        ("/v1/chat/completions", false),
        ("/v1/completions", true),
        ("/v1/completions", false),
    ] {
        for temperature in [json!(0), json!(0.00001)] {
            let mut body = json!({"model": "real-cut", "stream": stream, "max_tokens": TOKENS, "temperature": temperature});
            match path {
                "/v1/completions" => body["prompt"] = "Count for me.".into(),
                _ => body["messages"] = json!([{"role": "user", "content": "Count for me."}]),
            }
            if stream {
                body["stream_options"] = json!({"include_usage": true});
            }
            scissors.after.store(NEVER, Ordering::Relaxed);
            let (uncut, ending) = asked(&daemon, path, &body).await;
            assert_eq!((ending.as_str(), uncut.header("x-lovable-server")), ("delivered", Some("cut")));
            let uncut = got(&uncut);
            assert_eq!(uncut.2[1], TOKENS, "{uncut:?}");
            // The role is an event of its own, and so are the reason and the end.
            for after in 0..TOKENS + 3 {
                scissors.after.store(after, Ordering::Relaxed);
                let (cut, ending) = asked(&daemon, path, &body).await;
                // A short plain answer comes in one piece from where that is as good.
                if stream && (5..TOKENS).contains(&after) {
                    assert_eq!(ending, "resumed", "{path} {after}: {}", cut.text());
                }
                assert_eq!(got(&cut), uncut, "{path} {stream} cut after {after}: {}", cut.text());
                // Whoever answers well is forgiven.
                scissors.after.store(NEVER, Ordering::Relaxed);
                let mut pinned = body.clone();
                pinned["model"] = "real-cut@cut".into();
                asked(&daemon, path, &pinned).await;
            }
        }
    }
}
