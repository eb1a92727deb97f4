//! One request's way through the daemon, against servers whose every byte is scripted.

use std::time::Duration;

use lovable::simulate::{At, Fault, Plan, Script, Shape, Simulated};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, timeout},
};

use crate::{
    caller::{Answer, Verdict, chat, request},
    daemon::{Daemon, Options},
    scripted::{STREAM, Scripted},
};

const CHAT: &str = "/v1/chat/completions";
const SECOND: Duration = Duration::from_secs(1);
const ROLE: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n";
const STOP: &str =
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str =
    "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn word(text: &str) -> String {
    let text = json!(text);
    format!("data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{text}}}}}]}}\n\n")
}

/// A stream of two words.
fn whole() -> String {
    format!("{STREAM}{ROLE}{}{}{STOP}{USAGE}{DONE}", word("w1 "), word("w2 "))
}

/// A daemon in front of these, the first asked first.
async fn daemon(servers: &[&Scripted], config: &str) -> Daemon {
    let mut options = Options::alone().config(config);
    for (at, server) in servers.iter().enumerate() {
        options = options.server(server.endpoint(), ["a", "b", "c"][at], at as i32);
    }
    options.start().await
}

async fn ask(daemon: &Daemon, body: &Value, headers: &[(&str, &str)]) -> Answer {
    daemon.caller().send(request("POST", CHAT, body.to_string().into(), headers)).await.unwrap()
}

/// What the daemon says of a request, once it is over.
async fn told(daemon: &Daemon, id: &str) -> Value {
    let begun = Instant::now();
    loop {
        let answer = daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await;
        if answer.status == 200 {
            return answer.json();
        }
        assert!(begun.elapsed() < 10 * SECOND, "{id} is not over: {}", answer.text());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What each attempt of a request came to: `a refused, b ok`.
fn attempts(told: &Value) -> String {
    let all = told["attempts"].as_array().unwrap();
    let one = |it: &Value| {
        let cause = it["fault"]["cause"].as_str().unwrap_or("ok");
        format!("{} {cause}", it["server"].as_str().unwrap())
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

async fn nothing_in_flight(daemon: &Daemon) {
    let status = daemon.caller().get("/lovable/v1/status").await.json();
    assert_eq!(status["requests"]["in_flight"], 0, "{status}");
    for server in daemon.servers().await {
        assert_eq!(server["in_flight"], 0, "{server}");
    }
}

// What goes to a server and what comes back.

#[tokio::test]
async fn a_server_gets_the_allowed_headers_and_nothing_else_of_the_caller() {
    let server = Scripted::saying(whole()).await;
    let daemon = daemon(&[&server], "").await;
    let headers = [
        ("authorization", "Bearer callers-secret"),
        ("cookie", "a=b"),
        ("x-conversation-id", "c"),
        ("x-api-key", "k"),
        ("user-agent", "ua/1"),
        ("origin", "http://localhost"),
        ("traceparent", "00-1-2-3"),
        ("accept", "text/event-stream"),
        ("x-lovable-via", "one"),
        ("x-lovable-via", "two"),
        ("x-request-id", "mine-1"),
        ("x-lovable-timeout-ms", "5000"),
    ];
    let answer = ask(&daemon, &chat("m", true, "hé"), &headers).await;
    assert_eq!(answer.verdict(), Verdict::Whole(2));
    let post = &server.posts()[0];
    let mut names: Vec<&str> =
        post.head.lines().skip(1).filter_map(|it| it.split_once(':')).map(|it| it.0).collect();
    names.sort_unstable();
    let expected =
        ["accept", "content-length", "content-type", "host", "traceparent", "x-lovable-via", "x-request-id"];
    assert_eq!(names, expected, "{}", post.head);
    let instance = answer.header("x-lovable-instance").unwrap();
    for line in [
        "x-request-id: mine-1\r\n",
        &format!("x-lovable-via: one, two, {instance}\r\n"),
        &format!("content-length: {}\r\n", post.body.len()),
    ] {
        assert!(post.head.contains(line), "{line} in {}", post.head);
    }
}

#[tokio::test]
async fn every_answer_says_who_answered_and_under_which_id() {
    let server =
        Scripted::saying(whole().replacen("\r\n\r\n", "\r\nset-cookie: a=b\r\nserver: x\r\n\r\n", 1)).await;
    let daemon = daemon(&[&server], "").await;
    for stream in [true, false] {
        let answer = ask(&daemon, &chat("m", stream, "x"), &[("x-request-id", "mine-2")]).await;
        for (name, value) in [
            ("x-lovable-request-id", "mine-2"),
            ("x-request-id", "mine-2"),
            ("x-lovable-server", "a"),
            ("x-lovable-kind", "openai-compatible"),
            ("x-lovable-model", "m"),
            ("x-lovable-zone", "machine"),
            ("x-lovable-attempts", "1"),
            ("x-lovable-substituted", "no"),
            ("server", concat!("lovable/", env!("CARGO_PKG_VERSION"))),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name} of {:?}", answer.headers);
        }
        assert!(answer.header("x-lovable-instance").is_some());
        assert_eq!(answer.header("set-cookie"), None);
    }
    for path in ["/healthz", "/nowhere", "/v1/models", "/lovable/v1/status"] {
        let answer = daemon.caller().get(path).await;
        assert!(answer.header("server").is_some_and(|it| it.starts_with("lovable/")), "{path}");
        assert!(answer.header("x-lovable-instance").is_some(), "{path}");
    }
}

#[tokio::test]
async fn a_request_that_comes_round_again_is_refused_wherever_our_name_stands() {
    let server = Scripted::saying(whole()).await;
    let daemon = daemon(&[&server], "").await;
    let own = daemon.caller().get("/healthz").await.header("x-lovable-instance").unwrap().to_owned();
    for headers in [
        vec![("x-lovable-via", own.clone())],
        vec![("x-lovable-via", format!("a, {own} ,b"))],
        vec![("x-lovable-via", "a".to_owned()), ("x-lovable-via", own)],
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(ask(&daemon, &chat("m", false, "x"), &headers).await.status, 508, "{headers:?}");
    }
    assert!(server.posts().is_empty());
}

// The caller leaves.

enum Leaves {
    Closes,
    HalfCloses,
}

/// Sends a request, waits until the server has done what it does, leaves, and expects
/// the connection to the server to be closed at once.
async fn leaves(daemon: &Daemon, server: &Scripted, stream: bool, how: Leaves, id: &str) -> Duration {
    let before = server.posts().len();
    let mut socket = UnixStream::connect(daemon.socket()).await.unwrap();
    let body = chat("m", stream, "x").to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    server.until_asked(before + 1).await;
    let begun = Instant::now();
    match how {
        Leaves::Closes => drop(socket),
        Leaves::HalfCloses => {
            socket.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _ = timeout(5 * SECOND, socket.read_to_end(&mut rest)).await.expect("it is closed on us too");
        }
    }
    server.until_left().await;
    let took = begun.elapsed();
    let told = told(daemon, id).await;
    assert_eq!(told["ending"], "caller_gone", "{told}");
    assert_eq!(attempts(&told), "a ok", "no fault of the server");
    took
}

#[tokio::test]
async fn a_caller_that_leaves_closes_the_connection_to_the_server_at_once() {
    let silent = Scripted::start(|_, mut line| async move { line.until_left().await }).await;
    let headed = Scripted::start(|_, mut line| async move {
        line.say(STREAM).await;
        line.until_left().await;
    })
    .await;
    let speaking = Scripted::start(|_, mut line| async move {
        line.say(format!("{STREAM}{ROLE}{}", word("w1 "))).await;
        line.until_left().await;
    })
    .await;
    let mut longest = Duration::ZERO;
    for (name, server) in [("silent", &silent), ("headed", &headed), ("speaking", &speaking)] {
        let daemon = daemon(&[server], "").await;
        for (at, stream) in [true, false].into_iter().enumerate() {
            longest =
                longest.max(leaves(&daemon, server, stream, Leaves::Closes, &format!("{name}-{at}")).await);
            longest = longest
                .max(leaves(&daemon, server, stream, Leaves::HalfCloses, &format!("{name}-half-{at}")).await);
        }
        nothing_in_flight(&daemon).await;
        assert_eq!(daemon.servers().await[0]["standing"], "up");
    }
    assert!(longest < SECOND, "{longest:?}");
}

#[tokio::test]
async fn a_caller_that_leaves_while_everybody_rests_ends_the_request() {
    let failing =
        Scripted::saying("HTTP/1.1 500 Oops\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").await;
    let daemon = daemon(&[&failing], "").await;
    let mut socket = UnixStream::connect(daemon.socket()).await.unwrap();
    let body = chat("m", false, "x").to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-request-id: r\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    failing.until_asked(2).await;
    drop(socket);
    assert_eq!(told(&daemon, "r").await["ending"], "caller_gone");
    nothing_in_flight(&daemon).await;
}

#[tokio::test]
async fn a_caller_that_leaves_with_the_terminator_has_its_answer() {
    // The body goes on for a while after the terminator, as the framing allows.
    let server = Scripted::start(|_, mut line| async move {
        line.say(whole()).await;
        line.until_left().await;
    })
    .await;
    let daemon = daemon(&[&server], "").await;
    let mut socket = UnixStream::connect(daemon.socket()).await.unwrap();
    let body = chat("m", true, "x").to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-request-id: r\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while memchr::memmem::find(&got, b"[DONE]").is_none() {
        assert!(socket.read_buf(&mut got).await.unwrap() > 0, "{}", String::from_utf8_lossy(&got));
    }
    drop(socket);
    assert_eq!(told(&daemon, "r").await["ending"], "delivered");
}

// A slow caller.

#[tokio::test]
async fn a_caller_that_does_not_read_holds_the_server_back_and_is_no_fault_of_it() {
    const SIZE: usize = 50 << 20;
    let server = Scripted::start(|_, mut line| async move {
        line.say(format!("{STREAM}{ROLE}")).await;
        let event = word(&"x".repeat(8 << 10));
        for _ in 0..SIZE / event.len() {
            if !line.say(&event).await {
                return;
            }
        }
        line.say(format!("{STOP}{DONE}")).await;
    })
    .await;
    let daemon = daemon(&[&server], "[patience]\ngap = \"300ms\"\n").await;
    let before = resident(daemon.pid());
    let mut socket = UnixStream::connect(daemon.socket()).await.unwrap();
    let body = chat("m", true, "x").to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-request-id: r\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    server.until_asked(1).await;
    // Far longer than the patience for a gap of the server.
    tokio::time::sleep(SECOND).await;
    let grown = resident(daemon.pid()).saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for a caller who does not read");
    let mut got = Vec::new();
    socket.read_to_end(&mut got).await.unwrap();
    assert!(got.len() > SIZE - (1 << 20), "{}", got.len());
    assert!(
        memchr::memmem::find(&got, b"data: [DONE]").is_some(),
        "{}",
        String::from_utf8_lossy(&got[got.len() - 300..])
    );
    assert_eq!(told(&daemon, "r").await["ending"], "delivered");
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|it| it.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

// Three phases and four patiences.

const SHORT: &str = "[patience]\nfirst_token = \"400ms\"\nload = \"400ms\"\ngap = \"400ms\"\n";

#[tokio::test]
async fn a_stream_that_was_opened_in_silence_gets_the_answer_of_the_next_server() {
    let silent = Scripted::start(|_, mut line| async move { line.until_left().await }).await;
    let good = Scripted::saying(whole()).await;
    let daemon = daemon(&[&silent, &good], SHORT).await;
    let headers = [("x-lovable-open-after-ms", "100"), ("x-request-id", "r")];
    let answer = ask(&daemon, &chat("m", true, "x"), &headers).await;
    assert_eq!(answer.verdict(), Verdict::Whole(2), "{}", answer.text());
    assert!(answer.text().starts_with(": keep-alive\n\n"), "{}", answer.text());
    assert_eq!(answer.header("x-lovable-server"), None, "nobody had answered yet");
    silent.until_left().await;
    assert_eq!(attempts(&told(&daemon, "r").await), "a first_token_timeout, b ok");
}

#[tokio::test]
async fn a_stream_that_was_opened_in_vain_ends_in_an_error_and_a_plain_request_has_its_status() {
    let silent = Scripted::start(|_, mut line| async move { line.until_left().await }).await;
    let daemon = daemon(&[&silent], "").await;
    let late = |open| [("x-lovable-timeout-ms", "300"), ("x-lovable-open-after-ms", open)];
    let answer = ask(&daemon, &chat("m", true, "x"), &late("100")).await;
    assert_eq!((answer.status, answer.verdict()), (200, Verdict::BrokenOff(0)), "{}", answer.text());
    assert!(!answer.text().contains("[DONE]"));
    for (stream, open) in [(true, "5000"), (false, "100")] {
        let answer = ask(&daemon, &chat("m", stream, "x"), &late(open)).await;
        assert_eq!(answer.verdict(), Verdict::Refused(504), "{}", answer.text());
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    }
    let body = json!({"model": "m", "prompt": "x", "stream": true});
    let answer = daemon
        .caller()
        .send(request("POST", "/lovable/v1/generate", body.to_string().into(), &late("100")))
        .await
        .unwrap();
    let last =
        answer.text().lines().rev().find_map(|it| it.strip_prefix("data: ").map(str::to_owned)).unwrap();
    let error = &serde_json::from_str::<Value>(&last).unwrap()["error"];
    assert_eq!(error["code"], "out_of_time", "{last}");
    assert_eq!(error["request_id"].as_str(), answer.header("x-lovable-request-id"), "{last}");
}

#[tokio::test]
async fn nothing_of_a_server_that_stalled_before_content_stands_before_the_next_ones_answer() {
    let stalling = Scripted::start(|_, mut line| async move {
        line.say(format!("{STREAM}{}", ROLE.replace("\"c\"", "\"stalled\""))).await;
        line.until_left().await;
    })
    .await;
    let good = Scripted::saying(whole()).await;
    let daemon = daemon(&[&stalling, &good], SHORT).await;
    let answer = ask(&daemon, &chat("m", true, "x"), &[("x-request-id", "r")]).await;
    assert_eq!(answer.verdict(), Verdict::Whole(2));
    assert!(!answer.text().contains("stalled"), "{}", answer.text());
    assert_eq!(answer.header("x-lovable-attempts"), Some("2"));
    assert_eq!(attempts(&told(&daemon, "r").await), "a first_token_timeout, b ok");
}

#[tokio::test]
async fn comments_without_end_after_content_are_a_stall() {
    let server = Scripted::start(|_, mut line| async move {
        line.say(format!("{STREAM}{ROLE}{}", word("w1 "))).await;
        while line.say(": still here\n\n").await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let daemon = daemon(&[&server], SHORT).await;
    let answer = ask(&daemon, &chat("m", true, "x"), &[("x-request-id", "r")]).await;
    assert_eq!(answer.verdict(), Verdict::BrokenOff(1), "{}", answer.text());
    // It was asked once more to go on, and said the same.
    let attempts = attempts(&told(&daemon, "r").await);
    assert!(attempts.split(", ").all(|it| it == "a stalled"), "{attempts}");
}

#[tokio::test]
async fn blanks_without_end_are_a_stall_and_bytes_without_end_no_short_answer() {
    for fault in [Fault::EndlessComments, Fault::EndlessFrame] {
        let script = |plan| Script { plan, ..Script::default() };
        let first = Simulated::start(Shape::Vllm, script(Plan::Always(fault))).await.unwrap();
        let second = Simulated::start(Shape::Vllm, script(Plan::Never)).await.unwrap();
        let daemon =
            Options::alone().config(SHORT).simulated(&first, "a", 0).simulated(&second, "b", 1).start().await;
        let mut body = chat("sim", false, "x");
        // Short enough to be asked for whole.
        body["max_tokens"] = 5.into();
        let answer = ask(&daemon, &body, &[]).await;
        assert_eq!(answer.verdict(), Verdict::Whole(5), "{}", answer.text());
        assert_eq!((answer.header("x-lovable-server"), first.counts().received), (Some("b"), 1));
    }
}

#[tokio::test]
async fn a_plain_request_whose_answer_stalls_is_answered_by_the_next_server() {
    let stalling = Scripted::start(|_, mut line| async move {
        line.say(format!("{STREAM}{ROLE}{}", word("w1 "))).await;
        line.until_left().await;
    })
    .await;
    let good = Scripted::saying(whole()).await;
    let daemon = daemon(&[&stalling, &good], SHORT).await;
    let answer = ask(&daemon, &chat("m", false, "x"), &[("x-request-id", "r")]).await;
    assert_eq!(answer.verdict(), Verdict::Whole(2), "{}", answer.text());
    assert_eq!(attempts(&told(&daemon, "r").await), "a stalled, b ok");
    assert_eq!((stalling.posts().len(), good.posts().len()), (1, 1));
}

// Streams.

/// What a caller of a stream gets from this body.
async fn streamed(body: &str, options: Value) -> Answer {
    let server = Scripted::saying(format!("{STREAM}{body}")).await;
    let daemon = daemon(&[&server], "").await;
    let mut wanted = chat("m", true, "x");
    if !options.is_null() {
        wanted["stream_options"] = options;
    }
    ask(&daemon, &wanted, &[("x-lovable-timeout-ms", "2000")]).await
}

#[tokio::test]
async fn frames_go_on_byte_for_byte_and_only_our_own_usage_is_taken_out() {
    let odd = "data: {\"choices\" : [ {\"index\":0, \"delta\":{\"content\":\"w1 \\u00e9🙂\"},\"x\":1.50} ],\"zz\":[1,{}]}\n\n";
    let rest = format!(": ping\n\nevent: message\nid: 7\n{odd}{STOP}");
    let answer = streamed(&format!("{ROLE}{odd}{rest}{USAGE}{DONE}"), Value::Null).await;
    assert_eq!(answer.text(), format!("{ROLE}{odd}{rest}{DONE}"));
    let answer = streamed(&format!("{ROLE}{odd}{rest}{USAGE}{DONE}"), json!({"include_usage": true})).await;
    assert_eq!(answer.text(), format!("{ROLE}{odd}{rest}{USAGE}{DONE}"));
    let crlf = format!("{ROLE}{}{STOP}{DONE}", word("w1 ")).replace('\n', "\r\n");
    assert_eq!(streamed(&crlf, Value::Null).await.text(), crlf);
    let lines =
        format!("data: {{\"choices\":\ndata: [{{\"delta\":{{\"content\":\"w1 \"}}}}]}}\n\n{STOP}{DONE}");
    assert_eq!(streamed(&lines, Value::Null).await.text(), lines);
}

#[tokio::test]
async fn a_finish_without_a_terminator_gets_one_and_a_terminator_without_a_finish_is_no_answer() {
    let answer = streamed(&format!("{ROLE}{}{STOP}", word("w1 ")), Value::Null).await;
    assert_eq!(answer.verdict(), Verdict::Whole(1), "{}", answer.text());
    for cut in [
        format!("{ROLE}{}{DONE}", word("w1 ")),
        format!("{ROLE}{}", word("w1 ")),
        format!("{ROLE}{}data: {{\"choi", word("w1 ")),
        format!("{ROLE}{}proxy error: gone", word("w1 ")),
        format!("{ROLE}{}data: {{\"error\":{{\"message\":\"engine died\"}}}}\n\n{DONE}", word("w1 ")),
    ] {
        let answer = streamed(&cut, Value::Null).await;
        assert_eq!(answer.verdict(), Verdict::BrokenOff(1), "{cut}: {}", answer.text());
        assert!(!answer.text().contains("[DONE]") && !answer.text().contains("engine died"));
    }
}

#[tokio::test]
async fn a_character_and_an_event_may_be_cut_anywhere() {
    let text = format!("{ROLE}{}{STOP}{DONE}", word("w1 ").replace("w1", "é🙂"));
    let bytes = text.clone().into_bytes();
    let server = Scripted::start(move |_, mut line| {
        let bytes = bytes.clone();
        async move {
            line.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            for byte in bytes {
                line.say([b'1', b'\r', b'\n', byte, b'\r', b'\n']).await;
            }
            line.say("0\r\n\r\n").await;
        }
    })
    .await;
    let daemon = daemon(&[&server], "").await;
    assert_eq!(ask(&daemon, &chat("m", true, "x"), &[]).await.text(), text);
    let plain = ask(&daemon, &chat("m", false, "x"), &[]).await.json();
    assert_eq!(plain["choices"][0]["message"]["content"], "é🙂 ");
}

#[tokio::test]
async fn a_delta_of_megabytes_passes_and_one_without_end_does_not() {
    let huge = word(&"x".repeat(10 << 20));
    let answer = streamed(&format!("{ROLE}{huge}{STOP}{DONE}"), Value::Null).await;
    assert!(answer.text().ends_with(DONE) && answer.body.len() > 10 << 20);
    let endless = word(&"x".repeat(17 << 20));
    let answer = streamed(&format!("{ROLE}{}{endless}{STOP}{DONE}", word("w1 ")), Value::Null).await;
    assert_eq!(answer.verdict(), Verdict::BrokenOff(1));
}

// Plain answers.

#[tokio::test]
async fn a_plain_caller_gets_the_plain_shape_of_what_was_streamed() {
    let choice = |choice: Value| {
        format!(
            "data: {}\n\n",
            json!({"id": "c", "created": 5, "model": "m", "object": "chat.completion.chunk", "choices": [choice]})
        )
    };
    let body = [
        choice(json!({"index": 0, "delta": {"role": "assistant", "content": "a"}, "logprobs": {"content": [{"token": "a"}]}})),
        choice(json!({"index": 1, "delta": {"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{"}}]}})),
        choice(json!({"index": 0, "delta": {"content": "b"}, "logprobs": {"content": [{"token": "b"}]}, "finish_reason": "length"})),
        choice(json!({"index": 1, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}, "finish_reason": "tool_calls"})),
        USAGE.to_owned(),
        DONE.to_owned(),
    ]
    .concat();
    let server = Scripted::saying(format!("{STREAM}{body}")).await;
    let daemon = daemon(&[&server], "").await;
    let mut wanted = chat("m", false, "x");
    wanted["n"] = 2.into();
    let answer = ask(&daemon, &wanted, &[]).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        answer.json(),
        json!({"id": "c", "object": "chat.completion", "created": 5, "model": "m", "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "length",
             "logprobs": {"content": [{"token": "a"}, {"token": "b"}]}},
            {"index": 1, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": null, "tool_calls": [
                {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}},
        ], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    );
    let sent: Value = serde_json::from_str(&server.posts()[0].body).unwrap();
    assert_eq!((&sent["stream"], &sent["stream_options"]["include_usage"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn a_plain_answer_has_its_length_counts_as_delivered_and_leaves_its_connection_open() {
    for shape in [Shape::Vllm, Shape::LlamaCpp, Shape::OpenAi] {
        let server = Simulated::start(shape, Script::default()).await.unwrap();
        let daemon = Options::alone().simulated(&server, "sim", 0).start().await;
        // Each probe has a connection of its own.
        let connections = || {
            let counts = server.counts();
            counts.connections.saturating_sub(counts.probes)
        };
        let before = connections();
        for max_tokens in [4, 4000] {
            for number in 0..8 {
                let mut wanted = chat("sim", false, "x");
                wanted["max_tokens"] = max_tokens.into();
                let id = format!("r-{max_tokens}-{number}");
                let answer = ask(&daemon, &wanted, &[("x-request-id", &id)]).await;
                let length = answer.body.len().to_string();
                assert_eq!(answer.header("content-length"), Some(length.as_str()));
                let told = told(&daemon, &id).await;
                assert_eq!((told["ending"].as_str(), &told["status"]), (Some("delivered"), &json!(200)));
                assert!(told["usage"]["output_tokens"].is_u64(), "{told}");
            }
        }
        let more = connections().saturating_sub(before);
        assert!((1..4).contains(&more), "{more} connections for 16 requests one after the other");
    }
}

#[tokio::test]
async fn a_stream_that_cannot_be_put_together_is_no_empty_success() {
    // Chat chunks by their shape, and yet half a character that no text can hold.
    let bad = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\ud83d\"},\"finish_reason\":\"stop\"}]}\n\n";
    let broken = Scripted::saying(format!("{STREAM}{bad}{DONE}")).await;
    let good = Scripted::saying(whole()).await;
    let daemon = daemon(&[&broken, &good], "").await;
    let answer = ask(&daemon, &chat("m", false, "x"), &[("x-request-id", "r")]).await;
    assert_eq!(answer.verdict(), Verdict::Whole(2), "{}", answer.text());
    assert_eq!(attempts(&told(&daemon, "r").await), "a unreadable, b ok");
}

#[tokio::test]
async fn vectors_of_tens_of_megabytes_pass() {
    let vector = "0.125,".repeat(6 << 20);
    let body = format!(
        "{{\"object\":\"list\",\"data\":[{{\"embedding\":[{}],\"index\":0}}]}}",
        vector.trim_end_matches(',')
    );
    let length = body.len();
    let server = Scripted::saying(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")).await;
    let daemon = daemon(&[&server], "").await;
    let wanted = json!({"model": "m", "input": "x"});
    let answer = daemon.caller().post("/v1/embeddings", &wanted).await;
    assert!(answer.clean && answer.body == body, "{} of {length} bytes", answer.body.len());
    assert!(server.posts()[0].body.contains("\"input\""));
}

#[tokio::test]
async fn an_answer_without_end_for_a_plain_caller_ends_in_an_error_and_takes_little_memory() {
    let endless = Scripted::start(|_, mut line| async move {
        line.say(STREAM).await;
        let event = word(&"x".repeat(64 << 10));
        while line.say(&event).await {}
        line.until_left().await;
    })
    .await;
    let good = Scripted::saying(whole()).await;
    let daemon = daemon(&[&endless, &good], "").await;
    let before = resident(daemon.pid());
    let answer = ask(&daemon, &chat("m", false, "x"), &[("x-request-id", "r")]).await;
    assert_eq!(answer.verdict(), Verdict::Whole(2), "{}", answer.text());
    assert_eq!(attempts(&told(&daemon, "r").await), "a unreadable, b ok");
    endless.until_left().await;
    let grown = resident(daemon.pid()).saturating_sub(before);
    assert!(grown < 120 << 20, "{grown}");
}

#[tokio::test]
async fn the_bound_of_all_held_answers_is_no_fault_of_a_server() {
    let long = Scripted::start(|_, mut line| async move {
        line.say(format!("{STREAM}{}", word(&"x".repeat(3 << 20)))).await;
        line.until_left().await;
    })
    .await;
    let daemon = daemon(&[&long], "[limits]\nheld = \"2MiB\"\n").await;
    let answer = ask(&daemon, &chat("m", false, "x"), &[]).await;
    assert_eq!(answer.verdict(), Verdict::Refused(429), "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    assert_eq!(daemon.servers().await[0]["standing"], "up");
}

// Retries and refusals.

fn refusal(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_server_alone_that_fails_for_a_moment_is_tried_again_after_a_rest() {
    let server = Scripted::start(|post, mut line| async move {
        let failing = refusal("500 Oops", "", "{}");
        line.say(if post.number < 3 { failing } else { whole() }).await;
    })
    .await;
    let daemon = daemon(&[&server], "").await;
    let answer = ask(&daemon, &chat("m", false, "x"), &[("x-request-id", "r")]).await;
    assert_eq!(answer.verdict(), Verdict::Whole(2), "{}", answer.text());
    assert_eq!(answer.header("x-lovable-attempts"), Some("3"));
    assert_eq!(attempts(&told(&daemon, "r").await), "a status, a status, a ok");
}

#[tokio::test]
async fn when_all_is_in_vain_each_server_is_named_with_its_cause() {
    let server = Scripted::saying(refusal("500 Oops", "", "{\"error\":{\"message\":\"secret\"}}")).await;
    let daemon = daemon(&[&server], "").await;
    let answer = ask(&daemon, &chat("m", true, "x"), &[]).await;
    assert_eq!(answer.verdict(), Verdict::Refused(502));
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("a answered with an error (status 500)"), "{message}");
    assert!(!message.contains("secret"));
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let stats = daemon.caller().get("/lovable/v1/stats?by=server").await.json();
    assert_eq!(stats["rows"][0]["requests"], 5, "attempts by server: {stats}");
    let stats = daemon.caller().get("/lovable/v1/stats").await.json();
    assert_eq!(
        (&stats["rows"][0]["requests"], &stats["rows"][0]["exhausted"]),
        (&json!(1), &json!(1)),
        "{stats}"
    );
}

#[tokio::test]
async fn a_busy_server_alone_is_waited_for_briefly_and_else_the_caller_is_told_when_to_come_back() {
    let server = Scripted::start(|post, mut line| async move {
        line.say(if post.number == 1 {
            refusal("429 Busy", "retry-after: 1\r\n", "{}")
        } else if post.number == 2 {
            whole()
        } else {
            refusal("429 Busy", "retry-after: 18446744073709551615\r\n", "{}")
        })
        .await;
    })
    .await;
    let daemon = daemon(&[&server], "").await;
    let answer = ask(&daemon, &chat("m", true, "x"), &[("x-request-id", "r")]).await;
    let told = told(&daemon, "r").await;
    assert_eq!(answer.verdict(), Verdict::Whole(2), "{} {told:#}", answer.text());
    let begun = Instant::now();
    for _ in 0..2 {
        let answer = ask(&daemon, &chat("m", true, "x"), &[]).await;
        assert_eq!(answer.verdict(), Verdict::Refused(429), "{}", answer.text());
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!(wait > 10, "{wait}");
    }
    assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(server.posts().len(), 3, "who wants to be left alone is left alone");
}

#[tokio::test]
async fn a_servers_own_refusal_goes_to_the_caller_as_it_is() {
    let words = "{\"error\": {\"message\":\"no: x\",\"type\":\"BadRequestError\",\"code\":400}}";
    let server = Scripted::saying(refusal("400 Bad Request", "x-request-id: theirs\r\n", words)).await;
    let other = Scripted::saying(whole()).await;
    let daemon = daemon(&[&server, &other], "").await;
    for stream in [true, false] {
        let answer = ask(&daemon, &chat("m", stream, "x"), &[]).await;
        assert_eq!((answer.status, answer.text().as_str()), (400, words));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert!(other.posts().is_empty());
}

#[tokio::test]
async fn a_refusal_that_never_ends_is_taken_for_what_its_head_says() {
    let endless = Scripted::start(|_, mut line| async move {
        line.say("HTTP/1.1 500 Oops\r\ncontent-length: 1000\r\n\r\n{").await;
        line.until_left().await;
    })
    .await;
    let good = Scripted::saying(whole()).await;
    let daemon = daemon(&[&endless, &good], "").await;
    let answer = ask(&daemon, &chat("m", true, "x"), &[("x-request-id", "r")]).await;
    assert_eq!(answer.verdict(), Verdict::Whole(2), "{}", answer.text());
    assert_eq!(attempts(&told(&daemon, "r").await), "a status, b ok");
}

#[tokio::test]
async fn servers_that_restart_together_are_waited_for() {
    // Sockets of their own, because a port that is free is soon another test's.
    let directory = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        Simulated::start_at(Shape::OpenAi, Script::default(), At::Unix(directory.path().join(name)))
    };
    let (first, second) = (start("a").await.unwrap(), start("b").await.unwrap());
    let daemon = Options::alone().simulated(&first, "a", 0).simulated(&second, "b", 1).start().await;
    first.kill().await;
    second.kill().await;
    let back = async {
        daemon.until("both are down", |all| all.iter().all(|it| it["standing"] == "down")).await;
        first.revive().await;
    };
    let wanted = chat("sim", false, "x");
    let (answer, ()) = tokio::join!(ask(&daemon, &wanted, &[("x-request-id", "r")]), back);
    assert_eq!(answer.verdict(), Verdict::Whole(8), "{}", answer.text());
    let told = told(&daemon, "r").await;
    assert!(told["attempts"].as_array().unwrap().len() > 2, "{told}");
    assert_eq!(first.counts().received, 1);
}

#[tokio::test]
async fn the_short_form_answers_prompts_and_conversations() {
    let server = Scripted::saying(whole()).await;
    let daemon = daemon(&[&server], "").await;
    for (body, messages) in [
        (
            json!({"prompt": "hi", "system": "s"}),
            json!([{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]),
        ),
        (
            json!({"messages": [{"role": "user", "content": "hi"}], "stream": true, "temperature": 0.5}),
            json!([{"role": "user", "content": "hi"}]),
        ),
    ] {
        let answer = daemon.caller().post("/lovable/v1/generate", &body).await;
        assert_eq!(answer.verdict(), Verdict::Whole(2), "{}", answer.text());
        let sent: Value = serde_json::from_str(&server.posts().last().unwrap().body).unwrap();
        assert_eq!((&sent["messages"], &sent["model"]), (&messages, &json!("m")));
        assert_eq!(sent["temperature"], body["temperature"]);
    }
    let answer = daemon.caller().post("/lovable/v1/generate", &json!({})).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (400, Some("bad_request")));
    assert!(answer.json()["error"]["request_id"].is_string());
}
