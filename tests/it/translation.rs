//! A caller and a server that speak different languages: the promises are the same.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::UnixStream,
    time::{Instant, timeout},
};

use crate::{
    caller::{Answer, request},
    daemon::{Daemon, Options},
    scripted::{STREAM, Scripted},
};

const SECOND: Duration = Duration::from_secs(1);
const LINES: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n";
const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
const OLLAMA: &str = "/api/chat";

/// A line of an Ollama with a word.
fn line(word: &str) -> String {
    let message = json!({"role": "assistant", "content": word});
    format!(
        "{}\n",
        json!({"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": false})
    )
}

const LAST: &str = "{\"model\":\"m\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":3,\"eval_count\":2}\n";
const KILLED: &str = "{\"error\":\"an error was encountered while running the model: unexpected EOF\"}\n";

fn lines() -> String {
    format!("{LINES}{}{}{LAST}", line("w1 "), line("w2 "))
}

/// An event of an OpenAI-like server with a word.
fn event(word: &str) -> String {
    format!(
        "data: {}\n\n",
        json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": word}}]})
    )
}

const STOP: &str =
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str =
    "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";

fn events() -> String {
    format!("{STREAM}{}{}{STOP}{USAGE}data: [DONE]\n\n", event("w1 "), event("w2 "))
}

async fn daemon(servers: &[&Scripted], config: &str) -> Daemon {
    let mut options = Options::alone().config(config);
    for (at, server) in servers.iter().enumerate() {
        options = options.server(server.endpoint(), ["a", "b", "c"][at], at as i32);
    }
    options.start().await
}

/// The same question in the language of each path.
fn question(path: &str, stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": "x"}]);
    match path {
        RESPONSES => json!({"model": "m", "stream": stream, "input": "x"}),
        MESSAGES => json!({"model": "m", "stream": stream, "max_tokens": 100, "messages": messages}),
        _ => json!({"model": "m", "stream": stream, "messages": messages}),
    }
}

async fn ask(daemon: &Daemon, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
    daemon.caller().send(request("POST", path, body.to_string().into(), headers)).await.unwrap()
}

/// The text in a stream of any language.
fn text_of(path: &str, stream: &str) -> String {
    let data = stream.lines().filter_map(|line| match path {
        OLLAMA => Some(line),
        _ => line.strip_prefix("data:"),
    });
    let values = data.filter_map(|it| serde_json::from_str::<Value>(it).ok());
    let text = |it: Value| {
        let found = match path {
            CHAT => &it["choices"][0]["delta"]["content"],
            MESSAGES => &it["delta"]["text"],
            RESPONSES if it["type"] == "response.output_text.delta" => &it["delta"],
            RESPONSES => &Value::Null,
            _ => &it["message"]["content"],
        };
        found.as_str().unwrap_or_default().to_owned()
    };
    values.map(text).collect()
}

/// What stands at the end of a whole stream, and never at that of another.
fn end_mark(path: &str) -> &'static str {
    match path {
        CHAT => "data: [DONE]",
        MESSAGES => "message_stop",
        RESPONSES => "response.completed",
        _ => "\"done\":true",
    }
}

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

fn attempts(told: &Value) -> String {
    let one = |it: &Value| {
        let cause = it["fault"]["cause"].as_str().unwrap_or("ok");
        format!("{} {cause}", it["server"].as_str().unwrap())
    };
    told["attempts"].as_array().unwrap().iter().map(one).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn every_caller_is_answered_in_its_own_language_whatever_is_spoken_behind() {
    let (ollama, openai) = (Scripted::ollama_saying(lines()).await, Scripted::saying(events()).await);
    for (server, at) in [(&ollama, "/api/chat"), (&openai, "/v1/chat/completions")] {
        let daemon = daemon(&[server], "").await;
        for (path, kind, dialect) in [
            (CHAT, "text/event-stream", "openai"),
            (MESSAGES, "text/event-stream", "anthropic"),
            (RESPONSES, "text/event-stream", "responses"),
            (OLLAMA, "application/x-ndjson", "ollama"),
        ] {
            let id = format!("{dialect}-stream");
            let answer = ask(&daemon, path, &question(path, true), &[("x-request-id", &id)]).await;
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (200, Some(kind)),
                "{}",
                answer.text()
            );
            assert_eq!(text_of(path, &answer.text()), "w1 w2 ", "{path} before {at}: {}", answer.text());
            assert!(answer.clean && answer.text().contains(end_mark(path)), "{}", answer.text());
            let told = told(&daemon, &id).await;
            assert_eq!((&told["dialect"], &told["ending"]), (&json!(dialect), &json!("delivered")), "{told}");
            assert_eq!(told["usage"]["output_tokens"], 2, "{told}");

            let whole = ask(&daemon, path, &question(path, false), &[]).await;
            assert_eq!(whole.header("content-type"), Some("application/json"));
            let value = whole.json();
            let text = match path {
                CHAT => &value["choices"][0]["message"]["content"],
                MESSAGES => &value["content"][0]["text"],
                RESPONSES => &value["output"][0]["content"][0]["text"],
                _ => &value["message"]["content"],
            };
            assert_eq!(text, "w1 w2 ", "{path} before {at}: {value}");
            assert_eq!(value["model"], "m", "{value}");
            assert!(whole.header("content-length").is_some(), "{:?}", whole.headers);
        }
        for post in server.posts() {
            assert!(post.head.starts_with(&format!("post {at} ")), "{}", post.head);
            assert_eq!(serde_json::from_str::<Value>(&post.body).unwrap()["stream"], true, "{}", post.body);
        }
    }
    let cut = ollama.posts().iter().filter(|it| it.body.contains("\"truncate\":false")).count();
    assert!(cut >= 6, "Ollama must not cut a prompt in silence");
}

#[tokio::test]
async fn before_content_another_server_takes_over_whatever_it_speaks() {
    let dead = Scripted::ollama_saying(format!("{LINES}{KILLED}")).await;
    let mute = Scripted::saying(format!("{STREAM}data: [DONE]\n\n")).await;
    let good = Scripted::ollama_saying(lines()).await;
    let daemon = daemon(&[&dead, &mute, &good], "").await;
    for path in [CHAT, MESSAGES, RESPONSES, OLLAMA] {
        for stream in [true, false] {
            let id = format!("r{}-{stream}", path.len());
            let answer = ask(&daemon, path, &question(path, stream), &[("x-request-id", &id)]).await;
            assert_eq!(answer.status, 200, "{path} {}", answer.text());
            assert_eq!(answer.header("x-lovable-server"), Some("c"), "{path}");
            assert_eq!(answer.text().matches("w1 ").count(), answer.text().matches("w2 ").count());
            let told = told(&daemon, &id).await;
            assert_eq!(told["ending"], "delivered", "{told}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_after_content_ends_in_the_callers_own_error_and_never_as_if_it_were_whole() {
    let killed = Scripted::ollama_saying(format!("{LINES}{}{KILLED}", line("w1 "))).await;
    let early = Scripted::ollama_saying(format!("{LINES}{}", line("w1 "))).await;
    let torn = Scripted::ollama_saying(format!("{LINES}{}{{\"model\":\"m\",\"mess", line("w1 "))).await;
    let text = Scripted::ollama_saying(format!("{LINES}{}proxy error: gone\n", line("w1 "))).await;
    let reasonless = Scripted::saying(format!("{STREAM}{}data: [DONE]\n\n", event("w1 "))).await;
    for server in [&killed, &early, &torn, &text, &reasonless] {
        let daemon = daemon(&[server], "").await;
        for path in [CHAT, MESSAGES, RESPONSES, OLLAMA] {
            let id = format!("r{}", path.len());
            let answer = ask(&daemon, path, &question(path, true), &[("x-request-id", &id)]).await;
            let text = answer.text();
            assert_eq!((answer.status, &*text_of(path, &text)), (200, "w1 "), "{path} {text}");
            assert!(!text.contains(end_mark(path)), "{path} {text}");
            let last = text.trim_end().lines().next_back().unwrap();
            let last: Value = serde_json::from_str(last.strip_prefix("data:").unwrap_or(last)).unwrap();
            let told_of =
                !last["error"].is_null() || last["type"] == "error" || last["type"] == "response.failed";
            assert!(told_of, "{path} {text}");
            assert!(!text.contains("proxy error"), "{path} {text}");
            assert_eq!(told(&daemon, &id).await["ending"], "cut_short");
        }
    }
}

#[tokio::test]
async fn a_last_line_may_do_without_its_end() {
    let server = Scripted::ollama_saying(lines().trim_end().to_owned()).await;
    let daemon = daemon(&[&server], "").await;
    for path in [CHAT, OLLAMA] {
        for stream in [true, false] {
            let answer = ask(&daemon, path, &question(path, stream), &[]).await;
            assert!(answer.status == 200 && answer.text().contains("w1 "), "{}", answer.text());
            assert!(!stream || answer.text().ends_with('\n') && answer.text().contains(end_mark(path)));
        }
    }
}

#[tokio::test]
async fn a_caller_of_another_language_that_leaves_frees_the_server_at_once() {
    let server = Scripted::ollama(|_, mut line| async move {
        line.say(format!("{LINES}{}", self::line("w1 "))).await;
        line.until_left().await;
    })
    .await;
    let daemon = daemon(&[&server], "").await;
    for (at, path) in [CHAT, MESSAGES, RESPONSES, OLLAMA].into_iter().enumerate() {
        for stream in [true, false] {
            let before = server.posts().len();
            let mut socket = UnixStream::connect(daemon.socket()).await.unwrap();
            let (body, id) = (question(path, stream).to_string(), format!("r{at}{stream}"));
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(head.as_bytes()).await.unwrap();
            server.until_asked(before + 1).await;
            drop(socket);
            timeout(SECOND, server.until_left()).await.expect("it is closed within a second");
            let told = told(&daemon, &id).await;
            assert_eq!((told["ending"].as_str(), &*attempts(&told)), (Some("caller_gone"), "a ok"), "{told}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_said_is_refused_by_name_and_goes_to_a_server_that_understands_it() {
    let ollama = Scripted::ollama_saying(lines()).await;
    let mut body = question(CHAT, true);
    body["logit_bias"] = json!({"5": 1});
    {
        let daemon = daemon(&[&ollama], "").await;
        let answer = ask(&daemon, CHAT, &body, &[]).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, error["code"].as_str()), (400, Some("unsupported")), "{error}");
        assert!(error["message"].as_str().unwrap().contains("logit_bias"), "{error}");
        let mut odd = question(CHAT, true);
        odd["messages"] = json!([{"role": "user", "content": 5}]);
        let answer = ask(&daemon, CHAT, &odd, &[]).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, error["code"].as_str()), (400, Some("bad_request")), "{error}");
        assert!(ollama.posts().is_empty());
    }
    let openai = Scripted::saying(events()).await;
    let daemon = daemon(&[&ollama, &openai], "").await;
    let answer = ask(&daemon, CHAT, &body, &[("x-request-id", "r")]).await;
    assert_eq!((answer.status, answer.header("x-lovable-server")), (200, Some("b")), "{}", answer.text());
    assert!(openai.posts()[0].body.contains("logit_bias"), "its own bytes go on");
    let candidates = told(&daemon, "r").await["candidates"].to_string();
    assert!(candidates.contains("cannot be told"), "{candidates}");
}

#[tokio::test]
async fn a_stream_that_waits_is_kept_alive_in_the_callers_language() {
    let slow = Scripted::ollama(|_, mut line| async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        line.say(lines()).await;
    })
    .await;
    let refusing = Scripted::ollama(|_, mut line| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        line.say("HTTP/1.1 400 Bad\r\ncontent-length: 55\r\nconnection: close\r\n\r\n{\"error\":\"the input length exceeds the context length\"}\n").await;
    })
    .await;
    for (server, good) in [(&slow, true), (&refusing, false)] {
        let daemon = daemon(&[server], "").await;
        for path in [CHAT, MESSAGES, RESPONSES, OLLAMA] {
            let answer =
                ask(&daemon, path, &question(path, true), &[("x-lovable-open-after-ms", "50")]).await;
            let text = answer.text();
            assert_eq!(answer.status, 200, "{path} {text}");
            assert_eq!(text_of(path, &text), if good { "w1 w2 " } else { "" }, "{path} {text}");
            assert_eq!(text.contains(end_mark(path)), good, "{path} {text}");
            assert!(good || text.contains("error"), "{path} {text}");
            for data in text.lines().filter(|it| !it.is_empty()) {
                let known = ["data:", "event:", ":", "{"].iter().any(|it| data.starts_with(it));
                assert!(known && (path == OLLAMA) == data.starts_with('{'), "{path} {text}");
            }
        }
    }
}

#[tokio::test]
async fn vectors_are_translated_both_ways() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
    let ollama = Scripted::ollama(move |post, mut line| async move {
        let old = post.head.starts_with("post /api/embeddings ");
        let new = json!({"model": "m", "embeddings": [[0.5, 0.25]], "prompt_eval_count": 3});
        let body = if old { json!({"embedding": [0.5, 0.25]}) } else { new };
        line.say(format!("{head}{body}")).await;
    })
    .await;
    let openai = Scripted::saying(format!(
        "{head}{}",
        json!({"object": "list", "model": "m", "data": [{"index": 0, "embedding": [0.5, 0.25]}],
            "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    ))
    .await;
    for server in [&ollama, &openai] {
        let daemon = daemon(&[server], "").await;
        let body = json!({"model": "m", "input": "x"});
        let answer = ask(&daemon, "/v1/embeddings", &body, &[]).await.json();
        assert_eq!(answer["data"][0]["embedding"], json!([0.5, 0.25]), "{answer}");
        assert_eq!(answer["usage"]["prompt_tokens"], 3, "{answer}");
        let answer = ask(&daemon, "/api/embed", &body, &[]).await.json();
        assert_eq!(answer["embeddings"], json!([[0.5, 0.25]]), "{answer}");
        let body = json!({"model": "m", "prompt": "x"});
        let answer = ask(&daemon, "/api/embeddings", &body, &[]).await.json();
        assert_eq!(answer["embedding"], json!([0.5, 0.25]), "{answer}");
    }
}
