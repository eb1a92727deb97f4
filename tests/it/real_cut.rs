//! Answers of two real servers with one model, cut at every token: each goes on from the other
//! server and is what it would have been. One model has a token for each word, the other several,
//! some with half a character at their end, and it thinks.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
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

/// What stands before a server and cuts its answers off after so many events, or inside the
/// next one: in a character of several bytes, if it has one.
struct Scissors {
    endpoint: Endpoint,
    after: Arc<AtomicUsize>,
    inside: Arc<AtomicBool>,
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
        let (after, inside) = (Arc::new(AtomicUsize::new(NEVER)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn({
            let (after, inside) = (after.clone(), inside.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(pass(stream, port, after.clone(), inside.clone()));
                }
            }
        });
        Self { endpoint, after, inside, task }
    }

    fn cut(&self, after: usize) {
        self.after.store(after, Ordering::Relaxed);
    }
}

/// Passes one connection on, and closes it after so many events of an answer.
async fn pass(stream: TcpStream, port: u16, cut_after: Arc<AtomicUsize>, inside: Arc<AtomicBool>) {
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
                let half = piece[at..size].iter().position(|it| *it >= 0x80).map_or(8, |it| it + 1);
                end = at + if inside.load(Ordering::Relaxed) { half } else { 0 };
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

/// What a caller has of an answer.
#[derive(Debug, Default, PartialEq)]
struct Got {
    text: String,
    thinking: String,
    reasons: Vec<String>,
    /// Tokens of the prompt and of the answer.
    usage: Value,
}

fn got(answer: &Answer) -> Got {
    let shown = answer.text();
    assert_eq!((answer.status, answer.clean), (200, true), "{shown}");
    let (mut got, mut ids) = (Got::default(), Vec::new());
    let data: Vec<_> = shown.lines().map(|it| it.strip_prefix("data: ").unwrap_or(it)).collect();
    for one in data.iter().filter(|it| !it.is_empty() && **it != "[DONE]") {
        let one: Value = serde_json::from_str(one).unwrap_or_else(|error| panic!("{error} in {shown}"));
        let choice = &one["choices"][0];
        for said in [&choice["delta"]["content"], &choice["message"]["content"], &choice["text"]] {
            got.text += said.as_str().unwrap_or_default();
        }
        // llama.cpp and vLLM call it differently.
        for said in [&choice["delta"], &choice["message"]] {
            for name in ["reasoning_content", "reasoning"] {
                got.thinking += said[name].as_str().unwrap_or_default();
            }
        }
        got.reasons.extend(choice["finish_reason"].as_str().map(str::to_owned));
        if one["usage"].is_object() {
            got.usage = json!([one["usage"]["prompt_tokens"], one["usage"]["completion_tokens"]]);
        }
        ids.push(one["id"].clone());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "one id: {shown}");
    got
}

/// An answer, and how it ended.
async fn asked(daemon: &Daemon, path: &str, body: &Value) -> (Answer, String) {
    let answer = daemon.caller().post(path, body).await;
    let id = answer.header("x-lovable-request-id").unwrap();
    let told = daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await.json();
    assert_eq!(told["usage_estimated"], false, "both count: {told}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers; tests/run sets them up"]
async fn thinking_and_words_of_several_tokens_go_on_wherever_they_are_cut() {
    let ports = [odd_port().await, odd_port().await];
    let _first = Real::llama_of("pieces", "real-cut", ports[0], &[]).await;
    let second = Real::llama_of("pieces", "real-cut", ports[1], &[]).await;
    cut_everywhere(&Twins::before(ports[0], ports[1]).await, Some(&second), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real vLLM; tests/prove sets it up"]
async fn vllm_and_llama_cpp_go_on_with_each_others_thinking() {
    let ports = [odd_port().await, odd_port().await];
    let parser = ["--reasoning-parser", "deepseek_r1"];
    let _vllm = Real::vllm_of("pieces-v", "real-cut", ports[0], &parser).await;
    let llama = Real::llama_of("pieces", "real-cut", ports[1], &[]).await;
    cut_everywhere(&Twins::before(ports[0], ports[1]).await, Some(&llama), false).await;
    cut_everywhere(&Twins::before(ports[1], ports[0]).await, None, false).await;
}

/// Cuts answers of the second model at every token. `second` goes on in the middle of anything.
/// Where a stop string is looked for, vLLM's parser of thinking loses characters of an answer
/// that nobody cuts (0.32.0): without `stops` none is asked for.
async fn cut_everywhere(twins: &Twins, second: Option<&Real>, stops: bool) {
    // All of it, half of it, nothing but thoughts, and ended by a stop string.
    for (body, insides) in [
        (json!({"max_tokens": 64}), &[false, true][..]),
        (json!({"max_tokens": 64, "stream": false}), &[false]),
        (json!({"max_tokens": 16}), &[false]),
        (json!({"max_tokens": 5}), &[false]),
        (json!({"max_tokens": 64, "stop": ["ket größ"]}), &[false, true]),
        (json!({"max_tokens": 64, "stop": ["ket größ"], "stream": false}), &[false]),
        (json!({"max_tokens": 64, "chat_template_kwargs": {"enable_thinking": false}}), &[false]),
        (json!({"max_tokens": 64, "prompt": "Count for me.\n"}), &[false]),
    ] {
        if !stops && body["stop"].is_array() {
            continue;
        }
        let (path, body) = question(&body, &json!(0));
        let uncut = twins.uncut(path, &body).await;
        let tokens = uncut.usage[1].as_u64().unwrap();
        assert!(tokens > 4, "{uncut:?}");
        for inside in insides {
            twins.scissors.inside.store(*inside, Ordering::Relaxed);
            let before = said(second).await;
            // The role is an event of its own, and so are the reason and the end.
            for after in 0..tokens as usize + 3 {
                let (cut, _) = twins.cut(path, &body, after).await;
                assert_eq!(got(&cut), uncut, "{body} cut after {after}: {}", cut.text());
            }
            // Half of it, and a word that is said again now and then.
            let (said, all) = (said(second).await - before, tokens * (tokens + 3));
            assert!(tokens < 10 || said < all * 7 / 10, "{body}: {said} of {all} were said again");
        }
        twins.scissors.inside.store(false, Ordering::Relaxed);
    }
}

async fn said(server: Option<&Real>) -> u64 {
    match server {
        Some(server) => server.said().await,
        None => 0,
    }
}

/// A question of this body, at its door.
fn question(body: &Value, temperature: &Value) -> (&'static str, Value) {
    let mut asked = json!({"model": "real-cut", "stream": true, "temperature": temperature});
    for (name, value) in body.as_object().unwrap() {
        asked[name] = value.clone();
    }
    if asked["stream"] == true {
        asked["stream_options"] = json!({"include_usage": true});
    }
    if asked["prompt"].is_string() {
        return ("/v1/completions", asked);
    }
    asked["messages"] = json!([{"role": "user", "content": "Count for me."}]);
    ("/v1/chat/completions", asked)
}

/// Two servers, before the first of which there are scissors.
struct Twins {
    daemon: Daemon,
    scissors: Scissors,
}

impl Twins {
    async fn before(first: u16, second: u16) -> Self {
        let scissors = Scissors::before(first).await;
        let second = Endpoint::parse(&format!("http://127.0.0.1:{second}")).unwrap();
        let daemon =
            Options::alone().server(&scissors.endpoint, "cut", 0).server(&second, "whole", 10).start().await;
        Self { daemon, scissors }
    }

    /// The answer of the first server alone.
    async fn uncut(&self, path: &str, body: &Value) -> Got {
        self.scissors.cut(NEVER);
        let (uncut, ending) = asked(&self.daemon, path, body).await;
        assert_eq!((ending.as_str(), uncut.header("x-lovable-server")), ("delivered", Some("cut")));
        got(&uncut)
    }

    /// An answer that is cut after so many events, and how it ended.
    async fn cut(&self, path: &str, body: &Value, after: usize) -> (Answer, String) {
        self.scissors.cut(after);
        let cut = asked(&self.daemon, path, body).await;
        // Whoever answers well is forgiven.
        self.scissors.cut(NEVER);
        let mut pinned = body.clone();
        pinned["model"] = "real-cut@cut".into();
        pinned["max_tokens"] = 1.into();
        asked(&self.daemon, path, &pinned).await;
        cut
    }
}

async fn cut_at_every_token(first: u16, second: u16) {
    let twins = Twins::before(first, second).await;
    let prompt = json!("Count for me.");
    for more in [
        json!({}),
        json!({"stream": false}),
        json!({"prompt": prompt}),
        json!({"prompt": prompt, "stream": false}),
    ] {
        for temperature in [json!(0), json!(0.00001)] {
            let mut body = more.clone();
            body["max_tokens"] = TOKENS.into();
            let (path, body) = question(&body, &temperature);
            let uncut = twins.uncut(path, &body).await;
            assert_eq!(uncut.usage[1], TOKENS, "{uncut:?}");
            // The role is an event of its own, and so are the reason and the end.
            for after in 0..TOKENS + 3 {
                let (cut, ending) = twins.cut(path, &body, after).await;
                // A short plain answer comes in one piece from where that is as good.
                if body["stream"] == true && (5..TOKENS).contains(&after) {
                    assert_eq!(ending, "resumed", "{path} {after}: {}", cut.text());
                }
                assert_eq!(got(&cut), uncut, "{body} cut after {after}: {}", cut.text());
            }
        }
    }
}
