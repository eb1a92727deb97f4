//! Every path of every dialect, over the socket and over loopback TCP, with servers behind
//! that speak other languages: answers, lists, and what goes wrong before the head, after it,
//! and after the answer has begun.

use bytes::Bytes;
use lovable::simulate::{Fault, Offer, Plan, Script, Shape, Simulated, text};
use serde_json::{Value, json};

use crate::{
    caller::{Answer, Caller, request},
    daemon::{Daemon, Options},
};

/// The paths that answer, one of each language and form.
const PATHS: [&str; 7] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/v1/messages",
    "/api/chat",
    "/api/generate",
];

async fn daemon(server: &Simulated, more: &str) -> Daemon {
    Options::alone().config(more).arg("--listen").arg("127.0.0.1:0").simulated(server, "sim", 0).start().await
}

async fn tcp(daemon: &Daemon) -> Caller {
    let status = daemon.caller().get("/lovable/v1/status").await.json();
    Caller::Tcp(status["listen"].as_str().unwrap().parse().unwrap())
}

async fn simulated(shape: Shape, edit: impl FnOnce(&mut Script)) -> Simulated {
    let embedder = Offer { embeds: true, ..Offer::named("sim-embed") };
    let mut script = Script { models: vec![Offer::named("sim"), embedder], ..Script::default() };
    edit(&mut script);
    Simulated::start(shape, script).await.unwrap()
}

/// A question in the language of the path.
fn question(path: &str, model: &str, stream: bool) -> Value {
    let mut body = json!({"model": model, "stream": stream});
    let turns = json!([{"role": "user", "content": "Count for me."}]);
    match path {
        "/v1/completions" | "/api/generate" => body["prompt"] = "Count for me.".into(),
        "/v1/responses" => body["input"] = turns,
        _ => body["messages"] = turns,
    }
    if path.ends_with("/messages") {
        body["max_tokens"] = 100.into();
    }
    body
}

/// All that a whole answer says, and that it is whole in its language.
fn said(path: &str, answer: &Answer, stream: bool) -> String {
    let shown = answer.text();
    assert_eq!((answer.status, answer.clean), (200, true), "{path}: {shown}");
    let kind = answer.header("content-type").unwrap_or_default();
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    if !stream {
        assert!(kind.starts_with("application/json"), "{path}: {kind}");
        let body = answer.json();
        return match path {
            "/v1/chat/completions" => text(&body["choices"][0]["message"]["content"]),
            "/v1/completions" => text(&body["choices"][0]["text"]),
            "/v1/responses" => text(&body["output"][0]["content"][0]["text"]),
            "/api/chat" => text(&body["message"]["content"]),
            "/api/generate" => text(&body["response"]),
            _ => text(&body["content"][0]["text"]),
        };
    }
    if path.starts_with("/api") {
        assert!(kind.starts_with("application/x-ndjson"), "{path}: {kind}");
        let lines: Vec<Value> = shown.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
        let last = lines.last().unwrap();
        assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")), "{shown}");
        return lines.iter().map(|it| text(&it["message"]["content"]) + &text(&it["response"])).collect();
    }
    assert!(kind.starts_with("text/event-stream"), "{path}: {kind}");
    let (events, end) = match path {
        "/v1/chat/completions" | "/v1/completions" => (shown.strip_suffix("data: [DONE]\n\n"), None),
        "/v1/responses" => (Some(shown.as_str()), Some("response.completed")),
        _ => (Some(shown.as_str()), Some("message_stop")),
    };
    let events: Vec<Value> = events
        .unwrap_or_else(|| panic!("{path}: {shown}"))
        .lines()
        .filter_map(|it| it.strip_prefix("data: "))
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    if let Some(end) = end {
        assert_eq!(events.last().unwrap()["type"], end, "{shown}");
    }
    events
        .iter()
        .map(|it| {
            let choice = &it["choices"][0];
            let delta =
                if it["type"] == "response.output_text.delta" { &it["delta"] } else { &it["delta"]["text"] };
            text(&choice["delta"]["content"]) + &text(&choice["text"]) + &text(delta)
        })
        .collect()
}

/// The message of an error in the language of the path.
fn told(path: &str, value: &Value) -> Option<String> {
    let below = |prefix: &str| path.starts_with(prefix);
    let message = if path == "/" || below("/api") {
        &value["error"]
    } else if path.contains("/messages") {
        if value["type"] != "error" {
            return None;
        }
        &value["error"]["message"]
    } else {
        value["error"]["type"].as_str()?;
        &value["error"]["message"]
    };
    message.as_str().filter(|it| !it.is_empty()).map(str::to_owned)
}

async fn post(caller: &Caller, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
    caller.send(request("POST", path, body.to_string().into(), headers)).await.unwrap()
}

#[tokio::test]
async fn every_path_answers_streamed_and_plain_over_socket_and_tcp_whatever_is_behind() {
    for shape in Shape::ALL.iter().copied() {
        let server = simulated(shape, |_| {}).await;
        let daemon = daemon(&server, "").await;
        for caller in [daemon.caller(), tcp(&daemon).await] {
            for path in PATHS {
                for stream in [true, false] {
                    // A key is taken from everybody and goes nowhere.
                    let keys = [("x-api-key", "theirs"), ("authorization", "Bearer theirs")];
                    let answer = post(&caller, path, &question(path, "sim", stream), &keys).await;
                    assert_eq!(said(path, &answer, stream), text(8), "{path} {shape:?}: {}", answer.text());
                    assert_eq!(answer.header("x-lovable-kind"), Some(shape.kind()), "{path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_path_for_vectors_gives_them_whatever_is_behind() {
    for shape in [Shape::Ollama, Shape::Vllm, Shape::LmStudio] {
        let server = simulated(shape, |_| {}).await;
        let daemon = daemon(&server, "").await;
        for (path, body, at) in [
            ("/v1/embeddings", json!({"input": ["a", "b"]}), "/data/1/embedding/0"),
            ("/api/embed", json!({"input": ["a", "b"]}), "/embeddings/1/0"),
            ("/api/embeddings", json!({"prompt": "a"}), "/embedding/1"),
        ] {
            let mut body = body;
            body["model"] = "sim-embed".into();
            let answer = post(&daemon.caller(), path, &body, &[]).await;
            assert_eq!(answer.status, 200, "{path} {shape:?}: {}", answer.text());
            let first = answer.json().pointer(at).and_then(Value::as_f64);
            assert_eq!(first, Some(0.125), "{path} {shape:?}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn what_is_refused_before_the_head_is_told_in_the_language_of_its_path() {
    let server = simulated(Shape::Vllm, |_| {}).await;
    let daemon = daemon(&server, "[limits]\nbody = \"4KiB\"\n").await;
    let caller = daemon.caller();
    let check = |path: &str, status: u16, answer: Answer, says: &str| {
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let message = told(path, &answer.json()).unwrap_or_else(|| panic!("{path}: {}", answer.text()));
        assert!(message.contains(says), "{path}: {message}");
        assert!(answer.header("server").unwrap().starts_with("lovable/"));
    };
    for path in PATHS.into_iter().chain(["/messages", "/v1/embeddings", "/api/embed"]) {
        for stream in [true, false] {
            let mut body = question(path, "nobody-has-it", stream);
            body["input"] = "x".into();
            if path != "/v1/responses" && path != "/v1/embeddings" && path != "/api/embed" {
                body.as_object_mut().unwrap().remove("input");
            }
            check(path, 404, post(&caller, path, &body, &[]).await, "nobody-has-it");
        }
        let sent = |body: Bytes, method: &'static str| caller.send(request(method, path, body, &[]));
        check(path, 400, sent("{".into(), "POST").await.unwrap(), "JSON");
        check(path, 400, sent("[1]".into(), "POST").await.unwrap(), "object");
        check(path, 400, sent("{\"model\":5}".into(), "POST").await.unwrap(), "`");
        check(path, 413, sent(vec![b' '; 5000].into(), "POST").await.unwrap(), "4096");
        check(path, 405, sent(Bytes::new(), "GET").await.unwrap(), "POST");
        check(path, 405, sent(Bytes::new(), "DELETE").await.unwrap(), "POST");
    }
    for path in
        ["/v1/nowhere", "/v1/messages/batches", "/messages/nowhere", "/v1/responses/resp_1", "/api/nowhere"]
    {
        check(path, 404, caller.get(path).await, path);
    }
    let pull = post(&caller, "/api/pull", &json!({"model": "x"}), &[]).await;
    check("/api/pull", 404, pull, "leaves that to the servers");
    check("/", 405, post(&caller, "/", &json!({}), &[]).await, "GET");
    assert_eq!(server.counts().received, 0);
}

#[tokio::test]
async fn a_stream_that_was_opened_in_vain_ends_in_the_error_of_its_language() {
    let server = simulated(Shape::Vllm, |it| it.plan = Plan::Always(Fault::StallBeforeHead)).await;
    let daemon = daemon(&server, "").await;
    let headers = [("x-lovable-timeout-ms", "300"), ("x-lovable-open-after-ms", "100")];
    for path in PATHS {
        let answer = post(&daemon.caller(), path, &question(path, "sim", true), &headers).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        ends_in_an_error(path, &answer);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_ends_in_the_error_of_its_language() {
    for shape in [Shape::Ollama, Shape::Vllm] {
        let server = simulated(shape, |it| it.plan = Plan::Always(Fault::DieMidStream)).await;
        let daemon = daemon(&server, "").await;
        // Each waits for the server to come back; all together wait no longer.
        let checks = PATHS.iter().map(async |path| {
            let answer = post(&daemon.caller(), path, &question(path, "sim", true), &[]).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert!(answer.text().contains("w3"), "{path}: {}", answer.text());
            ends_in_an_error(path, &answer);
            let answer = post(&daemon.caller(), path, &question(path, "sim", false), &[]).await;
            assert_eq!(answer.status, 502, "{path}: {}", answer.text());
            assert!(told(path, &answer.json()).is_some(), "{path}: {}", answer.text());
        });
        futures_util::future::join_all(checks).await;
    }
}

fn ends_in_an_error(path: &str, answer: &Answer) {
    let shown = answer.text();
    let last = shown.trim_end().lines().last().unwrap_or_default();
    let last: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap_or(last))
        .unwrap_or_else(|error| panic!("{path}: {error} in {shown}"));
    let message = match (path, last["type"].as_str()) {
        ("/v1/responses", Some("error")) => last["message"].as_str().map(str::to_owned),
        ("/v1/responses", _) => last["response"]["error"]["message"].as_str().map(str::to_owned),
        _ => told(path, &last),
    };
    assert!(message.is_some(), "{path}: {shown}");
    assert!(!shown.contains("[DONE]") && !shown.contains("message_stop"), "{path}: {shown}");
    assert!(!shown.contains("\"done\":true") && !shown.contains("response.completed"), "{path}: {shown}");
}

#[tokio::test]
async fn a_program_that_only_knows_ollama_finds_what_it_asks_for() {
    let server = simulated(Shape::Vllm, |_| {}).await;
    let daemon = daemon(&server, "[aliases]\n\"nice\" = \"sim\"\n").await;
    let caller = tcp(&daemon).await;
    let greeting = caller.get("/").await;
    assert_eq!((greeting.status, greeting.text().as_str()), (200, "Ollama is running"));
    // Whoever looks for servers sees what this is.
    assert!(greeting.header("server").unwrap().starts_with("lovable/"));
    for path in ["/", "/api/version", "/api/tags"] {
        let head = caller.send(request("HEAD", path, Bytes::new(), &[])).await.unwrap();
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
    assert!(caller.get("/api/version").await.json()["version"].is_string());
    let tags = caller.get("/api/tags").await.json();
    let names: Vec<_> = tags["models"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["nice", "sim", "sim-embed"]);
    assert_eq!(caller.get("/api/ps").await.json()["models"].as_array().unwrap().len(), 3);
    // `ollama run` looks at the model, has it loaded, and then talks.
    for wanted in
        [json!({"model": "sim"}), json!({"name": "sim"}), json!({"model": "nice"}), json!({"model": "auto"})]
    {
        let shown = post(&caller, "/api/show", &wanted, &[]).await;
        assert_eq!(shown.status, 200, "{wanted}: {}", shown.text());
        assert!(shown.json()["details"].is_object() && shown.json()["capabilities"].is_array());
    }
    let missing = post(&caller, "/api/show", &json!({"model": "simm"}), &[]).await;
    assert_eq!(missing.status, 404);
    assert!(missing.json()["error"].as_str().unwrap().contains("nearest: sim"), "{}", missing.text());
    for (path, body) in [
        ("/api/generate", json!({"model": "sim", "prompt": ""})),
        ("/api/chat", json!({"model": "auto", "messages": []})),
    ] {
        let loaded = post(&caller, path, &body, &[]).await;
        assert_eq!(
            (loaded.status, &loaded.json()["done_reason"]),
            (200, &json!("load")),
            "{}",
            loaded.text()
        );
    }
    let unknown = post(&caller, "/api/generate", &json!({"model": "nope"}), &[]).await;
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    assert_eq!(server.counts().received, 0, "nothing was generated for all that");
    let answer = post(&caller, "/api/chat", &question("/api/chat", "nice", true), &[]).await;
    assert_eq!(said("/api/chat", &answer, true), text(8));
}

#[tokio::test]
async fn models_are_listed_in_the_language_of_whoever_asks() {
    let server = simulated(Shape::LmStudio, |_| {}).await;
    let daemon = daemon(&server, "").await;
    let caller = daemon.caller();
    let entry = &caller.get("/v1/models").await.json()["data"][0];
    assert_eq!(
        (&entry["object"], &entry["id"], &entry["name"], &entry["loaded"], &entry["context_length"]),
        (&json!("model"), &json!("sim"), &json!("Sim"), &json!(true), &json!(1 << 20)),
        "{entry}"
    );
    assert!(entry["capabilities"].as_array().unwrap().contains(&json!("tools")), "{entry}");
    let version = [("anthropic-version", "2023-06-01")];
    let get = |path: &'static str| caller.send(request("GET", path, Bytes::new(), &version));
    let list = get("/v1/models").await.unwrap().json();
    assert_eq!((&list["has_more"], &list["first_id"]), (&json!(false), &json!("sim")), "{list}");
    let one = get("/v1/models/sim").await.unwrap().json();
    assert_eq!((&one["type"], &one["display_name"]), (&json!("model"), &json!("Sim")), "{one}");
    let missing = get("/v1/models/nope").await.unwrap();
    assert_eq!(missing.header("request-id"), missing.header("x-lovable-request-id"));
    assert!(missing.header("request-id").is_some(), "SDKs show it with an error");
    assert_eq!((missing.status, &missing.json()["type"]), (404, &json!("error")), "{}", missing.text());
}

#[tokio::test]
async fn tokens_are_counted_by_who_can_and_else_estimated() {
    let body = json!({"model": "sim", "messages": [{"role": "user", "content": "Count for me."}]});
    for (shape, by) in
        [(Shape::Vllm, "tokenizer"), (Shape::LlamaCpp, "tokenizer"), (Shape::Ollama, "estimate")]
    {
        let server = simulated(shape, |_| {}).await;
        let daemon = daemon(&server, "").await;
        for path in ["/v1/messages/count_tokens", "/messages/count_tokens", "/v1/v1/messages/count_tokens"] {
            let answer = post(&daemon.caller(), path, &body, &[]).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.json()["input_tokens"].as_u64().is_some_and(|it| it > 0), "{}", answer.text());
            assert_eq!(answer.header("x-lovable-counted-by"), Some(by), "{shape:?}");
        }
        assert_eq!(server.counts().received, 0, "nothing was generated for it");
        let mut unknown = body.clone();
        unknown["model"] = "nope".into();
        let answer = post(&daemon.caller(), "/v1/messages/count_tokens", &unknown, &[]).await;
        assert_eq!((answer.status, &answer.json()["error"]["type"]), (404, &json!("not_found_error")));
        let answer = post(&daemon.caller(), "/v1/messages/count_tokens", &json!({"model": "sim"}), &[]).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
}
